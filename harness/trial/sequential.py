"""When a trial has seen enough: its attempts end as soon as what the catalogue expects is decided.

Whoever looks after every attempt and stops when the result suits makes more errors than the usual intervals and
p-values promise. What is used here allows for that: *test martingales*. A gambler bets against a hypothesis, attempt
by attempt, at odds that are fair if it is true, and never borrows. Then the capital reaches 1 / e times what it began
with in at most a share e of all trials (Ville's inequality), however often one looks and why ever one stops. A
hypothesis that has made its gambler so rich is given up, with e = 1 - confidence.

- *Expected to reproduce at a rate of at least r*: two gamblers. One bets against "r or more"; if that makes a fortune
  the expectation is missed. The other bets against "r / 2 or less"; if that does, it is met. Both divide their money
  between two stakes: on what a kernel most often turns out to do (never show the bug, always show it), and on the
  other's rate (a Wald test of r against r / 2). So of all kernels with a rate of r or more at most a share e is called
  missed, and of those with half of that or less at most e is called met. The rate of a record is a minimum that the
  true one mostly exceeds by far; what lies between half of it and itself may be called either. With r = 0.9 and 95 %
  4 reproductions in a row meet it and 2 clean attempts miss it; at a true rate of 0.95 it takes 5 attempts on average.
- *Expected to reproduce*, no rate: met with the first reproduction. Missed only when all attempts are used up: no
  number of clean ones contradicts a bug that may be rare.
- *Expected clean*: missed with the first reproduction. Met after as many clean attempts as a bug that shows at the
  `Question.detectable` rate survives with probability e at most. There is one such number, and so one look.
- *Nothing expected*: there is no question, and all attempts are made.

Literature: Wald, Sequential tests of statistical hypotheses, Ann. Math. Stat. 16 (1945); Robbins, Statistical methods
related to the law of the iterated logarithm, Ann. Math. Stat. 41 (1970), for the division of stakes; Shafer, Shen,
Vereshchagin and Vovk, Test martingales, Bayes factors and p-values, Statistical Science 26 (2011).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import Counter
from collections.abc import Sequence

from harness.bug import Bug
from harness.expectation import Expectation
from harness.trial.outcome import Outcome
from harness.trial.statistics import attempts_to_decide, missed_rate

CONFIDENCE = 0.95
"""How sure a decision is, unless the user says otherwise."""


class Answer(enum.StrEnum):
    """What a trial has decided about its expectation."""

    MET = "met"
    MISSED = "missed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What a trial is to decide: whether its kernel does what is expected."""

    expectation: Expectation
    confidence: float = CONFIDENCE
    detectable: float
    """The smallest rate of a bug that clean attempts have to exclude."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1 or not 0 < self.detectable <= 1:
            raise ValueError(f"{self}: expected 0.5 <= confidence < 1 and 0 < detectable <= 1")

    @property
    def doubt(self) -> float:
        """The share of false decisions that is allowed."""
        return 1 - self.confidence

    @property
    def clean_attempts(self) -> int:
        """How many clean attempts exclude the `detectable` rate."""
        # What a number of attempts excludes just so must not take one more for an error in the last place.
        return attempts_to_decide(self.detectable, self.doubt * (1 + 1e-9))

    def answer(self, outcomes: Sequence[Outcome]) -> Answer | None:
        """What is decided by the first of these attempts that suffice; None if all of them do not.

        They must be in the order in which they were begun, without gaps: in the order of their ends, those of several
        guests at once would be those that are quick first, and reproductions may be the quick ones.
        """
        seen: Counter[Outcome] = Counter()
        for outcome in outcomes:
            seen[outcome] += 1
            if outcome.decided and (answer := self._after(seen)):
                return answer
        return None

    def _after(self, seen: Counter[Outcome]) -> Answer | None:
        """What is decided when attempts have had these outcomes."""
        hits, clean = seen[Outcome.REPRODUCED], seen[Outcome.CLEAN]
        misses = sum(count for outcome, count in seen.items() if outcome.decided) - hits
        # What found something else, or hung, may have hidden the bug: then the trial cannot tell, but go on it can.
        hidden = not hits and misses > clean
        if self.expectation.verdict == "clean":
            if hits:
                return Answer.MISSED
            return Answer.MET if clean >= self.clean_attempts and not hidden else None
        rate = self.expectation.rate
        if rate is None:
            return Answer.MET if hits else None
        enough = -math.log(self.doubt)
        if _capital(hits, misses, against=rate / 2, stakes=(rate, 1.0)) >= enough:
            return Answer.MET
        if not hidden and _capital(hits, misses, against=rate, stakes=(rate / 2, 0.0)) >= enough:
            return Answer.MISSED
        return None


def detectable_rate(bug: Bug, program: str, attempts: int) -> float:
    """The rate that clean attempts of ``program`` should exclude, by the bug's record.

    It is the one that the record's number of ``attempts`` excludes at 95 %, or the smallest that the record
    claims of any kernel, if that is smaller.
    """
    claimed = [
        expectation.rate
        for expectation in bug.expectations
        if expectation.rate is not None and expectation.program in (None, program)
    ]
    return min([missed_rate(attempts), *claimed])


def _capital(hits: int, misses: int, *, against: float, stakes: tuple[float, ...]) -> float:
    """Logarithm of what a gambler has who bet equal parts of 1 on the rates ``stakes`` instead of ``against``."""
    gains = [_gain(hits, stake, against) + _gain(misses, 1 - stake, 1 - against) for stake in stakes]
    most = max(gains)
    if math.isinf(most):
        return most
    return most + math.log(sum(math.exp(gain - most) for gain in gains) / len(stakes))


def _gain(times: int, bet: float, against: float) -> float:
    """Logarithm of the odds that something came ``times`` times, at a chance of ``bet`` and not ``against``."""
    if not times:
        return 0.0
    if not bet:
        return -math.inf
    return times * math.log(bet / against) if against else math.inf
