"""The source of a kernel, as a tarball in the cache and as a tree on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from harness import tools
from harness.arch import host_arch
from harness.cache import Cache
from harness.errors import Tell
from harness.kernel.debian import download_package

_FETCH_SECONDS = 1500.0
UNPACK_SECONDS = 600.0


def fetch_source(series: str, cache: Cache, tell: Tell) -> Path:
    """The tarball of Debian's linux-source package of a series (``6.1``), the newest when it was first asked for.

    Fetched once, so that what is built from it stays comparable while the archive moves on. Raises `HostError` if the
    archive does not have it.
    """
    package = f"linux-source-{series}"

    def build(folder: Path) -> None:
        tell(f"fetching {package}, 140 MB")
        deb, chosen = download_package(package, host_arch(), cache, folder)
        tools.run(["dpkg-deb", "-x", deb, folder / "tree"], seconds=UNPACK_SECONDS)
        (folder / f"tree/usr/src/{package}.tar.xz").rename(folder / "source.tar.xz")
        shutil.rmtree(folder / "tree")
        deb.unlink()
        provenance = {"package": package, "version": chosen.version, "sha256": chosen.sha256}
        (folder / "provenance.json").write_text(json.dumps(provenance) + "\n", encoding="utf-8")

    return cache.entry("sources", package, build, seconds=_FETCH_SECONDS, what=package) / "source.tar.xz"


def unpack(tarball: Path, folder: Path) -> Path:
    """The source tree, below ``folder``, which is made."""
    folder.mkdir()
    tools.run(["tar", "-xJf", tarball, "-C", folder], seconds=UNPACK_SECONDS)
    (tree,) = folder.iterdir()
    return tree
