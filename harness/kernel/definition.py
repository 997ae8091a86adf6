"""Kernels with names: ``kernels/NAME.toml``, and the mutants, ``kernels/mutants/NAME.patch``.

A mutant is a kernel with one known fault. Its patch begins with lines ``Key: value`` that say what a definition says,
and what must catch it:

    Removes: the protection that it takes away, one sentence
    Kernels: the series of Debian's source it is for, such as ``6.1 6.12``; for each there is a kernel NAME-SERIES
    Arches: x86_64 aarch64
    Fragments: base debug-vm
    Caught-by: BUG/PROGRAM
    Caught-on: x86_64 (only where it is not caught on all of them yet)
    Within: 10 attempts (or: not caught yet; what follows in brackets is for people)
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from harness.arch import ARCHES, Arch, get_arch
from harness.cache import Cache
from harness.datafile import Record, load
from harness.errors import Tell, UserError, nearest
from harness.kernel.build import Recipe, fragment_files, recipe_identity
from harness.kernel.names import definition_files, mutant_header
from harness.kernel.source import debian_source

_SOURCE = re.compile(r"linux-source-(\d+\.\d+)")
_MUTANT_KEYS = ("Removes", "Kernels", "Arches", "Fragments", "Caught-by", "Within")
_WITHIN = re.compile(r"(?P<attempts>[1-9][0-9]*) attempts?\b.*|not caught yet\b.*")


class _File(Record):
    """``kernels/NAME.toml``."""

    title: str
    source: Annotated[str, Field(pattern=f"^{_SOURCE.pattern}$")]
    """Debian's package of the source."""
    arches: tuple[str, ...] = tuple(ARCHES)
    fragments: Annotated[tuple[str, ...], Field(min_length=1)]
    patches: tuple[str, ...] = ()
    """Patches below ``kernels/``, or folders of them, in the order in which they are applied."""
    sound: bool = False
    """With its patches it should do what a release of its version does, and the catalogue expects as much of it."""

    @field_validator("arches")
    @classmethod
    def _known(cls, arches: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(get_arch(arch).name for arch in arches)
        except UserError as error:  # pydantic adds file and key to a ValueError only
            raise ValueError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Definition:
    """A kernel that is built from Debian's source by the name it has in ``kernels/``."""

    name: str
    title: str
    series: str
    arches: tuple[str, ...]
    fragments: tuple[str, ...]
    patches: tuple[Path, ...]
    sound: bool = False
    """What the catalogue expects of releases of its version it expects of this one, too."""
    caught_by: str | None = None
    """Of a mutant: the bug and program that must show its fault."""
    within: int | None = None
    """Of a mutant: in how many attempts at most; None if it is not caught yet."""
    caught_on: tuple[str, ...] = ()
    """Of a mutant: the architectures on which it is caught."""

    def recipe(self, arch: Arch, cache: Cache, tell: Tell) -> Recipe:
        """What to build; fetches the source if need be. `UserError` if it is not for ``arch``."""
        fragments = self.check(arch)
        return Recipe(self.name, debian_source(self.series, cache, tell), fragments, self.patches)

    def check(self, arch: Arch) -> tuple[Path, ...]:
        """The files of its fragments; `UserError` if it is not for ``arch``, or if one of them is wrong."""
        if arch.name not in self.arches:
            raise UserError(
                f"{self.name} does not exist for {arch.name}", mend=f"it exists for {', '.join(self.arches)}"
            )
        return fragment_files(self.fragments, arch)

    def identity(self, arch: Arch) -> str:
        """`recipe_identity` of what `recipe` would give, without fetching the source."""
        return recipe_identity(fragment_files(self.fragments, arch), self.patches, arch)


def define(name: str) -> Definition:
    """The definition ``name``; `UserError` names the nearest, or what is wrong in its file."""
    files = definition_files()
    if name not in files:
        raise UserError(f"no kernel {name!r} is defined", mend=nearest(name, files))
    path, series = files[name]
    return _toml(path) if series is None else _mutant(path, name, series)


def _toml(path: Path) -> Definition:
    file = load(path, _File)
    patches: list[Path] = []
    for name in file.patches:
        where = path.parent / name
        found = sorted(where.glob("*.patch")) if where.is_dir() else [where] if where.is_file() else []
        if not found:
            raise UserError(f"{path}: patches: no patch {where}")
        patches += found
    match = _SOURCE.fullmatch(file.source)
    assert match is not None
    return Definition(
        name=path.stem,
        title=file.title,
        series=match[1],
        arches=file.arches,
        fragments=file.fragments,
        patches=tuple(patches),
        # Without patches it is the release.
        sound=file.sound or not patches,
    )


def is_sound(name: str) -> bool:
    """Whether ``name`` is a definition that behaves as a release of its version."""
    return name in definition_files() and define(name).sound


def _mutant(path: Path, name: str, series: str) -> Definition:
    """The mutant of a patch for one series; `UserError` names the line of its header that is wrong."""
    header = mutant_header(path)
    for key in _MUTANT_KEYS:
        if key not in header:
            raise UserError(f"{path}: expected a line {key}: … before the first empty one")
    within = _WITHIN.fullmatch(header["Within"])
    if within is None:
        raise UserError(
            f"{path}: Within: expected 'N attempts' or 'not caught yet', not {header['Within']!r}"
        )
    arches = _arches(path, "Arches", header["Arches"])
    caught_on = _arches(path, "Caught-on", header["Caught-on"]) if "Caught-on" in header else arches
    return Definition(
        name=name,
        title=f"mutant: {header['Removes']}",
        series=series,
        arches=arches,
        fragments=tuple(header["Fragments"].split()),
        patches=(path,),
        caught_by=header["Caught-by"],
        within=int(within["attempts"]) if within["attempts"] else None,
        caught_on=caught_on if within["attempts"] else (),
    )


def _arches(path: Path, key: str, names: str) -> tuple[str, ...]:
    try:
        return tuple(get_arch(name).name for name in names.split())
    except UserError as error:
        raise UserError(f"{path}: {key}: {error.message}", mend=error.mend) from error
