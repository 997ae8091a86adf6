"""How many guests at once."""

from pathlib import Path

import pytest

from harness.guest.machine import Disk, MachineShape
from harness.trial import jobs
from harness.trial.jobs import Jobs

GIB = 1 << 30
ROOMY = 24000


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A host of two cores and plenty of memory."""
    monkeypatch.setattr(jobs, "cores", lambda: 2)
    monkeypatch.setattr(jobs, "available_mib", lambda: ROOMY)
    return monkeypatch


@pytest.mark.parametrize(
    ("wanted", "cores", "memory", "given", "because"),
    [
        (1, 2, ROOMY, 1, ""),
        (4, 2, ROOMY, 4, ""),
        (40, 2, ROOMY, 4, "this host has 2 cores"),
        (4, 2, 3000, 2, "no more of 512 MiB fit"),
        (1, 2, 100, 1, ""),  # one guest is always tried
        (None, 2, ROOMY, 2, ""),
        (None, 8, ROOMY, 8, ""),
        (None, 8, 3000, 2, ""),
        (None, 2, 100, 1, ""),
    ],
)
def test_bounds(
    host: pytest.MonkeyPatch, wanted: int | None, cores: int, memory: int, given: int, because: str
) -> None:
    host.setattr(jobs, "cores", lambda: cores)
    host.setattr(jobs, "available_mib", lambda: memory)
    told: list[str] = []
    assert Jobs(wanted).of(MachineShape(memory_mib=512), told.append) == given
    assert bool(told) == bool(because)
    assert because in "".join(told)


@pytest.mark.parametrize(("cpus", "auto"), [(1, 4), (2, 4), (4, 2), (8, 1), (64, 1)])
def test_auto_does_not_starve_guests_with_many_cpus(host: pytest.MonkeyPatch, cpus: int, auto: int) -> None:
    host.setattr(jobs, "cores", lambda: 4)
    assert jobs.sensible(MachineShape(cpus=cpus)) == auto


def test_each_trial_is_bounded_by_its_own_shape(host: pytest.MonkeyPatch) -> None:
    host.setattr(jobs, "available_mib", lambda: 8000)
    many, told = Jobs(4), []
    assert many.of(MachineShape(memory_mib=512), told.append) == 4
    assert many.of(MachineShape(memory_mib=2048), told.append) == 2
    # A disk is memory of the host too.
    assert many.of(MachineShape(disks=(Disk(size_mib=4096),)), told.append) == 1
    assert len(told) == 2
    # A run of many trials says it once.
    assert many.of(MachineShape(memory_mib=2048), told.append) == 2
    assert len(told) == 2


class Tree:
    """A process's view of its cgroups, made of files as the kernel shows them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text("MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n")
        monkeypatch.setattr(jobs, "_PROC", self.proc)
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))

    def process(self, *cgroups: str) -> None:
        (self.proc / "self/cgroup").write_text("".join(f"{line}\n" for line in cgroups))

    def mount(self, name: str, kind: str, options: str, root: str = "/") -> Path:
        point = self.folder / name
        point.mkdir(exist_ok=True)
        with (self.proc / "self/mountinfo").open("a") as file:
            file.write(f"31 23 0:28 {root} {point} rw,relatime shared:4 - {kind} cgroup rw,{options}\n")
        return point

    @staticmethod
    def write(folder: Path, **files: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".", 1)).write_text(f"{text}\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path, monkeypatch)


def test_without_cgroups(tree: Tree) -> None:
    assert (jobs.available_mib(), jobs.cores()) == (16384, 8)


def test_our_own_cgroup_and_all_around_it_count(tree: Tree) -> None:
    top = tree.mount("unified", "cgroup2", "nsdelegate")
    tree.process("0::/user/session")
    tree.write(top / "user/session", memory__max="max", memory__current=GIB, cpu__max="max 100000")
    assert (jobs.available_mib(), jobs.cores()) == (16384, 8)
    # The folder around ours.
    tree.write(top / "user", memory__max=4 * GIB, memory__current=3 * GIB, cpu__max="350000 100000")
    assert (jobs.available_mib(), jobs.cores()) == (1024, 3)
    # Ours is tighter.
    tree.write(top / "user/session", memory__max=GIB, memory__current=GIB // 2, cpu__max="50000 100000")
    assert (jobs.available_mib(), jobs.cores()) == (512, 1)
    # A neighbour's is no matter.
    tree.write(top / "user/other", memory__max=1, memory__current=0)
    assert jobs.available_mib() == 512


def test_page_cache_can_be_had_back(tree: Tree) -> None:
    top = tree.mount("unified", "cgroup2", "nsdelegate")
    tree.process("0::/")
    stat = f"anon {GIB}\nfile {2 * GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}\nunevictable 0"
    tree.write(top, memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=stat)
    assert jobs.available_mib() == 1024 + 1024 + 512
    # More than memory.high is taken away from a process slowly, but it is.
    tree.write(top, memory__high=2 * GIB)
    assert jobs.available_mib() == 512


def test_version_one(tree: Tree) -> None:
    memory = tree.mount("memory", "cgroup", "memory")
    cpu = tree.mount("cpu", "cgroup", "cpu,cpuacct")
    tree.mount("pids", "cgroup", "pids")
    tree.process("9:pids:/x", "4:memory:/a", "1:cpu,cpuacct:/b", "0::/")
    stat = f"inactive_file 1\ntotal_inactive_file {GIB // 4}\ntotal_active_file {GIB // 4}"
    unlimited = 9223372036854771712
    tree.write(memory, memory__limit_in_bytes=unlimited, memory__usage_in_bytes=GIB, memory__stat="")
    tree.write(memory / "a", memory__limit_in_bytes=2 * GIB, memory__usage_in_bytes=GIB, memory__stat=stat)
    tree.write(cpu, cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    tree.write(cpu / "b", cpu__cfs_quota_us=200000, cpu__cfs_period_us=100000)
    assert (jobs.available_mib(), jobs.cores()) == (1024 + 512, 2)


@pytest.mark.parametrize(
    ("ours", "root"),
    [
        ("/docker/42", "/docker/42"),  # the mount shows our part of the tree only
        ("/../../outside", "/"),  # and we are outside of what our namespace shows
    ],
)
def test_container(tree: Tree, ours: str, root: str) -> None:
    top = tree.mount("unified", "cgroup2", "nsdelegate", root=root)
    tree.process(f"0::{ours}")
    tree.write(top, memory__max=GIB, memory__current=0)
    assert jobs.available_mib() == 1024


def test_more_used_than_allowed(tree: Tree) -> None:
    top = tree.mount("unified", "cgroup2", "nsdelegate")
    tree.process("0::/")
    tree.write(top, memory__max=GIB, memory__current=2 * GIB)
    assert jobs.available_mib() == 0


def test_this_host_can_be_measured() -> None:
    assert jobs.cores() >= 1
    assert jobs.available_mib() > 0
