"""What the agent tells of the threads of an overdue program, and what becomes of it.

The agent runs on this very host, as it does on a machine that is reached by SSH; in guests of both architectures:
tests/guest/test_hang_stacks.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import tools
from harness.arch import host_arch
from harness.cache import Cache
from harness.console.finding import Frame, Thread
from harness.console.threads import Binary, ThreadState, describe, first_stuck, hang_of, threads_of
from harness.console.unwind import MAX_FRAMES, Stack
from harness.errors import ToolMissingError, UserError
from harness.guest.agent import _TELL_BYTES, AgentChannel
from harness.guest.channel import Ending, Stream
from harness.guest.threads import Told, parse_threads
from harness.program.compile import compile_program
from harness.program.init import compile_init

PROGRAMS = Path(__file__).parents[1] / "guest" / "programs"
CROWD = """
#include <pthread.h>
#include <unistd.h>
static void *stays(void *unused) { pause(); return unused; }
int main(void)
{
    pthread_t thread;
    for (int i = 0; i < 3 * 80; i++) {
        if (i % 80 == 0 && i)
            if (!fork()) break;
        if (i < 80 && pthread_create(&thread, 0, stays, 0)) return 3;
    }
    for (;;) pause();
}
"""


@dataclasses.dataclass(frozen=True)
class Looked:
    """A program that was overdue on this host."""

    binary: Path
    raw: bytes
    told: Told
    threads: tuple[Thread, ...]

    def named(self, comm: str) -> list[Thread]:
        return [thread for thread in self.threads if thread.comm == comm]


@contextlib.contextmanager
def agent(init: Path) -> Iterator[AgentChannel]:
    """An agent of this host, as SSH starts it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, subprocess.Popen([init, "--stdio"], stdin=theirs, stdout=theirs) as process:
        theirs.close()
        with AgentChannel(ours) as channel:
            channel.hello(seconds=10)
            yield channel
        assert process.wait(10) == 0


Look = Callable[..., Looked]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Run a program for half a second, and look at it."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    try:
        init = compile_init(host_arch(), cache)
    except (ToolMissingError, UserError) as error:
        pytest.skip(str(error))

    @functools.cache
    def run(name: str, source: str | None = None) -> Looked:
        source = source or (PROGRAMS / f"{name}.c").read_text(encoding="utf-8")
        binary = compile_program(source, name, host_arch(), cache).binary
        raw = bytearray()

        def keep(stream: Stream, data: bytes) -> None:
            if stream is Stream.THREADS:
                raw.extend(data)

        with agent(init) as channel:
            ended = channel.run([str(binary)], seconds=0.5, on_output=keep)
            assert ended.ending is Ending.DEADLINE
            assert ended.seconds < 6
        told = parse_threads(bytes(raw))
        assert gone(told), "what was looked at has been killed, wherever it was"
        return Looked(
            binary, bytes(raw), told, threads_of(told.threads, Binary(binary), str(binary).encode())
        )

    return run


def gone(told: Told) -> bool:
    for _ in range(100):
        if not any(Path(f"/proc/{thread.pid}").exists() for thread in told.threads):
            return True
        time.sleep(0.02)
    return False


def functions(thread: Thread) -> list[str]:
    return [frame.function for frame in thread.frames]


def test_a_child_that_waits_for_a_lock_nobody_holds(look: Look) -> None:
    """rhbz-471613, comments 16 to 23."""
    looked = look("fork_lock")
    assert (looked.told.processes, looked.told.counted) == (2, 3)
    parent, forker, child = looked.threads
    assert (parent.pid, parent.tid) == (forker.pid, parent.pid)
    assert child.parent == parent.pid
    assert "pthread_clockjoin_ex" in [name.lstrip("_") for name in functions(parent)]
    assert functions(forker)[:3] == ["wait4", "wait_for_child", "forker"]
    waits = functions(child).index("pthread_mutex_lock")
    assert functions(child)[waits + 1 : waits + 5] == ["child_takes_lock"] * 4
    assert all(thread.whole for thread in looked.threads)
    assert not any(frame.unsure for thread in looked.threads for frame in thread.frames)
    assert {thread.state for thread in looked.threads} == {"S"}
    source = (PROGRAMS / "fork_lock.c").read_text(encoding="utf-8").splitlines()
    place = child.frames[waits + 1].source
    assert place is not None
    assert place.startswith("fork_lock.c:")
    assert source[int(place.partition(":")[2]) - 1].strip() == "pthread_mutex_lock(&lock);"

    finding = hang_of("fork_lock", arch=host_arch().name, threads=looked.threads, text="")
    assert (finding.kind, finding.title, finding.frame) == ("hang", "hang in fork_lock", "child_takes_lock")
    assert finding.frames == child.frames
    assert finding.task is not None and finding.task.pid == child.tid
    # The C library's begin of a program has no debug information, whatever lies before it.
    assert (parent.frames[-1].function, parent.frames[-1].source) == ("_start", None)
    assert finding.functions >= {"wait_for_child", "child_takes_lock", "main"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may see what the kernel does")
def test_where_it_is_in_the_kernel(look: Look) -> None:
    looked = look("fork_lock")
    forker = looked.threads[1]
    assert "wait" in forker.wchan
    if not Path("/proc/self/stack").exists():
        pytest.skip("this kernel is built without CONFIG_STACKTRACE")
    assert any("wait" in frame.function for frame in forker.kernel)
    assert not any("ptrace" in frame.function for frame in forker.kernel), "that is where we stopped it"


def test_one_that_spins_and_has_left(look: Look) -> None:
    """It is in another session, and its parent has ended."""
    looked = look("spin_away")
    first, spins = looked.threads
    assert functions(first)[:3] == ["read", "wait_for_the_end", "main"]
    assert spins.state == "R"
    assert functions(spins)[:2] == ["spin_for_ever", "main"]
    assert spins.whole
    assert spins.parent not in (first.pid, 1)
    assert first_stuck(looked.threads) == spins


def test_stacks_that_are_hard_to_unwind(look: Look) -> None:
    looked = look("stacks")
    (clock,) = looked.named("clock_spin")
    assert functions(clock)[-3:] == ["__libc_start_call_main", "__libc_start_main", "_start"]
    assert "clock_spin" in functions(clock)
    (signal,) = looked.named("by_signal")
    assert functions(signal)[:2] == ["spin", "in_handler"]
    assert functions(signal)[3:6] == ["interrupted", "by_signal", "main"]
    assert signal.whole
    # Its first thread has no memory and no stack any more.
    first, other = looked.named("headless")
    assert (first.state, first.frames) == ("Z", ())
    assert "stays" in functions(other) and other.whole
    parent, child = looked.named("by_vfork")
    assert (parent.state, functions(parent)[0], child.parent) == ("D", "vfork", parent.pid)
    assert functions(child)[:2] == ["pause", "by_vfork"]
    for thread in looked.named("traced"):  # one of them by its own parent, so that we cannot
        assert functions(thread)[:3] == ["pause", "traced", "main"]
    (called,) = looked.named("by_qsort")
    assert functions(called)[:2] == ["pause", "compare"] and "by_qsort" in functions(called)
    (sized,) = looked.named("sized")
    assert functions(sized)[:3] == ["pause", "of_any_size", "main"] and sized.whole


def test_a_crowd_is_bounded(look: Look) -> None:
    looked = look("crowd", CROWD)
    assert (looked.told.processes, looked.told.counted) == (3, 83)
    assert 60 < len(looked.threads) < 83
    assert len(looked.raw) < _TELL_BYTES
    assert len({thread.pid for thread in looked.threads}) == 3, "no process hides the others"


def test_what_was_told_may_be_cut_anywhere(look: Look) -> None:
    looked = look("fork_lock")
    for length in range(0, len(looked.raw), 97):
        told = parse_threads(looked.raw[:length])
        count = len(told.threads)
        assert [thread.tid for thread in told.threads] == [thread.tid for thread in looked.threads[:count]]


@settings(max_examples=50, deadline=None)  # each asks eu-addr2line
@given(data=st.binary(max_size=2000), at=st.integers(0, 2000), flipped=st.binary(min_size=1, max_size=64))
@example(data=b"", at=8, flipped=b"\xff" * 64)
@example(data=b"", at=383, flipped=b"\x00\x00\x02")
def test_what_was_told_may_be_anything(look: Look, data: bytes, at: int, flipped: bytes) -> None:
    looked = look("fork_lock")
    raw = looked.raw[:at] + flipped + looked.raw[at + len(flipped) :]
    binary = binary_of(looked.binary)
    for garbage in (data, raw):
        threads = threads_of(parse_threads(garbage).threads, binary, str(looked.binary).encode())
        assert all(len(thread.frames) <= 4 * MAX_FRAMES for thread in threads)
        text = describe(threads, "why") + repr(
            hang_of("x", arch="x86_64", threads=threads, text="").to_json()
        )
        assert all(letter.isprintable() or letter == "\n" for letter in text)


binary_of = functools.cache(Binary)


# -- another program, and programs that say little of themselves --------------------------------------


def test_a_process_that_runs_another_program(look: Look) -> None:
    looked = look("fork_lock")
    threads = threads_of(looked.told.threads, Binary(looked.binary), b"/tmp/other")
    assert not any(thread.frames for thread in threads)
    removed = [
        dataclasses.replace(state, executable=state.executable + b" (deleted)")
        for state in looked.told.threads
    ]
    threads = threads_of(removed, Binary(looked.binary), str(looked.binary).encode())
    assert all(thread.frames for thread in threads)


def test_a_program_without_symbols(look: Look, tmp_path: Path) -> None:
    looked = look("fork_lock")
    stripped = tmp_path / "stripped"
    tools.run([host_arch().binutil("objcopy"), "-S", looked.binary, stripped], seconds=30)
    binary = Binary(stripped)
    (lacks,) = binary.lacks
    assert "has no symbols" in lacks
    threads = threads_of(looked.told.threads, binary, str(looked.binary).encode())
    for thread, named in zip(threads, looked.threads, strict=True):
        places = [frame.address for frame in named.frames if not frame.inlined]
        assert [frame.address for frame in thread.frames] == places
        assert all(frame.function == f"{frame.address:#x}" for frame in thread.frames)
    (tmp_path / "none").write_bytes(b"\x7fELF")
    binary = Binary(tmp_path / "none")
    assert not any(thread.frames for thread in threads_of(looked.told.threads, binary, b"/tmp/x"))
    assert binary.lacks


def test_a_program_of_another_kind_of_address(look: Look) -> None:
    """Only what can be moved may be elsewhere."""
    binary = Binary(look("fork_lock").binary)
    assert binary.frames is not None
    assert binary.bias(binary.frames.entry) == 0
    assert binary.bias(binary.frames.entry + 4096) is None
    binary.frames.movable = True
    assert binary.bias(binary.frames.entry + 4096) == 4096
    assert binary.bias(binary.frames.entry + 4095) is None
    assert binary.bias(0) is None


# -- whom to speak of first ---------------------------------------------------------------------------


def thread(tid: int, *trace: str, pid: int = 0, parent: int = 1, state: str = "S") -> Thread:
    frames = tuple(Frame(function=name, symbol=name) for name in trace)
    return Thread(
        pid=pid or tid, tid=tid, parent=parent, comm="p", state=state, executable="/tmp/p", frames=frames
    )


JOINS = thread(10, "__futex_abstimed_wait_common", "__pthread_clockjoin_ex", "main")
WAITS = thread(11, "wait4", "forker", pid=10)
LOCKS = thread(20, "__lll_lock_wait", "pthread_mutex_lock", "child", parent=10)
# As in the report: what waits for a lock in the midst of a join.
LOCKS_IN_JOIN = thread(10, "__lll_lock_wait_private", "free_atfork", "free", "pthread_join", "main")


@pytest.mark.parametrize(
    ("threads", "first"),
    [
        ([], None),
        ([thread(1, state="Z"), thread(2, state="")], None),
        ([JOINS, WAITS, LOCKS], 20),
        ([LOCKS, WAITS, JOINS], 20),
        ([LOCKS_IN_JOIN, thread(11, "pause", "worker", pid=10)], 10),
        # In the kernel, where nothing reaches it.
        ([JOINS, LOCKS, thread(12, "read", "reader", pid=10, state="D")], 12),
        ([thread(10, "vfork", "main", state="D"), thread(20, "read", "child", parent=10)], 20),
        # Of two that run, the child: its parent waits for it in its own way.
        ([thread(10, "main", state="R"), thread(20, "child", state="R", parent=10)], 20),
        ([thread(10, "read", "main"), thread(11, "spin", "worker", pid=10, state="R")], 11),
        ([thread(10, "nanosleep", "usleep", "main"), thread(11, "read", "worker", pid=10)], 11),
        ([JOINS], 10),
        # A guest may tell of a circle.
        ([thread(1, "a", parent=2), thread(2, "b", parent=1)], 1),
    ],
)
def test_the_first_stuck(threads: list[Thread], first: int | None) -> None:
    found = first_stuck(threads)
    assert (found.tid if found else None) == first


def test_no_thread_is_left() -> None:
    finding = hang_of("p", arch="x86_64", threads=(thread(1, state="Z"),), text="text")
    assert (finding.title, finding.frames, finding.frame, finding.text) == ("hang in p", (), None, "text")
    assert len(finding.threads) == 1


def test_what_a_person_reads() -> None:
    kernel = (Frame(function="do_wait", symbol="do_wait", offset=0x5D, size=0x110),)
    frames = (
        Frame(function="wait4", symbol="wait4", offset=0x57, size=0xB0),
        Frame(function="helper", inlined=True, source="p.c:3"),
        Frame(function="main", symbol="main", offset=1, size=2, source="p.c:9", unsure=True),
    )
    waits = Thread(
        **{"pid": 10, "tid": 10, "parent": 1, "comm": "p", "state": "S", "executable": "/tmp/p"},
        **{"wchan": "do_wait", "system_call": 61, "frames": frames, "kernel": kernel, "whole": False},
    )
    child = dataclasses.replace(thread(20, "spin", parent=10, state="R"), whole=True)
    blank, zombie = thread(21, pid=20, state="R"), thread(22, pid=20, state="Z")
    assert describe([waits, child, blank, zombie], "p did not end", ["7 more"]).splitlines() == [
        "p did not end",
        "processes: 2, threads: 4",
        "7 more",
        "thread 20 seems to keep the others waiting",
        "? marks frames that were found by a guess",
        "",
        "process 10: /tmp/p",
        "",
        "  thread 10 (p), sleeping, in do_wait, system call 61",
        "    wait4+0x57/0xb0",
        "    helper (inlined)  p.c:3",
        "    ? main+0x1/0x2    p.c:9",
        "    (the rest of the stack was not found)",
        "   in the kernel:",
        "    do_wait+0x5d/0x110",
        "",
        "process 20, child of 10: /tmp/p",
        "",
        "  thread 20 (p), running",
        "    spin",
        "",
        "  thread 21 (p), running",
        "    (no stack: it did not stop, or runs another program)",
        "",
        "  thread 22 (p), a zombie",
    ]


def test_what_the_guest_chose_is_escaped() -> None:
    state = ThreadState(
        **{"pid": 1, "tid": 1, "parent": 0, "state": "S", "comm": b"\x1b[2J\na\tb", "wchan": b"\x1b]0;x\x07"},
        **{
            "system_call": None,
            "executable": b"/tmp/\x9b",
            "kernel": b"[<0>] \x1b[31m+0x1/0x2\n[<0>] ok+0x1/0x2",
        },
        **{"values": {}, "stack": Stack(0, b""), "entry": 0, "vdso": 0},
    )
    (shown,) = threads_of([state], Binary(Path("/nonexistent")), b"/tmp/p")
    text = describe([shown], "why")
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert [frame.function for frame in shown.kernel] == ["ok"]
