"""The small kernel: Debian's linux-source of a series, with kernels/fragments/base.config and nothing else.

    python -m bench.kernel [ARCH]…    build it (about five minutes on two cores, once) and print its kernel spec

Compared with a stock kernel it boots in a fraction of the time and needs no modules, which is what a developer's own
kernel looks like.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import tools
from harness.arch import ARCHES, Arch, get_arch, host_arch
from harness.cache import Cache, digest
from harness.deadline import Deadline
from harness.errors import BuildError, CowpenError
from harness.folders import data_folder
from harness.kernel.debian import download_package
from harness.process import Process
from harness.trial.jobs import cores

Tell = Callable[[str], None]

SERIES = "6.1"
_SOURCE_SECONDS = 1500.0
_UNPACK_SECONDS = 600.0
_CONFIGURE_SECONDS = 600.0
_BUILD_SECONDS = 3600.0
_TELL_EVERY = 30.0  # seconds
_TOOLS = ("make", "flex", "bison", "bc", "tar", "xz")
# The first of these in make's output is what went wrong; make itself goes on for a while with other files.
_FAULT = re.compile(r"^.*(?:\berror: |\bfatal error: |undefined reference|\*\*\* ).*$", re.MULTILINE)
# The same source and fragments give the same image, and ccache's hits, whoever builds them wherever.
_REPRODUCIBLE = {
    "KBUILD_BUILD_USER": "cowpen",
    "KBUILD_BUILD_HOST": "cowpen",
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_VERSION": "1",
}


def small_kernel(arch: Arch, cache: Cache, tell: Tell) -> str:
    """The kernel spec of the small kernel for ``arch``, built if the cache has none.

    Raises `HostError` without source or tools, `BuildError` with the compiler's first complaint.
    """
    for command in (*_TOOLS, arch.compiler()):
        tools.find(command)
    source = fetch_source(SERIES, cache, tell)
    fragments = [data_folder("kernels") / "fragments" / f"base{end}.config" for end in ("", f"-{arch.name}")]
    identity = tools.identity(arch.compiler())

    def build(folder: Path) -> None:
        tree = unpack(source, folder / "work", tell)
        configure(tree, arch, fragments)
        compile_kernel(tree, arch, folder / "build.log", tell)
        (tree / arch.image_target).rename(folder / "image")
        (tree / ".config").rename(folder / "config")
        (tree / "System.map").rename(folder / "System.map")
        shutil.rmtree(tree.parent)

    entry = cache.entry(
        "built",
        digest("built-1", arch.name, source, *fragments, identity),
        build,
        seconds=_BUILD_SECONDS + _UNPACK_SECONDS,
        what=f"the small {SERIES} kernel for {arch.name}",
    )
    return f"path:{entry}/image,config={entry}/config,system_map={entry}/System.map"


def fetch_source(series: str, cache: Cache, tell: Tell) -> Path:
    """The tarball of Debian's linux-source package, the newest when it was first asked for.

    Fetched once, so that figures stay comparable while the archive moves on.
    """
    package = f"linux-source-{series}"

    def build(folder: Path) -> None:
        tell(f"fetching {package}, 140 MB")
        deb, chosen = download_package(package, host_arch(), cache, folder)
        tools.run(["dpkg-deb", "-x", deb, folder / "tree"], seconds=_UNPACK_SECONDS)
        (folder / f"tree/usr/src/{package}.tar.xz").rename(folder / "source.tar.xz")
        shutil.rmtree(folder / "tree")
        deb.unlink()
        provenance = {"package": package, "version": chosen.version, "sha256": chosen.sha256}
        (folder / "provenance.json").write_text(json.dumps(provenance) + "\n", encoding="utf-8")

    return cache.entry("sources", package, build, seconds=_SOURCE_SECONDS, what=package) / "source.tar.xz"


def unpack(tarball: Path, folder: Path, tell: Tell) -> Path:
    """The source tree, below ``folder``."""
    tell("unpacking the kernel's source")
    folder.mkdir()
    tools.run(["tar", "-xJf", tarball, "-C", folder], seconds=_UNPACK_SECONDS)
    (tree,) = folder.iterdir()
    return tree


def configure(tree: Path, arch: Arch, fragments: list[Path]) -> None:
    """Write ``.config``: what the fragments say, and no to everything else.

    Raises `BuildError` that names the options which Kconfig did not accept: a dependency is missing then.
    """
    wanted = "".join(path.read_text(encoding="utf-8") for path in fragments)
    (tree / "cowpen.config").write_text(wanted, encoding="utf-8")
    tools.run(
        [*_make(arch), "KCONFIG_ALLCONFIG=cowpen.config", "allnoconfig"],
        cwd=tree,
        seconds=_CONFIGURE_SECONDS,
        check=BuildError,
    )
    refused = _settings(wanted).items() - _settings((tree / ".config").read_text(encoding="utf-8")).items()
    # An option that is off may also be invisible, and then .config has no line for it.
    faults = sorted(f"{name}={value}" for name, value in refused if value != "n")
    if faults:
        raise BuildError(
            f"the kernel's configuration for {arch.name} does not take {', '.join(faults)}",
            mend=f"add what they depend on to {' or '.join(path.name for path in fragments)}",
        )


def compile_kernel(tree: Path, arch: Arch, log: Path, tell: Tell) -> None:
    """Build image and System.map; ``log`` gets make's output. `BuildError` holds the compiler's first complaint."""
    command = [*_make(arch), f"-j{cores()}", Path(arch.image_target).name]
    deadline = Deadline(_BUILD_SECONDS, "the kernel's build")
    with log.open("wb") as output:
        process = Process(
            command, cwd=tree, env=os.environ | _REPRODUCIBLE, stdout=output, stderr=subprocess.STDOUT
        )
        with process:
            while process.poll() is None:
                deadline.check()
                try:
                    process.wait(deadline.slice(_TELL_EVERY))
                except subprocess.TimeoutExpired:
                    done = log.read_bytes().count(b"\n")
                    tell(f"building the {arch.name} kernel: {done} steps after {deadline.elapsed:.0f} s")
    if process.poll() != 0:
        words = log.read_text(encoding="utf-8", errors="replace")
        fault = _FAULT.search(words)
        raise BuildError(
            f"the kernel for {arch.name} does not build ({fault[0].strip() if fault else 'no error line'})",
            detail=words[-20000:],
        )


def _make(arch: Arch) -> list[str]:
    prefix = "ccache " if shutil.which("ccache") else ""
    line = ["make", f"ARCH={arch.kernel_arch}", f"CC={prefix}{arch.compiler()}", f"HOSTCC={prefix}gcc"]
    return line if arch.native else [*line, f"CROSS_COMPILE={arch.gnu}-"]


def _settings(config: str) -> dict[str, str]:
    """``.config`` or a fragment as a dictionary; what is not set is ``n``."""
    settings = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", config, re.MULTILINE))
    return settings | dict.fromkeys(re.findall(r"^# (CONFIG_\w+) is not set$", config, re.MULTILINE), "n")


def main() -> None:
    """Build what is named, or for every architecture."""
    for name in sys.argv[1:] or ARCHES:
        try:
            spec = small_kernel(get_arch(name), Cache(), lambda line: print(line, file=sys.stderr))
        except CowpenError as error:
            sys.exit(f"{error}\n{error.detail}")
        print(spec, flush=True)


if __name__ == "__main__":
    main()
