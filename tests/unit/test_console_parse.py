"""``cowpen parse``."""

import json
from pathlib import Path

from click.testing import CliRunner

from harness.cli.parse import parse
from harness.console.detect import MAX_FINDINGS
from harness.errors import UserError

LOG = Path(__file__).parent / "data" / "wpseq-writer-6.1-x86_64.log"


def test_json_is_one_line_a_file(tmp_path) -> None:
    quiet = tmp_path / "quiet.log"
    quiet.write_text("nothing\n")
    result = CliRunner().invoke(parse, [str(LOG), str(quiet), "--json"], catch_exceptions=False)
    first, second = map(json.loads, result.output.splitlines())
    assert first["file"] == str(LOG)
    (finding,) = first["findings"]
    assert finding["title"] == "kernel BUG in copy_page_range"
    assert second == {"file": str(quiet), "findings": [], "dropped": 0}


def test_for_people(tmp_path) -> None:
    hostile = tmp_path / "h.log"
    hostile.write_bytes(b"Kernel panic - not syncing: [red]\x1b[2J\x07x\xff\n")
    result = CliRunner().invoke(parse, [str(LOG), str(hostile)], catch_exceptions=False)
    assert "BUG: kernel BUG in copy_page_range" in result.output
    assert "include/linux/mm.h" in result.output
    assert "kernel panic: [red]" in result.output
    assert "\x1b" not in result.output
    assert "\x07" not in result.output


def test_reports_that_are_not_shown_are_counted(tmp_path) -> None:
    many = tmp_path / "many.log"
    many.write_bytes(b"kernel BUG at mm/x.c:1!\n" * (MAX_FINDINGS + 3))
    result = CliRunner().invoke(parse, [str(many)], catch_exceptions=False)
    assert "and 3 more reports" in result.output
    result = CliRunner().invoke(parse, [str(many), "--json"], catch_exceptions=False)
    assert json.loads(result.output)["dropped"] == 3


def test_missing_log_is_the_users_mistake(tmp_path) -> None:
    result = CliRunner().invoke(parse, [str(tmp_path / "none")])
    assert isinstance(result.exception, UserError)
