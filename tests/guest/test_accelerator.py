"""The accelerator is the one that has been shown to boot a guest here, whatever /dev/kvm pretends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.arch import AARCH64, X86_64, host_arch
from harness.cache import Cache
from harness.guest import accelerator
from harness.guest.speed import Speed
from harness.program.init import compile_init

if TYPE_CHECKING:
    from conftest import Prepare, Prepared

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def prepared(prepare: Prepare) -> Prepared:
    return prepare("debian:6.1", host_arch().name)


def prove(prepared: Prepared, cache: Cache, told: list[str]) -> accelerator.Proof:
    init = compile_init(prepared.kernel.arch, prepared.cache)
    return accelerator.prove(prepared.kernel, init, cache, tell=told.append)


def test_proof_is_made_once(prepared: Prepared, tmp_path: Path) -> None:
    cache, told = Cache(tmp_path), []
    proof = prove(prepared, cache, told)
    assert proof.kernel == prepared.kernel.release
    assert len(told) == 2
    assert proof.boot_seconds is not None
    assert proof.boot_seconds > 0
    assert proof.speed().scale >= 1
    # Again, with nothing to boot: it is remembered.
    assert prove(prepared, cache, told) == proof
    assert len(told) == 2
    assert accelerator.remembered(prepared.kernel.arch, cache) == proof


def test_the_faster_one_that_boots_is_taken(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every objection to KVM silenced it is tried: where it does not run, TCG is taken, and the reason said."""
    monkeypatch.setattr(accelerator, "kvm_obstacle", lambda arch: None)
    proof = prove(prepared, Cache(tmp_path), [])
    assert proof.tcg_seconds is not None
    if proof.kvm_seconds is None:
        assert proof.accelerator == "tcg"
        assert "KVM does not run a guest here (" in proof.reason
    elif proof.kvm_seconds >= proof.tcg_seconds:
        assert proof.accelerator == "tcg"
        assert "slower than TCG" in proof.reason
    else:
        assert proof.accelerator == "kvm"
        assert proof.boot_seconds == proof.kvm_seconds
    assert f"{proof.tcg_seconds:.1f} s" in proof.reason


def test_kernel_that_does_not_boot_proves_nothing(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "_CANARY_SECONDS", 0.2)
    cache = Cache(tmp_path)
    proof = prove(prepared, cache, [])
    assert proof.accelerator == "tcg"
    assert proof.boot_seconds is None
    assert "assumed" in proof.reason
    assert proof.speed().scale == Speed().scale > 1
    assert accelerator.remembered(prepared.kernel.arch, cache) is None


def test_foreign_guests_are_emulated() -> None:
    foreign = AARCH64 if host_arch() is X86_64 else X86_64
    assert "only be emulated" in (accelerator.kvm_obstacle(foreign) or "")


@pytest.mark.parametrize(
    ("exists", "mode", "words"), [(False, 0, "does not exist"), (True, 0o000, "not writable")]
)
def test_kvm_device_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, mode: int, words: str
) -> None:
    device = tmp_path / "kvm"
    if exists:
        device.touch(mode)
        monkeypatch.setattr("os.access", lambda path, wanted: False)  # root may write to anything
    monkeypatch.setattr(accelerator, "KVM_DEVICE", device)
    assert words in (accelerator.kvm_obstacle(host_arch()) or "")
