"""What a cowpen that was killed leaves: nothing that runs or is held, and nothing half-made under a real name."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trouble import leftovers

# Same key, same bytes: entries of these kinds can be compared with those of another cache.
_REPRODUCIBLE = ("kernels", "sources", "programs", "initramfs")


def content(entry: Path) -> dict[str, str]:
    """The digest of every file of a cache entry, by its path in it."""
    return {
        str(path.relative_to(entry)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(entry.rglob("*"))
        if path.is_file()
    }


def entries(cache: Path, kind: str) -> dict[str, Path]:
    """The finished entries of a kind, by key."""
    folder = cache / "cowpen" / kind
    return {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}


def check_cache(cache: Path, reference: Path) -> int:
    """Every entry is whole, as far as ``reference``, the cache of an undisturbed run, tells; returns how many."""
    count = 0
    for kind in _REPRODUCIBLE:
        there = entries(reference, kind)
        for key, entry in entries(cache, kind).items():
            if key in there:
                assert content(entry) == content(there[key]), f"{entry} is not whole"
            else:  # of the canary, whose guest has no disk
                assert kind == "initramfs", f"{kind}/{key} is not what the undisturbed run made"
                assert b"TRAILER!!!" in (entry / "initramfs").read_bytes()[-1024:], f"{entry} is not whole"
            count += 1
    for entry in entries(cache, "snapshots").values():
        # What a guest's memory holds differs from boot to boot; which files there are does not, nor memory's size.
        expected = next(iter(entries(reference, "snapshots").values()))
        assert _memory(entry) == _memory(expected), f"{entry} is not whole"
        assert (entry / "state").stat().st_size > 0
        count += 1
    for entry in entries(cache, "accelerator").values():
        assert json.loads((entry / "proof.json").read_text())["arch"]
        count += 1
    for file in (cache / "cowpen/apt").glob("newest/*.json"):
        json.loads(file.read_text())
    return count


def _memory(entry: Path) -> dict[str, int]:
    """The files of a snapshot, by name; sizes only of those that hold the guest's memory."""
    sizes = {path.name: path.stat().st_size for path in entry.iterdir()}
    return {name: size if size >= 1 << 20 else 0 for name, size in sizes.items() if name != "state"}


def check_unlocked(*places: Path) -> None:
    """Nobody holds a lock on any file or folder directly in ``places``."""
    for place in places:
        for path in place.iterdir() if place.is_dir() else []:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: still held
            finally:
                os.close(descriptor)


def check_plain(*places: Path) -> None:
    """Nothing in ``places`` but files and folders: no socket, no pipe, no terminal."""
    for place in places:
        for path in place.rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), f"{path} is left ({stat.filemode(mode)})"


def check_kept(records: Iterable[dict[str, Any]]) -> int:
    """Every attempt that was reported has its record and its console, whole; returns how many."""
    count = 0
    for record in records:
        kept = Path(record["kept"])
        result = json.loads((kept / "result.json").read_text())
        assert result == {key: record[key] for key in result}, f"{kept} says something else than was reported"
        assert record["outcome"] == "infra" or b"Linux version" in (kept / "console.log").read_bytes()
        json.loads((kept / "records.json").read_text())
        count += 1
    return count


def age(cache: Path) -> None:
    """Make what is left in ``tmp/`` look old: the sweep leaves alone what may have been made just now."""
    for path in leftovers(cache):
        os.utime(path, (time.time() - 60, time.time() - 60))
