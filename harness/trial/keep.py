"""Where the results of a run are kept: a folder per trial, a folder per attempt in it."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from harness.cache import Held, unless_held
from harness.errors import HostError
from harness.folders import state_folder
from harness.trial.stage import Stage

_RUNS_KEPT = 20  # runs without --keep; one of 40 attempts takes about 4 MB


@contextlib.contextmanager
def run_folder(wanted: Path | None, *, name: str | None = None) -> Iterator[Path]:
    """The folder of one run: ``wanted`` (``--keep``), or a new one below the user's state folder.

    The latter is called ``name`` if several processes make one run together, which they do by giving the same name. Of
    these folders the newest stay and older ones go, but never one whose run is still under way: a lock on the folder
    says so. Raises `HostError` if it cannot be made.
    """
    try:
        if wanted is None:
            held = _new_folder(name)
            folder = held.path
        else:
            wanted.mkdir(parents=True, exist_ok=True)
            folder = wanted.resolve()
    except OSError as error:
        raise no_room(error, wanted or state_folder()) from error
    yield folder


def _new_folder(shared: str | None) -> Held:
    runs = state_folder() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    if not (shared and (runs / shared).exists()):  # the first of them has made room
        _prune(runs)
    name = shared or f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for number in itertools.count(1):  # one process may begin several runs in a second
        folder = runs / (name if number == 1 or shared else f"{name}.{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(exist_ok=shared is not None)
            # Before it is held another run may prune it: after the clock was set back it is the oldest by name.
            with contextlib.suppress(FileNotFoundError):
                return Held(folder)
    raise AssertionError("unreachable")


def no_room(error: OSError, place: Path) -> HostError:
    """The error for results that cannot be written to ``place``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(
            f"no space left for results in {place}",
            mend="free some space there, or name another place with --keep",
        )
    return HostError(
        f"cannot write results to {place} ({error.strerror or error})", mend="name another place with --keep"
    )


def _prune(runs: Path) -> None:
    for old in sorted(runs.iterdir(), reverse=True)[_RUNS_KEPT - 1 :]:
        unless_held(old, functools.partial(shutil.rmtree, ignore_errors=True))


def trial_folder(run: Path, *words: str) -> Path:
    """A new folder in ``run`` named after ``words`` (bug, program, kernel, architecture)."""
    name = "-".join(re.sub(r"[^A-Za-z0-9._+-]+", "_", word).strip("_")[-60:] for word in words)
    for number in range(1, 10000):
        folder = run / (name if number == 1 else f"{name}.{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise HostError(
        f"{run} holds thousands of results of {name} already", mend="name a new place with --keep"
    )


def keep_stage(stage: Stage, folder: Path) -> None:
    """Keep what all attempts share: the program's source and binary, the kernel's provenance."""
    name = stage.subject.program.name
    if stage.compiled.source is not None:
        shutil.copyfile(stage.compiled.source, folder / f"{name}.c")
    shutil.copy(stage.compiled.binary, folder / name)
    kernel = stage.kernel
    setup = {
        "kernel": {
            "spec": kernel.spec,
            "release": kernel.release,
            "version": kernel.version,
            "arch": kernel.arch.name,
            "provenance": kernel.provenance,
        },
        "program": {
            "name": name,
            "variant": stage.subject.variant,
            "settings": dict(stage.subject.settings),
            "compile": stage.compiled.command,
        },
        **stage.setup(),
    }
    (folder / "setup.json").write_text(json.dumps(setup, indent=1, default=str) + "\n", encoding="utf-8")
