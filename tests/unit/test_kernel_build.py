"""The builder of kernels, on a small source that its makefile builds in no time."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import tools
from harness.arch import ARCHES, X86_64
from harness.cache import Cache, digest
from harness.cli.kernels import kernels
from harness.deadline import Deadline
from harness.errors import BuildError, HostError, ToolMissingError, UserError
from harness.kernel import build as building
from harness.kernel import buildtree, kconfig, names
from harness.kernel import source as sources
from harness.kernel.build import Built, Recipe, build, cached, fragment_files
from harness.kernel.definition import define
from harness.kernel.kit import build_module
from harness.kernel.names import definition_files
from harness.kernel.source import debian_source, folder_source, git_source, user_source
from harness.kernel.spec import NamedSpec, TreeSpec, parse

# Like the kernel's own makefile as far as the builder can tell: it has CONFIG_NEVER in Kconfig and refuses it, compiles
# each .c file that is newer than its object, and does not compile what says BROKEN. What says SLOW has half an object
# for two seconds the first time; make's pid is in the file slow then. BENCH is the test's own folder.
MAKEFILE = """\
allnoconfig:
\t@if grep -q BROKEN Kconfig; then echo "mm/Kconfig:7: syntax error" >&2; exit 1; fi
\t@grep -v -e CONFIG_NEVER -e CONFIG_MISSPELT -e 'CONFIG_GONE is not set' $(KCONFIG_ALLCONFIG) > .config
%.o: %.c
\t@echo "  CC      $@"
\t@if grep -q BROKEN $<; then echo "$<:12:3: error: expected ';' before 'return'" >&2; \\
\t  echo "$<:99:1: error: and another" >&2; exit 1; fi
\t@if grep -q FULL $<; then echo "$@: No space left on device" >&2; exit 1; fi
\t@if grep -q SLOW $< && ! test -e BENCH/slow; then head -c 5 $< > $@; echo $$PPID > BENCH/slow; sleep 2; fi
\t@cp $< $@; echo $@ >> BENCH/count
bzImage: mm/fork.o mm/memory.o
\t@env > BENCH/environment
\t@mkdir -p arch/x86/boot
\t@cat mm/*.o > arch/x86/boot/bzImage
\t@echo "$(ARCH) $(KBUILD_BUILD_TIMESTAMP)" >> arch/x86/boot/bzImage
\t@echo 0 T _text > System.map
\t@echo ELF > vmlinux
modules:
ifdef M
\techo "$(KCFLAGS)" > $(M)/trouble.ko
\ttest -e $(CURDIR)/.config && ! grep BROKEN $(M)/trouble.c
else
\t@mkdir -p lib && echo module > lib/test_ubsan.ko && echo lib/test_ubsan.o > modules.order
endif
"""
KCONFIG = """\
config FINE
\tbool "Fine"
config NEVER
\tbool "Never"
\tdepends on EVER
source "lib/Kconfig"
"""
MERGE = """\
shift
cat "$@" > $KCONFIG_CONFIG.all
awk '/^CONFIG_/ {split($0, a, "="); n = a[1]} /^# CONFIG_/ {n = $2} n {said[n] = $0; n = ""}
     END {for (n in said) print said[n]}' $KCONFIG_CONFIG.all | sort > $KCONFIG_CONFIG
"""
SOURCE = {
    "Makefile": MAKEFILE,
    "Kconfig": KCONFIG,
    "Kbuild": "",
    ".gitignore": "*.o\n/.config\n",
    "scripts/kconfig/merge_config.sh": MERGE,
    "mm/fork.c": "one\ntwo\nthree\nfour\nfive\n",
    "mm/memory.c": "int memory;\n",
}
PATCH = """\
A change, explained.

--- a/mm/fork.c
+++ b/mm/fork.c
@@ -1,5 +1,5 @@
 one
 two
-three
+3
 four
 five
"""


class Bench:
    """A cache with a Debian source, a user's folder with the same, and the fragments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache")
        self.kernels = folder / "kernels"
        self.said: list[str] = []
        self.fragment("base", "CONFIG_FINE=y\n# CONFIG_GONE is not set\n")
        self.fragment("base-x86_64", "CONFIG_ARCH=y\n")
        self.fragment("debug", "# CONFIG_FINE is not set\nCONFIG_DEBUG_INFO=y\nCONFIG_MODULES=y\n")

    def fragment(self, name: str, text: str) -> None:
        (self.kernels / "fragments").mkdir(parents=True, exist_ok=True)
        (self.kernels / f"fragments/{name}.config").write_text(text)

    def files(self, **changed: str) -> dict[str, str]:
        """The small source, with other content of some files."""
        files = {**SOURCE, **changed}
        return files | {"Makefile": files["Makefile"].replace("BENCH", str(self.folder))}

    def debian(self, **changed: str) -> None:
        """What fetching the package leaves."""
        files = self.files(**changed)
        folder = self.cache.root / "sources/linux-source-6.1"
        folder.mkdir(parents=True)
        with tarfile.open(folder / "source.tar.xz", "w:xz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(f"linux-source-6.1/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        (folder / "provenance.json").write_text(
            json.dumps({"version": "6.1.1-1", "sha256": digest(folder / "source.tar.xz")})
        )

    def tarball(self, **changed: str) -> Path:
        path = self.folder / "linux.tar"
        with tarfile.open(path, "w") as archive:
            for name, text in self.files(**changed).items():
                member = tarfile.TarInfo(f"linux-1/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        return path

    def patch(self, text: str) -> Path:
        path = self.folder / "a.patch"
        path.write_text(text)
        return path

    def user(self, **changed: str) -> Path:
        folder = self.folder / "linux"
        for name, text in self.files(**changed).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    def build(self, *fragments: str, patches: tuple[Path, ...] = (), source: Path | None = None) -> Built:
        files = fragment_files(fragments or ("base",), X86_64)
        if source is None:
            origin = debian_source("6.1", self.cache, self.said.append)
        else:
            origin = user_source(source, None, self.cache, self.said.append)
        return build(Recipe("it", origin, files, patches), X86_64, self.cache, self.said.append)

    def making(self) -> int:
        """The pid of make, once it compiles what says SLOW."""
        deadline = Deadline(30, "the slow file")
        while not (said := (self.folder / "slow").read_text() if (self.folder / "slow").exists() else ""):
            deadline.check()
            time.sleep(0.02)
        return int(said)

    @property
    def compiled(self) -> list[str]:
        """Objects made since the last look."""
        count = self.folder / "count"
        made = count.read_text().split() if count.exists() else []
        count.unlink(missing_ok=True)
        return made


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(buildtree, "_TOOLS", ("make", "git"))  # the small source needs no more
    for module in (building, names):
        monkeypatch.setattr(module, "data_folder", lambda name: tmp_path / name)
    return Bench(tmp_path)


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder, the repository's own included, with its time and content."""
    found = {}
    for place, _, files in os.walk(folder):
        for name in files:
            path = Path(place) / name
            found[str(path)] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


def test_a_kernel_is_built_once(bench: Bench) -> None:
    bench.debian()
    built = bench.build()
    assert bench.build() == built
    assert sorted(bench.compiled) == ["mm/fork.o", "mm/memory.o"]
    assert built.image.read_text() == "one\ntwo\nthree\nfour\nfive\nint memory;\nx86 1970-01-01\n"
    assert built.config.read_text() == "CONFIG_ARCH=y\nCONFIG_FINE=y\n"
    assert built.spec == (
        f"path:{built.folder}/image,config={built.folder}/config,system_map={built.folder}/System.map"
    )
    assert built.provenance["source"]["name"] == "linux-source-6.1 6.1.1-1"
    assert built.provenance["fragments"] == ["base.config", "base-x86_64.config"]
    assert built.provenance["compiler"].startswith(("gcc", "x86_64-linux-gnu-gcc"))
    assert cached(bench.cache) == ([built], [])
    bench.fragment("base", "CONFIG_FINE=y\n")
    assert bench.build() != built, "another fragment is another kernel"


def test_later_fragments_override_earlier_ones(bench: Bench) -> None:
    bench.debian()
    assert set(bench.build("base", "debug").config.read_text().splitlines()) == {
        *("CONFIG_ARCH=y", "CONFIG_DEBUG_INFO=y", "CONFIG_MODULES=y"),
        "# CONFIG_FINE is not set",
    }


def test_debug_information_and_modules_are_kept(bench: Bench) -> None:
    bench.debian()
    kernel = bench.build("base", "debug")
    assert kernel.vmlinux is not None
    assert kernel.vmlinux.read_text() == "ELF\n"
    assert kernel.spec.endswith(f",vmlinux={kernel.vmlinux}")
    assert kernel.module("test_ubsan").read_text() == "module\n"
    with pytest.raises(UserError, match=r"no module test_ubsa was built: did you mean test_ubsan\?"):
        kernel.module("test_ubsa")
    plain = bench.build()
    assert plain.vmlinux is None
    trouble = bench.folder / "trouble.c"
    with pytest.raises(UserError, match="without modules: add the fragment modules"):
        build_module(plain, trouble, bench.cache)
    trouble.write_text("int x;")
    module = build_module(kernel, trouble, bench.cache)
    assert module.read_text().startswith("-fmacro-prefix-map=/")
    trouble.write_text("BROKEN")
    with pytest.raises(BuildError):
        build_module(kernel, trouble, bench.cache)


def test_what_did_not_change_is_not_compiled_again(bench: Bench) -> None:
    """A patch on, another, and off again: what is compiled is what differs."""
    bench.debian()
    plain = bench.build()
    assert len(bench.compiled) == 2
    patch = bench.folder / "a.patch"
    patch.write_text(PATCH)
    patched = bench.build(patches=(patch,))
    assert bench.compiled == ["mm/fork.o"]
    assert patched.image.read_text().startswith("one\ntwo\n3\n")
    assert patched.provenance["patches"].keys() == {"a.patch"}
    patch.write_text(PATCH.replace("+3", "+III"))
    assert bench.build(patches=(patch,)).image.read_text().startswith("one\ntwo\nIII\n")
    assert bench.compiled == ["mm/fork.o"]
    # Somebody was at the tree: the next build puts that right.
    (tree,) = (bench.cache.root / "trees").iterdir()
    (tree / "source/mm/memory.c").write_text("vandals\n")
    (bench.cache.root / "built" / plain.folder.name).rename(bench.folder / "old")
    assert bench.build().image.read_bytes() == (bench.folder / "old/image").read_bytes()


def test_a_patch_that_does_not_apply_is_named_with_its_place(bench: Bench) -> None:
    bench.debian()
    patch = bench.folder / "b.patch"
    patch.write_text(PATCH.replace(" two", " zwei"))
    with pytest.raises(
        BuildError, match=r"b\.patch does not apply to linux-source-6\.1 .*\(at mm/fork\.c:1\)"
    ):
        bench.build(patches=(patch,))
    patch.write_text(PATCH.replace("mm/fork.c", "mm/knife.c"))
    with pytest.raises(BuildError, match=r"b\.patch does not apply .*mm/knife\.c: does not exist"):
        bench.build(patches=(patch,))
    patch.write_text("nothing at all\n")
    with pytest.raises(BuildError, match=r"b\.patch does not apply .*[Nn]o valid patches"):
        bench.build(patches=(patch,))


def test_an_option_that_is_not_taken_is_explained(bench: Bench) -> None:
    bench.debian()
    bench.fragment("wrong", "CONFIG_NEVER=y\n")
    with pytest.raises(BuildError, match=r"does not take CONFIG_NEVER=y: depends on EVER \(Kconfig:3\)"):
        bench.build("base", "wrong")
    bench.fragment("wrong", "CONFIG_MISSPELT=y\n")
    with pytest.raises(BuildError, match=r"CONFIG_MISSPELT=y: this source has no such option.*wrong\.config"):
        bench.build("base", "wrong")


def test_a_users_source_may_lack_options(bench: Bench) -> None:
    bench.fragment("wrong", "CONFIG_NEVER=y\nCONFIG_MISSPELT=y\n")
    built = bench.build("base", "wrong", source=bench.user())
    bench.said.clear()
    bench.build("base", "wrong", source=bench.user())  # from the cache
    lacking = [line.partition(":")[0] for line in built.provenance["missing"]]
    assert lacking == ["CONFIG_MISSPELT=y", "CONFIG_NEVER=y"]
    assert any("without CONFIG_MISSPELT=y: this source has no such option" in line for line in bench.said)


@pytest.mark.parametrize(
    "line",
    [
        "KASAN=y",
        " CONFIG_X=y",
        "CONFIG_X = y",
        "CONFIG_X=y # why",
        "CONFIG_X=y\r",
        "CONFIG_X is not set",
        "#CONFIG_X is not set",
    ],
)
def test_a_line_of_a_fragment_that_would_be_taken_for_a_comment(bench: Bench, line: str) -> None:
    bench.fragment("wrong", f'# why\n\nCONFIG_A="b c"\nCONFIG_B=0x1f\n{line}\n')
    with pytest.raises(UserError, match=r"wrong\.config:5: .* is no option: write CONFIG_X=…"):
        fragment_files(("base", "wrong"), X86_64)


def test_the_last_word_on_an_option_counts() -> None:
    assert kconfig.settings("CONFIG_A=y\n# CONFIG_A is not set\n# CONFIG_B is not set\nCONFIG_B=m\n") == {
        "CONFIG_A": "n",
        "CONFIG_B": "m",
    }


def test_a_fragment_that_does_not_exist_is_named(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"no fragment bas in .*: did you mean base"):
        fragment_files(("bas",), X86_64)
    own = bench.folder / "own.config"
    with pytest.raises(UserError, match=r"no file .*/own\.config: a fragment without a /"):
        fragment_files((str(own),), X86_64)
    own.write_text("CONFIG_FINE=y\n")
    assert fragment_files((str(own),), X86_64) == (own,)
    bench.fragment("64k-aarch64", "CONFIG_FINE=y\n")
    with pytest.raises(UserError, match="no fragment 64k for x86_64: it exists for aarch64"):
        fragment_files(("64k",), X86_64)


def test_the_compilers_first_complaint_is_the_error(bench: Bench) -> None:
    bench.debian(**{"mm/fork.c": "BROKEN\n"})
    with pytest.raises(BuildError, match=r"mm/fork\.c:12:3: error: expected ';' before 'return'") as error:
        bench.build()
    assert "and another" in error.value.detail
    assert "another" not in error.value.message
    assert error.value.mend is not None
    log = Path(error.value.mend.removeprefix("the whole output is in "))
    assert "and another" in log.read_text()
    with pytest.raises(BuildError):
        bench.build(
            patches=(bench.patch("--- a/mm/fork.c\n+++ b/mm/fork.c\n@@ -1 +1 @@\n-BROKEN\n+BROKEN again\n"),)
        )
    assert "and another" in log.read_text(), "the next source's log is another"
    assert len(list(log.parent.glob("failed-*.log"))) == 2
    assert not list((bench.cache.root / "tmp").iterdir())
    assert cached(bench.cache) == ([], [])


def test_what_kconfig_stumbles_over_is_the_error(bench: Bench) -> None:
    with pytest.raises(BuildError, match=r"cannot be configured \(mm/Kconfig:7: syntax error\)"):
        bench.build(source=bench.user(Kconfig="BROKEN\n"))


@pytest.mark.parametrize(
    "line",
    [
        'ERROR: modpost: "x" [fs/y.ko] undefined!',
        "ld: mm/a.o: in function `f': multiple definition of `f'; mm/b.o: first defined here",
        "ld: mm/a.o: undefined reference to `g'",
    ],
)
def test_the_linkers_complaint_is_the_error(bench: Bench, line: str) -> None:
    quoted = line.replace("'", "'\\''")
    makefile = MAKEFILE.replace(
        "bzImage: mm/fork.o mm/memory.o\n", f"bzImage: mm/fork.o mm/memory.o\n\t@echo '{quoted}'; exit 1\n"
    )
    with pytest.raises(BuildError, match=re.escape(line[-20:])):
        bench.build(source=bench.user(Makefile=makefile))


def test_a_full_disk_is_the_hosts_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.debian(**{"mm/fork.c": "FULL\n"})
    with pytest.raises(HostError, match=r"no space left while building .*cowpen kernels prune"):
        bench.build()
    usage = buildtree.shutil.disk_usage(bench.folder)
    monkeypatch.setattr(buildtree.shutil, "disk_usage", lambda path: usage._replace(free=1 << 30))
    with pytest.raises(HostError, match=r"no room to build a kernel: .* has 1\.1 GB left, 3\.2 are needed"):
        bench.build("base", "debug")
    monkeypatch.setattr(buildtree.shutil, "disk_usage", lambda path: usage._replace(free=1 << 29))
    with pytest.raises(
        HostError, match=r"no room to unpack linux\.tar: .* has 0\.5 GB left, 1\.1 are needed"
    ):
        bench.build(source=bench.tarball())


def test_a_disk_that_becomes_full_while_a_source_is_unpacked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = bench.folder / "git"
    git.write_text("#!/bin/sh\necho 'fatal: write error: No space left on device' >&2\nexit 128\n")
    git.chmod(0o755)
    found = tools.find
    monkeypatch.setattr(sources.tools, "find", lambda name: str(git) if name == "git" else found(name))
    tarball = bench.tarball(**{"mm/large.c": "x" * (4 << 20)})  # more than a pipe holds
    run = tools.run
    monkeypatch.setattr(sources.tools, "run", lambda argv, **more: run([found("git"), *argv[1:]], **more))
    with pytest.raises(HostError, match="No space left on device: free some space there"):
        bench.build(source=tarball)


def test_a_missing_compiler_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.debian()
    gone = dataclasses.replace(X86_64, gnu="x86_64-lost-gnu")
    monkeypatch.setattr(type(gone), "compiler", lambda self: "x86_64-lost-gnu-gcc")
    source = debian_source("6.1", bench.cache, bench.said.append)
    recipe = Recipe("it", source, fragment_files(("base",), X86_64))
    with pytest.raises(ToolMissingError, match="x86_64-lost-gnu-gcc not found"):
        build(recipe, gone, bench.cache, bench.said.append)


def test_two_at_once_get_the_same(bench: Bench) -> None:
    bench.debian()
    results: list[Built] = []
    threads = [threading.Thread(target=lambda: results.append(bench.build())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    assert results[0] == results[1]
    assert len(bench.compiled) == 2


SLOW = {"mm/fork.c": SOURCE["mm/fork.c"] + "SLOW\n"}


def test_a_cowpen_that_was_killed_leaves_nothing_to_trip_over(bench: Bench) -> None:
    bench.debian(**SLOW)
    child = os.fork()
    if child == 0:
        try:
            bench.build()
        finally:
            os._exit(0)
    bench.making()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (tree,) = (bench.cache.root / "trees").iterdir()
    assert (tree / "source/mm/fork.o").read_text() == "one\nt", "half of it, and newer than its source"
    (tree / "index.lock").touch()  # as git leaves it that is killed while it writes the files
    assert cached(bench.cache) == ([], [])
    assert bench.build().image.read_text().startswith("one\ntwo\nthree\nfour\nfive\nSLOW\nint memory;")
    assert not (tree / "index.lock").exists()


def test_a_make_that_was_killed_leaves_nothing_to_trip_over(bench: Bench) -> None:
    bench.debian(**SLOW)
    killer = threading.Thread(target=lambda: os.kill(bench.making(), signal.SIGKILL))
    killer.start()
    with pytest.raises(HostError, match="make was killed by signal 9"):
        bench.build()
    killer.join()
    built = bench.build()
    assert built.image.read_text().startswith("one\ntwo\nthree\nfour\nfive\nSLOW\nint memory;")
    assert built.provenance["whole"]


def test_a_build_tells_how_far_it_is_and_who_waits_for_what(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buildtree, "_TELL_EVERY", 0.2)
    bench.debian(**SLOW)
    first = threading.Thread(target=bench.build)
    first.start()
    bench.making()
    bench.build()
    first.join()
    assert any(re.search(r"\d steps after \d+ s of about 1720, ", line) for line in bench.said)
    assert bench.said.count("waiting for another cowpen that is making the kernel it for x86_64") == 1


def test_the_users_environment_builds_no_other_kernel(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    own = bench.folder / "own"
    own.mkdir()
    (own / ".config").write_text("the user's\n")
    theirs = {
        "KBUILD_OUTPUT": str(own),
        "KCONFIG_CONFIG": str(own / ".config"),
        "LOCALVERSION": "-mine",
        "LLVM": "1",
        "MAKEFLAGS": "-k",
        "CROSS_COMPILE": "sparc-",
        "GIT_DIR": str(own),
        "GIT_OBJECT_DIRECTORY": str(own),
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    bench.debian()
    bench.build()
    assert [path.name for path in own.iterdir()] == [".config"]
    assert (own / ".config").read_text() == "the user's\n"
    seen = dict(line.split("=", 1) for line in (bench.folder / "environment").read_text().splitlines())
    assert {name: value for name, value in seen.items() if theirs.get(name) == value} == {}
    assert seen["CROSS_COMPILE"] == "", "make exports what its command line says"


def test_a_new_tree_does_not_look_at_every_file_of_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.debian()
    bench.build()
    (first,) = (bench.cache.root / "trees").iterdir()
    looks: list[Path] = []
    monkeypatch.setattr(buildtree, "occupied", lambda folder: looks.append(folder) or 1)
    bench.build("base", "debug")
    assert looks
    assert first not in looks


@pytest.fixture
def repository(bench: Bench) -> Iterator[Path]:
    folder = bench.user()
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    (folder / "mm/memory.c").write_text("int more;\n")
    git(folder, "commit", "-qam", "two")
    (folder / "mm/fork.o").write_text("object of the user's own")
    before = everything(folder)
    yield folder
    assert everything(folder) == before, "a user's repository is never written to"


def test_revisions_of_a_users_repository(bench: Bench, repository: Path) -> None:
    source = git_source(repository, "HEAD~1", bench.cache)
    files = fragment_files(("base",), X86_64)
    old = build(Recipe("old", source, files), X86_64, bench.cache, bench.said.append)
    assert "int memory;" in old.image.read_text()
    assert len(bench.compiled) == 2
    new = bench.build(source=repository)
    assert "int more;" in new.image.read_text()
    assert bench.compiled == ["mm/memory.o"]
    commit = git(repository, "rev-parse", "HEAD")
    assert new.provenance["source"]["commit"] == commit
    assert new.provenance["source"]["name"] == f"linux@{commit[:12]}"
    assert git_source(repository, commit, bench.cache).tree == git_source(repository, None, bench.cache).tree
    with pytest.raises(UserError, match=r"linux has no revision 'v9'"):
        git_source(repository, "v9", bench.cache)
    with pytest.raises(UserError, match="is no git repository"):
        git_source(bench.folder, "HEAD", bench.cache)


def test_repositories_that_are_not_just_a_kernels_work_tree(bench: Bench, repository: Path) -> None:
    """A bare one, a sparse checkout, a kernel in a folder of a larger project."""
    wanted = git_source(repository, "HEAD", bench.cache).tree
    bare, sparse, large = (bench.folder / name for name in ("linux.git", "sparse", "large"))
    git(bench.folder, "clone", "-q", "--bare", str(repository), str(bare))
    assert user_source(bare, "HEAD", bench.cache, bench.said.append).tree == wanted
    assert user_source(bare, None, bench.cache, bench.said.append).tree == wanted
    git(bench.folder, "clone", "-q", "--sparse", str(repository), str(sparse))
    assert not (sparse / "mm").exists()
    source = user_source(sparse, None, bench.cache, bench.said.append)
    assert source.tree == wanted
    built = build(
        Recipe("it", source, fragment_files(("base",), X86_64)), X86_64, bench.cache, bench.said.append
    )
    assert "int more;" in built.image.read_text()
    shutil.copytree(repository, large / "linux", ignore=shutil.ignore_patterns(".git", "*.o"))
    git(large, "init", "-q")
    git(large, "add", "-A")
    git(large, "commit", "-qm", "one")
    assert git_source(large / "linux", "HEAD", bench.cache).tree == wanted
    assert user_source(large / "linux", None, bench.cache, bench.said.append).tree == wanted
    with pytest.raises(UserError, match="large holds no kernel source"):
        git_source(large, "HEAD", bench.cache)


def test_an_edit_within_the_second_of_the_commit_is_seen(bench: Bench) -> None:
    folder = bench.user()
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    with (folder / "mm/memory.c").open("r+") as file:  # the same file, time and size
        file.write("int mammary")
    source = user_source(folder, None, bench.cache, bench.said.append)
    assert source.name.endswith(" with changes")
    assert source.git("show", f"{source.tree}:mm/memory.c") == "int mammary"


def test_a_disk_image_in_the_work_tree_is_not_swallowed(bench: Bench) -> None:
    folder = bench.user()
    with (folder / "guest.qcow2").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(UserError, match=r"guest\.qcow2 is larger than 64 MB: .*\.gitignore"):
        folder_source(folder, bench.cache)


def test_what_is_in_use_is_not_pruned(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cache.Cache", lambda: Cache(bench.cache.root))
    built = bench.build(source=bench.user())
    bench.debian()
    bench.build()
    pruned = CliRunner().invoke(kernels, ["prune", "--keep", "0"])
    assert pruned.exit_code == 0
    assert built.image.exists()
    left = {path.name for path in bench.cache.root.iterdir() if path.is_dir() and any(path.iterdir())}
    assert left - {"lock", "tmp"} == {"built", "repositories", "sources"}
    bench.cache = Cache(bench.cache.root)
    gc.collect()
    CliRunner().invoke(kernels, ["prune", "--keep", "0"])
    assert not built.image.exists()
    assert not any((bench.cache.root / "repositories").iterdir())


def test_a_work_tree_that_was_changed(bench: Bench) -> None:
    folder = bench.user()
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    (folder / "mm/memory.c").write_text("int changed;\n")
    (folder / "mm/new.c").write_text("new\n")
    (folder / "Kbuild").unlink()
    (folder / "Kbuild").write_text("obj-y := mm/\n")
    before = everything(folder)
    built = bench.build(source=folder)
    assert everything(folder) == before
    assert "int changed;" in built.image.read_text()
    assert built.provenance["source"]["name"].endswith(" with changes")
    (tree,) = (bench.cache.root / "trees").iterdir()
    assert (tree / "source/mm/new.c").read_text() == "new\n"


def test_a_folder_and_a_tarball(bench: Bench) -> None:
    folder = bench.user()
    (folder / "mm/fork.o").write_text("ignored")
    source = folder_source(folder, bench.cache)
    tarball = bench.folder / "linux.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name in SOURCE:
            archive.add(folder / name, f"linux-1/{name}")
    assert user_source(tarball, None, bench.cache, bench.said.append).tree == source.tree
    assert "int memory;" in bench.build(source=tarball).image.read_text()
    (folder / "Kconfig").unlink()
    with pytest.raises(UserError, match="holds no kernel source"):
        folder_source(folder, bench.cache)
    tarball.write_bytes(tarball.read_bytes()[:300])
    with pytest.raises(UserError, match="not a whole tarball"):
        user_source(tarball, None, bench.cache, bench.said.append)


def test_specs_of_kernels_that_are_built(bench: Bench) -> None:
    (bench.kernels / "small.toml").write_text(
        'title = "small"\nsource = "linux-source-6.1"\nfragments = ["base"]\n'
    )
    assert parse("small") == NamedSpec("small")
    spec = parse("tree:~/linux@v6.1^{commit}+debug-vm+base")
    assert spec == TreeSpec(spec.text, Path.home() / "linux", "v6.1^{commit}", ("base", "debug-vm"))
    for wrong in ("tree:", "tree:@HEAD", "tree:x@", "tree:x++kasan", "tree:x@-f"):
        with pytest.raises(UserError, match="kernel spec"):
            parse(wrong)
    with pytest.raises(UserError, match=r"unknown kernel spec 'smal'.*did you mean small"):
        parse("smal")
    odd = bench.folder / "me@there/linux-6.1+rt"
    odd.mkdir(parents=True)
    for text, revision, fragments in (
        (f"tree:{odd}", None, ("base",)),
        (f"tree:{odd}@v6.1+debug-vm", "v6.1", ("base", "debug-vm")),
        (f"tree:{odd}+debug-vm+./my.config", None, ("base", "debug-vm", "./my.config")),
    ):
        assert parse(text) == TreeSpec(text, odd, revision, fragments)


def test_the_list_tells_what_was_built_of_an_earlier_definition(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cache.Cache", lambda: bench.cache)
    monkeypatch.setattr(Built, "release", "6.1.1")  # the image is none
    bench.debian()
    (bench.kernels / "small.toml").write_text(
        'title = "small"\nsource = "linux-source-6.1"\narches = ["x86_64"]\nfragments = ["base"]\n'
    )

    def listed() -> list[tuple[bool, bool | None]]:
        rows = map(json.loads, CliRunner().invoke(kernels, ["list", "--json"]).stdout.splitlines())
        return [(row["cached"], row.get("current")) for row in rows if row["spec"] == "small"]

    assert listed() == [(False, None)]
    recipe = define("small").recipe(X86_64, bench.cache, bench.said.append)
    build(recipe, X86_64, bench.cache, bench.said.append)
    assert listed() == [(True, True)]
    bench.fragment("base", "CONFIG_FINE=y\n")
    assert listed() == [(True, False), (False, None)]
    assert "small, as it once was" in CliRunner().invoke(kernels, ["list"]).stdout
    (bench.cache.root / "built/half").mkdir()
    result = CliRunner().invoke(kernels, ["list"])
    assert "built/half is damaged" in result.stderr
    assert "small, as it once was" in result.stdout
    assert "Fragments: base, debug, or the path of your own" in result.stderr


def test_what_a_patch_says_does_not_make_another_kernel(bench: Bench) -> None:
    one = bench.patch("Within: 1 attempt\n\n" + PATCH)
    first = building.recipe_identity((), (one,), X86_64)
    assert building.recipe_identity((), (bench.patch("Within: 2 attempts\n" + PATCH),), X86_64) == first
    assert building.recipe_identity((), (bench.patch(PATCH.replace("+3", "+4")),), X86_64) != first


def test_definitions_and_mutants(bench: Bench) -> None:
    bench.debian()
    (bench.kernels / "mutants").mkdir()
    header = (
        "Removes: the third line\nKernels: 6.1\nArches: x86_64\nFragments: base\n"
        "Caught-by: smoke/smoke\nWithin: 3 attempts\n\n"
    )
    mutant = bench.kernels / "mutants/no-three.patch"
    mutant.write_text(header + PATCH)
    found = define("no-three-6.1")
    assert (found.caught_by, found.within, found.caught_on) == ("smoke/smoke", 3, ("x86_64",))
    recipe = found.recipe(X86_64, bench.cache, bench.said.append)
    assert build(recipe, X86_64, bench.cache, bench.said.append).image.read_text().startswith("one\ntwo\n3\n")
    with pytest.raises(UserError, match=r"no-three-6\.1 does not exist for aarch64: it exists for x86_64"):
        found.recipe(ARCHES["aarch64"], bench.cache, bench.said.append)
    mutant.write_text(header.replace("Within: 3 attempts\n", "") + PATCH)
    with pytest.raises(UserError, match=r"no-three\.patch: expected a line Within"):
        define("no-three-6.1")
    for wrong, said in (
        (header.replace("Kernels: 6.1\n", ""), "expected a line Kernels"),
        (header.replace("x86_64", "sparc"), "Arches: unknown architecture 'sparc'"),
        (
            header.replace("3 attempts", "soon"),
            "Within: expected 'N attempts' or 'not caught yet', not 'soon'",
        ),
    ):
        mutant.write_text(wrong + PATCH)
        with pytest.raises(UserError, match=rf"no-three\.patch: {said}"):
            define(next(name for name in definition_files() if name.startswith("no-three")))
    (bench.kernels / "lost.toml").write_text(
        'title = "x"\nsource = "linux-source-6.1"\nfragments = ["base"]\npatches = ["gone"]\n'
    )
    with pytest.raises(UserError, match=r"lost\.toml: patches: no patch"):
        define("lost")
    (bench.kernels / "odd.toml").write_text('title = "x"\nsource = "linux"\nfragments = ["base"]\n')
    with pytest.raises(UserError, match=r"odd\.toml: source"):
        define("odd")


@pytest.mark.skipif(not shutil.which("ccache"), reason="needs ccache")
def test_what_assembly_takes_in_is_not_taken_from_ccache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an x86 image takes in the kernel; C is still taken from there."""
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    words = dict(word.split("=", 1) for word in buildtree.make_words(X86_64, "") if "=" in word)
    (tmp_path / "piggy.S").write_text('.section .rodata\n.incbin "blob"\n')
    (tmp_path / "plain.c").write_text("int plain;\n")

    def compile_one(name: str, flags: str) -> bytes:
        command = [*words["CC"].split(), *words[flags].split(), "-Wp,-MMD,.d", "-c", "-o", "object", name]
        tools.run(command, cwd=tmp_path, env=buildtree.environment(), seconds=60)
        return (tmp_path / "object").read_bytes()

    for blob in (b"one kernel", b"the second"):
        (tmp_path / "blob").write_bytes(blob)
        assert blob in compile_one("piggy.S", "KAFLAGS")
        compile_one("plain.c", "KCFLAGS")
    statistics = tools.run(["ccache", "--print-stats"], env=buildtree.environment(), seconds=60).stdout
    assert "direct_cache_hit\t1\n" in statistics
