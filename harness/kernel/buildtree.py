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
from harness.cache import MORE_ROOM, Cache, Held, digest, occupied
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
# Steps of a first build of base and debug-vm, for the estimate as long as no other tree has counted its own.
_USUAL_STEPS = {"x86_64": 1720, "aarch64": 1440}
_FORMAT = "tree-1"
_BUSY = "busy"
_FIRST = "steps.json"  # of the first build: its steps, and what the tree took of the disk then
# A tree of Linux 6.12 takes 1.7 GB, what is compiled there 0.4 GB without debug information and 3 GB with it.
_ROOM = 3 << 30
# Least recently used trees beyond this are removed when another is made.
_MOST_BYTES = 24 << 30
_UNUSED_SECONDS = 30 * 24 * 3600.0
_TOOLS = ("make", "flex", "bison", "bc", "git")
# What went wrong stands in the first line that says so; make itself goes on for a while with other files. Kconfig
# says FILE:LINE: and what it stumbled over. Only when nobody else complained is it what make says in the end.
_FAULTS = (
    re.compile(
        r"^.*(?:\berror: |\bfatal error: |\bERROR: |undefined reference|multiple definition of).*$",
        re.MULTILINE,
    ),
    re.compile(r"^[\w./-]*Kconfig[\w.-]*:\d+: .*$", re.MULTILINE),
    re.compile(r"^.*\*\*\* .*$", re.MULTILINE),
)
# What of the user's environment a kernel's makefiles get to see: any more of it (KBUILD_OUTPUT, LOCALVERSION, LLVM, the
# MAKEFLAGS of a make around cowpen) would build another kernel than the key says, or in the user's own folder.
_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("CCACHE_", "XDG_")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
# The same source and fragments give the same image, and ccache's hits, whoever builds them wherever.
_REPRODUCIBLE = {
    "KBUILD_BUILD_USER": "cowpen",
    "KBUILD_BUILD_HOST": "cowpen",
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_VERSION": "1",
    "CCACHE_NOHASHDIR": "1",
    # Go by the list of headers that the compiler writes anyway. Without it ccache preprocesses every file for its
    # key, which makes a first build half as long again (201 instead of 146 CPU seconds for fs/ext4, block and lib).
    "CCACHE_DEPEND": "1",
}
# That list does not name what assembly takes in by .incbin, such as the compressed kernel in an x86 image (piggy.S,
# which says how large it is and nothing else): of two kernels of one size the second got the first one's object. An
# option for the preprocessor that ccache does not know has it look at what the preprocessor writes, and leave .incbin
# alone. This one is the compiler's default.
_ASSEMBLY = "-Wp,-ftrack-macro-expansion=2"


def environment(**more: str) -> dict[str, str]:
    """The environment of a kernel's make: the same for every user, but for where things are."""
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return kept | {"LC_ALL": "C"} | _REPRODUCIBLE | more


def make_words(arch: Arch, mapped: str) -> list[str]:
    """make and what it needs to be told. ``mapped`` are compiler options that hide where the source was."""
    prefix = "ccache " if shutil.which("ccache") else ""
    return [
        "make",
        f"ARCH={arch.kernel_arch}",
        f"CC={prefix}{arch.compiler()}",
        f"HOSTCC={prefix}gcc",
        f"KCFLAGS={mapped}",
        f"KAFLAGS={mapped} {_ASSEMBLY}",
        f"CROSS_COMPILE={'' if arch.native else f'{arch.gnu}-'}",
    ]


@dataclasses.dataclass(frozen=True)
class BuildTree:
    """One tree, locked for this process while it is `opened`."""

    folder: Path
    arch: Arch
    state: str
    """Which source is to be built, for the names of logs."""

    @property
    def source(self) -> Path:
        """The kernel's own files, and what make adds."""
        return self.folder / "source"

    @property
    def log(self) -> Path:
        """Output of the last make."""
        return self.folder / "build.log"

    @property
    def failed_log(self) -> Path:
        """Output of the last make of this source that failed: the next source's make does not write over it."""
        return self.folder / f"failed-{self.state}.log"

    @contextmanager
    def _working(self) -> Iterator[None]:
        """For what changes files: if it is killed, the tree is not used again (`opened`).

        What a killed make leaves may be half a file with the time of a whole one, and a killed git its lock.
        """
        busy = self.folder / _BUSY
        busy.touch()
        yield
        busy.unlink()

    @property
    def built_before(self) -> bool:
        """Whether any build was begun here, be it one that failed."""
        return self.log.exists()

    def turn_into(self, source: Source) -> None:
        """Make the files those of ``source``; what make made stays, and files that do not differ keep their times."""
        self.source.mkdir(exist_ok=True)
        index = self.folder / "index"
        with self._working():
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
        with self._working():
            done = tools.run(command, cwd=self.source, env=environment(**env), seconds=seconds, check=None)
            _died_itself(command[0], done.status)
        if done.status != 0:
            self.failed_log.write_text(done.stdout + done.stderr, encoding="utf-8")
            raise self._fault("cannot be configured")

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
        whole = not self.built_before
        with self._working():
            status = self._making(command, whole, tell)
            _died_itself("make", status)
        if status != 0:
            shutil.copyfile(self.log, self.failed_log)
            raise self._fault("does not build")
        if whole:
            first = {"steps": self._done(), "bytes": occupied(self.folder)}
            (self.folder / _FIRST).write_text(json.dumps(first) + "\n", encoding="utf-8")

    def _making(self, command: Sequence[str], whole: bool, tell: Tell) -> int:
        """Make's exit status; its output is in the log."""
        deadline = Deadline(BUILD_SECONDS, "the kernel's build")
        env = environment(CCACHE_BASEDIR=str(self.source))
        with self.log.open("wb") as output:
            process = Process(command, cwd=self.source, env=env, stdout=output, stderr=subprocess.STDOUT)
            with process:
                while (status := process.poll()) is None:
                    deadline.check()
                    try:
                        process.wait(deadline.slice(_TELL_EVERY))
                    except subprocess.TimeoutExpired:
                        tell(self._progress(deadline.elapsed, whole))
        return status

    def _done(self) -> int:
        return self.log.read_bytes().count(b"\n")

    def _progress(self, seconds: float, whole: bool) -> str:
        done = self._done()
        words = f"building the {self.arch.name} kernel: {done} steps after {seconds:.0f} s"
        # Only the first build in a tree does everything; how much that is another tree may tell.
        known = sorted(self.folder.parent.glob(f"*/{_FIRST}"))
        steps = [int(json.loads(path.read_text(encoding="utf-8"))["steps"]) for path in known]
        most = max([*steps, _USUAL_STEPS[self.arch.name]])
        if whole and done < most and seconds >= _TELL_EVERY:
            words += f" of about {most}, {(most - done) * seconds / max(1, done):.0f} s left at this rate"
        return words

    def _fault(self, what: str) -> BuildError | HostError:
        """Of the output in `failed_log`."""
        words = self.failed_log.read_text(encoding="utf-8", errors="replace")
        if _FULL.search(words):
            return HostError(f"no space left while building in {self.folder}", mend=MORE_ROOM)
        fault = next(filter(None, (pattern.search(words) for pattern in _FAULTS)), None)
        return BuildError(
            f"the kernel for {self.arch.name} {what} ({fault[0].strip() if fault else 'no error line'})",
            mend=f"the whole output is in {self.failed_log}",
            detail=words[-20000:],
        )


def _died_itself(command: str | Path, status: int) -> None:
    if status < 0:
        raise HostError(
            f"{command} was killed by signal {-status}", mend="see dmesg: perhaps the host ran out of memory"
        )


def _size(tree: Path) -> int:
    """Bytes on disk, as of the first build: to look at every file of every tree may take minutes."""
    try:
        return int(json.loads((tree / _FIRST).read_text(encoding="utf-8"))["bytes"])
    except (OSError, ValueError, KeyError):
        return occupied(tree)


@contextmanager
def opened(
    source: Source, fragments: Sequence[Path], arch: Arch, cache: Cache, tell: Tell
) -> Iterator[BuildTree]:
    """The tree for kernels of this lineage, configuration and compiler; waits while another cowpen builds there.

    Raises `HostError` without the tools, or without room for a new tree.
    """
    for command in (*_TOOLS, arch.compiler()):
        tools.find(command)
    key = digest(_FORMAT, source.lineage, arch.name, *fragments, tools.identity(arch.compiler()))
    folder = cache.path(KIND, key)
    what = f"the build tree of {source.name}"
    with cache.lock(f"{KIND}-{key}", seconds=BUILD_SECONDS, what=what, tell=tell):
        if (folder / _BUSY).exists():
            cache.remove(folder)
        if not folder.exists():
            cache.prune(KIND, unused_seconds=_UNUSED_SECONDS, most_bytes=_MOST_BYTES, size=_size)
            cache.require(_ROOM, "build a kernel")
            folder.mkdir(parents=True)
        os.utime(folder)
        held = Held(folder)
        yield BuildTree(folder, arch, source.tree[:12])
        del held
