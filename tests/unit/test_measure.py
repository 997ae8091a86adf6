"""``cowpen measure fork-cost``: what it makes of its words and of the times; no guest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli.measure import measure
from harness.errors import UserError
from harness.trial import fork_cost

KERNELS = ("--kernel", "debian:6.1", "--kernel", "debian:6.12")


def call(*words: str) -> Result:
    return CliRunner().invoke(measure, ["fork-cost", *words], catch_exceptions=False)


@pytest.mark.parametrize("sizes", ["", "1", "1m", "0M", "1M,,2M", "-1M", "65G", "1.5G"])
def test_sizes_that_are_none(sizes: str) -> None:
    result = call(*KERNELS, "--sizes", sizes)
    assert result.exit_code == 2
    assert "expected sizes such as 100M or 1G" in result.output


def test_one_kernel_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(UserError, match="name another"):
        call("--kernel", "debian:6.1")


def test_a_wrong_kernel_is_said_before_anything_starts() -> None:
    with pytest.raises(UserError):
        call("--kernel", "debian:6.1", "--kernel", "debain:6.12")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Instead of guests: fork() takes 2 ms a MiB on the first kernel, 3 ms on the second."""
    asked: dict[str, Any] = {}

    def costs(specs: Sequence[str], arch: Any, **more: Any) -> Any:
        asked.update(more, arch=arch.name)
        sizes = more["sizes_mib"]
        return ["A  (1\x1b[2J)", "B"], [
            fork_cost._cost(n, [[2.0 * n, 2.0 * n], [3.0 * n, 3.0 * n]]) for n in sizes
        ]

    monkeypatch.setattr(fork_cost, "measure_fork_cost", costs)
    return asked


def test_the_table_is_the_reports(measured: dict[str, Any]) -> None:
    result = call(*KERNELS, "--arch", "aarch64", "--sizes", "1M,1G,1M")
    assert result.exit_code == 0
    assert (measured["arch"], measured["sizes_mib"], measured["rounds"]) == ("aarch64", (1, 1024), 7)
    title, first, second, head, *lines = result.output.splitlines()
    assert "aarch64" in title
    assert (first, second) == ("(1) A  (1\\x1b[2J)", "(2) B")
    assert head.split() == ["memory", "(1)", "ms", "(2)", "ms", "(2)", "/", "(1)"]
    assert [line.split()[0] for line in lines] == ["1M", "1024M"]
    assert "2048.000 (2048.000 to 2048.000)" in lines[1]
    assert lines[1].endswith("150.0 % (150.0 to 150.0)")


def test_json(measured: dict[str, Any]) -> None:
    (record,) = (json.loads(line) for line in call(*KERNELS, "--sizes", "10M", "--json").output.splitlines())
    assert (record["type"], record["mib"]) == ("fork-cost", 10)
    assert [kernel["spec"] for kernel in record["kernels"]] == ["debian:6.1", "debian:6.12"]
    assert [kernel["ratio"] for kernel in record["kernels"]] == pytest.approx([1, 1.5])
