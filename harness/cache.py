"""The content-addressed cache: entries are folders, written once, whole or not at all.

Layout below the root: ``KIND/KEY/`` are finished entries, ``tmp/`` holds entries in the making and those that are being
removed, ``lock/`` one file per entry in the making. Locks are ``flock`` locks, so they end with their process; what
a killed process left in ``tmp/`` and ``lock/`` is swept by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineError, HostError, Tell
from harness.folders import cache_folder

_LOCK_POLL_SECONDS = 0.05
MORE_ROOM = "free some space there (cowpen kernels prune --keep GB), or point XDG_CACHE_HOME at a larger disk"
_REMOVE_SECONDS = 30.0  # how long an entry that is to be removed may be in the making by somebody else


def digest(*parts: bytes | str | Path) -> str:
    """A key from content: strings and bytes as they are, paths by the content of the file.

    Parts are length-prefixed, so ``("ab", "c")`` and ``("a", "bc")`` differ. 32 hex digits.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        else:
            content = part.encode() if isinstance(part, str) else part
        total.update(len(content).to_bytes(8, "little"))
        total.update(content)
    return total.hexdigest()[:32]


@contextlib.contextmanager
def _locked(path: Path, deadline: Deadline, tell: Tell | None = None) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the file is gone afterwards. Tells once that it waits, if it does."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if tell:
                        tell(f"waiting for {deadline.what}")
                        tell = None
                    deadline.check()
                    time.sleep(_LOCK_POLL_SECONDS)
            # The holder before us removed the file on leaving; then our lock is on a nameless one.
            try:
                same = os.fstat(descriptor).st_ino == path.stat().st_ino
            except FileNotFoundError:
                same = False
            if not same:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def occupied(folder: Path) -> int:
    """Bytes that the files below ``folder`` take of the disk: of a snapshot far fewer than the files are long."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # another cowpen has just removed it
                total += 512 * (Path(place) / name).lstat().st_blocks
    return total


def unless_held(folder: Path, remove: Callable[[Path], None]) -> None:
    """Call ``remove(folder)`` if nobody holds it (`Held`) or makes it; never an error of the system's."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another may have removed it since it was opened, and a third made and held a new one of its name.
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                remove(folder)
        finally:
            os.close(descriptor)


class Held:
    """A finished entry in use: no `Cache.prune` removes it while this object lives.

    There is nothing to close: the hold, a shared ``flock`` on the entry's folder, ends with the object, or with the
    process.
    """

    def __init__(self, path: Path) -> None:
        """`FileNotFoundError` if the entry is not there (any more)."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        gone = False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            gone = True  # just being removed
        if gone or not self.there:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    @property
    def there(self) -> bool:
        """Whether the entry's name still means this very entry, not one that was made after its removal."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False


class Cache:
    """One cache folder, shared safely by any number of processes."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder()
        self._kept: dict[Path, Held] = {}

    def path(self, kind: str, key: str) -> Path:
        """Where the entry is, or would be."""
        return self.root / kind / key

    def get(self, kind: str, key: str) -> Path | None:
        """The finished entry, marked as just used; None if there is none."""
        path = self.path(kind, key)
        if not path.is_dir():
            return None
        # A read-only cache still serves: the time of last use is only for pruning.
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    def hold(self, kind: str, key: str) -> Held | None:
        """The finished entry, marked as just used and kept from being pruned; None if there is none."""
        path = self.get(kind, key)
        try:
            return Held(path) if path else None
        except FileNotFoundError:
            return None

    def keep(self, path: Path) -> None:
        """Keep an entry from being pruned as long as this object lives.

        Raises `FileNotFoundError` if it is not there (any more).
        """
        found = self._kept.get(path)
        if not (found and found.there):
            self._kept[path] = Held(path)

    def require(self, room: int, purpose: str) -> None:
        """`HostError` if fewer than ``room`` bytes are free."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < room:
            raise HostError(
                f"no room to {purpose}: {self.root} has {free / 1e9:.1f} GB left, {room / 1e9:.1f} are needed",
                mend=MORE_ROOM,
            )

    def drop(self, entry: Held) -> None:
        """Remove an entry that turned out to be useless, whoever else holds it; never an error.

        What was made again under its name meanwhile stays.
        """
        kind, key = entry.path.parent.name, entry.path.name
        with contextlib.suppress(OSError, DeadlineError):
            deadline = Deadline(_REMOVE_SECONDS, f"another cowpen that is making {key}")
            # Who makes it anew holds this lock: so nothing comes between the look and the removal.
            with _locked(self.root / "lock" / f"{kind}-{key}", deadline):
                if entry.there:
                    self.remove(entry.path)

    def prune(
        self,
        *kinds: str,
        unused_seconds: float,
        most_bytes: int,
        size: Callable[[Path], int] = occupied,
    ) -> None:
        """Remove entries of ``kinds`` not used for so long, then the least recently used beyond ``most_bytes`` in all.

        Bytes are those the files occupy, as ``size`` tells of an entry. What anybody holds (`hold`) stays; never an
        error: what cannot be removed is for another time.
        """
        with contextlib.suppress(OSError):
            folders = [self.root / kind for kind in kinds if (self.root / kind).is_dir()]
            entries = [(path.stat().st_mtime, path) for folder in folders for path in folder.iterdir()]
            total = 0
            for used, path in sorted(entries, reverse=True):
                total += size(path)
                if time.time() - used > unused_seconds or total > most_bytes:
                    unless_held(path, self.remove)

    def sizes(self) -> dict[str, int]:
        """Bytes on disk of the finished entries, by kind."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return {
            folder.name: occupied(folder)
            for folder in folders
            if folder.is_dir()
            and folder.name not in ("tmp", "lock", "guests")  # the last: harness.trial.slots
        }

    def remove(self, path: Path) -> None:
        """Take an entry that nobody else uses away in one step: nobody finds half of it under its name."""
        (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        grave = Path(tempfile.mkdtemp(prefix="removed-", dir=self.root / "tmp"))
        try:
            path.rename(grave / path.name)
        finally:
            shutil.rmtree(grave, ignore_errors=True)

    def entry(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        *,
        seconds: float,
        what: str,
        tell: Tell | None = None,
        keep: bool = False,
    ) -> Path:
        """The entry ``kind/key``; made by ``build(folder)`` if it is not there.

        ``build`` fills an empty folder, which appears under its name only when ``build`` has returned. If
        another process is making the same entry this one waits, up to ``seconds``, and takes the
        result; ``tell`` hears of it. ``what`` names the thing in errors. With ``keep`` the entry is kept from being
        pruned, as by `keep`. Raises `HostError` when the disk is full or the cache cannot be written,
        `DeadlineError` when the other process takes too long.
        """
        path = self.get(kind, key)
        if path is None:
            try:
                for folder in ("tmp", "lock", kind):
                    (self.root / folder).mkdir(parents=True, exist_ok=True)
                self._sweep()
                deadline = Deadline(seconds, f"another cowpen that is making {what}")
                with _locked(self.root / "lock" / f"{kind}-{key}", deadline, tell):
                    path = self.get(kind, key) or self._make(kind, key, build)
            except OSError as error:
                raise self._trouble(error, what) from error
        if keep:
            try:
                self.keep(path)
            except FileNotFoundError:  # pruned in this very moment
                return self.entry(kind, key, build, seconds=seconds, what=what, tell=tell, keep=True)
        return path

    @contextlib.contextmanager
    def lock(self, name: str, *, seconds: float, what: str, tell: Tell | None = None) -> Iterator[None]:
        """Hold the exclusive lock ``name``, for what lives in the cache but changes (apt's index).

        Waits up to ``seconds`` for its holder, of which ``tell`` hears, then `DeadlineError`; `HostError` if the
        cache cannot be written.
        """
        try:
            (self.root / "lock").mkdir(parents=True, exist_ok=True)
            deadline = Deadline(seconds, f"another cowpen that holds {what}")
            held = _locked(self.root / "lock" / name, deadline, tell)
            held.__enter__()
        except OSError as error:
            raise self._trouble(error, what) from error
        with contextlib.ExitStack() as stack:
            stack.push(held)
            yield

    def _make(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.root / "tmp"))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # tells _sweep that somebody lives here
            build(folder)
            folder.chmod(0o755)
            target = self.path(kind, key)
            folder.rename(target)
            return target
        finally:
            os.close(descriptor)
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed processes left half-made."""
        for leftover in [*(self.root / "tmp").iterdir(), *(self.root / "lock").iterdir()]:
            with contextlib.suppress(OSError):
                descriptor = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if leftover.is_dir():
                        # mkdtemp and flock are two steps: leave a newborn alone.
                        if time.time() - leftover.stat().st_mtime > 10:
                            shutil.rmtree(leftover, ignore_errors=True)
                    elif os.fstat(descriptor).st_ino == leftover.stat().st_ino:
                        leftover.unlink()
                finally:
                    os.close(descriptor)

    def _trouble(self, error: OSError, what: str) -> HostError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return HostError(
                f"no space left while caching {what} in {self.root}",
                mend=MORE_ROOM,
            )
        return HostError(
            f"cannot cache {what} in {self.root} ({error.strerror or error})",
            mend="make it writable, or point XDG_CACHE_HOME elsewhere",
        )
