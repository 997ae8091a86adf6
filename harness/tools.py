"""The host's programs: find them, run them with a deadline, say which package holds a missing one."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import CowpenError, HostError, ToolMissingError
from harness.process import Process

_PACKAGES = Path(__file__).with_name("debian-packages.txt")
_FOREIGN_PACKAGES = {"gcc": "gcc", "objdump": "binutils"}
_FOREIGN = re.compile(rf"(?P<gnu>\w+-linux-gnu)-(?P<tool>{'|'.join(_FOREIGN_PACKAGES)})")


@dataclasses.dataclass(frozen=True)
class Package:
    """One line of debian-packages.txt: a Debian package, the commands it brings, what it is for."""

    name: str
    commands: tuple[str, ...]
    purpose: str


@functools.cache
def packages() -> tuple[Package, ...]:
    """The table of debian-packages.txt, in its order."""
    table = []
    for line in _PACKAGES.read_text(encoding="utf-8").splitlines():
        text, _, purpose = line.partition("#")
        if not text.strip():
            continue
        name, commands = text.split()
        table.append(Package(name, () if commands == "-" else tuple(commands.split(",")), purpose.strip()))
    return tuple(table)


def package_of(command: str) -> str | None:
    """The Debian package that holds ``command``, as far as cowpen's own table knows."""
    for package in packages():
        if command in package.commands:
            return package.name
    # On an arm64 host x86_64's are the foreign ones; Debian names both by the same pattern.
    if foreign := _FOREIGN.fullmatch(command):
        return f"{_FOREIGN_PACKAGES[foreign['tool']]}-{foreign['gnu'].replace('_', '-')}"
    return None


def find(command: str) -> str:
    """Absolute path of ``command``; `ToolMissingError` names the package to install."""
    path = shutil.which(command)
    if path is None:
        package = package_of(command)
        mend = f"apt-get install {package}" if package else "install it or put it on PATH"
        raise ToolMissingError(f"{command} not found", mend=mend)
    return path


def identity(command: str) -> str:
    """What changes when ``command`` is replaced by another build of it: for keys of what it made.

    Path, size and time of the file: asking for ``--version`` takes 50 ms each time and knows no more.
    """
    path = Path(find(command)).resolve()
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


@dataclasses.dataclass(frozen=True)
class Output:
    """What a tool that ended left behind. ``status`` is negative for a signal, as in `subprocess`."""

    status: int
    stdout: str
    stderr: str


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    seconds: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: type[CowpenError] | None = HostError,
) -> Output:
    """Run a host tool to its end, within ``seconds``.

    Raises `ToolMissingError` if it is not installed, ``check`` (None: never) if it fails or is still
    running at the deadline; the error's ``detail`` holds what the tool printed.
    """
    argv = [find(os.fspath(command[0])), *(os.fspath(word) for word in command[1:])]
    with Process(argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise (check or HostError)(
                f"{command[0]} was still running after {seconds:.0f} s", detail=" ".join(argv)
            ) from error
        status = process.wait(1)
    output = Output(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if check is not None and status != 0:
        said = (output.stderr.strip() or output.stdout.strip()).splitlines()
        raise check(
            f"{command[0]} failed with status {status}" + (f" ({said[-1]})" if said else ""),
            detail=output.stderr + output.stdout,
        )
    return output
