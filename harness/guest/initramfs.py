"""The guest's first file system: our init, the modules it loads, perhaps a shell. Written without root."""

from __future__ import annotations

import dataclasses
import errno
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.cache import Cache, digest
from harness.errors import HostError
from harness.guest.disk import FILE_SYSTEMS
from harness.guest.machine import MachineShape
from harness.guest.qemu import AGENT_MODULES, DISK_MODULES, OPTIONAL_MODULES
from harness.kernel.kernel import Kernel
from harness.kernel.modules import module_name, module_order, read_module

_FOLDERS = ("dev", "proc", "sys", "tmp", "modules", "bin")
_CONSOLE = (5, 1)  # major and minor number of /dev/console (Documentation/admin-guide/devices.txt)


@dataclasses.dataclass(frozen=True)
class Contents:
    """What goes in. ``modules`` are (name, uncompressed bytes) in load order; ``extra`` maps path to bytes."""

    init: Path
    modules: Sequence[tuple[str, bytes]] = ()
    extra: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def write(contents: Contents, target: Path) -> None:
    """Write an uncompressed newc cpio archive; the same contents give the same bytes.

    Uncompressed, because an emulated CPU decompresses far slower than the host copies. /dev/console is in
    the archive because the kernel opens it for init before anything could mount devtmpfs. `OSError` if it cannot
    be written.
    """
    from libarchive.exception import ArchiveError  # noqa: PLC0415  (loads a C library)

    try:
        _write(contents, target)
    except ArchiveError as error:
        raise OSError(error.errno or errno.EIO, error.msg, str(target)) from error


def _write(contents: Contents, target: Path) -> None:
    import libarchive  # noqa: PLC0415  (loads a C library)

    with libarchive.file_writer(str(target), "cpio_newc") as archive:

        def add(path: str, data: bytes, kind: int, mode: int, **more: int) -> None:
            archive.add_file_from_memory(
                path, len(data), data, filetype=kind, permission=mode, uid=0, gid=0, mtime=0, **more
            )

        for folder in _FOLDERS:
            add(folder, b"", stat.S_IFDIR, 0o755)
        add("dev/console", b"", stat.S_IFCHR, 0o600, rdevmajor=_CONSOLE[0], rdevminor=_CONSOLE[1])
        add("init", contents.init.read_bytes(), stat.S_IFREG, 0o755)
        order = []
        for number, (name, data) in enumerate(contents.modules):
            path = f"modules/{number:02d}-{name}"
            add(path, data, stat.S_IFREG, 0o644)
            order.append(f"/{path}\n")
        add("modules/order", "".join(order).encode(), stat.S_IFREG, 0o644)
        for path, data in contents.extra.items():
            add(path, data, stat.S_IFREG, 0o755)


def obtain(
    kernel: Kernel, shape: MachineShape, init: Path, cache: Cache, *, extra: Mapping[str, bytes] | None = None
) -> Path:
    """The initramfs for guests of this kernel and shape: with the modules they need, in load order.

    Raises `HostError` if the kernel lacks a module without which the guest could not be reached, or one that the
    shape names. A file system it lacks is no reason not to boot: it is said when the disk is mounted.
    """
    needed = [*shape.modules]
    if shape.channel == "agent":
        needed += AGENT_MODULES
    if shape.disks:
        needed += DISK_MODULES
    optional = [*OPTIONAL_MODULES]
    optional += sorted({FILE_SYSTEMS[disk.filesystem].module for disk in shape.disks if disk.filesystem})
    more = dict(extra or {})
    # What the modules need in turn follows from the kernel's content: finding it out takes 0.1 s, so it is
    # left to the one who has to.
    parts = [part for path in sorted(more) for part in (path, more[path])]
    key = digest("initramfs-2", kernel.content, init, " ".join(needed), " ".join(optional), *parts)

    def make(folder: Path) -> None:
        loaded = _modules(kernel, needed, optional)
        write(Contents(init=init, modules=loaded, extra=more), folder / "initramfs")

    what = f"the initramfs of {kernel.release}"
    return cache.entry("initramfs", key, make, seconds=60, what=what) / "initramfs"


def _modules(kernel: Kernel, needed: Sequence[str], optional: Sequence[str]) -> list[tuple[str, bytes]]:
    """Name and content of the modules to load, in order; ``optional`` are those that may be missing."""
    order = module_order(kernel, [*optional, *needed])
    lacking = [name for name in order.missing if name not in optional]
    if lacking:
        raise HostError(
            f"{kernel.spec} ({kernel.release}) has no module {', '.join(lacking)}, built in or in its modules",
            mend="name its modules folder (path:IMAGE,modules=DIR,config=FILE), or use --channel serial",
        )
    return [(f"{module_name(path)}.ko", read_module(path)) for path in order.paths]
