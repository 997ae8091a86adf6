"""What cowpen costs: ``cowpen run`` against bare QEMU, with the same kernel, initramfs and program.

    python -m bench.overhead [--arch ARCH]… [--pairs N] [--attempts N] [--kernel SPEC] [--json FILE]

Each pair runs both commands as whole processes, one after the other, first one first and then the other:

- ``cowpen run rhbz-471613/forkscrew --cold --attempts N``, from the start of Python to its exit code;
- N times a shell script that starts nbdkit and QEMU with cowpen's own command line less monitor and agent, on the same
  initramfs with the program added, whose init runs the program and switches the guest off; the verdict is read from
  its console.

Printed is the ratio of the pairs: median and range. With N = 1 all of cowpen's start falls on one attempt; ten is
what ``cowpen run`` does by default. The last column, with snapshots (cowpen's default), is the whole run then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.arch import ARCHES, get_arch
from harness.cache import Cache
from harness.guest import accelerator, initramfs, qemu
from harness.guest.machine import MachineShape
from harness.kernel.kernel import Kernel, resolve
from harness.program.init import compile_init
from harness.trial.subject import Subject, bug_subjects

GOAL = 1.15
BUG = "rhbz-471613/forkscrew"
SECONDS = 300.0

_SCRIPT = """
nbdkit --unix {folder}/disk --foreground --exit-with-parent --filter=delay memory {size}M rdelay={delay}ms &
while [ ! -S {folder}/disk ]; do sleep 0.01; done
{qemu}
status=$?
kill $! 2>/dev/null
grep -q "{verdict}" {folder}/console.log || exit 99
exit $status
"""


def bare_script(kernel: Kernel, subject: Subject, folder: Path, cache: Cache) -> list[str]:
    """The shell script that comes to the same verdict without cowpen."""
    arch = kernel.arch
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


def timed(command: list[str], expected: set[int]) -> float:
    """Wall-clock seconds of one whole process; a wrong exit code ends the benchmark."""
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    seconds = time.monotonic() - begin
    if done.returncode not in expected:
        sys.exit(
            f"{command[:3]} exited with {done.returncode}:\n{done.stderr.decode(errors='replace')[-3000:]}"
        )
    return seconds


def measure(spec: str, arch_name: str, pairs: int, attempts: int) -> dict[str, object]:
    """The figures of one architecture."""
    cache = Cache()
    kernel = resolve(spec, get_arch(arch_name), cache)
    (subject,) = bug_subjects(BUG, {})
    run = [
        sys.executable,
        "-m",
        "harness.cli.main",
        "run",
        BUG,
        "--kernel",
        spec,
        "--arch",
        arch_name,
        "--attempts",
        str(attempts),
    ]
    cowpen: list[float] = []
    bare: list[float] = []
    snapshot: list[float] = []
    with tempfile.TemporaryDirectory(prefix="cowpen-bench-") as temporary:
        folder = Path(temporary)
        os.environ["XDG_STATE_HOME"] = temporary
        script = bare_script(kernel, subject, folder, cache)

        def run_bare() -> float:
            seconds = 0.0
            for _ in range(attempts):
                (folder / "console.log").unlink(missing_ok=True)
                (folder / "disk").unlink(missing_ok=True)
                seconds += timed(script, {0})
            return seconds

        timed([*run, "--cold"], {0, 1})  # compile, prove and warm up before anything is timed
        timed(run, {0, 1})
        run_bare()
        for number in range(pairs):
            if number % 2:
                cowpen.append(timed([*run, "--cold"], {0, 1}))
                bare.append(run_bare())
            else:
                bare.append(run_bare())
                cowpen.append(timed([*run, "--cold"], {0, 1}))
            snapshot.append(timed(run, {0, 1}))
    ratios = [ours / theirs for ours, theirs in zip(cowpen, bare, strict=True)]
    return {
        "kernel": kernel.release,
        "arch": arch_name,
        "pairs": pairs,
        "attempts": attempts,
        "cowpen_seconds": statistics.median(cowpen),
        "bare_seconds": statistics.median(bare),
        "snapshot_run_seconds": statistics.median(snapshot),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    """Measure and print; exit code 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description="cowpen run against bare QEMU")
    parser.add_argument("--arch", action="append", choices=list(ARCHES), help="default: all")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--attempts", type=int, action="append", help="default: 1 and 3")
    parser.add_argument("--kernel", default="debian:6.1")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [
        measure(options.kernel, arch, options.pairs, attempts)
        for arch in options.arch or ARCHES
        for attempts in options.attempts or (1, 3)
    ]
    print(
        "arch      kernel                  pairs  cowpen --cold   bare QEMU   ratio (min-max)     with snapshot"
    )
    for row in rows:
        print(
            f"{row['arch']:<9} {row['kernel']:<23} {row['pairs']:>5} {row['attempts']:>9}"
            f" {row['cowpen_seconds']:>13.2f} s"
            f" {row['bare_seconds']:>9.2f} s   {row['ratio']:.3f} ({row['ratio_min']:.3f}-{row['ratio_max']:.3f})"
            f" {row['snapshot_run_seconds']:>10.2f} s"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    missed = [
        f"{row['arch']} ({row['attempts']})"
        for row in rows
        if not isinstance(row["ratio"], float) or row["ratio"] > GOAL
    ]
    print(
        f"goal: median ratio at most {GOAL}: " + (f"missed on {', '.join(missed)}" if missed else "reached")
    )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
