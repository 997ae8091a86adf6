"""Kernel modules of one C file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import tools
from harness.cache import Cache, digest
from harness.errors import BuildError, UserError
from harness.kernel.build import Built
from harness.kernel.buildtree import environment, make_words

_MODULE_SECONDS = 300.0


def build_module(kernel: Built, source: Path, cache: Cache) -> Path:
    """The module made of one C file for a kernel that was built with modules; from the cache the second time.

    It keeps the debug information that the kernel has. Raises `BuildError` if it does not build.
    """
    kit = kernel.kit
    if kit is None:
        raise UserError(f"{kernel.image} was built without modules", mend="add the fragment modules")

    def make(folder: Path) -> None:
        def command(work: Path) -> list[str]:
            # As if it were built in its own folder: "kernel BUG at trouble.c:12!".
            mapped = f"-fmacro-prefix-map={work}/= -fdebug-prefix-map={work}=."
            return [*make_words(kernel.arch, mapped), "-s", "-C", str(kit)]

        compile_module(source, folder, command)

    key = digest(kernel.folder.name, source.name, source)
    what = f"module {source.stem}"
    entry = cache.entry("modules", key, make, seconds=2 * _MODULE_SECONDS, what=what)
    return entry / f"{source.stem}.ko"


def compile_module(
    source: Path, folder: Path, command: Callable[[Path], Sequence[str]], *, flags: str = ""
) -> None:
    """Make the module of one C file, in ``folder``.

    ``command`` is make with what names the kernel, given the folder where it is done; ``flags`` are for the compiler.
    Raises `BuildError` if it does not build.
    """
    with tempfile.TemporaryDirectory(prefix="cowpen-module-") as temporary:
        work = Path(temporary)
        (work / source.name).write_bytes(source.read_bytes())
        makefile = f"obj-m := {source.stem}.o\nccflags-y := {flags}\n"
        (work / "Makefile").write_text(makefile, encoding="utf-8")
        words = [*command(work), f"M={work}", "modules"]
        tools.run(words, seconds=_MODULE_SECONDS, env=environment(), check=BuildError)
        shutil.move(work / f"{source.stem}.ko", folder)
