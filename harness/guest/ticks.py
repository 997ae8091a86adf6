"""How fast the host's own counter runs: QEMU's TCG shows it to an x86_64 guest as the guest's TSC."""

from __future__ import annotations

import mmap
import platform
import time
from collections.abc import Callable

# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"
_LOOKS = 50
_SECONDS = 0.1  # at 1 microsecond for a look, exact to some 20 parts in a million


def host_khz() -> int | None:
    """The rate of the host's time stamp counter in kHz; None if the host has none, or lets nobody run code for it."""
    if platform.machine() != "x86_64":
        return None
    import cffi  # noqa: PLC0415

    try:
        code = mmap.mmap(-1, len(_RDTSC), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(_RDTSC)
    ffi = cffi.FFI()
    counter: Callable[[], int] = ffi.cast("uint64_t (*)(void)", ffi.from_buffer(code))
    begin, first = _look(counter)
    time.sleep(_SECONDS)
    end, last = _look(counter)
    return round((last - first) * 1_000_000 / (end - begin))


def _look(counter: Callable[[], int]) -> tuple[int, int]:
    """Nanoseconds and ticks at one moment: of several looks the one that took the shortest."""
    looks = []
    for _ in range(_LOOKS):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = counter()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        looks.append((after - before, (before + after) // 2, ticks))
    _, moment, ticks = min(looks)
    return moment, ticks
