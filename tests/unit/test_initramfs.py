"""The initramfs archive: what is in it, and that the same contents give the same bytes."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.guest.initramfs import Contents, write

_FIELDS = (
    "ino",
    "mode",
    "uid",
    "gid",
    "nlink",
    "mtime",
    "size",
    "major",
    "minor",
    "rmajor",
    "rminor",
    "namesize",
    "check",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    device: tuple[int, int]
    data: bytes


def read_newc(data: bytes) -> list[Entry]:
    """Read an archive as the kernel does (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    entries, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        words = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        field = dict(zip(_FIELDS, words, strict=True))
        name = data[at + 110 : at + 110 + field["namesize"] - 1].decode()
        at = (at + 110 + field["namesize"] + 3) & ~3
        content = data[at : at + field["size"]]
        assert len(content) == field["size"]
        at = (at + field["size"] + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        owner, device = (field["uid"], field["gid"]), (field["rmajor"], field["rminor"])
        entries.append(Entry(name, field["mode"], owner, field["mtime"], device, content))


@pytest.fixture
def init(tmp_path: Path) -> Path:
    path = tmp_path / "the-init"
    path.write_bytes(b"\x7fELF init")
    return path


def test_contents(init: Path, tmp_path: Path) -> None:
    modules = [("virtio.ko", b"first"), ("virtio_blk.ko", b"second")]
    write(Contents(init=init, modules=modules, extra={"bin/sh": b"shell"}), tmp_path / "out")
    entries = {entry.name: entry for entry in read_newc((tmp_path / "out").read_bytes())}
    assert entries["init"].data == b"\x7fELF init"
    assert entries["init"].mode == stat.S_IFREG | 0o755
    assert entries["bin/sh"].data == b"shell"
    assert entries["dev/console"].mode == stat.S_IFCHR | 0o600
    assert entries["dev/console"].device == (5, 1)
    order = entries["modules/order"].data.decode().split()
    assert [entries[path.removeprefix("/")].data for path in order] == [b"first", b"second"]
    for name in ("dev", "proc", "sys", "tmp", "modules", "bin"):
        assert stat.S_ISDIR(entries[name].mode)
    # The kernel makes a file only where its folder is already.
    seen = {""}
    for entry in read_newc((tmp_path / "out").read_bytes()):
        assert entry.name.rpartition("/")[0] in seen
        seen.add(entry.name)


def test_same_contents_same_bytes(init: Path, tmp_path: Path) -> None:
    contents = Contents(init=init, modules=[("a.ko", b"a")], extra={"bin/x": b"x"})
    write(contents, tmp_path / "one")
    init.touch()
    write(contents, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    for entry in read_newc((tmp_path / "one").read_bytes()):
        assert (entry.owner, entry.mtime) == ((0, 0), 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=70), max_size=12))
def test_any_modules_arrive_in_order(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("initramfs")
    (folder / "init").write_bytes(b"")
    write(Contents(init=folder / "init", modules=[("same.ko", part) for part in parts]), folder / "out")
    entries = {entry.name: entry.data for entry in read_newc((folder / "out").read_bytes())}
    order = entries["modules/order"].decode().split()
    assert [entries[path.removeprefix("/")] for path in order] == parts
