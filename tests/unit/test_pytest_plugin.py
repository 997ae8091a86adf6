"""The pytest plugin, with trials that play a part: what is collected, what becomes of a test, what its report says."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_trials
import pytest

import harness.pytest_plugin.catalogue
from harness.arch import host_arch
from harness.bug import load_bug
from harness.cli.run import _DEFAULT_KERNEL
from harness.errors import HostError
from harness.guest.speed import Speed
from harness.pytest_plugin import running
from harness.pytest_plugin.cases import DEFAULT_KERNEL, Case
from harness.trial.slots import Slots, _holders
from harness.trial.subject import Subject, bug_subjects
from harness.trial.target import GuestTarget

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
HOST = host_arch().name
PLUGIN = ("-p", "harness.pytest_plugin")
CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import fake_trials, pytest

def pytest_configure(config):
    patch = pytest.MonkeyPatch()
    patch.setattr("harness.trial.trial.run_trial", fake_trials.run_trial)
    config.add_cleanup(patch.undo)
"""
FORKSCREW = """
import pytest

@pytest.mark.bug("rhbz-471613", program="forkscrew")
def test_odirect_fork(trial):
    assert trial.as_expected, trial.explain()
"""


class Pytest:
    """A folder with tests, and pytest on it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.folder = pytester.path
        pytester.makeconftest(CONFTEST)

    def tests(self, text: str, **script: Any) -> None:
        """The tests, and what comes of the kernels: ``debian:6.1`` is written ``v6_1``."""
        self.pytester.makepyfile(test_it=text)
        kernels = {f"debian:{name[1:].replace('_', '.')}": part for name, part in script.items()}
        (self.folder / fake_trials.SCRIPT).write_text(json.dumps(kernels))

    def run(self, *words: str, apart: bool = False) -> pytest.RunResult:
        if "-n" in words:
            words = ("-p", "xdist.plugin", *words)
        if apart:
            return self.pytester.runpytest_subprocess(*PLUGIN, *words)
        return self.pytester.runpytest_inprocess(*words, plugins=[harness.pytest_plugin])

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What trials were asked for."""
        seen = self.folder / fake_trials.SEEN
        return [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []

    def collected(self, *words: str) -> list[str]:
        result = self.run("--collect-only", "-q", *words)
        assert result.ret == 0, result.outlines
        return [line.partition("::")[2] for line in result.outlines if "::" in line]


@pytest.fixture
def ours(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pytest:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    # No plugins but ours, which may be installed or not, and those of pytest itself.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Pytest(pytester)


def marked(words: str, body: str = "pass") -> str:
    return f"import pytest\n@pytest.mark.bug({words})\ndef test_it(trial):\n    {body}\n"


# --- what is collected ---------------------------------------------------------------------------------------


def test_each_kernel_on_each_architecture(ours: Pytest) -> None:
    ours.tests(FORKSCREW)
    assert ours.collected() == [f"test_odirect_fork[debian:6.12-{HOST}]"]
    words = "--kernel debian:6.12 --kernel debian:6.1-cloud --arch x86_64 --arch arm64".split()
    assert ours.collected(*words) == [
        f"test_odirect_fork[{spec}-{arch}]"
        for spec in ("debian:6.12", "debian:6.1")  # in their shortest spelling, as everywhere
        for arch in ("x86_64", "aarch64")
    ]


def test_default_kernel_is_that_of_run() -> None:
    assert DEFAULT_KERNEL == _DEFAULT_KERNEL


def test_all_programs_of_a_bug(ours: Pytest) -> None:
    ours.tests(marked('"rhbz-471613"'))
    names = [program.name for program in load_bug("rhbz-471613").programs]
    assert ours.collected() == [f"test_it[{name}-debian:6.12-{HOST}]" for name in names]
    ours.tests(marked('id="rhbz-471613", program="fork_tlb"'))
    assert ours.collected() == [f"test_it[debian:6.12-{HOST}]"]


VARIANTS = "hugetlb-pin-readonly-fork"


def test_variants_of_a_program(ours: Pytest) -> None:
    (program,) = load_bug(VARIANTS).programs
    place = f"debian:6.12-{HOST}"
    ours.tests(marked(f'"{VARIANTS}"'))
    assert ours.collected() == [f"test_it[{place}]"], "as it is"
    ours.tests(marked(f'"{VARIANTS}", program="{program.name}", variant="base-and-thp"'))
    assert ours.collected() == [f"test_it[{place}]"]
    ours.run("--junitxml", "all.xml")
    assert [asked["name"] for asked in ours.asked] == [f"{VARIANTS}/{program.name}:base-and-thp"]
    assert '<property name="variant" value="base-and-thp" />' in (ours.folder / "all.xml").read_text()
    # All of them, of which one can be chosen.
    ours.tests(marked(f'"{VARIANTS}", variant="all"'))
    names = [program.name, *(f"{program.name}:{variant.name}" for variant in program.variants)]
    assert ours.collected() == [f"test_it[{name}-{place}]" for name in names]
    for chosen in (f"{VARIANTS}:base-and-thp", f"{VARIANTS}/{program.name}:base-and-thp"):
        assert ours.collected("--bug", chosen) == [f"test_it[{program.name}:base-and-thp-{place}]"]
    assert len(ours.collected("--bug", f"{VARIANTS}/{program.name}")) == len(names)


def test_variant_without_a_test(ours: Pytest) -> None:
    ours.run("--bug", f"{VARIANTS}:base-and-thp").assert_outcomes(passed=1)
    (asked,) = ours.asked
    assert asked["name"].endswith(":base-and-thp")


def test_two_bugs_of_one_test(ours: Pytest) -> None:
    both = '"rhbz-471613", program="forkscrew")\n@pytest.mark.bug("rhbz-471613", program="fork_tlb"'
    ours.tests(marked(both))
    assert sorted(ours.collected()) == [
        f"test_it[rhbz-471613-{name}-debian:6.12-{HOST}]" for name in ("fork_tlb", "forkscrew")
    ]


def test_marker_of_a_class_and_other_parameters(ours: Pytest) -> None:
    ours.tests(
        """
        import pytest

        @pytest.mark.bug("rhbz-471613", program="forkscrew")
        class TestIt:
            @pytest.mark.parametrize("number", [1, 2])
            def test_more(self, number, trial):
                assert trial.program == "forkscrew"
        """
    )
    ours.run().assert_outcomes(passed=2)


def test_kernels_that_a_test_is_of(ours: Pytest) -> None:
    ours.tests(marked('"rhbz-471613", program="forkscrew", kernels="debian:6.1-cloud", arches=["aarch64"]'))
    # Without an option the test decides, with one both must agree.
    assert ours.collected() == ["test_it[debian:6.1-aarch64]"]
    result = ours.run("-rs", "--kernel", "debian:6.12", "--kernel", "debian:6.1", "--arch", "aarch64")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*test_it.py:*: this test is of debian:6.1, not of debian:6.12"])
    result = ours.run("-rs", "--arch", "x86_64")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*this test is of aarch64, not of x86_64"])


def test_kernel_that_does_not_exist_for_an_architecture(ours: Pytest) -> None:
    ours.tests(FORKSCREW)
    both = ("--kernel", "debian:6.12-16k", "--arch", "x86_64", "--arch", "aarch64")
    result = ours.run("-rs", *both)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*debian:6.12-16k does not exist for x86_64*"])
    assert ours.run(*both[:4]).ret == pytest.ExitCode.USAGE_ERROR, "nothing would be run"


def test_what_a_marker_says_reaches_the_trial(ours: Pytest) -> None:
    ours.tests(
        marked(
            '"rhbz-471613", program="forkscrew", attempts=3, set={"alignment": 0}, seconds=2.5, confidence=0.99'
        )
    )
    ours.run()
    (asked,) = ours.asked
    assert asked["name"] == "rhbz-471613/forkscrew"
    assert (asked["attempts"], asked["confidence"], asked["seconds"]) == (3, 0.99, 2.5)
    assert asked["settings"]["alignment"] == "0"


def test_options_count_more_than_markers(ours: Pytest) -> None:
    ours.tests(marked('"rhbz-471613", program="forkscrew", attempts=3, confidence=0.99'))
    ours.run("--bug-attempts", "50", "--bug-confidence", "0.8")
    (asked,) = ours.asked
    assert (asked["attempts"], asked["confidence"]) == (50, 0.8)


def test_what_nobody_says(ours: Pytest) -> None:
    ours.tests(FORKSCREW)
    ours.run()
    (asked,) = ours.asked
    assert (asked["attempts"], asked["confidence"]) == (None, 0.95)


def test_only_tests_of_a_bug(ours: Pytest) -> None:
    ours.tests(FORKSCREW + "\ndef test_other(): pass\n")
    ours.run().assert_outcomes(passed=2)
    ours.run("-m", "bug").assert_outcomes(passed=1, deselected=1)
    ours.run("--bug", "rhbz-471613").assert_outcomes(passed=1, deselected=1)
    ours.run("--bug", "rhbz-471613/forkscrew").assert_outcomes(passed=1, deselected=1)
    assert len(ours.asked) == 4


def test_one_program_of_a_test_of_all(ours: Pytest) -> None:
    ours.tests(marked('"rhbz-471613"'))
    assert ours.collected("--bug", "rhbz-471613/fork_tlb") == [f"test_it[fork_tlb-debian:6.12-{HOST}]"]


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_bug_without_a_test(ours: Pytest, workers: tuple[str, ...]) -> None:
    """In an empty folder, by xdist's workers too."""
    words = ("--bug", "rhbz-471613/forkscrew", "--bug", "rhbz-471613/fork_tlb", "--kernel", "debian:6.1")
    result = ours.run(*words, *workers, "-v", "--strict-markers", apart=True)
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    (line,) = (line for line in result.outlines if "PASSED" in line and "fork_tlb" in line)
    assert f"cowpen::rhbz-471613/fork_tlb[debian:6.1-{HOST}]" in line
    assert sorted(asked["name"] for asked in ours.asked) == ["rhbz-471613/fork_tlb", "rhbz-471613/forkscrew"]


def test_bug_without_a_test_is_counted(ours: Pytest) -> None:
    ours.tests("def test_other(): pass\n")
    result = ours.run("--bug", "rhbz-471613/forkscrew", "-m", "bug")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["collected 2 items / 1 deselected / 1 selected"])


@pytest.mark.parametrize(
    ("part", "outcome"),
    [
        ({"outcomes": ["reproduced"], "expected": "reproduced"}, "passed"),
        ({"outcomes": ["clean"], "expected": "reproduced"}, "failed"),
        ({"outcomes": ["reproduced"], "expected": "clean"}, "failed"),
        # Where nothing is expected a kernel must be free of the bug.
        ({"outcomes": ["clean"], "expected": None}, "passed"),
        ({"outcomes": ["reproduced"], "expected": None}, "failed"),
        ({"outcomes": ["clean", "hang"], "expected": "clean"}, "failed"),
        ({"outcomes": ["clean", "other"], "expected": None}, "failed"),
        ({"outcomes": ["clean", "infra"], "expected": "clean"}, "errors"),
        ({"outcomes": ["unsupported"], "expected": "clean"}, "skipped"),
    ],
)
def test_what_the_catalogues_own_test_says(ours: Pytest, part: dict[str, Any], outcome: str) -> None:
    ours.tests("", v6_1=part)
    result = ours.run("--bug", "rhbz-471613/forkscrew", "--kernel", "debian:6.1", "-rs")
    result.assert_outcomes(**{outcome: 1})
    if outcome == "skipped":
        result.stdout.fnmatch_lines(["SKIPPED*bugs/rhbz-471613.toml:1: no AIO here"])
    if outcome in ("failed", "errors"):
        result.stdout.fnmatch_lines(["rhbz-471613/forkscrew on debian:6.1 *"])
        result.stdout.no_fnmatch_line("*Traceback*")
        result.stdout.no_fnmatch_line("*catalogue.py*")


# --- usage errors --------------------------------------------------------------------------------------------

MISTAKES = {
    '"rhbz-47161"': "unknown bug 'rhbz-47161': did you mean rhbz-471613?",
    '"rhbz-471613", program="forkscre"': "no program 'forkscre': did you mean forkscrew",
    '"rhbz-471613", programm="forkscrew"': "programm=…): did you mean program?",
    '"rhbz-471613", program="forkscrew", set={"alignmen": 0}': "'alignmen': did you mean alignment?",
    '"rhbz-471613", program="forkscrew", set={"alignment": "x"}': "alignment",
    '"rhbz-471613", set=3': "set=3): expected a dictionary",
    '"hugetlb-pin-readonly-fork", variant="base-and-th"': "did you mean base-and-thp?",
    '"rhbz-471613", attempts=0': "attempts=0): expected a number, 1 or more",
    '"rhbz-471613", attempts=True': "attempts=True): expected a number",
    '"rhbz-471613", confidence=95': "confidence=95): expected a number from 0.5 to 1",
    '"rhbz-471613", seconds=0': "seconds=0): expected seconds, more than 0",
    '"rhbz-471613", kernels="debian:6"': "'6' is not a series",
    '"rhbz-471613", kernels=["base-6.13"]': "did you mean base-6.1",
    '"rhbz-471613", kernels=[6.1]': "expected words, not 6.1",
    '"rhbz-471613", arches="x86"': "did you mean x86_64?",
    "471613": "expected the id of one bug",
    "": "expected the id of one bug",
    '"a", "b"': "expected the id of one bug",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistake_in_a_marker(ours: Pytest, words: str) -> None:
    ours.tests(marked(words))
    result = ours.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_it: " in result.stderr.str()
    assert MISTAKES[words] in result.stderr.str()
    assert not ours.asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--bug rhbz-47161", "did you mean rhbz-471613?"),
        ("--bug rhbz-471613/forkscre", "did you mean forkscrew"),
        ("--kernel debian:6", "'6' is not a series"),
        ("--kernel base-6.13", "did you mean base-6.1"),
        ("--kernel tree:/nowhere", "no folder /nowhere"),
        ("--arch x86", "did you mean x86_64?"),
        ("--bug-attempts 0", "--bug-attempts: invalid number value: '0'"),
        ("--bug-confidence 95", "--bug-confidence: invalid confidence (0.5 to 1) value: '95'"),
        ("--bug-guests some", "--bug-guests: invalid number of guests value: 'some'"),
    ],
)
def test_mistake_in_an_option(ours: Pytest, words: str, said: str) -> None:
    ours.tests(FORKSCREW)
    result = ours.run(*words.split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()
    assert not ours.asked


@pytest.mark.parametrize("words", [(), ("--bug", "rhbz-47161")])
def test_mistake_with_workers(ours: Pytest, words: tuple[str, ...]) -> None:
    """The workers find it in a marker, the controller in an option."""
    ours.tests(marked('"rhbz-47161"'))
    result = ours.run("-n", "2", *words, apart=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "did you mean rhbz-471613?" in result.stderr.str()


# --- what becomes of a test ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "outcome", "said"),
    [
        ({"outcomes": ["reproduced"]}, "passed", None),
        ({"outcomes": ["reproduced", "infra", "other"]}, "passed", None),
        ({"outcomes": ["clean"] * 3}, "failed", "expected at a rate of at least 90 %"),
        ({"outcomes": ["clean"]}, "failed", "can tell neither that nor the contrary"),
        ({"outcomes": ["clean", "other"]}, "failed", "WARNING in other_thing"),
        ({"outcomes": ["hang"]}, "failed", "did not end by its deadline"),
        ({"outcomes": ["reproduced"], "expected": "clean"}, "failed", "not as expected: clean"),
        ({"outcomes": ["clean"], "expected": None}, "failed", "the catalogue says nothing"),
        ({"outcomes": ["clean"], "expected": "clean"}, "passed", None),
        ({"outcomes": ["unsupported"]}, "skipped", "*test_it.py:*no AIO here"),
        ({"outcomes": ["infra"]}, "errors", "QEMU ended"),
        ({"outcomes": ["clean", "infra"]}, "errors", "QEMU ended"),
        ({"outcomes": []}, "errors", "no attempt was made"),
        ({"raises": "host"}, "errors", "no space left: free some"),
    ],
)
def test_outcome(ours: Pytest, part: dict[str, Any], outcome: str, said: str | None) -> None:
    ours.tests(FORKSCREW, v6_1=part)
    result = ours.run("--kernel", "debian:6.1", "-rs")
    result.assert_outcomes(**{outcome: 1})
    if said:
        result.stdout.fnmatch_lines([f"*{said}*"])


@pytest.mark.parametrize(
    ("part", "outcome"),
    [
        ({"outcomes": ["clean"] * 3}, "xfailed"),
        ({"outcomes": ["reproduced"]}, "xpassed"),
        ({"outcomes": ["hang"]}, "xfailed"),
        ({"outcomes": ["unsupported"]}, "skipped"),
        # Trouble is nothing that anybody expects.
        ({"outcomes": ["infra"]}, "errors"),
        ({"raises": "host"}, "errors"),
    ],
)
def test_xfail(ours: Pytest, part: dict[str, Any], outcome: str) -> None:
    ours.tests(FORKSCREW.replace("def test", '@pytest.mark.xfail(reason="later")\ndef test'), v6_1=part)
    ours.run("--kernel", "debian:6.1").assert_outcomes(**{outcome: 1})


def test_strict_xfail_and_skip(ours: Pytest) -> None:
    ours.tests(FORKSCREW.replace("def test", "@pytest.mark.xfail(strict=True)\ndef test"))
    ours.run("--kernel", "debian:6.1").assert_outcomes(failed=1)
    ours.tests(FORKSCREW.replace("def test", "@pytest.mark.xfail(run=False)\ndef test"))
    ours.run("--kernel", "debian:6.1").assert_outcomes(xfailed=1)
    ours.tests(FORKSCREW.replace("def test", '@pytest.mark.skip(reason="slow")\ndef test'))
    ours.run("--kernel", "debian:6.1").assert_outcomes(skipped=1)
    assert len(ours.asked) == 1, "what is not run costs nothing"


def test_what_a_test_is_given(ours: Pytest) -> None:
    body = """
    assert (trial.bug, trial.program, trial.name) == ("rhbz-471613", "forkscrew", "rhbz-471613/forkscrew")
    assert (trial.kernel, trial.arch) == ("debian:6.1", "x86_64")
    assert (trial.verdict, trial.expected, trial.as_expected) == ("reproduced", "reproduced", True)
    assert (trial.attempts, trial.reproduced, trial.rate) == (2, 1, 0.5)
    assert trial.counts["clean"] == 1 and 0 < trial.interval[0] < 0.5
    assert [finding.title for finding in trial.findings] == ["stale bytes"]
    assert (trial.kept / "attempt-0001" / "console.log").exists()
    assert trial.record.to_json()["type"] == "verdict"
    assert repr(trial) == "<trial of rhbz-471613/forkscrew on debian:6.1 x86_64: reproduced>"
    """
    part = {"outcomes": ["reproduced", "clean"], "expected": "reproduced"}
    ours.tests(marked('"rhbz-471613", program="forkscrew"', body), v6_1=part)
    ours.run("--kernel", "debian:6.1", "--arch", "x86_64").assert_outcomes(passed=1)


def test_trial_without_a_marker(ours: Pytest) -> None:
    ours.tests("def test_it(trial): pass\n")
    result = ours.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*mark the test @pytest.mark.bug(ID)*"])


def test_marker_without_a_trial(ours: Pytest) -> None:
    ours.tests('import pytest\n@pytest.mark.bug("rhbz-471613")\ndef test_it(): pass\n')
    result = ours.run()
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*test_it is marked*has no argument `trial`: nothing is run"])


# --- what is said --------------------------------------------------------------------------------------------


def test_report_of_a_failure(ours: Pytest) -> None:
    part = {"outcomes": ["clean", "reproduced", "clean"], "expected": "clean"}
    ours.tests(FORKSCREW, v6_1=part)
    result = ours.run("--kernel", "debian:6.1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*cowpen: trial*",
            "rhbz-471613/forkscrew on debian:6.1 *REPRODUCED*not as expected: clean",
            "1 of 3 attempts: it was reproduced; expected clean",
            "kept in /*/rhbz-471613_forkscrew-debian_6.1-*",
            "*cowpen: findings*",
            "stale bytes (1 of 3 attempts, first in 2)",
            "*cowpen: console of attempt 2*",
            "line one",
            r"last ?x1b?2Jowned ?x00?ufffe*of attempt 2",
            "whole log: /*/attempt-0002/console.log",
            "*cowpen: said*",
            "preparing debian:6.1 *",
        ]
    )
    assert not set(result.stdout.str()) & set("\x1b\x00\ufffe\u202e"), (
        "nothing of the guest's steers a terminal"
    )


def test_report_of_an_error_holds_as_much(ours: Pytest) -> None:
    ours.tests(FORKSCREW, v6_1={"outcomes": ["clean", "infra"]})
    result = ours.run("--kernel", "debian:6.1")
    result.stdout.fnmatch_lines(
        ["*ERROR at setup*", "*cowpen: trial*", "*cowpen: console of attempt 2*", "*of attempt 2"]
    )


def test_summary(ours: Pytest) -> None:
    ours.tests(FORKSCREW)
    words = ("--kernel", "debian:6.1", "--kernel", "debian:6.12", "--arch", "x86_64")
    result = ours.run(*words)
    result.stdout.fnmatch_lines(
        [
            "cowpen: kernels debian:6.1 debian:6.12; architectures x86_64",
            "*bugs of the kernel*",
            "rhbz-471613/forkscrew on debian:6.1 *x86_64: 1 attempt: REPRODUCED*as expected",
            "rhbz-471613/forkscrew on debian:6.12 *x86_64: 1 attempt: CLEAN*as expected",
        ]
    )
    ours.run(*words, "-q").stdout.no_fnmatch_line("*bugs of the kernel*")


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_junit(ours: Pytest, workers: tuple[str, ...]) -> None:
    part = {"outcomes": ["reproduced", "clean"], "expected": "clean"}
    ours.tests(FORKSCREW, v6_1=part, v6_12={"outcomes": ["infra"]})
    words = ("--kernel", "debian:6.1", "--kernel", "debian:6.12", "--arch", "x86_64", "--junitxml", "all.xml")
    ours.run(*words, *workers, apart=True)
    cases = {case.get("name"): case for case in ET.parse(ours.folder / "all.xml").iter("testcase")}
    case = cases["test_odirect_fork[debian:6.1-x86_64]"]
    properties = {one.get("name"): one.get("value") or "" for one in case.iter("property")}
    wanted = {
        "bug": "rhbz-471613",
        "program": "forkscrew",
        "kernel": "debian:6.1",
        "kernel.commit": "abcdef",
        "arch": "x86_64",
        "attempts": "2",
        "reproduced": "1",
        "rate": "0.5",
        "verdict": "reproduced",
        "expected": "clean",
        "as_expected": "false",
    }
    assert properties.items() >= wanted.items()
    low, high = map(float, properties["interval"].split())
    assert 0 < low < 0.5 < high < 1
    assert properties["kernel.release"].startswith("6.0\\x1b")
    assert Path(properties["kept"]).is_dir()
    assert case.find("failure") is not None
    assert cases["test_odirect_fork[debian:6.12-x86_64]"].find("error") is not None


def test_what_takes_time_is_said_at_once(ours: Pytest) -> None:
    ours.tests(FORKSCREW)
    result = ours.run("--kernel", "debian:6.1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["cowpen: preparing debian:6.1 *"])
    ours.run("--kernel", "debian:6.1", "-q").stdout.no_fnmatch_line("cowpen: preparing*")
    result = ours.run("--kernel", "debian:6.1", "-n", "1", apart=True)
    result.stderr.fnmatch_lines(["cowpen (gw0): preparing debian:6.1 *"])


# --- where results go ----------------------------------------------------------------------------------------


def test_one_run_has_one_folder(ours: Pytest, tmp_path: Path) -> None:
    ours.tests(FORKSCREW)
    words = ("--kernel", "debian:6.1", "--kernel", "debian:6.12", "--arch", "x86_64", "--arch", "aarch64")
    ours.run(*words, "-n", "2", apart=True).assert_outcomes(passed=4)
    assert len({asked["run"] for asked in ours.asked}) == 1
    (folder,) = (tmp_path / "state/cowpen/runs").iterdir()
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_keep(ours: Pytest, workers: tuple[str, ...]) -> None:
    ours.tests(FORKSCREW)
    ours.run("--bug-keep", "results", *workers, apart=True).assert_outcomes(passed=1)
    assert [asked["run"] for asked in ours.asked] == [str(ours.folder / "results")]


def test_no_folder_without_a_trial(ours: Pytest, tmp_path: Path) -> None:
    ours.tests("def test_it(): pass\n")
    ours.run("-n", "1", apart=True).assert_outcomes(passed=1)
    assert not (tmp_path / "state").exists()


# --- beside others -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Stage:
    speed: Speed = dataclasses.field(default_factory=lambda: Speed(boot_seconds=2))


@pytest.mark.parametrize("ends", [None, HostError("no disk")])
def test_guests_have_a_place_until_the_trial_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Exception | None
) -> None:
    """From the first boot on: kernels are fetched and built without one."""
    monkeypatch.setattr("harness.trial.jobs.cores", lambda: 2)
    monkeypatch.setattr("harness.trial.jobs.fits", lambda shape, beside_mib: True)
    monkeypatch.setattr(GuestTarget, "kernel", lambda self, cache, tell: None)
    monkeypatch.setattr(GuestTarget, "stage", lambda self, *unused: Stage())
    (subject,) = bug_subjects("rhbz-471613/forkscrew", {})
    slots, alive = Slots(tmp_path), []

    def held() -> int:
        return len(_holders(tmp_path))

    def run_trial(subject: Subject, target: Any, *unused: Any, listener: Any, **more: Any) -> None:
        target.kernel(None, listener.tell)
        assert held() == 0
        stage = target.stage(subject, None, None, listener.tell)
        assert held() == 2, "a file for each of its CPUs"
        # Two guests of two CPUs on two cores: each may be twice as slow, and get twice the time.
        assert 2 <= stage.speed.scale <= 11
        before = max(path.stat().st_mtime_ns for path in tmp_path.iterdir())
        time.sleep(0.02)
        listener.phase(1, None)
        alive.append(max(path.stat().st_mtime_ns for path in tmp_path.iterdir()) > before)
        raise ends or KeyboardInterrupt

    monkeypatch.setattr("harness.trial.trial.run_trial", run_trial)
    run: Any = SimpleNamespace(slots=slots, folder=tmp_path, cache=None, say=lambda line: None)
    case = Case(subject=subject, spec="debian:6.12", arch=host_arch(), attempts=None, confidence=0.95)
    with pytest.raises((HostError, KeyboardInterrupt)):
        running._run(case, run)
    assert alive == [True]
    assert held() == 0


# --- interrupts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raises", ["interrupt", "stopping"])
def test_interrupt(ours: Pytest, raises: str) -> None:
    ours.tests(FORKSCREW + "\ndef test_later(): pass\n", v6_12={"raises": raises})
    result = ours.run(apart=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes()


@pytest.mark.slow
def test_ctrl_c_ends_children(ours: Pytest) -> None:
    """What a trial has started is gone when pytest is."""
    ours.tests(FORKSCREW)
    (ours.folder / "conftest.py").write_text(
        """
import subprocess, sys, time, pytest
from pathlib import Path
from harness.process import Process

def run_trial(*unused, **more):
    child = Process(["sleep", "600"])
    Path("pid").write_text(str(child.pid))
    time.sleep(600)

def pytest_configure(config):
    pytest.MonkeyPatch().setattr("harness.trial.trial.run_trial", run_trial)
"""
    )
    running = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "pytest", *PLUGIN, str(ours.folder)],
        cwd=ours.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        pid = ours.folder / "pid"
        while not (pid.exists() and pid.read_text()):
            assert time.monotonic() < end and running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=30)
    finally:
        running.kill()
        running.wait(10)
    assert running.returncode == pytest.ExitCode.INTERRUPTED, out
    child = Path("/proc") / pid.read_text() / "stat"
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


# --- projects that have nothing to do with cowpen ------------------------------------------------------------


def test_heavy_parts_are_imported_for_tests_of_bugs_only(ours: Pytest) -> None:
    ours.tests(
        """
        import sys, pytest

        @pytest.mark.bug("JIRA-1")
        def test_it():
            ours = {name for name in sys.modules if name.partition(".")[0] == "harness"}
            assert ours == {"harness", "harness.folders", "harness.pytest_plugin", "harness.pytest_plugin.keys"}
            assert not {"pydantic", "jinja2", "scipy", "rich", "paramiko"} & set(sys.modules)
        """
    )
    (ours.folder / "conftest.py").unlink()
    ours.run("--strict-markers", apart=True).assert_outcomes(passed=1)


def test_marker_and_fixture_of_others(ours: Pytest) -> None:
    """Who has a marker ``bug`` or a fixture ``trial`` for other ends notices nothing."""
    ours.tests(
        """
        import pytest

        @pytest.fixture
        def trial():
            return 3

        @pytest.mark.bug("JIRA-1", "JIRA-2", severity=3)
        def test_marked(): pass

        @pytest.mark.bug
        def test_bare(): pass

        @pytest.mark.bug(["JIRA-3"])
        def test_with_a_trial(trial): assert trial == 3

        @pytest.mark.parametrize("trial", [1, 2])
        def test_of_parameters(trial): assert trial < 3
        """
    )
    result = ours.run("--strict-markers", "-W", "error", apart=True)
    result.assert_outcomes(passed=5)


def test_parameter_of_a_hook_named_trial(ours: Pytest) -> None:
    ours.tests("def test_it(trial): assert trial in (1, 2)\n")
    with (ours.folder / "conftest.py").open("a") as file:
        file.write(
            '\ndef pytest_generate_tests(metafunc):\n    metafunc.parametrize("trial", [1, 2])\n',
        )
    ours.run().assert_outcomes(passed=2)


def test_fixture_around_ours(ours: Pytest) -> None:
    text = "import pytest\n@pytest.fixture\ndef trial(trial):\n    return trial.verdict\n"
    ours.tests(text + marked('"rhbz-471613", program="forkscrew"', 'assert trial == "clean"'))
    ours.run().assert_outcomes(passed=1)


def test_help_and_markers(ours: Pytest) -> None:
    result = ours.run("--help")
    result.stdout.fnmatch_lines(["bugs of the kernel (cowpen):", "*--bug=BUG*", "*--kernel=SPEC*"])
    ours.run("--markers").stdout.fnmatch_lines(["@pytest.mark.bug(id, *"])


def test_plugin_costs_next_to_nothing(ours: Pytest) -> None:
    """Its import is measured by Python itself, in microseconds; pytest's own takes 100 ms."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import pytest, harness.pytest_plugin"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *_, line = (line for line in done.stderr.splitlines() if line.endswith(" harness.pytest_plugin"))
    assert int(line.split("|")[1]) < 50_000, line
