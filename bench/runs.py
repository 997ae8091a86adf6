"""What is measured: whole processes from start to exit code, and ``cowpen run`` among them."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.kernel import small_kernel
from bench.report import Options
from harness import tools
from harness.arch import Arch
from harness.errors import HostError

BUG = "rhbz-471613/forkscrew"
KERNEL = "debian:6.1"
SMALL = "small 6.1"
SECONDS = 900.0  # the longest of all these processes takes a tenth


def timed(
    command: Sequence[str], expected: frozenset[int] = frozenset({0}), env: Mapping[str, str] | None = None
) -> tuple[float, tools.Output]:
    """Wall-clock seconds and output of a whole process; `HostError` for an unexpected exit code."""
    begin = time.monotonic()
    done = tools.run(command, seconds=SECONDS, check=None, env=None if env is None else os.environ | env)
    seconds = time.monotonic() - begin
    if done.status not in expected:
        words = done.stderr.strip()[-1000:]
        raise HostError(f"{' '.join(command)[:300]} ended with status {done.status}:\n{words}")
    return seconds, done


def in_turn(commands: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What every command comes to in each round: A B, then B A, so that a drift of the host falls on both."""
    figures: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in list(commands)[:: -1 if number % 2 else 1]:
            figures[name].append(commands[name]())
    return figures


@dataclasses.dataclass(frozen=True)
class Run:
    """One ``cowpen run``: its own wall-clock seconds, those of its attempts, and its verdict."""

    seconds: float
    attempts: list[float]
    verdict: dict[str, Any]

    @property
    def release(self) -> str:
        return str(self.verdict["kernel"]["release"])


def cowpen_run(kernel: str, arch: Arch, attempts: int, *words: str, subject: Sequence[str] = (BUG,)) -> Run:
    """``cowpen run`` from Python's start to its exit code; `HostError` if an attempt told nothing."""
    command = [sys.executable, "-m", "harness.cli.main", "run", *subject, "--kernel", kernel]
    command += ["--arch", arch.name, "--attempts", str(attempts), "--json", *words]
    seconds, output = timed(command, frozenset({0, 1}))
    *records, verdict = [json.loads(line) for line in output.stdout.splitlines()]
    told = verdict["counts"]["clean"] + verdict["counts"]["reproduced"]
    if told != attempts:
        raise HostError(f"{attempts - told} of {attempts} attempts told nothing: {verdict['reason']}")
    return Run(seconds, [record["seconds"] for record in records], verdict)


def kernel_spec(name: str, arch: Arch, options: Options) -> str:
    """The kernel spec of a kernel of the tables, which is built first if it is the small one."""
    return small_kernel(arch, options.cache, options.tell) if name == SMALL else name
