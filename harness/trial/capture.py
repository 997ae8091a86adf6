"""What a program prints, kept within bounds: a program may print forever, memory and disk may not fill."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, Self

from harness.guest.channel import Stream

_FILE_LIMIT = 4 << 20  # bytes of each stream kept from its beginning
_TAIL_LIMIT = 64 << 10  # and from its end
_THREADS_LIMIT = 4 << 20  # bytes that the agent may tell of threads
FILES = {Stream.STDOUT: "stdout", Stream.STDERR: "stderr", Stream.RECORDS: "records.bin"}


class _Kept:
    """One stream: the beginning in a file, the end in memory, the rest counted."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.total = 0
        self.tail = bytearray()

    def add(self, data: bytes) -> None:
        self.file.write(data[: max(0, _FILE_LIMIT - self.total)])
        self.total += len(data)
        self.tail += data
        del self.tail[:-_TAIL_LIMIT]

    def finish(self) -> None:
        left_out = self.total - _FILE_LIMIT
        if left_out <= 0:
            return
        end = bytes(self.tail[-min(left_out, _TAIL_LIMIT) :])
        if left_out > len(end):
            self.file.write(b"\n[cowpen: %d bytes left out here]\n" % (left_out - len(end)))
        self.file.write(end)


class Capture:
    """The output of one attempt, in the files ``stdout``, ``stderr`` and ``records.bin`` of ``folder``.

    Call it with each piece (it is an `OnOutput`). What the agent tells of threads is kept in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = folder
        self.threads = bytearray()
        """What the agent told of the threads of an overdue program."""
        self._kept = {
            stream: _Kept(self._stack.enter_context((folder / name).open("wb")))
            for stream, name in FILES.items()
        }

    def __call__(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.THREADS:
            self.threads += data[: max(0, _THREADS_LIMIT - len(self.threads))]
        else:
            self._kept[stream].add(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        for kept in self._kept.values():
            kept.finish()
        self._stack.close()

    def total(self, stream: Stream) -> int:
        """Bytes the program wrote to ``stream``, kept or not."""
        return self._kept[stream].total

    def last_line(self, stream: Stream) -> str:
        """The last line that says anything, as it came: escape it for display."""
        lines = bytes(self._kept[stream].tail).decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def records(self) -> bytes:
        """What was kept of the record stream's beginning."""
        self._kept[Stream.RECORDS].file.flush()
        return (self.folder / FILES[Stream.RECORDS]).read_bytes()[:_FILE_LIMIT]
