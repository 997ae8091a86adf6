"""One attempt: a guest in a known state, one execution of the program, and what was seen."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.console.detect import scan_file
from harness.console.display import escape
from harness.console.finding import Finding, corruption_finding
from harness.errors import DeadlineError, GuestError, HostError, SnapshotError, UnsupportedError
from harness.guest.channel import Ending, Exit, Stream
from harness.process import StoppingError
from harness.program.record import corruption_title, parse_records
from harness.trial.capture import Capture
from harness.trial.hang import hang_seen
from harness.trial.outcome import EXIT_UNSUPPORTED, Decision, Outcome, decide
from harness.trial.stage import Machine, Stage

_PUSH_SECONDS = 30.0  # whatever the program's size; 1 MB takes 0.03 s over the agent
_SETTLE_SECONDS = 5.0
_UNSUPPORTED = "unsupported:"  # what programs of ours begin that line with: guest-programs/common/status.h
_TROUBLE = "trouble:"
_SAID_LIMIT = 400


class Phase(enum.StrEnum):
    """What an attempt is doing, for those who watch."""

    STARTING = "starting"
    RUNNING = "running"
    SETTLING = "settling"


OnPhase = Callable[[Phase], None]
"""Called, by the thread of the attempt, when a phase begins."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """What one attempt came to. ``seconds`` is wall-clock time, ``kept`` the folder with all there is of it."""

    number: int
    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...]
    seconds: float
    kept: Path | None
    booted: bool = False
    """Whether the guest came up."""
    started: bool = False
    """Whether the program was started: an attempt without says nothing about the bug, either way."""
    stale: bool = False
    """Whether its snapshot kept the guest from coming up: from another one the next may."""
    cause: int | None = None
    """Which of the findings, by its index, the outcome comes from."""

    @property
    def finding(self) -> Finding | None:
        """The finding that the outcome comes from."""
        return None if self.cause is None else self.findings[self.cause]

    def to_json(self, **identity: object) -> dict[str, Any]:
        """The ``attempt`` record of ``--json``; ``identity`` says of what (bug, program, kernel, arch)."""
        return {
            "type": "attempt",
            **identity,
            "attempt": self.number,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "findings": [finding.to_json() for finding in self.findings],
            "cause": self.cause,
            "seconds": round(self.seconds, 3),
            "kept": str(self.kept) if self.kept else None,
        }


@dataclasses.dataclass
class _Seen:
    """How far an attempt came."""

    booted: bool = False
    started: bool = False
    exit: Exit | None = None
    hang: str | None = None
    """What did not come in time, once the program was started."""
    trouble: str | None = None
    stale: bool = False
    unsupported: str | None = None
    """What the guest was found to lack before the program was started."""
    console_before: int = 0
    """Bytes of the console printed before the program was started."""
    state: tuple[float, float] = (math.inf, math.inf)
    """Where in the console the state of a hanging guest begins and ends, which was collected there."""


def run_attempt(stage: Stage, number: int, folder: Path, on_phase: OnPhase = lambda phase: None) -> Attempt:
    """Run one attempt; every trouble becomes an outcome, only an interrupt escapes."""
    begin = time.monotonic()
    with Capture(folder) as capture:
        on_phase(Phase.STARTING)
        seen = _watch_it(stage, folder, capture, on_phase)
        findings = _findings(stage, folder, capture, seen)
        decision = _decide(stage, findings, capture, seen)
    return _attempt(number, folder, findings, decision, seen, seconds=time.monotonic() - begin)


def failed_attempt(stage: Stage | None, number: int, folder: Path, trouble: str) -> Attempt:
    """The attempt that ended before its guest was ready, from what its console says (if there is one)."""
    seen = _Seen(trouble=trouble)
    findings: list[Finding] = []
    decision = Decision(Outcome.INFRA, trouble)
    if stage is not None:
        with Capture(folder) as capture:
            findings = _findings(stage, folder, capture, seen)
            decision = _decide(stage, findings, capture, seen)
    return _attempt(number, folder, findings, decision, seen, seconds=0.0)


def _attempt(
    number: int, folder: Path, findings: list[Finding], decision: Decision, seen: _Seen, *, seconds: float
) -> Attempt:
    cause = next((n for n, finding in enumerate(findings) if finding is decision.finding), None)
    attempt = Attempt(
        number=number,
        outcome=decision.outcome,
        reason=decision.reason,
        findings=tuple(findings),
        cause=cause,
        seconds=seconds,
        kept=folder,
        booted=seen.booted,
        started=seen.started,
        stale=seen.stale,
    )
    return write_result(attempt, folder)


def write_result(attempt: Attempt, folder: Path) -> Attempt:
    """The attempt, with its own record kept beside its console."""
    text = json.dumps(attempt.to_json(), indent=1)
    part = folder / "result.json.part"
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(folder / "result.json")  # whole or not there, whenever cowpen is killed
    return attempt


def _watch_it(stage: Stage, folder: Path, capture: Capture, on_phase: OnPhase) -> _Seen:
    seen = _Seen()
    path = _path_in_guest(stage)
    try:
        with stage.machine(folder) as machine:
            machine.ready()
            seen.booted = True
            stage.furnish(machine)
            stage.probe(machine)
            channel = machine.channel
            channel.push_file(stage.compiled.binary, path, seconds=_push_seconds(stage, channel.pace))
            seen.console_before = _size(folder / "console.log")
            seen.started = True
            on_phase(Phase.RUNNING)
            try:
                _run_it(stage, machine, path, capture, seen, on_phase)
            except DeadlineError as error:
                seen.hang = seen.hang or str(error)
                if seen.state[0] == math.inf:
                    _examine(machine, folder, seen)
    except StoppingError:
        raise
    except UnsupportedError as error:
        seen.unsupported = str(error)
    except (GuestError, HostError) as error:
        seen.trouble = str(error)
        seen.stale = isinstance(error, SnapshotError)
    except OSError as error:
        # No descriptors, no processes: the host is short of something, which is no reason to end the run.
        seen.trouble = f"the host is in trouble ({error.strerror or error})"
    return seen


def _path_in_guest(stage: Stage) -> str:
    return f"/tmp/{stage.subject.program.name}"  # noqa: S108  (it is the guest's)


def _run_it(
    stage: Stage, machine: Machine, path: str, capture: Capture, seen: _Seen, on_phase: OnPhase
) -> None:
    """Run the program to its end, and let the guest settle."""
    name = stage.subject.program.name

    def overdue() -> None:
        seen.hang = f"{name} did not end by its deadline"
        if not _examine(machine, capture.folder, seen):
            raise DeadlineError(seen.hang)

    channel = machine.channel
    seen.exit = channel.run([path], seconds=stage.program_seconds, on_output=capture, on_overdue=overdue)
    if seen.exit.ending is not Ending.DEADLINE:
        seen.hang = None  # it ended just as it was to be ended
    on_phase(Phase.SETTLING)
    _settle(machine, stage)


def _examine(machine: Machine, folder: Path, seen: _Seen) -> bool:
    """Have the state of the hanging machine written to its console; whether it can still go on."""
    console = folder / "console.log"
    seen.state = _size(console), math.inf
    alive = machine.examine(seen.hang or "it hangs")
    if alive:
        seen.state = seen.state[0], _size(console)
    return alive


def _outside(finding: Finding, seen: _Seen) -> bool:
    """Whether the finding lies where the console says nothing of the program."""
    begin, end = seen.state
    return finding.start < seen.console_before or begin <= finding.start < end


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _push_seconds(stage: Stage, pace: float) -> float:
    size = stage.compiled.binary.stat().st_size
    return (_PUSH_SECONDS + size / pace) * stage.speed.scale


def _settle(machine: Machine, stage: Stage) -> None:
    """Let the guest live on for a moment after the program: what it broke may only show when it is cleaned up.

    An answer to a second greeting means that the guest still schedules; a panic comes instead of it.
    """
    try:
        machine.channel.hello(seconds=_SETTLE_SECONDS * stage.speed.scale)
    except DeadlineError as error:
        raise DeadlineError(
            f"the guest did not answer after the end of {stage.subject.program.name}"
        ) from error
    machine.check()


def _findings(stage: Stage, folder: Path, capture: Capture, seen: _Seen) -> list[Finding]:
    """All findings: of the program's records first, for they came before whatever killed the machine; a hang last."""
    arch = stage.kernel.arch.name
    records = parse_records(capture.records())
    (folder / "records.json").write_text(
        json.dumps([dataclasses.asdict(record) for record in records], default=bytes.hex, indent=1) + "\n",
        encoding="utf-8",
    )
    access_path = stage.subject.program.access_path
    findings: dict[str, Finding] = {}
    for record in records:
        title = corruption_title(record, access_path)
        findings.setdefault(title, corruption_finding(title, arch=arch, text=record.describe()))
    found = list(findings.values())
    console = folder / "console.log"
    try:
        found += scan_file(console, arch)
    except OSError as error:
        # A scan that could not run is trouble, never a clean console.
        seen.trouble = seen.trouble or f"cannot read the console log {console} ({error.strerror})"
    if seen.hang is not None:
        found.append(hang_seen(stage, capture, path=_path_in_guest(stage), why=seen.hang))
    return found


def _decide(stage: Stage, findings: list[Finding], capture: Capture, seen: _Seen) -> Decision:
    bug, program = stage.subject.bug, stage.subject.program.name
    # A warning of the boot is in every attempt alike and says nothing of the program, and what a hanging guest tells
    # when it is asked is no finding; both are shown, but only one with the bug's own signature decides.
    findings = [
        finding
        for finding in findings
        if not (finding.end and _outside(finding, seen)) or (bug and bug.matches(finding, program))
    ]
    if not seen.started and not any(bug and bug.matches(finding, program) for finding in findings):
        # A kernel that does not come up is boot trouble, whatever it says on its way down: for a bisecting
        # developer a commit to skip. Only the bug's own signature counts this early.
        if seen.unsupported is not None:
            return Decision(Outcome.UNSUPPORTED, seen.unsupported)
        reason = seen.trouble or "the program was never started"
        if not findings:
            return Decision(Outcome.INFRA, reason)
        return Decision(Outcome.INFRA, f"{reason}; the console says: {findings[0].title}", findings[0])
    status = signal = unsupported = None
    said = capture.last_line(Stream.STDERR)[:_SAID_LIMIT]
    if seen.exit is not None and seen.exit.ending is Ending.EXITED:
        status = seen.exit.code
        if status == EXIT_UNSUPPORTED and bug is not None and said.startswith(_UNSUPPORTED):
            unsupported = escape(said.removeprefix(_UNSUPPORTED).strip())
    elif seen.exit is not None and seen.exit.ending is Ending.SIGNALLED:
        signal = seen.exit.code
    return decide(
        findings=findings,
        bug=bug,
        program=program,
        exit_status=status,
        signal=signal,
        hang=seen.hang,
        infra=seen.trouble,
        unsupported=unsupported,
        said=escape(said.removeprefix(_TROUBLE).strip()),
    )
