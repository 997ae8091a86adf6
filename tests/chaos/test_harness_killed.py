"""SIGKILL for cowpen itself, at any moment: nothing runs on, nothing is held, nothing half-made has a real name."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reliability import CACHE_SHARED, NOTHING_LEFT, RESULTS_KEPT, Attacked
from remains import age, check_cache, check_kept, check_plain, check_unlocked, content, entries
from trouble import Command, cowpen, kernels_alone, leftovers, program

from harness.cache import Cache

KERNEL = ("debian:6.12", "x86_64")
RUN = (
    *("run", "--program", program("ok"), "--kernel", KERNEL[0], "--arch", KERNEL[1]),
    *("--jobs", "2", "--attempts", "6", "--json"),
)


@dataclasses.dataclass(frozen=True)
class Life:
    """An undisturbed life: how long a run took on a cache of kernels alone and on a warm one, and its cache."""

    cold: float
    warm: float
    cache: Path

    def begin_again(self, folder: Path, *, canary: bool = False) -> None:
        """Put the kernels of this life, and nothing else, into the cache at ``folder``.

        Which accelerator to use is known already, unless a ``canary`` is to find out.
        """
        kernels_alone(folder, Cache(self.cache / "cowpen"), KERNEL)
        if canary:
            shutil.rmtree(folder / "cowpen/accelerator")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, user_cache: Cache) -> Life:
    folder = tmp_path_factory.mktemp("undisturbed")
    # First of all whatever must be found out about this host: a canary takes as long as all the rest.
    assert cowpen(*RUN, folder=folder, seconds=300).code == 0
    env = kernels_alone(folder / "cache", user_cache, KERNEL)
    cold, warm = (cowpen(*RUN, folder=folder, env=env, seconds=300) for _ in range(2))
    assert cold.code == warm.code == 0, cold.err + warm.err
    return Life(cold.seconds, warm.seconds, folder / "cache")


@dataclasses.dataclass(frozen=True)
class Place:
    """The folders of the runs that are killed."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def runs(self) -> Path:
        return self.folder / "state/cowpen/runs"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def env(self) -> dict[str, str]:
        self.temporary.mkdir(exist_ok=True)
        return {"XDG_CACHE_HOME": str(self.cache), "TMPDIR": str(self.temporary)}

    def watch(self, pattern: str) -> Callable[[], bool]:
        """Whether a path that matches has come since now."""
        known = self._paths(pattern)
        return lambda: not known.issuperset(self._paths(pattern))

    def _paths(self, pattern: str) -> set[Path]:
        while True:
            with contextlib.suppress(FileNotFoundError):  # a folder that cowpen removes meanwhile
                return set(self.folder.glob(pattern))


# When to kill: as soon as such a path is new, or up to so many seconds later.
PHASES: dict[str, tuple[str, float]] = {
    "compiling": ("cache/cowpen/tmp/programs-*", 0.4),
    "packing": ("cache/cowpen/tmp/initramfs-*", 0.05),
    "canary": ("cache/cowpen/tmp/accelerator-*/*/console.log", 1.0),
    "snapshot": ("cache/cowpen/tmp/snapshots-*/console.log", 3.0),
    "attempts": ("state/cowpen/runs/*/*/attempt-*", 0.5),
    "results": ("state/cowpen/runs/*/*/attempt-*/stdout", 0.5),
    "writing": ("state/cowpen/runs/*/*/attempt-*/result.json", 0.5),
}
ANY = "any moment"
COLD = ("compiling", "packing", "canary", "snapshot")


def wait_until(command: Command, condition: Callable[[], bool], seconds: float) -> None:
    """Until the condition holds, the command has ended, or the time is over."""
    end = time.monotonic() + seconds
    while command.process.poll() is None and time.monotonic() < end and not condition():
        time.sleep(0.002)


def kill(command: Command, chance: random.Random) -> None:
    """The process, or the process group its shell knows it by."""
    if chance.random() < 0.5:
        command.process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(command.process.pid, signal.SIGKILL)
    command.process.wait(10)


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.long)])
def test_killed_at_any_moment(times: int, life: Life, tmp_path: Path, attacked: Attacked) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    place = Place(tmp_path)
    killed = reported = whole = 0
    life.begin_again(place.cache)
    # One kill of three at any moment of a life, the others spread over its phases.
    phases = chance.sample(list(PHASES), len(PHASES)) * times
    moments = [ANY if number % 3 == 0 else phases[number * 2 // 3] for number in range(times)]
    chance.shuffle(moments)
    for moment in moments:
        cold = moment in COLD or (moment == ANY and chance.random() < 0.5)
        if cold:
            # All is to be made again, but what was left in tmp/ and lock/ stays.
            remains = tmp_path / "remains"
            (place.cache / "cowpen").rename(remains)
            life.begin_again(place.cache, canary=moment == "canary")
            for name in ("tmp", "lock"):
                if (remains / name).exists():
                    (remains / name).rename(place.cache / "cowpen" / name)
            shutil.rmtree(remains, ignore_errors=True)
        pattern, spread = PHASES.get(moment, ("", life.cold if cold else life.warm))
        appeared = place.watch(pattern) if pattern else lambda: True
        with Command(*RUN, folder=tmp_path, env=place.env()) as command:
            wait_until(command, appeared, 3 * life.cold)
            wait_until(command, lambda: False, chance.random() * spread)
            killed += command.process.poll() is None
            kill(command, chance)
            command.nothing_left()
            check_unlocked(place.cache / "cowpen/tmp", place.cache / "cowpen/lock", place.runs)
            check_plain(place.cache, place.temporary, place.folder / "state")
            whole += check_cache(place.cache, life.cache)
            reported += check_kept(command.records("attempt"))
    print(f"{killed} of {times} killed, {reported} attempts reported, {whole} entries whole")
    assert killed >= times * 3 // 4, "most ended before they were killed: nothing was tried"
    age(place.cache)
    shutil.rmtree(place.cache / "cowpen/programs", ignore_errors=True)  # so that it has something to make
    ended = cowpen(*RUN, folder=tmp_path, env=place.env(), seconds=300)
    assert ended.code == 0, ended.err
    assert leftovers(place.cache) == []
    assert list(place.temporary.iterdir()) == []
    attacked(NOTHING_LEFT, "cowpen SIGKILLed at a random moment, it or its process group", times=killed)
    attacked(CACHE_SHARED, "cowpen SIGKILLed: every entry checked byte by byte", times=killed)
    if reported:
        attacked(RESULTS_KEPT, "cowpen SIGKILLed: every attempt reported until then", times=reported)


@pytest.mark.long
def test_killed_while_fetching_a_kernel(tmp_path: Path, attacked: Attacked) -> None:
    fetch = ("kernels", "fetch", KERNEL[0], "--arch", KERNEL[1])
    undisturbed, place = tmp_path / "undisturbed", Place(tmp_path)
    whole = cowpen(*fetch, folder=tmp_path, env={"XDG_CACHE_HOME": str(undisturbed)}, seconds=600)
    if "cannot reach" in whole.err:
        pytest.skip(whole.err.strip())
    assert whole.code == 0, whole.err
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, undisturbed {whole.seconds:.1f} s")
    chance = random.Random(seed)
    for number in range(4):
        shutil.rmtree(place.cache / "cowpen/kernels", ignore_errors=True)
        with Command(*fetch, folder=tmp_path, env=place.env()) as command:
            # Later ones find apt's index, so the package's turn comes sooner.
            wait_until(command, lambda: False, whole.seconds * (0.2 + 0.6 * chance.random()) / (number + 1))
            assert command.process.poll() is None, "ended before it was killed"
            kill(command, chance)
            command.nothing_left()
        check_unlocked(place.cache / "cowpen/tmp", place.cache / "cowpen/lock")
        assert entries(place.cache, "kernels") == {}
    age(place.cache)
    again = cowpen(*fetch, folder=tmp_path, env=place.env(), seconds=600)
    assert again.code == 0, again.err
    assert leftovers(place.cache) == []
    (made,), (expected,) = (entries(cache, "kernels").values() for cache in (place.cache, undisturbed))
    ours, theirs = content(made), content(expected)
    assert ours.pop("provenance.json") and theirs.pop("provenance.json")  # says when it was fetched
    assert ours == theirs
    attacked(NOTHING_LEFT, "cowpen SIGKILLed while it fetches a kernel", times=4)


@pytest.mark.long
@pytest.mark.parametrize("times", [8])
def test_the_other_is_untouched(times: int, life: Life, tmp_path: Path, attacked: Attacked) -> None:
    """Two at once share everything; one is killed while both still make the cache, or while both run attempts."""
    chance = random.Random(seed := random.randrange(1 << 32))
    print(f"seed {seed}")
    place = Place(tmp_path)
    for number in range(times):
        if number % 2 == 0:
            life.begin_again(place.cache)
        length = life.cold if number % 2 == 0 else life.warm
        with (
            Command(*RUN, folder=tmp_path, env=place.env()) as victim,
            Command(*RUN, folder=tmp_path, env=place.env()) as other,
        ):
            # The first of two may hold the lock the other waits for: then the other must make the thing itself.
            wait_until(victim, lambda: False, chance.random() * length)
            kill(victim, chance)
            victim.nothing_left()
            ended = other.end(seconds=300)
        assert ended.code == 0, ended.err
        assert ended.outcomes == ["clean"] * 6
        check_kept(ended.records("attempt"))
        check_cache(place.cache, life.cache)
    attacked(CACHE_SHARED, "two share everything, one is SIGKILLed: the other is untouched", times=times)
