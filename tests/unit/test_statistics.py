"""Intervals and probabilities."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.trial.statistics import (
    attempts_to_decide,
    geometric_mean,
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


def test_geometric_mean_known_values() -> None:
    mean = geometric_mean([1, 2, 4])
    # Logarithms 0, 1, 2 to base 2: mean 1, deviation 1; Student's t for two degrees of freedom is 4.3027.
    assert mean.value == pytest.approx(2)
    assert math.log2(mean.high) - 1 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert mean.low * mean.high == pytest.approx(mean.value**2)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 0.0], [1.0, -1.0]])
def test_a_mean_of_too_little_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="geometric_mean of"):
        geometric_mean(values)


times = st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=30)


@given(times)
def test_the_interval_holds_the_geometric_mean(values: list[float]) -> None:
    mean = geometric_mean(values)
    assert mean.value == pytest.approx(statistics.geometric_mean(values))
    assert mean.low <= mean.value * (1 + 1e-9)
    assert mean.high >= mean.value * (1 - 1e-9)


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=2, max_size=20))
def test_a_ratio_turned_round_is_one_over_it(pairs: list[tuple[float, float]]) -> None:
    there = geometric_mean([a / b for a, b in pairs])
    back = geometric_mean([b / a for a, b in pairs])
    assert there.value * back.value == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1)
