"""What kernel reports look like: one row per header line. Titles follow syzkaller's conventions.

Sources: kernel/panic.c, lib/bug.c, mm/kasan/report.c, mm/kfence/report.c, mm/kmsan/report.c, lib/ubsan.c,
arch/x86/kernel/{dumpstack,traps}.c, arch/x86/mm/{fault,extable}.c, arch/arm64/mm/fault.c, arch/arm64/kernel/traps.c,
init/{main,do_mounts}.c of Linux 6.1 and 6.12, and for the old spellings the reports in rhbz#471613.

Where the architectures have different words for one defect, both rows have one title. Where the kernel itself cannot
tell (a wild pointer is a general protection fault only on x86) the rows share an alternative title.
"""

from __future__ import annotations

import re

from harness.console import formats_locks, formats_memory
from harness.console.format import AT, FRAME, Format, any_of, row

_BAD_ACCESS = ("bad-access in {place}",)
_NULL = "BUG: unable to handle kernel NULL pointer dereference in {place}"
_PAGING = "BUG: unable to handle kernel paging request in {place}"
_GPF = "general protection fault in {place}"
_STACK = "BUG: stack guard page was hit in {place}"
_BREAKPOINT = "unexpected breakpoint in {place}"
_BUG = "kernel BUG in {place}"
_TRAPS = r"(?:traps: )?"
# Since 6.11 x86 writes "Oops: " before the name of the trap.
_OOPS = r"(?:Oops: )?"
_FREES = ("alloc", "free")
_PANIC = r"Kernel panic - not syncing: "
_PANICS = "Kernel panic - not"

_FATAL = {"fatal": True, "ended": True}
_DIES = {**_FATAL, "dies": True}
_DIE = {**_FATAL, "die": True}
_ACCESS = {**_DIES, "alt": _BAD_ACCESS}

_FAULTS: tuple[Format, ...] = (
    # -- BUG() --
    row("BUG", "BUG at", r"kernel BUG at (?P<file>[\w./-]*mm/usercopy\.c):(?P<line>\d+)!",
        "BUG: bad usercopy in {place}", alt=(_BUG,), **_DIES),
    row("BUG", "BUG at", r"kernel BUG at (?P<file>[\w./-]*lib/list_debug\.c):(?P<line>\d+)!",
        "BUG: corrupted list in {place}", alt=(_BUG,), **_DIES),
    row("BUG", "BUG at", rf"[kK]ernel BUG at {AT}!", _BUG, skip=_FREES, **_DIES),
    # CONFIG_DEBUG_BUGVERBOSE=n; powerpc's "Kernel BUG".
    row("BUG", "BUG at", r"[kK]ernel BUG at ", _BUG, **_DIES),
    row("BUG", "CFI failure ", rf"CFI failure (?:at {FRAME}\+0x|\()", "CFI failure in {place}", **_DIES),
    # -- sanitizers --
    row("KASAN", "BUG: ",
        rf"BUG: KASAN: (?P<what>double-free|invalid-free|double-free or invalid-free) in {FRAME}",
        "KASAN: {what} in {place}", skip=("free",), closed=True),
    row("KASAN", "BUG: ", rf"BUG: KASAN: (?P<what>[\w -]{{1,64}}?) in {FRAME}", "KASAN: {what}{access} in {place}",
        alt=_BAD_ACCESS, skip=("free",), closed=True),
    row("KASAN", "BUG: ", r"BUG: KASAN: (?P<what>[\w -]{1,64})", "KASAN: {what}{access} in {place}",
        alt=_BAD_ACCESS, closed=True),
    row("KMSAN", "BUG: ", rf"BUG: KMSAN: (?P<what>[\w -]{{1,64}}?) in {FRAME}", "KMSAN: {what} in {place}",
        closed=True),
    row("KFENCE", "BUG: ", rf"BUG: KFENCE: (?P<what>[\w -]{{1,64}}?) in {FRAME}", "KFENCE: {what} in {place}",
        alt=_BAD_ACCESS, skip=("free",), closed=True),
    row("UBSAN", "UBSAN: ", rf"UBSAN: [Uu]ndefined behaviour in {AT}", "UBSAN: undefined-behaviour in {place}",
        closed=True),
    row("UBSAN", "UBSAN: ", rf"UBSAN: (?P<what>[\w -]{{1,64}}?) in {AT}", "UBSAN: {what} in {place}", closed=True),
    # -- faults --
    row("oops", ("BUG: ", "Unable to handle kernel"),
        r"(?:BUG: (?:unable to handle )?|Unable to handle )kernel NULL pointer dereference", _NULL, **_ACCESS),
    row("oops", "BUG: ", r"BUG: unable to handle (?:kernel paging request|page fault)", _PAGING, **_ACCESS),
    row("oops", "Unable to handle kernel", r"Unable to handle kernel", _PAGING, **_ACCESS),
    row("oops", "BUG: ", r"BUG: (?:[A-Z]+ )?stack guard page was hit", _STACK, **_ACCESS),
    row("oops", "Insufficient stack space", r"Insufficient stack space to handle exception", _STACK,
        alt=_BAD_ACCESS, fatal=True),
    row("oops", "PANIC: double fault", rf"{_TRAPS}PANIC: double fault", "PANIC: double fault in {place}", **_DIES),
    row("oops", "PANIC: early exception", r"PANIC: early exception 0x0d ", _GPF, alt=_BAD_ACCESS, fatal=True),
    row("oops", "PANIC: early exception", r"PANIC: early exception (?:0x)?0e ", _PAGING, alt=_BAD_ACCESS,
        fatal=True),
    row("oops", "PANIC: early exception", r"PANIC: early exception ", "PANIC: early exception in {place}",
        fatal=True),
    row("oops", "Unexpected kernel BRK", r"Unexpected kernel BRK exception at EL1", _BREAKPOINT, **_DIES),
    row("oops", "SError Interrupt on CPU", r"SError Interrupt on CPU(?P<cpu>\d+)",
        "kernel panic: Asynchronous SError Interrupt", fatal=True),
    row("oops", ("Unhandled 64-bit el1", "Bad mode in "), r"(?:Unhandled 64-bit el1|Bad mode in )[\w ,-]{1,64}",
        "kernel panic: Unhandled exception", fatal=True),
)  # fmt: skip

_DEATHS: tuple[Format, ...] = (
    row("oops", "[#", rf"{_OOPS}general protection fault.{{0,200}}: [0-9a-f]{{4,8}} \[#", _GPF, alt=_BAD_ACCESS,
        **_DIE),
    row("oops", "[#", rf"{_OOPS}int3: [0-9a-f]{{4}} \[#", _BREAKPOINT, alt=("int3 in {place}",), **_DIE),
    row("oops", "[#", rf"{_OOPS}stack segment: [0-9a-f]{{4}} \[#", "stack segment fault in {place}", **_DIE),
    row("oops", "[#", rf"{_OOPS}(?:stack guard page|kernel stack overflow \([\w -]{{1,32}}\)): [0-9a-f]{{4}} \[#",
        _STACK, **_DIE),
    row("oops", "[#", rf"{_OOPS}double fault: [0-9a-f]{{4}} \[#", "PANIC: double fault in {place}", **_DIE),
    # arm64: what BUG() raises.
    row("BUG", "Oops", r"Internal error: Oops - BUG: [0-9a-f]{1,16} \[#", _BUG, **_DIE),
    row("oops", "Oops", r"Internal error: Oops - [Uu]ndefined instruction: [0-9a-f]{1,16} \[#",
        "invalid opcode in {place}", alt=("undefined instruction in {place}",), **_DIE),
    row("oops", "Internal error: ", r"Internal error: (?:Oops - )?BRK(?: handler)?: [0-9a-f]{1,16} \[#",
        _BREAKPOINT, **_DIE),
    row("oops", "Internal error: ", r"Internal error: SP/PC alignment exception: ",
        "SP/PC alignment exception in {place}", **_DIE),
    row("BUG", "Oops", r"Internal error: Oops - CFI: ", "CFI failure in {place}", **_DIE),
    row("UBSAN", "Internal error: ", r"Internal error: UBSAN: (?P<what>[\w -]{1,64}): [0-9a-f]{1,16} \[#",
        "UBSAN: {what} in {place}", **_DIE),
    row("oops", "[#", rf"{_OOPS}(?P<what>[a-z][a-z0-9 ,()-]{{2,63}}): [0-9a-f]{{4}} \[#\d", "{what} in {place}",
        **_DIE),
    row("oops", "Oops", r"Oops(?: - (?P<what>[\w ]{1,64}))?: ", "Oops in {place}", alt=_BAD_ACCESS, **_DIE),
    row("oops", "Internal error: ", r"Internal error: Oops: [0-9a-f]{1,16} \[#", _PAGING, alt=_BAD_ACCESS, **_DIE),
    row("oops", "Internal error: ", r"Internal error: (?P<what>[A-Za-z][\w/ -]{1,63}?): [0-9a-f]{1,16} \[#",
        "Internal error: {what} in {place}", **_DIE),
)  # fmt: skip

_WARNINGS: tuple[Format, ...] = (
    row("WARNING", "WARNING: ", rf"WARNING: CPU: (?P<cpu>\d{{1,5}}) PID: (?P<pid>\d{{1,10}}) at {AT}(?: {FRAME})?",
        "WARNING in {place}", ended=True),
    # Since 6.18: the place comes first, CPU and task after it.
    row("WARNING", "WARNING: ",
        rf"WARNING: {AT} at {FRAME}\+0x[0-9a-f]{{1,8}}/0x[0-9a-f]{{1,8}}(?: \[\w{{1,64}}\])?"
        r"(?:, CPU#(?P<cpu>\d{1,5}): (?P<comm>.{1,32}?)/(?P<pid>\d{1,10})$)?", "WARNING in {place}", ended=True),
    # 2.6: "WARNING: at kernel/x.c:1 f()".
    row("WARNING", "WARNING: ", rf"WARNING: at {AT}(?: {FRAME})?", "WARNING in {place}", ended=True),
    row("WARNING", "WARNING: ", r"WARNING: (?P<what>kernel stack (?:regs|frame pointer)) at .{1,100} has bad ",
        "WARNING: {what} has bad value"),
    row("BUG", "BUG: ", r"BUG: (?P<what>Dentry) .{1,200} still in use", "BUG: {what} still in use"),
    row("BUG", "BUG: ", r"BUG: (?P<what>\S.{0,511})", "BUG: {what}"),
)  # fmt: skip

_PANIC_ROWS: tuple[Format, ...] = (
    row("panic", _PANICS, rf"{_PANIC}stack-protector: Kernel stack is corrupted in: (?:{FRAME})?",
        "kernel panic: stack is corrupted in {place}"),
    row("panic", _PANICS, rf"{_PANIC}corrupted stack end detected inside scheduler",
        "kernel panic: corrupted stack end in {place}", skip=("exit",)),
    row("panic", _PANICS, rf"{_PANIC}VFS: Unable to mount root fs", "kernel panic: VFS: Unable to mount root fs"),
    row("panic", _PANICS, rf"{_PANIC}No (?:working )?init found", "kernel panic: No working init found"),
    row("panic", _PANICS, rf"{_PANIC}Requested init .{{1,255}} failed", "kernel panic: Requested init failed"),
    row("panic", _PANICS, rf"{_PANIC}kernel stack overflow", _STACK),
    row("panic", _PANICS, r"Kernel panic - not syncing(?:: (?P<what>.{0,511}))?", "kernel panic: {what}",
        skip=("exit",)),
)  # fmt: skip

# The first row that matches counts: the specific ones come before the general.
FORMATS: tuple[Format, ...] = (
    *_FAULTS,
    *formats_locks.ROWS,
    *formats_memory.ROWS,
    *_DEATHS,
    *_WARNINGS,
    *_PANIC_ROWS,
)

_ANY_FORMAT = any_of(row.pattern for row in FORMATS)


def find_format(line: str) -> tuple[Format, re.Match[str]] | None:
    """The first row that matches, and its match."""
    any_match = _ANY_FORMAT.match(line)
    if any_match is None or any_match.lastindex is None:
        return None
    row = FORMATS[any_match.lastindex - 1]
    match = row.pattern.match(line)
    return (row, match) if match else None


def _candidate() -> re.Pattern[bytes]:
    words = {word for row in FORMATS for word in row.words}
    needed = [word for word in words if not any(other in word for other in words - {word})]
    return re.compile("|".join(re.escape(word) for word in sorted(needed)).encode())


# Every header line holds one of these; the rest of the log is only searched for them.
CANDIDATE = _candidate()

# A panic with such a text has a cause of its own; after a report of these kinds (any, if none is named), and no
# further than so many bytes from its header, it is its consequence. A report of all locks and CPUs may lie between.
_NEAR, _FAR = 64 << 10, 4 << 20
CONSEQUENCES: tuple[tuple[re.Pattern[str], tuple[str, ...], int], ...] = (
    (
        re.compile(r"(?:kernel: |KASAN: |KFENCE: |KCSAN: |KMSAN: |UBSAN: |\w{1,16}: )?panic_on_warn set"),
        (),
        _NEAR,
    ),
    (re.compile(r".{0,32}panic_on_(?!oom)"), (), _NEAR),
    (re.compile(r"hung_task: blocked"), ("hung-task",), _FAR),
    (re.compile(r"softlockup: hung"), ("lockup",), _FAR),
    (re.compile(r"(?:NMI: )?[Hh]ard LOCKUP"), ("lockup",), _FAR),
    (re.compile(r"RCU Stall"), ("rcu-stall",), _FAR),
    (re.compile(r"workqueue: "), ("lockup",), _FAR),
    (re.compile(r"[Oo]ut of memory|System is deadlocked on memory"), ("memory",), _FAR),
)
# And these after any report that is fatal.
FATAL_CONSEQUENCE = re.compile(
    r"Fatal exception|Attempted to kill|Oops|Aiee|Unrecoverable|kernel stack overflow|Machine halted|stack overflow"
    r"|Asynchronous SError|Unhandled exception|bad mode"
)

# Lines that quote what somebody else wrote, whatever it was.
QUOTING: tuple[tuple[bytes, str], ...] = (
    (b"ommand line: ", "the kernel's command line"),
    (b"ommand line parameters ", "what of the command line was not understood"),
    (b"]: segfault at ", "a program's name"),
    (b"] general protection fault ip:", "a program's name"),
    (b"] trap ", "a program's name"),
    (b"potentially unexpected fatal signal", "a program's name"),
)
QUOTED = re.compile(b"|".join(re.escape(words) for words, _ in QUOTING))
