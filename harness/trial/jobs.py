"""How many guests may run at once: what cores and memory of this host allow, measured now."""

from __future__ import annotations

import os
from pathlib import Path

from harness.guest.machine import MachineShape

# QEMU beside the guest's own memory, at most: the translated code alone may fill tb-size (harness/guest/qemu.py).
# Seen with 512 MiB guests running forkscrew and dma_thread, both architectures: QEMU and what the guest had touched
# came to 180-195 MiB private memory after a cold boot, and to 65-97 MiB from a snapshot.
_QEMU_MIB = 256
# What is left for the host's page cache, without which snapshots are read from disk for every attempt.
_HOST_SHARE = 0.25
_CGROUP = Path("/sys/fs/cgroup")


def available_mib() -> int:
    """Memory that new processes can have without swapping: MemAvailable, or what the cgroup has left."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    )
    available = int(fields["MemAvailable"].split()[0]) >> 10
    limit = _cgroup_number("memory.max")
    used = _cgroup_number("memory.current")
    if limit is not None and used is not None:
        available = min(available, max(0, limit - used) >> 20)
    return available


def cores() -> int:
    """Processors this process may use, by affinity and by the cgroup's quota."""
    usable = len(os.sched_getaffinity(0))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return usable
    return usable if quota == "max" else max(1, min(usable, int(quota) // int(period)))


def _cgroup_number(name: str) -> int | None:
    try:
        text = (_CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def by_memory(shape: MachineShape) -> int:
    """Guests of this shape that fit into the memory there is now; at least one, which may then swap."""
    room = available_mib() * (1 - _HOST_SHARE)
    return max(1, int(room // (shape.memory_mib + _QEMU_MIB)))


def guests_at_once(wanted: int, shape: MachineShape) -> tuple[int, str]:
    """How many of the ``wanted`` guests of ``shape`` to run at once, and why not all; "" if all.

    Never more than twice the cores, and never more than fit in memory: such guests only make each other
    miss their deadlines.
    """
    have = cores()
    fitting = by_memory(shape)
    ceiling = min(2 * have, fitting)
    if wanted <= ceiling:
        return wanted, ""
    bound = (
        f"no more fit in {available_mib()} MiB of memory"
        if fitting < 2 * have
        else f"this host has {have} cores"
    )
    return ceiling, f"{ceiling} guests at once instead of {wanted}: {bound}"
