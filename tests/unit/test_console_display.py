"""Guest text made safe to show."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.console.display import MAX_LINE, escape, last_lines


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain [bold]\ttext\n", "plain [bold]\ttext\n"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\r\nb\rc", "a\nb\\x0dc"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202etxt\u2066", "\\u202etxt\\u2066"),
        ("\ud800", "\\ud800"),
        ("\U00013430", "\\U00013430"),
        ("Größe 漢字", "Größe 漢字"),
        (b"\xff\xfe\x1b", "\\xff\\xfe\\x1b"),
    ],
)
def test_escape(raw, shown) -> None:
    assert escape(raw) == shown


def test_no_character_at_all_steers_the_terminal() -> None:
    shown = escape("".join(map(chr, range(0x110000))))
    driving = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert {char for char in set(shown) if unicodedata.category(char) in driving} == {"\t", "\n"}


@given(st.one_of(st.text(), st.binary()))
def test_nothing_steers_the_terminal(raw) -> None:
    shown = escape(raw)
    assert all(
        character in "\t\n" or unicodedata.category(character) not in ("Cc", "Cs") for character in shown
    )
    shown.encode("utf-8")


def test_last_lines() -> None:
    log = b"one\r\ntwo\n\n\x1b[2Jthree\n\0\0\n"
    assert last_lines(log, 2) == ["two", "\\x1b[2Jthree"]
    assert last_lines(log, 9) == ["one", "two", "\\x1b[2Jthree"]
    assert last_lines(log, 0) == []
    assert last_lines(b"", 3) == []


def test_last_line_without_end() -> None:
    (line,) = last_lines(b"x" * 100_000, 1)
    assert len(line) <= MAX_LINE + 1


@given(st.binary(max_size=500), st.integers(-1, 5))
def test_last_lines_of_anything(data, count) -> None:
    lines = last_lines(data, count)
    assert len(lines) <= max(0, count)
    assert not any("\n" in line or "\x1b" in line for line in lines)
