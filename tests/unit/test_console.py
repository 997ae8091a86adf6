"""Console logs to findings."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.arch import ARCHES
from harness.bug import load_bug
from harness.console.detect import MAX_FINDINGS, MAX_REPORT, scan, scan_file
from harness.console.finding import KINDS, Finding, Frame, Task
from harness.console.format import MAX_TITLE, normalised
from harness.console.formats import CANDIDATE, FORMATS, find_format
from harness.console.report import bare
from harness.console.skip import SKIP, skipped

DATA = Path(__file__).parent / "data"
SEQUENCE_LOG = DATA / "wpseq-writer-6.1-x86_64.log"

# As it was posted: header in the middle, no registers.
ASYNC_FORK = b"""\
Modules linked in:
CPU: 6 PID: 510 Comm: a.out Not tainted 6.6.0+ #238
kernel BUG at include/linux/mm.h:2070!
Hardware name: QEMU QEMU Virtual Machine, BIOS 0.0.0 02/06/2015
...
Call trace:
 copy_pte_range+0x2518/0x6be8
 __copy_page_range+0x428/0xdd0
 async_fork_fixup_pmd+0x3c4/0xa90
 __handle_mm_fault+0x28c/0x950
 handle_mm_fault+0x110/0x958
 do_page_fault+0x698/0xd70
"""

# rhbz#471613, comment 118: the spellings of 2009.
OLD_KERNEL = b"""\
BUG: sleeping function called from invalid context at mm/page_alloc.c:945
in_atomic():1, irqs_disabled():0
 [<c0460a4e>] __alloc_pages+0x31/0x2a6
 [<c0468fd0>] copy_page_range+0x442/0x653
 =======================

=============================================
[ INFO: possible recursive locking detected ]
2.6.18-128.1.1.el5.bz471613.1debug #1
---------------------------------------------
kdump-propagate/4927 is trying to acquire lock:
 (&mm->page_table_lock){--..}, at: [<c046907c>] copy_page_range+0x4ee/0x653

but task is already holding lock:
 (&mm->page_table_lock){--..}, at: [<c0469073>] copy_page_range+0x4e5/0x653

stack backtrace:
 [<c043a8f5>] __lock_acquire+0x75b/0x972
 [<c043b21b>] lock_acquire+0x5d/0x78
 [<c046907c>] copy_page_range+0x4ee/0x653
"""

TRACE = b"Call Trace:\n <TASK>\n dump_stack_lvl+0x44/0x5c\n ? f+0x1/0x2\n guilty.isra.0+0x12/0x34 [mod]\n </TASK>\n"


END = b"---[ end trace 0000000000000000 ]---"


def stamped(log: bytes, caller: bytes = b"") -> bytes:
    return b"".join(b"[    1.000000]" + caller + b" " + line + b"\n" for line in log.splitlines())


def functions(finding: Finding) -> list[str]:
    return [frame.function for frame in finding.frames]


def test_golden_x86_64() -> None:
    (finding,) = scan_file(SEQUENCE_LOG)
    assert finding.kind == "BUG"
    assert finding.title == "kernel BUG in copy_page_range"
    assert finding.frame == "copy_page_range"
    assert functions(finding)[:4] == ["copy_page_range", "dup_mmap", "copy_process", "kernel_clone"]
    assert finding.file == "include/linux/mm.h"
    assert finding.arch == "x86_64"
    assert not finding.corrupted
    text = SEQUENCE_LOG.read_bytes()[finding.start : finding.end]
    assert text.startswith(b"[    0.876031] ------------[ cut here")
    # The panic that follows is a consequence: it belongs to the report and is no finding.
    assert b"Attempted to kill init" in text
    assert b"Kernel Offset" not in text
    assert "\r" not in finding.text


def test_golden_arm64_bug() -> None:
    (finding,) = scan(ASYNC_FORK)
    assert finding.title == "kernel BUG in copy_pte_range"
    assert finding.frame == "copy_pte_range"
    assert "async_fork_fixup_pmd" in functions(finding)
    assert finding.file == "include/linux/mm.h"
    assert finding.arch == "aarch64"


def test_golden_arm64_oops_is_one_report() -> None:
    (finding,) = scan_file(DATA / "oops-arm64.log")
    assert finding.kind == "oops"
    assert finding.title == "BUG: unable to handle kernel NULL pointer dereference in try_grab_folio"
    assert functions(finding)[:2] == ["try_grab_folio", "gup_pte_range"]
    assert finding.arch == "aarch64"
    assert finding.text.endswith("Oops: Fatal exception")


def test_golden_old_kernel() -> None:
    sleeping, lock = scan(OLD_KERNEL)
    assert sleeping.title == "BUG: sleeping function called from invalid context in copy_page_range"
    assert sleeping.file == "mm/page_alloc.c"
    assert (lock.kind, lock.title) == ("lockdep", "possible deadlock in copy_page_range")


@pytest.mark.parametrize(
    ("header", "kind", "title"),
    [
        ("kernel BUG at ../mm/memory.c:12!", "BUG", "kernel BUG in guilty"),
        ("BUG: KASAN: slab-use-after-free in do_wp_page+0x1/0x2", "KASAN", None),
        ("BUG: KFENCE: use-after-free read in f+0x1/0x2", "KFENCE", "KFENCE: use-after-free read in f"),
        ("BUG: KMSAN: uninit-value in f+0x1/0x2", "KMSAN", "KMSAN: uninit-value in f"),
        ("BUG: KCSAN: data-race in f / g", "KCSAN", "KCSAN: data-race in f / g"),
        (
            "UBSAN: array-index-out-of-bounds in mm/x.c:1:2",
            "UBSAN",
            "UBSAN: array-index-out-of-bounds in guilty",
        ),
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000010",
            "oops",
            "BUG: unable to handle kernel NULL pointer dereference in guilty",
        ),
        (
            "BUG: unable to handle page fault for address: ffffdc0000000003",
            "oops",
            "BUG: unable to handle kernel paging request in guilty",
        ),
        (
            "Unable to handle kernel paging request at virtual address dead000000000100",
            "oops",
            "BUG: unable to handle kernel paging request in guilty",
        ),
        (
            "general protection fault, probably for non-canonical address 0xdffff: 0000 [#1] PREEMPT SMP",
            "oops",
            "general protection fault in guilty",
        ),
        (
            "Oops: general protection fault, probably for non-canonical address 0xdffff: 0000 [#1] SMP",
            "oops",
            "general protection fault in guilty",
        ),
        ("divide error: 0000 [#1] SMP", "oops", "divide error in guilty"),
        ("Internal error: Oops - BUG: 00000000f2000800 [#1] SMP", "BUG", "kernel BUG in guilty"),
        (
            "Internal error: synchronous external abort: 0000000096000210 [#1] SMP",
            "oops",
            "Internal error: synchronous external abort in guilty",
        ),
        (
            "WARNING: CPU: 1 PID: 77 at mm/gup.c:77 try_grab_page.cold+0x1/0x2",
            "WARNING",
            "WARNING in try_grab_page",
        ),
        (
            "WARNING: mm/gup.c:77 at try_grab_page+0x1/0x2, CPU#1: a.out/77",
            "WARNING",
            "WARNING in try_grab_page",
        ),
        ("WARNING: possible circular locking dependency detected", "lockdep", "possible deadlock in guilty"),
        ("WARNING: inconsistent lock state", "lockdep", "inconsistent lock state in guilty"),
        ("WARNING: suspicious RCU usage", "lockdep", "WARNING: suspicious RCU usage in guilty"),
        ("BUG: Bad page state in process a.out  pfn:12345", "BUG", "BUG: Bad page state"),
        ("BUG: Bad page map in process a.out  pte:8000 pmd:12", "BUG", "BUG: Bad page map"),
        (
            "BUG: Bad rss-counter state mm:00000000f00dbeef type:MM_ANONPAGES val:-3",
            "BUG",
            "BUG: Bad rss-counter state",
        ),
        (
            "BUG: non-zero pgtables_bytes on freeing mm: 4096",
            "BUG",
            "BUG: non-zero pgtables_bytes on freeing mm",
        ),
        ("BUG: scheduling while atomic: a.out/77/0x2", "BUG", "BUG: scheduling while atomic in guilty"),
        (
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [a.out:77]",
            "lockup",
            "BUG: soft lockup in guilty",
        ),
        ("INFO: task a.out:77 blocked for more than 120 seconds.", "hung-task", "INFO: task hung in guilty"),
        (
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "rcu-stall",
            "INFO: rcu detected stall in guilty",
        ),
        (
            "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
            "panic",
            "kernel panic: VFS: Unable to mount root fs",
        ),
        (
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
            "panic",
            "kernel panic: Attempted to kill init!",
        ),
        ("BUG: something new 0xffff888012345678 on CPU 3", "BUG", "BUG: something new ADDR on CPU"),
    ],
)
@pytest.mark.parametrize(
    "prefix", ["", "[    1.234567] ", "[    1.234567][  T123] ", "<4>[ 1.234567] ", "\x1b[31m"]
)
def test_header(header, kind, title, prefix) -> None:
    lines = [header.encode(), b"Read of size 8 at addr ffff888012345678 by task a.out/77"]
    log = b"".join(prefix.encode() + line + b"\r\n" for line in [*lines, *TRACE.splitlines(), END])
    before = b"[    1.000000] quiet before\n" if "1.2" in prefix else b"quiet before\n"
    (finding,) = scan(before + log)
    assert (finding.kind, finding.title) == (kind, title or "KASAN: slab-use-after-free Read in do_wp_page")
    assert finding.start == len(before)
    assert not finding.corrupted


@pytest.mark.parametrize(
    "line",
    [
        "[    0.000000] Kernel command line: console=ttyS0 x=[ 1.000000] kernel BUG at mm/x.c:1!",
        "[    0.000000] Command line: BUG: x",
        '[    0.000000] Unknown kernel command line parameters "BUG: x", will be passed to user space.',
        "[    0.000000] [Firmware Bug]: TSC doesn't count with P0 frequency!",
        "[    0.000000] WARNING: Spectre v2 mitigation leaves CPU vulnerable",
        "[    0.000000] printk: DEBUG: x",
        "the words general protection fault: in the middle",
        "[    0.000000] rcu: INFO about nothing",
        "[    1.000000] usb 1-1: Product: Oops: 0000 [#1] SMP",
        "[    1.000000] input: BUG: x as /devices/virtual/input/input7",
        "[    1.000000] BUG: x[77]: segfault at 0 ip 0000000000401000 sp 00007ffd error 4 in x[401000+1000]",
        "[    1.000000] traps: a.out[77] general protection fault ip:401000 sp:7ffd error:0 in a.out[401000+1000]",
        "[    1.000000] BUG: x[77] trap invalid opcode ip:401000 sp:7ffd error:0 in x[401000+1000]",
        "[    1.000000]     kernel BUG at mm/x.c:1!",  # an argument of init
        "[    1.000000] process 'BUG: x' started with executable stack",
        "[    1.000000] trouble: loading out-of-tree module taints kernel.",
        "[    1.000000] Disabling lock debugging due to kernel taint",
        "[    1.000000] INFO: lockdep is turned off.",
        "[    1.000000] INFO: NMI handler (nmi_cpu_backtrace_handler) took too long to run: 20.341 msecs",
        "[    1.000000] sysrq: Show Blocked State",
        "[    1.000000] NMI backtrace for cpu 1",
        "[    1.000000] page dumped because: migration failure",
        "[    1.000000] ODEBUG: selftest passed",
        "[    1.000000] Console: WARNING: a wide screen",
        "x" * 5000 + "[    1.000000] kernel BUG at mm/x.c:1!",
    ],
)
def test_not_a_report(line) -> None:
    assert scan(line.encode() + b"\n") == []


def test_output_of_a_program_before_the_stamp() -> None:
    (finding,) = scan(b"round 1 ...[    1.000000] kernel BUG at mm/x.c:1!\n" + stamped(TRACE))
    assert finding.title == "kernel BUG in guilty"


def test_page_dump_before_the_bug_is_kept() -> None:
    dump = b"page:00000000f00d refcount:1\nflags: 0x1\nraw: 1 2\npage dumped because: VM_BUG_ON_PAGE(x)\n"
    (finding,) = scan(b"before\n" + dump + b"------------[ cut here ]------------\nkernel BUG at mm/x.c:1!\n")
    assert finding.text.startswith("page:00000000f00d")
    # No trace followed: the place is only the file, and the report is cut off.
    assert (finding.title, finding.corrupted) == ("kernel BUG in mm/x.c", True)


def test_panic_after_a_mere_warning_is_its_own_finding() -> None:
    log = b"WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x1/0x2\n" + TRACE + b"---[ end trace 0 ]---\n"
    panic = b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x1\n"
    assert [finding.kind for finding in scan(log + panic)] == ["WARNING", "panic"]
    consequence = b"Kernel panic - not syncing: kernel: panic_on_warn set ...\n"
    assert [finding.kind for finding in scan(log + consequence)] == ["WARNING"]


def test_titles_do_not_depend_on_run_and_arch() -> None:
    def log(cpu: int, base: int) -> bytes:
        return (
            f"[{cpu:5}.123456] BUG: unable to handle page fault for address: {base:016x}\n"
            f"[{cpu:5}.123457] RIP: 0010:f.constprop.{cpu}+0x{cpu:x}/0x99\n"
        ).encode()

    (first,), (second,) = scan(log(1, 0xFFFF888000000000)), scan(log(77, 0xDEAD000000000100))
    assert first.title == second.title == "BUG: unable to handle kernel paging request in f"


def test_user_space_counter_is_not_the_kernels() -> None:
    (finding,) = scan(b"watchdog: BUG: soft lockup - CPU#0\nRIP: 0033:main+0x1/0x2\n" + TRACE)
    assert finding.frame == "guilty"


def test_second_header_belongs_to_one_report_only() -> None:
    die = b"invalid opcode: 0000 [#1] PREEMPT SMP\n"
    assert len(scan(b"kernel BUG at mm/x.c:1!\n" + die + TRACE)) == 1
    assert len(scan(b"kernel BUG at mm/x.c:1!\n" + die + TRACE + die + TRACE)) == 2
    far = b"nothing of interest\n" * 500
    assert len(scan(b"kernel BUG at mm/x.c:1!\n" + far + die + TRACE)) == 2


OOPS = b"""\
BUG: kernel NULL pointer dereference, address: 0000000000000010
#PF: supervisor read access in kernel mode
Oops: 0000 [#1] PREEMPT SMP
CPU: 1 PID: 77 Comm: a b/c Tainted: G        W  OE      6.1.0 #1
RIP: 0010:dup_mmap.isra.0+0x12/0x340 [mod]
Code: 0f 1f <0f> 0b
RSP: 0018:ffffc90000267f18 EFLAGS: 00000282
RAX: 0000000000000001 RBX: ffff888004dada00 RCX: ffffffff81ef820c
CR2: 0000000000000010 CR3: 0000000005529000 CR4: 0000000000350ef0
Call Trace:
 <TASK>
 ? exc_page_fault+0x1/0x2
 copy_process+0xcc7/0x15c0
 entry_SYSCALL_64_after_hwframe+0x4b/0xb5
RIP: 0033:0x439870
RAX: ffffffffffffffda RBX: 00007ffff8cf01d0 RCX: 0000000000439870
 </TASK>
---[ end trace 0000000000000000 ]---
"""


def test_everything_a_report_tells() -> None:
    (finding,) = scan(
        stamped(OOPS) + b"[    2.000000] Kernel Offset: 0x1c000000 from 0xffffffff81000000 (x)\n"
    )
    assert finding.task == Task(comm="a b/c", pid=77)
    assert (finding.cpu, finding.taint) == (1, "Tainted: G        W  OE")
    assert finding.registers["RAX"] == "0000000000000001"
    assert finding.registers["RSP"] == "0018:ffffc90000267f18"
    assert finding.registers["RIP"] == "0010:dup_mmap.isra.0+0x12/0x340"
    assert finding.code == "0f 1f <0f> 0b"
    assert finding.kernel_offset == 0x1C000000
    assert finding.alt_titles == ("bad-access in dup_mmap",)
    assert not finding.corrupted
    counter, caller, entry = finding.frames
    assert counter == Frame(
        function="dup_mmap", symbol="dup_mmap.isra.0", offset=0x12, size=0x340, module="mod", counter=True
    )
    assert caller == Frame(function="copy_process", symbol="copy_process", offset=0xCC7, size=0x15C0)
    assert entry.function == "entry_SYSCALL_64_after_hwframe"
    assert scan(stamped(OOPS) + b"[    2.000000] Kernel Offset: disabled\n")[0].kernel_offset == 0


def test_a_report_that_is_cut_off_is_corrupted() -> None:
    log = stamped(OOPS)
    for line in range(1, len(log.splitlines()) - 1):
        (finding,) = scan(b"".join(log.splitlines(keepends=True)[:line]))
        assert finding.corrupted
        assert finding.kind == "oops"
    lost = log.replace(b"[    1.000000] RSP", b"** 12 printk messages dropped **\n[    1.000000] RSP")
    assert scan(lost)[0].corrupted


def test_callers_take_interleaved_reports_apart() -> None:
    first = stamped(OOPS, b"[   T77]").splitlines(keepends=True)
    second = stamped(OOPS.replace(b"dup_mmap", b"gup_pte_range"), b"[    C0]").splitlines(keepends=True)
    mixed = b"".join(line for pair in zip(first, second, strict=True) for line in pair)
    one, two = scan(mixed)
    assert (one.frame, two.frame) == ("dup_mmap", "gup_pte_range")
    assert not one.corrupted
    assert not two.corrupted
    assert one.frames == scan(b"".join(first))[0].frames


def test_interleaved_reports_without_callers_are_corrupted() -> None:
    first = stamped(OOPS).splitlines(keepends=True)
    second = stamped(
        OOPS.replace(b"dup_mmap", b"gup_pte_range").replace(b"CPU: 1 PID: 77", b"CPU: 0 PID: 9")
    ).splitlines(keepends=True)
    mixed = b"".join(line for pair in zip(first, second, strict=True) for line in pair)
    assert {finding.corrupted for finding in scan(mixed)} == {True}


def test_half_a_line_of_another_cpu_is_noticed() -> None:
    log = stamped(OOPS).replace(b"[    1.000000] RSP", b"[    1.000000] RA[    1.000000] RSP")
    assert scan(log)[0].corrupted
    # A program's own half line is none.
    assert not scan(stamped(OOPS).replace(b"[    1.000000] RSP", b"round 1[    1.000000] RSP"))[0].corrupted


def test_a_program_among_stamped_lines_is_not_believed() -> None:
    words = OOPS + OLD_KERNEL
    assert scan(b"[    0.000000] Linux version 6.1\n" + words) == []
    assert scan(words + b"[    9.000000] later\n") == []
    # But it does not hide what the kernel says.
    (finding,) = scan(
        stamped(OOPS.splitlines(keepends=True)[0])
        + words
        + stamped(b"".join(OOPS.splitlines(keepends=True)[1:]))
    )
    assert finding.frame == "dup_mmap"
    assert not finding.corrupted


@pytest.mark.parametrize("prefix", [b"<12>[    1.0000", b"user  :warn  : [    1.0000"])
def test_what_a_process_wrote_to_the_log_is_marked(prefix) -> None:
    log = stamped(OOPS).replace(b"[    1.0000", prefix)
    (finding,) = scan(log)
    assert finding.user_written
    for kernels in (b"<4>[    1.0000", b"kern  :warn  : [    1.0000", b"[    1.0000"):
        (finding,) = scan(stamped(OOPS).replace(b"[    1.0000", kernels))
        assert not finding.user_written


@pytest.mark.parametrize(
    "prefix",
    [
        b"[Mon Nov  2 10:11:12 2026] ", b"Nov  2 10:11:12 host-1 kernel: ",
        b"Nov 02 10:11:12 host-1 kernel: [   12.345678] ",
        b"2026-11-02T10:11:12.345678+01:00 host kernel: ", b"> ",
        b"> > [   12.345678] ", b"[  T123] ", b"[   12.345678][    C0] ",
        b"kern  :alert : [   12.345678] ", b"<1>", b"\x1b[33m[   12.345678] \x1b[0m",
    ],
)  # fmt: skip
def test_prefixes(prefix) -> None:
    (finding,) = scan(b"".join(prefix + line + b"\n" for line in OOPS.splitlines()))
    (plain,) = scan(OOPS)
    assert (finding.title, finding.frames, finding.registers) == (plain.title, plain.frames, plain.registers)
    assert not finding.corrupted


def test_first_seed_has_the_signature_of_its_bug() -> None:
    (finding,) = scan(ASYNC_FORK)
    assert finding.text.startswith("Modules linked in:")  # the header is in the midst of its report
    assert finding.task == Task(comm="a.out", pid=510)
    bug = load_bug("anck-26936")
    assert bug.matches(finding, "cow_writers")
    assert finding.line == 2070
    assert not any("2070" in title for title in (finding.title, *finding.alt_titles))
    assert not bug.matches(scan(OOPS)[0], "cow_writers")


@pytest.mark.parametrize(
    ("x86_64", "aarch64"),
    [
        (
            b"general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            b"Unable to handle kernel paging request at virtual address dead000000000100"
        ),
        (b"Oops: int3: 0000 [#1] PREEMPT SMP", b"Unexpected kernel BRK exception at EL1"),
        (
            b"invalid opcode: 0000 [#1] PREEMPT SMP",
            b"Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP"
        ),
        (b"BUG: TASK stack guard page was hit at 0000000012345678", b"Insufficient stack space to handle exception!"),
        (
            b"BUG: unable to handle page fault for address: ffffffff81000000",
            b"Unable to handle kernel write to read-only memory at virtual address ffff8000"
        ),
        (
            b"BUG: unable to handle page fault for address: 00007f4ac42f7000",
            b"Unable to handle kernel access to user memory outside uaccess routines at virtual address 0000"
        ),
        (
            b"BUG: kernel NULL pointer dereference, address: 0000000000000010",
            b"Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010"
        ),
    ],
)  # fmt: skip
def test_architectures_have_a_title_in_common(x86_64, aarch64) -> None:
    (one,) = scan(x86_64 + b"\nRIP: 0010:f+0x1/0x2\n")
    (other,) = scan(aarch64 + b"\npc : f+0x4/0x8\n")
    assert {one.title, *one.alt_titles} & {other.title, *other.alt_titles}
    assert one.kind == other.kind


@pytest.mark.parametrize(
    ("report", "title"),
    [
        (
            b"page:f00d refcount:1\npage dumped because: VM_BUG_ON_PAGE(PageTail(page))\n"
            b"------------[ cut here ]------------\nkernel BUG at mm/x.c:1!\n",
            "kernel BUG in guilty"
        ),
        (
            b"page:f00d refcount:1\npage dumped because: VM_WARN_ON_ONCE_FOLIO(1)\n",
            "page dumped because: VM_WARN_ON_ONCE_FOLIO"
        ),
        (b"async_fork: mismatched vma\n", "async_fork: mismatched vma"),
        (b"async_fork: process 77 copy vma 0xffff888012345678 failed\n", "async_fork: process NUM copy vma failed"),
        (b"a.out: page allocation failure: order:4, mode:0xdc0\n", "page allocation failure in guilty"),
        (b"a.out invoked oom-killer: gfp_mask=0x1\n", "out of memory"),
        (b"unreferenced object 0xffff888012345678 (size 32):\n", "memory leak in guilty"),
        (b"BUG kmalloc-64 (Not tainted): Poison overwritten\n", "BUG: Poison overwritten in guilty"),
        (b"mm/pgtable-generic.c:54: bad pmd ffff888012345678(8000)\n", "bad pmd"),
        (
            b"PANIC: early exception 0x0d IP 10:ffffffff81000000 error 0 cr2 0x0\n",
            "general protection fault in guilty"
        ),
        (b"watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1\n", "hard lockup in guilty"),
        (b"BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 36s!\n", "BUG: workqueue lockup"),
        (
            b"WARNING: CPU: 1 PID: 7 at lib/refcount.c:28 refcount_warn_saturate+0x1/0x2\n",
            "WARNING: refcount bug in guilty"
        ),
        (b"kernel BUG at lib/list_debug.c:27!\n", "BUG: corrupted list in guilty"),
        (
            b"WARNING: CPU: 1 PID: 7 at lib/list_debug.c:28 __list_add_valid+0x1/0x2\n",
            "BUG: corrupted list in guilty"
        ),
        (b"kernel BUG at mm/usercopy.c:101!\n", "BUG: bad usercopy in guilty"),
        (b"[ BUG: Invalid wait context ]\n", "[ BUG: Invalid wait context ]"),
        (b"WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected\n", "possible deadlock in guilty"),
        (b"WARNING: a.out/77 still has locks held!\n", "WARNING: still has locks held in guilty"),
        (
            b"BUG: using smp_processor_id() in preemptible [00000000] code: a.out/77\n",
            "BUG: using smp_processor_id() in preemptible code in guilty"
        ),
        (b"INFO: task a.out:77 blocked in I/O wait for more than 120 seconds.\n", "INFO: task hung in guilty"),
        (
            b"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: f.isra.0+0x1/0x2\n",
            "kernel panic: stack is corrupted in f"
        ),
        (
            b"Kernel panic - not syncing: corrupted stack end detected inside scheduler\n",
            "kernel panic: corrupted stack end in guilty"
        ),
        (
            b"Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.\n",
            "kernel panic: No working init found"
        ),
    ],
)  # fmt: skip
def test_further_headers(report, title) -> None:
    (finding,) = scan(stamped(report + TRACE + END))
    assert finding.title == title
    assert not finding.corrupted
    assert finding.text.startswith("[    1.000000] " + report.splitlines()[0].decode())


def test_findings_dropped_are_counted() -> None:
    findings = scan(b"kernel BUG at mm/x.c:1!\n" * (MAX_FINDINGS + 7))
    assert (len(findings), findings.dropped) == (MAX_FINDINGS, 7)
    assert scan(ASYNC_FORK).dropped == 0


def test_machinery_is_told_by_table() -> None:
    for function in (
        "dump_stack_lvl",
        "memcpy",
        "_raw_spin_lock_irqsave",
        "kasan_report",
        "__list_add_valid_or_report",
    ):
        assert skipped(function)
    for function in (
        "copy_page_range",
        "do_wp_page",
        "gup_pte_range",
        "schedule_atomic",
        "warn_words",
        "kasan_stack_oob",
    ):
        assert not skipped(function)
    assert skipped("kfree", ("free",))
    assert not skipped("kfree")
    assert all(row.reason for row in SKIP)


def test_json() -> None:
    record = scan(ASYNC_FORK)[0].to_json()
    assert {"kind", "title", "alt_titles", "frame", "file", "arch", "corrupted", "start", "end"} <= set(
        record
    )
    assert "text" not in record


def test_findings_are_bounded_and_the_first_stays() -> None:
    log = b"kernel BUG at first.c:1!\n" + b"kernel BUG at mm/x.c:1!\n" * (2 * MAX_FINDINGS)
    findings = scan(log)
    assert len(findings) == MAX_FINDINGS
    assert findings[0].file == "first.c"
    (long,) = scan(b"kernel BUG at mm/x.c:1!\n" + b" f+0x1/0x2\n" * 100_000)
    assert len(long.text) <= MAX_REPORT


def test_scan_file_refuses_what_is_no_file(tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert scan_file(empty) == []
    for wrong in (tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(OSError, match=str(wrong)):
            scan_file(wrong)


def test_mapped_and_read_logs_agree() -> None:
    assert scan_file(SEQUENCE_LOG) == scan(SEQUENCE_LOG.read_bytes())


def test_table_is_sound() -> None:
    for row in FORMATS:
        assert row.kind in KINDS
        assert row.words
        known = {"what": "", "place": "", "access": "", "other": ""}
        assert all(title.format_map(known) is not None for title in (row.title, *row.alt))
        assert set(row.pattern.groupindex) <= {"frame", "file", "line", "what", "other", "comm", "pid", "cpu"}
        assert len(row.pattern.groupindex) == row.pattern.groups  # find_format() counts groups
        assert set(row.skip) <= {entry.group for entry in SKIP}
        assert set(row.follows) <= set(KINDS)


@pytest.mark.parametrize(("name", "expected"), [("f.isra.0", "f"), ("f.part.1.cold", "f"), ("f", "f")])
def test_bare(name, expected) -> None:
    assert bare(name) == expected


WORDS = [
    "kernel BUG at mm/x.c:1!", "BUG: ", "BUG: KASAN: x in f", "Oops: 0000 [#1]",
    "Internal error: Oops: 96000004 [#1]",
    "WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x1/0x2", "[    1.234567] ", "Kernel panic - not syncing: ", "\n", "\r",
    "Call Trace:\n", " f+0x1/0x2\n", "---[ end trace 0 ]---\n", "\x1b[31m", "{place}", "{", "command line: ",
    "[    1.234567][   T77] ", "** 12 printk messages dropped **\n", "> ", "<12>", "user  :err   : ",
    "stack backtrace:\n",
    "page dumped because: VM_BUG_ON(x)\n", "RIP: 0010:f+0x1/0x2\n", "pc : 0xffff000012345678\n",
    "lr : f+0x1/0x2\n", " <TASK>\n",
    "CPU: 1 PID: 7 Comm: a Tainted: G W 6.1\n", "Kernel Offset: 0x1000 from\n", " at:\n",
    "is at: [<12345678>] f+0x1/0x2\n",
    "INFO: task a:1 blocked for more than 1 seconds.", "------------[ cut here ]------------\n", "\x9b", "\u202e",
]  # fmt: skip


@given(st.one_of(st.binary(), st.lists(st.one_of(st.sampled_from(WORDS), st.text())).map(
    lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))), st.sampled_from([None, *ARCHES]))  # fmt: skip
def test_any_bytes_are_survived(data, arch) -> None:
    previous = 0
    for finding in scan(data, arch):
        assert finding.kind in KINDS
        assert 0 <= finding.start <= finding.end <= len(data)
        assert previous <= finding.end
        previous = finding.end
        assert finding.title
        assert len(finding.title) <= MAX_TITLE
        shown = finding.title + finding.text + "".join(functions(finding)) + (finding.file or "")
        assert not set(shown) & {"\x1b", "\r", "\x9b", "\u202e", "\0"}
        finding.to_json()


@given(st.sampled_from(FORMATS).flatmap(lambda row: st.from_regex(row.pattern, fullmatch=True)))
def test_what_the_table_knows_is_a_candidate(line) -> None:
    # The search must not miss what the table would take.
    assert find_format(line)
    assert CANDIDATE.search(line.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "unit", [b"BUG: ", b"WARNING: ", b"a" * 70, b"    ", b"[    1.234567] ", b"INFO: task x"]
)
def test_one_long_line_costs_little(unit) -> None:
    # 32 MB; what is quadratic in it takes hours.
    start = time.monotonic()
    scan(unit * (32_000_000 // len(unit)))
    assert time.monotonic() - start < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "header",
    [b"BUG: unable to handle page fault for address: 0", b"WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2",
    b"BUG: x", b"page dumped because: VM_BUG_ON(x)"],
)  # fmt: skip
def test_many_headers_cost_little(header) -> None:
    # 100 000 lines, each of a task of its own: what is quadratic in them takes hours.
    start = time.monotonic()
    findings = scan(b"".join(b"[    1.000000][T%d] %b\n" % (number, header) for number in range(100_000)))
    assert time.monotonic() - start < 60
    assert len(findings) + findings.dropped >= 1


def test_name_of_an_exception_is_no_number() -> None:
    """A breakpoint nobody set: the first line of what QEMU 7.2's threads can do to a kernel that patches itself."""
    assert normalised("Oops: int3") == "Oops: int3"
    assert normalised("int3: 4711") == "int3: NUM"
