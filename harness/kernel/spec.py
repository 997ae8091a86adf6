"""Kernel specs: the one-word names by which people, bug records and caches call a kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from harness.arch import ARCHES, Arch
from harness.errors import UserError, nearest
from harness.kernel.names import definition_files


@dataclasses.dataclass(frozen=True)
class KernelSpec:
    """What the user wrote, taken apart. Two specs are equal if they mean the same."""

    text: str
    """The spec in its shortest spelling, as it appears in verdicts."""


@dataclasses.dataclass(frozen=True)
class DebianSpec(KernelSpec):
    """The newest stock Debian package of a series: ``debian:6.12-16k``."""

    series: str
    flavour: str


@dataclasses.dataclass(frozen=True)
class PathSpec(KernelSpec):
    """A kernel the user built: ``path:IMAGE[,vmlinux=F][,config=F][,system_map=F][,modules=DIR]``."""

    image: Path
    vmlinux: Path | None = None
    config: Path | None = None
    system_map: Path | None = None
    modules: Path | None = None


@dataclasses.dataclass(frozen=True)
class NamedSpec(KernelSpec):
    """A kernel that ``kernels/`` defines: ``async-fork``."""


@dataclasses.dataclass(frozen=True)
class TreeSpec(KernelSpec):
    """A kernel built from a user's source: ``tree:DIR[@REV][+FRAGMENT…]``; a tarball will do instead of a folder."""

    source: Path
    revision: str | None
    """None: what is there now."""
    fragments: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Flavour:
    """One build of Debian's kernel: the end of its package's name, and where it exists."""

    ending: str
    """End of the name after the version; ``{arch}`` is Debian's name of the architecture."""
    arches: frozenset[str]
    purpose: str


_EVERY_ARCH = frozenset(ARCHES)
DEFAULT_FLAVOUR = "cloud"
# The -unsigned packages: the same builds without the Secure Boot signature, and present on every
# architecture. Names as in Debian's linux source package, debian/config/*/defines.
FLAVOURS: dict[str, Flavour] = {
    "cloud": Flavour("-cloud-{arch}-unsigned", _EVERY_ARCH, "small: virtual machines only"),
    "generic": Flavour("-{arch}-unsigned", _EVERY_ARCH, "every driver"),
    "16k": Flavour("-{arch}-16k-unsigned", frozenset({"aarch64"}), "16 KiB pages"),
    "rt": Flavour("-rt-{arch}-unsigned", _EVERY_ARCH, "PREEMPT_RT"),
}

# What `cowpen kernels list` offers besides the cached ones.
KNOWN_SPECS = ("debian:6.1", "debian:6.12", "debian:6.12-16k")

_SERIES = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_PATH_KEYS = ("vmlinux", "config", "system_map", "modules")


def _parse_debian(rest: str) -> DebianSpec:
    series, dash, flavour = rest.partition("-")
    if not _SERIES.fullmatch(series):
        raise UserError(
            f"kernel spec 'debian:{rest}': {series!r} is not a series",
            mend="write two numbers and perhaps a flavour, such as debian:6.1 or debian:6.12-16k",
        )
    if not dash:
        flavour = DEFAULT_FLAVOUR
    if flavour not in FLAVOURS:
        raise UserError(
            f"kernel spec 'debian:{rest}': unknown flavour {flavour!r}", mend=nearest(flavour, FLAVOURS)
        )
    text = f"debian:{series}" + ("" if flavour == DEFAULT_FLAVOUR else f"-{flavour}")
    return DebianSpec(text, series, flavour)


def _parse_path(rest: str) -> PathSpec:
    image, *options = rest.split(",")
    if not image:
        raise UserError(f"kernel spec 'path:{rest}': no image", mend="write path:IMAGE, a bzImage or Image")
    files: dict[str, Path] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if key not in _PATH_KEYS:
            raise UserError(
                f"kernel spec 'path:{rest}': unknown part {option!r}", mend=nearest(key, _PATH_KEYS)
            )
        if not equals or not value or key in files:
            fault = "given twice" if key in files else "without a value"
            raise UserError(f"kernel spec 'path:{rest}': {key} {fault}", mend=f"write {key}=PATH once")
        files[key] = _expand(value)
    return PathSpec(f"path:{rest}", _expand(image), **files)


def _parse_tree(rest: str) -> TreeSpec:
    folder = _existing(rest)
    where, *fragments = rest[len(folder) :].split("+")
    more, at, revision = where.partition("@")
    folder += more
    if not folder or (at and not revision) or "" in fragments:
        raise UserError(
            f"kernel spec 'tree:{rest}': a part is empty", mend="write tree:DIR[@REV][+FRAGMENT…]"
        )
    if revision.startswith("-"):
        raise UserError(f"kernel spec 'tree:{rest}': {revision!r} is no revision")
    # Without the base nothing would boot.
    named = ("base", *(name for name in fragments if name != "base"))
    return TreeSpec(f"tree:{rest}", _expand(folder), revision or None, named)


def _existing(rest: str) -> str:
    """The longest part, up to an @ or a + or the end, that is a file's or folder's path; empty if none is.

    For such signs may stand in a path: /home/me@there/linux-6.1+rt.
    """
    ends = [match.start() for match in re.finditer(r"[@+]|$", rest)]
    return next((rest[:end] for end in reversed(ends) if _is_there(rest[:end])), "")


def _is_there(path: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # too long for a name, for example
        return bool(path) and _expand(path).exists()
    return False


def _expand(path: str) -> Path:
    # The shell leaves the tilde of "path:~/linux/…" alone, because it does not begin the word.
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"kernel spec: no home folder for {path!r}", mend="write the full path") from error


@dataclasses.dataclass(frozen=True)
class SpecKind:
    """One kind of kernel spec: how it is written, and what reads the part after the colon."""

    form: str
    parse: Callable[[str], KernelSpec]


KINDS: dict[str, SpecKind] = {
    "debian": SpecKind("debian:VERSION[-FLAVOUR]", _parse_debian),
    "tree": SpecKind("tree:DIR[@REV][+FRAGMENT…]", _parse_tree),
    "path": SpecKind("path:IMAGE[,vmlinux=F][,config=F][,system_map=F][,modules=DIR]", _parse_path),
}


def parse(text: str) -> KernelSpec:
    """Take a kernel spec apart; of files it only asks whether a ``tree:``, or a definition of ``kernels/``, is there.

    `UserError` says what was expected, or which known spec is nearest.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        if any(ord(character) < 32 for character in rest):
            raise UserError(f"kernel spec {text!r} holds a control character")
        return KINDS[kind].parse(rest)
    defined = definition_files()
    if text in defined:
        return NamedSpec(text)
    forms = " or ".join(["a name in kernels/", *(row.form for row in KINDS.values())])
    known = nearest(text, [*KNOWN_SPECS, *defined])
    raise UserError(f"unknown kernel spec {text!r}: expected {forms}", mend=known)


def without_files(text: str) -> str:
    """A spec without the files that come with a ``path:`` image: enough of a name; the records have it whole."""
    return text.partition(",")[0]


def check_arch(spec: KernelSpec, arch: Arch) -> None:
    """`UserError` if ``spec`` names a flavour that ``arch`` does not have."""
    if isinstance(spec, DebianSpec) and arch.name not in FLAVOURS[spec.flavour].arches:
        known = ", ".join(sorted(FLAVOURS[spec.flavour].arches))
        raise UserError(f"{spec.text} does not exist for {arch.name}", mend=f"it exists for {known}")
