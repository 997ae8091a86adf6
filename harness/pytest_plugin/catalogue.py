"""Tests of the bugs that ``--bug`` names and that no collected test is of: cowpen's own, one for each case."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from harness.folders import data_folder
from harness.pytest_plugin import keys
from harness.pytest_plugin.cases import Case, Plan, selects
from harness.pytest_plugin.result import Trial
from harness.pytest_plugin.running import run_for


class Catalogue(pytest.Collector):
    """The collector that these tests have: the catalogue of bugs."""

    def collect(self) -> Iterator[pytest.Item]:
        raise NotImplementedError("its tests are made by `catalogue_items`")


class CatalogueItem(pytest.Item):
    """A bug on a kernel: what is expected must come; of what nothing is expected, the bug must stay away."""

    case: Case
    _trial: Trial | None = None

    def setup(self) -> None:
        self._trial = run_for(self, self.case)

    def runtest(self) -> None:
        done = self._trial
        assert done is not None
        holds = done.verdict == "clean" if done.expected is None else done.as_expected
        if not holds:
            pytest.fail(done.explain(), pytrace=False)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        return data_folder("bugs") / f"{self.case.subject.name.partition('/')[0]}.toml", 0, self.name


def catalogue_items(session: pytest.Session, plan: Plan, covered: Sequence[Case | None]) -> list[pytest.Item]:
    """Tests of what ``--bug`` names and none of the cases ``covered`` by tests is of."""
    found: list[pytest.Item] = []
    catalogue = Catalogue.from_parent(session, name="cowpen", nodeid="cowpen")
    for wanted in plan.bugs:
        if any(case is not None and selects(wanted, case) for case in covered):
            continue
        for name, case in plan.of_bug(wanted).items():
            item = CatalogueItem.from_parent(catalogue, name=f"{wanted.name}[{name}]")
            item.case = case
            item.add_marker(getattr(pytest.mark, keys.MARKER)(wanted.bug))
            found.append(item)
    if found:  # so that they are counted as collected
        report = pytest.CollectReport(catalogue.nodeid, "passed", longrepr=None, result=list(found))
        session.config.hook.pytest_collectreport(report=report)
    return found
