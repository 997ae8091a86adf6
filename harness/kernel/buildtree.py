"""A tree in which kernels are built again and again: one for each lineage of sources and configuration.

The next kernel of the same configuration (a mutant, a commit of a bisect) changes the files that differ, and make
compiles what depends on them. A tree lives in the cache, changes, and is used by one build at a time; it can be removed
at any time when nobody builds in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import tools
from harness.arch import Arch
from harness.cache import Cache, Held, digest
from harness.deadline import Deadline
from harness.errors import BuildError, HostError, Tell
from harness.kernel import kconfig
from harness.kernel.kconfig import Missing
from harness.kernel.source import Source
from harness.process import Process

KIND = "trees"
BUILD_SECONDS = 7200.0
_CONFIGURE_SECONDS = 600.0
_TELL_EVERY = 20.0  # seconds
_FORMAT = "tree-1"
# A tree of Linux 6.12 takes 1.7 GB, what is compiled there 0.4 GB without debug information and 3 GB with it.
_ROOM = 3 << 30
# Least recently used trees beyond this are removed when another is made.
_MOST_BYTES = 24 << 30
_UNUSED_SECONDS = 30 * 24 * 3600.0
_TOOLS = ("make", "flex", "bison", "bc", "git")
# The first of these in make's output is what went wrong; make itself goes on for a while with other files.
_FAULT = re.compile(r"^.*(?:\berror: |\bfatal error: |undefined reference|\*\*\* ).*$", re.MULTILINE)
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
# The same source and fragments give the same image, and ccache's hits, whoever builds them wherever.
REPRODUCIBLE = {
    "KBUILD_BUILD_USER": "cowpen",
    "KBUILD_BUILD_HOST": "cowpen",
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_VERSION": "1",
    "CCACHE_NOHASHDIR": "1",
    # Go by the list of headers that the compiler writes anyway. Without it ccache preprocesses every file for its
    # key, which makes a first build half as long again (201 instead of 146 CPU seconds for fs/ext4, block and lib).
    "CCACHE_DEPEND": "1",
}


def make_words(arch: Arch, mapped: str) -> list[str]:
    """make and what it needs to be told. ``mapped`` are compiler options that hide where the source was."""
    prefix = "ccache " if shutil.which("ccache") else ""
    return [
        "make",
        f"ARCH={arch.kernel_arch}",
        f"CC={prefix}{arch.compiler()}",
        f"HOSTCC={prefix}gcc",
        f"KCFLAGS={mapped}",
        f"KAFLAGS={mapped}",
        *(() if arch.native else (f"CROSS_COMPILE={arch.gnu}-",)),
    ]


@dataclasses.dataclass(frozen=True)
class BuildTree:
    """One tree, locked for this process while it is `opened`."""

    folder: Path
    arch: Arch

    @property
    def source(self) -> Path:
        """The kernel's own files, and what make adds."""
        return self.folder / "source"

    @property
    def log(self) -> Path:
        """Output of the last make."""
        return self.folder / "build.log"

    @property
    def _busy(self) -> Path:
        # There while make runs: what a killed make leaves may be half a file with the time of a whole one.
        return self.folder / "busy"

    @property
    def _steps(self) -> Path:
        return self.folder / "steps.json"

    @property
    def built_before(self) -> bool:
        return self._steps.exists()

    def turn_into(self, source: Source) -> None:
        """Make the files those of ``source``; what make made stays, and files that do not differ keep their times."""
        self.source.mkdir(exist_ok=True)
        index = self.folder / "index"
        source.git("read-tree", "--reset", "-u", source.tree, index=index, work=self.source)
        # And what the last build changed of them, if anything did.
        source.git("checkout-index", "--all", "--force", "--index", index=index, work=self.source)

    def configure(self, fragments: Sequence[Path]) -> list[Missing]:
        """Write ``.config``: what the fragments say, and no to everything else; returns what it did not take.

        Later fragments override earlier ones.
        """
        merged = self.source / "cowpen.config"
        self._configuring(
            ["sh", "scripts/kconfig/merge_config.sh", "-m", *fragments], KCONFIG_CONFIG=merged.name
        )
        words = make_words(self.arch, self._mapped)
        self._configuring([*words, f"KCONFIG_ALLCONFIG={merged.name}", "allnoconfig"])
        wanted, got = (kconfig.settings(path.read_text(encoding="utf-8")) for path in (merged, self.config))
        return kconfig.missing(wanted, got, self.source, self.arch)

    def _configuring(self, command: Sequence[str | Path], **env: str) -> None:
        seconds = _CONFIGURE_SECONDS
        tools.run(command, cwd=self.source, env=os.environ | env, seconds=seconds, check=BuildError)

    @property
    def config(self) -> Path:
        return self.source / ".config"

    def has(self, option: str) -> bool:
        """Whether it is configured with ``option`` built in."""
        return f"{option}=y\n" in self.config.read_text(encoding="utf-8")

    @property
    def _mapped(self) -> str:
        return f"-fdebug-prefix-map={self.source}=."

    def make(self, jobs: int, tell: Tell) -> None:
        """Build image and modules. `BuildError` holds the compiler's first complaint, `HostError` a full disk."""
        targets = [Path(self.arch.image_target).name]
        if self.has("CONFIG_MODULES"):
            targets.append("modules")
        command = [*make_words(self.arch, self._mapped), f"-j{jobs}", *targets]
        deadline = Deadline(BUILD_SECONDS, "the kernel's build")
        env = os.environ | REPRODUCIBLE | {"CCACHE_BASEDIR": str(self.source)}
        self._busy.touch()
        with self.log.open("wb") as output:
            process = Process(command, cwd=self.source, env=env, stdout=output, stderr=subprocess.STDOUT)
            with process:
                while process.poll() is None:
                    deadline.check()
                    try:
                        process.wait(deadline.slice(_TELL_EVERY))
                    except subprocess.TimeoutExpired:
                        tell(self._progress(deadline.elapsed))
        self._busy.unlink()
        if process.poll() != 0:
            raise self._fault()
        if not self.built_before:
            self._steps.write_text(json.dumps({"steps": self._done()}) + "\n", encoding="utf-8")

    def _done(self) -> int:
        return self.log.read_bytes().count(b"\n")

    def _progress(self, seconds: float) -> str:
        done = self._done()
        words = f"building the {self.arch.name} kernel: {done} steps after {seconds:.0f} s"
        # Only the first build in a tree does everything; how much that is another tree may tell.
        known = [] if self.built_before else sorted(self.folder.parent.glob("*/steps.json"))
        most = max((int(json.loads(path.read_text(encoding="utf-8"))["steps"]) for path in known), default=0)
        if done < most and seconds > _TELL_EVERY:
            words += f" of at most {most}, {(most - done) * seconds / max(1, done):.0f} s left at this rate"
        return words

    def _fault(self) -> BuildError | HostError:
        words = self.log.read_text(encoding="utf-8", errors="replace")
        if _FULL.search(words):
            return HostError(
                f"no space left while building in {self.folder}",
                mend="free some space there (cowpen kernels prune), or point XDG_CACHE_HOME at a larger disk",
            )
        fault = _FAULT.search(words)
        return BuildError(
            f"the kernel for {self.arch.name} does not build ({fault[0].strip() if fault else 'no error line'})",
            mend=f"the whole output is in {self.log}",
            detail=words[-20000:],
        )


@contextmanager
def opened(source: Source, fragments: Sequence[Path], arch: Arch, cache: Cache) -> Iterator[BuildTree]:
    """The tree for kernels of this lineage, configuration and compiler; waits while another cowpen builds there.

    Raises `HostError` without the tools, or without room for a new tree.
    """
    for command in (*_TOOLS, arch.compiler()):
        tools.find(command)
    key = digest(_FORMAT, source.lineage, arch.name, *fragments, tools.identity(arch.compiler()))
    folder = cache.path(KIND, key)
    with cache.lock(f"{KIND}-{key}", seconds=BUILD_SECONDS, what=f"the build tree of {source.name}"):
        tree = BuildTree(folder, arch)
        if (folder / "busy").exists():
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            _make_room(cache)
            folder.mkdir(parents=True)
        os.utime(folder)
        held = Held(folder)
        yield tree
        del held


def _make_room(cache: Cache) -> None:
    cache.prune(KIND, unused_seconds=_UNUSED_SECONDS, most_bytes=_MOST_BYTES)
    cache.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache.root).free
    if free < _ROOM:
        raise HostError(
            f"no room to build a kernel: {cache.root} has {free / 1e9:.1f} GB left, {_ROOM / 1e9:.1f} are needed",
            mend="free some (cowpen kernels prune), or point XDG_CACHE_HOME at a larger disk",
        )
