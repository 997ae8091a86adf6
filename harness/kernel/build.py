"""Kernels built from source: a source with patches, and the fragments that are named and nothing else.

A fragment is a part of a kernel's configuration: ``kernels/fragments/NAME.config`` and, where it exists,
``NAME-ARCH.config``. Later fragments override earlier ones; what none names is off (``allnoconfig``).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import tools
from harness.arch import ARCHES, Arch
from harness.cache import Cache, digest, occupied
from harness.errors import BuildError, CowpenError, HostError, Tell, ToolMissingError, UserError, nearest
from harness.folders import data_folder
from harness.kernel import image, kconfig
from harness.kernel.buildtree import BUILD_SECONDS, BuildTree, opened
from harness.kernel.kconfig import Missing
from harness.kernel.source import Source

KIND = "built"
PROVENANCE = "provenance.json"
_FORMAT = "built-4"  # another one when kernels are built differently
# What a patch says before it changes anything.
_TEXT = re.compile(r"\A(?:(?!--- |diff ).*\n)*")
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
class Recipe:
    """What a kernel is built of."""

    name: str
    """For people: ``async-fork``, ``6.12+base+kasan``."""
    source: Source
    fragments: tuple[Path, ...]
    patches: tuple[Path, ...] = ()


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
        return self.folder / "vmlinux" if self.provenance["debug_info"] else None

    @property
    def kit(self) -> Path | None:
        """What `harness.kernel.kit` needs; None for a kernel without modules."""
        path = self.folder / "kit"
        return path if path.exists() else None

    @property
    def provenance(self) -> dict[str, Any]:
        """Source, patches, fragments and compiler, and the options that were not taken."""
        return dict(json.loads((self.folder / PROVENANCE).read_text(encoding="utf-8")))

    @property
    def release(self) -> str:
        """``uname -r``."""
        return image.inspect(self.image, self.arch).release

    @property
    def bytes(self) -> int:
        """What it takes of the disk."""
        return occupied(self.folder)

    def module(self, name: str) -> Path:
        """A module of the kernel's own source, such as ``test_ubsan``; `UserError` if it was not built."""
        path = self.folder / "modules" / f"{name}.ko"
        if not path.exists():
            built = sorted(path.stem for path in (self.folder / "modules").glob("*.ko"))
            raise UserError(f"no module {name} was built", mend=nearest(name, built))
        return path

    @property
    def spec(self) -> str:
        """The kernel spec of the image."""
        parts = [f"path:{self.image}", f"config={self.config}", f"system_map={self.system_map}"]
        return ",".join(parts if self.vmlinux is None else [*parts, f"vmlinux={self.vmlinux}"])


def build(recipe: Recipe, arch: Arch, cache: Cache, tell: Tell, *, jobs: int | None = None) -> Built:
    """The kernel of ``recipe``, built if the cache has none; with ``jobs`` compilers at once (default: CPUs and one).

    Raises `HostError` without tools or room, `BuildError` with the patch that does not apply, the options that the
    kernel does not take, or the compiler's first complaint. What only a user's own source does not take is told, and
    stands in the provenance.
    """
    jobs = jobs or len(os.sched_getaffinity(0)) + 1  # the one more computes while another waits for a file
    source = recipe.source.patched(recipe.patches, cache)
    key = digest(_FORMAT, arch.name, source.tree, *recipe.fragments, tools.identity(arch.compiler()))

    def make(folder: Path) -> None:
        begin = time.monotonic()
        with opened(source, recipe.fragments, arch, cache, tell) as tree:
            tell(f"{recipe.name}: the source, {source.name}")
            tree.turn_into(source)
            missing = tree.configure(recipe.fragments)
            _judge(missing, recipe, arch)
            anew = not tree.built_before
            tell(f"{recipe.name}: building {'all of it' if anew else 'what has changed'} for {arch.name}")
            tree.make(jobs, tell)
            _harvest(tree, folder)
        provenance = {
            "kind": "built",
            "name": recipe.name,
            "recipe": recipe_identity(recipe.fragments, recipe.patches, arch),
            "arch": arch.name,
            "source": {"name": source.name, "tree": source.tree, **source.provenance},
            "patches": {patch.name: digest(patch) for patch in recipe.patches},
            "fragments": [path.name for path in recipe.fragments],
            "missing": [str(option) for option in missing],
            "compiler": _version(arch),
            "debug_info": tree.has("CONFIG_DEBUG_INFO"),
            "whole": anew,
            "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - begin, 1),
        }
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")

    what = f"the kernel {recipe.name} for {arch.name}"
    folder = cache.entry(KIND, key, make, seconds=2 * BUILD_SECONDS, what=what, tell=tell, keep=True)
    built = Built(folder, arch)
    for option in built.provenance["missing"]:
        tell(f"{recipe.name}: without {option}")
    return built


def recipe_identity(fragments: Sequence[Path], patches: Sequence[Path], arch: Arch) -> str:
    """Of all but the source: another when a fragment is, what a patch does, the compiler, or how kernels are built."""
    try:
        compiler = tools.identity(arch.compiler())
    except ToolMissingError:
        compiler = ""
    changes = [
        _TEXT.sub("", patch.read_text(encoding="utf-8", errors="replace"), count=1) for patch in patches
    ]
    return digest(_FORMAT, compiler, *(digest(*parts) for parts in (fragments, changes)))


def cached(cache: Cache) -> tuple[list[Built], list[CowpenError]]:
    """All kernels that were built and are still there, and an error for each entry that is damaged."""
    found: list[Built] = []
    faults: list[CowpenError] = []
    folder = cache.root / KIND
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            provenance = json.loads((entry / PROVENANCE).read_text(encoding="utf-8"))
            found.append(Built(entry, ARCHES[provenance["arch"]]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            faults.append(HostError(f"the built kernel {entry} is damaged ({error!r})", mend="remove it"))
    return found, faults


def fragment_names() -> dict[str, tuple[str, ...]]:
    """The fragments of ``kernels/`` by name, each with the architectures that have it."""
    found: dict[str, set[str]] = {}
    for path in (data_folder("kernels") / "fragments").glob("*.config"):
        name, dash, arch = path.stem.rpartition("-")
        one = dash and arch in ARCHES
        found.setdefault(name if one else path.stem, set()).update([arch] if one else ARCHES)
    return {name: tuple(sorted(arches)) for name, arches in sorted(found.items())}


def fragment_files(names: Sequence[str], arch: Arch) -> tuple[Path, ...]:
    """The files of fragments, in their order, each name a fragment of ``kernels/`` or, with a ``/``, a file.

    `UserError` for one that does not exist, with the nearest, or that `harness.kernel.kconfig` cannot read.
    """
    folder = data_folder("kernels") / "fragments"
    files: list[Path] = []
    for name in names:
        if "/" in name:
            found = [Path(name).expanduser().absolute()]
            if not found[0].is_file():
                raise UserError(
                    f"no file {found[0]}", mend="a fragment without a / is one of kernels/fragments"
                )
        else:
            named = (folder / f"{name}{end}.config" for end in ("", f"-{arch.name}"))
            found = [path for path in named if path.is_file()]
        if not found:
            known = fragment_names()
            if name in known:
                raise UserError(
                    f"no fragment {name} for {arch.name}", mend=f"it exists for {', '.join(known[name])}"
                )
            raise UserError(f"no fragment {name} in {folder}", mend=nearest(name, known))
        files += found
    for path in files:
        kconfig.check_fragment(path)
    return tuple(files)


def _judge(missing: Sequence[Missing], recipe: Recipe, arch: Arch) -> None:
    """Stop for options that our own choice of source should have; another source may lack some."""
    if missing and recipe.source.ours:
        names = " or ".join(path.name for path in recipe.fragments)
        raise BuildError(
            f"the configuration of {recipe.name} for {arch.name} does not take {missing[0]}",
            mend=f"mend {names}",
            detail="\n".join(map(str, missing)),
        )


def _harvest(tree: BuildTree, folder: Path) -> None:
    """Copy what a kernel is known by from its tree to ``folder``."""
    source, arch = tree.source, tree.arch
    for path, name in (
        (source / arch.image_target, "image"),
        (source / "System.map", "System.map"),
        (source / "vmlinux", "vmlinux"),
        (source / ".config", "config"),
    ):
        shutil.copyfile(path, folder / name)
    if not tree.has("CONFIG_MODULES"):
        return
    (folder / "modules").mkdir()
    order = (source / "modules.order").read_text(encoding="utf-8").split()
    for name in order:
        module = source / Path(name).with_suffix(".ko")
        shutil.copyfile(module, folder / "modules" / module.name)
    for pattern in _KIT:
        for path in source.glob(pattern.format(arch=arch.kernel_arch)):
            target = folder / "kit" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, symlinks=True)
            else:
                shutil.copy2(path, target)


def _version(arch: Arch) -> str:
    return tools.run([arch.compiler(), "--version"], seconds=30).stdout.partition("\n")[0]
