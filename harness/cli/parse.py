"""``cowpen parse``: the findings of console logs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.console.detect import scan_file
from harness.console.display import escape
from harness.console.finding import Finding
from harness.console.trace import trace_lines
from harness.errors import HostError, ToolMissingError, UserError

_FRAMES = 12
"""Of a trace with lines; a trace without is shown on one line, and shorter."""
_CALLS = 5
_INSTRUCTIONS_BEFORE, _INSTRUCTIONS_AFTER = 4, 2
_MAX_CODES = 20
"""Different ``Code:`` lines of one run that are disassembled: each takes objdump 10 ms."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--vmlinux", type=_FILE, metavar="FILE", help="The kernel with symbols: gives frames lines.")
@click.option(
    "--modules",
    type=_FOLDER,
    metavar="DIR",
    help="Where the kernel's modules are, with debug information. [default: beside vmlinux]",
)
@click.option(
    "--system-map",
    type=_FILE,
    metavar="FILE",
    help="Without a vmlinux: gives names to the addresses that a kernel without KALLSYMS prints.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each log.")
def parse(
    logs: tuple[Path, ...], vmlinux: Path | None, modules: Path | None, system_map: Path | None, as_json: bool
) -> None:
    """Print the findings of console logs, in order: the first is the cause."""
    from harness.console.symbols import Symbols, boots_of  # noqa: PLC0415

    symbols = Symbols(vmlinux=vmlinux, modules=modules, system_map=system_map, tell=_tell)
    wanted = bool(vmlinux or modules or system_map)
    disassembler = _Disassembler()
    for log in logs:
        try:
            found = scan_file(log)
            findings: list[Finding] = found
            if wanted:
                findings = symbols.symbolise_all(findings, boots_of(log))
        except OSError as error:
            raise UserError(f"{escape(str(log))}: {error.strerror}", mend="give a console log") from error
        if as_json:
            records = [
                {**finding.to_json(), "disassembly": disassembler.lines(finding)} for finding in findings
            ]
            click.echo(json.dumps({"file": str(log), "findings": records, "dropped": found.dropped}))
        else:
            click.echo("\n".join(_describe(log, findings, disassembler)))
            if found.dropped:
                click.echo(f"  and {found.dropped} more reports, which are not shown")


def _tell(message: str) -> None:
    click.echo(f"cowpen: {escape(message)}", err=True)


class _Disassembler:
    """Disassembles what is new, up to a number; says once what keeps it from doing so."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], list[str]] = {}
        self._hindered: set[str] = set()

    def lines(self, finding: Finding) -> list[str] | None:
        """The instructions of ``Code:``, none if it has none; None if they were not disassembled."""
        from harness.arch import ARCHES  # noqa: PLC0415
        from harness.console.disassembly import disassemble  # noqa: PLC0415

        if not finding.code or finding.arch not in ARCHES:
            return []
        key = (finding.arch, finding.code, finding.frames[:1])
        try:
            if key not in self._known and len(self._known) < _MAX_CODES:
                self._known[key] = disassemble(finding, ARCHES[finding.arch])
        except ToolMissingError as error:
            self._tell_once(f"Code: lines are not disassembled: {error}")
        except HostError as error:
            self._tell_once(f"a Code: line was not disassembled: {error}")
        else:
            if key not in self._known:
                self._tell_once(f"of more than {_MAX_CODES} different Code: lines the first are disassembled")
        return self._known.get(key)

    def _tell_once(self, why: str) -> None:
        if why not in self._hindered:
            self._hindered.add(why)
            _tell(why)


def _describe(log: Path, findings: list[Finding], disassembler: _Disassembler) -> list[str]:
    # click.echo prints as it is: no markup of rich, and findings are escaped already.
    lines = [f"{escape(str(log))}: {f'{len(findings)} found' if findings else 'no findings'}"]
    for finding in findings:
        lines.append(
            f"  {finding.kind}: {finding.title}{' (report is incomplete)' if finding.corrupted else ''}"
        )
        place = [f"{finding.file}:{finding.line}" if finding.line else finding.file] if finding.file else []
        with_lines = any(frame.source for frame in finding.frames)
        calls = " < ".join(frame.function for frame in finding.frames[:_CALLS])
        traced = [calls] if calls and not with_lines else []
        lines.append(f"    {', '.join([*place, f'bytes {finding.start} to {finding.end}', *traced])}")
        if with_lines:
            lines += (f"      {text}" for text in trace_lines(finding, _FRAMES))
        lines += (f"      {text}" for text in _around_the_counter(disassembler.lines(finding) or []))
    return lines


def _around_the_counter(instructions: list[str]) -> list[str]:
    """The instruction at the program counter and its neighbours."""
    at = next(
        (n for n, text in enumerate(instructions) if text.lstrip().partition(" ")[0].endswith(":*")), None
    )
    if at is None:
        return []
    return instructions[max(0, at - _INSTRUCTIONS_BEFORE) : at + _INSTRUCTIONS_AFTER + 1]
