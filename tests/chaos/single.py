"""One attempt of one of the programs in programs/, by the real command, and all that is kept of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from trouble import Ended, cowpen

SOURCES = Path(__file__).parent / "programs"
MEMORY_KIB = 300 << 10
"""What cowpen itself may use, whatever a guest does."""


@dataclasses.dataclass(frozen=True)
class Single:
    """An attempt that was the only one of its trial."""

    record: dict[str, Any]
    """Its ``--json`` record."""
    ended: Ended

    @property
    def outcome(self) -> str:
        return str(self.record["outcome"])

    @property
    def reason(self) -> str:
        return str(self.record["reason"])

    @property
    def titles(self) -> list[str]:
        return [finding["title"] for finding in self.record["findings"]]

    @property
    def folder(self) -> Path:
        return Path(self.record["kept"])

    @property
    def console(self) -> bytes:
        return (self.folder / "console.log").read_bytes()

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}; {self.titles}; {self.ended.err}"


def program(name: str, folder: Path, **defines: int | str) -> Path:
    """A program of ours as a file in ``folder`` that stands alone, with these macros."""
    lines = [f"#define {key} {value}" for key, value in defines.items()]
    path = folder / f"{name}.c"
    text = (SOURCES / path.name).read_text(encoding="utf-8")
    path.write_text("\n".join([*lines, text]), encoding="utf-8")
    return path


def run(file: Path, folder: Path, *more: str, attempts: int = 1, within: float = 300) -> list[Single]:
    """The attempts of one ``cowpen run --program FILE``, which ends in time, in bounds, and leaves nothing behind."""
    words = (
        "run",
        "--program",
        file,
        "--attempts",
        str(attempts),
        "--json",
        "--keep",
        folder / "keep",
        *more,
    )
    ended = cowpen(*words, folder=folder, seconds=within)
    assert ended.peak_kib < MEMORY_KIB
    return [Single(record, ended) for record in ended.records("attempt")]


def run_once(file: Path, folder: Path, *more: str, within: float = 300) -> Single:
    """The only attempt of `run`; an exit code of cowpen that contradicts it fails."""
    (single,) = run(file, folder, *more, within=within)
    codes = {"clean": 0, "reproduced": 1}
    assert single.ended.code == codes.get(single.outcome, 125), single
    return single
