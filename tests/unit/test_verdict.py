"""From the outcomes of attempts to the verdict of the trial."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.expectation import Expectation
from harness.trial.outcome import Outcome, exit_code
from harness.trial.sequential import Question
from harness.trial.statistics import missed_rate
from harness.trial.verdict import Verdict, judge

KERNEL = {"spec": "debian:6.1", "release": "6.1.0-56-cloud-amd64", "provenance": {"version": "6.1.192-2"}}
CLEAN, HIT, OTHER, HUNG, LACKS, INFRA = (
    (Outcome.CLEAN, "c"),
    (Outcome.REPRODUCED, "stale bytes"),
    (Outcome.OTHER, "not this bug"),
    (Outcome.HANG, "deadline"),
    (Outcome.UNSUPPORTED, "no AIO"),
    (Outcome.INFRA, "QEMU ended"),
)
OLD = Expectation(kernels="<6.3", verdict="reproduced", rate=0.9)
NEW = Expectation(kernels=">=6.3", verdict="clean")
RARE = Expectation(kernels="<6.3", verdict="reproduced", rate=0.1)
LUCK = Expectation(kernels="<6.3", verdict="reproduced")


def trial(attempts, expectation=None) -> Verdict:
    return judge(
        bug="b", program="p", kernel=KERNEL, arch="x86_64", attempts=attempts, expectation=expectation
    )


@pytest.mark.parametrize(
    ("attempts", "word", "rate"),
    [
        ([HIT] * 10, "reproduced", 1),
        ([HIT] * 3 + [CLEAN] * 7, "reproduced", 0.3),
        ([HIT, INFRA, LACKS], "reproduced", 1),
        ([HIT, OTHER, HUNG, CLEAN, INFRA], "reproduced", 0.25),
        ([CLEAN] * 10, "clean", 0),
        ([CLEAN] * 9 + [INFRA], "cannot-tell", 0),
        ([CLEAN] * 9 + [HUNG], "cannot-tell", 0),
        ([CLEAN] * 9 + [OTHER], "cannot-tell", 0),
        ([CLEAN] * 9 + [LACKS], "cannot-tell", 0),
        ([LACKS] * 2, "unsupported", None),
        ([LACKS, INFRA], "cannot-tell", None),
        ([INFRA], "cannot-tell", None),
        ([], "cannot-tell", None),
    ],
)
def test_verdict(attempts, word, rate) -> None:
    verdict = trial(attempts)
    assert (verdict.verdict, verdict.rate, verdict.attempts) == (word, rate, len(attempts))
    assert sum(verdict.counts.values()) == len(attempts)


@pytest.mark.parametrize(
    ("attempts", "expectation", "as_expected", "remark"),
    [
        ([HIT] * 10, OLD, True, ""),
        ([HIT] * 8 + [CLEAN] * 2, OLD, True, ""),
        # 7 of 10: the interval ends at 89.2 %.
        ([HIT] * 7 + [CLEAN] * 3, OLD, False, "at least 90 %"),
        ([CLEAN] * 10, OLD, False, "at least 90 %"),
        # One attempt of ten misses a bug of 90 %: no contradiction, no confirmation.
        ([CLEAN], OLD, None, "p = 10 %"),
        ([CLEAN] * 2, OLD, False, "p = 1 %"),
        ([CLEAN] * 10, LUCK, False, "expected reproduced"),
        ([HIT], LUCK, True, ""),
        ([CLEAN] * 10, NEW, True, ""),
        ([HIT] + [CLEAN] * 199, NEW, False, "expected clean"),
        ([INFRA], NEW, None, ""),
        ([LACKS], OLD, None, ""),
        ([HIT], None, None, ""),
    ],
)
def test_as_expected(attempts, expectation, as_expected, remark) -> None:
    verdict = trial(attempts, expectation)
    assert verdict.as_expected is as_expected
    assert remark in verdict.reason
    assert verdict.expected == (expectation.verdict if expectation else None)


def decided(attempts, expectation, wanted=10, confidence=0.95) -> Verdict:
    """A trial that was to end when it is decided, after at most ``wanted`` attempts."""
    return judge(
        bug="b",
        program="p",
        kernel=KERNEL,
        arch="x86_64",
        attempts=attempts,
        wanted=wanted,
        expectation=expectation,
        question=Question(expectation=expectation, confidence=confidence, detectable=missed_rate(10)),
    )


@pytest.mark.parametrize(
    ("attempts", "expectation", "word", "as_expected", "remark"),
    [
        ([HIT] * 4, OLD, "reproduced", True, ""),
        # Few attempts are a whole trial if they decide it, and no trial if they do not.
        ([CLEAN] * 2, OLD, "clean", False, "at least 90 %, excluded at 95 %"),
        ([CLEAN], OLD, "cannot-tell", None, ""),
        ([CLEAN, HIT, CLEAN, CLEAN], OLD, "reproduced", False, "excluded at 95 %"),
        # The most attempts are used up: what is not contradicted holds.
        ([HIT] * 8 + [CLEAN] * 2, OLD, "reproduced", True, ""),
        ([HIT, CLEAN, HIT], OLD, "reproduced", True, "neither shown nor excluded"),
        ([CLEAN] * 10, RARE, "clean", None, "neither shown nor excluded at 95 %"),
        # Attempts that were under way when it was decided change nothing.
        ([CLEAN, CLEAN, HIT, HIT, HIT, HIT], OLD, "reproduced", False, "excluded"),
        ([CLEAN, HIT], LUCK, "reproduced", True, ""),
        ([CLEAN] * 10, LUCK, "clean", False, "expected reproduced in at most 10 attempts"),
        ([CLEAN] * 3, LUCK, "cannot-tell", None, ""),
        ([CLEAN] * 10, NEW, "clean", True, ""),
        ([CLEAN, HIT], NEW, "reproduced", False, "expected clean"),
        ([CLEAN] * 9 + [INFRA], NEW, "cannot-tell", None, ""),
        ([LACKS], OLD, "unsupported", None, ""),
    ],
)
def test_trial_that_ends_when_it_is_decided(attempts, expectation, word, as_expected, remark) -> None:
    verdict = decided(attempts, expectation)
    assert (verdict.verdict, verdict.as_expected) == (word, as_expected)
    assert remark in verdict.reason


def test_decided_trial_that_had_too_few_attempts() -> None:
    verdict = decided([CLEAN] * 10, NEW, confidence=0.99)
    assert (verdict.verdict, verdict.as_expected) == ("clean", True)
    assert "too few attempts to exclude a rate of 26 % at 99 %" in verdict.reason


def test_interval_allows_for_the_early_end() -> None:
    fixed, early = trial([HIT] * 4, OLD), decided([HIT] * 4, OLD)
    assert early.interval[0] < fixed.interval[0]
    assert early.summary() == "REPRODUCED (100 %, 95 % interval 32–100 %)"


@pytest.mark.parametrize(
    ("verdict", "summary"),
    [
        (trial([HIT] * 10), "REPRODUCED (100 %, 95 % interval 72–100 %)"),
        (trial([CLEAN] * 10), "CLEAN (a bug of rate ≥ 26 % missed with p < 0.05)"),
        (trial([LACKS] * 2), "UNSUPPORTED (no AIO)"),
        (
            trial([CLEAN, INFRA, HUNG]),
            "CANNOT TELL (1 of 3 hang: deadline; 1 of 3 infra: QEMU ended)",
        ),
        (trial([HIT] * 10, NEW), "REPRODUCED (100 %, 95 % interval 72–100 %), not as expected: clean"),
    ],
)
def test_summary(verdict, summary) -> None:
    assert verdict.summary() == summary


def test_json_keys_are_the_contract() -> None:
    record = json.loads(json.dumps(trial([HIT, CLEAN], OLD).to_json()))
    assert " ".join(record) == (
        "type bug program variant kernel arch verdict counts attempts rate interval expected as_expected reason"
    )
    assert " ".join(record["counts"]) == "clean reproduced other hang unsupported infra"
    assert record["kernel"] == KERNEL
    assert record["type"] == "verdict"
    assert record["expected"] == "reproduced"
    assert len(record["interval"]) == 2


@given(st.lists(st.sampled_from([CLEAN, HIT, OTHER, HUNG, LACKS, INFRA]), max_size=20))
def test_exit_code_never_calls_trouble_good(attempts) -> None:
    outcomes = Counter(outcome for outcome, _ in attempts)
    code = exit_code([trial(attempts).verdict])
    assert (code == 1) == bool(outcomes[Outcome.REPRODUCED])
    assert (code == 0) == bool(attempts and set(outcomes) == {Outcome.CLEAN})
