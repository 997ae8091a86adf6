"""KVM or TCG, decided by proof: a canary boots under each, and the clock decides.

``/dev/kvm`` that opens read-write proves nothing: on some hosts QEMU then ends in ``KVM internal error``, or crawls
a hundred times slower than emulation. Only a boot tells, and its time scales every deadline.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from pathlib import Path

from harness import tools
from harness.arch import Arch
from harness.cache import Cache, digest
from harness.errors import GuestError, HostError, Tell
from harness.guest import qemu
from harness.guest.guest import start
from harness.guest.initramfs import obtain
from harness.guest.machine import MachineShape
from harness.guest.speed import Speed, others_per_core
from harness.guest.ticks import host_khz
from harness.kernel.kernel import Kernel

KVM_DEVICE = Path("/dev/kvm")
TCG = qemu.Acceleration(name="tcg")
KVM = qemu.Acceleration(name="kvm")
_CANARY_SHAPE = MachineShape(memory_mib=256)
_CANARY_SECONDS = 90.0  # the first boot on an unknown host; the slowest seen took 15 s
_OTHERS_SECONDS = 3 * _CANARY_SECONDS  # another cowpen's canaries, and what it takes to end them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What a canary showed about guests of one architecture on this host.

    ``reason`` says in a sentence why this accelerator; ``kernel`` is the release that was booted, empty when
    nothing could be booted and the proof is only a careful assumption (``boot_seconds`` is None then). What else the
    host did meanwhile is taken out of ``boot_seconds``, which is remembered for good; the two others are as measured.
    """

    arch: str
    accelerator: str
    boot_seconds: float | None
    reason: str
    kernel: str = ""
    tcg_seconds: float | None = None
    kvm_seconds: float | None = None
    host_khz: int | None = None
    """Remembered, for it is part of the command line, and so of a snapshot's key."""

    @property
    def acceleration(self) -> qemu.Acceleration:
        return qemu.Acceleration(name=self.accelerator, host_khz=self.host_khz)

    def speed(self, *, load: float = 1.0) -> Speed:
        """The speed that scales deadlines, with ``load`` guests per core."""
        return Speed(boot_seconds=self.boot_seconds, load=load)


def kvm_obstacle(arch: Arch) -> str | None:
    """Why KVM need not even be tried, or None if only a boot can tell."""
    if not arch.native:
        return f"this host is {platform.machine()}: {arch.name} guests can only be emulated"
    if not KVM_DEVICE.exists():
        return f"{KVM_DEVICE} does not exist"
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return f"{KVM_DEVICE} is not writable for this user (add the user to the group kvm)"
    return None


def remembered(arch: Arch, cache: Cache) -> Proof | None:
    """The proof made earlier on this host with this QEMU, if any."""
    entry = cache.get("accelerator", _key(arch))
    if entry is None:
        return None
    return Proof(**json.loads((entry / "proof.json").read_text(encoding="utf-8")))


def prove(kernel: Kernel, init: Path, cache: Cache, *, tell: Tell = lambda line: None) -> Proof:
    """The accelerator for guests of ``kernel``'s architecture, proved by booting it and remembered.

    ``init`` is the guest's PID 1. If ``kernel`` does not boot under TCG, nothing is proved nor remembered: TCG
    is assumed, with careful deadlines, and the boot's trouble is left to whoever boots it next.
    """
    arch = kernel.arch
    proof = remembered(arch, cache)
    if proof is not None:
        return proof

    # The canaries boot in the entry's folder: what is left of them if cowpen is killed is swept with it, and two that
    # begin at once do not take each other's time.
    def make(folder: Path) -> None:
        tell(f"timing a canary boot of {kernel.release} ({arch.name})")
        khz = host_khz()
        slow = dataclasses.replace(TCG, host_khz=khz)
        tcg = _timed_boot(kernel, initramfs, slow, Speed(boot_limit=_CANARY_SECONDS), folder)
        proof = dataclasses.replace(_against_kvm(kernel, initramfs, tcg, folder), host_khz=khz)
        tell(f"{arch.name}: {proof.reason}")
        (folder / "proof.json").write_text(json.dumps(dataclasses.asdict(proof)), encoding="utf-8")

    try:
        initramfs = obtain(kernel, _CANARY_SHAPE, init, cache)
        cache.entry("accelerator", _key(arch), make, seconds=_OTHERS_SECONDS, what="the accelerator's proof")
    except (GuestError, HostError) as error:
        return Proof(
            arch=arch.name,
            accelerator=TCG.name,
            boot_seconds=None,
            reason=f"assumed: the canary did not boot ({error.message})",
        )
    proof = remembered(arch, cache)
    assert proof is not None
    return proof


def _against_kvm(kernel: Kernel, initramfs: Path, tcg: float, folder: Path) -> Proof:
    arch = kernel.arch
    busy = max(1.0, others_per_core())
    kvm: float | None = None
    obstacle = kvm_obstacle(arch)
    if obstacle is None:
        # KVM is worth having only if it is faster, so it gets no longer than TCG took (but 3 s at least: QEMU
        # itself must start, and the clock must not decide on a hiccup of the host).
        try:
            kvm = _timed_boot(kernel, initramfs, KVM, Speed(boot_limit=max(3.0, tcg)), folder)
        except (GuestError, HostError) as error:
            obstacle = f"KVM does not run a guest here ({error.message})"
        else:
            if kvm >= tcg:
                obstacle = f"KVM boots in {kvm:.1f} s, slower than TCG"
    if obstacle is None:
        assert kvm is not None
        name, seconds, reason = KVM.name, kvm, f"KVM boots in {kvm:.1f} s, TCG in {tcg:.1f} s"
    else:
        name, seconds, reason = TCG.name, tcg, f"TCG boots in {tcg:.1f} s; {obstacle}"
    return Proof(
        arch=arch.name,
        accelerator=name,
        boot_seconds=seconds / busy,
        reason=reason,
        kernel=kernel.release,
        tcg_seconds=tcg,
        kvm_seconds=kvm,
    )


def _timed_boot(
    kernel: Kernel, initramfs: Path, acceleration: qemu.Acceleration, speed: Speed, folder: Path
) -> float:
    """Seconds from starting QEMU to the answer of the guest's init; ``folder`` keeps what it printed."""
    kept = folder / acceleration.name
    kept.mkdir()
    begin = time.monotonic()
    with start(
        kernel=kernel,
        initramfs=initramfs,
        shape=_CANARY_SHAPE,
        acceleration=acceleration,
        speed=speed,
        folder=kept,
    ) as guest:
        guest.ready()
        return time.monotonic() - begin


def _key(arch: Arch) -> str:
    """What a proof holds for: this host's processor, its QEMU, this architecture."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = next((line for line in cpuinfo.splitlines() if line.startswith(("model name", "CPU part"))), "")
    access = str(os.access(KVM_DEVICE, os.R_OK | os.W_OK))
    return digest(
        "proof-3",
        platform.node(),
        model,
        str(os.cpu_count()),
        access,
        tools.identity(arch.qemu),
        arch.name,
    )
