"""How sure a number of attempts makes us. Rates and probabilities are fractions, 0 to 1."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


def interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a rate that was seen as ``hits`` of ``trials``.

    Wilson, because the normal approximation says 100 % to 100 % of 10 hits in 10; this says 72 % to 100 %. No
    trials say nothing: (0, 1). `ValueError` for impossible counts.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials: expected 0 <= hits <= trials")
    if not trials:
        return 0.0, 1.0
    z = _Z_95 if confidence == 0.95 else _z(confidence)
    rate = hits / trials
    middle = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    # Exact at the ends, where rounding would leave 1e-17 of a rate.
    return (0.0 if not hits else middle - half), (1.0 if hits == trials else middle + half)


# scipy.special.ndtri(0.975), written out: every run prints 95 % intervals, and scipy takes 0.3 s to import, a
# tenth of an attempt from a cold boot. tests/unit/test_statistics.py holds all of this against scipy.stats.
_Z_95 = 1.959963984540054


def _z(confidence: float) -> float:
    from scipy.special import ndtri  # noqa: PLC0415

    return float(ndtri((1 + confidence) / 2))


def interval_at_any_time(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval of the rate that holds though the number of trials was not fixed before.

    The Wilson interval of whoever stops when the result suits covers less than it says; this one covers the rate after
    every trial at once, with probability ``confidence``, and is wider for it: 5 hits of 5 give 38 % to 100 % instead
    of 57 % to 100 %. It holds the rates against which a bet spread evenly over all rates has not won
    1 / (1 - ``confidence``) yet (Robbins, Ann. Math. Stat. 41, 1970; for many more such intervals Howard, Ramdas,
    McAuliffe and Sekhon, Ann. Statist. 49, 2021).
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials: expected 0 <= hits <= trials")
    misses = trials - hits
    bet = math.lgamma(hits + 1) + math.lgamma(misses + 1) - math.lgamma(trials + 2)

    def excluded(rate: float) -> bool:
        chance = (hits and hits * math.log(rate)) + (misses and misses * math.log1p(-rate))
        return bet - chance >= -math.log(1 - confidence)

    def end(outside: float, inside: float) -> float:
        for _ in range(60):  # halvings, to the last bit of a rate near 1
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if excluded(middle) else (outside, middle)
        return outside

    rate = hits / trials if trials else 0.5
    return (end(0.0, rate) if hits else 0.0), (end(1.0, rate) if misses else 1.0)


def missed_rate(trials: int, p: float = 0.05) -> float:
    """The smallest rate that ``trials`` attempts would have shown with probability 1 - ``p``.

    After 10 clean attempts 0.259: what shows more often would have been missed with less than 5 %
    probability. 1 for no attempts: anything may have been missed.
    """
    if trials < 0 or not 0 < p < 1:
        raise ValueError(f"missed_rate({trials}, {p}): expected trials >= 0 and 0 < p < 1")
    # 1 - p**(1/n) written so that it stays exact for many trials.
    return -math.expm1(math.log(p) / trials) if trials else 1.0


def miss_probability(rate: float, trials: int) -> float:
    """Probability that a bug of this rate per attempt shows in none of ``trials`` independent attempts."""
    if trials < 0 or not 0 <= rate <= 1:
        raise ValueError(f"miss_probability({rate}, {trials}): expected 0 <= rate <= 1 and trials >= 0")
    if not trials:
        return 1.0
    return math.exp(trials * math.log1p(-rate)) if rate < 1 else 0.0


def attempts_to_decide(rate: float, false_chance: float) -> int:
    """The fewest attempts after which a bug of ``rate`` has been missed with at most ``false_chance``.

    For tests that must not fail by bad luck: rate 0.95 and one false alarm in a million takes 5 attempts.
    """
    if not 0 < rate <= 1 or not 0 < false_chance < 1:
        raise ValueError(
            f"attempts_to_decide({rate}, {false_chance}): expected 0 < rate <= 1, 0 < chance < 1"
        )
    if rate == 1:
        return 1
    attempts = max(1, math.ceil(math.log(false_chance) / math.log1p(-rate)))
    # The quotient of two logarithms may be off by one unit in the last place.
    if attempts > 1 and miss_probability(rate, attempts - 1) <= false_chance:
        return attempts - 1
    return attempts if miss_probability(rate, attempts) <= false_chance else attempts + 1


class Mean(NamedTuple):
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float


def geometric_mean(values: Sequence[float]) -> Mean:
    """The geometric mean of at least two times, or of ratios of times, with its interval by Student's t on logarithms.

    Geometric, because what a busy host adds to a time is a factor, and because the mean of B/A is then one over that
    of A/B. `ValueError` for fewer than two values, or one that is not positive.
    """
    if len(values) < 2 or min(values) <= 0:
        raise ValueError(f"geometric_mean of {len(values)} values: expected two or more, all positive")
    from scipy.special import stdtrit  # noqa: PLC0415

    logarithms = [math.log(value) for value in values]
    middle = statistics.fmean(logarithms)
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(logarithms) / math.sqrt(len(values))
    return Mean(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def percent(fraction: float) -> str:
    """A fraction for people: ``72 %``, ``0.5 %``, ``99.6 %``; never rounded to 0 % or 100 % unless it is."""
    value = 100 * fraction
    if value in (0, 100) or 1 <= value < 99.5:
        return f"{value:.0f} %"
    return f"{value:.2g} %" if value < 1 else f"{min(value, 99.9):.1f} %"


def percent_up(fraction: float) -> str:
    """Like `percent`, rounded up: for "a rate of at least" that must not promise too much."""
    value = 100 * fraction
    if not value:
        return "0 %"
    # Whole per cents down to 1 %, below that two digits.
    digits = 0 if value >= 1 else 1 - math.floor(math.log10(value))
    # A rate that is whole already must not go up for an error in the last place.
    return f"{math.ceil(round(value * 10**digits, 6)) / 10**digits:.{digits}f} %"
