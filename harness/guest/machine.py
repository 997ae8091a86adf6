"""The shape of a machine: what a guest is made of besides its kernel. Pure data."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """One virtio disk, served by nbdkit from memory and thrown away with the guest.

    A delay keeps I/O in flight long enough for a fork to come between: 20 ms makes forkscrew certain where a
    bandwidth limit made it a matter of luck (10 of 10 against 3 of 10 attempts on Debian's 6.1).
    """

    size_mib: int = 64
    read_delay_ms: int = 0
    write_delay_ms: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineShape:
    """What one guest is made of. Two guests of the same shape and kernel can share a snapshot.

    ``cpu`` overrides the architecture's CPU model; ``channel`` is ``agent``, ``serial`` or ``shell``.
    """

    cpus: int = 2
    memory_mib: int = 512
    cpu: str | None = None
    disks: tuple[Disk, ...] = ()
    modules: tuple[str, ...] = ()
    kernel_arguments: tuple[str, ...] = ()
    channel: str = "agent"
