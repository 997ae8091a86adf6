"""What the parser says of the golden console logs, for a person to judge before it becomes what is expected.

    python -m tests.console.expect [NAME…] [--write]

Without ``--write`` it only prints, with a mark before every log whose file says otherwise or is missing. A title is
right if syzkaller's dashboard would have it, a frame if the maintainer would look there first.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from pathlib import Path
from typing import Any

from harness.console.detect import scan_file
from harness.console.finding import Finding

GOLDEN = Path(__file__).parent / "golden"


def logs(*patterns: str) -> list[Path]:
    """The golden logs whose names match."""
    named = sorted(GOLDEN.glob("*.log"))
    return [path for path in named if any(fnmatch.fnmatch(path.stem, pattern) for pattern in patterns or "*")]


def arch_of(log: Path) -> str:
    """The architecture of the guest, which begins the log's name."""
    return log.stem.partition("-")[0]


def seen(log: Path) -> list[dict[str, Any]]:
    """What is compared of each finding."""
    return [_record(finding) for finding in scan_file(log)]


def _record(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "title": finding.title,
        "frame": finding.frame,
        "corrupted": finding.corrupted,
    }


def expected(log: Path) -> list[dict[str, Any]] | None:
    """What the file beside the log says; None if there is none."""
    path = log.with_suffix(".json")
    return json.loads(path.read_text()) if path.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="patterns; default: all")
    parser.add_argument("--write", action="store_true", help="make it what is expected")
    options = parser.parse_args()
    for log in logs(*options.names):
        findings = seen(log)
        print(f"{' ' if findings == expected(log) else '*'} {log.stem}")
        for finding in findings:
            cut = " (corrupted)" if finding["corrupted"] else ""
            print(f"      {finding['kind']}: {finding['title']}  [{finding['frame']}]{cut}")
        if options.write:
            text = "".join(
                f"  {json.dumps(finding)}{',' * (finding is not findings[-1])}\n" for finding in findings
            )
            log.with_suffix(".json").write_text(f"[\n{text}]\n" if findings else "[]\n")


if __name__ == "__main__":
    main()
