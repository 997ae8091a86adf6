"""Kernel images: real headers are read, everything else is refused by name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.arch import AARCH64, ARCHES, X86_64
from harness.cache import Cache
from harness.errors import UserError
from harness.kernel import image
from harness.kernel.kernel import resolve


def bzimage(banner: str = "6.1.0-9-cloud-amd64 (builder@host) #1 SMP Debian 6.1.27-1 (2023-05-08)") -> bytes:
    data = bytearray(0x400)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x020F)
    struct.pack_into("<H", data, 0x20E, 0x100)
    struct.pack_into("<H", data, 0x236, 1)
    data[0x300 : 0x300 + len(banner) + 1] = banner.encode() + b"\0"
    return bytes(data)


def arm64_image(pages: int = 1, release: str = "6.12.117+deb12-arm64-16k") -> bytes:
    data = bytearray(0x1000)
    data[0:2] = b"MZ"
    data[0x38:0x3C] = b"ARM\x64"
    struct.pack_into("<Q", data, 24, pages << 1 | 8)
    return (
        bytes(data) + b"%s version %s\0Linux version " + release.encode() + b" (me@here) (gcc 12) # SMP\n\0"
    )


def write(folder: Path, data: bytes, name: str = "kernel") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_bzimage(tmp_path: Path) -> None:
    facts = image.inspect(write(tmp_path, bzimage()), X86_64)
    assert facts.release == "6.1.0-9-cloud-amd64"
    assert facts.page_size == 4096


@pytest.mark.parametrize(("pages", "size"), [(0, None), (1, 4096), (2, 16384), (3, 65536)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_arm64(tmp_path: Path, pages: int, size: int | None, pack: type[bytes]) -> None:
    facts = image.inspect(write(tmp_path, pack(arm64_image(pages))), AARCH64)
    assert (facts.release, facts.page_size) == ("6.12.117+deb12-arm64-16k", size)


@pytest.mark.parametrize(
    ("data", "arch", "words"),
    [
        (b"", "x86_64", "is not a bootable x86_64 kernel image (bzImage)"),
        (b"hello" * 1000, "aarch64", "is not a bootable aarch64 kernel image (Image)"),
        (bzimage(), "aarch64", "is a kernel image of x86_64, not of aarch64"),
        (arm64_image(), "x86_64", "is a kernel image of aarch64, not of x86_64"),
        (b"\x7fELF" + bytes(5000), "x86_64", "an ELF file such as vmlinux"),
        (b"MZ\0\0zimg" + bytes(5000), "aarch64", "zboot"),
        (bzimage()[:0x220], "x86_64", "truncated bzImage"),
        (bzimage()[:0x236] + bytes(0x100), "x86_64", "without a 64-bit entry"),
        (b"\x1f\x8b" + bytes(50), "aarch64", "damaged gzip"),
        (gzip.compress(arm64_image())[:-20], "aarch64", "truncated gzip"),
    ],
)
def test_refused(tmp_path: Path, data: bytes, arch: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        image.inspect(write(tmp_path, data), ARCHES[arch])
    assert words in str(caught.value)


def test_gzip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_MAX_IMAGE", 1 << 20)
    with pytest.raises(UserError, match="unpacks to over"):
        image.inspect(write(tmp_path, gzip.compress(bytes(2 << 20))), AARCH64)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_damaged_headers(tmp_path: Path, data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([bzimage(), arm64_image(), gzip.compress(arm64_image())]))
    bad = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(bad) - 1)), max_size=4)):
        if bad:
            bad[place] = data.draw(st.integers(0, 255))
    for arch in ARCHES.values():
        try:
            facts = image.inspect(write(tmp_path, bytes(bad)), arch)
        except UserError:
            continue
        assert "\n" not in facts.release


def test_resolve_path(tmp_path: Path) -> None:
    path = write(tmp_path, bzimage(), "vmlinuz-6.1.0-9-cloud-amd64")
    (tmp_path / "config-6.1.0-9-cloud-amd64").write_text(
        'CONFIG_AIO=y\nCONFIG_X="a b"\n# CONFIG_KASAN is not set\n'
    )
    tree = tmp_path / "install/lib/modules/6.1.0-9-cloud-amd64"
    tree.mkdir(parents=True)
    kernel = resolve(f"path:{path},modules={tmp_path}/install", X86_64, Cache(tmp_path / "cache"))
    assert kernel.release == "6.1.0-9-cloud-amd64"
    assert (kernel.version, kernel.package_version) == ("6.1.27", "6.1.27-1")
    assert kernel.config_value("CONFIG_AIO") == "y"
    assert kernel.config_value("CONFIG_X") == "a b"
    assert kernel.config_value("CONFIG_KASAN") is None
    assert kernel.modules == tree
    assert kernel.page_size == 4096
    assert not (tmp_path / "cache").exists()  # a local kernel needs no cache
    before = kernel.content
    (tree / "new.ko").write_bytes(b"x")
    again = resolve(f"path:{path},modules={tmp_path}/install", X86_64, Cache(tmp_path / "cache"))
    assert again.content != before
    assert hash(again) != hash(kernel)


def test_resolve_path_in_a_build_tree(tmp_path: Path) -> None:
    for arch, content in ((X86_64, bzimage()), (AARCH64, arm64_image(0))):
        tree = tmp_path / arch.name
        (tree / arch.image_target).parent.mkdir(parents=True)
        path = write((tree / arch.image_target).parent, content, (tree / arch.image_target).name)
        assert resolve(f"path:{path}", arch, Cache(tmp_path / "cache")).vmlinux is None
        for name in (".config", "System.map", "vmlinux"):
            (tree / name).write_text("")
        kernel = resolve(f"path:{path}", arch, Cache(tmp_path / "cache"))
        assert (kernel.config, kernel.system_map) == (tree / ".config", tree / "System.map")
        assert kernel.vmlinux == tree / "vmlinux"
        (tree / "other").write_text("")
        other = resolve(f"path:{path},vmlinux={tree}/other", arch, Cache(tmp_path / "cache"))
        assert other.vmlinux == tree / "other"


def test_page_size_of_config(tmp_path: Path) -> None:
    path = write(tmp_path, arm64_image(0))
    config = tmp_path / "config"
    config.write_text("CONFIG_ARM64_16K_PAGES=y\n")
    kernel = resolve(f"path:{path},config={config}", AARCH64, Cache(tmp_path))
    assert kernel.page_size == 16384


@pytest.mark.parametrize("part", ["config", "vmlinux", "system_map", "modules"])
def test_missing_companions(tmp_path: Path, part: str) -> None:
    path = write(tmp_path, bzimage())
    with pytest.raises(UserError, match=f"correct {part}="):
        resolve(f"path:{path},{part}={tmp_path}/nowhere", X86_64, Cache(tmp_path))


def test_modules_of_another_release(tmp_path: Path) -> None:
    path = write(tmp_path, bzimage())
    (tmp_path / "lib/modules/5.10.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"modules there are of: 5\.10\.0"):
        resolve(f"path:{path},modules={tmp_path}", X86_64, Cache(tmp_path))
