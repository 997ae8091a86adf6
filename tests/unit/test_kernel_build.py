"""The builder of kernels, on a fake tree."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.arch import X86_64
from harness.cache import Cache
from harness.errors import BuildError, UserError
from harness.kernel import build as building
from harness.kernel.build import Built, build, build_module

# Like the kernel's own makefile as far as the builder can tell. It refuses CONFIG_NEVER as Kconfig does, without a
# word, and does not compile a source that says BROKEN.
MAKEFILE = """
allnoconfig:
\tgrep -v -e CONFIG_NEVER -e 'CONFIG_GONE is not set' $(KCONFIG_ALLCONFIG) > .config
bzImage:
\techo "  CC      mm/fork.o"
\t@if grep -q BROKEN source; then \\
\t  echo "mm/fork.c:12:3: error: expected ';' before 'return'" >&2; \\
\t  echo "mm/fork.c:99:1: error: and another" >&2; exit 1; fi
\tmkdir -p arch/x86/boot
\techo "$(ARCH) $(KBUILD_BUILD_TIMESTAMP)" > arch/x86/boot/bzImage
\techo 0 T _text > System.map
\techo ELF > vmlinux
\techo once >> $(COUNT)
modules:
ifdef M
\techo "$(KCFLAGS)" > $(M)/trouble.ko
\ttest -e $(CURDIR)/.config && ! grep BROKEN $(M)/trouble.c
else
\tmkdir -p lib && echo module > lib/test_ubsan.ko
endif
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Cache]:
    """A cache that holds a fake kernel source, given its content and the fragment ``base``."""
    monkeypatch.setattr(building, "_TOOLS", ("make", "tar", "xz"))  # the fake tree needs no more
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))

    def make(content: str, fragment: str) -> Cache:
        cache = Cache(tmp_path / "cache")
        folder = cache.root / "sources/linux-source-6.1"
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "source.tar.xz", "w:xz") as archive:
            for name, text in (("Makefile", MAKEFILE), ("source", content)):
                member = tarfile.TarInfo(f"linux-source/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        fragments = tmp_path / "kernels/fragments"
        fragments.mkdir(parents=True, exist_ok=True)
        (fragments / "base.config").write_text(fragment)
        (fragments / "base-x86_64.config").write_text("CONFIG_ARCH=y\n")
        (fragments / "debug.config").write_text(
            "# CONFIG_FAST is not set\nCONFIG_DEBUG_INFO=y\nCONFIG_MODULES=y\n"
        )
        monkeypatch.setattr(building, "data_folder", lambda name: tmp_path / name)
        return cache

    return make


def built(cache: Cache, *fragments: str) -> Built:
    return build("6.1", fragments or ("base",), X86_64, cache, lambda line: None)


def test_a_kernel_is_built_once(source: Callable[[str, str], Cache], tmp_path: Path) -> None:
    cache = source("int main;", "CONFIG_FINE=y\n# CONFIG_GONE is not set\n")
    kernel = built(cache)
    assert built(cache) == kernel
    assert (tmp_path / "count").read_text() == "once\n"
    assert kernel.image.read_text() == "x86 1970-01-01\n"
    assert kernel.config.read_text() == "CONFIG_FINE=y\nCONFIG_ARCH=y\n"
    assert kernel.spec == (
        f"path:{kernel.folder}/image,config={kernel.folder}/config,system_map={kernel.folder}/System.map"
    )
    assert not (kernel.folder / "work").exists()
    # Another fragment is another kernel.
    assert built(source("int main;", "CONFIG_FINE=y\n")) != kernel


def test_later_fragments_override_earlier_ones(source: Callable[[str, str], Cache]) -> None:
    kernel = built(source("int main;", "CONFIG_FAST=y\nCONFIG_FINE=y\n"), "base", "debug")
    assert set(kernel.config.read_text().splitlines()) == {
        *("CONFIG_FINE=y", "CONFIG_ARCH=y", "CONFIG_DEBUG_INFO=y", "CONFIG_MODULES=y"),
        "# CONFIG_FAST is not set",
    }


def test_debug_information_and_modules_are_kept(source: Callable[[str, str], Cache], tmp_path: Path) -> None:
    cache = source("int main;", "CONFIG_FINE=y\n")
    kernel = built(cache, "base", "debug")
    assert kernel.vmlinux is not None
    assert kernel.vmlinux.read_text() == "ELF\n"
    assert kernel.spec.endswith(f",vmlinux={kernel.vmlinux}")
    assert kernel.module("test_ubsan").read_text() == "module\n"
    with pytest.raises(UserError, match=r"no module test_ubsa was built: did you mean test_ubsan\?"):
        kernel.module("test_ubsa")
    plain = built(cache)
    assert plain.vmlinux is None
    with pytest.raises(UserError, match="without modules: add the fragment modules"):
        build_module(plain, tmp_path / "trouble.c", cache)
    trouble = tmp_path / "trouble.c"
    trouble.write_text("int x;")
    module = build_module(kernel, trouble, cache)
    assert module.read_text().startswith("-fmacro-prefix-map=/")
    trouble.write_text("BROKEN")
    with pytest.raises(BuildError):
        build_module(kernel, trouble, cache)


def test_an_option_that_kconfig_drops_is_named(source: Callable[[str, str], Cache]) -> None:
    cache = source("int main;", "CONFIG_FINE=y\nCONFIG_NEVER=y\n")
    with pytest.raises(BuildError, match=r"does not take CONFIG_NEVER=y: add what .* base\.config"):
        built(cache)


def test_a_fragment_that_does_not_exist_is_named(source: Callable[[str, str], Cache]) -> None:
    with pytest.raises(UserError, match=r"no fragment bas in .*: did you mean base"):
        built(source("int main;", "CONFIG_FINE=y\n"), "bas")


def test_the_compilers_first_complaint_is_the_error(source: Callable[[str, str], Cache]) -> None:
    cache = source("BROKEN", "CONFIG_FINE=y\n")
    with pytest.raises(BuildError, match=r"mm/fork\.c:12:3: error: expected ';' before 'return'") as error:
        built(cache)
    assert "and another" in error.value.detail
    assert "another" not in error.value.message
    assert not list((cache.root / "tmp").iterdir())
    assert not (cache.root / "built").exists() or not list((cache.root / "built").iterdir())
