"""Console logs to findings."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.arch import ARCHES
from harness.console.detect import MAX_FINDINGS, MAX_REPORT, scan, scan_file
from harness.console.finding import KINDS
from harness.console.formats import ANY_FORMAT, CANDIDATE, FORMATS, MAX_TITLE, normalised
from harness.console.trace import bare

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

TRACE = b"Call Trace:\n <TASK>\n dump_stack_lvl+0x44/0x5c\n ? f+0x1/0x2\n guilty.isra.0+0x12/0x34 [mod]\n"


def test_golden_x86_64() -> None:
    (finding,) = scan_file(SEQUENCE_LOG)
    assert finding.kind == "BUG"
    assert finding.title == "kernel BUG in copy_page_range"
    assert finding.frame == "copy_page_range"
    assert finding.frames[:4] == ("copy_page_range", "dup_mmap", "copy_process", "kernel_clone")
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
    assert "async_fork_fixup_pmd" in finding.frames
    assert finding.file == "include/linux/mm.h"
    assert finding.arch == "aarch64"


def test_golden_arm64_oops_is_one_report() -> None:
    (finding,) = scan_file(DATA / "oops-arm64.log")
    assert finding.kind == "oops"
    assert finding.title == "BUG: unable to handle kernel NULL pointer dereference in try_grab_folio"
    assert finding.frames[:2] == ("try_grab_folio", "gup_pte_range")
    assert finding.arch == "aarch64"
    assert finding.text.endswith("Oops: Fatal exception")


def test_golden_old_kernel() -> None:
    sleeping, lock = scan(OLD_KERNEL)
    assert sleeping.title == "BUG: sleeping function called from invalid context in __alloc_pages"
    assert sleeping.file == "mm/page_alloc.c"
    assert (lock.kind, lock.title) == ("lockdep", "possible deadlock in copy_page_range")


@pytest.mark.parametrize(
    ("header", "kind", "title"),
    [
        ("kernel BUG at ../mm/memory.c:12!", "BUG", "kernel BUG in guilty"),
        ("BUG: KASAN: slab-use-after-free in do_wp_page+0x1/0x2", "KASAN", None),
        ("BUG: KFENCE: use-after-free read in f+0x1/0x2", "KFENCE", "KFENCE: use-after-free read in f"),
        ("BUG: KMSAN: uninit-value in f+0x1/0x2", "KMSAN", "KMSAN: uninit-value in f"),
        ("BUG: KCSAN: data-race in f / g", "KCSAN", "KCSAN: data-race in f"),
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
            "kernel panic: VFS: Unable to mount root fs on unknown-block(NUM,NUM)",
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
    log = b"".join(prefix.encode() + line + b"\r\n" for line in lines + TRACE.splitlines())
    (finding,) = scan(b"[    1.000000] quiet before\n" + log)
    assert (finding.kind, finding.title) == (kind, title or "KASAN: slab-use-after-free Read in do_wp_page")
    assert finding.start == 28
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
        "x" * 5000 + "[    1.000000] kernel BUG at mm/x.c:1!",
    ],
)
def test_not_a_report(line) -> None:
    assert scan(line.encode() + b"\n") == []


def test_output_of_a_program_before_the_stamp() -> None:
    (finding,) = scan(b"round 1 ...[    1.000000] kernel BUG at mm/x.c:1!\n" + TRACE)
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
    far = b"[    1.000000] quiet\n" * 500
    assert len(scan(b"kernel BUG at mm/x.c:1!\n" + far + die + TRACE)) == 2


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
        assert row.title.format(what="", place="", access="") is not None
        assert row.pattern.groups <= 3


@pytest.mark.parametrize(("name", "expected"), [("f.isra.0", "f"), ("f.part.1.cold", "f"), ("f", "f")])
def test_bare(name, expected) -> None:
    assert bare(name) == expected


WORDS = [
    "kernel BUG at mm/x.c:1!", "BUG: ", "BUG: KASAN: x in f", "Oops: 0000 [#1]", "Internal error: Oops: 96000004 [#1]",
    "WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x1/0x2", "[    1.234567] ", "Kernel panic - not syncing: ", "\n", "\r",
    "Call Trace:\n", " f+0x1/0x2\n", "---[ end trace 0 ]---\n", "\x1b[31m", "{place}", "{", "command line: ",
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
        shown = finding.title + finding.text + "".join(finding.frames) + (finding.file or "")
        assert not set(shown) & {"\x1b", "\r", "\x9b", "\u202e", "\0"}
        finding.to_json()


@given(st.sampled_from(FORMATS).flatmap(lambda row: st.from_regex(row.pattern, fullmatch=True)))
def test_what_the_table_knows_is_a_candidate(line) -> None:
    # The search must not miss what the table would take.
    assert ANY_FORMAT.match(line)
    assert CANDIDATE.search(line.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "unit", [b"BUG: ", b"WARNING: ", b"a" * 70, b"    ", b"[    1.234567] ", b"INFO: task x"]
)
def test_one_long_line_costs_little(unit) -> None:
    # 32 MB; what is quadratic in it takes hours.
    start = time.monotonic()
    scan(unit * (32_000_000 // len(unit)))
    assert time.monotonic() - start < 20


def test_name_of_an_exception_is_no_number() -> None:
    """A breakpoint nobody set: the first line of what QEMU 7.2's threads can do to a kernel that patches itself."""
    assert normalised("Oops: int3") == "Oops: int3"
    assert normalised("int3: 4711") == "int3: NUM"
