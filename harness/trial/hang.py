"""What a program that hangs was doing: its threads' stacks, named by its binary."""

from __future__ import annotations

from harness.console.finding import Finding, hang_finding
from harness.console.threads import Binary, describe, hang_of, threads_of
from harness.guest.threads import Told, parse_threads
from harness.trial.capture import Capture
from harness.trial.stage import Stage

THREADS = "threads.txt"
_RAW = "threads.bin"


def hang_seen(stage: Stage, capture: Capture, *, path: str, why: str) -> Finding:
    """The finding of a hang, with the stacks of all threads as far as the agent told of them.

    They are written to ``threads.txt`` in the attempt's folder. ``path`` is where the program is in the guest.
    """
    name, arch = stage.subject.program.name, stage.kernel.arch.name
    if not capture.threads:
        return hang_finding(name, arch=arch)
    raw = bytes(capture.threads)
    told = parse_threads(raw)
    binary = Binary(stage.compiled.binary)
    threads = threads_of(told.threads, binary, path.encode())
    text = describe(threads, why, [*_left_out(told), *binary.lacks])
    (capture.folder / _RAW).write_bytes(raw)
    (capture.folder / THREADS).write_text(text, encoding="utf-8")
    return hang_of(name, arch=arch, threads=threads, text=text)


def _left_out(told: Told) -> list[str]:
    """What the limits left out, in words."""
    seen = len({thread.pid for thread in told.threads})
    words = []
    if told.processes > seen:
        words.append(f"processes that are not shown: {told.processes - seen}")
    if told.counted > len(told.threads):
        words.append(f"threads that are not shown, or have ended since: {told.counted - len(told.threads)}")
    return words
