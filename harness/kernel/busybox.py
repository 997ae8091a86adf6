"""A static busybox for the interactive guest, from Debian's package of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from harness import tools
from harness.arch import Arch
from harness.cache import Cache
from harness.errors import HostError
from harness.kernel import aptsources
from harness.kernel.apt import Apt

_PACKAGE = "busybox-static"
_SECONDS = 600.0


def fetch_busybox(arch: Arch, cache: Cache, tell: Callable[[str], None]) -> Path:
    """The binary for ``arch``, fetched once; `HostError` if there is no way to."""

    def build(folder: Path) -> None:
        tell(f"fetching {_PACKAGE} for {arch.debian}")
        deb = _download(arch, cache, folder)
        tools.run(["dpkg-deb", "-x", deb, folder / "tree"], seconds=60)
        for place in ("bin/busybox", "usr/bin/busybox"):
            path = folder / "tree" / place
            if path.is_file() and not path.is_symlink():
                path.rename(folder / "busybox")
                return
        raise HostError(f"{deb.name} holds no busybox")

    return cache.entry("busybox", arch.name, build, seconds=_SECONDS, what=_PACKAGE) / "busybox"


def _download(arch: Arch, cache: Cache, folder: Path) -> Path:
    sources = aptsources.host_sources()
    if sources:
        name = hashlib.sha256(aptsources.render(sources, arch.debian).encode()).hexdigest()[:12]
        apt = Apt(cache.root / "apt" / f"{arch.debian}-{name}", arch.debian, sources)
        with cache.lock(f"apt-{arch.debian}", seconds=_SECONDS, what=f"apt's index for {arch.debian}"):
            if apt.age is None:
                apt.update()
            found = apt.candidates([_PACKAGE])
            if found:
                return apt.download(found[0], folder)
    raise HostError(
        f"no package {_PACKAGE} for {arch.debian} in the Debian archives known here",
        mend="check the host's apt sources; only `cowpen shell` needs it",
    )
