"""Snapshots: boot once, save, and start every attempt from the saved state.

The guest's memory lives in a file per NUMA node while the snapshot is made; these files then *are* the memory part of
the snapshot, mapped copy-on-write by each guest that starts from it (QEMU's ``x-ignore-shared``). Nothing is read
until the guest touches it, and guests side by side share the pages they only read.

Every attempt gets a fresh QEMU. To load the state into one that goes on running would save a tenth of a second at
best: from the start to the agent's answer a fresh QEMU took 0.41 s on x86_64 and 0.45 s on aarch64, ``snapshot-load``
in place 0.26 and 0.35 s (best of 15 each, in turns, on a busy host, QEMU 7.2 under TCG; medians 0.77 and 0.58 s
against 0.59 and 0.68 s). For that an attempt would depend on a QEMU, and on disks, that the last one may have
crashed, hung or filled, and no two guests would share memory.

A mounted file system would believe in writes that the next guest's disk never saw: so it is mounted after the start
(`harness.guest.furnish`).
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from harness import tools
from harness.cache import Cache, digest
from harness.deadline import Deadline
from harness.errors import ChannelError, GuestError, HostError, Tell
from harness.guest import qemu
from harness.guest.guest import Guest, Snapshot, leave_memory_to_its_file, start
from harness.guest.machine import MachineShape
from harness.guest.speed import Speed
from harness.kernel.kernel import Kernel

_SAVE_SECONDS = 60.0
_FORMAT = "snapshot-4"  # another one when snapshots are made differently
_KIND = "snapshots"
_SEAL = "seal.json"  # what the files were like when the snapshot was made
_FULL_BYTES = 1 << 20  # with less than this left a disk is full: QEMU fills the file in large pieces
# Old snapshots go when a new one is made. One takes 100 to 200 MB, whatever the guest's memory.
_UNUSED_SECONDS = 14 * 86400.0
_MOST_BYTES = 6 << 30


def save(guest: Guest, state: Path) -> None:
    """Save a ready guest's device state to ``state``; the guest stays stopped afterwards."""
    leave_memory_to_its_file(guest.monitor)
    descriptor = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        guest.monitor.send_fd(descriptor, "state")
    finally:
        os.close(descriptor)
    guest.monitor.execute("migrate", {"uri": "fd:state"})
    deadline = Deadline(_SAVE_SECONDS, "QEMU to save the guest")
    while True:
        progress = guest.monitor.execute("query-migrate")
        if progress["status"] == "completed":
            return
        if progress["status"] in {"failed", "cancelled"}:
            raise ChannelError(
                f"QEMU could not save the guest: {progress.get('error-desc', 'no reason given')}"
            )
        guest.check()
        deadline.check()
        time.sleep(0.01)


def key(
    *,
    kernel: Kernel,
    initramfs: Path,
    shape: MachineShape,
    acceleration: qemu.Acceleration,
    images: Sequence[Path | None] = (),
) -> str:
    """What a snapshot depends on: QEMU's version and whole command line, the kernel, the initramfs, the disks."""
    line = qemu.command(
        kernel=kernel,
        initramfs=Path("initramfs"),
        shape=shape,
        acceleration=acceleration,
        console=Path("console"),
        descriptors=qemu.Descriptors(monitor=0, channel=0, disks=tuple(0 for _ in shape.disks)),
    )
    disks = [str(disk) for disk in shape.disks]
    # The guest has looked at its disks (for partitions): an image is named by the key of its own cache entry.
    contents = [image.parent.name for image in images if image is not None]
    parts = (tools.identity(kernel.arch.qemu), json.dumps([line, disks, contents]), kernel.content)
    return digest(_FORMAT, *parts, initramfs)


def obtain(
    *,
    kernel: Kernel,
    initramfs: Path,
    shape: MachineShape,
    acceleration: qemu.Acceleration,
    speed: Speed,
    cache: Cache,
    images: Sequence[Path | None] = (),
    keep: Path | None = None,
    tell: Tell = lambda line: None,
) -> Snapshot:
    """The snapshot of this guest, made by a boot if the cache has none that is whole.

    Raises what `start` and `ready` raise of that boot, `ChannelError` and `DeadlineError` if it cannot be saved, and
    `HostError` if QEMU cannot restore what it saved, or the cache cannot take it. ``keep`` is a folder that gets
    console and QEMU's words of a boot that failed; ``tell`` is told when a damaged snapshot is dropped.
    """

    started = functools.partial(
        start,
        kernel=kernel,
        initramfs=initramfs,
        shape=shape,
        acceleration=acceleration,
        speed=speed,
        images=images,
    )

    def make(folder: Path) -> None:
        try:
            boot(folder)
        except GuestError as error:
            # The guest's memory is a file here: on a full disk QEMU dies of SIGBUS, which says nothing to anybody.
            space = os.statvfs(folder)
            if space.f_bavail * space.f_frsize < _FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
            for name in ("console.log", "qemu.log", "qemu.command"):
                if keep is not None and (folder / name).exists():
                    shutil.copyfile(folder / name, keep / name)
            raise
        prove(folder)
        _seal(folder, shape)

    def boot(folder: Path) -> None:
        with kernel.image.open("rb") as image:
            (folder / qemu.KERNEL_HEAD).write_bytes(image.read(qemu.KERNEL_HEAD_BYTES))
        with started(folder=folder, ram=folder) as guest:
            guest.ready()
            save(guest, folder / "state")

    def prove(folder: Path) -> None:
        """A QEMU that saves need not be one that restores: start from it once before anybody relies on it."""
        proof = folder / "proof"
        proof.mkdir()
        try:
            with started(folder=proof, snapshot=Snapshot(folder=folder)) as guest:
                guest.ready()
        except GuestError as error:
            raise HostError(f"QEMU cannot restore what it saved: {error.message}") from error
        shutil.rmtree(proof)

    name = key(kernel=kernel, initramfs=initramfs, shape=shape, acceleration=acceleration, images=images)
    what = f"the snapshot of {kernel.release}"
    held = cache.hold(_KIND, name)
    trouble = damage(Snapshot(folder=held.path), shape) if held else None
    if held and trouble:
        tell(f"{what} is dropped: {trouble}")
        cache.drop(held)
        held = None
    if not held:
        cache.entry(_KIND, name, make, seconds=3 * speed.boot_deadline + _SAVE_SECONDS, what=what)
        held = cache.hold(_KIND, name)
        if not held:
            raise HostError(f"{what} was removed by somebody else")
        cache.prune(_KIND, unused_seconds=_UNUSED_SECONDS, most_bytes=_MOST_BYTES)
    # QEMU (7.2) opens a memory file for writing even if it only maps it copy-on-write.
    if not all(os.access(held.path / name, os.W_OK) for name in qemu.memory_files(shape)):
        raise HostError(
            f"{what} is of no use in {cache.root}, which is read-only",
            mend="make it writable, or point XDG_CACHE_HOME elsewhere",
        )
    return Snapshot(folder=held.path, held=held)


def damage(snapshot: Snapshot, shape: MachineShape) -> str | None:
    """In what a snapshot is not as it was made, in words; None if it is whole. Takes a millisecond.

    Of the memory only size and time are looked at. QEMU itself would fill up a memory file that is missing, or empty,
    with zeros and go on, and may take a state in which bytes have changed for another state.
    """
    try:
        made = json.loads((snapshot.folder / _SEAL).read_bytes())
        found = _marks(snapshot.folder, shape)
    except (OSError, ValueError) as error:
        return f"it is incomplete ({error})"
    changed = [name for name in found if found[name] != made.get(name)]
    return f"{', '.join(changed)} changed since it was made" if changed else None


def _seal(folder: Path, shape: MachineShape) -> None:
    (folder / _SEAL).write_text(json.dumps(_marks(folder, shape)), encoding="utf-8")


def _marks(folder: Path, shape: MachineShape) -> dict[str, str]:
    marks = {"state": digest(folder / "state")}
    for name in qemu.memory_files(shape):
        status = (folder / name).stat()
        marks[name] = f"{status.st_size} {status.st_mtime_ns}"
    return marks
