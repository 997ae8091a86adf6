"""The architectures, as data: nothing else in cowpen asks which one it is dealing with.

Adding an architecture means adding a record here.
"""

from __future__ import annotations

import dataclasses
import functools
import platform

from harness.errors import UserError, nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registers:
    """What unwinding a stack takes. Registers go by the numbers that DWARF gives them."""

    pc: int
    sp: int
    fp: int
    link: int | None
    """What a call leaves the return address in; None: on the stack."""
    kept: tuple[int, ...]
    """A function gives them back as they were, so that they are those of its caller."""
    call: bytes
    """Regular expression of the instructions after which a call returns; it ends where they do."""
    signal_frame: int | None = None
    """Where the kernel has its own code return from a signal's handler: bytes from the stack pointer to the registers
    that were interrupted, in their order. None: the C library has it, and describes it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arch:
    """One guest architecture.

    ``name`` is the kernel's ``uname -m``. ``cpu`` is the model under TCG, ``kvm_cpu`` under KVM.
    """

    name: str
    debian: str
    """Debian's name of the architecture, used in package names."""
    gnu: str
    """GNU triplet: prefix of the cross compiler and binutils."""
    objdump: tuple[str, ...]
    """Arguments by which objdump takes bytes for this architecture's instructions, one a line."""
    code_unit: int
    """Bytes of each number after ``Code:`` in an oops."""
    elf_machine: str
    """pyelftools' ``e_machine``, to check a user's binary."""
    kernel_arch: str
    """``ARCH=`` of the kernel's makefiles."""
    image_target: str
    """Path of the bootable image in a kernel build tree."""
    qemu: str
    """QEMU's system emulator."""
    qemu_package: str
    """Debian package that holds it."""
    machine: str
    """QEMU ``-machine`` without accelerator."""
    cpu: str
    kvm_cpu: str
    registers: Registers
    console: str
    """The kernel's name of the serial console."""
    earlycon: str
    """``earlycon=`` argument that shows output before the console driver is up."""
    kernel_arguments: tuple[str, ...] = ()
    """Arguments every guest of this architecture gets, each explained where the record is made."""
    khz_argument: str | None = None
    """Under TCG, what tells the kernel the rate of its clock, where that is the host's own (`harness.guest.ticks`)."""

    def compiler(self) -> str:
        """The gcc that builds for this architecture on this host."""
        return "gcc" if self.native else f"{self.gnu}-gcc"

    def binutil(self, name: str) -> str:
        """A binutils program (``objdump``, ``addr2line``) for this architecture on this host."""
        return name if self.native else f"{self.gnu}-{name}"

    @property
    def native(self) -> bool:
        """Whether the host itself is of this architecture (then KVM may work and gcc is plain)."""
        return platform.machine() == self.name


X86_64 = Arch(
    name="x86_64",
    debian="amd64",
    gnu="x86_64-linux-gnu",
    objdump=("-m", "i386:x86-64", "--insn-width=15"),
    code_unit=1,
    elf_machine="EM_X86_64",
    kernel_arch="x86",
    image_target="arch/x86/boot/bzImage",
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    # smm, hpet and i8042-like legacy cost boot time and no test needs them.
    machine="q35,smm=off",
    cpu="max",
    kvm_cpu="host",
    registers=Registers(
        pc=16,
        sp=7,
        fp=6,
        link=None,
        kept=(3, 6, 12, 13, 14, 15),  # rbx, rbp, r12 …
        # call rel32; call *%reg; call *N(%reg) with and without a SIB byte, N of one byte or four
        call=rb"(?s:\xe8.{4}|\xff(?:[\x10-\x17\xd0-\xd7]|[\x50-\x57].|\x54..|[\x15\x90-\x97].{4}|\x94.{5}|\x14.))\Z",
    ),
    console="ttyS0",
    earlycon="uart8250,io,0x3f8,115200n8",
    # Under TCG the TSC is the host's clock and steady, but the guest cannot know: without this the
    # watchdog may call it unstable on a loaded host and print a warning that looks like a finding.
    # no_timer_check: the IO-APIC timer self-test counts jiffies and panics when the host is busy.
    kernel_arguments=("tsc=reliable", "no_timer_check"),
    # Left alone, Linux measures the TSC by the PIT, through ports that a busy host answers late: 780 MHz were seen
    # where it was 2443, and the guest's clock, with every deadline in the guest, ran three times too fast.
    khz_argument="tsc_early_khz",
)

AARCH64 = Arch(
    name="aarch64",
    debian="arm64",
    gnu="aarch64-linux-gnu",
    objdump=("-m", "aarch64"),
    code_unit=4,
    elf_machine="EM_AARCH64",
    kernel_arch="arm64",
    image_target="arch/arm64/boot/Image",
    qemu="qemu-system-aarch64",
    qemu_package="qemu-system-arm",
    # gic-version=3: more than 8 CPUs, and what current hardware has.
    machine="virt,gic-version=3",
    # cortex-a76, not max: TCG spends half of max's time on pointer authentication, and hierarchical
    # table permissions of max upset arm64 async-fork kernels. Not a57: it lacks the 16 KiB granule.
    cpu="cortex-a76",
    kvm_cpu="host",
    registers=Registers(
        pc=32,
        sp=31,
        fp=29,
        link=30,
        kept=tuple(range(19, 30)),
        call=rb"(?s:...[\x94-\x97]|.[\x00-\x03]\x3f\xd6)\Z",  # bl; blr
        # struct rt_sigframe: siginfo, and in ucontext's sigcontext the registers, sp and pc.
        signal_frame=312,
    ),
    console="ttyAMA0",
    earlycon="pl011,0x9000000",
)

ARCHES: dict[str, Arch] = {arch.name: arch for arch in (X86_64, AARCH64)}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def get_arch(name: str) -> Arch:
    """The record of ``name`` (kernel's or Debian's spelling); `UserError` names the nearest."""
    arch = ARCHES.get(_ALIASES.get(name, name))
    if arch is None:
        raise UserError(f"unknown architecture {name!r}", mend=nearest(name, [*ARCHES, *_ALIASES]))
    return arch


@functools.cache
def host_arch() -> Arch:
    """The host's own architecture; `UserError` if cowpen has no record of it."""
    return get_arch(platform.machine())
