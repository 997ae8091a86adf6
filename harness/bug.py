"""The catalogue: one record per bug report, ``bugs/ID.toml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.console.finding import KINDS
from harness.datafile import Record, load
from harness.errors import UserError, nearest
from harness.expectation import Expectation, Name
from harness.folders import data_folder

if TYPE_CHECKING:
    from harness.console.finding import Finding

Function = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,127}$")]
Option = Annotated[str, Field(pattern=r"^CONFIG_[A-Za-z0-9_]+$")]
Word = Annotated[str, Field(pattern=r"^\S+$")]
Link = Annotated[str, Field(pattern=r"^https?://\S+$")]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Disk(Record):
    """The disk a program needs, besides nothing: guests have none of their own."""

    size: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}[KMG]?$")]
    """Size with unit: ``64M``."""
    read_delay_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    """Milliseconds by which every read is answered late."""
    write_delay_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    content: Literal["zeros", "ext4", "xfs"] = "zeros"
    """Zeros, or a fresh file system, mounted on /mnt; xfs takes 301M or more."""

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        number = self.size.rstrip("KMG")
        return int(number) * _UNITS[self.size[len(number) :]]


ALL_VARIANTS = "all"
"""In place of a variant's name: the program as it is, and each of its variants."""


class _Settings(Record):
    """How a program is run: what it is told, the machine it needs, the kernel it needs."""

    name: Name
    set: dict[str, str | bool | int | float] = Field(default_factory=dict)
    """Values of the program's parameters that differ from its defaults."""
    disk: Disk | None = None
    memory_mib: Annotated[int, Field(ge=64, le=65_536)] = 512
    cpus: Annotated[int, Field(ge=1, le=64)] = 2
    numa_nodes: Annotated[int, Field(ge=1, le=16)] = 1
    """CPUs and memory are spread evenly over them."""
    hugepages: Annotated[int, Field(ge=0, le=32_768)] = 0
    """Huge pages of the kernel's default size that are reserved at boot, out of ``memory_mib``."""
    kernel_arguments: tuple[Word, ...] = ()
    modules: tuple[Word, ...] = ()
    needs: tuple[Option, ...] = ()
    """Kernel options without which the bug cannot show."""
    symbols: tuple[Function, ...] = ()
    """Kernel functions without which it cannot, or which tell that a certain patch is in; looked for in the guest."""
    attempts: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Attempts of a trial unless the user says otherwise."""

    @property
    def settings(self) -> dict[str, str]:
        """``set`` as the strings that ``--set NAME=VALUE`` would give."""
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self.set.items()
        }


class Variant(_Settings):
    """A program run differently: on a file system, with huge pages, as a control.

    What it leaves out is as the program says.
    """

    text: str = ""
    """What is different, and why that is worth a trial."""


class BugProgram(_Settings):
    """How one program of ``guest-programs/`` is run to show this bug."""

    variants: tuple[Variant, ...] = ()
    """Other ways to run it: ``BUG/PROGRAM:VARIANT``."""

    @model_validator(mode="after")
    def _variants_differ(self) -> Self:
        names = [ALL_VARIANTS, *(variant.name for variant in self.variants)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"variants: {', '.join(twice)} is there twice, or means all of them")
        return self

    def variant(self, name: str) -> BugProgram:
        """The program as its variant ``name`` runs it; `UserError` names the nearest.

        What the variant says counts instead of what the program says; its ``set`` is added to the program's.
        """
        for variant in self.variants:
            if variant.name == name:
                said = {key: getattr(variant, key) for key in variant.model_fields_set - {"name", "text"}}
                merged = said | {"set": self.set | variant.set, "variants": ()}
                return self.model_copy(update=merged)
        known = nearest(name, [variant.name for variant in self.variants]) if self.variants else "it has none"
        raise UserError(f"{self.name} has no variant {name!r}", mend=known)


class Signature(Record):
    """What a finding of this bug looks like: everything given must match. Never a line number."""

    kind: str
    """A key of `harness.console.finding.KINDS`."""
    program: Name | None = None
    """Only findings of this program."""
    title: str | None = None
    """Regular expression, searched for in the title and the alternative titles."""
    frames: tuple[Function, ...] = ()
    """Function names, any of which is the guilty one or in the call trace (of a hang: of any thread)."""
    file: str | None = None
    """End of the source file's path, whole components: ``mm/memory.c``."""

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}: {nearest(kind, KINDS)}")
        return kind

    @field_validator("title")
    @classmethod
    def _harmless_expression(cls, title: str | None) -> str | None:
        if title is None:
            return None
        try:
            re.compile(title)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from error
        # Titles come from the guest: an expression that backtracks exponentially must not meet them.
        plain = re.sub(r"\\.|\[\^?\]?[^]]*\]", "x", title)
        if re.search(r"\)[*+{]", plain) or len(re.findall(r"[*+]|,\}", plain)) > 3:
            raise ValueError("expected at most three `*` or `+`, and none after a group (it may never end)")
        return title

    @field_validator("file")
    @classmethod
    def _no_line(cls, file: str | None) -> str | None:
        if file is not None and not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", file):
            raise ValueError(f"expected the end of a path without a line number, not {file!r}")
        return file

    def matches(self, finding: Finding, program: str | None = None) -> bool:
        """Whether ``finding``, seen while ``program`` ran, is the one this signature describes."""
        titles = (finding.title, *finding.alt_titles)
        return (
            self.kind == finding.kind
            and self.program in (None, program)
            and (self.title is None or any(re.search(self.title, title) for title in titles))
            and (not self.frames or not finding.functions.isdisjoint(self.frames))
            and (self.file is None or f"/{finding.file or ''}".endswith(f"/{self.file}"))
        )


class Bug(Record):
    """One bug report."""

    id: Name
    title: str
    links: tuple[Link, ...] = ()
    text: str = ""
    programs: Annotated[tuple[BugProgram, ...], Field(min_length=1)]
    """The programs that show it; the first is the one to try first."""
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1)]
    expectations: tuple[Expectation, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [program.name for program in self.programs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"programs: {', '.join(sorted(twice))} is there twice, expected once")
        limited: tuple[tuple[str, tuple[Signature | Expectation, ...]], ...] = (
            ("signatures", self.signatures),
            ("expectations", self.expectations),
        )
        for key, records in limited:
            for index, record in enumerate(records):
                if record.program is not None and record.program not in names:
                    raise ValueError(
                        f"{key}.{index}.program: expected a program of this bug, not {record.program!r}"
                    )
        self._check_variants()
        return self

    def _check_variants(self) -> None:
        for index, expectation in enumerate(self.expectations):
            programs = [p for p in self.programs if expectation.program in (None, p.name)]
            known = {variant.name for program in programs for variant in program.variants}
            for name in expectation.variants:
                if name not in known:
                    raise ValueError(
                        f"expectations.{index}.variants: expected variants of {expectation.program or 'a program'}, "
                        f"not {name!r}"
                    )

    def program(self, name: str) -> BugProgram:
        """The program ``name``; `UserError` names the nearest."""
        for program in self.programs:
            if program.name == name:
                return program
        known = nearest(name, [program.name for program in self.programs])
        raise UserError(f"bug {self.id} has no program {name!r}", mend=known)

    def matches(self, finding: Finding, program: str | None = None) -> bool:
        """Whether ``finding``, seen while ``program`` ran, has one of this bug's signatures."""
        return any(signature.matches(finding, program) for signature in self.signatures)

    def expected(
        self, kernel_version: str, kernel_spec: str, arch: str, program: str, variant: str | None = None
    ) -> Expectation | None:
        """What the catalogue expects, None if it says nothing; in the file's order the first that fits.

        ``kernel_version`` is the upstream version (``6.1.192``), whatever else may follow it.
        """
        for expectation in self.expectations:
            if expectation.covers(
                kernel_version=kernel_version,
                kernel_spec=kernel_spec,
                arch=arch,
                program=program,
                variant=variant,
            ):
                return expectation
        return None


def _files(folder: Path | None) -> dict[str, Path]:
    folder = folder or data_folder("bugs")
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_bug(bug_id: str, *, folder: Path | None = None) -> Bug:
    """The bug ``bug_id``; `UserError` names the nearest, or the file, key and what was expected there.

    ``folder`` is the catalogue, by default the one that comes with cowpen.
    """
    files = _files(folder)
    if bug_id not in files:
        raise UserError(f"unknown bug {bug_id!r}", mend=nearest(bug_id, files))
    bug = load(files[bug_id], Bug)
    if bug.id != bug_id:
        raise UserError(f"{files[bug_id]}: id: expected {bug_id!r}, the name of the file, not {bug.id!r}")
    return bug


def list_bugs(*, folder: Path | None = None) -> tuple[Bug, ...]:
    """All bugs of the catalogue, by id; `UserError` if a file in it is wrong."""
    return tuple(load_bug(bug_id, folder=folder) for bug_id in _files(folder))
