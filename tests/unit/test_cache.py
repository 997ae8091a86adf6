"""The cache, shared by real processes that are killed, run out of space, or may not write."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cache import Cache, digest, unless_held
from harness.errors import DeadlineError, HostError

_SECONDS = 30.0


def _fill(folder: Path) -> None:
    (folder / "a").write_text("whole")


def _make_slowly(root: Path, log: Path, start: Event) -> None:
    def build(folder: Path) -> None:
        with log.open("a") as file:
            file.write("built\n")
        (folder / "a").write_text("half")
        time.sleep(0.3)
        (folder / "a").write_text("whole")

    start.wait(_SECONDS)
    path = Cache(root).entry("kind", "key", build, seconds=_SECONDS, what="a thing")
    assert (path / "a").read_text() == "whole"


def _make_forever(root: Path, building: Event) -> None:
    def build(folder: Path) -> None:
        (folder / "a").write_text("half")
        building.set()
        time.sleep(600)

    Cache(root).entry("kind", "key", build, seconds=_SECONDS, what="a thing")


def _leftovers(cache: Cache) -> list[Path]:
    return [*(cache.root / "tmp").iterdir(), *(cache.root / "lock").iterdir()]


def test_built_once_by_many(tmp_path: Path) -> None:
    cache, log, start = Cache(tmp_path / "c"), tmp_path / "log", multiprocessing.Event()
    workers = [multiprocessing.Process(target=_make_slowly, args=(cache.root, log, start)) for _ in range(6)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(_SECONDS)
        assert worker.exitcode == 0
    assert log.read_text() == "built\n"
    assert _leftovers(cache) == []


def test_built_once_by_threads(tmp_path: Path) -> None:
    cache, built = Cache(tmp_path), []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.2)

    def make() -> None:
        cache.entry("kind", "key", build, seconds=_SECONDS, what="a thing")

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS)
    assert len(built) == 1


@pytest.fixture
def killed(tmp_path: Path) -> Cache:
    """A cache in which a builder was killed in the middle."""
    cache, building = Cache(tmp_path / "c"), multiprocessing.Event()
    worker = multiprocessing.Process(target=_make_forever, args=(cache.root, building))
    worker.start()
    assert building.wait(_SECONDS)
    worker.kill()
    worker.join(_SECONDS)
    assert worker.exitcode == -signal.SIGKILL
    return cache


def test_killed_builder_leaves_no_entry_and_no_lock(killed: Cache) -> None:
    assert killed.get("kind", "key") is None
    assert _leftovers(killed) != []  # it had no chance to clean up
    begun = time.monotonic()
    path = killed.entry("kind", "key", _fill, seconds=_SECONDS, what="a thing")
    assert time.monotonic() - begun < 5
    assert [entry.name for entry in path.iterdir()] == ["a"]
    assert (path / "a").read_text() == "whole"


def test_what_a_killed_builder_left_is_swept(killed: Cache) -> None:
    old = time.time() - 60
    for leftover in (killed.root / "tmp").iterdir():
        os.utime(leftover, (old, old))
    killed.entry("kind", "other", _fill, seconds=_SECONDS, what="another thing")
    assert _leftovers(killed) == []


def test_a_living_builder_is_not_swept(tmp_path: Path) -> None:
    cache, building = Cache(tmp_path / "c"), multiprocessing.Event()
    worker = multiprocessing.Process(target=_make_forever, args=(cache.root, building))
    worker.start()
    try:
        assert building.wait(_SECONDS)
        (folder,) = (cache.root / "tmp").iterdir()
        os.utime(folder, (1, 1))
        cache.entry("kind", "other", _fill, seconds=_SECONDS, what="another thing")
        assert (folder / "a").exists()
        with pytest.raises(DeadlineError, match="another cowpen that is making a thing"):
            cache.entry("kind", "key", _fill, seconds=0.3, what="a thing")
    finally:
        worker.kill()
        worker.join(_SECONDS)


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def build(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise HostError("broken")

    with pytest.raises(HostError, match="broken"):
        cache.entry("kind", "key", build, seconds=_SECONDS, what="a thing")
    assert cache.get("kind", "key") is None
    assert _leftovers(cache) == []
    assert cache.entry("kind", "key", _fill, seconds=_SECONDS, what="a thing").is_dir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(small_disk: Path) -> None:
    cache = Cache(small_disk)

    def build(folder: Path) -> None:
        (folder / "a").write_bytes(bytes(1 << 20))

    with pytest.raises(HostError, match=r"no space left while caching a thing in .*: free some space"):
        cache.entry("kind", "key", build, seconds=_SECONDS, what="a thing")
    assert _leftovers(cache) == []
    # What was half-written is gone, so there is space again.
    assert cache.entry("kind", "key", _fill, seconds=_SECONDS, what="a thing").is_dir()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left while caching"),
        (errno.EDQUOT, "no space left while caching"),
        (errno.EROFS, "cannot cache a thing in"),
    ],
)
def test_trouble_is_told(tmp_path: Path, number: int, words: str) -> None:
    def build(folder: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(HostError, match=words):
        Cache(tmp_path).entry("kind", "key", build, seconds=_SECONDS, what="a thing")


def test_root_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(HostError, match="make it writable, or point XDG_CACHE_HOME elsewhere"):
        Cache(tmp_path / "c").entry("kind", "key", _fill, seconds=_SECONDS, what="a thing")


def _use_read_only(root: Path) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)  # to root nothing is read-only
    cache = Cache(root)
    assert (cache.entry("kind", "key", _fill, seconds=_SECONDS, what="a thing") / "a").read_text() == "whole"
    with pytest.raises(HostError, match="make it writable"):
        cache.entry("kind", "other", _fill, seconds=_SECONDS, what="another thing")


def test_read_only_cache_still_serves(tmp_path: Path) -> None:
    root = tmp_path / "c"
    Cache(root).entry("kind", "key", _fill, seconds=_SECONDS, what="a thing")
    for folder in (root, *root.iterdir()):
        folder.chmod(0o555)
    # pytest's own folders are closed to others: open them a crack for the unprivileged process.
    opened = [
        (folder, folder.stat().st_mode) for folder in tmp_path.parents if not folder.stat().st_mode & 0o001
    ]
    opened.append((tmp_path, tmp_path.stat().st_mode))
    for folder, mode in opened:
        folder.chmod(mode | 0o001)
    try:
        worker = multiprocessing.Process(target=_use_read_only, args=(root,))
        worker.start()
        worker.join(_SECONDS)
        assert worker.exitcode == 0
    finally:
        for folder, mode in opened:
            folder.chmod(mode)
        for folder in (root, *root.iterdir()):
            folder.chmod(0o755)


def test_lock_excludes_and_is_released(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.lock("index", seconds=1, what="the index"):
        with (
            pytest.raises(DeadlineError, match="another cowpen that holds the index"),
            cache.lock("index", seconds=0.2, what="the index"),
        ):
            raise AssertionError("two held it")
        with cache.lock("other", seconds=1, what="another"):
            pass
    with (
        pytest.raises(ZeroDivisionError),
        cache.lock("index", seconds=1, what="the index"),
    ):
        raise ZeroDivisionError
    with cache.lock("index", seconds=1, what="the index"):
        pass
    assert list((tmp_path / "lock").iterdir()) == []


def test_get_marks_the_last_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = cache.entry("kind", "key", _fill, seconds=_SECONDS, what="a thing")
    os.utime(path, (1, 1))
    assert cache.get("kind", "key") == path
    assert path.stat().st_mtime > time.time() - 60


@given(st.lists(st.binary()), st.lists(st.binary()))
def test_digest_tells_parts_apart(left: list[bytes], right: list[bytes]) -> None:
    assert (digest(*left) == digest(*right)) == (left == right)


def test_digest_of_files(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    before = digest(path)
    assert before == digest(path)
    assert len(before) == 32
    path.write_bytes(b"abd")
    assert digest(path) != before


# -- removal ---------------------------------------------------------------------------------------


def _entry(cache: Cache, key: str, *, days: float = 0.0, kib: int = 64) -> Path:
    """An entry of ``kib`` KiB on the disk, last used so many days ago."""
    path = cache.entry(
        "kind", key, lambda folder: _write(folder / "a", kib), seconds=_SECONDS, what="a thing"
    )
    used = time.time() - days * 86400
    os.utime(path, (used, used))
    return path


def _write(path: Path, kib: int) -> None:
    path.write_bytes(os.urandom(kib << 10))


def _left(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.root / "kind").iterdir())


def test_prune_by_age(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for key, days in (("new", 0), ("young", 13), ("old", 15)):
        _entry(cache, key, days=days)
    cache.prune("kind", unused_seconds=14 * 86400, most_bytes=1 << 30)
    assert _left(cache) == ["new", "young"]
    assert _leftovers(cache) == []


def test_prune_by_size_takes_the_least_recently_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for key, days in (("c", 3), ("a", 1), ("b", 2)):
        _entry(cache, key, days=days)
    # A sparse file counts for what it occupies.
    os.truncate(_entry(cache, "sparse", days=0) / "a", 1 << 40)
    cache.prune("kind", unused_seconds=14 * 86400, most_bytes=200 << 10)
    assert _left(cache) == ["a", "b", "sparse"]
    assert cache.get("kind", "b")
    cache.prune("kind", unused_seconds=14 * 86400, most_bytes=150 << 10)
    assert _left(cache) == ["b", "sparse"]


def test_other_kinds_are_left_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    _entry(cache, "old", days=100)
    cache.prune("another", unused_seconds=1, most_bytes=1)
    assert _left(cache) == ["old"]


def _hold(root: Path, held: Event, end: Event) -> None:
    entry = Cache(root).hold("kind", "used")
    assert entry
    os.utime(entry.path, (1, 1))
    held.set()
    end.wait(_SECONDS)


def test_prune_leaves_what_another_process_holds(tmp_path: Path) -> None:
    cache, held, end = Cache(tmp_path), multiprocessing.Event(), multiprocessing.Event()
    _entry(cache, "used")
    _entry(cache, "unused", days=20)
    worker = multiprocessing.Process(target=_hold, args=(tmp_path, held, end))
    worker.start()
    try:
        assert held.wait(_SECONDS)
        cache.prune("kind", unused_seconds=14 * 86400, most_bytes=1)
        assert _left(cache) == ["used"]
    finally:
        worker.kill()  # a hold ends with its process, however that ends
        worker.join(_SECONDS)
    cache.prune("kind", unused_seconds=14 * 86400, most_bytes=1 << 30)
    assert _left(cache) == []


def test_a_hold_ends_with_its_object(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    _entry(cache, "key")
    held = cache.hold("kind", "key")
    cache.prune("kind", unused_seconds=14 * 86400, most_bytes=0)
    assert _left(cache) == ["key"]
    del held
    cache.prune("kind", unused_seconds=14 * 86400, most_bytes=0)
    assert _left(cache) == []


def test_hold_marks_the_last_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = _entry(cache, "key", days=20)
    assert cache.hold("kind", "key")
    assert path.stat().st_mtime > time.time() - 60
    assert cache.hold("kind", "nothing") is None


def test_drop(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    _entry(cache, "key")
    held, other = cache.hold("kind", "key"), cache.hold("kind", "key")
    assert held and other
    cache.drop(held)
    assert _left(cache) == []
    assert not other.there
    assert _leftovers(cache) == []
    # Who finds out later must not take away what was made meanwhile.
    _entry(cache, "key")
    cache.drop(other)
    assert _left(cache) == ["key"]
    cache.drop(held)
    assert _left(cache) == ["key"]


def test_removal_that_fails_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    _entry(cache, "key", days=20)
    held = cache.hold("kind", "key")
    assert held

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "rename", refuse)
    cache.drop(held)
    del held
    cache.prune("kind", unused_seconds=0, most_bytes=0)
    assert _left(cache) == ["key"]
    cache.prune("nothing of the kind", unused_seconds=0, most_bytes=0)


def test_nobody_finds_a_half_removed_entry(tmp_path: Path) -> None:
    """Holders, makers and pruners at once: what is held is whole, and stays."""
    cache, stop, wrong = Cache(tmp_path), threading.Event(), list[str]()

    def use() -> None:
        while not stop.is_set():
            cache.entry("kind", "key", _fill, seconds=_SECONDS, what="a thing")
            held = cache.hold("kind", "key")
            if held:
                for _ in range(5):
                    if (held.path / "a").read_text() != "whole":
                        wrong.append("half")
                held = None

    def prune() -> None:
        while not stop.is_set():
            cache.prune("kind", unused_seconds=0, most_bytes=0)

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  (an assert must not be lost with its thread)
            wrong.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (use, use, use, prune, prune)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    stop.set()
    for thread in threads:
        thread.join(_SECONDS)
    assert wrong == []


def test_what_was_made_anew_under_an_old_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a look at a folder and the lock on it others remove it, and make and hold a new one."""
    folder = tmp_path / "entry"
    folder.mkdir()
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        folder.rename(tmp_path / "removed")
        folder.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    removed: list[Path] = []
    unless_held(folder, removed.append)
    assert removed == []
    monkeypatch.setattr(fcntl, "flock", flock)
    unless_held(folder, removed.append)
    assert removed == [folder]
