"""Places for guests: never more than there are, given back however their process ends, and who waits is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import DeadlineError, HostError
from harness.guest.machine import MachineShape
from harness.trial import jobs, slots
from harness.trial.slots import Slots

ROOT = Path(__file__).resolve().parents[2]
SMALL = MachineShape(cpus=1)
USUAL = MachineShape()
WIDE = MachineShape(cpus=4)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores, and memory for everything."""
    monkeypatch.setattr(jobs, "cores", lambda: 4)
    monkeypatch.setattr(jobs, "total_mib", lambda: 1 << 20)
    monkeypatch.setattr(jobs, "available_mib", lambda: 1 << 20)
    monkeypatch.setattr(slots, "_POLL_SECONDS", 0.01)


def at_once(places: Slots, shape: MachineShape) -> int:
    """How many places one process gets before it would have to wait."""
    count = 0
    held = []
    try:
        while count < 100:
            place = places.place(shape, impatient)
            place.__enter__()
            held.append(place)
            count += 1
    except ImpatientError:
        return count
    finally:
        for place in held:
            place.__exit__(None, None, None)
    raise AssertionError("there is no end of places")


class ImpatientError(Exception):
    pass


def impatient(line: str) -> None:
    raise ImpatientError(line)


@pytest.mark.parametrize(
    ("shape", "guests", "expected"),
    [
        # As many as `--jobs auto` would run, of whatever shape.
        (SMALL, None, 4),
        (USUAL, None, 4),
        (WIDE, None, 2),
        (MachineShape(cpus=64), None, 1),
        (USUAL, 1, 1),
        (USUAL, 7, 7),
        (WIDE, 7, 7),
    ],
)
def test_as_many_as_suit(tmp_path: Path, shape: MachineShape, guests: int | None, expected: int) -> None:
    places = Slots(tmp_path / "guests", guests)
    assert at_once(places, shape) == expected == places.most(shape)
    if guests is None:
        assert jobs.sensible(shape) == expected
    assert at_once(places, shape) == expected, "all were given back"


def test_shapes_share(tmp_path: Path) -> None:
    places = Slots(tmp_path)
    with places.place(WIDE, impatient):
        assert at_once(places, USUAL) == 2
        with places.place(USUAL, impatient):
            assert at_once(places, WIDE) == 0
            assert at_once(places, SMALL) == 1


def test_who_asks_for_more_gets_it_beside_others(tmp_path: Path) -> None:
    with Slots(tmp_path).place(USUAL, impatient):
        assert at_once(Slots(tmp_path), USUAL) == 3
        assert at_once(Slots(tmp_path, 6), USUAL) == 5


def test_memory_counts_as_promised_not_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that have just begun have not touched their memory yet."""
    assert jobs.guest_mib(USUAL) == 768
    monkeypatch.setattr(jobs, "total_mib", lambda: 3 * 768 * 4 // 3)
    assert at_once(Slots(tmp_path), USUAL) == 3
    monkeypatch.setattr(jobs, "available_mib", lambda: 768)
    assert at_once(Slots(tmp_path), USUAL) == 1, "the first always runs"


def test_two_halves_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Guests that need several files each, of which there are enough for one of them at a time."""
    places, most, running = Slots(tmp_path), 0, 0
    lock = threading.Lock()

    def run() -> None:
        nonlocal most, running
        for _ in range(5):
            with places.place(MachineShape(cpus=6), lambda line: None):
                with lock:
                    running += 1
                    most = max(most, running)
                time.sleep(0.001)
                with lock:
                    running -= 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 1


HOLDER = """
import sys, time
from pathlib import Path
from harness.guest.machine import MachineShape
from harness.trial.slots import Slots
with Slots(Path(sys.argv[1]), 1).place(MachineShape(), print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the only place of ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait(10)


def test_place_of_a_killed_process_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    places = Slots(tmp_path, 1)
    assert at_once(places, USUAL) == 0
    holder.kill()
    holder.wait(10)
    assert at_once(places, USUAL) == 1
    # What it had written of its memory counts no more.
    assert slots._holders(tmp_path) == {}


def test_who_waits_is_told_and_gets_the_place(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        holder.send_signal(signal.SIGTERM)

    with Slots(tmp_path, 1).place(USUAL, tell):
        pass
    assert told[0].startswith("waiting for a place for a guest, of which this host has 1, 0 s so far")
    assert f"(pid {holder.pid} is there)" in told[0]
    assert len(told) == 1, "once a minute"


def test_said_again_and_again(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_SAY_SECONDS", 0.05)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            raise ImpatientError

    with pytest.raises(ImpatientError), Slots(tmp_path, 1).place(USUAL, tell):
        pass
    assert len(told) == 3


def test_standstill_is_an_error_that_names_who_hangs(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_STANDSTILL_SECONDS", 0.3)
    with (
        pytest.raises(DeadlineError, match=rf"nothing has moved .*pid {holder.pid}"),
        Slots(tmp_path, 1).place(USUAL, lambda line: None),
    ):
        pass


@pytest.mark.slow
def test_sign_of_life_begins_the_wait_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_STANDSTILL_SECONDS", 2.0)
    places = Slots(tmp_path, 1)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with places.place(USUAL, lambda line: None) as alive:
            held.set()
            while not release.wait(0.05):
                alive()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    timer = threading.Timer(5, release.set)
    timer.start()
    begin = time.monotonic()
    with places.place(USUAL, lambda line: None):
        assert time.monotonic() - begin > 3
    holder.join(10)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "guests").write_text("a file")
    with (
        pytest.raises(HostError, match=r"guests.*XDG_CACHE_HOME"),
        Slots(tmp_path / "guests").place(USUAL, print),
    ):
        pass


def test_files_are_not_inherited(tmp_path: Path) -> None:
    """A guest that outlives us must not hold our place for ever."""
    with Slots(tmp_path).place(USUAL, impatient):
        child = subprocess.run(
            ["ls", "-l", "/proc/self/fd"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            close_fds=False,
        )
    assert str(tmp_path) not in child.stdout
