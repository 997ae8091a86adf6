"""What cowpen costs: ``cowpen run`` against bare QEMU, with the same kernel, initramfs and program.

Both are whole processes, one after the other:

- ``cowpen run rhbz-471613/forkscrew --cold --attempts N``, from the start of Python to its exit code;
- N times a shell script that starts nbdkit and QEMU with cowpen's own command line less monitor and agent, on the same
  initramfs with the program added, whose init runs the program and switches the guest off; the verdict is read from
  its console.

With N = 1 all of cowpen's start falls on one attempt. The last column, from snapshots, is what cowpen does by default.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.report import Benchmark, Column, Options, Row, Spread, ratios
from bench.runs import BUG, KERNEL, cowpen_run, in_turn, timed
from harness.arch import Arch
from harness.cache import Cache
from harness.guest import accelerator, initramfs, qemu
from harness.guest.machine import MachineShape
from harness.kernel.kernel import resolve
from harness.program.init import compile_init
from harness.trial.subject import bug_subjects

_GOAL = 1.15
_PAIRS = {1: 7, 3: 5}  # by attempts of a run

_SCRIPT = """
nbdkit --unix {folder}/disk --foreground --exit-with-parent --filter=delay memory {size}M rdelay={delay}ms &
while [ ! -S {folder}/disk ]; do sleep 0.01; done
{qemu}
status=$?
kill $! 2>/dev/null
grep -q "{verdict}" {folder}/console.log || exit 99
exit $status
"""


def bare_script(arch: Arch, folder: Path, cache: Cache) -> list[str]:
    """The shell script that comes to the same verdict without cowpen."""
    kernel = resolve(KERNEL, arch, cache)
    (subject,) = bug_subjects(BUG, {})
    shape = subject.shape(MachineShape())
    init = compile_init(arch, cache)
    proof = accelerator.prove(kernel, init, cache)
    program = subject.compile(arch, cache).binary
    packed = initramfs.obtain(kernel, shape, init, cache, extra={"bin/program": program.read_bytes()})
    line = qemu.command(
        kernel=kernel,
        initramfs=packed,
        shape=shape,
        acceleration=proof.acceleration,
        console=folder / "console.log",
        descriptors=qemu.Descriptors(monitor=0, channel=0, disks=(0,)),
    )
    words: list[str] = []
    for word in line:
        if word.startswith(("socket,id=monitor", "socket,id=agent", "chardev=monitor", "virtserialport")):
            words.pop()  # its option: -chardev, -mon, -device
        elif word.startswith("driver=nbd"):
            words.append(f"driver=nbd,node-name=disk0,server.type=unix,server.path={folder}/disk")
        elif word.startswith("console="):
            words.append(f"{word} cowpen.run=/bin/program")
        else:
            words.append(word)
    disk = shape.disks[0]
    script = _SCRIPT.format(
        folder=folder,
        size=disk.size_mib,
        delay=disk.read_delay_ms,
        qemu=" ".join(f"'{word}'" for word in words),
        verdict="/bin/program exited with [01]",
    )
    return ["/bin/sh", "-c", script]


def _measure(options: Options) -> Iterator[Row]:
    for arch in options.arches:
        with tempfile.TemporaryDirectory(prefix="cowpen-bench-") as folder:
            script = bare_script(arch, Path(folder), options.cache)
            for attempts in _PAIRS:
                yield _row(arch, attempts, script, Path(folder), options)


def _row(arch: Arch, attempts: int, script: list[str], folder: Path, options: Options) -> Row:
    def bare() -> float:
        seconds = 0.0
        for _ in range(attempts):
            for name in ("console.log", "disk"):
                (folder / name).unlink(missing_ok=True)
            seconds += timed(script)[0]
        return seconds

    # Compile, prove and warm up before anything is timed.
    release = cowpen_run(KERNEL, arch, 1).release
    bare()
    seconds = in_turn(
        {
            "cold": lambda: cowpen_run(KERNEL, arch, attempts, "--cold").seconds,
            "bare": bare,
            "snapshot": lambda: cowpen_run(KERNEL, arch, attempts).seconds,
        },
        options.rounds(_PAIRS[attempts]),
    )
    return {
        "arch": arch.name,
        "kernel": KERNEL,
        "release": release,
        "attempts": attempts,
        **{name: Spread.of(values) for name, values in seconds.items()},
        "ratio": ratios(seconds["cold"], seconds["bare"]),
        "snapshot_ratio": ratios(seconds["snapshot"], seconds["bare"]),
    }


BENCHMARK = Benchmark(
    title="`cowpen run` against bare QEMU",
    columns=(
        Column.word("arch", "arch"),
        Column.word("attempts a run", "attempts"),
        Column.seconds("`cowpen run --cold`", "cold"),
        Column.seconds("bare QEMU", "bare"),
        Column.spread("ratio, median (range)", "ratio"),
        Column.seconds("from snapshots", "snapshot"),
        Column.spread("ratio", "snapshot_ratio"),
    ),
    measure=_measure,
    goal=f"cold, at most {_GOAL} times as long as bare QEMU",
    missed=lambda row: row["ratio"].median > _GOAL,
)
