"""Programs: the C reproducers under ``guest-programs/``, and a user's own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from harness import datafile
from harness.errors import UserError, nearest
from harness.folders import data_folder
from harness.program.parameters import Parameter, ParameterName

TEMPLATE_SUFFIX = ".c.j2"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}\Z")  # fits the record's program[32]


class _ProgramFile(datafile.Record):
    """``program.toml``, and the TOML file beside a user's template."""

    about: str = "A program of the user's own."
    access_path: str = Field(default="buffer", min_length=1)
    seconds: float = Field(default=60.0, gt=0, le=7 * 86400)
    modules: tuple[str, ...] = ()
    parameters: dict[ParameterName, Parameter] = Field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One C reproducer: its template and its typed parameters."""

    name: str
    about: str
    """One or two sentences."""
    folder: Path
    template: Path
    """The Jinja2 template, or a user's plain C file or binary."""
    parameters: Mapping[str, Parameter]
    access_path: str
    """Through what the kernel touches memory, for titles: "O_DIRECT read buffer"."""
    seconds: float
    """Generous run time with default parameters on a guest of speed 1.0: the base of its deadline."""
    modules: tuple[str, ...]
    """Kernel modules it needs loaded."""


def _program(name: str, file: _ProgramFile, template: Path) -> Program:
    return Program(
        name=name,
        about=" ".join(file.about.split()),
        folder=template.parent,
        template=template,
        parameters=file.parameters,
        access_path=file.access_path,
        seconds=file.seconds,
        modules=file.modules,
    )


def list_programs() -> list[str]:
    """Names of cowpen's own programs: the folders of ``guest-programs/`` that hold a ``program.toml``."""
    return sorted(path.parent.name for path in data_folder("guest-programs").glob("*/program.toml"))


def load_program(name: str) -> Program:
    """One of cowpen's own programs; `UserError` names the nearest if there is none of that name."""
    if name not in (names := list_programs()):
        raise UserError(f"unknown program {name!r}", mend=nearest(name, names))
    folder = data_folder("guest-programs") / name
    template = folder / f"{name}{TEMPLATE_SUFFIX}"
    if not _NAME.match(name) or not template.is_file():
        raise UserError(f"{folder}: a program's folder holds program.toml and NAME{TEMPLATE_SUFFIX}")
    return _program(name, datafile.load(folder / "program.toml", _ProgramFile), template)


def user_program(path: Path) -> Program:
    """What ``--program FILE`` names: a C file, a template, or a binary (see `compile.prepare`).

    ``FILE.toml`` beside a template ``FILE.c.j2`` declares its parameters, and may say ``about``,
    ``access_path``, ``seconds`` and ``modules`` as ``program.toml`` does. `UserError` if there is no such file.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such file", mend="--program takes a C file, a .c.j2 template or a binary"
        )
    path = path.resolve()
    stem = path.name.removesuffix(TEMPLATE_SUFFIX).removesuffix(".c")
    # The name goes into file names and titles: keep it to plain characters.
    name = re.sub(r"[^A-Za-z0-9_-]", "_", stem).lstrip("_-")[:31] or "program"
    declared = path.with_name(f"{stem}.toml")
    is_template = path.name.endswith(TEMPLATE_SUFFIX)
    if is_template and declared.is_file():
        return _program(name, datafile.load(declared, _ProgramFile), path)
    return _program(name, _ProgramFile(), path)
