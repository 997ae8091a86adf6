"""Console log to findings: the first report is the cause, what follows may be its consequence.

Linear in the size of the log: lines are searched for a few words, and only lines that hold one are matched
against the table of formats. Of a line the first 4 KiB count, of a report the first 128 KiB.
"""

from __future__ import annotations

import dataclasses
import errno
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.console.display import MAX_LINE, escape
from harness.console.finding import Finding, Task
from harness.console.format import MAX_TITLE, Format, normalised
from harness.console.formats import CANDIDATE, CONSEQUENCES, FATAL_CONSEQUENCE, QUOTED, find_format
from harness.console.line import STAMPED, Line, clean
from harness.console.log import mapped
from harness.console.parts import PREAMBLE
from harness.console.report import Reader, Report, bare
from harness.console.skip import skipped

MAX_REPORT = 128 * 1024
MAX_FINDINGS = 1000
"""Reports taken from one log. The cause is the first; a thousandth says nothing new."""
# arm64 prints the decoded fault and the page-table walk before the second header: 15 lines.
_SECOND_HEADER_WITHIN = 4096
# Of reports that have begun at the same time on several CPUs.
_AT_ONCE = 4
_AT_ONCE_LIMIT = 64
_PREAMBLE_WITHIN = 8192
_OFFSET = re.compile(rb"Kernel Offset: (?:0x([0-9a-f]{1,16})|disabled)")


class Findings(list[Finding]):
    """The findings of one log, in order."""

    dropped: int = 0
    """Reports beyond the first `MAX_FINDINGS`: counted, but not kept."""


class _Header(NamedTuple):
    format: Format
    match: re.Match[str]
    line: Line
    start: int
    end: int

    @property
    def what(self) -> str:
        return self.match.groupdict().get("what") or ""

    def beside(self, other: _Header) -> bool:
        """Whether both are, as far as the log tells, printed by the same task or CPU."""
        mine, others = self.line, other.line
        return mine.user == others.user and (
            None in (mine.caller, others.caller) or mine.caller == others.caller
        )


@dataclasses.dataclass
class _Begun:
    """A report of which so far only headers are known."""

    header: _Header
    floor: int
    """Where the report before began or ended: the preamble cannot reach further back."""
    second: _Header | None = None
    tail: _Header | None = None
    lead: _Header | None = None


def scan(data: bytes | mmap.mmap, arch: str | None = None) -> Findings:
    """The findings of one console log, in order of their headers: the first is the cause.

    ``arch`` is the guest's, if known; otherwise it is told from the registers in each report. At most
    `MAX_FINDINGS` are returned, and how many more there are. Never raises, whatever the bytes.
    """
    reports: list[_Begun] = []
    findings = Findings()
    fatal: _Header | None = None
    latest: _Header | None = None
    for header in _headers(data):
        if reports and _belongs(reports, header, fatal, latest or header):
            continue
        fatal = header if header.format.fatal else fatal
        latest = header
        if reports and _led(reports[-1], header):
            continue
        if len(reports) == MAX_FINDINGS:
            findings.dropped += 1
            continue
        reports.append(_Begun(header, reports[-1].header.end if reports else 0))
    offsets = _offsets(data) if reports else []
    end = 0
    for number, report in enumerate(reports):
        report.floor = max(report.floor, end)
        limit = _limit(reports, number)
        offset = next((offset for at, offset in offsets if at >= report.header.start), None)
        findings.append(_finding(data, report, limit, arch, offset))
        # An interleaved report does not end before the next begins.
        overlaps = number + 1 < len(reports) and findings[-1].end > reports[number + 1].header.start
        end = 0 if overlaps else findings[-1].end
    return findings


def scan_file(path: Path, arch: str | None = None) -> Findings:
    """`scan` of a file, mapped, not read into memory.

    `OSError` if it cannot be read or is no regular file: to an attempt that is host trouble, to the user of
    ``cowpen parse`` a wrong argument.
    """
    if path.exists() and not path.is_file():  # a pipe would block, a device may never end
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with mapped(path) as data:
        return scan(data, arch)


def _headers(data: bytes | mmap.mmap) -> Iterator[_Header]:
    """Every line that is in the table of formats; a line is looked at once."""
    position = 0
    stamped: bool | None = None
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
            line = clean(raw)
            if (found := find_format(line.text)) and not QUOTED.search(raw):
                if not line.stamped and stamped is None:
                    stamped = STAMPED.search(data) is not None
                # Among stamped lines one without a stamp is a program's.
                if line.stamped or not stamped:
                    yield _Header(*found, line, start, end)
        position = end + 1


def _belongs(reports: list[_Begun], header: _Header, fatal: _Header | None, latest: _Header) -> bool:
    """Whether ``header`` only continues what has been reported already."""
    last = reports[-1]
    if header.format.die:
        for report in reports[-_AT_ONCE:]:
            near = header.start - report.header.end <= _SECOND_HEADER_WITHIN
            if near and report.header.format.dies and report.second is None and header.beside(report.header):
                report.second = header
                return True
        return False
    if header.format.leads and not last.header.format.leads:
        # The dump of a page inside the report that is about it.
        return last.header.format.traced and header.start - last.header.end <= _SECOND_HEADER_WITHIN
    if header.format.kind == "panic":
        caused = _caused(header, fatal, latest)
        if caused and last.tail is None:
            last.tail = header
        return caused
    follows = header.format.follows
    return (
        bool(follows) and last.header.format.kind in follows and header.start - last.header.end <= MAX_REPORT
    )


def _caused(panic: _Header, fatal: _Header | None, latest: _Header) -> bool:
    """Whether a panic is the consequence of a report shortly before it."""
    words = panic.what or panic.line.text.partition("syncing: ")[2]
    distance = panic.start - latest.end
    if any(
        words_of.match(words) and distance <= within and (not kinds or latest.format.kind in kinds)
        for words_of, kinds, within in CONSEQUENCES
    ):
        return True
    return (
        fatal is not None
        and panic.start - fatal.end <= MAX_REPORT
        and FATAL_CONSEQUENCE.match(words) is not None
    )


def _led(report: _Begun, header: _Header) -> bool:
    """Make ``header`` the one of a report that has only led to it."""
    known = report.header
    if not known.format.leads or header.start - known.end > _SECOND_HEADER_WITHIN or not header.beside(known):
        return False
    report.lead, report.header = known, header
    return True


def _limit(reports: list[_Begun], number: int) -> int | None:
    """Where the next report by the same task or CPU begins, if that is among the next ones."""
    known = reports[number].header
    later = (report.header for report in reports[number + 1 : number + 1 + _AT_ONCE_LIMIT])
    return next((header.start for header in later if header.beside(known)), None)


def _offsets(data: bytes | mmap.mmap) -> list[tuple[int, int]]:
    """Where the log says how far KASLR moved the kernel, and how far; of a log of many boots the first ones."""
    found: list[tuple[int, int]] = []
    for match in _OFFSET.finditer(data):
        found.append((match.start(), int(match[1], 16) if match[1] else 0))
        if len(found) == MAX_FINDINGS:
            break
    return found


def _finding(
    data: bytes | mmap.mmap, begun: _Begun, limit: int | None, arch: str | None, offset: int | None
) -> Finding:
    header, row = begun.header, begun.header.format
    named = header.match.groupdict()
    end = min(len(data) if limit is None else limit, header.start + MAX_REPORT)
    tail = begun.tail.start - header.start if begun.tail and begun.tail.start < end else None
    body = bytes(data[header.start : end])
    whole = end == header.start + MAX_REPORT
    start = _preamble(data, begun.lead.start if begun.lead else header.start, begun.floor)
    reader = Reader(row, header.line)
    report = reader.read(body, tail=tail, whole=whole)
    reader.read_before(bytes(data[start : header.start]))
    frame = _place(named, report, row)
    broken = report.broken or header.line.merged
    if frame is None and (frame := report.guess(row)):
        broken |= not report.ended
    file = _source_file(named.get("file") or report.file)
    values = {
        "what": normalised(header.what),
        "access": f" {report.access}" if report.access else "",
        "other": f" / {bare(named['other'])}" if named.get("other") else "",
        "place": frame or file or "",
    }
    title = _title(row.title, values)
    length = max(report.length, (begun.second.end if begun.second else 0) - header.start)
    stop = max(header.start + length, begun.tail.end if begun.tail and tail is not None else 0)
    return Finding(
        kind=row.kind,
        title=title,
        header=escape(header.line.text),
        alt_titles=tuple(alt for alt in (_title(alt, values) for alt in row.alt if frame) if alt != title),
        frame=frame,
        frames=tuple(report.main.frames),
        file=file,
        line=int(named["line"]) if named.get("line") else report.line,
        arch=arch or report.arch,
        task=_task(named, report),
        cpu=int(named["cpu"]) if named.get("cpu") else report.cpu,
        taint=report.taint,
        registers=report.registers,
        code=report.code,
        kernel_offset=offset,
        corrupted=broken or (frame is None and not report.ended and ("{place}" in row.title or row.traced)),
        user_written=header.line.user,
        start=start,
        end=stop,
        text=escape(bytes(data[start : min(stop, start + MAX_REPORT)]).rstrip(b"\r")),
    )


def _place(named: dict[str, str | None], report: Report, row: Format) -> str | None:
    """The guilty function: the header's, if that is not machinery."""
    printed = named.get("frame")
    if printed and not skipped(bare(printed), row.skip):
        return bare(printed)
    return report.guilty(row)


def _task(named: dict[str, str | None], report: Report) -> Task | None:
    comm, pid = named.get("comm"), named.get("pid")
    if comm and pid:
        return Task(comm=escape(comm), pid=int(pid))
    return report.task


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
    begin = max(min(floor, header_start), header_start - _PREAMBLE_WITHIN)
    start = position = header_start
    while position > begin:
        before = data.rfind(b"\n", begin, position - 1)
        line_start = before + 1 if before >= 0 else begin
        if before < 0 and begin > 0 and data[begin - 1 : begin] != b"\n":
            break  # only part of that line is in the window
        text = clean(bytes(data[line_start : position - 1])).text
        if not PREAMBLE.match(text):
            break
        position = line_start
        if text.strip():  # blank lines only between others
            start = position
    return start
