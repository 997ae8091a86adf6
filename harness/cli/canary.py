"""What ``cowpen doctor`` proves with a guest: that it can be compiled for, booted, saved and restored."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from harness.arch import Arch
from harness.cache import Cache
from harness.cli.check import Check
from harness.console.display import escape
from harness.errors import CowpenError
from harness.guest import accelerator, initramfs, snapshot
from harness.guest.accelerator import Proof
from harness.guest.guest import Snapshot, start
from harness.guest.machine import Disk, MachineShape
from harness.guest.speed import share
from harness.kernel.kernel import Kernel, resolve
from harness.program.init import compile_init

_KERNEL = "debian:6.1"
_RESTORES = 3


def examine(arch: Arch, cache: Cache, *, offline: bool) -> Iterator[Check]:
    """The checks of one architecture's guests; what the first cannot do the others are not asked for."""
    try:
        init = compile_init(arch, cache)
    except (CowpenError, OSError) as error:
        library = "libc6-dev" if arch.native else f"libc6-dev-{arch.debian}-cross"
        yield _failed(f"{arch.name} programs", "do not compile", error, f"apt-get install {library}")
        return
    yield Check(topic=f"{arch.name} programs", good=True, says=f"{arch.compiler()} links them statically")
    look = f"cowpen shell --arch {arch.name}, to see what the guest says"
    try:
        kernel = resolve(_KERNEL, arch, cache, offline=offline, tell=_tell)
        proof = accelerator.prove(kernel, init, cache, tell=_tell)
    except (CowpenError, OSError) as error:
        yield _failed(f"{arch.name} guests", "not proved", error, look)
        return
    yield _accelerator(arch, proof, look)
    if proof.boot_seconds is None:
        return
    try:
        yield _snapshots(kernel, init, proof, cache)
    except (CowpenError, OSError) as error:
        yield _failed(f"{arch.name} snapshots", "every attempt has to boot", error, look)


def _failed(topic: str, what: str, error: CowpenError | OSError, mend: str) -> Check:
    """The check that ``error`` decided; ``mend`` unless the error itself knows better."""
    if isinstance(error, CowpenError):
        return Check(topic=topic, good=False, says=f"{what}: {error.message}", mend=error.mend or mend)
    return Check(topic=topic, good=False, says=f"{what}: {error.strerror or error}", mend=mend)


def _accelerator(arch: Arch, proof: Proof, look: str) -> Check:
    """Which one, why, and what it costs: a ratio only of what was measured."""
    says = f"{proof.accelerator}: {proof.reason} ({proof.kernel})"
    ratio = None
    if proof.tcg_seconds and proof.kvm_seconds:
        ratio = proof.tcg_seconds / proof.kvm_seconds
        says += f"; KVM is {ratio:.1f} times as fast as TCG"
    good = proof.boot_seconds is not None
    return Check(
        topic=f"{arch.name} guests",
        good=good,
        says=says if good else proof.reason,
        mend="" if good else look,
        measured={
            "accelerator": proof.accelerator,
            "boot_seconds": proof.boot_seconds,
            "tcg_seconds": proof.tcg_seconds,
            "kvm_seconds": proof.kvm_seconds,
            "kvm_times_faster": ratio,
        },
    )


def _snapshots(kernel: Kernel, init: Path, proof: Proof, cache: Cache) -> Check:
    """Boot a guest, take its snapshot from the cache or make it, start some from it, and compare the times."""
    # With a disk, as the guests of a trial have one, if the host can serve it.
    disks = (Disk(),) if shutil.which("nbdkit") else ()
    shape = MachineShape(memory_mib=256, disks=disks)
    packed = initramfs.obtain(kernel, shape, init, cache)
    speed = proof.speed(load=share(1.0))
    descriptors = 0

    def seconds(saved: Snapshot | None) -> float:
        nonlocal descriptors
        with tempfile.TemporaryDirectory(prefix="cowpen-doctor-") as folder:
            before = _open_descriptors()
            begin = time.monotonic()
            with start(
                kernel=kernel,
                initramfs=packed,
                shape=shape,
                acceleration=proof.acceleration,
                speed=speed,
                folder=Path(folder),
                snapshot=saved,
            ) as guest:
                guest.ready()
                took = time.monotonic() - begin
                descriptors = max(descriptors, _open_descriptors() - before)
        return took

    cold = seconds(None)
    saved = snapshot.obtain(
        kernel=kernel,
        initramfs=packed,
        shape=shape,
        acceleration=proof.acceleration,
        speed=speed,
        cache=cache,
        images=[None] * len(disks),
        tell=_tell,
    )
    restored = statistics.median(seconds(saved) for _ in range(_RESTORES))
    return Check(
        topic=f"{kernel.arch.name} snapshots",
        good=True,
        says=f"a guest is ready after {restored:.2f} s, cold after {cold:.2f} s: {cold / restored:.1f} times faster",
        measured={
            "cold_seconds": cold,
            "restored_seconds": restored,
            "ratio": cold / restored,
            "descriptors": descriptors,
        },
    )


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _tell(line: str) -> None:
    click.echo(escape(line), err=True)
