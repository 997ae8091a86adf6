"""``cowpen doctor`` on hosts that lack something. No guest boots: the cache is empty, the network is not asked."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from trouble import cowpen, path_without, small_disk

from harness.arch import X86_64
from harness.cli import canary, doctor
from harness.errors import HostError
from harness.guest.accelerator import Proof

KEYS = {"topic", "good", "says", "mend", "measured"}
GUESTS = {"x86_64 guests", "aarch64 guests"}


def lacking(folder: Path, *before: str, **env: str) -> dict[str, dict[str, Any]]:
    """What the real command finds missing, by topic; it must say how to mend it, and end with 125."""
    places = {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}
    ended = cowpen("doctor", "--offline", "--json", folder=folder, env=places | env, before=before)
    checks = ended.lines
    assert all(set(check) == KEYS for check in checks)
    assert all(bool(check["mend"]) != check["good"] for check in checks)
    assert ended.code == (0 if all(check["good"] for check in checks) else 125)
    return {check["topic"]: check for check in checks if not check["good"]}


@pytest.mark.slow
def test_only_kernels_are_missing_here(tmp_path: Path) -> None:
    missing = lacking(tmp_path)
    assert set(missing) == GUESTS
    assert missing["aarch64 guests"]["mend"].startswith("cowpen kernels fetch debian:6.1 --arch aarch64")


@pytest.mark.slow
def test_tools_that_are_missing(tmp_path: Path) -> None:
    path = path_without(tmp_path / "bin", "nbdkit", X86_64.qemu, "aarch64-linux-gnu-gcc")
    missing = lacking(tmp_path, **path)
    assert missing["nbdkit"]["mend"] == "apt-get install nbdkit"
    assert missing[X86_64.qemu]["mend"] == "apt-get install qemu-system-x86"
    assert missing["aarch64-linux-gnu-gcc"]["mend"] == "apt-get install gcc-aarch64-linux-gnu"
    assert missing["aarch64 programs"]["mend"] == "apt-get install gcc-aarch64-linux-gnu"
    assert set(missing) <= {"nbdkit", X86_64.qemu, "aarch64-linux-gnu-gcc", "aarch64 programs", *GUESTS}


@pytest.mark.slow
def test_limits_that_are_low(tmp_path: Path) -> None:
    missing = lacking(tmp_path, "prlimit", "--nofile=60", "--fsize=100000000")
    assert set(missing) == {"open files", "file size", *GUESTS}
    files = missing["open files"]
    assert files["measured"]["limit"] == 60 < files["measured"]["needed"]
    assert files["mend"].startswith("ulimit -n ")
    assert missing["file size"]["mend"] == "ulimit -f unlimited"


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = str(tmp_path / "file/below")
    missing = lacking(tmp_path, XDG_CACHE_HOME=below, XDG_STATE_HOME=below)
    assert {"cache", "results"} <= set(missing)
    assert "XDG_STATE_HOME" in missing["results"]["mend"]
    assert below in missing["cache"]["says"]


@pytest.mark.slow
def test_disks_that_are_small(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64m") as disk:
        missing = lacking(tmp_path, XDG_CACHE_HOME=str(disk), XDG_STATE_HOME=str(disk))
    assert set(missing) == {"disk", "disk for results", *GUESTS}
    assert missing["disk"]["measured"]["free_bytes"] <= 64 << 20
    assert "XDG_CACHE_HOME" in missing["disk"]["mend"]


@pytest.mark.slow
def test_text_for_people(tmp_path: Path) -> None:
    ended = cowpen("doctor", "--offline", folder=tmp_path, env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert ended.code == 125
    assert f"ok       {'gcc':<22}  /" in ended.out
    assert "MISSING  x86_64 guests" in ended.out
    assert "         mend with: cowpen kernels fetch debian:6.1 --arch x86_64" in ended.out


def test_no_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    check = doctor._temporary()
    assert (check.good, check.mend) == (False, "chmod 1777 /tmp")


def test_memory_for_no_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.trial.jobs.available_mib", lambda: 500)
    check = doctor._guests_at_once()
    assert not check.good
    assert "500 MiB of memory" in check.says
    assert check.measured["auto"] == 1


def test_cache_size_counts_what_is_on_disk(tmp_path: Path) -> None:
    from harness.cache import Cache

    for kind, size in (("snapshots", 300_000), ("kernels", 100_000), ("tmp", 500_000)):
        (tmp_path / kind / "key").mkdir(parents=True)
        (tmp_path / kind / "key/file").write_bytes(os.urandom(size))
    with (tmp_path / "snapshots/key/ram").open("wb") as file:
        file.truncate(1 << 30)  # mostly a hole, as a guest's memory is
    check = doctor._cached(Cache(tmp_path))
    assert set(check.measured["bytes"]) == {"snapshots", "kernels"}
    assert 300_000 <= check.measured["bytes"]["snapshots"] < 1_000_000


@pytest.mark.parametrize(
    ("tcg", "kvm", "ratio"), [(2.0, None, None), (2.0, 0.5, 4.0), (2.0, 8.0, 0.25), (None, None, None)]
)
def test_ratio_only_of_what_was_measured(tcg: float | None, kvm: float | None, ratio: float | None) -> None:
    proof = Proof(
        arch="x86_64",
        accelerator="tcg",
        boot_seconds=tcg,
        reason="TCG boots in 2.0 s; why",
        kernel="6.1.0",
        tcg_seconds=tcg,
        kvm_seconds=kvm,
    )
    check = canary._accelerator(X86_64, proof, "look")
    assert check.measured["kvm_times_faster"] == ratio
    assert ("as fast" in check.says) == (ratio is not None)
    assert check.good == (tcg is not None)
    assert check.mend == ("" if tcg else "look")


@pytest.mark.parametrize(
    ("error", "says", "mend"),
    [
        (HostError("no disk", mend="buy one"), "not proved: no disk", "buy one"),
        (HostError("no disk"), "not proved: no disk", "look"),
        (OSError(errno.EMFILE, "Too many open files"), "not proved: Too many open files", "look"),
    ],
)
def test_trouble_of_the_canary(error: HostError | OSError, says: str, mend: str) -> None:
    check = canary._failed("x86_64 guests", "not proved", error, "look")
    assert (check.good, check.says, check.mend) == (False, says, mend)
