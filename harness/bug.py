"""The catalogue: one record per bug report, ``bugs/ID.toml``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.arch import get_arch
from harness.console.finding import KINDS
from harness.datafile import Record, load
from harness.errors import CowpenError, UserError, nearest
from harness.folders import data_folder

if TYPE_CHECKING:
    from harness.console.finding import Finding

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
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


class BugProgram(Record):
    """How one program of ``guest-programs/`` is run to show this bug."""

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
    attempts: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Attempts of a trial unless the user says otherwise."""

    @property
    def settings(self) -> dict[str, str]:
        """``set`` as the strings that ``--set NAME=VALUE`` would give."""
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self.set.items()
        }


class Signature(Record):
    """What a finding of this bug looks like: everything given must match. Never a line number."""

    kind: str
    """A key of `harness.console.finding.KINDS`."""
    program: Name | None = None
    """Only findings of this program."""
    title: str | None = None
    """Regular expression, searched for in the title and the alternative titles."""
    frames: tuple[Function, ...] = ()
    """Function names, any of which is the guilty one or in the call trace."""
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
        functions = {finding.frame, *(frame.function for frame in finding.frames)}
        return (
            self.kind == finding.kind
            and self.program in (None, program)
            and (self.title is None or any(re.search(self.title, title) for title in titles))
            and (not self.frames or not functions.isdisjoint(self.frames))
            and (self.file is None or f"/{finding.file or ''}".endswith(f"/{self.file}"))
        )


_BOUND = re.compile(r"(<=|>=|==|<|>)\s*(\d+(?:\.\d+){0,3}(?:-rc\d+)?)")
_VERSION = re.compile(r"(\d{1,9})((?:\.\d{1,9}){0,3})(?:-rc(\d{1,4}))?")


def _version(text: str) -> tuple[tuple[int, ...], float] | None:
    """``6.1.192-2`` as ((6, 1, 192, 0), inf): numbers, and the release candidate, infinite for none."""
    match = _VERSION.match(text)
    if not match:
        return None
    numbers = [int(match[1]), *(int(part) for part in match[2].split(".")[1:])]
    candidate = float(match[3]) if match[3] else math.inf
    return tuple([*numbers, 0, 0, 0][:4]), candidate


def _within(version: str, kernels: str) -> bool:
    """Whether a version lies in a range such as ``>=5.11,<6.3``.

    Numeric by component; what a distribution appends does not count. "Since 6.3" in the kernel's
    history means merged for 6.3-rc1, so a release candidate counts as its release unless the bound itself
    names a candidate. A version that cannot be read lies in no range.
    """
    have = _version(version)
    if have is None:
        return False
    for part in kernels.split(","):
        match = _BOUND.fullmatch(part.strip())
        bound = match and _version(match[2])
        if not match or not bound:
            return False
        left, right = (have, bound) if "-rc" in match[2] else ((have[0], 0.0), (bound[0], 0.0))
        order = (left > right) - (left < right)
        if order not in _ORDERS[match[1]]:
            return False
    return True


_ORDERS = {"<": (-1,), "<=": (-1, 0), "==": (0,), ">=": (0, 1), ">": (1,)}


class Expectation(Record):
    """What some kernels are expected to do."""

    kernels: str
    """A range of upstream versions (``<6.3``, ``>=5.11,<6.3``, ``*``) or one kernel spec (``debian:6.1``)."""
    arches: tuple[str, ...] = ()
    """Architectures; none named: all."""
    program: Name | None = None
    """One program of the bug; none named: all."""
    verdict: Literal["reproduced", "clean"]
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest rate per attempt at which the bug is expected to show."""

    @field_validator("kernels")
    @classmethod
    def _range_or_spec(cls, kernels: str) -> str:
        ranged = kernels[:1] in "<>=" and all(_BOUND.fullmatch(part.strip()) for part in kernels.split(","))
        if not (kernels == "*" or ranged or re.fullmatch(r"[A-Za-z][^\s,<>=]*", kernels)):
            raise ValueError(f'expected "*", a range such as ">=5.11,<6.3" or a kernel spec, not {kernels!r}')
        return kernels

    @field_validator("arches")
    @classmethod
    def _known_arches(cls, arches: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(get_arch(arch).name for arch in arches)
        except CowpenError as error:  # pydantic adds file and key to a ValueError only
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _rate_of_something(self) -> Self:
        if self.rate is not None and self.verdict != "reproduced":
            raise ValueError('rate: expected only with verdict = "reproduced"')
        return self

    def covers(self, *, kernel_version: str, kernel_spec: str, arch: str, program: str) -> bool:
        """Whether it speaks of this kernel, architecture and program."""
        return (
            (self.kernels in ("*", kernel_spec) or _within(kernel_version, self.kernels))
            and (not self.arches or arch in self.arches)
            and self.program in (None, program)
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
        return self

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

    def expected(self, kernel_version: str, kernel_spec: str, arch: str, program: str) -> Expectation | None:
        """What the catalogue expects, None if it says nothing; in the file's order the first that fits.

        ``kernel_version`` is the upstream version (``6.1.192``), whatever else may follow it.
        """
        for expectation in self.expectations:
            if expectation.covers(
                kernel_version=kernel_version, kernel_spec=kernel_spec, arch=arch, program=program
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
