"""A static busybox for the interactive guest, from Debian's package of it."""

from __future__ import annotations

from pathlib import Path

from harness import tools
from harness.arch import Arch
from harness.cache import Cache
from harness.errors import HostError, Tell
from harness.kernel.debian import download_package

_PACKAGE = "busybox-static"
_SECONDS = 600.0


def fetch_busybox(arch: Arch, cache: Cache, tell: Tell) -> Path:
    """The binary for ``arch``, fetched once; `HostError` if there is no way to."""

    def build(folder: Path) -> None:
        tell(f"fetching {_PACKAGE} for {arch.debian}")
        deb, _ = download_package(_PACKAGE, arch, cache, folder)
        tools.run(["dpkg-deb", "-x", deb, folder / "tree"], seconds=60)
        for place in ("bin/busybox", "usr/bin/busybox"):
            path = folder / "tree" / place
            if path.is_file() and not path.is_symlink():
                path.rename(folder / "busybox")
                return
        raise HostError(f"{deb.name} holds no busybox")

    return cache.entry("busybox", arch.name, build, seconds=_SECONDS, what=_PACKAGE) / "busybox"
