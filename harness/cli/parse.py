"""``cowpen parse``: the findings of console logs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.console.detect import scan_file
from harness.console.display import escape
from harness.console.finding import Finding
from harness.errors import UserError


@click.command()
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each log.")
def parse(logs: tuple[Path, ...], as_json: bool) -> None:
    """Print the findings of console logs, in order: the first is the cause."""
    for log in logs:
        try:
            findings = scan_file(log)
        except OSError as error:
            raise UserError(f"{escape(str(log))}: {error.strerror}", mend="give a console log") from error
        if as_json:
            record = {"file": str(log), "findings": [finding.to_json() for finding in findings]}
            click.echo(json.dumps(record))
        else:
            click.echo("\n".join(_describe(log, findings)))


def _describe(log: Path, findings: list[Finding]) -> list[str]:
    # click.echo prints as it is: no markup of rich, and findings are escaped already.
    lines = [f"{escape(str(log))}: {f'{len(findings)} found' if findings else 'no findings'}"]
    for finding in findings:
        lines.append(
            f"  {finding.kind}: {finding.title}{' (report is incomplete)' if finding.corrupted else ''}"
        )
        place = [finding.file] if finding.file else []
        calls = [" < ".join(finding.frames[:5])] if finding.frames else []
        lines.append(f"    {', '.join([*place, f'bytes {finding.start} to {finding.end}', *calls])}")
    return lines
