"""What fork() costs on several kernels, measured side by side: the table of comment 102 of rhbz-471613.

A fix for these bugs makes fork() copy, lock or look more, so the report's own people timed it by size of anonymous
memory on the kernel before and after. One guest of each kernel is up all the time, and they take turns, so that
whatever slows the host down slows down both alike.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.arch import Arch
from harness.cache import Cache
from harness.console.display import escape
from harness.errors import GuestError, Tell
from harness.guest.channel import Ending, Stream
from harness.guest.machine import MachineShape
from harness.program.program import load_program
from harness.trial.stage import GuestStage, Machine
from harness.trial.statistics import Mean, geometric_mean
from harness.trial.subject import Subject
from harness.trial.target import GuestTarget

SIZES_MIB = (1, 10, 100, 1000)
"""Those of the report."""
_PROGRAM = "fork_time"
_FORKS = 5  # of one run of the program; small ones are short, and their median is worth more than one of them
_SPARE_MIB = 256  # for the kernel, the program and its page tables, beside what it forks
_PUSH_SECONDS = 30.0
_MOST_PRINTED = 1 << 16
_LINE = re.compile(rb"^fork: ([0-9]{1,9}\.[0-9]{1,9})$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """A line of the table: fork() of a process with ``mib`` MiB, kernel by kernel as they were asked for.

    ``milliseconds`` are means of the rounds; ``ratios`` compare each kernel with the first, round by round. Both are
    geometric means with their 95 % intervals.
    """

    mib: int
    milliseconds: tuple[Mean, ...]
    ratios: tuple[Mean, ...]


def measure_fork_cost(
    specs: Sequence[str],
    arch: Arch,
    *,
    sizes_mib: Sequence[int] = SIZES_MIB,
    rounds: int,
    cache: Cache,
    tell: Tell,
) -> tuple[list[str], list[Cost]]:
    """How the kernels are displayed, and a line for each size.

    The kernels take turns in each of ``rounds`` rounds, two at least, the one that was first being last in the next.
    Raises what setting up a trial raises, and `GuestError` if a guest or the program does not do its part.
    """
    shape = MachineShape(memory_mib=max(512, max(sizes_mib) + max(sizes_mib) // 4 + _SPARE_MIB))
    times: dict[tuple[int, int], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        timers = [stack.enter_context(_timer(spec, arch, shape, sizes_mib, cache, tell)) for spec in specs]
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for mib in sizes_mib:
                for index in range(len(timers)) if number % 2 == 0 else reversed(range(len(timers))):
                    times[index, mib].append(timers[index].milliseconds(mib))
        displayed = [timer.displayed for timer in timers]
    return displayed, [_cost(mib, [times[index, mib] for index in range(len(specs))]) for mib in sizes_mib]


def _cost(mib: int, times: Sequence[Sequence[float]]) -> Cost:
    """``times`` are of each kernel, round by round."""
    return Cost(
        mib=mib,
        milliseconds=tuple(geometric_mean(column) for column in times),
        ratios=tuple(
            geometric_mean([one / first for one, first in zip(column, times[0], strict=True)])
            for column in times
        ),
    )


class _Timer:
    """A guest with the program for each size in it, which waits to be asked."""

    def __init__(self, displayed: str, machine: Machine, stages: Mapping[int, GuestStage]) -> None:
        self.displayed = displayed
        self._machine = machine
        self._stages = stages

    def push(self) -> None:
        """Wait until the guest is there, and give it the programs."""
        self._machine.ready()
        for mib, stage in self._stages.items():
            seconds = _PUSH_SECONDS * stage.speed.scale
            self._machine.channel.push_file(stage.compiled.binary, _path(mib), seconds=seconds)

    def milliseconds(self, mib: int) -> float:
        """The median of some forks."""
        seconds, what = self._stages[mib].program_seconds, f"{_PROGRAM} on {self.displayed}"
        said = printed(self._machine, _path(mib), seconds=seconds, what=what)
        figures = sorted(float(figure) for figure in _LINE.findall(said))
        if len(figures) != _FORKS:
            raise GuestError(f"{what} timed {len(figures)} of {_FORKS} forks")
        return figures[_FORKS // 2]


def printed(machine: Machine, path: str, *, seconds: float, what: str) -> bytes:
    """Standard output of a program that is in a machine; `GuestError` if it does not end well, named as ``what``."""
    output: dict[Stream, bytes] = defaultdict(bytes)

    def hear(stream: Stream, data: bytes) -> None:
        output[stream] = (output[stream] + data)[:_MOST_PRINTED]

    ended = machine.channel.run([path], seconds=seconds, on_output=hear)
    if (ended.ending, ended.code) != (Ending.EXITED, 0):
        said = escape(output[Stream.STDERR].decode(errors="replace").strip())
        raise GuestError(f"{what} {ended.describe()}: {said}")
    return output[Stream.STDOUT]


@contextmanager
def _timer(
    spec: str, arch: Arch, shape: MachineShape, sizes_mib: Sequence[int], cache: Cache, tell: Tell
) -> Iterator[_Timer]:
    # Booted, not restored: what a snapshot holds has to be fetched from a file while fork() is timed.
    target = GuestTarget(spec=spec, arch=arch, base=shape, cold=True)
    kernel = target.kernel(cache, tell)
    stages = {mib: target.stage(_subject(mib), kernel, cache, tell) for mib in sizes_mib}
    with (
        tempfile.TemporaryDirectory(prefix="cowpen-measure-") as folder,
        next(iter(stages.values())).machine(Path(folder)) as machine,
    ):
        timer = _Timer(kernel.display, machine, stages)
        timer.push()
        yield timer


def _path(mib: int) -> str:
    return f"/tmp/{_PROGRAM}-{mib}"  # noqa: S108  (in the guest)


def _subject(mib: int) -> Subject:
    settings = {"mib": str(mib), "asynchronous": "false", "rounds": str(_FORKS)}
    return Subject(program=load_program(_PROGRAM), settings=settings)
