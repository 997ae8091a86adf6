"""Disks with a file system: images made once, and served so that nothing is ever written back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import struct
from pathlib import Path

import pytest

from harness.cache import Cache
from harness.errors import ToolMissingError, UserError
from harness.guest import disk
from harness.guest.disk import FILE_SYSTEMS
from harness.guest.machine import Disk

_MAGIC = 0x49484156454F5054  # "IHAVEOPT" (NBD's proto.md)


def image_of(filesystem: str, cache: Cache, size_mib: int | None = None) -> Path:
    size = size_mib or FILE_SYSTEMS[filesystem].least_mib
    try:
        made = disk.image(Disk(size_mib=size, filesystem=filesystem), cache)
    except ToolMissingError as error:
        pytest.skip(str(error))
    assert made is not None
    return made


def test_zeros_need_no_image(tmp_path: Path) -> None:
    assert disk.image(Disk(), Cache(tmp_path)) is None


@pytest.mark.parametrize(
    ("filesystem", "offset", "magic"), [("ext4", 1024 + 56, b"\x53\xef"), ("xfs", 0, b"XFSB")]
)
def test_image(filesystem: str, offset: int, magic: bytes, tmp_path: Path) -> None:
    """The least size is enough for mkfs, the size is exact, and nearly all of it a hole."""
    cache = Cache(tmp_path)
    made = image_of(filesystem, cache)
    assert made.read_bytes()[offset : offset + len(magic)] == magic
    assert made.stat().st_size == FILE_SYSTEMS[filesystem].least_mib << 20
    assert image_of(filesystem, cache) == made
    larger = image_of(filesystem, cache, FILE_SYSTEMS[filesystem].least_mib + 1)
    assert larger != made
    copy = disk._copy(made)
    try:
        assert os.fstat(copy).st_blocks * 512 < 2 << 20
        assert os.pread(copy, 1 << 30, 0) == made.read_bytes()
    finally:
        os.close(copy)


@pytest.mark.slow
def test_same_image_from_the_same_mkfs(tmp_path: Path) -> None:
    """Its key must say what it holds. xfsprogs before 6.14 leaves times of inodes and their checksums to the clock."""
    one, other = (image_of("ext4", Cache(tmp_path / name)) for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    first, second = (image_of("xfs", Cache(tmp_path / name)).read_bytes() for name in "ab")
    assert sum(a != b for a, b in zip(first[: 1 << 20], second[: 1 << 20], strict=True)) < 100
    assert first[1 << 20 :] == second[1 << 20 :]


@pytest.mark.parametrize("filesystem", FILE_SYSTEMS)
def test_too_small(filesystem: str, tmp_path: Path) -> None:
    least = FILE_SYSTEMS[filesystem].least_mib
    with pytest.raises(UserError, match=f"{least - 1} MiB is too small for {filesystem}: {least} MiB"):
        disk.image(Disk(size_mib=least - 1, filesystem=filesystem), Cache(tmp_path))


def test_mkfs_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(FILE_SYSTEMS["xfs"], mkfs=("/usr/sbin/mkfs.xfs", "-q"))
    monkeypatch.setitem(FILE_SYSTEMS, "xfs", gone)
    monkeypatch.setattr("shutil.which", lambda name, **more: None)
    with pytest.raises(ToolMissingError, match="apt-get install xfsprogs"):
        disk.image(Disk(size_mib=400, filesystem="xfs"), Cache(tmp_path))


class Client:
    """As much of an NBD client as it takes to read and write (NBD's proto.md, NBD_OPT_EXPORT_NAME)."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        self._connection = connection
        self._take(8 + 8 + 2)  # NBDMAGIC, IHAVEOPT, flags
        connection.sendall(struct.pack(">IQII", 1 | 2, _MAGIC, 1, 0))  # no zeroes; the default export
        (self.size, _) = struct.unpack(">QH", self._take(10))

    def _take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += self._connection.recv(length - len(data))
        return data

    def _ask(self, kind: int, offset: int, length: int, data: bytes = b"") -> None:
        self._connection.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 1, offset, length) + data)
        assert struct.unpack(">II", self._take(16)[:8]) == (0x67446698, 0)

    def read(self, offset: int, length: int) -> bytes:
        self._ask(0, offset, length)
        return self._take(length)

    def write(self, offset: int, data: bytes) -> None:
        self._ask(1, offset, len(data), data)


@pytest.mark.parametrize("delay", [0, 1])
def test_served_copies_are_apart_and_the_image_stays(delay: int, tmp_path: Path) -> None:
    made = image_of("ext4", Cache(tmp_path))
    before = made.read_bytes()
    shape = Disk(size_mib=8, filesystem="ext4", read_delay_ms=delay, write_delay_ms=delay)
    with contextlib.ExitStack() as stack:
        one, other = (Client(disk.serve(shape, made, stack, tmp_path / "log")[0]) for _ in range(2))
        assert one.size == other.size == 8 << 20
        assert one.read(0, 8192) == before[:8192]
        one.write(0, b"x" * 512)
        assert one.read(0, 512) == b"x" * 512
        assert other.read(0, 8192) == before[:8192]
    assert made.read_bytes() == before
    assert sorted(path.name for path in made.parent.iterdir()) == ["image"]
    assert (tmp_path / "log").read_text() == ""


def test_zeros_are_served(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        client = Client(disk.serve(Disk(size_mib=3), None, stack, tmp_path / "log")[0])
        assert client.size == 3 << 20
        assert client.read(4096, 4096) == bytes(4096)
