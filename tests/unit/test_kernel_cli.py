"""`cowpen kernels` as a command."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.arch import ARCHES
from harness.cli.kernels import kernels
from harness.errors import UserError
from harness.kernel.build import fragment_files
from harness.kernel.definition import define
from harness.kernel.names import definition_files
from harness.kernel.spec import KNOWN_SPECS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "cowpen/kernels/entry"
    (folder / "lib/modules/6.1.0-9-cloud-amd64").mkdir(parents=True)
    (folder / "image").write_bytes(b"")
    provenance = {
        "spec": "debian:6.1",
        "arch": "x86_64",
        "release": "6.1.0-9-cloud-amd64",
        "version": "6.1.27-1",
        "sha256": "00",
        "bytes": 5_000_000,
        "fetched": "2026-11-21T00:00:00+00:00",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def test_list_json() -> None:
    result = CliRunner().invoke(kernels, ["list", "--json"])
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    found = {(row["spec"], row["arch"]): row for row in rows}
    assert found["debian:6.1", "x86_64"]["version"] == "6.1.27-1"
    assert found["debian:6.1", "aarch64"]["cached"] is False
    assert ("debian:6.12-16k", "x86_64") not in found
    assert {row["spec"] for row in rows} == {*KNOWN_SPECS, *definition_files()}
    defined = found["debug-vm-6.12", "aarch64"]
    assert (defined["cached"], defined["title"]) == (False, define("debug-vm-6.12").title)


def test_list_for_people() -> None:
    result = CliRunner().invoke(kernels, ["list"])
    assert result.exit_code == 0
    assert "6.1.0-9-cloud-amd64" in result.stdout
    assert "5 MB" in result.stdout
    assert "not cached" in result.stdout


def test_list_tells_of_damage(cache: Path) -> None:
    (cache / "provenance.json").write_text("{")
    result = CliRunner().invoke(kernels, ["list", "--json"])
    assert result.exit_code == 0
    assert "is damaged" in result.stderr
    assert all(not json.loads(line)["cached"] for line in result.stdout.splitlines())


def test_fetch_checks_all_before_it_fetches_any() -> None:
    result = CliRunner().invoke(kernels, ["fetch", "debian:6.1", "debian:6.1O", "--arch", "x86_64"])
    assert isinstance(result.exception, UserError)
    assert result.stdout == ""


def test_every_definition_is_whole() -> None:
    """Its file says what it must, and its fragments and patches are there."""
    for name in definition_files():
        found = define(name)
        for arch in found.arches:
            assert fragment_files(found.fragments, ARCHES[arch])
        assert all(patch.is_file() for patch in found.patches)


def test_build_takes_what_is_built(tmp_path: Path) -> None:
    result = CliRunner().invoke(kernels, ["build", "debian:6.1"])
    assert isinstance(result.exception, UserError)
    assert "debian:6.1 is not built from source: cowpen kernels fetch" in str(result.exception)
    result = CliRunner().invoke(kernels, ["build", f"tree:{tmp_path}/none"])
    assert str(result.exception) == f"no folder {tmp_path}/none"


def test_prune(cache: Path) -> None:
    (cache / "image").write_bytes(bytes(3_000_000))
    kept = CliRunner().invoke(kernels, ["prune"])
    assert kept.exit_code == 0
    assert re.search(r"kernels +0 MB removed, +3 MB left", kept.stdout)
    program = cache.parents[1] / "programs/one"
    program.mkdir(parents=True)
    (program / "program").write_bytes(bytes(2_000_000))
    os.utime(cache, (time.time() - 60, time.time() - 60))
    gone = CliRunner().invoke(kernels, ["prune", "--keep", "0.004"])
    assert re.search(r"programs +0 MB removed, +2 MB left", gone.stdout), "it is the later one"
    assert re.search(r"kernels +3 MB removed, +0 MB left", gone.stdout)
    assert not cache.exists()


def test_show_json(tmp_path: Path) -> None:
    data = bytearray(0x400)
    data[0x202:0x206] = b"HdrS"
    data[0x206:0x208] = b"\x0f\x02"
    data[0x20E:0x210] = b"\x00\x01"
    data[0x236] = 1
    data[0x300:0x306] = b"6.7.8\0"
    (tmp_path / "bzImage").write_bytes(data)
    (tmp_path / "config").write_text("CONFIG_AIO=y\n")
    spec = f"path:{tmp_path}/bzImage,config={tmp_path}/config"
    result = CliRunner().invoke(kernels, ["show", spec, "--arch", "x86_64", "--json"])
    assert result.exit_code == 0, result.exception
    facts = json.loads(result.stdout)
    assert facts["release"] == "6.7.8"
    assert facts["config"]["CONFIG_AIO"] == "y"
    assert facts["config"]["CONFIG_KASAN"] == "n"
    assert facts["files"]["modules"] is None
    people = CliRunner().invoke(kernels, ["show", spec, "--arch", "x86_64"])
    assert "6.7.8" in people.stdout
