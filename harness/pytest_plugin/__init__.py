"""The pytest plugin: a test for each bug report, on every kernel that is asked for.

    @pytest.mark.bug("rhbz-471613", program="forkscrew")
    def test_odirect_fork(trial):
        assert trial.as_expected, trial.explain()

pytest loads this module in every run of everybody who has cowpen installed. So it imports nothing but pytest until
there is a test of a bug, and leaves everything alone that is not one: a test is one of ours if it has the marker *and*
asks for our fixture ``trial``.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from harness.folders import data_folder
from harness.pytest_plugin import keys

if TYPE_CHECKING:
    from harness.pytest_plugin.cases import Case, Plan
    from harness.pytest_plugin.result import Trial

_CASE = "_bug_case"
_MARKER_HELP = (
    f"{keys.MARKER}(id, *, program=None, variant=None, attempts=None, set={{}}, seconds=None, confidence=None, "
    "kernels=None, arches=None): a test of a bug report of cowpen's catalogue, whose fixture `trial` is what came of it"
)

_plan_key: pytest.StashKey[Plan] = pytest.StashKey()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _confidence(text: str) -> float:
    value = float(text)
    if not 0.5 <= value < 1:
        raise ValueError(text)
    return value


def _guests(text: str) -> int | None:
    """A number of guests, None for ``auto``."""
    return None if text == "auto" else _count(text)


# What argparse says of a value that does not fit: "invalid number value: '0'".
_count.__name__, _confidence.__name__, _guests.__name__ = (
    "number",
    "confidence (0.5 to 1)",
    "number of guests",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cowpen", "bugs of the kernel (cowpen)")
    option = group.addoption
    option(
        "--bug",
        action="append",
        default=[],
        dest="cowpen_bugs",
        metavar="BUG[/PROGRAM][:VARIANT]",
        help="Only the tests of this bug; one of which there is no test is run all the same. May be repeated.",
    )
    option(
        "--kernel",
        action="append",
        default=[],
        dest="cowpen_kernels",
        metavar="SPEC",
        help="Run tests of bugs on this kernel: debian:6.1, tree:DIR@REV, path:IMAGE, … May be repeated. "
        "[default: the test's own, or debian:6.12]",
    )
    option(
        "--arch",
        action="append",
        default=[],
        dest="cowpen_arches",
        metavar="ARCH",
        help="x86_64 or aarch64; may be repeated. [default: the test's own, or this host's]",
    )
    option(
        "--bug-attempts",
        type=_count,
        dest="cowpen_attempts",
        metavar="N",
        help="At most so many attempts of each. [default: the test's, or the bug's]",
    )
    option(
        "--bug-confidence",
        type=_confidence,
        dest="cowpen_confidence",
        metavar="C",
        help="How sure it must be whether a kernel does what is expected. [default: the test's, or 0.95]",
    )
    option(
        "--bug-keep",
        dest="cowpen_keep",
        metavar="DIR",
        help="Where results of tests of bugs go. [default: below ~/.local/state/cowpen/runs]",
    )
    option(
        "--bug-guests",
        type=_guests,
        dest="cowpen_guests",
        metavar="N|auto",
        help="Guests at once, in all pytests of this user together. [default: auto, as many as cores and memory suit]",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER_HELP)
    inherited: dict[str, Any] = getattr(config, "workerinput", {})
    config.stash[keys.run_name] = (
        inherited.get(keys.PROPERTY) or f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    )
    option = config.option
    if option.cowpen_keep is not None:  # xdist's workers may stand elsewhere
        option.cowpen_keep = os.fspath(config.invocation_params.dir / option.cowpen_keep)
    if option.cowpen_bugs or option.cowpen_kernels or option.cowpen_arches:
        _plan(config)  # what is wrong with an option is said before anything is collected


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All workers of xdist make one run, whose results are in one folder."""
    node.workerinput[keys.PROPERTY] = node.config.stash[keys.run_name]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What is wrong with the tests only xdist's workers know."""
    faults = (getattr(node, "workeroutput", None) or {}).get(keys.PROPERTY)
    if faults:
        raise pytest.UsageError(*faults)


def pytest_report_header(config: pytest.Config) -> str | None:
    plan = config.stash.get(_plan_key, None)
    return plan.header if plan else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    test = metafunc.definition
    markers = list(test.iter_markers(keys.MARKER))
    if markers and _CASE in metafunc.fixturenames:
        found = _plan(metafunc.config).cases(markers, test.nodeid)
        metafunc.parametrize(_CASE, [pytest.param(case, id=name) for name, case in found.items()])
    elif any(word in _catalogue() for marker in markers for word in marker.args[:1] if isinstance(word, str)):
        test.warn(
            pytest.PytestWarning(
                f"{test.nodeid} is marked with a bug of cowpen's catalogue, but has no argument `trial`: nothing is run"
            )
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    plan = config.stash.get(_plan_key, None)
    if plan is None:
        return
    if plan.faults:
        if hasattr(config, "workeroutput"):
            # An exception would look like a crash of the worker; the controller raises it.
            config.workeroutput[keys.PROPERTY] = plan.faults
            items.clear()
            return
        raise pytest.UsageError(*plan.faults)
    if config.option.cowpen_bugs:
        from harness.pytest_plugin.catalogue import catalogue_items  # noqa: PLC0415

        own = [item for item in items if plan.selects(_case(item))]
        config.hook.pytest_deselected(items=[item for item in items if item not in own])
        items[:] = own + catalogue_items(session, plan, [_case(item) for item in own])


def _plan(config: pytest.Config) -> Plan:
    """What the options of this run ask for; the first call reads them, which imports a good part of cowpen."""
    if _plan_key not in config.stash:
        from harness.pytest_plugin.cases import Plan  # noqa: PLC0415

        config.stash[_plan_key] = Plan.of(config)
    return config.stash[_plan_key]


@functools.cache
def _catalogue() -> frozenset[object]:
    """The ids of all bugs, by the names of their files."""
    return frozenset(path.stem for path in data_folder("bugs").glob("*.toml"))


def _case(item: pytest.Item) -> Case | None:
    """The case of a test of a bug."""
    callspec = getattr(item, "callspec", None)
    case: Case | None = callspec.params.get(_CASE) if callspec else None
    return case


@pytest.fixture
def _bug_case() -> Case:
    """Parametrised for tests with the marker."""
    raise pytest.UsageError("the fixture `trial` says what came of a bug: mark the test @pytest.mark.bug(ID)")


@pytest.fixture
def trial(request: pytest.FixtureRequest, _bug_case: Case) -> Trial:
    """What came of running the bug of the test's marker on a kernel (`harness.pytest_plugin.result.Trial`)."""
    from harness.pytest_plugin.running import run_for  # noqa: PLC0415

    return run_for(request.node, _bug_case)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    why = item.stash.get(keys.left, None) if call.when == "setup" else None
    if why is keys.Left.TROUBLE:
        # Not even xfail expects that nothing can be learned.
        report.outcome = "failed"
        report.__dict__.pop("wasxfail", None)
    elif why is keys.Left.UNSUPPORTED:
        path, line, _ = item.reportinfo()
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.longrepr = os.fspath(path), (line or 0) + 1, reason
    done = item.stash.get(keys.trial, None)
    if done is not None and call.when in ("setup", "call"):
        report.sections += done.sections(whole=report.failed)
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    lines = [line for reports in terminalreporter.stats.values() for line in _lines(reports)]
    if lines and terminalreporter.verbosity >= 0:
        terminalreporter.section("bugs of the kernel")
        for line in sorted(set(lines)):
            terminalreporter.line(line)


def _lines(reports: Sequence[object]) -> list[str]:
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    return [str(value) for name, value in properties if name == keys.PROPERTY]
