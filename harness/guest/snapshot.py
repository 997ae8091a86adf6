"""Snapshots: boot once, save, and start every attempt from the saved state.

The guest's memory lives in a file while the snapshot is made; that file then *is* the memory part of the
snapshot, mapped copy-on-write by each guest that starts from it (QEMU's ``x-ignore-shared``). Nothing is read
until the guest touches it, and guests side by side share the pages they only read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

from harness import tools
from harness.cache import Cache, digest
from harness.deadline import Deadline
from harness.errors import ChannelError, GuestError
from harness.guest import qemu
from harness.guest.guest import Guest, Snapshot, leave_memory_to_its_file, start
from harness.guest.machine import MachineShape
from harness.guest.speed import Speed
from harness.kernel.kernel import Kernel

_SAVE_SECONDS = 60.0
_FORMAT = "snapshot-2"  # another one when snapshots are made differently
_FULL_BYTES = 1 << 20  # with less than this left a disk is full: QEMU fills the file in large pieces


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


def key(*, kernel: Kernel, initramfs: Path, shape: MachineShape, acceleration: qemu.Acceleration) -> str:
    """What a snapshot depends on: QEMU's version and whole command line, the kernel, the initramfs."""
    line = qemu.command(
        kernel=kernel,
        initramfs=Path("initramfs"),
        shape=shape,
        acceleration=acceleration,
        console=Path("console"),
        descriptors=qemu.Descriptors(monitor=0, channel=0, disks=tuple(0 for _ in shape.disks)),
    )
    disks = json.dumps([str(disk) for disk in shape.disks])
    return digest(
        _FORMAT, tools.identity(kernel.arch.qemu), json.dumps(line), kernel.content, initramfs, disks
    )


def obtain(
    *,
    kernel: Kernel,
    initramfs: Path,
    shape: MachineShape,
    acceleration: qemu.Acceleration,
    speed: Speed,
    cache: Cache,
    keep: Path | None = None,
) -> Snapshot:
    """The snapshot of this guest, made by a boot if the cache has none. Raises what `start` and `ready` raise.

    ``keep`` is a folder that gets console and QEMU's words of a boot that failed.
    """

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

    def boot(folder: Path) -> None:
        with start(
            kernel=kernel,
            initramfs=initramfs,
            shape=shape,
            acceleration=acceleration,
            speed=speed,
            folder=folder,
            ram=folder / "ram",
        ) as guest:
            guest.ready()
            save(guest, folder / "state")

    entry = cache.entry(
        "snapshots",
        key(kernel=kernel, initramfs=initramfs, shape=shape, acceleration=acceleration),
        make,
        seconds=2 * speed.boot_deadline + _SAVE_SECONDS,
        what=f"the snapshot of {kernel.release}",
    )
    return Snapshot(ram=entry / "ram", state=entry / "state", console=entry / "console.log")
