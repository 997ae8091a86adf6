"""What a person sees while trials run, and the table at the end."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Any, Self

import click

from harness.cli.live import Live, suits_terminal
from harness.console.display import escape
from harness.console.finding import Finding
from harness.console.trace import trace_lines
from harness.kernel.spec import without_files
from harness.trial.attempt import Attempt, Phase
from harness.trial.hang import THREADS
from harness.trial.outcome import Outcome
from harness.trial.subject import Subject
from harness.trial.verdict import Verdict

_FRAMES = 4  # of a trace; the log has them all


class Progress:
    """The `Listener` of a person, and with ``as_json`` of a script too.

    Text goes to standard error, so that standard output holds the table alone, or the JSON lines alone. On a
    terminal some lines follow the trial under way (`harness.cli.live`) until its verdict, or until the ``with`` block
    is left; without one each trial gets a line when it ends.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        # Lines on the same terminal would be torn apart by those that follow the trial.
        self._watched = suits_terminal(sys.stderr) and not (as_json and sys.stdout.isatty())
        self._live: Live | None = None
        self._shown: set[tuple[str, tuple[str, ...]]] = set()
        self.verdicts: list[Verdict] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_live()

    def tell(self, line: str) -> None:
        for part in line.splitlines():
            self._say(part)

    def begins(self, subject: Subject, kernel: str, arch: str, attempts: int) -> None:
        self._end_live()
        self._shown.clear()
        if self._watched:
            self._live = Live(f"{subject.name} on {without_files(kernel)} {arch}", attempts)

    def phase(self, number: int, phase: Phase) -> None:
        if self._live:
            self._live.phase(number, phase)

    def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
        if self._live:
            self._live.ended(attempt.number, attempt.outcome)
        if self._json:
            print_json(record)
        new = attempt.finding is not None and self._first_of_its_kind(attempt.finding)
        # Of a hundred reproductions the first says what there is to say.
        if attempt.outcome not in (Outcome.CLEAN, Outcome.REPRODUCED) or new:
            self.tell(f"attempt {attempt.number}: {attempt.outcome}: {attempt.reason}")
            if new and attempt.finding:
                for line in trace_lines(attempt.finding, _FRAMES):
                    self.tell(f"    {line}")
            self.tell(f"    {_kept(attempt)}")

    def _first_of_its_kind(self, finding: Finding) -> bool:
        """Whether this trial has shown no such finding, with the same functions in its trace."""
        trace = finding.title, tuple(frame.function for frame in finding.frames)
        new = trace not in self._shown
        self._shown.add(trace)
        return new

    def verdict(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self._end_live()
        if self._json:
            print_json(verdict.to_json())
        kernel = verdict.kernel
        where = f"{without_files(kernel['spec'])} ({kernel['release'] or 'not booted'}) {verdict.arch}"
        self._say(f"{verdict.name} on {where}: {verdict.summary()}")

    def _say(self, line: str) -> None:
        if self._live:
            self._live.say(escape(line))
        else:
            click.echo(escape(line), err=True)

    def _end_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def table(self) -> None:
        """Print the table of all verdicts on standard output; a script has had its records already."""
        if self._json:
            return
        columns = ("bug", "program", "kernel", "arch", "attempts", "reproduced", "verdict")
        rows = [columns, *(_row(verdict) for verdict in self.verdicts)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
        right = {columns.index("attempts"), columns.index("reproduced")}
        for row in rows:
            cells = [
                cell.rjust(width) if index in right else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            click.echo("  ".join(cells).rstrip())


def _kept(attempt: Attempt) -> str:
    """Where to read on: the console's log, if the finding is from there; the stacks of a program that hangs."""
    if attempt.kept and attempt.finding and attempt.finding.end:
        return f"log: {attempt.kept / 'console.log'}"
    if attempt.kept and attempt.finding and attempt.finding.threads:
        return f"stacks of {len(attempt.finding.threads)} threads: {attempt.kept / THREADS}"
    return f"kept in {attempt.kept}"


def _row(verdict: Verdict) -> tuple[str, ...]:
    kernel = verdict.kernel
    provenance = kernel["provenance"] or {}
    version = provenance.get("version") or kernel["release"] or "not booted"
    return tuple(
        escape(str(cell))
        for cell in (
            verdict.bug or "-",
            f"{verdict.program}:{verdict.variant}" if verdict.variant else verdict.program,
            f"{without_files(kernel['spec'])}  ({version})",
            verdict.arch,
            verdict.attempts,
            verdict.counts["reproduced"],
            verdict.summary(),
        )
    )


def print_json(record: dict[str, Any]) -> None:
    """One JSON object on a line of its own, at once: a reader at the other end of a pipe sees it now."""
    click.echo(json.dumps(record, default=str))
    sys.stdout.flush()
