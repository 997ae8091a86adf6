"""Stock Debian kernels: find the newest package of a series, fetch it, unpack what a guest needs.

The last answer to "which is the newest?" is remembered for a day, so that a warm run asks nobody, and for
as long as it takes when the archive cannot be reached.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import tools
from harness.arch import ARCHES, Arch
from harness.cache import Cache
from harness.errors import BuildError, DeadlineError, HostError, Tell
from harness.kernel import aptsources, debversion
from harness.kernel.apt import Apt, Candidate, write_atomically
from harness.kernel.spec import FLAVOURS, DebianSpec

CACHE_KIND = "kernels"
PROVENANCE = "provenance.json"
_FORMAT = 1  # raise it when the content of an entry changes, and old entries are not used any more
_INDEX_SECONDS = 24 * 3600.0  # how old an index may be before it is refreshed
_LOCK_SECONDS = 1200.0  # an update and a download of another cowpen, on a slow line
_ENTRY_SECONDS = 1500.0
_UNPACK_SECONDS = 300.0
# After the series: an ABI number (6.1.0-56), Debian's own mark (6.12.117+deb12), or nothing.
_ABI = r"\.[0-9]+(?:-[0-9]+|\+[a-z]+[0-9.]*)?"


@dataclasses.dataclass(frozen=True)
class Fetched:
    """An unpacked package in the cache."""

    folder: Path
    """Holds ``image``, ``config``, ``System.map``, ``lib/modules/RELEASE`` and ``provenance.json``."""
    provenance: dict[str, Any]


def fetch(spec: DebianSpec, arch: Arch, cache: Cache, *, offline: bool, refresh: bool, tell: Tell) -> Fetched:
    """The newest kernel that matches ``spec``, from the cache if the last look is less than a day old.

    Raises `HostError` when it is neither in the cache nor to be had, with apt's own words.
    """
    newest = _Newest(cache, spec, arch)
    known = newest.read()
    if known and (offline or (newest.fresh and not refresh)):
        folder = cache.get(CACHE_KIND, known.key)
        if folder:
            return _fetched(folder, stale=not newest.fresh)
    if offline:
        raise HostError(
            f"{spec.text} for {arch.name} is not in the cache, and this run is offline",
            mend=f"cowpen kernels fetch {spec.text} --arch {arch.name}, once, with a network",
        )
    try:
        folder = _fetch_newest(spec, arch, cache, newest, refresh=refresh, tell=tell)
    except (HostError, DeadlineError) as error:
        folder = cache.get(CACHE_KIND, known.key) if known else None
        if known is None or folder is None:
            raise
        tell(f"{spec.text}: {error.message}; going on with {known.version} from the cache")
        return _fetched(folder, stale=True)
    return _fetched(folder, stale=not newest.fresh)


@dataclasses.dataclass(frozen=True)
class _Known:
    """One remembered answer."""

    version: str
    key: str


class _Newest:
    """The remembered answer for one spec and architecture."""

    def __init__(self, cache: Cache, spec: DebianSpec, arch: Arch) -> None:
        self._path = cache.root / "apt" / "newest" / f"{spec.series}-{spec.flavour}_{arch.debian}.json"
        self._looked = 0.0

    @property
    def fresh(self) -> bool:
        return 0 <= time.time() - self._looked < _INDEX_SECONDS

    def read(self) -> _Known | None:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            known = _Known(str(data["version"]), str(data["key"]))
            self._looked = float(data["looked"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # never asked, or damaged: ask
        return known if "/" not in known.key else None

    def write(self, known: _Known, *, complete: bool) -> None:
        """Remember; an answer of which not every archive had a part is asked again next time."""
        self._looked = time.time() if complete else 0.0
        text = json.dumps({**dataclasses.asdict(known), "looked": self._looked})
        try:
            write_atomically(self._path, text)
        except OSError as error:
            raise HostError(
                f"cannot write {self._path} ({error.strerror})", mend="make the cache folder writable"
            ) from error


@dataclasses.dataclass(frozen=True)
class _Choice:
    """The newest package, and the apt that has it."""

    apt: Apt
    candidate: Candidate
    complete: bool
    """Whether every archive answered."""


def _fetch_newest(
    spec: DebianSpec, arch: Arch, cache: Cache, newest: _Newest, *, refresh: bool, tell: Tell
) -> Path:
    for command in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
        try:
            tools.find(command)
        except HostError as error:
            raise HostError(
                f"{command} not found, so there is no way to fetch {spec.text}",
                mend="stock kernels need a host with apt and dpkg; path:IMAGE kernels work without",
            ) from error
    lock = functools.partial(
        cache.lock, f"apt-{arch.debian}", seconds=_LOCK_SECONDS, what=f"apt's index for {arch.debian}"
    )
    with lock():
        choice = _choose(spec, arch, cache, refresh=refresh, tell=tell)

    def build(folder: Path) -> None:
        with lock():
            _download_and_unpack(spec, arch, choice, folder, tell)

    key = _key(choice.candidate, arch)
    try:
        folder = _entry(cache, key, build, spec)
    except HostError:
        # The index may name a package that has been replaced since: look once more, then believe it.
        if choice.apt.age is None or choice.apt.age < 60:
            raise
        with lock():
            choice = _choose(spec, arch, cache, refresh=True, tell=tell)
        key = _key(choice.candidate, arch)
        folder = _entry(cache, key, build, spec)
    newest.write(_Known(choice.candidate.version, key), complete=choice.complete)
    return folder


def _entry(cache: Cache, key: str, build: Callable[[Path], None], spec: DebianSpec) -> Path:
    return cache.entry(CACHE_KIND, key, build, seconds=_ENTRY_SECONDS, what=spec.text)


def _choose(spec: DebianSpec, arch: Arch, cache: Cache, *, refresh: bool, tell: Tell) -> _Choice:
    """Ask the host's own Debian archives for the newest package of the series."""
    ending = FLAVOURS[spec.flavour].ending.format(arch=arch.debian)
    wanted = f"linux-image-{spec.series}.*{ending}"
    sources = aptsources.host_sources()
    if not sources:
        raise HostError(
            f"no Debian archive to look for {wanted} in",
            mend="add a Debian archive to the host's apt sources, or use path:IMAGE",
        )
    apt = private_apt(sources, arch, cache)
    complaint = ""
    if refresh or apt.age is None or apt.age >= _INDEX_SECONDS:
        tell(f"{spec.text}: looking for the newest package for {arch.debian}")
        complaint = _update(apt)
        if complaint:
            tell(f"{spec.text}: some archives did not answer ({complaint})")
    pattern = _name_pattern(spec, arch)
    names = apt.names("linux-image-")
    found = apt.candidates([name for name in names if pattern.fullmatch(name)])
    if found:
        return _Choice(apt, max(found, key=_newness), complete=not complaint)
    series = {match[1] for name in names if (match := re.match(r"linux-image-(\d+\.\d+)\.", name))}
    there = ", ".join(sorted(series, key=lambda text: [int(part) for part in text.split(".")])) or "none"
    raise HostError(
        f"no package matches {wanted} in {', '.join(aptsources.suites(sources))} for {arch.debian}",
        mend=f"kernel series there: {there}",
    )


def private_apt(sources: list[aptsources.Stanza], arch: Arch, cache: Cache) -> Apt:
    """The apt of the cache for ``arch``; its user holds the cache's lock ``apt-DEBIAN_ARCH``."""
    text = aptsources.render(sources, arch.debian)
    name = f"{arch.debian}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return Apt(cache.root / "apt" / name, arch.debian, sources)


def download_package(
    package: str, arch: Arch, cache: Cache, folder: Path, *, version: str | None = None
) -> tuple[Path, Candidate]:
    """Fetch a package other than a kernel image, the newest or this ``version``, into the empty ``folder``.

    An index that does not have it is asked for anew once. Raises `HostError` if there is none.
    """
    sources = aptsources.host_sources()
    with cache.lock(f"apt-{arch.debian}", seconds=_LOCK_SECONDS, what=f"apt's index for {arch.debian}"):
        apt = private_apt(sources, arch, cache)
        for anew in (False, True) if sources else ():
            if anew or apt.age is None or apt.age >= _INDEX_SECONDS:
                _update(apt)
            found = [one for one in apt.candidates([package]) if version in (None, one.version)]
            if found:
                newest = max(found, key=_newness)
                return apt.download(newest, folder), newest
    wanted = f"{package} {version}" if version else package
    raise HostError(
        f"no package {wanted} for {arch.debian} in the Debian archives known here",
        mend="check the host's apt sources",
    )


def _update(apt: Apt) -> str:
    try:
        return apt.update()
    except OSError as error:
        raise HostError(
            f"cannot keep apt's index in {apt.folder} ({error.strerror})",
            mend="make the cache folder writable, or point XDG_CACHE_HOME elsewhere",
        ) from error


def _name_pattern(spec: DebianSpec, arch: Arch) -> re.Pattern[str]:
    ending = FLAVOURS[spec.flavour].ending.format(arch=arch.debian)
    return re.compile(rf"linux-image-{re.escape(spec.series)}{_ABI}{re.escape(ending)}")


def _compare(left: Candidate, right: Candidate) -> int:
    # Same version under two names: the higher ABI number, that is the later name.
    return debversion.compare(left.version, right.version) or debversion.compare(left.package, right.package)


_newness = functools.cmp_to_key(_compare)


def _key(candidate: Candidate, arch: Arch) -> str:
    safe = re.sub(r"[^\w.+~-]", "_", f"{candidate.package}_{candidate.version}_{arch.debian}")
    return f"{safe}-{candidate.sha256[:12]}-{_FORMAT}"


def _download_and_unpack(spec: DebianSpec, arch: Arch, choice: _Choice, folder: Path, tell: Tell) -> None:
    candidate = choice.candidate
    tell(f"{spec.text}: fetching {candidate.package} {candidate.version}, {candidate.size / 1e6:.0f} MB")
    work = folder / "work"
    work.mkdir()
    deb = choice.apt.download(candidate, work)
    # apt has verified this already; once more, because the hash is what provenance claims.
    with deb.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != candidate.sha256:
        raise HostError(f"{candidate.filename} is not what the index promises", mend="try again later")
    tell(f"{spec.text}: unpacking")
    release = unpack(deb, folder)
    shutil.rmtree(work)
    provenance = {
        "kind": "debian",
        "spec": spec.text,
        "arch": arch.name,
        "release": release,
        "package": candidate.package,
        "version": candidate.version,
        "sha256": sha256,
        "archive": choice.apt.origin(candidate),
        "filename": candidate.filename,
        "fetched": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "bytes": sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()),
    }
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


def unpack(deb: Path, folder: Path) -> str:
    """Take image, config, System.map and modules out of a kernel package into ``folder``.

    Nothing of the package is run, and only plain files at known places are kept. Returns the release.
    Raises `BuildError` if this is no kernel package.
    """
    tree = deb.with_name("tree")
    tools.run(["dpkg-deb", "-x", deb, tree], seconds=_UNPACK_SECONDS)
    images = [path for path in tree.glob("boot/vmlinu[xz]-*") if _plain(path)]
    if len(images) != 1:
        raise BuildError(f"{deb.name} holds {len(images)} kernel images where one was expected")
    release = images[0].name.partition("-")[2]
    images[0].rename(folder / "image")
    for name in ("config", "System.map"):
        path = tree / "boot" / f"{name}-{release}"
        if _plain(path):
            path.rename(folder / name)
    # Debian 13 and later ship usr/lib, because /lib is a link to it there.
    for top in ("lib", "usr/lib"):
        modules = tree / top / "modules" / release
        if modules.is_dir() and not modules.is_symlink():
            for path in [path for path in modules.rglob("*") if not path.is_dir() or path.is_symlink()]:
                if not _plain(path):
                    path.unlink()  # build and source: links out of the package
            (folder / "lib/modules").mkdir(parents=True)
            modules.rename(folder / "lib/modules" / release)
            break
    return release


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _fetched(folder: Path, *, stale: bool) -> Fetched:
    provenance = read_provenance(folder)
    return Fetched(folder, {**provenance, "stale": True} if stale else provenance)


def read_provenance(folder: Path) -> dict[str, Any]:
    """What is known of a cached kernel; `HostError` if the entry is damaged."""
    fault = ""
    provenance = {}
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fault = str(error)
    if not fault:
        texts = ("spec", "arch", "release", "version", "sha256")
        if not isinstance(provenance, dict) or not all(isinstance(provenance.get(key), str) for key in texts):
            fault = f"{PROVENANCE} is incomplete"
        elif provenance["arch"] not in ARCHES:
            fault = f"unknown architecture {provenance['arch']}"
        elif not (folder / "image").is_file():
            fault = "no image"
    if fault:
        raise HostError(f"the cached kernel {folder} is damaged ({fault})", mend=f"rm -r {folder}")
    return dict(provenance)
