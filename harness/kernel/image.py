"""Bootable kernel images: what one is, read from its own header.

Formats: Documentation/arch/x86/boot.rst and Documentation/arch/arm64/booting.rst of the kernel.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from pathlib import Path

from harness.arch import Arch
from harness.errors import UserError

_MAX_IMAGE = 512 << 20  # bytes; the largest allyesconfig images are below half of this

_BANNER = re.compile(rb"Linux version ([0-9][!-~]{0,200}) [ -~]{0,400}")
_ARM64_PAGE_SIZES = {1: 4096, 2: 16384, 3: 65536}  # bits 1-2 of the header's flags; 0 is "unspecified"


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What an image says about itself."""

    release: str
    """``uname -r``, or ``unknown``."""
    banner: str
    """The line the kernel will print about itself, as far as the image shows it; may be empty."""
    page_size: int | None
    """Bytes, if the header tells."""


@dataclasses.dataclass(frozen=True)
class _Format:
    """One format of bootable image, by its magic number."""

    arch: str
    name: str
    offset: int
    magic: bytes


# The first that matches wins. An EFI stub makes every format begin with "MZ", so that says nothing.
_FORMATS = (
    _Format("x86_64", "bzImage", 0x202, b"HdrS"),
    _Format("aarch64", "Image", 0x38, b"ARM\x64"),
)
# What people take for a bootable image, and what to give instead.
_MISTAKEN = (
    (0, b"\x7fELF", "an ELF file such as vmlinux", "vmlinux=… is the place for vmlinux"),
    (4, b"zimg", "a compressed EFI application (zboot), which is not supported", "give the image inside"),
    (0, b"!<arch>", "an archive such as a .deb", "unpack it and give the image inside"),
)


def inspect(path: Path, arch: Arch) -> ImageFacts:
    """Check that ``path`` is a kernel image that ``arch`` can boot, and read what it says of itself.

    Raises `UserError` if it is not readable, no kernel, or of another architecture.
    """
    try:
        if not path.is_file():
            raise UserError(f"kernel image {path} is not a file" if path.exists() else f"no file {path}")
        if path.stat().st_size > _MAX_IMAGE:
            raise UserError(f"{path} is too large for a kernel image", mend=f"limit: {_MAX_IMAGE >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read kernel image {path} ({error.strerror})") from error
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, path)
    for image_format in _FORMATS:
        found = data[image_format.offset : image_format.offset + len(image_format.magic)]
        if found != image_format.magic:
            continue
        if image_format.arch != arch.name:
            raise UserError(
                f"{path} is a kernel image of {image_format.arch}, not of {arch.name}",
                mend=f"give --arch {image_format.arch}, or another image",
            )
        return _READERS[image_format.name](data, path)
    expected = next(row.name for row in _FORMATS if row.arch == arch.name)
    fault = UserError(
        f"{path} is not a bootable {arch.name} kernel image ({expected})",
        mend=f"give {arch.image_target} of a built kernel tree, or an installed vmlinuz",
    )
    for offset, magic, what, mend in _MISTAKEN:
        if data[offset : offset + len(magic)] == magic:
            fault = UserError(
                f"{path} is not a bootable {arch.name} kernel image ({expected}) but {what}",
                mend=f"{mend}; {fault.mend}",
            )
            break
    raise fault


def _gunzip(data: bytes, path: Path) -> bytes:
    """Bounded: a few hostile bytes must not fill the memory."""
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(data, _MAX_IMAGE)
    except zlib.error as error:
        raise UserError(f"{path} is damaged gzip data ({error})") from error
    if not stream.eof:
        raise UserError(f"{path} is truncated gzip data, or unpacks to over {_MAX_IMAGE >> 20} MiB")
    return plain


def _read_bzimage(data: bytes, path: Path) -> ImageFacts:
    if len(data) < 0x238:
        raise UserError(f"{path} is a truncated bzImage")
    protocol, pointer = struct.unpack_from("<H6xH", data, 0x206)
    (xloadflags,) = struct.unpack_from("<H", data, 0x236)
    # xloadflags came with protocol 2.12 (Linux 3.8); bit 0 is XLF_KERNEL_64.
    if protocol < 0x020C or not xloadflags & 1:
        raise UserError(f"{path} is a bzImage without a 64-bit entry point", mend="give an x86_64 kernel")
    banner = ""
    if pointer:
        start = pointer + 0x200
        banner = data[start : start + 400].split(b"\0", 1)[0].decode("ascii", "replace")
    release = _printable(banner.split(" ", 1)[0])
    return ImageFacts(release if release[:1].isdigit() else "unknown", _printable(banner), 4096)


def _read_arm64(data: bytes, path: Path) -> ImageFacts:
    if len(data) < 64:
        raise UserError(f"{path} is a truncated arm64 Image")
    (flags,) = struct.unpack_from("<Q", data, 24)
    if flags & 1:
        raise UserError(f"{path} is a big-endian kernel", mend="give a little-endian one")
    match = _BANNER.search(data)
    release = match[1].decode("ascii") if match else "unknown"
    banner = match[0].decode("ascii").removeprefix("Linux version ") if match else ""
    return ImageFacts(release, banner, _ARM64_PAGE_SIZES.get(flags >> 1 & 3))


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


_READERS = {"bzImage": _read_bzimage, "Image": _read_arm64}
