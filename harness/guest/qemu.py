"""QEMU's command line. A pure function of what the guest is made of; every odd flag says why."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

from harness import tools
from harness.arch import Arch
from harness.guest import forensics
from harness.guest.machine import MachineShape
from harness.kernel.kernel import Kernel

# A file beside the memory of a snapshot: the image's head. QEMU wants the kernel it was saved with, for the machine it
# then builds, but the kernel itself is in the memory already; to load an arm64 one in vain takes 0.1 s of each start
# (13 ms on x86_64). The head holds what QEMU looks at: the setup code of a bzImage is at most 32 KiB long.
KERNEL_HEAD = "kernel-head"
KERNEL_HEAD_BYTES = 64 << 10

PORT_NAME = "org.cowpen.agent"  # guest-programs/init/init.c looks for it

# Modules without which the agent cannot be reached, and the one that reports a panic.
AGENT_MODULES = ("virtio_pci", "virtio_console")
DISK_MODULES = ("virtio_pci", "virtio_blk")
# Early, so that a panic in a later module is reported too; missing in small kernels, which is fine:
# QEMU's own end (panic=-1 and -no-reboot) still tells.
OPTIONAL_MODULES = ("pvpanic_pci",)

_KERNEL_ARGUMENTS = (
    # Reset at a panic: QEMU then ends (-action reboot=shutdown), which cowpen notices at once. An oops is
    # a panic too: what runs after it proves nothing, and a kernel that dies holding a lock only hangs.
    "panic=-1",
    "oops=panic",
    # Addresses in logs then fit System.map, and every boot lays memory out alike, which snapshots want.
    "nokaslr",
    # PID 1 says what it does through /dev/kmsg; without this a burst of it is dropped.
    "printk.devkmsg=on",
    # An emulated CPU gathers entropy slowly; nothing in a test guest is worth waiting for it.
    "random.trust_cpu=on",
    # The watchdogs count guest seconds, but a host that is busy steals minutes: a lockup must be a real one.
    "watchdog_thresh=60",
    "rcupdate.rcu_cpu_stall_timeout=120",
    *forensics.KERNEL_ARGUMENTS,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descriptors:
    """The file descriptors QEMU inherits: one end of each socket pair."""

    monitor: int
    channel: int
    disks: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Acceleration:
    """How QEMU runs the guest's CPUs: ``tcg`` or ``kvm``."""

    name: str
    host_khz: int | None = None
    """The rate of the host's counter, if it has one (`harness.guest.ticks`)."""

    def arguments(self, arch: Arch, cpu: str | None, *, steady: bool = False) -> list[str]:
        """QEMU's options; ``steady`` prefers a guest that comes up for certain to one whose CPUs run at once."""
        if self.name == "kvm":
            return ["-accel", "kvm", "-cpu", cpu or arch.kvm_cpu]
        # thread=multi: races need CPUs that really run at once; QEMU picks single for some host/guest
        # pairs. But while an x86_64 kernel patches itself at boot, one CPU of a multi-threaded QEMU may keep a
        # breakpoint of text_poke_bp() that another has just replaced, and oops with "int3" in some innocent
        # function (seen once in some hundred boots, QEMU 7.2). A boot that a snapshot is made of gains nothing
        # from threads, so it does without. tb-size: the default translation cache is 1 GiB per guest, far
        # more than a boot fills.
        thread = "single" if steady else "multi"
        return ["-accel", f"tcg,thread={thread},tb-size=256", "-cpu", cpu or arch.cpu]


def escape(path: Path) -> str:
    """A path inside a QEMU option: commas are doubled."""
    return str(path).replace(",", ",,")


def kernel_arguments(arch: Arch, shape: MachineShape, acceleration: Acceleration) -> str:
    """The kernel command line."""
    khz = acceleration.host_khz if acceleration.name == "tcg" else None
    words = [
        f"console={arch.console}",
        *_KERNEL_ARGUMENTS,
        *arch.kernel_arguments,
        *([f"{arch.khz_argument}={khz}"] if arch.khz_argument and khz else []),
        f"cowpen.channel={shape.channel}",
        *([f"hugepages={shape.hugepages}"] if shape.hugepages else []),
        *shape.kernel_arguments,
    ]
    return " ".join(words)


def command(
    *,
    kernel: Kernel,
    initramfs: Path,
    shape: MachineShape,
    acceleration: Acceleration,
    console: Path,
    descriptors: Descriptors,
    ram: Path | None = None,
    restoring: bool = False,
) -> list[str]:
    """The whole command line of one guest.

    ``ram`` is the folder of the files that hold the guest's memory (`memory_files`): when ``restoring`` a snapshot's,
    mapped copy-on-write; otherwise it is to be filled for a snapshot (see `harness.guest.snapshot`).
    """
    arch = kernel.arch
    # With one node the machine takes its memory by itself, and the kernel sees no NUMA.
    whole = ",memory-backend=ram0" if shape.numa_nodes == 1 else ""
    # With several, CPUs of one socket in two nodes would make the kernel warn of a firmware bug.
    sockets = "" if shape.numa_nodes == 1 else f",sockets={shape.cpus},cores=1,threads=1"
    line = [
        tools.find(arch.qemu),
        "-name", "cowpen",
        # Nothing but what is named here: no default NIC, floppy, VGA, and no user's configuration.
        "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", f"{arch.machine}{whole}",
        *acceleration.arguments(arch, shape.cpu, steady=ram is not None and not restoring),
        "-smp", f"{shape.cpus}{sockets}",
        "-m", f"{shape.memory_mib}M",
        *_memory(shape, ram, restoring=restoring),
        # panic=none: pvpanic reports the panic but lets the kernel go on to print the rest of it.
        "-action", "reboot=shutdown,panic=none",
        "-device", "pvpanic-pci",
        "-kernel", str(ram / KERNEL_HEAD if ram is not None and restoring else kernel.image),
        "-initrd", str(initramfs),
        "-append", kernel_arguments(arch, shape, acceleration),
        # Sockets made beforehand: nothing listens, nothing lies in a file system, nobody else connects.
        "-chardev", f"socket,id=monitor,fd={descriptors.monitor}",
        "-mon", "chardev=monitor,mode=control",
    ]  # fmt: skip
    line += _channel(shape, console, descriptors.channel)
    for number, fd in enumerate(descriptors.disks):
        node = f"disk{number}"
        line += ["-blockdev", f"driver=nbd,node-name={node},server.type=fd,server.str={fd}"]
        line += ["-device", f"virtio-blk-pci,drive={node}"]
    if restoring:
        line += ["-incoming", "defer"]  # until the monitor has said what the state leaves out
    return line


def memory_files(shape: MachineShape) -> tuple[str, ...]:
    """The names of the files that hold a guest's memory, one for each NUMA node."""
    return tuple(f"ram{node}" for node in range(shape.numa_nodes))


def _memory(shape: MachineShape, ram: Path | None, *, restoring: bool) -> list[str]:
    """A memory backend for each NUMA node, and which node has which CPUs."""
    share = "off" if restoring else "on"
    line = []
    first = 0
    for node, (mib, cpus) in enumerate(zip(shape.node_memory_mib, shape.node_cpus, strict=True)):
        name = memory_files(shape)[node]
        backend = f"id={name},size={mib}M"
        if ram is None:
            line += ["-object", f"memory-backend-ram,{backend}"]
        else:
            line += ["-object", f"memory-backend-file,{backend},mem-path={escape(ram / name)},share={share}"]
        if shape.numa_nodes > 1:
            line += ["-numa", f"node,nodeid={node},cpus={first}-{first + cpus - 1},memdev={name}"]
        first += cpus
    return line


def _channel(shape: MachineShape, console: Path, fd: int) -> list[str]:
    log = escape(console)
    if shape.channel == "agent":
        return [
            "-chardev", _console(log),
            "-serial", "chardev:console",
            "-chardev", f"socket,id=agent,fd={fd}",
            "-device", "virtio-serial-pci,id=agents,max_ports=2",
            "-device", f"virtserialport,bus=agents.0,chardev=agent,name={PORT_NAME}",
        ]  # fmt: skip
    # The console itself is the channel. QEMU writes the log, so that it is whole whoever reads the socket.
    return [
        "-chardev", f"socket,id=console,fd={fd},logfile={log},logappend=on",
        "-serial", "chardev:console",
    ]  # fmt: skip


def _console(log: str) -> str:
    """A console that writes its log and can be written to: a pseudo-terminal nobody need read.

    Only a guest that hangs is ever written to (`harness.guest.forensics`), so where the host has no pseudo-terminals
    to give, as in a chroot without /dev/pts, a file does.
    """
    if _has_terminals():
        return f"pty,id=console,logfile={log},logappend=on"
    return f"file,id=console,path={log},append=on"


@functools.cache
def _has_terminals() -> bool:
    try:
        ends = os.openpty()
    except OSError:
        return False
    for end in ends:
        os.close(end)
    return True
