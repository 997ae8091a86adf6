"""Console log to findings: the first report is the cause, what follows may be its consequence.

Linear in the size of the log: lines are searched for a few words, and only lines that hold one are matched
against the table of formats. Of a line the first 4 KiB count, of a report the first 64 KiB.
"""

from __future__ import annotations

import dataclasses
import errno
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

from harness.console.display import MAX_LINE, escape
from harness.console.finding import Finding
from harness.console.formats import (
    ANY_FORMAT,
    CANDIDATE,
    CONSEQUENCE,
    FATAL_CONSEQUENCE,
    FORMATS,
    MAX_TITLE,
    QUOTING,
    Format,
    normalised,
)
from harness.console.trace import bare, clean, read_trace

MAX_REPORT = 64 * 1024
MAX_FINDINGS = 1000
"""Reports taken from one log. The cause is the first; a thousandth says nothing new."""
# arm64 prints the decoded fault and the page-table walk before the second header: 15 lines.
_SECOND_HEADER_WITHIN = 4096
_PREAMBLE_WITHIN = 8192
_PREAMBLE = re.compile(
    r"-{6,}\[ cut here|=={8,}|page:|page |flags: |raw: |head: |anon |memcg:|aops:|index:|page_type: "
    r"|page (?:last )?(?:allocated|free)"
)


@dataclasses.dataclass(frozen=True)
class _Header:
    format: Format
    match: re.Match[str]
    start: int
    end: int

    @property
    def what(self) -> str:
        return self.match.groupdict().get("what") or ""


@dataclasses.dataclass
class _Report:
    header: _Header
    floor: int
    """End of the report before: the preamble cannot reach further back."""
    second: _Header | None = None
    tail: _Header | None = None


def scan(data: bytes | mmap.mmap, arch: str | None = None) -> list[Finding]:
    """The findings of one console log, in order: the first is the cause.

    ``arch`` is the guest's, if known; otherwise it is told from the registers in each report. At most
    `MAX_FINDINGS` are returned. Never raises, whatever the bytes.
    """
    findings: list[Finding] = []
    report: _Report | None = None
    fatal_end: int | None = None
    for header in _headers(data):
        if report is not None and _follows(report, header, fatal_end):
            continue
        floor = 0
        if report is not None:
            findings.append(_finding(data, report, header.start, arch))
            floor = max(findings[-1].end, report.header.end)
            if len(findings) == MAX_FINDINGS:
                return findings
        report = _Report(header, floor)
        if header.format.fatal:
            fatal_end = header.end
    if report is not None:
        findings.append(_finding(data, report, len(data), arch))
    return findings


def scan_file(path: Path, arch: str | None = None) -> list[Finding]:
    """`scan` of a file, mapped, not read into memory.

    `OSError` if it cannot be read or is no regular file: to an attempt that is host trouble, to the user of
    ``cowpen parse`` a wrong argument.
    """
    if path.exists() and not path.is_file():  # a pipe would block, a device may never end
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return []  # cannot be mapped
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return scan(data, arch)


def _headers(data: bytes | mmap.mmap) -> Iterator[_Header]:
    """Every line that is in the table of formats; a line is looked at once."""
    position = 0
    while candidate := CANDIDATE.search(data, position):
        at = candidate.start()
        # position is the start of a line, and nothing between it and the candidate is of interest.
        before = data.rfind(b"\n", max(position, at - MAX_LINE), at)
        start = before + 1 if before >= 0 else position
        newline = data.find(b"\n", candidate.end())
        end = newline if newline >= 0 else len(data)
        # Beyond the first 4 KiB of a line nothing counts.
        if at - start < MAX_LINE:
            raw = bytes(data[start : min(end, start + MAX_LINE)])
            if QUOTING not in raw and (found := _format(clean(raw))):
                yield _Header(*found, start, end)
        position = end + 1


def _format(line: str) -> tuple[Format, re.Match[str]] | None:
    if not ANY_FORMAT.match(line):
        return None
    for row in FORMATS:
        if match := row.pattern.match(line):
            return row, match
    return None


def _follows(report: _Report, header: _Header, fatal_end: int | None) -> bool:
    """Whether ``header`` only continues what has been reported already."""
    known = report.header
    if header.format.die and known.format.dies and report.second is None:
        if header.start - known.end <= _SECOND_HEADER_WITHIN:
            report.second = header
            return True
        return False
    if header.format.kind == "panic":
        caused = CONSEQUENCE.match(header.what) is not None or (
            fatal_end is not None
            and header.start - fatal_end <= MAX_REPORT
            and FATAL_CONSEQUENCE.match(header.what) is not None
        )
        if caused:
            report.tail = report.tail or header
        return caused
    return False


def _finding(data: bytes | mmap.mmap, report: _Report, limit: int, arch: str | None) -> Finding:
    header = report.header
    row = header.format
    body_end = report.tail.start if report.tail else limit
    trace = read_trace(bytes(data[header.start : min(body_end, header.start + MAX_REPORT)]))
    named = header.match.groupdict()
    frame = bare(named["frame"]) if named.get("frame") else trace.guilty(at_lock=row.at_lock)
    file = _source_file(named.get("file"))
    start = _preamble(data, header.start, report.floor)
    end = max(header.start + trace.length, report.second.end if report.second else 0)
    end = max(end, report.tail.end) if report.tail else end
    values = {
        "what": normalised(header.what),
        "access": f" {trace.access}" if trace.access else "",
        "place": frame or file or "",
    }
    return Finding(
        kind=row.kind,
        title=_title(row.title, values),
        alt_titles=tuple(_title(title, values) for title in row.alt if frame),
        frame=frame,
        frames=trace.frames or ((frame,) if frame else ()),
        file=file,
        arch=arch or trace.arch,
        corrupted="{place}" in row.title and frame is None,
        start=start,
        end=end,
        text=escape(bytes(data[start : min(end, start + MAX_REPORT)]).rstrip(b"\r")),
    )


def _title(template: str, values: dict[str, str]) -> str:
    if not values["place"]:
        template = template.replace(" in {place}", "")
    return escape(template.format_map(values).strip(" :").replace("\n", " "))[:MAX_TITLE]


def _source_file(file: str | None) -> str | None:
    """The file as in the kernel's tree: builds outside the tree print ``../`` or ``./`` before it."""
    if file is None:
        return None
    while file.startswith(("./", "../")):
        file = file.split("/", 1)[1]
    return file or None


def _preamble(data: bytes | mmap.mmap, header_start: int, floor: int) -> int:
    """Where the report really starts: at the ruler, or at the dump of the page it is about."""
    begin = max(floor, header_start - _PREAMBLE_WITHIN)
    start = header_start
    while start > begin:
        before = data.rfind(b"\n", begin, start - 1)
        line_start = before + 1 if before >= 0 else begin
        if before < 0 and begin > 0 and data[begin - 1 : begin] != b"\n":
            break  # only part of that line is in the window
        if not _PREAMBLE.match(clean(bytes(data[line_start : start - 1]))):
            break
        start = line_start
    return start
