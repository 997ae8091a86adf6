"""The guest's init compiles for every architecture. What it does is shown by tests/guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.arch import ARCHES, Arch
from harness.cache import Cache
from harness.program.compile import check_binary
from harness.program.init import compile_init


@pytest.mark.parametrize("arch", ARCHES.values(), ids=lambda arch: arch.name)
def test_init_compiles_without_warnings(arch: Arch, tmp_path: Path) -> None:
    binary = compile_init(arch, Cache(tmp_path))  # with -Werror
    check_binary(binary, arch)  # static, and for this architecture
    assert (binary.parent / "warnings.txt").read_text(encoding="utf-8") == ""
