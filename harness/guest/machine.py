"""The shape of a machine: what a guest is made of besides its kernel. Pure data."""

from __future__ import annotations

import dataclasses

from harness.errors import UserError

# What a kernel needs beside huge pages and what a program maps, at least: Debian's take 100 MiB, initramfs included.
_KERNEL_MIB = 128
# A smaller node leaves the kernel no room for its own per-node tables and reserves.
_NODE_MIB = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """One virtio disk, served by nbdkit from memory and thrown away with the guest.

    ``filesystem`` is a key of `harness.guest.disk.FILE_SYSTEMS`: a fresh one, mounted in the guest when it is ready
    (`harness.guest.furnish`); None: zeros. A delay keeps I/O in flight long enough for a fork to come between: 20 ms
    makes forkscrew certain where a bandwidth limit made it a matter of luck (10 of 10 against 3 of 10 attempts on
    Debian's 6.1).
    """

    size_mib: int = 64
    read_delay_ms: int = 0
    write_delay_ms: int = 0
    filesystem: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineShape:
    """What one guest is made of. Two guests of the same shape and kernel can share a snapshot.

    ``cpu`` overrides the architecture's CPU model; ``channel`` is ``agent``, ``serial`` or ``shell``. CPUs and memory
    are spread evenly over ``numa_nodes``. ``hugepages`` of the kernel's default size are reserved at boot.
    """

    cpus: int = 2
    memory_mib: int = 512
    numa_nodes: int = 1
    hugepages: int = 0
    cpu: str | None = None
    disks: tuple[Disk, ...] = ()
    modules: tuple[str, ...] = ()
    kernel_arguments: tuple[str, ...] = ()
    channel: str = "agent"

    @property
    def node_cpus(self) -> tuple[int, ...]:
        """CPUs of each NUMA node."""
        return _spread(self.cpus, self.numa_nodes)

    @property
    def node_memory_mib(self) -> tuple[int, ...]:
        """Memory of each NUMA node."""
        return _spread(self.memory_mib, self.numa_nodes)

    def check(self, page_size: int) -> None:
        """`UserError` if a kernel with pages of so many bytes cannot be given a machine of this shape."""
        if self.numa_nodes > self.cpus:
            raise UserError(
                f"{self.numa_nodes} NUMA nodes and {self.cpus} CPUs", mend="every node needs a CPU of its own"
            )
        if min(self.node_memory_mib) < _NODE_MIB:
            raise UserError(
                f"{self.memory_mib} MiB of memory for {self.numa_nodes} NUMA nodes",
                mend=f"every node needs {_NODE_MIB} MiB",
            )
        reserved = self.hugepages * huge_page_mib(page_size)
        if reserved and reserved + _KERNEL_MIB > self.memory_mib:
            raise UserError(
                f"{self.hugepages} huge pages of {huge_page_mib(page_size)} MiB do not fit in {self.memory_mib} MiB",
                mend=f"give the guest {reserved + _KERNEL_MIB} MiB or more, or fewer huge pages",
            )


def huge_page_mib(page_size: int) -> int:
    """MiB of a huge page of the default size: what one page of page-table entries, 8 bytes each, maps."""
    return page_size * (page_size // 8) >> 20


def _spread(total: int, parts: int) -> tuple[int, ...]:
    """``total`` in equal parts; what is left over goes to the first ones."""
    share, over = divmod(total, parts)
    return tuple(share + (number < over) for number in range(parts))
