"""The flow of a trial and of its attempts, with machines that play a part."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.arch import X86_64, Arch
from harness.bug import load_bug
from harness.cache import Cache
from harness.errors import (
    BootError,
    BuildError,
    ChannelError,
    DeadlineError,
    GuestDiedError,
    HostError,
    UserError,
)
from harness.folders import data_folder
from harness.guest.channel import Ending, Exit, Greeting, Stream, protocol
from harness.guest.speed import Speed
from harness.program.compile import Compiled
from harness.program.program import user_program
from harness.trial.attempt import Attempt, Phase
from harness.trial.stage import Stage
from harness.trial.subject import Subject, bug_subjects, own_subject
from harness.trial.trial import Options, run_trial
from harness.trial.verdict import Verdict

PANIC = b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n"


@dataclasses.dataclass(frozen=True)
class Part:
    """What one machine plays: what boot, run and the greeting afterwards raise or return, and what is printed."""

    boot: Exception | None = None
    end: Exit | Exception = Exit(Ending.EXITED, 0, 0.1)  # noqa: RUF009  (frozen)
    settle: Exception | None = None
    console: bytes = b""
    before: bytes = b""
    """What the console had printed before the program was started."""
    stderr: bytes = b""
    examined: bool | Exception = True
    """Whether the machine survives being looked at while it hangs, or how that fails."""
    state: bytes = b""
    """What it prints then."""
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    pulled: list[str] = dataclasses.field(default_factory=list)
    threads: bytes = b""
    """What its agent tells of the program's threads."""


CLEAN = Part()
HIT = Part(end=Exit(Ending.EXITED, 1, 0.1))
DOWN = Part(boot=BootError("the guest did not boot"))
HANG = Part(end=Exit(Ending.DEADLINE, 0, 60.0))
DIED = Part(end=GuestDiedError("QEMU was killed by signal 9"))
PANICKED = Part(end=GuestDiedError("the kernel panicked"), console=PANIC)
LACKS = Part(end=Exit(Ending.EXITED, 4, 0.1), stderr=b"unsupported: no AIO\n")


@dataclasses.dataclass
class Kernel:
    spec: str = "path:fake"
    arch: Arch = X86_64
    release: str = "6.1.0"
    version: str = "6.1"
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: Path | None = None
    vmlinux: Path | None = None
    modules: Path | None = None
    system_map: Path | None = None
    display: str = "fake 6.1"
    options: dict[str, str] = dataclasses.field(default_factory=dict)

    def config_value(self, name: str) -> str | None:
        return self.options.get(name)


class Machine:
    """It is its own channel."""

    pace = 1e6

    def __init__(self, part: Part, console: Path) -> None:
        self.part, self.channel, self.console = part, self, console

    def ready(self) -> Greeting:
        self.console.write_bytes(self.part.before)
        if self.part.boot:
            self._print()
            raise self.part.boot
        return Greeting("6.1.0", "x86_64")

    def push_file(self, source: Path, path: str, *, seconds: float) -> None:
        assert source.exists() and seconds > 0

    def pull(self, path: str, *, seconds: float, limit: int) -> bytes:
        if path not in self.part.files:
            raise ChannelError(f"pulling {path}: No such file or directory")
        self.part.pulled.append(path)
        return self.part.files[path]

    def run(self, argv: list[str], *, seconds: float, on_output: Any, on_overdue: Any) -> Exit:
        self._print()
        if isinstance(self.part.end, Exit) and self.part.end.ending is Ending.DEADLINE:
            on_overdue()
            on_output(Stream.THREADS, self.part.threads)
        on_output(Stream.STDERR, self.part.stderr)
        if isinstance(self.part.end, Exception):
            raise self.part.end
        return self.part.end

    def hello(self, *, seconds: float) -> Greeting:
        if self.part.settle:
            raise self.part.settle
        return Greeting("6.1.0", "x86_64")

    def check(self) -> None:
        return None

    def examine(self, why: str) -> bool:
        if isinstance(self.part.examined, Exception):
            raise self.part.examined
        with self.console.open("ab") as console:
            console.write(self.part.state)
        return self.part.examined

    def _print(self) -> None:
        with self.console.open("ab") as console:
            console.write(self.part.console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeStage(Stage):
    parts: Iterator[Part]
    facts: Kernel
    meeting: threading.Barrier | None = None

    @property
    def kernel(self) -> Kernel:
        return self.facts

    def setup(self) -> dict[str, Any]:
        return {"fake": True}

    @contextlib.contextmanager
    def machine(self, folder: Path) -> Iterator[Machine]:
        part = next(self.parts)
        if self.meeting:
            self.meeting.wait(10)
        yield Machine(part, folder / "console.log")

    def furnish(self, machine: Any) -> None:
        return None


@dataclasses.dataclass
class Target:
    parts: list[Part]
    subject_folder: Path
    jobs: int = 1
    trouble: Exception | None = None
    facts: Kernel = dataclasses.field(default_factory=Kernel)
    meeting: threading.Barrier | None = None
    spec: str = "path:fake"
    arch: Arch = X86_64

    def kernel(self, cache: Cache, tell: Any) -> Kernel:
        return self.facts

    def stage(self, subject: Subject, kernel: Kernel, cache: Cache, tell: Any) -> FakeStage:
        if self.trouble:
            raise self.trouble
        binary = self.subject_folder / "binary"
        binary.write_bytes(b"\x7fELF")
        return FakeStage(
            subject=subject,
            compiled=Compiled(binary=binary, source=None, command=[]),
            speed=Speed(boot_seconds=2.0),
            parts=iter(self.parts),
            facts=kernel,
            meeting=self.meeting,
            jobs=self.jobs,
        )


class Listener:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.attempts: list[Attempt] = []
        self.phases: list[tuple[int, str]] = []
        self.threads = {threading.current_thread()}
        self.records: list[dict[str, Any]] = []
        self.wanted = 0
        self.verdicts: list[Verdict] = []

    def tell(self, line: str) -> None:
        self.told.append(line)

    def begins(self, subject: Subject, kernel: str, arch: str, attempts: int) -> None:
        self.wanted = attempts

    def phase(self, number: int, phase: Phase) -> None:
        self.threads.add(threading.current_thread())
        assert number not in {attempt.number for attempt in self.attempts}, "it has ended already"
        self.phases.append((number, phase.value))

    def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
        self.attempts.append(attempt)
        self.records.append(record)

    def verdict(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)

    @property
    def outcomes(self) -> list[str]:
        return [attempt.outcome.value for attempt in self.attempts]


@pytest.fixture
def own(tmp_path: Path) -> Subject:
    file = tmp_path / "mine.c"
    file.write_text("int main(void) { return 0; }\n")
    return own_subject(file, {})


def play(
    tmp_path: Path, subject: Subject, parts: list[Part], *, listener: Listener | None = None, **more: Any
) -> Listener:
    """Run a trial of as many attempts as there are parts, unless ``attempts`` says otherwise."""
    listener = listener or Listener()
    options = Options(
        attempts=more.pop("attempts", len(parts) or 1),
        stop_on_first=more.pop("stop_on_first", False),
        decide=more.pop("decide", None),
    )
    target = Target(parts, tmp_path, **more)
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    verdict = run_trial(subject, target, options, run=run, cache=Cache(tmp_path / "cache"), listener=listener)
    assert listener.verdicts == [verdict]
    return listener


@pytest.mark.parametrize(
    ("part", "outcome", "reason"),
    [
        (CLEAN, "clean", "exited with status 0"),
        (HIT, "reproduced", "exited with status 1"),
        (HANG, "hang", "did not end by its deadline"),
        (DIED, "infra", "QEMU was killed by signal 9"),
        (DOWN, "infra", "the guest did not boot"),
        (PANICKED, "reproduced", "Attempted to kill init"),
        # The deadline of the host, which an agent that hangs with its guest cannot keep.
        (Part(end=DeadlineError("waited in vain")), "hang", "waited in vain"),
        # What a hanging guest prints because it is asked to is no finding, even if it dies of it.
        (Part(end=HANG.end, state=PANIC), "hang", "did not end"),
        (Part(end=HANG.end, state=PANIC, examined=False), "hang", "did not end"),
        (Part(end=HANG.end, console=PANIC), "reproduced", "kill init"),
        (Part(end=HANG.end, examined=ChannelError("QEMU does not answer")), "infra", "QEMU does not"),
        # The program ended well, but what it broke shows afterwards.
        (Part(settle=GuestDiedError("the kernel panicked"), console=PANIC), "reproduced", "kill init"),
        (Part(settle=GuestDiedError("the guest reset itself")), "infra", "reset itself"),
        (Part(settle=DeadlineError("waited 5.0 s in vain")), "hang", "did not answer after the end"),
        (Part(end=HostError("no more processes")), "infra", "no more processes"),
        # A panic in boot is no reproduction, but it is in the reason.
        (Part(boot=BootError("the guest did not boot"), console=PANIC), "infra", "Attempted to kill init"),
    ],
)
def test_outcome_of_an_own_program(
    tmp_path: Path, own: Subject, part: Part, outcome: str, reason: str
) -> None:
    # An attempt whose program never began is made up for once, so there may be a second one, of the same kind.
    listener = play(tmp_path, own, [part, part], attempts=1)
    assert listener.outcomes == [outcome] * (2 if part.boot is not None else 1)
    assert reason in listener.attempts[0].reason
    kept = listener.attempts[0].kept
    assert kept is not None
    assert json.loads((kept / "result.json").read_text())["outcome"] == outcome


def test_console_that_cannot_be_read_is_never_clean(
    tmp_path: Path, own: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*unused: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("harness.trial.attempt.scan_file", broken)
    listener = play(tmp_path, own, [CLEAN])
    assert listener.outcomes == ["infra"]
    assert "cannot read the console log" in listener.attempts[0].reason


WARNED = (
    b"[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/fork.c:42 start_kernel+0x1/0x2\n"
    b"[    1.100000] cowpen: init: ready\n"
)


def test_warning_of_the_boot_decides_nothing(tmp_path: Path, own: Subject) -> None:
    """It would be in every attempt of every kernel of a bisection alike; it is shown all the same."""
    listener = play(tmp_path, own, [Part(before=WARNED)])
    assert listener.outcomes == ["clean"]
    (finding,) = listener.attempts[0].findings
    assert finding.title == "WARNING in start_kernel"
    assert play(tmp_path, own, [Part(console=WARNED)]).outcomes == ["reproduced"]
    assert play(tmp_path, own, [Part(before=WARNED, console=b"[    2.000000] " + PANIC)]).outcomes == [
        "reproduced"
    ]


def test_a_hang_is_a_finding_with_all_threads(tmp_path: Path, own: Subject) -> None:
    head = protocol().new("struct cowpen_threads *", [2, 9])
    told = protocol().new("struct cowpen_thread[]", 2)
    for thread, tid, state in zip(told, (41, 42), (b"S", b"R"), strict=True):
        thread.pid, thread.tid, thread.parent, thread.state, thread.comm = 41, tid, 1, state, b"mine"
    raw = b"".join(bytes(protocol().buffer(part)) for part in (head, told))
    listener = play(tmp_path, own, [Part(end=HANG.end, threads=raw), HANG])
    first, second = listener.records
    assert [(finding["kind"], finding["title"]) for finding in first["findings"]] == [
        ("hang", "hang in mine")
    ]
    assert first["cause"] == 0
    assert [thread["tid"] for thread in first["findings"][0]["threads"]] == [41, 42]
    assert first["findings"][0]["task"] == {"comm": "mine", "pid": 42}
    kept = Path(first["kept"])
    text = (kept / "threads.txt").read_text()
    assert text.startswith("mine did not end by its deadline\n")
    for words in (
        "threads that are not shown, or have ended since: 7",
        "processes that are not shown: 1",
        "thread 42 (mine), running",
        "no sound call frame",
    ):
        assert words in text
    assert (kept / "threads.bin").read_bytes() == raw
    # An agent that told nothing.
    assert second["findings"][0]["title"] == "hang in mine"
    assert second["findings"][0]["threads"] == []
    assert not (Path(second["kept"]) / "threads.txt").exists()


def test_a_program_that_ended_after_all_does_not_hang(tmp_path: Path, own: Subject) -> None:
    """It was looked at, and ended by itself before it was killed."""
    late = Part(end=Exit(Ending.EXITED, 0, 60.0))
    listener = play(tmp_path, own, [late])
    assert (listener.outcomes, listener.records[0]["findings"]) == (["clean"], [])


def test_host_without_descriptors_is_infra(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [Part(end=OSError(errno.EMFILE, "Too many open files")), CLEAN])
    assert listener.outcomes == ["infra", "clean"]
    assert "Too many open files" in listener.attempts[0].reason


def test_trial_given_up_is_never_clean(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [CLEAN, CLEAN, CLEAN, DOWN, DOWN, CLEAN], attempts=40)
    assert listener.outcomes == ["clean"] * 3 + ["infra"] * 2
    assert listener.verdicts[0].verdict == "cannot-tell"


def test_record_of_an_attempt(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [HIT])
    assert {"type", "bug", "program", "kernel", "arch", "outcome", "findings", "seconds", "kept"} <= set(
        listener.records[0]
    )
    assert listener.records[0]["kernel"] == {"spec": "path:fake", "release": "6.1.0", "provenance": {}}
    assert (Path(listener.records[0]["kept"]).parent / "setup.json").exists()


def test_all_attempts_are_made(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [HIT, CLEAN, HIT, DIED, HANG])
    assert listener.outcomes == ["reproduced", "clean", "reproduced", "infra", "hang"]
    assert [attempt.number for attempt in listener.attempts] == [1, 2, 3, 4, 5]
    assert listener.verdicts[0].verdict == "reproduced"


def test_attempt_without_its_program_is_made_up_for_once(tmp_path: Path, own: Subject) -> None:
    """It is counted and shown, and hides nothing: the trial is clean by the attempts that ran the program."""
    listener = play(tmp_path, own, [CLEAN, DOWN, CLEAN, CLEAN], attempts=3)
    assert listener.outcomes == ["clean", "infra", "clean", "clean"]
    verdict = listener.verdicts[0]
    assert (verdict.verdict, verdict.counts["infra"], verdict.attempts) == ("clean", 1, 4)
    assert "3 of 4 attempts clean, 1 never ran the program" in verdict.reason
    assert "rate ≥ 64 %" in verdict.summary()  # of three attempts, not of four


def test_attempt_that_broke_off_is_not_made_up_for(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [CLEAN, DIED, CLEAN, CLEAN], attempts=3)
    assert listener.outcomes == ["clean", "infra", "clean"]
    assert listener.verdicts[0].verdict == "cannot-tell"


def test_as_many_lost_as_clean_cannot_tell(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [CLEAN, DOWN, CLEAN, DOWN, CLEAN, DOWN, CLEAN], attempts=2)
    assert listener.outcomes == ["clean", "infra", "clean"]
    listener = play(tmp_path, own, [DOWN, CLEAN], attempts=1)
    assert listener.outcomes == ["infra", "clean"]
    assert listener.verdicts[0].verdict == "cannot-tell"


def test_default_number_of_attempts(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [CLEAN] * 10, attempts=None)
    assert listener.wanted == 10


def test_stop_on_first(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [CLEAN, HIT, CLEAN, CLEAN], stop_on_first=True)
    assert listener.outcomes == ["clean", "reproduced"]


OLD = Kernel(spec="debian:6.1", version="6.1.192")
NEW = Kernel(spec="debian:6.12", version="6.12.1")
SHOWS = Part(console=b"[    1.000000] kernel BUG at mm/gup.c:42!\n")
"""What forkscrew's bug report has a signature for; its record claims a rate of 0.9 before 6.3, of 10 attempts."""


@pytest.fixture
def forkscrew() -> Subject:
    (subject,) = bug_subjects("rhbz-471613/forkscrew", {})
    return subject


@pytest.mark.parametrize(
    ("parts", "facts", "made", "word", "as_expected"),
    [
        ([SHOWS] * 10, OLD, 4, "reproduced", True),
        ([CLEAN] * 10, OLD, 2, "clean", False),
        ([CLEAN] * 20, NEW, 10, "clean", True),
        ([CLEAN, SHOWS, CLEAN], NEW, 2, "reproduced", False),
        # A guest that did not come up is no attempt that decides anything.
        ([SHOWS, DOWN, SHOWS, SHOWS, SHOWS, SHOWS], OLD, 5, "reproduced", True),
        # 6.2 of another name: the record says the same. No version at all: it says nothing, and all are made.
        ([SHOWS] * 6, Kernel(version="6.2"), 4, "reproduced", True),
        ([SHOWS] * 6, Kernel(version="unknown"), 6, "reproduced", None),
    ],
)
def test_ends_when_decided(
    tmp_path: Path,
    forkscrew: Subject,
    parts: list[Part],
    facts: Kernel,
    made: int,
    word: str,
    as_expected: bool | None,
) -> None:
    listener = play(tmp_path, forkscrew, parts, facts=facts, decide=0.95)
    assert len(listener.outcomes) == made
    assert listener.wanted == len(parts), "it is said how many there are at most"
    (verdict,) = listener.verdicts
    assert (verdict.verdict, verdict.as_expected) == (word, as_expected)


def test_more_confidence_takes_more_attempts(tmp_path: Path, forkscrew: Subject) -> None:
    assert len(play(tmp_path, forkscrew, [SHOWS] * 10, facts=OLD, decide=0.99).outcomes) == 7


def test_undecided_makes_all_attempts(tmp_path: Path, own: Subject, forkscrew: Subject) -> None:
    assert len(play(tmp_path, forkscrew, [SHOWS, CLEAN, SHOWS], facts=OLD, decide=0.95).outcomes) == 3
    # Of a user's own program nobody expects anything.
    assert len(play(tmp_path, own, [HIT] * 12, decide=0.95).outcomes) == 12


def test_attempts_under_way_when_it_is_decided_are_counted(tmp_path: Path, forkscrew: Subject) -> None:
    # How many there are is a matter of whose thread is slow: what began first is looked at first.
    listener = play(tmp_path, forkscrew, [SHOWS] * 100, facts=OLD, decide=0.95, jobs=3)
    assert 4 <= len(listener.outcomes) < 100
    assert listener.verdicts[0].counts["reproduced"] == len(listener.outcomes)


def test_slow_attempt_is_waited_for_before_later_ones_decide(
    tmp_path: Path, forkscrew: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the quick outcome would be seen too often: what is begun in its stead meanwhile is counted, too."""
    enough = threading.Event()

    class Counting(Listener):
        def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
            super().attempt(attempt, record)
            if len(self.attempts) == 8:  # twice as many as decide it
                enough.set()

    run = Machine.run

    def slow_first(self: Machine, argv: list[str], **more: Any) -> Exit:
        if self.part is CLEAN:
            assert enough.wait(10), "it was decided without the first"
        return run(self, argv, **more)

    monkeypatch.setattr(Machine, "run", slow_first)
    parts = [CLEAN, *[SHOWS] * 19]
    listener = play(tmp_path, forkscrew, parts, facts=OLD, decide=0.95, jobs=2, listener=Counting())
    assert len(listener.outcomes) >= 9


def test_jobs_run_at_once_and_are_all_counted(tmp_path: Path, own: Subject) -> None:
    # The barrier opens only when three machines are up together.
    listener = play(tmp_path, own, [CLEAN] * 6, jobs=3, meeting=threading.Barrier(3))
    assert listener.outcomes == ["clean"] * 6
    assert sorted(attempt.number for attempt in listener.attempts) == [1, 2, 3, 4, 5, 6]


def test_phases_are_told_from_one_thread(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [CLEAN, DOWN, DIED, CLEAN], attempts=3, jobs=3)
    assert len(listener.threads) == 1
    told = {number: [phase for n, phase in listener.phases if n == number] for number, _ in listener.phases}
    # Which of those under way got which part is chance; the one made up for is the last to begin.
    assert sorted(told) == [1, 2, 3, 4]
    whole = ["starting", "running", "settling"]
    assert sorted(told.values()) == sorted([whole, whole[:1], whole[:2], whole])


def test_more_jobs_than_attempts(tmp_path: Path, own: Subject) -> None:
    assert play(tmp_path, own, [CLEAN] * 2, jobs=8).outcomes == ["clean"] * 2


def test_gives_up_after_two_guests_in_a_row(tmp_path: Path, own: Subject) -> None:
    listener = play(tmp_path, own, [CLEAN, DOWN, CLEAN, DOWN, DOWN, CLEAN, CLEAN])
    assert listener.outcomes == ["clean", "infra", "clean", "infra", "infra"]
    assert any("giving up after 5 attempts" in line for line in listener.told)
    assert listener.verdicts[0].verdict == "cannot-tell"


def test_guests_that_die_after_boot_are_no_reason_to_give_up(tmp_path: Path, own: Subject) -> None:
    assert play(tmp_path, own, [DIED] * 4).outcomes == ["infra"] * 4


def test_unsupported_stops(tmp_path: Path) -> None:
    (subject,) = bug_subjects("rhbz-471613/forkscrew", {})
    listener = play(tmp_path, subject, [LACKS, CLEAN, CLEAN])
    assert listener.outcomes == ["unsupported"]
    assert listener.attempts[0].reason == "no AIO"
    assert listener.verdicts[0].verdict == "unsupported"


def test_trouble_says_why(tmp_path: Path) -> None:
    (subject,) = bug_subjects("rhbz-471613/forkscrew", {})
    part = Part(end=Exit(Ending.EXITED, 3, 0.1), stderr=b"so far so good\ntrouble: no \x1b[2Jroom\n\n")
    listener = play(tmp_path, subject, [part])
    assert listener.outcomes == ["infra"]
    assert listener.attempts[0].reason == "forkscrew exited with status 3: no \\x1b[2Jroom"


def test_a_kernel_is_looked_at_once_while_it_runs(tmp_path: Path) -> None:
    """Its functions, and its config where no file came with it; what it lacks is unsupported before anything runs."""
    (subject,) = bug_subjects("rhbz-471613/forkscrew", {})
    subject = subject.with_symbols(("bio_lock_unlock",))
    pulled: list[str] = []
    patched = Part(files={"/proc/kallsyms": b"0 t bio_lock_unlock\n"}, pulled=pulled)
    listener = play(tmp_path, subject, [patched, patched, patched], attempts=3)
    assert listener.outcomes == ["clean"] * 3
    assert pulled == ["/proc/kallsyms"]
    listener = play(tmp_path, subject, [Part(files={"/proc/kallsyms": b"0 t dup_mmap\n"}), CLEAN])
    assert listener.outcomes == ["unsupported"]
    assert "no bio_lock_unlock" in listener.attempts[0].reason
    config = Part(
        files={"/proc/kallsyms": b"0 t bio_lock_unlock\n", "/boot/config-6.1.0": b"CONFIG_BLOCK=y\n"}
    )
    listener = play(tmp_path, subject, [config])
    assert listener.outcomes == ["unsupported"]
    assert listener.attempts[0].reason == "the running kernel, 6.1.0, is built without CONFIG_AIO"


def test_kernel_that_lacks_an_option(tmp_path: Path) -> None:
    (subject,) = bug_subjects("rhbz-471613/forkscrew", {})
    config = tmp_path / "config"
    config.write_text("")
    facts = Kernel(config=config, options={"CONFIG_BLOCK": "y"})
    listener = play(tmp_path, subject, [CLEAN], facts=facts)
    assert listener.outcomes == ["unsupported"]
    assert listener.attempts[0].reason == "6.1.0 is built without CONFIG_AIO"


def test_bugs_status_without_a_record_is_infra(tmp_path: Path) -> None:
    (subject,) = bug_subjects("rhbz-471613/forkscrew", {})
    assert play(tmp_path, subject, [HIT]).outcomes == ["infra"]
    # A panic is a finding, but not this bug.
    assert play(tmp_path, subject, [PANICKED]).outcomes == ["other"]


@pytest.mark.parametrize(
    "trouble",
    [BuildError("mine does not compile", detail="mine.c:1: error"), HostError("no disk", mend="buy one")],
)
def test_stage_that_cannot_be_set_up(tmp_path: Path, own: Subject, trouble: Exception) -> None:
    listener = play(tmp_path, own, [], trouble=trouble, attempts=7)
    assert listener.outcomes == ["infra"]
    assert listener.attempts[0].reason == str(trouble)
    kept = list((tmp_path / "run").glob("*/trouble.txt"))
    assert [file.read_text() for file in kept] == (["mine.c:1: error"] if "compile" in str(trouble) else [])


def test_users_mistake_escapes(tmp_path: Path, own: Subject) -> None:
    with pytest.raises(UserError, match="not there"):
        play(tmp_path, own, [], trouble=UserError("not there"))


def test_full_disk_names_the_place(tmp_path: Path, own: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*unused: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("harness.trial.attempt.write_result", full)
    with pytest.raises(HostError, match=r"no space left for results in .*/run.*--keep"):
        play(tmp_path, own, [CLEAN])


def test_reader_of_our_output_that_went_is_not_a_full_disk(tmp_path: Path, own: Subject) -> None:
    class Gone(Listener):
        def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        play(tmp_path, own, [CLEAN, CLEAN], listener=Gone())


def test_interrupt_ends_the_attempts_under_way(
    tmp_path: Path, own: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `end_everything` does to guests is let go here: the threads see it and the trial is left."""
    ended = threading.Event()

    class Interrupted(Listener):
        def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
            raise KeyboardInterrupt

    def wait_for_the_end(self: Machine, argv: object, **unused: object) -> Exit:
        if self.part is HANG:
            assert ended.wait(10)
            raise GuestDiedError("QEMU was killed by signal 9")
        return Exit(Ending.EXITED, 0, 0.1)

    monkeypatch.setattr(Machine, "run", wait_for_the_end)
    monkeypatch.setattr("harness.trial.trial.end_everything", ended.set)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, own, [CLEAN, HANG, CLEAN, CLEAN], jobs=2, listener=Interrupted())
    assert ended.is_set()
    assert len(list((tmp_path / "run").glob("*/attempt-*"))) == 2, "no further attempt was started"


def test_subject_with_seconds(own: Subject) -> None:
    longer = own.with_seconds(300)
    assert longer.program.seconds == 300
    assert dataclasses.replace(longer, program=own.program) == own


def test_settings_that_differ_from_the_record_expect_nothing() -> None:
    (plain,) = bug_subjects("rhbz-471613/forkscrew", {})
    (changed,) = bug_subjects("rhbz-471613/forkscrew", {"alignment": "0"})
    facts = Kernel(spec="debian:6.1", version="6.1.192")
    expected = plain.expectation(facts)
    assert expected is not None and expected.verdict == "reproduced"
    assert changed.expectation(facts) is None
    # Another deadline is no other program.
    assert plain.with_seconds(5).expectation(facts) == expected
    # What holds for a version does not for a kernel with patches.
    patched = dataclasses.replace(facts, provenance={"patches": {"a.patch": "00"}})
    assert plain.expectation(patched) is None
    mutant = plain.expectation(dataclasses.replace(patched, spec="direct-io-get-6.12"))
    assert mutant is not None and mutant.verdict == "reproduced"


def test_settings_go_to_the_programs_that_have_them() -> None:
    subjects = {subject.program.name: subject for subject in bug_subjects("rhbz-471613", {"workers": "3"})}
    assert set(subjects) == {program.name for program in load_bug("rhbz-471613").programs}
    assert subjects["dma_thread"].settings["workers"] == "3"
    assert "workers" not in subjects["forkscrew"].settings
    with pytest.raises(UserError, match="workers"):
        bug_subjects("rhbz-471613/forkscrew", {"workers": "3"})


def test_own_template_with_parameters(tmp_path: Path) -> None:
    template = data_folder("guest-programs") / "smoke"
    (tmp_path / "mine.c.j2").write_text((template / "smoke.c.j2").read_text())
    (tmp_path / "mine.toml").write_text((template / "program.toml").read_text())
    subject = own_subject(tmp_path / "mine.c.j2", {"exit": "1"})
    assert subject.program == user_program(tmp_path / "mine.c.j2")
    assert subject.program.seconds == 5
    with pytest.raises(UserError, match="exit"):
        own_subject(tmp_path / "mine.c.j2", {"exit": "256"})
