"""Make the golden console logs: let real kernels report all that cowpen must recognise, and keep what they printed.

    python -m tests.console.provoke [--arch ARCH]… [--only GLOB]… [--out DIR] [--list]

Each row of `tests.console.cases` is done in a guest of its own, which starts from its kernel's snapshot; the console
from the moment on at which the guest was told to is ARCH-KERNEL-CASE.log, raw but for its length. A row that does not
make the kernel say what it is meant to is named at the end, and the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fnmatch
import functools
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import tools
from harness.arch import ARCHES, Arch, get_arch
from harness.cache import Cache
from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest import accelerator, disk, initramfs, snapshot
from harness.guest.accelerator import Proof
from harness.guest.guest import Guest, start
from harness.guest.machine import Disk, MachineShape
from harness.kernel.build import Built, build
from harness.kernel.kernel import Kernel, resolve
from harness.kernel.kit import build_module
from harness.program.compile import compile_program
from harness.program.init import compile_init
from tests.chaos import module as stock_module
from tests.console.cases import CASES, KERNELS, Case
from tests.console.expect import GOLDEN

PROGRAMS = Path(__file__).parent / "programs"
TROUBLE = PROGRAMS / "trouble.c"
_LONGEST = 64 << 10  # bytes of a log
_QUIET_SECONDS = 1.5  # a kernel that prints nothing for so long has said it
_MORE_SECONDS = 8.0  # some say it again and again
_STEP_SECONDS = 60.0  # for what takes no time at all: to push a file, to write a setting
_BEFORE = 25  # lines of a boot that are kept before what is meant to be seen
# Where a report of a suite begins and ends; the line in between that says which.
_RULE = re.compile(rb"={60,}|-{8,}\[ cut here \]-{8,}|---\[ end trace [^\n]{0,40}\]---")
_SUBJECT = re.compile(
    rb"BUG: (?P<kind>KASAN|KFENCE|KCSAN): [\w -]+ in (?P<name>[\w.]+)|UBSAN: (?P<ubsan>[\w-]+) in "
)


@dataclasses.dataclass(frozen=True)
class Bench:
    """A kernel of one architecture and what else its guests are made of."""

    arch: Arch
    kernel: Kernel
    built: Built | None
    init: Path
    act: bytes
    proof: Proof
    cache: Cache

    def module(self, name: str) -> bytes:
        """A kernel module without debug information: `trouble`, or one of the kernel's own source."""
        if self.built is None:
            path = stock_module.build(self.arch, self.kernel.spec, self.cache, source=TROUBLE)
        elif name == TROUBLE.stem:
            path = build_module(self.built, TROUBLE, self.cache)
        else:
            path = self.built.module(name)
        with tempfile.TemporaryDirectory(prefix="cowpen-golden-") as temporary:
            small = Path(temporary) / path.name
            tools.run([self.arch.binutil("strip"), "--strip-debug", "-o", small, path], seconds=_STEP_SECONDS)
            return small.read_bytes()


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


@functools.cache
def bench(arch: Arch, name: str) -> Bench:
    """Everything for guests of the kernel ``name``; raises what building or fetching it raises."""
    cache = Cache()
    wanted = KERNELS[name]
    built = None if isinstance(wanted, str) else build(wanted.recipe(arch, cache, say), arch, cache, say)
    kernel = resolve(built.spec if built else str(wanted), arch, cache)
    init = compile_init(arch, cache)
    act = compile_program((PROGRAMS / "act.c").read_text(encoding="utf-8"), "act", arch, cache)
    proof = accelerator.prove(kernel, init, cache)
    return Bench(arch, kernel, built, init, act.binary.read_bytes(), proof, cache)


def provoke(case: Case, arch: Arch, name: str) -> dict[str, bytes]:
    """Logs by the names of their files. `GuestError` if the kernel does not do what the row says."""
    on = bench(arch, name)
    with tempfile.TemporaryDirectory(prefix="cowpen-golden-") as temporary:
        folder = Path(temporary)
        printed = _boot(case, on, folder) if case.boot else _act(case, on, folder)
    stem = f"{arch.name}-{name}"
    if not case.suite:
        return {f"{stem}-{case.name}.log": shortened(printed)}
    return {f"{stem}-{case.name}-{what}.log": shortened(log) for what, log in reports(printed, case.suite)}


def _act(case: Case, on: Bench, folder: Path) -> bytes:
    shape = MachineShape(kernel_arguments=case.arguments)
    packed = initramfs.obtain(on.kernel, shape, on.init, on.cache)
    speed = on.proof.speed()
    saved = snapshot.obtain(
        kernel=on.kernel,
        initramfs=packed,
        shape=shape,
        acceleration=on.proof.acceleration,
        speed=speed,
        cache=on.cache,
    )
    with start(
        kernel=on.kernel,
        initramfs=packed,
        shape=shape,
        acceleration=on.proof.acceleration,
        speed=speed,
        folder=folder,
        snapshot=saved,
    ) as guest:
        guest.ready()
        guest.channel.push(on.act, "/tmp/act", seconds=_STEP_SECONDS)
        if case.module:
            _insmod(guest, on, case.module)
        for file, text in case.settings.items():
            _run(guest, "write", file, text)
        if case.loads:
            guest.channel.push(on.module(case.loads), f"/tmp/{case.loads}.ko", seconds=_STEP_SECONDS)
        printed = guest.console.stat().st_size
        with contextlib.suppress(GuestError):  # the guest may well be gone before it has answered
            for words in case.acts:
                guest.channel.run(["/tmp/act", *words], seconds=case.seconds)
        _await(guest, case, printed, case.seconds * max(1.0, speed.scale))
        return _since(guest, case, printed)


def _insmod(guest: Guest, on: Bench, name: str) -> None:
    guest.channel.push(on.module(name), f"/tmp/{name}.ko", seconds=_STEP_SECONDS)
    _run(guest, "insmod", f"/tmp/{name}.ko", "")


def _run(guest: Guest, *words: str) -> None:
    said: list[bytes] = []
    end = guest.channel.run(
        ["/tmp/act", *words], seconds=_STEP_SECONDS, on_output=lambda stream, data: said.append(data)
    )
    if end.code:
        raise GuestError(f"act {' '.join(words)} {end.describe()}: {b''.join(said)!r}")


def _boot(case: Case, on: Bench, folder: Path) -> bytes:
    """The end of a boot that fails, as it must."""
    shape = MachineShape(
        kernel_arguments=(*case.arguments, *case.boot),
        disks=(Disk(filesystem="ext4"),) if case.disk else (),
        modules=(),
    )
    packed = initramfs.obtain(on.kernel, shape, on.init, on.cache, extra={"bin/act": on.act})
    with start(
        kernel=on.kernel,
        initramfs=packed,
        shape=shape,
        acceleration=on.proof.acceleration,
        speed=on.proof.speed(),
        folder=folder,
        images=disk.images(shape, on.cache),
    ) as guest:
        _await(guest, case, 0, on.proof.speed().boot_deadline)
        printed = _since(guest, case, 0)
    lines = printed.splitlines(keepends=True)
    told = next(number for number, line in enumerate(lines) if re.search(case.shows.encode(), line))
    return b"".join(lines[max(0, told - _BEFORE) :])


def _await(guest: Guest, case: Case, printed: int, seconds: float) -> None:
    """Wait for what is to be seen and then for silence, or for the end of the guest."""
    deadline = Deadline(seconds, "the report")
    size, since, shown = printed, time.monotonic(), None
    while not deadline.passed and guest.process.poll() is None:
        time.sleep(0.1)
        console = _console(guest)
        now = time.monotonic()
        if len(console) != size:
            size, since = len(console), now
            if shown is None and _shown(case, console[printed:]):
                shown = now
        elif shown is not None and now - since > _QUIET_SECONDS:
            return
        if shown is not None and now - shown > _MORE_SECONDS:
            return


def _console(guest: Guest) -> bytes:
    return guest.console.read_bytes() if guest.console.exists() else b""


def _shown(case: Case, printed: bytes) -> bool:
    return re.search(case.shows.encode(), printed) is not None


def _since(guest: Guest, case: Case, printed: int) -> bytes:
    """What was printed since, from the first whole line on; `GuestError` if it is not what is meant to be seen."""
    console = _console(guest)
    if printed and not console[:printed].endswith(b"\n"):
        printed = console.find(b"\n", printed) + 1
    if not _shown(case, console[printed:]):
        last = console[printed:][-300:].decode(errors="replace")
        raise GuestError(f"the kernel did not say {case.shows!r} but, at the end, {last!r}")
    return console[printed:]


def shortened(log: bytes) -> bytes:
    """The log, or as many whole lines of its head as are kept."""
    return log if len(log) <= _LONGEST else log[: log.rfind(b"\n", 0, _LONGEST) + 1]


def reports(printed: bytes, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The reports of a suite of tests by the function, or the kind, they are about; the first of each."""
    seen: set[str] = set()
    begin: int | None = None
    position = 0
    for line in printed.splitlines(keepends=True):
        position += len(line)
        if not _RULE.search(line):
            continue
        if begin is not None and (said := _SUBJECT.search(printed, begin, position)):
            name = (said["name"] or said["ubsan"]).decode()
            if name not in seen and any(fnmatch.fnmatchcase(name, glob) for glob in wanted):
                seen.add(name)
                yield name, printed[begin:position]
            begin = None
        else:
            begin = position - len(line)


def rows() -> Iterator[tuple[str, Arch, str, Case]]:
    """Every row of the table on every kernel it is for: the name of its log, and what makes it."""
    for kernel in KERNELS:
        for arch in ARCHES.values():
            for case in CASES:
                if kernel in case.kernels and arch.name in case.arches:
                    yield f"{arch.name}-{kernel}-{case.name}", arch, kernel, case


def main(words: list[str]) -> int:
    """Make the logs that are asked for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.console.provoke", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--arch", action="append", help="only this architecture")
    parser.add_argument(
        "--only", action="append", metavar="GLOB", help="only cases such as x86_64-6.12-lkdtm-*"
    )
    parser.add_argument(
        "--out", type=Path, default=GOLDEN, metavar="DIR", help="default: tests/console/golden"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and make nothing")
    options = parser.parse_args(words)
    wanted = [
        (name, arch, kernel, case)
        for name, arch, kernel, case in rows()
        if arch.name in [get_arch(name).name for name in options.arch or ARCHES]
        and any(fnmatch.fnmatchcase(name, glob) for glob in options.only or "*")
    ]
    if options.list:
        print("\n".join(name for name, *_ in wanted))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    faults = []
    for name, arch, kernel, case in wanted:
        begin = time.monotonic()
        try:
            logs = provoke(case, arch, kernel)
        except GuestError as error:
            faults.append(f"{name}: {error}")
            say(faults[-1])
            continue
        for file, log in logs.items():
            (options.out / file).write_bytes(log)
        say(f"{name}: {sum(map(len, logs.values()))} bytes, {time.monotonic() - begin:.1f} s")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
