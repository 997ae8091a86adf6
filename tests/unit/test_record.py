"""Corruption records: what a guest writes, trusted or not."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cheader
from harness.folders import data_folder
from harness.program.record import _GUESSES, corruption_title, parse_records

FFI = cheader.load(data_folder("guest-programs") / "common" / "record.h")
SIZE = FFI.sizeof("struct cowpen_record")
MAGIC = int(FFI.dlopen(None).COWPEN_RECORD_MAGIC)


def raw(**fields: Any) -> bytes:
    values: dict[str, Any] = {
        "magic": MAGIC,
        "size": SIZE,
        "guess": 1,
        "program": b"forkscrew",
        "offset": 3584,
        "length": 512,
        "page_size": 4096,
        "shown": 16,
        "found": b"\x2a" * 16,
    }
    record = FFI.new("struct cowpen_record *", values | fields)
    return bytes(FFI.buffer(record))


def test_the_magic_reads_as_text() -> None:
    assert raw().startswith(b"COWPENR1")


def test_every_guess_of_the_header_has_its_word() -> None:
    assert set(FFI.typeof("enum cowpen_guess").elements) == set(_GUESSES)


def test_a_record_comes_through_whole() -> None:
    (record,) = records = parse_records(
        raw(worker=3, iteration=9, address=0x7F0000001000, offset_in_page=0x1F0)
    )
    assert records.garbage == records.dropped == 0
    assert (record.program, record.worker, record.iteration) == ("forkscrew", 3, 9)
    assert (record.address, record.offset_in_page, record.length) == (0x7F0000001000, 0x1F0, 512)
    assert record.describe().splitlines() == [
        "forkscrew: worker 3 failed check in iteration 9",
        "3584 - 4095: 42 instead of 0 (stale bytes, 512 in a row)",
        "at 0x7f0000001000, 0x1f0 in its page of 4096 bytes",
        "expected " + " ".join(["00"] * 16),
        "found    " + " ".join(["2a"] * 16),
    ]


@pytest.mark.parametrize(
    ("guess", "word"),
    [(0, "wrong bytes"), (1, "stale bytes"), (2, "zeros"), (3, "another page's bytes"), (99, "wrong bytes")],
)
def test_the_title_is_stable_and_says_what_was_found(guess: int, word: str) -> None:
    (record,) = parse_records(raw(guess=guess, worker=guess, address=guess))
    title = corruption_title(record, "O_DIRECT read buffer")
    assert title == f"data corruption: {word} in O_DIRECT read buffer (forkscrew)"


def test_garbage_is_counted_and_skipped() -> None:
    whole = raw()
    cut = whole[:60]
    records = parse_records(b"noise" + whole + cut + whole + b"COWPENR1" + whole + cut)
    assert len(records) == 3
    assert records.garbage == 5 + 60 + 8 + 60


@pytest.mark.parametrize("fields", [{"size": 0}, {"size": SIZE + 8}, {"shown": 17}, {"shown": 2**32 - 1}])
def test_a_record_with_impossible_sizes_is_garbage(fields: dict[str, int]) -> None:
    records = parse_records(raw(**fields) + raw())
    assert len(records) == 1
    assert records.garbage == SIZE


def test_the_limit_holds_and_what_is_beyond_it_is_counted() -> None:
    records = parse_records(raw() * 25, limit=10)
    assert (len(records), records.dropped, records.garbage) == (10, 15, 0)


def test_a_hostile_name_is_made_harmless() -> None:
    (record,) = parse_records(raw(program=b"\x1b[2J<b>../\xff\n"))
    assert record.program == "__2J_b_..___"
    (record,) = parse_records(raw(program=b""))
    assert record.program == "unnamed"
    (record,) = parse_records(raw(program=b"x" * 32))  # no NUL at all
    assert record.program == "x" * 32


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.builds(lambda n: raw()[:n], st.integers(0, SIZE)),
            st.builds(
                raw,
                size=st.integers(0, 2**32 - 1),
                shown=st.integers(0, 2**32 - 1),
                guess=st.integers(0, 2**32 - 1),
                length=st.integers(0, 2**64 - 1),
                offset=st.integers(0, 2**64 - 1),
                program=st.binary(max_size=32),
            ),
        ),
        max_size=8,
    )
)
def test_whatever_a_guest_writes_every_byte_is_accounted_for(parts: list[bytes]) -> None:
    data = b"".join(parts)
    records = parse_records(data, limit=3)
    assert len(records) <= 3
    assert (len(records) + records.dropped) * SIZE + records.garbage == len(data)
    for record in records:
        assert all(line.isprintable() for line in record.describe().splitlines())


def test_time_is_linear_in_hostile_input() -> None:
    started = time.monotonic()
    records = parse_records(b"COWPENR1" * 100_000)
    assert records.garbage == 800_000
    assert time.monotonic() - started < 10
