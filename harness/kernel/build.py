"""Kernels built from source: Debian's linux-source of a series, with the fragments that are named and nothing else.

A fragment is a part of a kernel's configuration: ``kernels/fragments/NAME.config`` and, where it exists,
``NAME-ARCH.config``. Later fragments override earlier ones; what none names is off (``allnoconfig``).
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import tools
from harness.arch import Arch
from harness.cache import Cache, digest
from harness.deadline import Deadline
from harness.errors import BuildError, Tell, UserError, nearest
from harness.folders import data_folder
from harness.kernel.source import UNPACK_SECONDS, fetch_source, unpack
from harness.process import Process

_FORMAT = "built-2"  # another one when kernels are built differently
_CONFIGURE_SECONDS = 600.0
_BUILD_SECONDS = 7200.0
_MODULE_SECONDS = 300.0
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
# What it takes to build a module for a kernel whose tree is gone; as scripts/package/install-extmod-build has it.
_KIT = (
    "Makefile",
    ".config",
    "Module.symvers",
    "include",
    "scripts",
    "tools/objtool/objtool",
    "arch/{arch}/Makefile*",
    "arch/{arch}/include",
    "arch/{arch}/scripts",
)


@dataclasses.dataclass(frozen=True)
class Built:
    """A kernel that was built, in its entry of the cache. Paths exist when the kernel has such a thing."""

    folder: Path
    arch: Arch

    @property
    def image(self) -> Path:
        return self.folder / "image"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def system_map(self) -> Path:
        return self.folder / "System.map"

    @property
    def vmlinux(self) -> Path | None:
        """With debug information; None unless the fragments turn that on."""
        path = self.folder / "vmlinux"
        return path if path.exists() else None

    @property
    def kit(self) -> Path | None:
        """What `build_module` needs; None for a kernel without modules."""
        path = self.folder / "kit"
        return path if path.exists() else None

    def module(self, name: str) -> Path:
        """A module of the kernel's own source, such as ``test_ubsan``; `UserError` if it was not built."""
        path = self.folder / "modules" / f"{name}.ko"
        if not path.exists():
            built = sorted(path.stem for path in (self.folder / "modules").glob("*.ko"))
            raise UserError(f"no module {name} was built", mend=nearest(name, built))
        return path

    @property
    def spec(self) -> str:
        """The kernel spec."""
        parts = [f"path:{self.image}", f"config={self.config}", f"system_map={self.system_map}"]
        return ",".join(parts if self.vmlinux is None else [*parts, f"vmlinux={self.vmlinux}"])


def build(series: str, fragments: Sequence[str], arch: Arch, cache: Cache, tell: Tell) -> Built:
    """The kernel of ``series`` (``6.1``) with ``fragments``, built if the cache has none.

    Raises `UserError` for a fragment that does not exist, `HostError` without source or tools, `BuildError` with the
    options that the kernel does not take or the compiler's first complaint.
    """
    for command in (*_TOOLS, arch.compiler()):
        tools.find(command)
    files = fragment_files(fragments, arch)
    source = fetch_source(series, cache, tell)

    def make(folder: Path) -> None:
        tell(f"unpacking the source of Linux {series}")
        tree = unpack(source, folder / "work")
        configure(tree, arch, files)
        compile_kernel(tree, arch, folder / "build.log", tell)
        _harvest(tree, arch, folder)
        shutil.rmtree(tree.parent)

    entry = cache.entry(
        "built",
        digest(_FORMAT, arch.name, source, *files, tools.identity(arch.compiler())),
        make,
        seconds=_BUILD_SECONDS + UNPACK_SECONDS,
        what=f"the {series} kernel with {', '.join(fragments)} for {arch.name}",
    )
    return Built(entry, arch)


def fragment_files(names: Sequence[str], arch: Arch) -> list[Path]:
    """The files of fragments, in their order; `UserError` names the nearest for one that does not exist."""
    folder = data_folder("kernels") / "fragments"
    files = []
    for name in names:
        found = [path for end in ("", f"-{arch.name}") if (path := folder / f"{name}{end}.config").is_file()]
        if not found:
            known = sorted(path.stem for path in folder.glob("*.config"))
            raise UserError(f"no fragment {name} in {folder}", mend=nearest(name, known))
        files += found
    return files


def configure(tree: Path, arch: Arch, fragments: Sequence[Path]) -> None:
    """Write ``.config``: what the fragments say, and no to everything else.

    Raises `BuildError` that names the options which Kconfig did not accept: a dependency is missing then.
    """
    wanted: dict[str, str] = {}
    for path in fragments:
        wanted |= _settings(path.read_text(encoding="utf-8"))
    lines = [f"# {name} is not set" if value == "n" else f"{name}={value}" for name, value in wanted.items()]
    (tree / "cowpen.config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tools.run(
        [*_make(arch, _mapped(tree)), "KCONFIG_ALLCONFIG=cowpen.config", "allnoconfig"],
        cwd=tree,
        seconds=_CONFIGURE_SECONDS,
        check=BuildError,
    )
    got = _settings((tree / ".config").read_text(encoding="utf-8"))
    # An option that is off may also be invisible, and then .config has no line for it.
    faults = sorted(f"{name}={value}" for name, value in wanted.items() if got.get(name, "n") != value)
    if faults:
        raise BuildError(
            f"the kernel's configuration for {arch.name} does not take {', '.join(faults)}",
            mend=f"add what they depend on to {' or '.join(path.name for path in fragments)}",
        )


def compile_kernel(tree: Path, arch: Arch, log: Path, tell: Tell) -> None:
    """Build image and modules; ``log`` gets make's output. `BuildError` holds the compiler's first complaint."""
    targets = [Path(arch.image_target).name]
    if _has_modules(tree):
        targets.append("modules")
    command = [*_make(arch, _mapped(tree)), f"-j{len(os.sched_getaffinity(0))}", *targets]
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
            return [*_make(kernel.arch, mapped), "-s", "-C", str(kit)]

        compile_module(source, folder, command)

    key = digest(_FORMAT, kernel.folder.name, source.name, source)
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
        tools.run(words, seconds=_MODULE_SECONDS, env=os.environ | _REPRODUCIBLE, check=BuildError)
        shutil.move(work / f"{source.stem}.ko", folder)


def _harvest(tree: Path, arch: Arch, folder: Path) -> None:
    """Move what a kernel is known by from its tree to ``folder``."""
    (tree / arch.image_target).rename(folder / "image")
    (tree / "System.map").rename(folder / "System.map")
    if _setting(tree, "CONFIG_DEBUG_INFO"):
        (tree / "vmlinux").rename(folder / "vmlinux")
    if _has_modules(tree):
        (folder / "modules").mkdir()
        for module in tree.rglob("*.ko"):
            module.rename(folder / "modules" / module.name)
        for pattern in _KIT:
            for path in tree.glob(pattern.format(arch=arch.kernel_arch)):
                target = folder / "kit" / path.relative_to(tree)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        (folder / "config").symlink_to("kit/.config")
    else:
        (tree / ".config").rename(folder / "config")


def _make(arch: Arch, mapped: str) -> list[str]:
    """make and what it needs to be told. ``mapped`` are compiler options that hide where the source was."""
    prefix = "ccache " if shutil.which("ccache") else ""
    return [
        "make",
        f"ARCH={arch.kernel_arch}",
        f"CC={prefix}{arch.compiler()}",
        f"HOSTCC={prefix}gcc",
        f"KCFLAGS={mapped}",
        f"KAFLAGS={mapped}",
        *(() if arch.native else (f"CROSS_COMPILE={arch.gnu}-",)),
    ]


def _mapped(tree: Path) -> str:
    return f"-fdebug-prefix-map={tree}=."


def _has_modules(tree: Path) -> bool:
    return _setting(tree, "CONFIG_MODULES")


def _setting(tree: Path, name: str) -> bool:
    return f"{name}=y\n" in (tree / ".config").read_text(encoding="utf-8")


def _settings(config: str) -> dict[str, str]:
    """``.config`` or a fragment as a dictionary; what is not set is ``n``."""
    settings = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", config, re.MULTILINE))
    return settings | dict.fromkeys(re.findall(r"^# (CONFIG_\w+) is not set$", config, re.MULTILINE), "n")
