"""The disk of a guest: an nbdkit of its own, spoken to over a socket pair; and the file systems that are on disks."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from pathlib import Path

from harness import tools
from harness.cache import Cache, digest
from harness.errors import UserError
from harness.guest.machine import Disk, MachineShape
from harness.process import Process

_MKFS_SECONDS = 60.0  # 0.1 s for 320 MiB
# The same bytes from the same mkfs, as far as it can be told: then an image's key says what it holds. What is left to
# the clock in xfsprogs before 6.14 are the times of the three inodes of an empty file system.
_UUID = "636f7770-656e-4000-8000-000000000001"
_ENVIRONMENT = {
    "E2FSPROGS_FAKE_TIME": "1600000000",
    "SOURCE_DATE_EPOCH": "1600000000",
    "DETERMINISTIC_SEED": "1",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSystem:
    """How a file system comes onto a disk. ``module`` is loaded if the kernel has not built it in."""

    mkfs: tuple[str, ...]
    """The command, less the image; with its folder, which is not on every user's PATH."""
    module: str
    least_mib: int
    """What its mkfs asks for at least."""


FILE_SYSTEMS = {
    "ext4": FileSystem(
        # Not lazy: a guest that goes on initializing its disk in the background would disturb what is tested.
        mkfs=(
            *("/usr/sbin/mkfs.ext4", "-q", "-F", "-U", _UUID),
            *("-E", f"hash_seed={_UUID},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"),
        ),
        module="ext4",
        least_mib=8,
    ),
    "xfs": FileSystem(
        mkfs=("/usr/sbin/mkfs.xfs", "-q", "-f", "-m", f"uuid={_UUID}"), module="xfs", least_mib=301
    ),
}


def image(disk: Disk, cache: Cache) -> Path | None:
    """The image of what ``disk`` holds when a guest starts, made by the host's mkfs once; None for zeros.

    Raises `UserError` if the disk is too small for its file system, `ToolMissingError` without its mkfs.
    """
    if disk.filesystem is None:
        return None
    filesystem = FILE_SYSTEMS[disk.filesystem]
    if disk.size_mib < filesystem.least_mib:
        raise UserError(
            f"a disk of {disk.size_mib} MiB is too small for {disk.filesystem}",
            mend=f"{filesystem.least_mib} MiB is the least",
        )

    def make(folder: Path) -> None:
        made = folder / "made"
        with made.open("wb") as file:
            file.truncate(disk.size_mib << 20)
        tools.run([*filesystem.mkfs, made], seconds=_MKFS_SECONDS, env=os.environ | _ENVIRONMENT)
        # mkfs writes or allocates zeros where its journal will be, which every guest would copy.
        tools.run(["cp", "--sparse=always", made, folder / "image"], seconds=_MKFS_SECONDS)
        made.unlink()

    mkfs = tools.identity(filesystem.mkfs[0])
    key = digest("image-1", mkfs, *filesystem.mkfs, str(disk.size_mib))
    what = f"an {disk.filesystem} image"
    return cache.entry("images", key, make, seconds=2 * _MKFS_SECONDS, what=what) / "image"


def images(shape: MachineShape, cache: Cache) -> tuple[Path | None, ...]:
    """The `image` of each disk of a guest."""
    return tuple(image(disk, cache) for disk in shape.disks)


def serve(
    disk: Disk, image: Path | None, stack: contextlib.ExitStack, log: Path
) -> tuple[socket.socket, Process]:
    """Start an nbdkit for ``disk``; returns the client's end of its connection, and the server, which ends with that.

    The server lives until ``stack`` is left. Its disk is memory: zeros at first, or a copy of ``image``, which is
    never written. No name appears in any file system: the two processes hold the ends of one socket pair, and the
    copy is an anonymous file, so nothing is left when either is killed.
    """
    theirs, ours = socket.socketpair()
    with theirs, contextlib.ExitStack() as started:
        filters, plugin, inherited = [], ["memory", f"{disk.size_mib}M"], []
        if image is not None:
            copy = _copy(image)
            started.callback(os.close, copy)
            # nbdkit resolves the names of single files, and an anonymous one has none: a folder's it takes as they are.
            filters.append("--filter=exportname")
            plugin = ["file", "dir=/proc/self/fd", f"default-export={copy}"]
            inherited.append(copy)
        delays = {"rdelay": disk.read_delay_ms, "wdelay": disk.write_delay_ms}
        wanted = [f"{name}={value}ms" for name, value in delays.items() if value]
        if wanted:
            filters.append("--filter=delay")
        arguments = [
            tools.find("nbdkit"),
            "--single",  # serve the one client on standard input and output, and end with it
            "--foreground",
            "--log=stderr",
            *filters,
            *plugin,
            *wanted,
        ]
        with log.open("ab") as messages:
            process = Process(
                arguments,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=messages,
                pass_fds=inherited,
            )
        stack.enter_context(process)
    stack.enter_context(ours)
    return ours, process


def _copy(image: Path) -> int:
    """An anonymous file in memory with the content of ``image``; holes stay holes, so this takes a millisecond."""
    with image.open("rb") as source, contextlib.ExitStack() as failed:
        copy = os.memfd_create("cowpen-disk")
        failed.callback(os.close, copy)
        size = os.fstat(source.fileno()).st_size
        os.truncate(copy, size)
        at = 0
        while at < size:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: no more data
                break
            end = os.lseek(source.fileno(), at, os.SEEK_HOLE)
            os.lseek(copy, at, os.SEEK_SET)
            while at < end:
                at += os.sendfile(copy, source.fileno(), at, end - at)
        failed.pop_all()
        return copy
