"""The real command under trouble: start ``cowpen``, watch what it starts, and see that nothing stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from harness.arch import get_arch
from harness.cache import Cache
from harness.kernel.kernel import resolve

_MARK = "COWPEN_TEST_MARK"
_POLL_SECONDS = 0.02
# Enough for a guest that hangs at boot, as one in some hundred does whose CPUs really run at once (see
# harness/guest/qemu.py), for the collection of its state, and for the attempt that makes up for it.
_END_SECONDS = 400.0
SOURCES = Path(__file__).parent / "programs"


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command that ended left behind. ``peak_kib`` is the most memory it used itself (not its guests)."""

    code: int
    out: str
    err: str
    seconds: float
    peak_kib: int

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output with ``--json``; every line of it must be one JSON object."""
        return [json.loads(line) for line in self.out.splitlines()]

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The ``--json`` records of this type."""
        return [line for line in self.lines if line["type"] == kind]

    @property
    def verdict(self) -> dict[str, Any]:
        (verdict,) = self.records("verdict")
        return verdict

    @property
    def outcomes(self) -> list[str]:
        return [attempt["outcome"] for attempt in self.records("attempt")]


class Command:
    """One ``cowpen``, or another Python module, under way; its results and what it prints go below ``folder``.

    All it starts carries a mark of its own in the environment, so that its processes are found whoever is
    their parent by then.
    """

    def __init__(
        self,
        *words: str | Path,
        folder: Path,
        env: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
        module: str = "harness.cli.main",
    ) -> None:
        mark = secrets.token_hex(8)
        self._mark = f"{_MARK}={mark}".encode()
        self._stdout, self._stderr = folder / f"stdout-{mark}", folder / f"stderr-{mark}"
        self._begin = time.monotonic()
        self._peak_kib = 0
        environment = os.environ | {"XDG_STATE_HOME": str(folder / "state"), _MARK: mark, **(env or {})}
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                # A shell that runs pytest in the background makes it ignore SIGINT, and children inherit that.
                ["env", "--default-signal=INT", *before, sys.executable, "-m", module]
                + [str(word) for word in words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def living(self) -> dict[int, list[str]]:
        """Command lines, by pid, of what it started and of itself. The dead that nobody buried do not count."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self._mark in (entry / "environ").read_bytes().split(b"\0"):
                        words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                        found[int(entry.name)] = words
        return found

    def said(self) -> str:
        """What it has told people so far."""
        return self._stderr.read_text(errors="replace")

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The ``--json`` records of this type so far; a line that is not whole yet does not count."""
        whole = self._stdout.read_text(errors="replace").rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if line["type"] == kind]

    def pids(self, program: str) -> list[int]:
        """Pids of its processes of this program (by the start of its name)."""
        return [pid for pid, words in self.living().items() if Path(words[0]).name.startswith(program)]

    def wait_for(self, what: str, condition: Callable[[], object], seconds: float = 60) -> None:
        """Wait until ``condition()`` is true; fails if that does not come, or the command ends first."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended before {what}: {self._stderr.read_text()}"
            assert time.monotonic() < end, f"no {what} in {seconds} s: {self._stderr.read_text()}"
            time.sleep(_POLL_SECONDS)

    def end(self, seconds: float = _END_SECONDS) -> Ended:
        """Wait for its end; fails if it does not end in time, or leaves a process behind."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still runs after {seconds} s: {self._stderr.read_text()}"
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{self.process.pid}/status").read_text()
                self._peak_kib = int(status.split("VmHWM:")[1].split()[0])
            time.sleep(_POLL_SECONDS)
        took = time.monotonic() - self._begin
        self.nothing_left()
        return Ended(
            self.process.returncode,
            self._stdout.read_text(errors="replace"),
            self._stderr.read_text(errors="replace"),
            took,
            self._peak_kib,
        )

    def nothing_left(self, seconds: float = 2.0) -> None:
        """Its processes are gone, or go within ``seconds``."""
        deadline = time.monotonic() + seconds
        while left := self.living():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(_POLL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A test that fails leaves nothing behind either.
        for pid in [self.process.pid, *self.living()] if self.process.poll() is None else self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def cowpen(
    *words: str | Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    before: tuple[str, ...] = (),
    seconds: float = _END_SECONDS,
) -> Ended:
    """Run a command to its end, within ``seconds``; fails if it leaves a process behind."""
    with Command(*words, folder=folder, env=env, before=before) as command:
        return command.end(seconds)


def program(name: str) -> Path:
    """A C file of tests/guest/programs."""
    return SOURCES / f"{name}.c"


def kernels_alone(folder: Path, cache: Cache, *specs: tuple[str, str]) -> dict[str, str]:
    """A cache below ``folder`` that has these kernels (spec, architecture) of ``cache``, what is known of accelerators,
    and nothing else. Returns the environment that points to it.
    """
    ours = folder / "cowpen"
    shutil.rmtree(ours, ignore_errors=True)
    for spec, arch in specs:
        entry = resolve(spec, get_arch(arch), cache).image.parent
        subprocess.run(["mkdir", "-p", ours / "kernels"], timeout=10, check=True)
        # Hard links where the file system has room for them: nobody writes into a finished entry.
        for how in (["cp", "-al"], ["cp", "-a"]):
            if subprocess.run([*how, entry, ours / "kernels"], timeout=60, check=False).returncode == 0:
                break
    for known in ("apt/newest", "accelerator"):
        if (cache.root / known).is_dir():
            shutil.copytree(cache.root / known, ours / known)
    return {"XDG_CACHE_HOME": str(folder)}


def path_spec(spec: str, arch: str, cache: Cache) -> str:
    """A stock kernel as a ``path:`` spec, which needs no cache to be found."""
    kernel = resolve(spec, get_arch(arch), cache)
    assert kernel.config is not None and kernel.modules is not None
    return f"path:{kernel.image},config={kernel.config},modules={kernel.modules}"


def path_without(folder: Path, *programs: str) -> dict[str, str]:
    """An environment whose PATH has everything the present one has except ``programs``."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        with contextlib.suppress(OSError):
            for file in Path(place).iterdir():
                if file.name not in programs:
                    with contextlib.suppress(FileExistsError):
                        (folder / file.name).symlink_to(file)
    assert not any(shutil.which(name, path=str(folder)) for name in programs)
    return {"PATH": str(folder)}


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of ``size`` (as tmpfs takes it) at ``folder``; the test is skipped where it cannot be made."""
    folder.mkdir(exist_ok=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "cowpen-test", folder],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small file system (not root?): {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], timeout=10, check=True)


def no_network() -> tuple[str, ...]:
    """The words before a command that take its network away; the test is skipped where nothing does."""
    for words in (("unshare", "-n"), ("unshare", "-r", "-n")):
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run([*words, "true"], capture_output=True, timeout=10, check=False).returncode == 0:
                return words
    pytest.skip("unshare cannot make a network name space here")


def leftovers(cache: Path) -> list[Path]:
    """What is half-made or locked in a cache folder."""
    return [path for name in ("tmp", "lock") for path in (cache / "cowpen" / name).glob("*")]
