"""How a finding is shown to a person."""

from __future__ import annotations

from harness.console.finding import Finding, Frame


def trace_lines(finding: Finding, limit: int) -> list[str]:
    """The call trace from the guilty function on, a line a frame with its source line, if that is known.

    At most ``limit`` frames; functions inlined into one do not count.
    """
    frames = list(finding.frames)
    begin = next((n for n, frame in enumerate(frames) if frame.function == finding.frame), 0)
    while begin and frames[begin - 1].inlined:
        begin -= 1
    shown: list[Frame] = []
    for frame in frames[begin:]:
        if sum(not known.inlined for known in shown) == limit:
            break
        shown.append(frame)
    width = max((len(_name(frame)) for frame in shown if frame.source), default=0)
    return [f"{_name(frame):<{width}}  {frame.source}" if frame.source else _name(frame) for frame in shown]


def _name(frame: Frame) -> str:
    if frame.inlined:
        return f"{frame.function} (inlined)"
    offset = "" if frame.offset is None else f"+{frame.offset:#x}"
    size = "" if frame.size is None else f"/{frame.size:#x}"
    module = f" [{frame.module}]" if frame.module else ""
    return f"{frame.symbol or frame.function}{offset}{size}{module}"
