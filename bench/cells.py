"""Which programs of which bugs are tried on which kernels, and how often: what `bench.rates` measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from harness.arch import ARCHES
from harness.bug import BugProgram, list_bugs
from harness.kernel.definition import Definition, define
from harness.kernel.names import definition_files


@dataclasses.dataclass(frozen=True)
class Cell:
    """A trial: a program with settings on a kernel, for one architecture or each."""

    program: str
    """``BUG/PROGRAM[:VARIANT]``, or the path of a program of its own (``--program``)."""
    kernel: str
    attempts: int
    settings: tuple[str, ...] = ()
    arches: tuple[str, ...] = tuple(ARCHES)

    @property
    def command(self) -> list[str]:
        """The words after ``cowpen run``, but for the architecture and the attempts."""
        own = ["--program"] if Path(self.program).is_absolute() else []
        sets = [word for setting in self.settings for word in ("--set", setting)]
        return [*own, self.program, "--kernel", self.kernel, *sets]


@dataclasses.dataclass(frozen=True)
class Column:
    """A kernel, and how often the programs are tried on it."""

    kernel: str
    attempts: int
    variants: int = 0
    """Attempts of each variant; 0: variants are not tried."""
    arches: tuple[str, ...] = tuple(ARCHES)
    bug: str | None = None
    """Only programs of this bug."""

    def cells(self) -> Iterator[Cell]:
        for bug in list_bugs():
            if self.bug not in (None, bug.id):
                continue
            for program in bug.programs:
                name = f"{bug.id}/{program.name}"
                yield self._cell(name, program, self.attempts)
                for variant in program.variants if self.variants else ():
                    yield self._cell(f"{name}:{variant.name}", program.variant(variant.name), self.variants)

    def _cell(self, name: str, program: BugProgram, attempts: int) -> Cell:
        return Cell(name, self.kernel, ATTEMPTS.get((name, self.kernel), attempts), arches=self.arches)


# A hundred clean attempts exclude what shows at 3 % (p < 0.05), twenty at 14 %, five at 45 %.
STOCK = (
    Column("debian:6.1", 20, variants=10),
    Column("debian:6.12", 100, variants=20),
    Column("debian:6.12-16k", 20, variants=5, arches=("aarch64",)),
)
ASSERTING = (Column("debug-vm-6.1", 10), Column("debug-vm-6.12", 10))
"""With the memory management's own assertions."""
ASYNC_FORK = (
    Column("async-fork", 20, bug="anck-26936"),
    Column("async-fork-silent", 20, bug="anck-26936"),
    Column("async-fork-fixed", 100),
)
_MUTANT_ATTEMPTS = 5

# What the README promises of the main job.
ATTEMPTS = {
    ("rhbz-471613/forkscrew", "debian:6.1"): 100,
    ("rhbz-471613/forkscrew", "debian:6.12"): 200,
    ("anck-26936/cow_writers", "async-fork-fixed"): 200,
}


def mutants() -> list[Definition]:
    """All mutants, by name."""
    found = [define(name) for name, (_, series) in definition_files().items() if series is not None]
    return sorted(found, key=lambda mutant: mutant.name)


def mutant_columns() -> list[Column]:
    """Every mutant, for the whole catalogue: what catches it, and what does not."""
    return [Column(mutant.name, _MUTANT_ATTEMPTS, arches=mutant.arches) for mutant in mutants()]


def cells() -> list[Cell]:
    """All of them; those that decide most come first."""
    return [
        cell for column in (*STOCK, *ASYNC_FORK, *ASSERTING, *mutant_columns()) for cell in column.cells()
    ]
