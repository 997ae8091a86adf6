"""Stock kernels from a small package archive made here, with the real apt and dpkg-deb and no network."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness.arch import AARCH64, X86_64
from harness.cache import Cache
from harness.errors import HostError, UserError
from harness.kernel.debian import download_package
from harness.kernel.kernel import Kernel, cached, resolve

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("apt-get", "apt-cache", "dpkg-deb")), reason="no apt here"
)


class Archive:
    """A package archive in a folder, and an apt configuration of a host that uses it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "archive"
        self.pool = self.root / "pool"
        self.pool.mkdir(parents=True)
        self.etc = folder / "etc"
        (self.etc / "parts").mkdir(parents=True)
        self.conf = folder / "host-apt.conf"
        self.conf.write_text(
            f'Dir::Etc::sourcelist "{self.etc}/sources.list";\nDir::Etc::sourceparts "{self.etc}/parts";\n'
        )
        self.sources("trusted=yes")

    def sources(self, options: str) -> None:
        (self.etc / "sources.list").write_text(
            f"deb [{options}] file:{self.root} bookworm main\n"
            # A third-party archive that does not answer must not matter.
            "deb http://127.0.0.1:9/apt nodistro main\n"
        )

    def add(self, release: str, version: str, *, arch: str = "amd64", image: bytes = b"image") -> Path:
        tree = self.root / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        package = f"linux-image-{release}-unsigned"
        modules = tree / "lib/modules" / release
        (modules / "kernel").mkdir(parents=True)
        (tree / "boot").mkdir()
        (tree / "DEBIAN").mkdir()
        (tree / "boot" / f"vmlinuz-{release}").write_bytes(image)
        (tree / "boot" / f"config-{release}").write_text("CONFIG_AIO=y\nCONFIG_ARM64_16K_PAGES=y\n")
        (tree / "boot" / f"System.map-{release}").symlink_to("/etc/passwd")
        (modules / "kernel/a.ko").write_bytes(b"module")
        (modules / "build").symlink_to("/usr/src/linux")
        (tree / "DEBIAN/control").write_text(
            f"Package: {package}\nVersion: {version}\nArchitecture: {arch}\n"
            "Maintainer: Nobody <nobody@example.org>\nDescription: test\n"
        )
        deb = self.pool / f"{package}_{version}_{arch}.deb"
        subprocess.run(["dpkg-deb", "-b", "-Znone", tree, deb], check=True, capture_output=True, timeout=60)
        self.index(arch)
        return deb

    def index(self, arch: str) -> None:
        blocks = []
        for deb in sorted(self.pool.glob(f"*_{arch}.deb")):
            control = subprocess.run(
                ["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True, timeout=60
            ).stdout
            blocks.append(
                f"{control}Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\n"
                f"SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n"
            )
        folder = self.root / "dists/bookworm/main" / f"binary-{arch}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Packages").write_text("\n".join(blocks))
        lines = ["Origin: Debian", "Suite: bookworm", "Codename: bookworm", "Components: main"]
        lines += ["Date: Sat, 01 Jan 2022 00:00:00 UTC", "Architectures: amd64 arm64", "SHA256:"]
        for path in sorted((self.root / "dists/bookworm").rglob("Packages")):
            data = path.read_bytes()
            name = path.relative_to(self.root / "dists/bookworm")
            lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}")
        (self.root / "dists/bookworm/Release").write_text("\n".join(lines) + "\n")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    made = Archive(tmp_path)
    monkeypatch.setenv("APT_CONFIG", str(made.conf))
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def expire(cache: Cache) -> None:
    """Make the index and the remembered answers two days old."""
    old = time.time() - 2 * 86400
    for stamp in cache.root.glob("apt/*/updated"):
        os.utime(stamp, (old, old))
    for path in cache.root.glob("apt/newest/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "looked": old}))


def test_newest_by_number(archive: Archive, cache: Cache) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1", image=b"old")
    archive.add("6.1.0-10-cloud-amd64", "6.1.38-1", image=b"new")
    archive.add("6.1.0-11-rt-amd64", "6.1.99-1")
    archive.add("6.12.9+deb12-cloud-amd64", "6.12.9-1")
    said: list[str] = []
    kernel = resolve("debian:6.1", X86_64, cache, tell=said.append)
    assert (kernel.release, kernel.version, kernel.package_version) == (
        "6.1.0-10-cloud-amd64",
        "6.1.38",
        "6.1.38-1",
    )
    assert kernel.image.read_bytes() == b"new"
    assert kernel.display == "debian:6.1  (6.1.38-1)"
    assert kernel.config_value("CONFIG_AIO") == "y"
    assert kernel.page_size == 16384
    assert kernel.system_map is None  # it was a link out of the package
    assert kernel.modules is not None
    assert sorted(path.name for path in kernel.modules.iterdir()) == ["kernel"]
    deb = archive.pool / "linux-image-6.1.0-10-cloud-amd64-unsigned_6.1.38-1_amd64.deb"
    assert kernel.provenance["sha256"] == hashlib.sha256(deb.read_bytes()).hexdigest()
    assert "stale" not in kernel.provenance
    assert any("fetching linux-image-6.1.0-10" in line for line in said)
    assert sorted(path.name for path in kernel.image.parent.iterdir()) == [
        "config",
        "image",
        "lib",
        "provenance.json",
    ]
    assert resolve("debian:6.12", X86_64, cache).release == "6.12.9+deb12-cloud-amd64"
    assert resolve("debian:6.1-rt", X86_64, cache).release == "6.1.0-11-rt-amd64"
    kernels, faults = cached(cache)
    assert {found.spec for found in kernels} == {"debian:6.1", "debian:6.1-rt", "debian:6.12"}
    assert faults == []


def test_a_package_by_name_and_version(archive: Archive, cache: Cache, tmp_path: Path) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    archive.add("6.1.0-9-cloud-amd64", "6.1.10-1")
    package = "linux-image-6.1.0-9-cloud-amd64-unsigned"
    folders = [tmp_path / name for name in ("newest", "named", "later", "nowhere")]
    for folder in folders:
        folder.mkdir()
    deb, chosen = download_package(package, X86_64, cache, folders[0])
    assert (deb.parent, chosen.version) == (folders[0], "6.1.10-1")
    assert download_package(package, X86_64, cache, folders[1], version="6.1.9-1")[1].version == "6.1.9-1"
    # Newer than the index of a moment ago: it is asked for again.
    archive.add("6.1.0-9-cloud-amd64", "6.1.11-1")
    assert download_package(package, X86_64, cache, folders[2], version="6.1.11-1")[1].version == "6.1.11-1"
    with pytest.raises(HostError, match=r"no package \S+ 7\.0-1 for amd64"):
        download_package(package, X86_64, cache, folders[3], version="7.0-1")


def test_the_other_architecture(archive: Archive, cache: Cache) -> None:
    archive.add("6.12.9+deb12-arm64-16k", "6.12.9-1", arch="arm64")
    archive.add("6.12.9+deb12-cloud-arm64", "6.12.9-1", arch="arm64")
    assert resolve("debian:6.12-16k", AARCH64, cache).release == "6.12.9+deb12-arm64-16k"
    assert resolve("debian:6.12", AARCH64, cache).release == "6.12.9+deb12-cloud-arm64"


def test_warm_run_needs_no_tool(archive: Archive, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    first = resolve("debian:6.1", X86_64, cache)
    shutil.rmtree(archive.root)
    monkeypatch.setenv("PATH", "/nonexistent")
    again = resolve("debian:6.1", X86_64, cache)
    assert again == first
    assert resolve("debian:6.1", X86_64, cache, offline=True) == first
    said: list[str] = []
    stale = resolve("debian:6.1", X86_64, cache, refresh=True, tell=said.append)
    assert stale.provenance["stale"] is True
    assert stale.content == first.content
    assert any("apt-get not found" in line and "6.1.27-1 from the cache" in line for line in said)


def test_a_day_later(archive: Archive, cache: Cache) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    assert resolve("debian:6.1", X86_64, cache).package_version == "6.1.27-1"
    archive.add("6.1.0-10-cloud-amd64", "6.1.38-1")
    assert resolve("debian:6.1", X86_64, cache).package_version == "6.1.27-1"
    expire(cache)
    assert resolve("debian:6.1", X86_64, cache).package_version == "6.1.38-1"
    archive.add("6.1.0-11-cloud-amd64", "6.1.40-1")
    assert resolve("debian:6.1", X86_64, cache, refresh=True).package_version == "6.1.40-1"


def test_archive_gone_and_cache_warm(archive: Archive, cache: Cache) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    first = resolve("debian:6.1", X86_64, cache)
    shutil.rmtree(archive.root)
    expire(cache)
    said: list[str] = []
    again = resolve("debian:6.1", X86_64, cache, tell=said.append)
    assert again.image == first.image
    assert again.provenance["stale"] is True
    assert any("did not answer" in line or "going on with" in line for line in said)
    assert resolve("debian:6.1", X86_64, cache, offline=True).provenance["stale"] is True


def test_archive_gone_and_cache_cold(archive: Archive, cache: Cache) -> None:
    shutil.rmtree(archive.root)
    with pytest.raises(HostError, match="cannot reach the package archive"):
        resolve("debian:6.1", X86_64, cache)
    with pytest.raises(HostError, match=r"offline: cowpen kernels fetch debian:6\.1 --arch x86_64"):
        resolve("debian:6.1", X86_64, cache, offline=True)


def test_replaced_since_the_index(archive: Archive, cache: Cache) -> None:
    deb = archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    with pytest.raises(HostError):  # the index is fetched, the package asked for is not there
        resolve("debian:6.1-rt", X86_64, cache)
    deb.unlink()
    archive.add("6.1.0-10-cloud-amd64", "6.1.38-1")
    for stamp in cache.root.glob("apt/*/updated"):
        os.utime(stamp, (time.time() - 3600, time.time() - 3600))
    kernel = resolve("debian:6.1", X86_64, cache)
    assert kernel.package_version == "6.1.38-1"
    assert "stale" not in kernel.provenance


def test_nothing_matches(archive: Archive, cache: Cache) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    archive.add("6.12.9+deb12-cloud-amd64", "6.12.9-1")
    with pytest.raises(HostError) as caught:
        resolve("debian:6.99", X86_64, cache)
    assert str(caught.value) == (
        "no package matches linux-image-6.99.*-cloud-amd64-unsigned in bookworm for amd64: "
        "kernel series there: 6.1, 6.12"
    )


def test_no_debian_archive(archive: Archive, cache: Cache) -> None:
    (archive.etc / "sources.list").write_text("deb http://127.0.0.1:9/apt nodistro main\n")
    with pytest.raises(HostError, match="no Debian archive to look for"):
        resolve("debian:6.1", X86_64, cache)


def test_no_apt(archive: Archive, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match=r"apt-get not found.*path:IMAGE kernels work without"):
        resolve("debian:6.1", X86_64, cache)


def test_unsigned_archive_is_refused(archive: Archive, cache: Cache) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    archive.sources("arch=amd64")
    # A host that would take unsigned packages does not make cowpen do so.
    with archive.conf.open("a") as file:
        file.write('Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n')
    with pytest.raises(HostError, match="signature was not accepted"):
        resolve("debian:6.1", X86_64, cache)
    assert cached(cache) == ([], [])


def test_tampered_package_is_refused(archive: Archive, cache: Cache) -> None:
    deb = archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    data = bytearray(deb.read_bytes())
    data[-600] ^= 1
    deb.write_bytes(data)
    with pytest.raises(HostError):
        resolve("debian:6.1", X86_64, cache)
    assert cached(cache) == ([], [])
    assert list((cache.root / "tmp").iterdir()) == []


def test_host_hooks_do_not_run(archive: Archive, cache: Cache, tmp_path: Path) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    with archive.conf.open("a") as file:
        file.write(f'APT::Update::Post-Invoke {{ "touch {tmp_path}/hook"; }};\n')
        file.write(f'APT::Update::Pre-Invoke {{ "touch {tmp_path}/hook"; }};\n')
        file.write('Acquire::http::Proxy "http://127.0.0.1:9/";\n')
    resolve("debian:6.1", X86_64, cache)
    assert not (tmp_path / "hook").exists()
    assert (
        'Acquire::http::Proxy "http://127.0.0.1:9/";' in next(cache.root.glob("apt/*/apt.conf")).read_text()
    )


def test_no_such_flavour_for_arch(cache: Cache) -> None:
    with pytest.raises(UserError, match="does not exist for x86_64"):
        resolve("debian:6.12-16k", X86_64, cache)


def test_damaged_entry_is_told(archive: Archive, cache: Cache) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1")
    kernel = resolve("debian:6.1", X86_64, cache)
    kernel.image.unlink()
    with pytest.raises(HostError, match="is damaged"):
        resolve("debian:6.1", X86_64, cache)
    kernels, faults = cached(cache)
    assert kernels == []
    assert len(faults) == 1


def _resolve_content(root: Path, results: multiprocessing.Queue[str]) -> None:
    kernel: Kernel = resolve("debian:6.1", X86_64, Cache(root))
    results.put(kernel.content)


def test_two_at_once(archive: Archive, cache: Cache) -> None:
    archive.add("6.1.0-9-cloud-amd64", "6.1.27-1", image=bytes(4 << 20))
    results: multiprocessing.Queue[str] = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=_resolve_content, args=(cache.root, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    contents = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert len(contents) == 1
    assert len(list((cache.root / "kernels").iterdir())) == 1
    assert list((cache.root / "tmp").iterdir()) == []
    assert list((cache.root / "lock").iterdir()) == []
