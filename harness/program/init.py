"""The guest's PID 1, which is also the agent of machines that already run."""

from __future__ import annotations

from pathlib import Path

from harness.arch import Arch
from harness.cache import Cache
from harness.folders import data_folder
from harness.program.compile import compile_program


def compile_init(arch: Arch, cache: Cache) -> Path:
    """The static binary of guest-programs/init/ for ``arch``; raises as `compile_program`."""
    folder = data_folder("guest-programs") / "init"
    source = (folder / "init.c").read_text(encoding="utf-8")
    flags = ("-Werror", "-iquote", str(folder))
    headers = sorted(folder.glob("*.h"))
    return compile_program(source, "init", arch, cache, flags=flags, includes=headers).binary
