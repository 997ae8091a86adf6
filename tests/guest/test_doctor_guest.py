"""``cowpen doctor`` with everything there: what it says it has proved it has proved with guests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trouble import cowpen

from harness.arch import ARCHES, get_arch
from harness.cache import Cache
from harness.kernel.kernel import resolve

pytestmark = pytest.mark.guest


def test_all_is_proved(tmp_path: Path, user_cache: Cache) -> None:
    for arch in ARCHES:
        resolve("debian:6.1", get_arch(arch), user_cache)
    ended = cowpen("doctor", "--json", folder=tmp_path, seconds=300)
    checks = {check["topic"]: check for check in ended.lines}
    for arch in ARCHES:
        assert checks[f"{arch} programs"]["good"]
        guests = checks[f"{arch} guests"]["measured"]
        assert guests["boot_seconds"] > 0
        if guests["kvm_seconds"] is None:
            assert "as fast" not in checks[f"{arch} guests"]["says"]
        snapshots = checks[f"{arch} snapshots"]
        assert snapshots["good"], snapshots
        measured = snapshots["measured"]
        assert measured["ratio"] == pytest.approx(measured["cold_seconds"] / measured["restored_seconds"])
        assert measured["ratio"] > 1, "what is restored is no faster than what boots"
        # One socket each for monitor, channel and disk, a pidfd for QEMU and for nbdkit, at least.
        assert 5 <= measured["descriptors"] <= 20
    files = checks["open files"]["measured"]
    assert files["descriptors"] == max(
        checks[f"{arch} snapshots"]["measured"]["descriptors"] for arch in ARCHES
    )
    at_once = checks["guests at once"]["measured"]
    assert 1 <= at_once["auto"] <= at_once["most"] <= 2 * at_once["cores"]
    assert checks["cache size"]["measured"]["bytes"]["snapshots"] > 1 << 20
    assert any(topic.startswith("kernel debian:6.1") for topic in checks)


def test_qemu_that_cannot_restore(tmp_path: Path, user_cache: Cache) -> None:
    """It boots and saves, and ends when it is to restore: said, and nothing of it is kept."""
    resolve("debian:6.1", get_arch("x86_64"), user_cache)
    real = get_arch("x86_64").qemu
    broken = tmp_path / "bin" / real
    broken.parent.mkdir()
    broken.write_text(
        "#!/bin/sh\n"
        'case "$*" in *-incoming*) echo "no restoring here" >&2; exit 1;; esac\n'
        f'PATH="${{PATH#*:}}" exec {real} "$@"\n'
    )
    broken.chmod(0o755)
    path = f"{broken.parent}{os.pathsep}{os.environ['PATH']}"
    ended = cowpen("doctor", "--json", folder=tmp_path, env={"PATH": path}, seconds=300)
    checks = {check["topic"]: check for check in ended.lines}
    assert ended.code == 125
    assert checks["x86_64 guests"]["good"]
    assert not checks["x86_64 snapshots"]["good"]
    assert "no restoring here" in checks["x86_64 snapshots"]["says"]
    assert checks["aarch64 snapshots"]["good"]
