"""Corruption records: the binary reports of programs, read through the header the programs are compiled with."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from harness import cheader
from harness.folders import data_folder

# Word of a title by the program's guess (enum cowpen_guess), and the same for people.
_GUESSES: dict[int, str] = {
    0: "wrong bytes",
    1: "stale bytes",
    2: "zeros",
    3: "another page's bytes",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionRecord:
    """One run of wrong bytes a program found. Sizes, offsets and addresses in bytes."""

    program: str
    worker: int
    iteration: int
    offset: int
    """Of the first wrong byte, in the worker's range."""
    address: int
    """Virtual address of the first wrong byte."""
    offset_in_page: int
    length: int
    """Wrong bytes in a row."""
    page_size: int
    expected: bytes
    """The first bytes that should have been there, at most 16."""
    found: bytes
    """The bytes that were there, as many."""
    guess: str
    """What the wrong bytes are: "stale bytes", "zeros", "another page's bytes" or "wrong bytes"."""

    def describe(self) -> str:
        """A few lines for people, in the manner of forkscrew: ``FIRST - LAST: VALUE``."""
        last = self.offset + max(self.length, 1) - 1
        return "\n".join(
            [
                f"{self.program}: worker {self.worker} failed check in iteration {self.iteration}",
                f"{self.offset} - {last}: {_value(self.found)} instead of {_value(self.expected)}"
                f" ({self.guess}, {self.length} in a row)",
                f"at {self.address:#x}, {self.offset_in_page:#x} in its page of {self.page_size} bytes",
                f"expected {self.expected.hex(' ')}",
                f"found    {self.found.hex(' ')}",
            ]
        )


def _value(shown: bytes) -> str:
    """One number where all bytes are equal, as they mostly are."""
    return str(shown[0]) if len(set(shown)) == 1 else "various bytes"


class Records(list[CorruptionRecord]):
    """The records of one attempt, and what was lost on the way to them."""

    garbage = 0
    """Bytes that belong to no record."""
    dropped = 0
    """Sound records beyond the limit."""


def parse_records(data: bytes, limit: int = 1000) -> Records:
    """Every sound record in ``data``, at most ``limit``; never raises, whatever a guest wrote.

    The parser finds its way back by the magic number after garbage or half a record; time is linear.
    """
    header = data_folder("guest-programs") / "common" / "record.h"
    ffi, constants = cheader.load(header), cheader.constants(header)
    magic = int(constants.COWPEN_RECORD_MAGIC).to_bytes(8, "little")
    size = ffi.sizeof("struct cowpen_record")
    records = Records()
    position = 0
    while (start := data.find(magic, position)) >= 0:
        records.garbage += start - position
        raw = ffi.new("struct cowpen_record *")
        whole = start + size <= len(data)
        if whole:
            ffi.memmove(raw, data[start : start + size], size)
        if not whole or raw.size != size or raw.shown > constants.COWPEN_RECORD_SHOWN:
            records.garbage += len(magic)
            position = start + len(magic)
            continue
        position = start + size
        if len(records) < limit:
            records.append(_record(ffi, raw))
        else:
            records.dropped += 1
    records.garbage += len(data) - position
    return records


def _record(ffi: Any, raw: Any) -> CorruptionRecord:  # cffi has no types of its own
    # The guest is not trusted: a name goes into titles and file names, so only plain characters stay.
    name = bytes(ffi.buffer(raw.program)).partition(b"\0")[0].decode("ascii", "replace")
    shown = int(raw.shown)
    return CorruptionRecord(
        program=_UNSAFE.sub("_", name) or "unnamed",
        worker=int(raw.worker),
        iteration=int(raw.iteration),
        offset=int(raw.offset),
        address=int(raw.address),
        offset_in_page=int(raw.offset_in_page),
        length=int(raw.length),
        page_size=int(raw.page_size),
        expected=bytes(raw.expected)[:shown],
        found=bytes(raw.found)[:shown],
        guess=_GUESSES.get(int(raw.guess), _GUESSES[0]),
    )


def corruption_title(record: CorruptionRecord, access_path: str) -> str:
    """The finding's title, stable across runs, addresses, kernels and architectures.

    >>> corruption_title(record, "O_DIRECT read buffer")  # doctest: +SKIP
    'data corruption: stale bytes in O_DIRECT read buffer (forkscrew)'
    """
    return f"data corruption: {record.guess} in {access_path} ({record.program})"
