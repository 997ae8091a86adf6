"""Kernel modules: which files to load, in which order, and their content.

The order comes from what the modules say of themselves (``depends=`` and ``softdep=pre:`` in .modinfo),
because a distribution's package has no modules.dep before it is installed.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import HostError, UserError
from harness.kernel.kernel import Kernel

_MAX_MODULE = 256 << 20  # bytes, unpacked; the largest with debug information are below that
_FILE = re.compile(r"(.+)\.ko(\.xz|\.gz|\.zst)?")
# depmod's own order of trees: what was added later hides what came with the kernel.
_TREES = ("updates", "extra", "weak-updates")

# Modules whose config symbol is not their name in capitals; for kernels without modules.builtin.
_SYMBOLS = {
    "9p": "9P_FS",
    "9pnet": "NET_9P",
    "9pnet_virtio": "NET_9P_VIRTIO",
    "brd": "BLK_DEV_RAM",
    "btrfs": "BTRFS_FS",
    "ext4": "EXT4_FS",
    "loop": "BLK_DEV_LOOP",
    "nbd": "BLK_DEV_NBD",
    "null_blk": "BLK_DEV_NULL_BLK",
    "overlay": "OVERLAY_FS",
    "sd_mod": "BLK_DEV_SD",
    "virtio_pci_legacy_dev": "VIRTIO_PCI_LIB_LEGACY",
    "virtio_pci_modern_dev": "VIRTIO_PCI_LIB",
    "virtio_ring": "VIRTIO",
    "virtio_rng": "HW_RANDOM_VIRTIO",
    "virtio_scsi": "SCSI_VIRTIO",
    "vmw_vsock_virtio_transport": "VIRTIO_VSOCKETS",
    "vsock": "VSOCKETS",
    "xfs": "XFS_FS",
}


@dataclasses.dataclass(frozen=True)
class ModuleOrder:
    """What to do about a list of wanted modules."""

    paths: tuple[Path, ...]
    """Files to load, each after everything it depends on."""
    builtin: tuple[str, ...]
    """Wanted, but part of the image: nothing to load."""
    missing: tuple[str, ...]
    """Wanted or depended on, but neither in the image nor in the folder."""


def module_order(kernel: Kernel, wanted: Sequence[str]) -> ModuleOrder:
    """The files to load, in order, so that the modules named in ``wanted`` work.

    Names may be written with ``-`` or ``_``. Raises `UserError` if a module file is damaged.
    """
    files = _index(kernel.modules) if kernel.modules else {}
    builtin_names = _builtin(kernel.modules) if kernel.modules else None
    order: dict[str, Path] = {}
    builtin: dict[str, None] = {}
    missing: dict[str, None] = {}
    begun: set[str] = set()

    def visit(name: str, *, soft: bool) -> None:
        key = _normal(name)
        if key in begun:
            return
        if key not in files:
            if _is_builtin(key, builtin_names, kernel):
                if key in asked:
                    builtin[key] = None
            elif not soft:
                missing[key] = None
            return
        begun.add(key)
        hard, pre = _needs(files[key])
        for alias in pre:
            visit(_provider(alias, files), soft=True)
        for needed in hard:
            visit(needed, soft=False)
        order[key] = files[key]

    asked = {_normal(name) for name in wanted}
    for name in wanted:
        visit(name, soft=False)
    return ModuleOrder(tuple(order.values()), tuple(builtin), tuple(missing))


def read_module(path: Path) -> bytes:
    """The module as the kernel takes it: unpacked, at most 256 MiB.

    Raises `UserError` if it is damaged or not readable, `HostError` if nothing here can unpack it.
    """
    match = _FILE.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read module {path} ({error.strerror})") from error
    return _UNPACKERS[match[2] if match else None](data, path)


def module_name(path: Path) -> str:
    """The name under which the kernel lists the module in that file: ``virtio_blk``."""
    match = _FILE.fullmatch(path.name)
    return _normal(match[1] if match else path.name)


def _normal(name: str) -> str:
    return name.replace("-", "_")


def _provider(alias: str, files: Mapping[str, Path]) -> str:
    """The module meant by a soft dependency, which is often an alias of the crypto API.

    ``crypto-crc32c`` or ``crc32c`` is then the portable ``crc32c_generic``. Without it xfs and ext4 of a
    kernel that has no crc32c built in fail to load or to mount, as nothing in the guest runs modprobe.
    """
    name = _normal(alias).removeprefix("crypto_")
    return name if name in files or f"{name}_generic" not in files else f"{name}_generic"


def _index(folder: Path) -> dict[str, Path]:
    """Module name -> file, by walking names only."""
    files: dict[str, Path] = {}
    for tree in (*_TREES, ""):
        for place, folders, names in os.walk(folder / tree):
            if not tree and place == str(folder):
                folders[:] = [name for name in folders if name not in _TREES]
            folders.sort()
            for name in names:
                match = _FILE.fullmatch(name)
                if match:
                    files.setdefault(_normal(match[1]), Path(place, name))
    return files


def _builtin(folder: Path) -> frozenset[str] | None:
    try:
        text = (folder / "modules.builtin").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return frozenset(module_name(Path(line.strip())) for line in text.splitlines() if line.strip())


def _is_builtin(name: str, listed: frozenset[str] | None, kernel: Kernel) -> bool:
    if listed is not None and name in listed:
        return True
    # modules.builtin lists only what could have been a module; code that others select (virtio_ring of
    # CONFIG_VIRTIO=y) is in it too. Without the file the config has to do.
    return listed is None and kernel.config_value(f"CONFIG_{_SYMBOLS.get(name, name.upper())}") == "y"


def _needs(path: Path) -> tuple[list[str], list[str]]:
    """Modules that must be loaded before this one, and those that should be if they are there."""
    hard: list[str] = []
    pre: list[str] = []
    for entry in _modinfo(path):
        key, _, value = entry.partition("=")
        if key == "depends":
            hard += [name for name in value.split(",") if name]
        elif key == "softdep":
            # "pre: a b post: c", in any order.
            part = ""
            for word in value.split():
                if word in ("pre:", "post:"):
                    part = word
                elif part == "pre:":
                    pre.append(word)
    return hard, pre


def _modinfo(path: Path) -> list[str]:
    from elftools.common.exceptions import ELFError  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        section = ELFFile(io.BytesIO(read_module(path))).get_section_by_name(".modinfo")
        data = section.data() if section is not None else None
    except (ELFError, ValueError, OverflowError, AttributeError, TypeError, KeyError, IndexError) as error:
        # pyelftools lets all of these escape when a header is nonsense.
        raise UserError(f"module {path} is damaged ({error})") from error
    if data is None:
        raise UserError(f"{path} is not a kernel module: it has no .modinfo section")
    return [entry.decode("utf-8", "replace") for entry in data.split(b"\0") if entry]


def _plain(data: bytes, path: Path) -> bytes:
    return data


def _unxz(data: bytes, path: Path) -> bytes:
    try:
        stream = lzma.LZMADecompressor(memlimit=_MAX_MODULE)
        return _whole(stream.decompress(data, _MAX_MODULE), stream.eof, path)
    except lzma.LZMAError as error:
        raise UserError(f"module {path} is damaged ({error})") from error


def _gunzip(data: bytes, path: Path) -> bytes:
    try:
        stream = zlib.decompressobj(wbits=31)
        return _whole(stream.decompress(data, _MAX_MODULE), stream.eof, path)
    except zlib.error as error:
        raise UserError(f"module {path} is damaged ({error})") from error


def _unzstd(data: bytes, path: Path) -> bytes:
    # Not in Python's library before 3.14; libarchive is here anyway and mostly built with zstd.
    try:
        import libarchive  # noqa: PLC0415
        from libarchive.exception import ArchiveError  # noqa: PLC0415
    except Exception as error:
        raise HostError("libarchive cannot be loaded", mend="apt-get install libarchive13") from error
    plain = bytearray()
    try:
        with libarchive.memory_reader(data, format_name="raw", filter_name="zstd") as archive:
            for entry in archive:
                for block in entry.get_blocks():
                    plain += block
                    if len(plain) > _MAX_MODULE:
                        return _whole(b"", False, path)
    except ArchiveError as error:
        raise HostError(
            f"cannot unpack module {path} ({error})",
            mend="if libarchive was built without zstd, unpack the modules with `zstd -d` first",
        ) from error
    return bytes(plain)


def _whole(data: bytes, complete: bool, path: Path) -> bytes:
    if not complete:
        raise UserError(f"module {path} is truncated, or unpacks to over {_MAX_MODULE >> 20} MiB")
    return data


_UNPACKERS: dict[str | None, Callable[[bytes, Path], bytes]] = {
    None: _plain,
    ".xz": _unxz,
    ".gz": _gunzip,
    ".zst": _unzstd,
}
