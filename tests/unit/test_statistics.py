"""Intervals and probabilities."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.trial.statistics import (
    attempts_to_decide,
    interval,
    miss_probability,
    missed_rate,
    percent,
    percent_up,
)

rates = st.floats(1e-6, 1)


def test_known_values() -> None:
    assert interval(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert interval(3, 10) == pytest.approx((0.1078, 0.6032), abs=1e-4)
    assert interval(0, 0) == (0, 1)
    assert missed_rate(10) == pytest.approx(0.2589, abs=1e-4)
    assert missed_rate(0) == 1
    assert miss_probability(0.1, 10) == pytest.approx(0.3487, abs=1e-4)
    assert attempts_to_decide(0.95, 1e-6) == 5
    assert attempts_to_decide(1, 1e-6) == 1


@pytest.mark.parametrize(("hits", "trials"), [(1, 0), (-1, 2), (3, 2)])
def test_impossible_counts(hits, trials) -> None:
    with pytest.raises(ValueError, match="hits"):
        interval(hits, trials)


@given(st.integers(1, 1000), st.data())
def test_interval_holds_the_rate(trials, data) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = interval(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1
    # Wilson's formula, written out.
    z = 1.959963984540054
    rate = hits / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-9)


@given(st.integers(1, 100_000))
def test_missed_rate_is_missed_with_that_probability(trials) -> None:
    assert miss_probability(missed_rate(trials), trials) == pytest.approx(0.05, rel=1e-6)


@given(rates, st.floats(1e-12, 0.5))
def test_attempts_to_decide_is_the_fewest(rate, chance) -> None:
    attempts = attempts_to_decide(rate, chance)
    assert miss_probability(rate, attempts) <= chance
    assert attempts == 1 or miss_probability(rate, attempts - 1) > chance


@pytest.mark.parametrize(
    ("fraction", "text", "up"),
    [
        (0, "0 %", "0 %"),
        (1, "100 %", "100 %"),
        (0.2589, "26 %", "26 %"),
        (0.251, "25 %", "26 %"),
        (0.07, "7 %", "7 %"),
        (0.0049, "0.49 %", "0.49 %"),
        (0.00491, "0.49 %", "0.50 %"),
        (0.9999, "99.9 %", "100 %"),
        (0.996, "99.6 %", "100 %"),
    ],
)
def test_percent(fraction, text, up) -> None:
    assert (percent(fraction), percent_up(fraction)) == (text, up)


@given(rates)
def test_percent_never_claims_certainty(rate) -> None:
    assert (percent(rate) == "100 %") == (rate == 1)
    assert percent(rate) != "0 %"
    assert float(percent_up(rate).removesuffix(" %")) >= 100 * rate - 1e-6


@pytest.mark.slow
@settings(deadline=None)  # the first example pays for importing scipy.stats
@given(st.integers(0, 500), st.integers(1, 500), st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_is_scipys(hits: int, trials: int, confidence: float) -> None:
    """The formula and its written-out constant against scipy's own Wilson interval."""
    from scipy.stats import binomtest

    hits = min(hits, trials)
    theirs = binomtest(hits, trials).proportion_ci(confidence_level=confidence, method="wilson")
    assert interval(hits, trials, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
