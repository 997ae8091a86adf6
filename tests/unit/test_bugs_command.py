"""``cowpen bugs``."""

import json

import pytest
from click.testing import CliRunner

from harness.cli.bugs import bugs
from harness.errors import UserError


def run(*arguments) -> str:
    return CliRunner().invoke(bugs, arguments, catch_exceptions=False).output


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_list(arguments) -> None:
    output = run(*arguments)
    assert "rhbz-471613" in output
    assert "forkscrew" in output


@pytest.mark.parametrize("arguments", [("--json",), ("list", "--json"), ("--json", "list")])
def test_list_json(arguments) -> None:
    records = [json.loads(line) for line in run(*arguments).splitlines()]
    assert "rhbz-471613" in [record["id"] for record in records]


def test_show() -> None:
    output = run("show", "rhbz-471613")
    for word in (
        "forkscrew",
        "reads 20 ms late",
        "CONFIG_AIO",
        "corruption",
        ">=6.3: clean",
        "bugzilla.redhat.com",
    ):
        assert word in output


def test_show_json() -> None:
    record = json.loads(run("show", "rhbz-471613", "--json"))
    assert record["type"] == "bug"
    assert record["programs"][0]["disk"]["read_delay_ms"] == 20


def test_show_unknown() -> None:
    result = CliRunner().invoke(bugs, ["show", "rhbz-4716"])
    assert isinstance(result.exception, UserError)
    assert "rhbz-471613" in str(result.exception)
