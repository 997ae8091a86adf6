"""The names of the kernels in ``kernels/``: definitions, and mutants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.folders import data_folder

_HEADER = re.compile(r"^([A-Z][a-z-]+): *(\S.*)$")


def definition_files() -> dict[str, tuple[Path, str | None]]:
    """The file of each definition, and of a mutant which series of it."""
    folder = data_folder("kernels")
    found: dict[str, tuple[Path, str | None]] = {path.stem: (path, None) for path in folder.glob("*.toml")}
    for path in (folder / "mutants").glob("*.patch"):
        # One for no series has its own name, and `define` says what it lacks.
        for series in mutant_header(path).get("Kernels", "").split() or [""]:
            name = f"{path.stem.removesuffix(f'-{series}')}-{series}" if series else path.stem
            found[name] = (path, series)
    return found


def mutant_header(path: Path) -> Mapping[str, str]:
    """The lines ``Key: value`` with which a mutant's patch begins (`harness.kernel.definition`)."""
    found = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            match = _HEADER.match(line)
            if not match:
                break
            found[match[1]] = match[2].strip()
    return found
