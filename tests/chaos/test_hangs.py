"""Kernels that hang, by a real module in stock kernels: the outcome is ``hang``, and the console says of what.

The state of a guest that hangs is collected by harness/guest/forensics.py before the guest is ended.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import module
import pytest
from reliability import CONSOLE_KEPT, NEVER_CLEAN, Attacked
from single import Single, run_once

from harness.arch import get_arch
from harness.cache import Cache

pytestmark = pytest.mark.guest
LONG = pytest.mark.long
SPEC = "debian:6.12"
BEGIN = re.compile(rb"^cowpen: the guest hangs \(.*\); its state follows$", re.MULTILINE)
END = b"\ncowpen: end of the guest's state\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A calamity of calamity.c, and what its state has to show."""

    what: str
    more: dict[str, int] = dataclasses.field(default_factory=dict)
    answers: bool | None = None
    """Whether the kernel can still answer SysRq; None: the CPU that would may be the one that hangs, or wait for it."""
    told: tuple[str, ...] = ()
    """Functions of the module that the kernel's own report names, if it answers."""
    attack: str

    def __str__(self) -> str:
        return self.what


ON_CPU_1 = {"CPU": 1}
CASES = [
    Case(
        what="sleep_forever",
        answers=True,
        told=("sleep_forever",),
        attack="a task in uninterruptible sleep for ever",
    ),
    Case(
        what="deadlock",
        more=ON_CPU_1,
        answers=True,
        told=("deadlock",),
        attack="a spinlock taken twice",
    ),
    Case(what="irqs_off", more=ON_CPU_1, attack="a CPU that spins with interrupts off"),
    Case(what="irqs_off_all", answers=False, attack="all CPUs spin with interrupts off"),
    Case(what="halt_cpu", more={"CPU": 0, "cpu": 1}, attack="a CPU halted for ever"),
]


def hangs(case: Case, arch: str, folder: Path, cache: Cache) -> Single:
    ko = module.build(get_arch(arch), SPEC, cache)
    file = module.loader(ko, folder, case.what, **case.more)
    words = ("--arch", arch, "--kernel", SPEC, "--seconds", "2")
    return run_once(file, folder, *words)


@pytest.mark.parametrize("arch", ["x86_64", pytest.param("aarch64", marks=LONG)])
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.what == "sleep_forever" else LONG) for case in CASES],
    ids=str,
)
def test_kernel_that_hangs(
    case: Case, arch: str, tmp_path: Path, user_cache: Cache, attacked: Attacked
) -> None:
    single = hangs(case, arch, tmp_path, user_cache)
    console = single.console
    print(f"{single.ended.seconds:.1f} s, {len(console)} bytes of console: {single.reason}")
    assert b"calamity: " + case.what.encode() in console
    assert single.outcome == "hang", single
    state = state_of(console)
    # Whatever hangs: where every CPU is, and what is on its stack.
    for cpu in (0, 1):
        assert f"CPU#{cpu}\n".encode() in state
        assert f"cowpen: stack of CPU {cpu}\n".encode() in state
    answered = b"cowpen: the guest does not answer SysRq" not in state
    if case.answers is not None:
        assert answered == case.answers
    if answered and b"cowpen: no end of it came in time" in state:
        # The CPU that answered waits for the one that hangs.
        assert case.answers is None
    elif answered:
        for key in (b"l: what every CPU does", b"w: blocked tasks", b"d: locks held", b"t: all tasks"):
            assert b"cowpen: SysRq " + key in state
        assert b"task:init" in state
        for function in case.told:
            assert f"task:{case.what}".encode() in state
            assert re.search(rf"\b{function}\+0x[0-9a-f]+/0x[0-9a-f]+ \[calamity\]".encode(), state), state
    else:
        assert (b"cowpen: non-maskable interrupt" in state) == (arch == "x86_64")
    attacked(NEVER_CLEAN, case.attack, times=1)
    attacked(CONSOLE_KEPT, f"{case.attack}: its state is in the console", times=1)


def state_of(console: bytes) -> bytes:
    """What was written into the console of the hanging guest, which is whole and there once."""
    begin = list(BEGIN.finditer(console))
    assert len(begin) == 1
    assert console.count(END) == 1
    return console[begin[0].start() : console.index(END)]


@pytest.mark.long
def test_interrupts_off_everywhere_says_where(tmp_path: Path, user_cache: Cache, attacked: Attacked) -> None:
    """x86_64 has a non-maskable interrupt: it makes the first CPU say where it spins."""
    case = Case(what="irqs_off_all", attack="")
    state = state_of(hangs(case, "x86_64", tmp_path, user_cache).console)
    assert b"Kernel panic - not syncing: NMI: Not continuing" in state
    assert re.search(rb"RIP: 0010:spin\+0x[0-9a-f]+/0x[0-9a-f]+ \[calamity\]", state), state
    attacked(CONSOLE_KEPT, "interrupts off: where, by a non-maskable interrupt", times=1)


@pytest.mark.long
def test_exceptions_of_exceptions(tmp_path: Path, user_cache: Cache, attacked: Attacked) -> None:
    """arm64 without exception vectors does not reset, as x86_64 does, but takes exceptions for ever."""
    case = Case(what="no_vectors", attack="")
    single = hangs(case, "aarch64", tmp_path, user_cache)
    assert single.outcome == "hang", single
    assert b"CPU#1\n" in state_of(single.console)
    attacked(NEVER_CLEAN, "exceptions without handlers (arm64)", times=1)
