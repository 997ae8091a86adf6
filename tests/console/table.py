"""The table of docs/console.md: which reports of real kernels the parser is held to.

python -m tests.console.table [--write docs/console.md]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from bench.report import insert
from tests.console import expect

NAME = "golden"


def table() -> str:
    """Markdown: title of a log's first finding, its kind, and the logs by architecture."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    logs = expect.logs()
    reports = 0
    for log in logs:
        findings = expect.expected(log) or []
        reports += len(findings)
        if not findings:
            continue
        arch, _, rest = log.stem.partition("-")
        mark = " (cut or mangled)" if findings[0]["corrupted"] else ""
        rows[findings[0]["kind"], findings[0]["title"]][arch].append(rest + mark)
    both = sum(len(arches) == 2 for arches in rows.values())
    lines = [
        f"{len(logs)} logs, {reports} reports, {len(rows)} different titles of a first report,"
        f" {both} of them from both architectures.",
        "",
        "| kind | title of the log's first report | x86_64 | aarch64 |",
        "|---|---|---|---|",
    ]
    for (kind, title), arches in sorted(rows.items()):
        cells = [", ".join(arches[arch]) for arch in ("x86_64", "aarch64")]
        lines.append(f"| {kind} | `{title}` | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or put it into a document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path)
    document = parser.parse_args().write
    if document is None:
        print(table())
    else:
        text = document.read_text(encoding="utf-8")
        document.write_text(insert(text, NAME, table()), encoding="utf-8")


if __name__ == "__main__":
    main()
