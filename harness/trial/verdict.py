"""The verdict of a trial: what the attempts of one program on one kernel say together."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from harness.expectation import Expectation
from harness.trial.outcome import Outcome
from harness.trial.sequential import Answer, Question
from harness.trial.statistics import (
    interval,
    interval_at_any_time,
    miss_probability,
    missed_rate,
    percent,
    percent_up,
)

Word = Literal["reproduced", "clean", "unsupported", "cannot-tell"]

# Which trouble to name first when attempts could not tell for several reasons.
_TROUBLE = (Outcome.OTHER, Outcome.HANG, Outcome.INFRA, Outcome.UNSUPPORTED)
_MISS = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verdict; make one with `judge`. Field names are the keys of the ``verdict`` record."""

    bug: str | None
    """None for a user's own program."""
    program: str
    variant: str | None = None
    """Of the program; None: as it is."""
    kernel: Mapping[str, Any]
    """``spec``, ``release`` and ``provenance``."""
    arch: str
    verdict: Word
    counts: Mapping[str, int]
    """Attempts by outcome; every outcome is there, also those with none."""
    attempts: int
    rate: float | None
    """Reproduced attempts among those that could tell; None if none could."""
    interval: tuple[float, float]
    """95 % interval of ``rate``; (0, 1) if no attempt could tell.

    Of a trial that ends when it is decided the wider one that allows for that (`interval_at_any_time`).
    """
    expected: Literal["reproduced", "clean"] | None
    as_expected: bool | None
    """None if the catalogue says nothing, or the attempts do not suffice to contradict it."""
    reason: str

    @property
    def name(self) -> str:
        """What was tried, as a command takes it: ``rhbz-471613/forkscrew:ext4``."""
        program = f"{self.program}:{self.variant}" if self.variant else self.program
        return f"{self.bug}/{program}" if self.bug else program

    def to_json(self) -> dict[str, Any]:
        """The ``verdict`` record of ``--json``."""
        return {
            "type": "verdict",
            "bug": self.bug,
            "program": self.program,
            "variant": self.variant,
            "kernel": {key: self.kernel.get(key) for key in ("spec", "release", "provenance")},
            "arch": self.arch,
            "verdict": self.verdict,
            "counts": dict(self.counts),
            "attempts": self.attempts,
            "rate": self.rate,
            "interval": list(self.interval),
            "expected": self.expected,
            "as_expected": self.as_expected,
            "reason": self.reason,
        }

    def summary(self) -> str:
        """One line for people: ``REPRODUCED (100 %, 95 % interval 72–100 %)``."""
        if self.verdict == "reproduced" and self.rate is not None:
            low, high = (percent(end) for end in self.interval)
            inside = f"{percent(self.rate)}, 95 % interval {low.removesuffix(' %')}–{high}"
        elif self.verdict == "clean":
            inside = f"a bug of rate ≥ {percent_up(missed_rate(self.counts['clean'], _MISS))} missed with p < {_MISS}"
        else:
            inside = self.reason
        unexpected = f", not as expected: {self.expected}" if self.as_expected is False else ""
        return f"{self.verdict.replace('-', ' ').upper()} ({inside}){unexpected}"


def judge(
    *,
    bug: str | None,
    program: str,
    kernel: Mapping[str, Any],
    arch: str,
    variant: str | None = None,
    attempts: Sequence[tuple[Outcome, str]],
    unstarted: int = 0,
    wanted: int = 1,
    expectation: Expectation | None = None,
    question: Question | None = None,
) -> Verdict:
    """The verdict from outcome and reason of every attempt, and what the catalogue expects.

    ``question`` is what the trial was to decide, if it was to end with that; then the attempts must be in the order
    in which they were begun. One that is decided is complete, however few of the ``wanted`` attempts it took.

    - ``reproduced``: at least one attempt did. A bug that was seen is there, whatever else went wrong.
    - ``clean``: there were attempts, and every one in which the program ran was clean. One that found
      something else, hung or broke off could have hidden the bug, so then the trial cannot tell. ``unstarted``
      is how many ``infra`` attempts ended before the program began: these hide nothing, as long as they are
      few against the clean ones, and the clean ones as many as were ``wanted``: a trial that was given up
      early cannot tell. They are counted and shown all the same.
    - ``unsupported``: every attempt was.
    - ``cannot-tell``: all the rest.
    """
    counts = Counter(outcome for outcome, _ in attempts)
    decided = sum(count for outcome, count in counts.items() if outcome.decided)
    hits = counts[Outcome.REPRODUCED]
    bounds = (interval_at_any_time if question else interval)(hits, decided)
    answer = question.answer([outcome for outcome, _ in attempts]) if question else None
    word = _word(counts, len(attempts), unstarted, 1 if answer else wanted)
    if question is not None:
        as_expected, remark = _decided(word, question, answer, counts)
    else:
        as_expected, remark = _compare(word, expectation, decided, bounds)
    reason = _reason(word, attempts, counts)
    return Verdict(
        bug=bug,
        program=program,
        variant=variant,
        kernel=kernel,
        arch=arch,
        verdict=word,
        counts={outcome.value: counts[outcome] for outcome in _ORDER},
        attempts=len(attempts),
        rate=hits / decided if decided else None,
        interval=bounds,
        expected=expectation.verdict if expectation else None,
        as_expected=as_expected,
        reason=f"{reason}; {remark}" if remark else reason,
    )


# As in the JSON contract.
_ORDER = (Outcome.CLEAN, Outcome.REPRODUCED, Outcome.OTHER, Outcome.HANG, Outcome.UNSUPPORTED, Outcome.INFRA)


def _word(counts: Counter[Outcome], total: int, unstarted: int, wanted: int) -> Word:
    clean = counts[Outcome.CLEAN]
    if counts[Outcome.REPRODUCED]:
        return "reproduced"
    complete = clean >= wanted and clean > unstarted
    if complete and clean + unstarted == total and counts[Outcome.INFRA] == unstarted:
        return "clean"
    if total and counts[Outcome.UNSUPPORTED] == total:
        return "unsupported"
    return "cannot-tell"


def _reason(word: Word, attempts: Sequence[tuple[Outcome, str]], counts: Counter[Outcome]) -> str:
    """In words; of the attempts that say the same the first reason stands for all."""
    first = dict(reversed(attempts))
    total = len(attempts)
    if not total:
        return "no attempt was made"
    if word == "reproduced":
        return f"{counts[Outcome.REPRODUCED]} of {total} attempts: {first[Outcome.REPRODUCED]}"
    if word == "clean":
        clean = f"{counts[Outcome.CLEAN]} of {total} attempts clean"
        lost = counts[Outcome.INFRA]
        return f"{clean}, {lost} never ran the program: {first[Outcome.INFRA]}" if lost else clean
    parts = [f"{counts[what]} of {total} {what}: {first[what]}" for what in _TROUBLE if counts[what]]
    return first[Outcome.UNSUPPORTED] if word == "unsupported" else "; ".join(parts)


def _compare(
    word: Word, expectation: Expectation | None, decided: int, bounds: tuple[float, float]
) -> tuple[bool | None, str]:
    """Whether the verdict is the expected one, and a remark if that takes one.

    A minimum rate is contradicted by an interval that ends below it, and by clean attempts that would have
    missed it with p < 0.05 only. A verdict that could not tell contradicts nothing.
    """
    if expectation is None or word not in ("reproduced", "clean"):
        return None, ""
    rate = expectation.rate
    if word != expectation.verdict:
        if rate is None:
            return False, f"expected {expectation.verdict}"
        missed = miss_probability(rate, decided)
        remark = f"expected at a rate of at least {percent(rate)}, missed with p = {percent(missed)}"
        return (False if missed < _MISS else None), remark
    if rate is not None and bounds[1] < rate:
        return False, f"expected at a rate of at least {percent(rate)}"
    return True, ""


def _decided(
    word: Word, question: Question, answer: Answer | None, counts: Counter[Outcome]
) -> tuple[bool | None, str]:
    """The same for a trial that was to end when it is decided; ``answer`` is None if it never was.

    Then what was not contradicted holds, as in a trial of fixed length, and the remark says what remained open.
    """
    if word not in ("reproduced", "clean"):
        return None, ""
    if answer is Answer.MET:
        return True, ""
    rate, sure = question.expectation.rate, percent(question.confidence)
    if question.expectation.verdict == "clean":
        few = f"too few attempts to exclude a rate of {percent_up(question.detectable)} at {sure}"
        return (False, "expected clean") if answer else (True, few)
    if rate is None:
        return False, f"expected reproduced in at most {counts[Outcome.CLEAN]} attempts"
    if answer is Answer.MISSED:
        return False, f"expected at a rate of at least {percent(rate)}, excluded at {sure}"
    open_ = f"a rate of at least {percent(rate)} is neither shown nor excluded at {sure}"
    return (True if word == "reproduced" else None), open_
