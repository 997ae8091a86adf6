"""The threads of a program that hangs: from registers and bytes of stacks to functions and lines.

What is known of a thread is what the agent in the guest told (`harness.guest.threads`): nothing of it is trusted. The
binary is the one that was sent there.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.console.display import escape
from harness.console.finding import Finding, Frame, Task, Thread, hang_finding
from harness.console.format import FUNCTION
from harness.console.objectfile import Line, ObjectFile, Spot
from harness.console.report import bare
from harness.console.unwind import CallFrames, Place, Stack, unwind
from harness.errors import CowpenError, UserError
from harness.process import StoppingError

_PAGE = 4096
_WORD = (1 << 64) - 1
_VDSO_BYTES = 1 << 16
_KERNEL_FRAMES = 64
# "[<0>] futex_wait_queue+0x5e/0x90": the kernel gives no addresses to anybody.
_KERNEL_FRAME = re.compile(
    rf"\[<[0-9a-fx]{{1,18}}>\] (?P<symbol>{FUNCTION})\+0x(?P<offset>[0-9a-f]{{1,8}})/0x(?P<size>[0-9a-f]{{1,8}})"
    r"(?: \[(?P<module>[\w-]{1,64})\])?",
    re.ASCII,
)
# What a thread is in that waits for others of its program, or for time to pass: it hangs because they do. A library
# calls them in its own ways, so the innermost function that is not among _INNARDS counts.
_WAITS_FOR_OTHERS = frozenset(
    """
    wait waitpid wait3 wait4 waitid pthread_join pthread_clockjoin_ex pthread_timedjoin_np pthread_clockjoin_np
    pthread_tryjoin_np vfork pause sigsuspend sigwait sigwaitinfo sigtimedwait sleep usleep nanosleep clock_nanosleep
    sched_yield pthread_barrier_wait
    """.split()
)
_INNARDS = re.compile(r"_*(?:GI_+)?(?:\w*futex\w*|syscall|syscall_cancel\w*|internal_syscall_cancel)")
_NOWHERE = ("", "Z", "X")
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in uninterruptible sleep",
    "T": "stopped",
    "t": "traced",
    "Z": "a zombie",
    "X": "dead",
    "I": "idle",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThreadState:
    """What the agent read of one thread. Nothing in it can be relied on, and nothing is escaped."""

    pid: int
    tid: int
    parent: int
    state: str
    """A letter, or nothing."""
    comm: bytes
    wchan: bytes
    system_call: int | None
    executable: bytes
    kernel: bytes
    values: Mapping[int, int]
    """Registers by DWARF's numbers, as far as they were read."""
    stack: Stack
    entry: int
    vdso: int


class Binary:
    """A static program, of which addresses are to be named.

    A program without symbols, or without call frame information, is no error: ``lacks`` says what could not be told
    for want of it.
    """

    def __init__(self, path: Path) -> None:
        self.lacks: list[str] = []
        self.frames: CallFrames | None = None
        self._object: ObjectFile | None = None
        try:
            self.frames = CallFrames(path)
            self._object = ObjectFile(path)
        except UserError as error:
            self.lacks.append(str(error))
        names: dict[int, str] = {}
        for address, name in self._object.functions() if self._object else ():
            # Of a function's names the plainest: wait4, not __wait4.
            names[address] = min(names.get(address, name), name, key=_plainness)
        self._addresses = sorted(names)
        self._names = [names[address] for address in self._addresses]

    def bias(self, entry: int) -> int | None:
        """How far a process runs from where this program was linked; None if it is not this program."""
        if self.frames is None:
            return None
        bias = entry - self.frames.entry
        return bias if bias == 0 or (self.frames.movable and bias > 0 and bias % _PAGE == 0) else None

    def lines(self, addresses: Iterable[int]) -> dict[int, tuple[Line, ...]]:
        """The functions inlined at each address, and the line; none if that cannot be found out."""
        if self._object is None or self.frames is None or not self._object.has_lines:
            return {}
        # To what lies between units, such as _start, eu-addr2line gives the last line of the unit before it.
        wanted = sorted({address for address in addresses if self.frames.described(address)})
        if not wanted:
            return {}
        try:
            found = self._object.lines([Spot("", address) for address in wanted])
        except StoppingError:
            raise
        except CowpenError as error:
            self.lacks.append(str(error))
            return {}
        return {spot.address: chain for spot, chain in found.items()}

    def frame(self, place: Place, bias: int) -> Frame:
        """The function at a place in the program."""
        address = (place.address + bias) & _WORD
        known = Frame(function=f"{address:#x}", address=address, counter=place.exact, unsure=place.unsure)
        index = bisect.bisect_right(self._addresses, spot_of(place)) - 1
        if index < 0 or self.frames is None or not self.frames.executable(spot_of(place)):
            return known
        begin = self._addresses[index]
        end = self._addresses[index + 1] if index + 1 < len(self._addresses) else None
        symbol = escape(self._names[index])
        return dataclasses.replace(
            known,
            function=bare(symbol),
            symbol=symbol,
            offset=place.address - begin,
            size=end - begin if end else None,
        )


def spot_of(place: Place) -> int:
    """The instruction that the place's function is at: of a call, not the one to which it returns."""
    return place.address - (not place.exact)


def _plainness(name: str) -> tuple[bool, int, int, str]:
    plain = name.lstrip("_")
    return plain.startswith("GI_"), len(name) - len(plain), len(name), name


def threads_of(states: Sequence[ThreadState], binary: Binary, executable: bytes) -> tuple[Thread, ...]:
    """The threads of a program that was started as ``executable`` in the guest.

    A process that runs another program has no frames in user space.
    """
    unwound = [_unwound(state, binary, executable) for state in states]
    spots = (spot_of(place) for places, _, _ in unwound for place in places)
    lines = binary.lines(spots)
    return tuple(
        Thread(
            pid=state.pid,
            tid=state.tid,
            parent=state.parent,
            comm=_on_one_line(state.comm),
            state=state.state,
            executable=_on_one_line(state.executable),
            wchan=_on_one_line(state.wchan) if state.wchan != b"0" else "",
            system_call=state.system_call,
            frames=tuple(frame for place in places for frame in _frames(place, bias, state, binary, lines)),
            whole=whole,
            kernel=tuple(_kernel_frames(state.kernel)),
        )
        for state, (places, whole, bias) in zip(states, unwound, strict=True)
    )


def _unwound(state: ThreadState, binary: Binary, executable: bytes) -> tuple[list[Place], bool, int]:
    """The places in a thread's stack, whether they are all, and how far the program was moved."""
    bias = binary.bias(state.entry)
    # A file that was removed while it ran is the same file.
    if binary.frames is None or bias is None or state.executable.removesuffix(b" (deleted)") != executable:
        return [], False, 0
    places, whole = unwind(binary.frames, state.values, state.stack, bias=bias, vdso=state.vdso)
    return places, whole, bias


def _frames(
    place: Place, bias: int, state: ThreadState, binary: Binary, lines: Mapping[int, tuple[Line, ...]]
) -> Iterator[Frame]:
    frame = binary.frame(place, bias)
    in_vdso = (frame.address or 0) - state.vdso
    if not frame.symbol and state.vdso and 0 <= in_vdso < _VDSO_BYTES:
        # The kernel's own code in the process: the clock, and the way back from a signal's handler.
        yield dataclasses.replace(frame, function="vdso", symbol="vdso", offset=in_vdso)
        return
    chain = lines.get(spot_of(place), ()) if frame.symbol else ()
    while len(chain) > 1 and chain[-2].function == frame.function:
        chain = chain[:-1]  # a part of it, which the compiler had made a function of its own
    for line in chain[:-1]:
        function = escape(line.function)
        yield Frame(function=function, inlined=True, source=_source(line), unsure=place.unsure)
    yield dataclasses.replace(frame, source=_source(chain[-1])) if chain else frame


def _on_one_line(text: bytes) -> str:
    return escape(text).replace("\n", "\\n").replace("\t", "\\t")


def _source(line: Line) -> str | None:
    return escape(f"{line.file}:{line.line}") if line.file else None


def _kernel_frames(text: bytes) -> Iterator[Frame]:
    for line in text.decode("ascii", "replace").splitlines()[:_KERNEL_FRAMES]:
        if match := _KERNEL_FRAME.fullmatch(line):
            yield Frame(
                function=bare(match["symbol"]),
                symbol=match["symbol"],
                offset=int(match["offset"], 16),
                size=int(match["size"], 16),
                module=match["module"],
            )


# The thread to speak of first.


def first_stuck(threads: Sequence[Thread]) -> Thread | None:
    """The thread that seems to keep the others waiting; None if there is none.

    Who waits for children or threads, or for time to pass, hangs because they do. What waits in the kernel and cannot
    be disturbed hangs by itself. A process waits for its children more often than they for it, and a thread that runs
    may be what others wait for.
    """
    depth = _depths(threads)

    def order(thread: Thread) -> tuple[bool, bool, int, bool]:
        return _waits_for_others(thread), thread.state != "D", -depth[thread.pid], thread.state != "R"

    alive = [thread for thread in threads if thread.state not in _NOWHERE]
    return min(alive, key=order, default=None)


def _waits_for_others(thread: Thread) -> bool:
    for frame in thread.frames:
        if not _INNARDS.fullmatch(frame.function):
            return frame.function.lstrip("_") in _WAITS_FOR_OTHERS
    return False


def _depths(threads: Sequence[Thread]) -> dict[int, int]:
    """How many generations each process is from the first one."""
    parents = {thread.pid: thread.parent for thread in threads}
    depths: dict[int, int] = {}
    for pid in parents:
        generations, at = 0, pid
        while parents.get(at) in parents and generations < len(parents):  # the guest may tell of a circle
            generations, at = generations + 1, parents[at]
        depths[pid] = generations
    return depths


# What a person reads.


def with_sources(frames: Sequence[Frame]) -> list[str]:
    """A line a frame, with its source line if that is known, one below the other."""
    width = max((len(frame.label) for frame in frames if frame.source), default=0)
    return [f"{frame.label:<{width}}  {frame.source}" if frame.source else frame.label for frame in frames]


def describe(threads: Sequence[Thread], why: str, notes: Iterable[str] = ()) -> str:
    """The stacks of all threads, process by process."""
    pids = list(dict.fromkeys(thread.pid for thread in threads))
    lines = [why, f"processes: {len(pids)}, threads: {len(threads)}", *notes]
    if len(threads) > 1 and (first := first_stuck(threads)):
        lines.append(f"thread {first.tid} seems to keep the others waiting")
    if any(frame.unsure for thread in threads for frame in thread.frames):
        lines.append("? marks frames that were found by a guess")
    for pid in pids:
        members = [thread for thread in threads if thread.pid == pid]
        parent = f", child of {members[0].parent}" if members[0].parent in pids else ""
        executable = next((thread.executable for thread in members if thread.executable), members[0].comm)
        lines += ["", f"process {pid}{parent}: {executable}"]
        for thread in members:
            lines += ["", f"  thread {thread.tid} ({thread.comm}), {_doing(thread)}"]
            lines += [f"    {line}" for line in with_sources(thread.frames)]
            if not thread.frames and thread.state not in _NOWHERE:
                lines.append("    (no stack: it did not stop, or runs another program)")
            elif thread.frames and not thread.whole:
                lines.append("    (the rest of the stack was not found)")
            if thread.kernel:
                lines.append("   in the kernel:")
                lines += [f"    {line}" for line in with_sources(thread.kernel)]
    return "\n".join([*lines, ""])


def _doing(thread: Thread) -> str:
    words = [_STATES.get(thread.state, f"state {thread.state}" if thread.state else "ended meanwhile")]
    words += [f"in {thread.wchan}"] if thread.wchan else []
    words += [f"system call {thread.system_call}"] if thread.system_call is not None else []
    return ", ".join(words)


def hang_of(program: str, *, arch: str, threads: Sequence[Thread], text: str) -> Finding:
    """The finding of a program that hangs, from what its threads were doing."""
    first = first_stuck(threads)
    if first is None:
        return hang_finding(program, arch=arch, threads=tuple(threads), text=text)
    # A library that came without debug information has no lines, which leaves the program's own functions.
    named = [frame for frame in first.frames if frame.symbol or frame.inlined]
    guilty = next((frame for frame in named if frame.source), named[0] if named else None)
    return hang_finding(
        program,
        arch=arch,
        frame=guilty.function if guilty else None,
        frames=first.frames,
        task=Task(comm=first.comm, pid=first.tid),
        threads=tuple(threads),
        text=text,
    )
