"""Programs that attack the guest they run in, the agent, and the words the agent speaks to cowpen.

Whatever they do, the attempt ends in bounded time and memory, leaves nothing behind, is never called clean unless the
program did end well, and says what happened. (A program that reboots: tests/guest/test_trouble_guest.py.)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from reliability import HOSTILE_GUEST, NEVER_CLEAN, Attacked
from single import program, run_once

pytestmark = pytest.mark.guest
LONG = pytest.mark.long


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A program of programs/, and what cowpen is to say of it."""

    name: str
    defines: dict[str, int | str] = dataclasses.field(default_factory=dict)
    seconds: float = 2
    outcome: str
    said: str
    """Part of the reason."""
    panics: str = ""
    """The title of the panic that it may come to instead."""
    printed: bytes = b""
    """Part of the console."""
    attack: str

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.defines.values())])


QUICK = [
    Case(
        name="power_off",
        seconds=60,
        outcome="infra",
        said="the guest switched itself off",
        attack="a program that powers the guest off",
    ),
    Case(
        name="steal_port",
        defines={"LIE": "GARBAGE"},
        seconds=60,
        outcome="infra",
        said="something in the guest wrote to the agent's port",
        attack="garbage on the agent's port",
    ),
    Case(
        name="steal_port",
        defines={"LIE": "CLAIM"},
        seconds=60,
        outcome="infra",
        said="the agent sent garbage (magic 0x6e707763, length 4294967295)",
        attack="a frame that claims 4 GB",
    ),
    Case(
        # Late is not wrong: it ended well, and in time.
        name="hold_agent",
        defines={"SECONDS": 3},
        seconds=60,
        outcome="clean",
        said="hold_agent exited with status 0",
        attack="an agent that answers late",
    ),
]
SLOW = [
    Case(
        name="halt",
        outcome="hang",
        said="halt did not end by its deadline",
        printed=b"reboot: System halted",
        attack="a program that halts the guest",
    ),
    Case(
        name="fork_bomb",
        outcome="hang",
        said="fork_bomb did not end by its deadline",
        attack="a fork bomb that leaves its session",
    ),
    Case(
        name="eat_memory",
        seconds=240,
        outcome="infra",
        said="eat_memory was killed by signal 9 (SIGKILL)",
        printed=b"Out of memory: Killed process",
        attack="a program that takes all memory",
    ),
    Case(
        name="eat_memory",
        defines={"PROTECTED": 1},
        seconds=240,
        outcome="reproduced",
        said="System is deadlocked on memory",
        printed=b"Kernel panic - not syncing: System is deadlocked on memory",
        attack="a program that takes all memory and may not be killed",
    ),
    Case(
        name="fill_tmpfs",
        seconds=240,
        outcome="infra",
        said="fill_tmpfs was killed by signal 9 (SIGKILL)",
        # The files stay: when init wants a page before the guest is ended, there is nobody else to kill.
        panics="kernel panic: System is deadlocked on memory",
        printed=b"Out of memory: Killed process",
        attack="memory filled with files",
    ),
    Case(
        name="starve",
        outcome="hang",
        said="starve did not end by its deadline",
        attack="no CPU time left for the agent",
    ),
    Case(
        name="unbind",
        outcome="hang",
        said="unbind did not end by its deadline",
        attack="the agent's port taken away",
    ),
    Case(
        name="hold_agent",
        outcome="hang",
        said="hold_agent did not end by its deadline",
        attack="an agent that is stopped for ever",
    ),
    *(
        Case(
            name="steal_port",
            defines={"LIE": lie},
            outcome="hang",
            said="steal_port did not end by its deadline",
            attack=attack,
        )
        for lie, attack in (
            ("HALF", "half a frame on the agent's port"),
            ("SWALLOW", "a frame that swallows those of the agent"),
            ("FLOOD", "frames without end"),
        )
    ),
]


@pytest.mark.parametrize("arch", ["x86_64", pytest.param("aarch64", marks=LONG)])
@pytest.mark.parametrize("case", [*QUICK, *(pytest.param(case, marks=LONG) for case in SLOW)], ids=str)
def test_program_that_attacks(case: Case, arch: str, tmp_path: Path, attacked: Attacked) -> None:
    file = program(case.name, tmp_path, **case.defines)
    single = run_once(file, tmp_path, "--arch", arch, "--seconds", str(case.seconds))
    print(
        f"{single.ended.seconds:.1f} s, {single.ended.peak_kib >> 10} MiB: {single.outcome}: {single.reason}"
    )
    if case.panics and single.outcome == "reproduced":
        assert single.titles == [case.panics]
        assert b"Kernel panic - not syncing" in single.console
    else:
        assert single.outcome == case.outcome, single
        assert case.said in single.reason
    assert case.printed in single.console
    attacked(HOSTILE_GUEST, case.attack, times=1)


@pytest.mark.long
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_console_flooded_by_two_cpus(arch: str, tmp_path: Path, attacked: Attacked) -> None:
    """Bounded by the speed of a serial line times the deadline, if not by cowpen; and it is all there."""
    file = program("flood_console", tmp_path)
    single = run_once(file, tmp_path, "--arch", arch, "--seconds", "10")
    console = single.console
    print(f"{single.ended.seconds:.1f} s, {single.ended.peak_kib >> 10} MiB, {len(console)} bytes of console")
    assert single.outcome == "hang", single
    assert 100_000 < len(console) < 300 << 20
    # What a person is shown of it is short.
    assert len(single.ended.err) < 10_000
    attacked(HOSTILE_GUEST, "the console flooded at full speed", times=1)


@pytest.mark.parametrize("arch", ["x86_64", pytest.param("aarch64", marks=LONG)])
def test_forged_end_and_then_a_panic(arch: str, tmp_path: Path, attacked: Attacked) -> None:
    """A guest can always lie, but a report of its kernel is believed first.

    The program tells the host in the agent's name that it has ended well, while it holds the agent with ptrace; a
    second later the kernel panics.
    """
    file = program("steal_port", tmp_path, LIE="FORGE")
    single = run_once(file, tmp_path, "--arch", arch)
    assert b"Kernel panic - not syncing" in single.console
    assert single.outcome == "reproduced", single
    attacked(NEVER_CLEAN, "a forged clean end before a panic", times=1)
