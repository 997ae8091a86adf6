"""Run the kernel's own selftest `cow` with asynchronous fork switched on.

    python -m bench.cow [--kernel async-fork-lockdep] [--arch ARCH]…

It is compiled from Debian's linux-source-6.12 (tools/testing/selftests/mm) and pins, forks and writes in hundreds of
combinations. Exit code 1 if a test of it failed, 125 if it did not run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

from harness import tools
from harness.arch import ARCHES, Arch, get_arch
from harness.cache import Cache
from harness.errors import CowpenError
from harness.kernel.source import debian_source
from harness.program.program import user_program
from harness.program.template import render

_SERIES = "6.12"
_TESTS = "tools/testing/selftests"
_NEEDED = (f"{_TESTS}/kselftest.h", f"{_TESTS}/mm", "mm/gup_test.h", "tools/include/uapi/linux/fs.h")
# fs.h has PAGEMAP_SCAN, which Debian 12's own lacks.
_FILES = ("cow.c", "vm_util.c", "thp_settings.c")
# A template, as all of cowpen's programs. Before main(), whatever that does.
_SWITCH = """
/*% include "common/status.h" %*/
/*% include "common/put.h" %*/
/*% include "common/async_fork.h" %*/

__attribute__((constructor)) static void switch_on(void)
{
	cowpen_async_fork_on();
	fflush(stdout);
}
"""
_COMPILE_SECONDS = 300.0
_RUN_SECONDS = 1800
# For huge pages of every size that the kernel has, and what is left.
_MEMORY_MIB, _HUGEPAGES = 2048, 64
_LINE = re.compile(r"^(not ok|ok) \d+ (.*)$", re.MULTILINE)


def compiled(arch: Arch, folder: Path) -> Path:
    """The static binary ``folder/cow``."""
    source = debian_source(_SERIES, Cache(), lambda line: print(line, file=sys.stderr))
    source.git("archive", "--output", folder / "source.tar", source.tree, *_NEEDED)
    with tarfile.open(folder / "source.tar") as archive:
        archive.extractall(folder, filter="data")
    (folder / "local_config.h").write_text("", encoding="utf-8")  # no liburing
    command = [arch.compiler(), "-static", "-pthread", "-O2", "-w"]
    command += ["-isystem", str(folder / "tools/include/uapi"), "-I", str(folder)]
    command += ["-o", str(folder / "cow")]
    command += [str(folder / _TESTS / "mm" / name) for name in _FILES]
    tools.run([*command, str(switch(folder))], seconds=_COMPILE_SECONDS)
    return folder / "cow"


def switch(folder: Path) -> Path:
    """The C file, in ``folder``, that switches asynchronous fork on."""
    template, source = folder / "switch.c.j2", folder / "switch.c"
    template.write_text(_SWITCH, encoding="utf-8")
    source.write_text(render(user_program(template), {}), encoding="utf-8")
    return source


def run(kernel: str, arch: Arch) -> int:
    """Run it in a guest and print what came of its tests; the exit code."""
    with tempfile.TemporaryDirectory(prefix="cowpen-cow-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "harness.cli.main", "run", "--program", str(compiled(arch, folder))]
        command += [
            "--kernel",
            kernel,
            "--arch",
            arch.name,
            "--attempts",
            "1",
            "--keep",
            str(folder / "kept"),
        ]
        command += [
            "--memory",
            str(_MEMORY_MIB),
            "--hugepages",
            str(_HUGEPAGES),
            "--seconds",
            str(_RUN_SECONDS),
        ]
        code = subprocess.run(command, check=False).returncode
        said = "".join(path.read_text(errors="replace") for path in (folder / "kept").rglob("stdout"))
    counts: Counter[str] = Counter()
    for result, what in _LINE.findall(said):
        word = "skipped" if "# SKIP" in what else "failed as known" if "# XFAIL" in what else result
        counts[word] += 1
        if word == "not ok":
            print(f"not ok: {what}")
    told = ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) or "no test ran"
    print(f"{arch.name}, {kernel}: {told}", flush=True)
    if not counts["ok"]:
        return 125
    return 1 if counts["not ok"] else code


def main() -> None:
    """Run it on each architecture; the worst exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kernel", default="async-fork-lockdep")
    parser.add_argument("--arch", action="append", choices=list(ARCHES), help="default: all")
    options = parser.parse_args()
    try:
        codes = [run(options.kernel, get_arch(arch)) for arch in options.arch or ARCHES]
    except CowpenError as error:
        sys.exit(f"{error}\n{error.detail[-2000:]}")
    sys.exit(1 if 1 in codes else max(codes))


if __name__ == "__main__":
    main()
