"""Trials without guests, for tests of what is made of them: `run_trial`, with outcomes that a file says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from harness.cache import Cache
from harness.console.finding import Finding
from harness.errors import HostError
from harness.expectation import Expectation
from harness.process import StoppingError
from harness.trial.attempt import Attempt
from harness.trial.keep import trial_folder
from harness.trial.outcome import Outcome
from harness.trial.subject import Subject
from harness.trial.trial import Options
from harness.trial.verdict import Verdict, judge

SCRIPT = "trials.json"
"""What comes of a kernel, by its spec: ``outcomes`` (default: what is expected, once), ``expected`` (a verdict, or null
for nothing; default: the catalogue's), ``raises``, ``seconds``."""
HOSTILE = "\x1b[2Jowned \x00\ufffe ]]> <b> \u202e"
SEEN = "seen.jsonl"
"""What was asked for, a line for each trial."""


def run_trial(
    subject: Subject, target: Any, options: Options, *, run: Path, cache: Cache, listener: Any
) -> Verdict:
    script = json.loads(Path(SCRIPT).read_text()) if Path(SCRIPT).exists() else {}
    part = script.get(f"{target.spec} {target.arch.name}", script.get(target.spec, {}))
    with Path(SEEN).open("a") as file:
        asked = {
            "name": subject.name,
            "settings": dict(subject.settings),
            "seconds": subject.program.seconds,
            "kernel": target.spec,
            "arch": target.arch.name,
            "attempts": options.attempts,
            "confidence": options.decide,
            "run": str(run),
        }
        file.write(json.dumps(asked) + "\n")
    listener.tell(f"preparing {target.spec} {HOSTILE}")
    time.sleep(part.get("seconds", 0))
    errors = {
        "interrupt": KeyboardInterrupt(),
        "stopping": StoppingError("interrupted"),
        "host": HostError("no space left", mend="free some"),
    }
    if "raises" in part:
        raise errors[part["raises"]]
    expectation = _expectation(subject, target, part)
    outcomes = part.get("outcomes", [expectation.verdict if expectation else "clean"])
    folder = trial_folder(run, subject.name, target.spec, target.arch.name)
    attempts = [_attempt(number, Outcome(word), folder) for number, word in enumerate(outcomes, 1)]
    for attempt in attempts:
        listener.attempt(attempt, {})
    assert subject.bug is not None
    return judge(
        bug=subject.bug.id,
        program=subject.program.name,
        variant=subject.variant,
        kernel={
            "spec": target.spec,
            "release": f"6.0{HOSTILE}",
            "provenance": {"source": {"commit": "abcdef", "tree": "012345"}},
        },
        arch=target.arch.name,
        attempts=[(attempt.outcome, attempt.reason) for attempt in attempts],
        wanted=len(attempts),
        expectation=expectation,
    )


def _expectation(subject: Subject, target: Any, part: dict[str, Any]) -> Expectation | None:
    if "expected" in part:
        word = part["expected"]
        return Expectation(kernels="*", verdict=word) if word else None
    assert subject.bug is not None
    version = target.spec.removeprefix("debian:")
    return subject.bug.expected(version, target.spec, target.arch.name, subject.program.name, subject.variant)


def _attempt(number: int, outcome: Outcome, folder: Path) -> Attempt:
    kept = folder / f"attempt-{number:04d}"
    kept.mkdir()
    (kept / "console.log").write_bytes(f"line one\nlast {HOSTILE} of attempt {number}\n".encode())
    found = outcome in (Outcome.REPRODUCED, Outcome.OTHER)
    titles = {Outcome.REPRODUCED: "stale bytes", Outcome.OTHER: "WARNING in other_thing"}
    return Attempt(
        number=number,
        outcome=outcome,
        reason={
            Outcome.UNSUPPORTED: "no AIO here",
            Outcome.INFRA: "QEMU ended",
            Outcome.HANG: "forkscrew did not end by its deadline",
        }.get(outcome, f"it was {outcome}"),
        findings=(Finding(kind="corruption", title=titles[outcome]),) if found else (),
        cause=0 if found else None,
        seconds=0.1,
        kept=kept,
    )
