"""What a test is given: the trial that was run for it, and what its report says of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.console.display import MAX_LINE, escape, last_lines
from harness.console.finding import Finding
from harness.console.trace import trace_lines
from harness.kernel.spec import without_files
from harness.trial.attempt import Attempt
from harness.trial.hang import THREADS
from harness.trial.outcome import Outcome
from harness.trial.verdict import Verdict

_FRAMES = 8
_CONSOLE_LINES = 30
_TELLING = (Outcome.REPRODUCED, Outcome.OTHER, Outcome.HANG, Outcome.INFRA)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Trial:
    """What came of a bug on a kernel. All text is safe to show: guests are hostile."""

    record: Verdict
    """The whole verdict."""
    ended: tuple[Attempt, ...]
    """Every attempt that was made."""
    kept: Path | None
    """The folder with everything of it; None if there was not even room for that."""
    told: tuple[str, ...] = ()
    """What was out of the ordinary, a line each."""

    def __repr__(self) -> str:
        return f"<trial of {self.name} on {without_files(self.kernel)} {self.arch}: {self.verdict}>"

    @property
    def name(self) -> str:
        """``rhbz-471613/forkscrew``, ``rhbz-471613/forkscrew:ext4``."""
        return self.record.name

    @property
    def bug(self) -> str | None:
        return self.record.bug

    @property
    def program(self) -> str:
        return self.record.program

    @property
    def variant(self) -> str | None:
        """Of the program; None: as it is."""
        return self.record.variant

    @property
    def kernel(self) -> str:
        """The kernel's spec."""
        return str(self.record.kernel["spec"])

    @property
    def release(self) -> str | None:
        """What ``uname -r`` says there; None if there was no kernel to be had."""
        release = self.record.kernel["release"]
        return escape(str(release)) if release else None

    @property
    def arch(self) -> str:
        return self.record.arch

    @property
    def verdict(self) -> str:
        """``reproduced``, ``clean`` or ``cannot-tell``; a test of what is ``unsupported`` is skipped."""
        return self.record.verdict

    @property
    def expected(self) -> str | None:
        """``reproduced`` or ``clean``; None where the catalogue says nothing."""
        return self.record.expected

    @property
    def as_expected(self) -> bool | None:
        """Whether the kernel does what is expected; None if nothing is, or if the trial cannot tell."""
        return self.record.as_expected

    @property
    def attempts(self) -> int:
        return self.record.attempts

    @property
    def reproduced(self) -> int:
        """How many attempts showed the bug."""
        return self.record.counts["reproduced"]

    @property
    def counts(self) -> Mapping[str, int]:
        """Attempts by outcome."""
        return self.record.counts

    @property
    def rate(self) -> float | None:
        return self.record.rate

    @property
    def interval(self) -> tuple[float, float]:
        return self.record.interval

    @property
    def reason(self) -> str:
        return escape(self.record.reason)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, each thing once."""
        found = {finding.title: finding for attempt in reversed(self.ended) for finding in attempt.findings}
        return tuple(reversed(found.values()))

    @property
    def line(self) -> str:
        """One line about it."""
        where = f"{without_files(self.kernel)} ({self.release or 'not booted'}) {self.arch}"
        many = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        said = ", as expected" if self.as_expected else ""
        line = escape(f"{self.name} on {where}: {many}: {self.record.summary()}{said}")
        return " ".join(line.split())

    def explain(self) -> str:
        """Some lines about it: what came, what was expected, why, and where everything is kept."""
        lines = [self.line, self.reason]
        if self.expected is None:
            lines.append(
                "the catalogue says nothing of this program, as it was set, on this kernel: say what you expect, "
                'as in `assert trial.verdict == "clean"`'
            )
        elif self.as_expected is None:
            lines.append(f"expected {self.expected}: these attempts can tell neither that nor the contrary")
        lines += [f"kept in {self.kept}"] if self.kept else []
        return "\n".join(lines)

    def properties(self) -> Iterator[tuple[str, str]]:
        """Names and values for a report that machines read (``--junitxml``)."""
        known = {None: "unknown", True: "true", False: "false"}
        values: dict[str, Any] = {
            "bug": self.bug,
            "program": self.program,
            "variant": self.variant,
            "kernel": self.kernel,
            **{f"kernel.{key}": value for key, value in self._provenance()},
            "arch": self.arch,
            "attempts": self.attempts,
            "reproduced": self.reproduced,
            "rate": None if self.rate is None else f"{self.rate:.4g}",
            "interval": " ".join(f"{end:.4g}" for end in self.interval),
            "verdict": self.verdict,
            "expected": self.expected,
            "as_expected": known[self.as_expected],
            "reason": self.reason,
            "kept": self.kept,
        }
        yield from ((name, escape(str(value))) for name, value in values.items() if value is not None)

    def _provenance(self) -> Iterator[tuple[str, Any]]:
        """What kernel that was: its release; package and version, or git commit and patches."""
        provenance = self.record.kernel["provenance"] or {}
        source = provenance.get("source") or {}
        yield "release", self.release
        for key in ("package", "version", "commit", "tree"):
            yield key, provenance.get(key) or source.get(key)
        if provenance.get("patches"):
            yield "patches", " ".join(provenance["patches"])

    def sections(self, *, whole: bool) -> list[tuple[str, str]]:
        """Heading and text of what a report says of it; ``whole``: also what helps to see why."""
        found = [("cowpen: trial", self.explain())]
        if whole and self.findings:
            found.append(("cowpen: findings", "\n".join(self._shown_findings())))
        shown = self._telling() if whole else None
        if shown is not None and shown.kept is not None:
            log = shown.kept / "console.log"
            lines = _last_lines(log)
            if lines:
                found.append(
                    (f"cowpen: console of attempt {shown.number}", "\n".join([*lines, f"whole log: {log}"]))
                )
        if whole and self.told:
            found.append(("cowpen: said", "\n".join(escape(line) for line in self.told)))
        return found

    def _shown_findings(self) -> Iterator[str]:
        for finding in self.findings:
            seen = [attempt for attempt in self.ended if finding.title in _titles(attempt)]
            many = f"{len(seen)} of {self.attempts} attempts, first in {seen[0].number}"
            yield escape(f"{finding.title} ({many})")
            yield from (f"    {escape(line)}" for line in trace_lines(finding, _FRAMES))
            if finding.threads and seen[0].kept is not None:
                yield f"    stacks of {len(finding.threads)} threads: {seen[0].kept / THREADS}"

    def _telling(self) -> Attempt | None:
        """The attempt whose console tells most: the last in which something came."""
        telling = [attempt for attempt in self.ended if attempt.outcome in _TELLING]
        return next(reversed(telling or self.ended), None)


def _titles(attempt: Attempt) -> set[str]:
    return {finding.title for finding in attempt.findings}


def _last_lines(log: Path) -> list[str]:
    """The last lines of a console's log, escaped; none if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _CONSOLE_LINES * MAX_LINE))
            return last_lines(file.read(_CONSOLE_LINES * MAX_LINE), _CONSOLE_LINES)
    except OSError:
        return []
