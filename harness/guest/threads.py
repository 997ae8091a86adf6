"""What the agent tells of the threads of an overdue run: guest-programs/init/protocol.h, struct cowpen_thread.

It is the guest that tells it. What does not fit ends the reading, and what came before it is kept.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from harness import cheader
from harness.console.threads import ThreadState
from harness.console.unwind import Stack
from harness.guest.channel import PROTOCOL_HEADER, protocol

_MAX_THREADS = 1024
_STATES = "RSDTtZXIKWP"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What came of it."""

    processes: int = 0
    """How many the run had, as far as they were counted."""
    counted: int = 0
    """How many threads these had."""
    threads: tuple[ThreadState, ...] = ()


def parse_threads(data: bytes) -> Told:
    """What was said on `Stream.THREADS`; it may be cut anywhere, and hold anything."""
    ffi: Any = protocol()
    head = ffi.new("struct cowpen_threads *")
    at = ffi.sizeof(head[0])
    if len(data) < at:
        return Told()
    ffi.memmove(head, data, at)
    threads: list[ThreadState] = []
    while len(threads) < _MAX_THREADS:
        parsed = _parse_thread(ffi, data, at)
        if parsed is None:
            break
        thread, at = parsed
        threads.append(thread)
    return Told(processes=head.processes, counted=head.threads, threads=tuple(threads))


def _parse_thread(ffi: Any, data: bytes, at: int) -> tuple[ThreadState, int] | None:
    """The record at ``at``, and where the next one begins."""
    constants: Any = cheader.constants(PROTOCOL_HEADER)
    record = ffi.new("struct cowpen_thread *")
    end = at + ffi.sizeof(record[0])
    if end > len(data):
        return None
    ffi.memmove(record, data[at:end], end - at)
    parts: list[bytes] = []
    for length in (record.executable, record.kernel, record.stack):
        parts.append(data[end : end + length])
        end += length
    if end > len(data):
        return None
    executable, kernel, stack = parts
    state = record.state.decode("latin-1")
    known = (number for number in range(constants.COWPEN_REGISTERS) if record.known >> number & 1)
    return (
        ThreadState(
            pid=record.pid,
            tid=record.tid,
            parent=record.parent,
            state=state if state in _STATES else "",
            comm=ffi.string(record.comm),
            wchan=ffi.string(record.wchan),
            system_call=(
                None if record.system_call == constants.COWPEN_NO_SYSTEM_CALL else record.system_call
            ),
            executable=executable,
            kernel=kernel,
            values={number: record.registers[number] for number in known},
            stack=Stack(record.stack_start, stack),
            entry=record.entry,
            vdso=record.vdso,
        ),
        end,
    )
