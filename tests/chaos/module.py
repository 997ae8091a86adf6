"""Kernel modules for stock kernels, built from C without root and without installing anything.

Tests carry a module into a guest inside a C program (loader.c). From the shell, in the checkout:

    .venv/bin/python -m tests.chaos.module x86_64 debian:6.1               prints the path of calamity.ko
    .venv/bin/python -m tests.chaos.module x86_64 debian:6.1 irqs_off      prints a C file that loads it so:
    .venv/bin/cowpen run --program FILE.c --arch x86_64 --kernel debian:6.1 --attempts 1

The words after the kernel are the module's parameters (calamity.c), the first is ``what``; and, in capitals, macros
of loader.c.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import tools
from harness.arch import Arch, get_arch, host_arch
from harness.cache import Cache, digest
from harness.errors import BuildError
from harness.kernel import debian
from harness.kernel.kernel import resolve
from harness.kernel.kit import compile_module
from harness.program.template import c_string

SOURCES = Path(__file__).parent / "programs"
CALAMITY = SOURCES / "calamity.c"
_ENTRY_SECONDS = 900.0
_UNPACK_SECONDS = 120.0
# The other packages that a headers package needs to build anything, as its dependencies name them.
_COMMON = re.compile(r"linux-headers-\S+-common(?:-\w+)?")
_KBUILD = re.compile(r"linux-kbuild-\S+")


def build(
    arch: Arch, spec: str, cache: Cache, *, what: str = "", source: Path = CALAMITY, debug: bool = False
) -> Path:
    """The module of a C file for a stock kernel (``debian:6.1``), from the cache the second time.

    ``what`` is the calamity that comes without parameters; ``debug`` keeps the debug information. Raises `HostError` if
    the archive has no headers for this kernel any more, `BuildError` if it does not build.
    """
    name = source.stem
    flags = f"-DWHAT='\"{what}\"'"
    provenance = resolve(spec, arch, cache).provenance
    headers = _headers(arch, provenance, cache)
    words = [
        *("make", "-s", "-C", str(headers / "usr/src" / f"linux-headers-{provenance['release']}")),
        f"CC={arch.compiler()}",
        *(() if arch.native else (f"CROSS_COMPILE={arch.gnu}-",)),
        # Debian's .kernelvariables would set its own prefix where these differ.
        *("DEB_BUILD_ARCH=", "DEB_HOST_ARCH="),
        "CONFIG_DEBUG_INFO_BTF_MODULES=",  # takes pahole, for what nobody reads
    ]

    def make(folder: Path) -> None:
        # __FILE__ in reports, without where it was built.
        compile_module(
            source, folder, lambda work: [*words, f"KCFLAGS=-fmacro-prefix-map={work}/="], flags=flags
        )
        if not debug:  # which no kernel reads, and without it the module is ten times smaller
            tools.run([arch.binutil("strip"), "--strip-debug", folder / f"{name}.ko"], seconds=30)

    options = "\0".join([*words[4:], *(["debug"] if debug else [])])
    key = digest(source, flags, headers.name, tools.identity(arch.compiler()), options)
    folder = cache.entry("modules", key, make, seconds=_ENTRY_SECONDS, what=f"module {name} for {spec}")
    return folder / f"{name}.ko"


def loader(module: Path, folder: Path, what: str, **more: int) -> Path:
    """A C file in ``folder``, named after ``what``, that loads the module.

    ``more`` are parameters of the module and, in capitals, macros of loader.c.
    """
    parameters = [f"{name}={value}" for name, value in more.items() if name.islower()]
    arguments = c_string(" ".join([f"what={what}", *parameters]))
    lines = [f"#define CALAMITY {c_string(str(module))}", f"#define ARGUMENTS {arguments}"]
    lines += [f"#define {name} {value}" for name, value in more.items() if name.isupper()]
    path = folder / f"{what}.c"
    text = "\n".join(lines) + "\n" + (SOURCES / "loader.c").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    return path


def _headers(arch: Arch, provenance: dict[str, Any], cache: Cache) -> Path:
    """The unpacked headers, with makefiles that find each other there."""
    release, version = provenance["release"], provenance["version"]

    def unpack(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="cowpen-headers-") as temporary:
            work = Path(temporary)
            first = _download(f"linux-headers-{release}", version, arch, cache, work)
            needs = tools.run(["dpkg-deb", "-f", first, "Depends"], seconds=30).stdout
            common, kbuild = _COMMON.search(needs), _KBUILD.search(needs)
            if common is None or kbuild is None:
                raise BuildError(f"{first.name} names no common headers and kbuild", detail=needs)
            debs = [
                first,
                _download(common.group(), version, arch, cache, work),
                # Programs of the build itself: for the machine that builds.
                _download(kbuild.group().rstrip(","), version, host_arch(), cache, work),
            ]
            for deb in debs:
                tools.run(["dpkg-deb", "-x", deb, folder], seconds=_UNPACK_SECONDS)
        # The one absolute path: "include /usr/src/linux-headers-…-common/Makefile".
        makefile = folder / "usr/src" / f"linux-headers-{release}" / "Makefile"
        there = "$(abspath $(dir $(lastword $(MAKEFILE_LIST)))/..)/"
        text = makefile.read_text(encoding="utf-8")
        makefile.write_text(text.replace("/usr/src/", there), encoding="utf-8")

    key = f"{release}_{version}_{arch.debian}-on-{host_arch().debian}"
    what = f"the headers of {release}"
    return cache.entry("headers", key, unpack, seconds=_ENTRY_SECONDS, what=what)


def _download(package: str, version: str, arch: Arch, cache: Cache, folder: Path) -> Path:
    """Exactly this version, in a folder of its own below ``folder``."""
    into = folder / package
    into.mkdir()
    return debian.download_package(package, arch, cache, into, version=version)[0]


def main(words: list[str]) -> None:
    """Print the path of the module or, given its parameters, of a C file that loads it."""
    arch, spec, *rest = words
    module = build(get_arch(arch), spec, Cache())
    if not rest:
        print(module)
        return
    more = {name: int(value) for name, _, value in (word.partition("=") for word in rest[1:])}
    print(loader(module, Path(tempfile.mkdtemp(prefix="cowpen-")), rest[0], **more))


if __name__ == "__main__":
    main(sys.argv[1:])
