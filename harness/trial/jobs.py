"""How many guests may run at once: what cores and memory of this host allow, measured now."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from harness.errors import Tell
from harness.guest.machine import MachineShape

# QEMU beside the guest's memory and the disks, at most: the translated code alone may fill tb-size
# (harness/guest/qemu.py). Private memory of QEMU seen, both architectures: attempts of forkscrew and dma_thread in
# 512 MiB 65-175 MiB from a snapshot, 185-207 MiB cold; forkscrew in 4 GiB with 4 CPUs 340-355 MiB. But a program that
# fills the guest takes it all, from a snapshot too: 465-574, 1842-1960 and 3625-3826 MiB of 512, 2048 and 4096 MiB.
_QEMU_MIB = 256
# What is left for the host's page cache, without which snapshots are read from disk for every attempt.
_HOST_SHARE = 0.25
# Guests that share a core more closely than this gain nothing. Attempts per minute with 1, 2, 3, 4 guests of 2 CPUs on
# 2 cores, forkscrew from snapshots: 159, 253, 295, 304 (x86_64, host idle) and 134, 233, 186, 177 (aarch64, busy host).
_VCPUS_PER_CORE = 2

_PROC = Path("/proc")
_CGROUP_TYPES = ("cgroup", "cgroup2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Files:
    """The names of a kind of cgroup's files. Source: the kernel's admin-guide, cgroup-v1/ and cgroup-v2.rst."""

    limits: tuple[str, ...]
    used: str
    reclaimable: tuple[str, ...]
    """Keys of memory.stat: page cache, which counts as used and is given back when somebody needs it."""


_MEMORY = {
    "cgroup2": _Files(
        limits=("memory.max", "memory.high"),
        used="memory.current",
        reclaimable=("inactive_file", "active_file"),
    ),
    "cgroup": _Files(
        limits=("memory.limit_in_bytes",),
        used="memory.usage_in_bytes",
        reclaimable=("total_inactive_file", "total_active_file"),
    ),
}


class Jobs:
    """How many guests at once a run asked for: ``wanted``, or None for as many as make sense.

    Every trial has guests of a shape of its own, so each is answered for itself.
    """

    def __init__(self, wanted: int | None = 1) -> None:
        self.wanted = wanted
        self._said: set[str] = set()

    def of(self, shape: MachineShape, tell: Tell) -> int:
        """Guests of ``shape`` at once; if fewer than were asked for that is said, once a run."""
        if self.wanted is None:
            return sensible(shape)
        most, bound = ceiling(shape)
        if self.wanted <= most:
            return self.wanted
        line = f"{most} guests at once instead of {self.wanted}: {bound}"
        if line not in self._said:
            self._said.add(line)
            tell(line)
        return most


def sensible(shape: MachineShape) -> int:
    """How many guests of ``shape`` get the most attempts done here: what ``--jobs auto`` means.

    A guest per core, fewer if they have more than two CPUs each: a race between the CPUs of a guest needs them to
    run at once.
    """
    by_cores = min(cores(), vcpus() // shape.cpus)
    return max(1, min(by_cores, by_memory(shape)))


def ceiling(shape: MachineShape) -> tuple[int, str]:
    """The most guests of ``shape`` that run at once, whoever asks, and what bounds them.

    Twice the cores, and never more than fit in memory: such guests only make each other miss their deadlines.
    """
    have, fitting = cores(), by_memory(shape)
    if fitting < 2 * have:
        return fitting, f"no more of {shape.memory_mib} MiB fit in this host's memory"
    return 2 * have, f"this host has {have} cores"


def by_memory(shape: MachineShape) -> int:
    """Guests of this shape that fit into the memory there is now; at least one, which may then swap.

    All memory of a guest counts, and all of its disks: a program that fills the guest makes every page QEMU's own,
    from a snapshot too.
    """
    room = available_mib() * (1 - _HOST_SHARE)
    return max(1, int(room // guest_mib(shape)))


def guest_mib(shape: MachineShape) -> int:
    """Memory of the host that a guest of this shape takes at most."""
    return shape.memory_mib + sum(disk.size_mib for disk in shape.disks) + _QEMU_MIB


def fits(shape: MachineShape, *, beside_mib: int) -> bool:
    """Whether memory suffices for a guest of ``shape`` beside others that may come to take ``beside_mib`` in all."""
    needed, part = guest_mib(shape), 1 - _HOST_SHARE
    return needed <= available_mib() * part and beside_mib + needed <= total_mib() * part


def total_mib() -> int:
    """Memory of this host: MemTotal, or the limit of a cgroup we are in."""
    limits = [_limit(folder, _MEMORY[kind]) for kind, folder in _cgroups("memory")]
    return min([_meminfo("MemTotal"), *(limit for limit in limits if limit is not None)]) >> 20


def available_mib() -> int:
    """Memory that new processes can have without swapping: MemAvailable, or what a cgroup we are in has left."""
    available = _meminfo("MemAvailable")
    for kind, folder in _cgroups("memory"):
        left = _memory_left(folder, _MEMORY[kind])
        if left is not None:
            available = min(available, max(0, left))
    return available >> 20


def vcpus() -> int:
    """Virtual CPUs that guests may have in all before they only wait for each other."""
    return _VCPUS_PER_CORE * cores()


def cores() -> int:
    """Processors this process may use: by affinity, and by the quota of every cgroup it is in."""
    usable = len(os.sched_getaffinity(0))
    quotas = (_quota(folder) for _, folder in _cgroups("cpu"))
    return max(1, min([usable, *(int(quota) for quota in quotas if quota is not None)]))


def _meminfo(name: str) -> int:
    """Bytes that /proc/meminfo gives under this name."""
    lines = (_PROC / "meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) << 10


def _limit(folder: Path, files: _Files) -> int | None:
    """The tightest limit of one cgroup in bytes; None where there is none."""
    return min(
        (limit for name in files.limits if (limit := _number(folder / name)) is not None), default=None
    )


def _memory_left(folder: Path, files: _Files) -> int | None:
    """Bytes below the tightest limit of one cgroup; None where there is none."""
    limit = _limit(folder, files)
    used = _number(folder / files.used)
    if limit is None or used is None:
        return None
    counted = dict(line.partition(" ")[::2] for line in _read(folder / "memory.stat").splitlines())
    return limit - used + sum(int(counted.get(key, 0)) for key in files.reclaimable)


def _quota(folder: Path) -> float | None:
    """Processors' worth of time that one cgroup gets; None if it is not limited."""
    words = _read(folder / "cpu.max").split()  # version 2: quota and period in one file
    if not words:
        words = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isdigit() for word in words):  # "max", or -1
        return None
    return int(words[0]) / int(words[1])


def _cgroups(controller: str) -> Iterator[tuple[str, Path]]:
    """Type and folder of each cgroup whose limits of ``controller`` hold for us: our own and those around it.

    Of both versions: a host may have the controller in either. Those outside of our namespace cannot be seen.
    """
    ours = {}
    for line in _read(_PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if controllers else ["cgroup2"]:
            ours[name] = path
    for line in _read(_PROC / "self/mountinfo").splitlines():
        mount, _, kind = line.partition(" - ")
        root, point = mount.split()[3:5]
        kind, _, options = kind.split()[:3]
        name = "cgroup2" if kind == "cgroup2" else controller
        if kind not in _CGROUP_TYPES or name not in ours:
            continue
        if kind == "cgroup" and controller not in options.split(","):
            continue
        top = Path(point)
        inside = Path(ours[name])
        # In a container the mount may show only our part of the tree, and we may even be outside of it.
        inside = inside.relative_to(root) if inside.is_relative_to(root) else Path()
        yield from ((kind, top / part) for part in (inside, *inside.parents))


def _read(path: Path) -> str:
    """The file's text, "" if there is none: not every cgroup has every file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None
