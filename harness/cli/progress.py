"""What a person sees while trials run, and the table at the end."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import click

from harness.console.display import escape
from harness.trial.attempt import Attempt
from harness.trial.outcome import Outcome
from harness.trial.subject import Subject
from harness.trial.verdict import Verdict

_BAR = 20


class Progress:
    """The `Listener` of a person, and with ``as_json`` of a script too.

    Text goes to standard error, so that standard output holds the table alone, or the JSON lines alone. On a
    terminal a line follows the trial under way; without one each trial gets a line when it ends.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._live = sys.stderr.isatty()
        self._title = ""
        self._wanted = 0
        self._counts: Counter[Outcome] = Counter()
        self._shown = 0
        self.verdicts: list[Verdict] = []

    def tell(self, line: str) -> None:
        self._wipe()
        click.echo("\n".join(escape(part) for part in line.splitlines()), err=True)

    def begins(self, subject: Subject, kernel: str, arch: str, attempts: int) -> None:
        self._title = f"{subject.name} on {kernel} {arch}"
        self._wanted = attempts
        self._counts = Counter()
        self._draw()

    def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
        self._counts[attempt.outcome] += 1
        if self._json:
            print_json(record)
        if attempt.outcome not in (Outcome.CLEAN, Outcome.REPRODUCED):
            self.tell(f"attempt {attempt.number}: {attempt.outcome}: {attempt.reason}")
            self.tell(f"    kept in {attempt.kept}")
        self._draw()

    def verdict(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self._wipe()
        if self._json:
            print_json(verdict.to_json())
        kernel = verdict.kernel
        name = f"{verdict.bug}/{verdict.program}" if verdict.bug else verdict.program
        where = f"{kernel['spec']} ({kernel['release'] or 'not booted'}) {verdict.arch}"
        click.echo(escape(f"{name} on {where}: {verdict.summary()}"), err=True)

    def _draw(self) -> None:
        if not self._live:
            return
        done = sum(self._counts.values())
        filled = _BAR * done // max(1, self._wanted)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self._counts.items()))
        line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{self._wanted} {self._title}: {counts or 'starting'}"
        self._wipe()
        width = 79
        text = escape(line)[:width]
        self._shown = len(text)
        click.echo(text, err=True, nl=False)

    def _wipe(self) -> None:
        if self._shown:
            click.echo("\r" + " " * self._shown + "\r", err=True, nl=False)
            self._shown = 0

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


def _row(verdict: Verdict) -> tuple[str, ...]:
    kernel = verdict.kernel
    provenance = kernel["provenance"] or {}
    version = provenance.get("version") or kernel["release"] or "not booted"
    return tuple(
        escape(str(cell))
        for cell in (
            verdict.bug or "-",
            verdict.program,
            f"{kernel['spec']}  ({version})",
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
