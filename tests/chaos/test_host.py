"""The host under attack: QEMU and nbdkit killed or stopped, disks that fill up or refuse, clocks that jump, and too few
descriptors.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reliability import (
    COUNTED,
    DEADLINES,
    DEATH_NOTICED,
    NEVER_CLEAN,
    NOTHING_LEFT,
    RESULTS_KEPT,
    SAYS_WHAT,
    Attacked,
)
from remains import check_kept
from trouble import Command, cowpen, kernels_alone, path_spec, program, small_disk

from harness.arch import get_arch
from harness.cache import Cache

ARCH = "x86_64"
QEMU = get_arch(ARCH).qemu
# Noticed within 1 s; another for judging and writing on a busy host.
NOTICED_SECONDS = 2.0
KILLED = "killed by signal 9"

# Says in the kernel log when it begins and when it is about to end.
SLOW = """
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void say(const char *words)
{
	int log = open("/dev/kmsg", O_WRONLY);

	if (log < 0 || write(log, words, strlen(words)) < 0)
		_exit(2);
	close(log);
}

int main(void)
{
	say("slow: under way\\n");
	usleep(500000);
	say("slow: ending\\n");
	return 0;
}
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    source = tmp_path / "slow.c"
    source.write_text(SLOW)
    return source


def run_words(file: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("run", "--program", file, "--arch", ARCH, "--json", *more)


def printed(folder: Path, words: bytes) -> bool:
    """Whether a console kept in ``folder`` has these words."""
    return any(words in console.read_bytes() for console in folder.glob("keep/*/attempt-*/console.log"))


def next_attempt(
    command: Command, since: float, count: int = 1, seconds: float = 60
) -> tuple[dict[str, Any], float]:
    """The record number ``count``, and how long after ``since`` it came."""
    end = time.monotonic() + seconds
    while len(records := command.records("attempt")) < count:
        assert time.monotonic() < end, f"no attempt was reported: {command.said()}"
        time.sleep(0.005)
    return records[count - 1], time.monotonic() - since


# -- QEMU ------------------------------------------------------------------------------------------


def test_qemu_killed_while_booting(tmp_path: Path, attacked: Attacked) -> None:
    """One lost attempt is made up for by another, and both are shown; nothing is made up for without end."""
    words = run_words(program("ok"), "--cold", "--attempts", "1")
    with Command(*words, folder=tmp_path) as command:
        for count in (1, 2):
            command.wait_for("QEMU", lambda: command.pids("qemu-system"))
            (qemu,) = command.pids("qemu-system")
            killed = time.monotonic()
            os.kill(qemu, signal.SIGKILL)
            record, took = next_attempt(command, killed, count)
            assert record["outcome"] == "infra"
            assert "QEMU" in record["reason"] and KILLED in record["reason"]
            assert took < NOTICED_SECONDS
        ended = command.end(seconds=20)
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["infra", "infra"]
    attacked(DEATH_NOTICED, "QEMU SIGKILLed while a guest boots", times=2)
    attacked(COUNTED, "QEMU SIGKILLed in every boot: made up for once, both shown", times=2)


@pytest.mark.long
def test_qemu_killed_once(tmp_path: Path, slow: Path, attacked: Attacked) -> None:
    """The attempts that are left decide, and the lost one is shown beside them."""
    words = run_words(slow, "--cold", "--attempts", "2", "--keep", tmp_path / "keep")
    with Command(*words, folder=tmp_path) as command:
        command.wait_for("QEMU", lambda: command.pids("qemu-system"))
        os.kill(*command.pids("qemu-system"), signal.SIGKILL)
        ended = command.end(seconds=120)
    assert ended.code == 0, ended.err
    assert ended.outcomes == ["infra", "clean", "clean"]
    assert ended.verdict["counts"]["infra"] == 1
    assert "1 never ran the program" in ended.verdict["reason"] and KILLED in ended.verdict["reason"]
    attacked(COUNTED, "QEMU SIGKILLed in one boot of three: counted, and named in the verdict", times=1)


@pytest.mark.parametrize("phase", ["restoring", "running", "settling"])
def test_qemu_killed(phase: str, tmp_path: Path, slow: Path, attacked: Attacked) -> None:
    words = run_words(slow, "--attempts", "1", "--keep", tmp_path / "keep")
    # First the snapshot, so that QEMU's first process is that of the attempt.
    assert cowpen(*run_words(slow, "--attempts", "1"), folder=tmp_path).code == 0
    with Command(*words, folder=tmp_path) as command:
        command.wait_for("QEMU", lambda: command.pids("qemu-system"))
        if phase == "running":
            command.wait_for("the program", lambda: printed(tmp_path, b"slow: under way"))
        elif phase == "settling":
            # cowpen stands still while the program ends: when it goes on, it finds the end, and QEMU dead.
            command.wait_for("the program", lambda: printed(tmp_path, b"slow: under way"))
            command.process.send_signal(signal.SIGSTOP)
            command.wait_for("its end", lambda: printed(tmp_path, b"slow: ending"))
            time.sleep(1)
        (qemu,) = command.pids("qemu-system")
        killed = time.monotonic()
        os.kill(qemu, signal.SIGKILL)
        command.process.send_signal(signal.SIGCONT)
        record, took = next_attempt(command, killed)
        ended = command.end(seconds=60)
    assert record["outcome"] == "infra", record["reason"]
    assert "QEMU" in record["reason"] and KILLED in record["reason"]
    assert took < NOTICED_SECONDS
    # One in which the program ran is not made up for: it may have hidden the bug.
    assert ended.code == 125 if phase != "restoring" else ended.code in (0, 125)
    assert ended.outcomes == ["infra"] if phase != "restoring" else len(ended.outcomes) <= 2
    print(f"{phase}: reported {took:.2f} s after the kill: {record['reason']}")
    attacked(DEATH_NOTICED, f"QEMU SIGKILLed while {phase}", times=1)


# Every deadline of one attempt has passed by then, also where guests are slow and the host is busy.
PATIENCE_SECONDS = 900.0


@pytest.mark.long
@pytest.mark.parametrize("phase", ["booting", "running"])
def test_qemu_stopped(phase: str, tmp_path: Path, attacked: Attacked) -> None:
    """It neither lives nor dies: the deadline ends it, and the reason is not the guest's."""
    more = ("--cold",) if phase == "booting" else ()
    words = run_words(
        program("hang"), "--attempts", "1", "--seconds", "1", "--keep", tmp_path / "keep", *more
    )
    with Command(*words, folder=tmp_path) as command:
        marker = b"Linux version" if phase == "booting" else b"hang: under way"
        command.wait_for(phase, lambda: printed(tmp_path, marker))
        (qemu,) = command.pids("qemu-system")
        os.kill(qemu, signal.SIGSTOP)
        record, _ = next_attempt(command, time.monotonic(), seconds=PATIENCE_SECONDS)
        command.process.send_signal(signal.SIGINT)  # one that makes up for it is of no interest
        ended = command.end(seconds=60)
    assert record["outcome"] == "infra", record["reason"]
    assert "QEMU" in record["reason"]
    assert ended.code in (125, 130)
    attacked(DEADLINES, f"QEMU SIGSTOPped while {phase}", times=1)
    attacked(NOTHING_LEFT, f"QEMU SIGSTOPped while {phase}", times=1)


def wrapped(folder: Path, *before: str) -> dict[str, str]:
    """An environment in which QEMU is started by the words ``before``."""
    folder.mkdir()
    wrapper = folder / QEMU
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(before)} {shutil.which(QEMU)} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_qemu_gets_no_memory(tmp_path: Path, user_cache: Cache, attacked: Attacked) -> None:
    """QEMU's own words are the reason."""
    env = kernels_alone(tmp_path / "cache", user_cache, ("debian:6.12", ARCH))
    env |= wrapped(tmp_path / "bin", "prlimit", f"--as={400 << 20}")
    ended = cowpen(*run_words(program("ok"), "--attempts", "3"), folder=tmp_path, env=env)
    assert ended.code == 125, ended.err
    assert set(ended.outcomes) == {"infra"} and len(ended.outcomes) <= 2
    assert "QEMU did not start" in ended.verdict["reason"]
    assert "annot allocate memory" in ended.verdict["reason"]
    attacked(SAYS_WHAT, "QEMU cannot have the guest's memory", times=1)


# -- the disk of the guest -------------------------------------------------------------------------


def forkscrew(tmp_path: Path, *more: str) -> tuple[str | Path, ...]:
    """A run that uses its disk for some seconds, on a kernel without the bug."""
    return (
        *("run", "rhbz-471613/forkscrew", "--kernel", "debian:6.12", "--arch", ARCH, "--set", "rounds=400"),
        *("--attempts", "1", "--json", "--keep", tmp_path / "keep", *more),
    )


@contextlib.contextmanager
def reading(tmp_path: Path, *more: str) -> Iterator[tuple[Command, int]]:
    """A run whose program reads from the disk at this moment, and the pid of the disk's server."""
    with Command(*forkscrew(tmp_path, *more), folder=tmp_path) as command:
        # All that was made before is another's; the attempt's own nbdkit comes with its console.
        command.wait_for("attempt", lambda: printed(tmp_path, b"Linux version"), seconds=240)
        command.wait_for("disk", lambda: command.pids("nbdkit"))
        time.sleep(2)
        (nbdkit,) = command.pids("nbdkit")
        yield command, nbdkit


def test_disk_server_killed(tmp_path: Path, attacked: Attacked) -> None:
    """A guest whose disk is gone proves nothing."""
    with reading(tmp_path) as (command, nbdkit):
        killed = time.monotonic()
        os.kill(nbdkit, signal.SIGKILL)
        record, took = next_attempt(command, killed)
        ended = command.end(seconds=60)
    assert record["outcome"] == "infra", record["reason"]
    assert "disk" in record["reason"] and f"nbdkit was {KILLED}" in record["reason"]
    assert ended.code == 125
    assert took < NOTICED_SECONDS + 1  # QEMU is given a second to say that it was its own end
    attacked(NEVER_CLEAN, "nbdkit SIGKILLed while the program reads", times=1)


@pytest.mark.long
def test_disk_server_stopped(tmp_path: Path, attacked: Attacked) -> None:
    """Reads never end: the deadline does, and what stands still is ended too."""
    with reading(tmp_path, "--seconds", "4") as (command, nbdkit):
        os.kill(nbdkit, signal.SIGSTOP)
        record, _ = next_attempt(command, time.monotonic(), seconds=PATIENCE_SECONDS)
        ended = command.end(seconds=60)
    assert record["outcome"] in ("hang", "infra"), record["reason"]
    assert ended.code == 125
    attacked(DEADLINES, "nbdkit SIGSTOPped while the program reads", times=1)


# -- the disks of the host -------------------------------------------------------------------------


def test_results_disk_fills_up(tmp_path: Path, attacked: Attacked) -> None:
    """In the middle of a campaign: it ends, says so, and what was reported is whole."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        words = run_words(program("ok"), "--attempts", "500", "--jobs", "2", "--keep", disk)
        with Command(*words, folder=tmp_path) as command:
            command.wait_for("attempts", lambda: len(command.records("attempt")) >= 3, seconds=120)
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            ended = command.end(seconds=60)
        assert ended.code == 125, ended.err
        assert f"no space left for results in {disk}" in ended.err
        # Those under way when the disk was full may have been lost; none of them was reported.
        assert check_kept(ended.records("attempt")) >= 3
        assert ended.records("verdict") == []
    attacked(RESULTS_KEPT, "results disk fills up in mid-campaign", times=1)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make ``folder`` read-only; the test is skipped where that cannot be done."""
    for words in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder]):
        if (
            done := subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
        ).returncode != 0:
            subprocess.run(["umount", folder], capture_output=True, timeout=10, check=False)
            pytest.skip(f"cannot mount (not root?): {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], timeout=10, check=True)


def test_read_only_cache(tmp_path: Path, user_cache: Cache, attacked: Attacked) -> None:
    """What is there serves; what cannot be done is said, with what to do about it."""
    env = kernels_alone(tmp_path / "cache", user_cache, ("debian:6.12", ARCH))
    # One CPU: with two, QEMU 7.2 fails one cold x86_64 boot in a few hundred, stumbling over the int3 of a half-patched
    # instruction. That is counted as infra, and not what is attacked here.
    words = run_words(program("ok"), "--attempts", "1", "--cpus", "1")
    made = cowpen(*words, folder=tmp_path, env=env)
    assert made.code == 0, made.err
    with read_only(tmp_path / "cache"):
        warm = cowpen(*words, folder=tmp_path, env=env)
        cold = cowpen(*run_words(program("hang"), "--attempts", "1"), folder=tmp_path, env=env)
    # QEMU wants to write to what it only reads of a snapshot: so each attempt boots.
    assert warm.code == 0, warm.err
    assert "every attempt boots" in warm.err and "XDG_CACHE_HOME" in warm.err
    # A program that was never compiled cannot be.
    assert cold.code == 125, cold.err
    assert "Read-only file system" in cold.verdict["reason"] and "XDG_CACHE_HOME" in cold.verdict["reason"]
    attacked(SAYS_WHAT, "read-only cache: a warm one works, a cold one says what to do", times=2)


# -- clocks ----------------------------------------------------------------------------------------

# The wall clock of one process jumps by a day, to and fro, several times a second; the monotonic one goes on.
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static unsigned long jumps, seed = SEED;

__attribute__((constructor)) static void begin(void)
{
	real = dlsym(RTLD_NEXT, "clock_gettime");
	unsetenv("LD_PRELOAD"); /* what this process starts keeps its clock */
}

static long offset(void)
{
	static time_t tenth;
	static long days;
	struct timespec now;

	real(CLOCK_MONOTONIC, &now);
	if (now.tv_sec * 10 + now.tv_nsec / 100000000 != tenth) {
		tenth = now.tv_sec * 10 + now.tv_nsec / 100000000;
		seed = seed * 6364136223846793005UL + 1442695040888963407UL;
		days = (long)(seed >> 33) % 3 - 1;
		jumps++;
	}
	return days * 86400;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int status = real(clock, time);

	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		time->tv_sec += offset();
	return status;
}

time_t time(time_t *where)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (where)
		*where = now.tv_sec;
	return now.tv_sec;
}

int gettimeofday(struct timeval *restrict where, void *restrict zone)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	where->tv_sec = now.tv_sec;
	where->tv_usec = now.tv_nsec / 1000;
	return 0;
}
"""


def jumping_clock(folder: Path) -> tuple[str, ...]:
    """The words before a command that make the wall clock of that one process jump."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    (folder / "clock.c").write_text(CLOCK.replace("SEED", f"{seed}UL"))
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"],
        cwd=folder,
        check=True,
        timeout=60,
    )
    return "env", f"LD_PRELOAD={folder}/clock.so"


@pytest.mark.long
def test_wall_clock_jumps(tmp_path: Path, user_cache: Cache, attacked: Attacked) -> None:
    """By days, to and fro, ten times a second: deadlines, durations and the order of results do not care."""
    before = jumping_clock(tmp_path)
    look = "import time; a = time.time()\nwhile abs(time.time() - a) < 3600: pass"
    subprocess.run([*before, sys.executable, "-c", look], timeout=20, check=True)  # it does jump
    kernel = path_spec("debian:6.12", ARCH, user_cache)  # needs no archive, whose index ages by the clock
    words = run_words(program("hang"), "--kernel", kernel, "--seconds", "1", "--attempts", "1")
    begin = time.monotonic()
    hanging = cowpen(*words, folder=tmp_path, before=before)
    took = time.monotonic() - begin
    assert hanging.outcomes == ["hang"], hanging.err
    assert 1 <= hanging.records("attempt")[0]["seconds"] <= took
    words = run_words(program("ok"), "--kernel", kernel, "--attempts", "10", "--jobs", "2")
    ended = cowpen(*words, folder=tmp_path, before=before)
    assert ended.code == 0, ended.err
    records = ended.records("attempt")
    assert sorted(record["attempt"] for record in records) == list(range(1, 11))
    assert all(0 < record["seconds"] <= ended.seconds for record in records)
    check_kept(records)
    attacked(DEADLINES, "the wall clock jumps by days, ten times a second", times=11)


# -- descriptors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [pytest.param(64, marks=pytest.mark.long), 40, 24])
def test_few_descriptors(most: int, tmp_path: Path, attacked: Attacked) -> None:
    """It works, or says clearly that the host is short of them; never a traceback, never clean by mistake."""
    limit = ("prlimit", f"--nofile={most}")
    words = run_words(program("ok"), "--attempts", "4", "--jobs", "2")
    ended = cowpen(*words, folder=tmp_path, before=limit)
    assert "Traceback" not in ended.err
    assert ended.code in (0, 125), ended.err
    if ended.code == 125:
        assert "Too many open files" in ended.err
    print(f"{most} descriptors: {ended.outcomes}")
    attacked(SAYS_WHAT, "64, 40, 24 descriptors: it works, or says what is short", times=1)


@pytest.mark.long
def test_no_descriptor_leaks(tmp_path: Path, attacked: Attacked) -> None:
    words = run_words(program("ok"), "--attempts", "60", "--jobs", "4")
    ended = cowpen(*words, folder=tmp_path, before=("prlimit", "--nofile=1000"), seconds=400)
    assert ended.code == 0, ended.err
    # With a leak of one for each attempt it could not end so with 100 either.
    tight = cowpen(*words, folder=tmp_path, before=("prlimit", "--nofile=100"), seconds=400)
    assert tight.code == 0, tight.err
    attacked(NOTHING_LEFT, "60 attempts, four at once, with 1000 and with 100 descriptors", times=120)


# -- results of others -----------------------------------------------------------------------------

RUN_FOLDER = """
import sys
from pathlib import Path
from harness.trial.keep import run_folder

for number in range(int(sys.argv[1])):
    with run_folder(None) as folder:
        (folder / "mine").write_text("mine")
        for other in list(folder.parent.iterdir())[:3]:
            other.exists()
        assert (folder / "mine").read_text() == "mine"
"""


def test_results_are_pruned_while_others_begin(tmp_path: Path, attacked: Attacked) -> None:
    """Even when every new run sorts as the oldest (the clock was set back): what is under way stays."""
    runs = tmp_path / "cowpen/runs"
    for number in range(25):
        (runs / f"99990101-0000{number:02d}-1").mkdir(parents=True)
    env = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    users = [
        subprocess.Popen([sys.executable, "-c", RUN_FOLDER, "150"], env=env, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [user.communicate(timeout=60)[1].decode() for user in users]
    assert [user.returncode for user in users] == [0] * 4, "\n".join(said)
    attacked(RESULTS_KEPT, "old runs pruned while new ones begin", times=600)
