"""How a finding is shown to a person."""

from __future__ import annotations

from harness.console.finding import Finding, Frame
from harness.console.threads import with_sources


def trace_lines(finding: Finding, limit: int) -> list[str]:
    """The call trace from the guilty function on, a line a frame with its source line, if that is known.

    At most ``limit`` frames; functions inlined into one do not count. Of a hang the trace begins with what the program
    waits in, and reaches to the function of its own that does, if it is not much deeper.
    """
    frames = list(finding.frames)
    begin = next((n for n, frame in enumerate(frames) if frame.function == finding.frame), 0)
    if finding.kind == "hang":
        depth = sum(not frame.inlined for frame in frames[: begin + 1])
        begin, limit = 0, max(limit, min(depth, 2 * limit))
    while begin and frames[begin - 1].inlined:
        begin -= 1
    shown: list[Frame] = []
    for frame in frames[begin:]:
        if sum(not known.inlined for known in shown) == limit:
            break
        shown.append(frame)
    return with_sources(shown)
