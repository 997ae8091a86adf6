"""The shape of a machine: what of it can be had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.guest.machine import MachineShape, huge_page_mib


@pytest.mark.parametrize(("page_size", "mib"), [(4096, 2), (16384, 32), (65536, 512)])
def test_size_of_a_huge_page(page_size: int, mib: int) -> None:
    """As Documentation/arm64/hugetlbpage.rst and x86 have it for the PMD."""
    assert huge_page_mib(page_size) == mib


@given(st.integers(1, 64), st.integers(64, 100_000), st.integers(1, 16))
def test_nodes_get_all_there_is_and_alike(cpus: int, memory: int, nodes: int) -> None:
    shape = MachineShape(cpus=cpus, memory_mib=memory, numa_nodes=nodes)
    for total, parts in ((cpus, shape.node_cpus), (memory, shape.node_memory_mib)):
        assert sum(parts) == total
        assert len(parts) == nodes
        assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize(
    ("shape", "page_size", "words"),
    [
        (MachineShape(numa_nodes=3), 4096, "3 NUMA nodes and 2 CPUs"),
        (MachineShape(cpus=8, memory_mib=256, numa_nodes=8), 4096, "256 MiB of memory for 8 NUMA nodes"),
        (MachineShape(hugepages=193), 4096, "193 huge pages of 2 MiB do not fit in 512 MiB.*514 MiB or more"),
        (MachineShape(hugepages=13), 16384, "13 huge pages of 32 MiB do not fit"),
    ],
)
def test_what_cannot_be(shape: MachineShape, page_size: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        shape.check(page_size)


@pytest.mark.parametrize(
    ("shape", "page_size"),
    [
        (MachineShape(), 65536),
        (MachineShape(hugepages=192), 4096),
        (MachineShape(hugepages=12), 16384),
        (MachineShape(cpus=8, numa_nodes=8), 4096),
    ],
)
def test_what_can_be(shape: MachineShape, page_size: int) -> None:
    shape.check(page_size)
