"""From what was seen of an attempt to its outcome, and from verdicts to the exit code."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bug import Bug
from harness.console.finding import Finding, corruption_finding, hang_finding
from harness.trial.outcome import Outcome, decide, exit_code


def bug(*kinds) -> Bug:
    signatures = [{"kind": kind} for kind in kinds]
    return Bug.model_validate(
        {"id": "b", "title": "t", "programs": [{"name": "p"}], "signatures": signatures}
    )


STALE = corruption_finding("data corruption: stale bytes in O_DIRECT read buffer (p)")
OOPS = Finding(kind="oops", title="general protection fault in f", frame="f")
OOM = Finding(kind="memory", title="out of memory in p")
FORGED = Finding(kind="oops", title="general protection fault in f", frame="f", user_written=True)
CORRUPTION, HANG = bug("corruption"), bug("hang")


@pytest.mark.parametrize(
    ("seen", "outcome", "word"),
    [
        ({"bug": CORRUPTION, "findings": [STALE], "exit_status": 1}, "reproduced", "stale bytes"),
        ({"bug": CORRUPTION, "findings": [STALE], "infra": "QEMU ended"}, "reproduced", "stale bytes"),
        (
            {"bug": CORRUPTION, "findings": [STALE], "hang": "p missed its deadline"},
            "reproduced",
            "stale bytes",
        ),
        ({"bug": CORRUPTION, "findings": [OOPS, STALE], "exit_status": 1}, "reproduced", "stale bytes"),
        ({"bug": CORRUPTION, "findings": [OOPS], "exit_status": 0}, "other", "general protection"),
        ({"bug": CORRUPTION, "findings": [OOPS], "infra": "QEMU ended"}, "other", "general protection"),
        (
            {"bug": CORRUPTION, "findings": [OOPS], "hang": "p missed its deadline"},
            "other",
            "general protection",
        ),
        ({"bug": bug("oops"), "findings": [OOPS], "infra": "the boot failed"}, "reproduced", "general"),
        ({"bug": CORRUPTION, "findings": [], "infra": "QEMU ended"}, "infra", "QEMU ended"),
        # A scan that could not run is never clean.
        ({"bug": CORRUPTION, "findings": [], "infra": "no console", "exit_status": 0}, "infra", "no console"),
        ({"bug": CORRUPTION, "findings": [], "exit_status": 0}, "clean", "status 0"),
        ({"bug": CORRUPTION, "findings": [], "exit_status": 1}, "infra", "without a record"),
        ({"bug": CORRUPTION, "findings": [], "exit_status": 2}, "infra", "status 2"),
        ({"bug": CORRUPTION, "findings": [], "exit_status": 3, "said": "no fork"}, "infra", "3: no fork"),
        ({"bug": CORRUPTION, "findings": [], "exit_status": 4}, "unsupported", "no reason"),
        (
            {"bug": CORRUPTION, "findings": [], "exit_status": 4, "unsupported": "no AIO"},
            "unsupported",
            "no AIO",
        ),
        ({"bug": CORRUPTION, "findings": [], "signal": 11}, "infra", "SIGSEGV"),
        ({"bug": CORRUPTION, "findings": [OOM], "signal": 9}, "infra", "says: out of memory in p"),
        ({"bug": CORRUPTION, "findings": [OOM], "signal": 9, "said": "hm"}, "infra", ": hm; the kernel says"),
        ({"bug": CORRUPTION, "findings": [OOM], "exit_status": 0}, "clean", "status 0"),
        ({"bug": CORRUPTION, "findings": [OOM, OOPS], "signal": 9}, "other", "general protection"),
        ({"bug": bug("oops"), "findings": [FORGED], "exit_status": 0}, "clean", "status 0"),
        ({"bug": CORRUPTION, "findings": [], "signal": 9999}, "infra", "9999"),
        ({"bug": CORRUPTION, "findings": []}, "infra", "never seen"),
        ({"bug": CORRUPTION, "findings": [], "hang": "p missed its deadline"}, "hang", "deadline"),
        ({"bug": CORRUPTION, "findings": [hang_finding("p")]}, "hang", "deadline"),
        ({"bug": HANG, "findings": [], "hang": "p missed its deadline"}, "reproduced", "deadline"),
        ({"bug": HANG, "findings": [hang_finding("p")]}, "reproduced", "deadline"),
        # QEMU that ended has not hung.
        (
            {"bug": HANG, "findings": [], "hang": "p missed its deadline", "infra": "QEMU ended"},
            "infra",
            "QEMU ended",
        ),
        ({"bug": None, "findings": [], "exit_status": 0}, "clean", "status 0"),
        ({"bug": None, "findings": [], "exit_status": 1, "said": "?"}, "reproduced", "status 1"),
        ({"bug": None, "findings": [], "exit_status": 4}, "infra", "status 4"),
        ({"bug": None, "findings": [], "signal": 6}, "infra", "SIGABRT"),
        ({"bug": None, "findings": [OOPS], "exit_status": 0}, "reproduced", "general protection"),
        ({"bug": None, "findings": [OOPS], "infra": "QEMU ended"}, "reproduced", "general protection"),
        ({"bug": None, "findings": [], "hang": "p missed its deadline"}, "hang", "deadline"),
    ],
)
def test_decide(seen, outcome, word) -> None:
    decision = decide(program="p", **seen)
    assert decision.outcome == outcome
    assert word in decision.reason


@given(
    findings=st.lists(st.sampled_from([STALE, OOPS, hang_finding("p")]), max_size=3),
    record=st.sampled_from([None, CORRUPTION, HANG]),
    exit_status=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    hang=st.none() | st.just("p did not end by its deadline"),
    infra=st.none() | st.just("trouble"),
    unsupported=st.none() | st.just("lacking"),
)
def test_clean_only_when_nothing_is_wrong(findings, record, **seen) -> None:
    decision = decide(findings=findings, bug=record, program="p", **seen)
    assert decision.reason
    nothing = not (findings or seen["hang"] or seen["infra"] or seen["unsupported"] or seen["signal"])
    assert (decision.outcome is Outcome.CLEAN) == (nothing and seen["exit_status"] == 0)


def test_every_outcome_is_explained() -> None:
    assert all(outcome.help for outcome in Outcome)


def test_exit_code() -> None:
    assert exit_code(["clean"]) == 0
    assert exit_code(["reproduced"]) == 1
    assert exit_code(["unsupported"]) == exit_code(["cannot-tell"]) == exit_code([]) == 125
    for order in itertools.permutations(["clean", "cannot-tell", "reproduced"]):
        assert exit_code(order) == 1
    assert exit_code(["clean", "unsupported", "clean"]) == 125
