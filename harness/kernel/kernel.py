"""A kernel that a guest can boot, and where it came from."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness import cache as caching
from harness.arch import ARCHES, Arch
from harness.cache import Cache
from harness.errors import CowpenError, Tell, UserError
from harness.kernel import debian, debversion, image
from harness.kernel.build import Recipe, build, fragment_files
from harness.kernel.definition import define
from harness.kernel.source import user_source
from harness.kernel.spec import DebianSpec, KernelSpec, NamedSpec, PathSpec, TreeSpec, check_arch, parse

_UPSTREAM = re.compile(r"[0-9]+\.[0-9]+(?:\.[0-9]+)?(?:-rc[0-9]+)?")
_DEBIAN_BANNER = re.compile(r" Debian ([0-9][\w.+~-]*)")
# A kernel configured for other pages than 4 KiB says so here (by CONFIG_PAGE_SIZE_* since 6.9).
_PAGE_SIZES = {
    "CONFIG_ARM64_16K_PAGES": 16384,
    "CONFIG_ARM64_64K_PAGES": 65536,
    "CONFIG_PAGE_SIZE_16KB": 16384,
    "CONFIG_PAGE_SIZE_64KB": 65536,
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel: its files, its name and its provenance. Paths are absolute and the files exist."""

    spec: str
    arch: Arch
    release: str
    """``uname -r``; ``unknown`` if the image does not tell."""
    version: str
    """Upstream version, such as ``6.1.192``; ``unknown`` if there is no telling."""
    package_version: str | None
    """Version of the distribution's package, such as ``6.1.192-2``."""
    image: Path
    config: Path | None
    system_map: Path | None
    vmlinux: Path | None
    """ELF file with symbols, for addresses in reports; stock kernels have none."""
    modules: Path | None
    """The folder ``lib/modules/RELEASE``."""
    provenance: dict[str, Any] = dataclasses.field(hash=False)
    """Where the kernel came from; ``stale`` is True when the archive could not be asked for a newer one."""
    content: str
    """Digest of what a guest can see of this kernel (image and modules): the key of snapshots."""
    page_size: int
    """Bytes."""

    @property
    def display(self) -> str:
        """For people: ``debian:6.1  (6.1.192-2)``."""
        version = self.package_version or self.release
        return self.spec if version == "unknown" else f"{self.spec}  ({version})"

    def config_value(self, name: str) -> str | None:
        """Value of ``CONFIG_X``: ``y``, ``m``, a number, or a string without its quotes.

        None if the option is not set, and also if the kernel came without a config (``config`` is None).
        """
        return self._config.get(name)

    @functools.cached_property
    def _config(self) -> dict[str, str]:
        return read_config(self.config) if self.config else {}


def resolve(
    spec: str,
    arch: Arch,
    cache: Cache,
    *,
    offline: bool = False,
    refresh: bool = False,
    tell: Tell | None = None,
    jobs: int | None = None,
) -> Kernel:
    """The kernel that ``spec`` means for ``arch``, fetched or built if need be, with ``jobs`` compilers at once.

    ``offline``: the cache must do. ``refresh``: look for a newer package even if today's look is
    remembered. ``tell`` is told, in one line each, what takes time and what is out of the ordinary.
    Raises `UserError` for a wrong spec or image, `HostError` when a stock kernel is not to be had, `BuildError` when
    one does not build.
    """
    parsed = parse(spec)
    check_arch(parsed, arch)
    request = _Request(arch, cache, offline, refresh, tell or _silent, jobs)
    return _RESOLVERS[type(parsed)](parsed, request)


def check(spec: str, arch: Arch) -> KernelSpec:
    """The spec, taken apart; `UserError` for all that can be known to be wrong before anything is fetched or built."""
    parsed = parse(spec)
    check_arch(parsed, arch)
    if isinstance(parsed, NamedSpec):
        define(parsed.text).check(arch)
    elif isinstance(parsed, TreeSpec):
        fragment_files(parsed.fragments, arch)
        if not parsed.source.exists():
            raise UserError(f"no folder {parsed.source}")
    return parsed


@dataclasses.dataclass(frozen=True)
class _Request:
    """The arguments of `resolve`, for the resolver of one kind of spec."""

    arch: Arch
    cache: Cache
    offline: bool
    refresh: bool
    tell: Tell
    jobs: int | None


def cached(cache: Cache) -> tuple[list[Kernel], list[CowpenError]]:
    """All fetched kernels, newest of a spec first, and what is wrong with the entries that are damaged."""
    kernels, faults = [], []
    folder = cache.root / debian.CACHE_KIND
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            kernels.append(_from_entry(entry, debian.read_provenance(entry)))
        except CowpenError as error:
            faults.append(error)
    kernels.sort(
        key=lambda kernel: (kernel.arch.name, kernel.spec, str(kernel.provenance.get("fetched"))),
        reverse=True,
    )
    return kernels, faults


def read_config(path: Path) -> dict[str, str]:
    """A kernel's ``.config``; `UserError` if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return parse_config(file)
    except OSError as error:
        raise UserError(f"cannot read kernel config {path} ({error.strerror})") from error


def parse_config(lines: Iterable[str]) -> dict[str, str]:
    """The options that are set in a ``.config``, with their values."""
    values = {}
    for line in lines:
        if line.startswith("CONFIG_"):
            name, equals, value = line.strip().partition("=")
            if equals:
                values[name] = value.strip('"')
    return values


def _silent(_: str) -> None:
    pass


def _resolve_debian(spec: KernelSpec, request: _Request) -> Kernel:
    assert isinstance(spec, DebianSpec)
    fetched = debian.fetch(
        spec,
        request.arch,
        request.cache,
        offline=request.offline,
        refresh=request.refresh,
        tell=request.tell,
    )
    with contextlib.suppress(FileNotFoundError):  # pruned this very moment: whoever opens its files says so
        request.cache.keep(fetched.folder)
    return _from_entry(fetched.folder, fetched.provenance)


def _from_entry(folder: Path, provenance: dict[str, Any]) -> Kernel:
    release, version = provenance["release"], provenance["version"]
    modules = folder / "lib/modules" / release
    config = _existing(folder / "config")
    return Kernel(
        spec=provenance["spec"],
        arch=ARCHES[provenance["arch"]],
        release=release,
        version=debversion.upstream(version),
        package_version=version,
        image=folder / "image",
        config=config,
        system_map=_existing(folder / "System.map"),
        vmlinux=None,
        modules=modules if modules.is_dir() else None,
        provenance=provenance,
        content=caching.digest("debian", provenance["sha256"]),
        page_size=_page_size(read_config(config) if config else {}),
    )


def _resolve_path(spec: KernelSpec, request: _Request) -> Kernel:
    assert isinstance(spec, PathSpec)
    path = spec.image.absolute()
    facts = image.inspect(path, request.arch)
    # What `make install` and every distribution put beside vmlinuz-RELEASE, and what a build tree holds.
    prefix, dash, suffix = path.name.partition("-")
    installed = dash and prefix in ("vmlinuz", "vmlinux", "Image")
    config = _given(spec.config, "config")
    system_map = _given(spec.system_map, "system_map")
    vmlinux = _given(spec.vmlinux, "vmlinux")
    if installed:
        config = config or _existing(path.with_name(f"config-{suffix}"))
        system_map = system_map or _existing(path.with_name(f"System.map-{suffix}"))
    elif path.as_posix().endswith(f"/{request.arch.image_target}"):
        tree = path.parents[request.arch.image_target.count("/")]
        config = config or _existing(tree / ".config")
        system_map = system_map or _existing(tree / "System.map")
        vmlinux = vmlinux or _existing(tree / "vmlinux")
    modules = _modules_folder(spec.modules, facts.release)
    upstream = _UPSTREAM.match(facts.release)
    package = _DEBIAN_BANNER.search(facts.banner)
    version = debversion.upstream(package[1]) if package else upstream[0] if upstream else "unknown"
    return Kernel(
        spec=spec.text,
        arch=request.arch,
        release=facts.release,
        version=version,
        package_version=package[1] if package else None,
        image=path,
        config=config,
        system_map=system_map,
        vmlinux=vmlinux,
        modules=modules,
        provenance={"kind": "path", "image": str(path), "banner": facts.banner},
        content=caching.digest("path", path, _identity(modules)),
        page_size=facts.page_size or _page_size(read_config(config) if config else {}),
    )


def _resolve_named(spec: KernelSpec, request: _Request) -> Kernel:
    recipe = define(spec.text).recipe(request.arch, request.cache, request.tell)
    return _built(spec, recipe, request)


def _resolve_tree(spec: KernelSpec, request: _Request) -> Kernel:
    assert isinstance(spec, TreeSpec)
    fragments = fragment_files(spec.fragments, request.arch)
    source = user_source(spec.source, spec.revision, request.cache, request.tell)
    return _built(spec, Recipe(spec.text, source, fragments), request)


def _built(spec: KernelSpec, recipe: Recipe, request: _Request) -> Kernel:
    built = build(recipe, request.arch, request.cache, request.tell, jobs=request.jobs)
    facts = image.inspect(built.image, request.arch)
    upstream = _UPSTREAM.match(facts.release)
    modules = built.folder / "modules"
    return Kernel(
        spec=spec.text,
        arch=request.arch,
        release=facts.release,
        version=upstream[0] if upstream else "unknown",
        package_version=None,
        image=built.image,
        config=built.config,
        system_map=built.system_map,
        vmlinux=built.vmlinux,
        modules=modules if modules.is_dir() else None,
        provenance=built.provenance,
        content=caching.digest("built", built.folder.name),
        page_size=facts.page_size or _page_size(read_config(built.config)),
    )


_RESOLVERS: dict[type[KernelSpec], Callable[[KernelSpec, _Request], Kernel]] = {
    DebianSpec: _resolve_debian,
    NamedSpec: _resolve_named,
    TreeSpec: _resolve_tree,
    PathSpec: _resolve_path,
}


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _given(path: Path | None, key: str) -> Path | None:
    if path is None:
        return None
    if not path.is_file():
        raise UserError(f"kernel spec: no file {path}", mend=f"correct {key}=…")
    return path.absolute()


def _modules_folder(path: Path | None, release: str) -> Path | None:
    """``lib/modules/RELEASE`` itself, or a folder it is in (INSTALL_MOD_PATH of ``make modules_install``)."""
    if path is None:
        return None
    path = path.absolute()
    if not path.is_dir():
        raise UserError(f"kernel spec: no folder {path}", mend="correct modules=…")
    if "/" not in release and release != "unknown":
        for inner in (path / "lib/modules" / release, path / "modules" / release, path / release):
            if inner.is_dir():
                return inner
    if (path / "lib/modules").is_dir():
        there = ", ".join(sorted(entry.name for entry in (path / "lib/modules").iterdir())) or "none"
        raise UserError(
            f"kernel spec: {path} has no modules of {release}", mend=f"modules there are of: {there}"
        )
    return path


def _page_size(config: dict[str, str]) -> int:
    return next((size for name, size in _PAGE_SIZES.items() if config.get(name) == "y"), 4096)


def _identity(modules: Path | None) -> str:
    """Names, sizes and times of a user's modules: their content would take seconds to read."""
    if modules is None:
        return ""
    lines = []
    for folder, _, names in os.walk(modules):
        for name in names:
            status = (Path(folder) / name).lstat()
            lines.append(f"{folder}/{name} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(sorted(lines))
