"""The maker of the golden console logs, as far as it needs no guest."""

from __future__ import annotations

import fnmatch

from tests.console import expect
from tests.console.provoke import reports, rows, shortened

SUITE = b"""\
[    1.000000] ok 1 - nothing\r
[    1.100000] ==================================================================\r
[    1.200000] BUG: KASAN: slab-out-of-bounds in kmalloc_oob_right+0x1/0x2 [kasan_test]\r
[    1.300000] Read of size 1\r
[    1.400000] ==================================================================\r
[    2.000000] ok 2 - something\r
[    2.100000] ==================================================================\r
[    2.200000] BUG: KASAN: slab-out-of-bounds in kmalloc_oob_right+0x9/0x9 [kasan_test]\r
[    2.400000] ==================================================================\r
[    3.100000] ------------[ cut here ]------------\r
[    3.200000] UBSAN: shift-out-of-bounds in lib/test_ubsan.c:33:9\r
[    3.300000] ---[ end trace ]---\r
[    4.100000] ==================================================================\r
[    4.200000] BUG: KFENCE: use-after-free read in test_use_after_free_read+0x1/0x2\r
"""


def test_every_log_has_a_row_and_every_row_its_logs() -> None:
    patterns = [f"{name}-*" if case.suite else name for name, _, _, case in rows()]
    logs = {path.stem for path in expect.logs()}
    assert len(patterns) == len(set(patterns))
    assert [log for log in logs if not any(fnmatch.fnmatchcase(log, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not fnmatch.filter(logs, pattern)] == []


def test_a_suite_is_taken_apart_by_what_its_reports_are_about() -> None:
    found = dict(reports(SUITE, ("*",)))
    assert list(found) == ["kmalloc_oob_right", "shift-out-of-bounds"]
    # The first of two, whole; nothing of what stands between; and not the one that does not end.
    assert found["kmalloc_oob_right"].splitlines()[0].endswith(b"=====")
    assert found["kmalloc_oob_right"].count(b"\n") == 4
    assert b"+0x1/0x2" in found["kmalloc_oob_right"]
    assert list(dict(reports(SUITE, ("shift*",)))) == ["shift-out-of-bounds"]


def test_a_long_log_loses_whole_lines_at_its_end() -> None:
    line = b"[    1.000000] x\r\n"
    assert shortened(line * 10) == line * 10
    long = shortened(line * 10000)
    assert 65000 < len(long) <= 65536
    assert long == line * (len(long) // len(line))
