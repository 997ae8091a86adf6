"""Compile programs into static binaries, each set of parameters once."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import __version__, tools
from harness.arch import ARCHES, Arch
from harness.cache import Cache, digest
from harness.errors import BuildError, HostError, UserError
from harness.folders import data_folder
from harness.program.parameters import Value, resolve
from harness.program.program import TEMPLATE_SUFFIX, Program, user_program
from harness.program.template import FLAGS, render

COMPILE_SECONDS = 120.0  # a program compiles in half a second; a swapping host takes its time
# The compiler's "FILE:LINE:COLUMN: error: …", and what the linker says before it gives up.
_FIRST_ERROR = re.compile(
    r"^[^\n:]{1,400}:\d+:(?:\d+:)? (?:fatal )?error: [^\n]*|undefined reference to [^\n]*|cannot find [^\n]*",
    re.MULTILINE,
)
_LOCAL_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"', re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """A static binary ready for a guest."""

    binary: Path
    source: Path | None
    """The C file it was made from, which stands alone; None for a user's binary."""
    command: list[str]
    """What compiles ``source`` by hand, in its folder; empty for a user's binary."""
    warnings: str = ""
    """What the compiler said about a user's file that compiled."""


def compile_source(program: Program, values: Mapping[str, Value], arch: Arch, cache: Cache) -> Compiled:
    """One of cowpen's own programs with ``values`` from `parameters.resolve`."""
    return compile_program(_rendered(program, values, cache), program.name, arch, cache)


def _rendered(program: Program, values: Mapping[str, Value], cache: Cache) -> str:
    """The C source; from the cache the second time, which spares every run Jinja's import (0.08 s)."""
    headers = sorted((data_folder("guest-programs") / "common").glob("*.h"))
    files = [path for path in sorted(program.folder.iterdir()) if path.is_file()]
    name = f"{program.name}.c"

    def build(folder: Path) -> None:
        (folder / name).write_text(render(program, values), encoding="utf-8")

    key = digest(__version__, program.name, repr(sorted(values.items())), *files, *headers)
    entry = cache.entry("sources", key, build, seconds=COMPILE_SECONDS, what=f"the source of {program.name}")
    return (entry / name).read_text(encoding="utf-8")


def compile_program(
    source: str,
    name: str,
    arch: Arch,
    cache: Cache,
    *,
    flags: Sequence[str] = ("-Werror",),
    includes: Sequence[Path] = (),
) -> Compiled:
    """Compile C source to a static binary for ``arch``; a second time it comes from the cache.

    ``flags`` are added to `template.FLAGS`. ``includes`` are the local headers that the source includes, if they
    are known: otherwise the preprocessor is asked each time. Raises `BuildError` with the compiler's first error
    line (its ``detail`` holds everything the compiler said), `ToolMissingError` without a compiler for ``arch``.
    """
    compiler = arch.compiler()
    command = [compiler, *FLAGS, *flags, "-o", name, f"{name}.c"]
    parts = [source, "\0".join(command), tools.identity(compiler), arch.name]
    if includes:
        parts.append(digest(*includes))
    elif _LOCAL_INCLUDE.search(source):
        # The source alone does not say what is compiled: take it with its includes.
        parts.append(_preprocessed(compiler, flags, source, name))

    def build(folder: Path) -> None:
        (folder / f"{name}.c").write_text(source, encoding="utf-8", errors="surrogateescape")
        # The cache folder's temporary name must not get into the debug information: same source, same bytes.
        words = [compiler, f"-ffile-prefix-map={folder}=.", *command[1:]]
        (folder / "warnings.txt").write_text(_run(words, folder, name), encoding="utf-8")

    folder = cache.entry("programs", digest(*parts), build, seconds=COMPILE_SECONDS, what=f"program {name}")
    return Compiled(
        binary=folder / name,
        source=folder / f"{name}.c",
        command=command,
        warnings=(folder / "warnings.txt").read_text(encoding="utf-8"),
    )


def _run(words: Sequence[str], folder: Path, name: str) -> str:
    """Run the compiler in ``folder``; returns its warnings."""
    # English words whatever the user's locale: the first error line is found by them. The compiler's temporary files
    # go into the folder, which is removed with all that is in it even if cowpen is killed.
    environment = os.environ | {"LC_ALL": "C", "TMPDIR": str(folder)}
    output = tools.run(words, seconds=COMPILE_SECONDS, cwd=folder, env=environment, check=None)
    if output.status != 0:
        found = _FIRST_ERROR.search(output.stderr)
        said = output.stderr.strip().splitlines()
        full = next((line for line in said if os.strerror(errno.ENOSPC) in line), None)
        if full is not None:
            raise HostError(
                f"no space left for compiling {name} ({full[:500]})",
                mend="free some space, or point XDG_CACHE_HOME at a larger disk",
                detail=output.stderr,
            )
        first = found.group() if found else (said[-1] if said else f"status {output.status}")
        raise BuildError(f"{name} does not compile: {first[:500]}", detail=output.stderr)
    return output.stderr


def _preprocessed(compiler: str, flags: Sequence[str], source: str, name: str) -> str:
    """A digest of the source with everything it includes."""
    with tempfile.TemporaryDirectory(prefix="cowpen-") as temporary:
        folder = Path(temporary)
        (folder / f"{name}.c").write_text(source, encoding="utf-8", errors="surrogateescape")
        _run([compiler, *FLAGS, *flags, "-E", "-P", "-o", f"{name}.i", f"{name}.c"], folder, name)
        return digest(folder / f"{name}.i")


def prepare(path: Path, arch: Arch, cache: Cache, parameters: Mapping[str, Value]) -> Compiled:
    """Make a user's own ``--program`` ready: a C file, a template ``FILE.c.j2``, or a static binary.

    The user's C is compiled without ``-Werror``, and may include files beside it. `UserError` if the binary is
    for another architecture or not static, or if parameters are given to something that has none;
    `BuildError` if the C does not compile.
    """
    program = user_program(path)
    values = resolve(program.parameters, parameters, program=program.name)
    file = program.template
    if file.name.endswith(TEMPLATE_SUFFIX):
        source = render(program, values)
    elif file.suffix == ".c":
        try:
            source = file.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}") from error
    else:
        check_binary(file, arch)
        return Compiled(binary=file, source=None, command=[])
    return compile_program(source, program.name, arch, cache, flags=("-iquote", str(file.parent)))


def check_binary(path: Path, arch: Arch) -> None:
    """`UserError` unless ``path`` is a program that runs on ``arch`` with no other file in the guest."""
    from elftools.common.exceptions import ELFError  # noqa: PLC0415
    from elftools.elf.dynamic import DynamicSegment  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        stream = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    try:
        with stream:
            elf = ELFFile(stream)
            machine, entry, kind = elf["e_machine"], elf["e_entry"], elf["e_type"]
            dynamic = False
            for segment in elf.iter_segments():
                if segment["p_type"] == "PT_INTERP":
                    dynamic = True
                elif isinstance(segment, DynamicSegment):
                    dynamic |= any(tag.entry.d_tag == "DT_NEEDED" for tag in segment.iter_tags())
    # The file may be anything: whatever the parser stumbles over, it is not a sound binary.
    except (
        ELFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        AssertionError,
    ) as error:
        raise UserError(
            f"{path} is neither C (.c, {TEMPLATE_SUFFIX}) nor a sound ELF binary", detail=str(error)
        ) from error
    if machine != arch.elf_machine:
        names = [other.name for other in ARCHES.values() if other.elf_machine == machine]
        raise UserError(
            f"{path} is built for {names[0] if names else machine}, not for {arch.name}",
            mend=f"build it with {arch.gnu}-gcc, or pass --arch",
        )
    if dynamic:
        raise UserError(
            f"{path} is dynamically linked, and the guest has no libraries", mend="link it with -static"
        )
    if kind not in ("ET_EXEC", "ET_DYN") or entry == 0:
        raise UserError(f"{path} is an object file or a library, not a program", mend="link it with -static")
    if not path.stat().st_mode & 0o111:
        raise UserError(f"{path} is not executable", mend=f"chmod +x {path}")
