"""Findings with their lines: in an attempt's record and kept result, and before a person's eyes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_console_symbols import BANNER, Built, build, line

from harness.arch import X86_64, Arch
from harness.cli.parse import parse
from harness.cli.progress import Progress
from harness.console.finding import Finding, Frame, Thread, corruption_finding, hang_finding
from harness.console.trace import trace_lines
from harness.errors import ToolMissingError, UserError
from harness.trial.attempt import Attempt, write_result
from harness.trial.outcome import Outcome
from harness.trial.subject import own_subject
from harness.trial.symboliser import Symboliser


@dataclasses.dataclass
class Kernel:
    vmlinux: Path | None = None
    system_map: Path | None = None
    modules: Path | None = None
    config: Path | None = None
    spec: str = "path:fake"
    arch: Arch = X86_64
    release: str = "6.12.9-test"
    version: str = "6.12.9"
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    display: str = "fake"

    def config_value(self, name: str) -> str | None:
        return None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(X86_64, tmp_path_factory.mktemp("symboliser") / "tree")


@pytest.fixture
def finding(built: Built) -> Finding:
    frames = (built.frame("copy_page_range", "report"), built.frame("start_kernel", "copy_page_range"))
    return Finding(
        kind="BUG",
        title="kernel BUG in copy_page_range",
        frame="copy_page_range",
        frames=frames,
        start=500,
        end=900,
    )


def attempt(number: int, folder: Path, *findings: Finding, outcome: Outcome = Outcome.REPRODUCED) -> Attempt:
    kept = folder / f"attempt-{number}"
    kept.mkdir(parents=True)
    (kept / "console.log").write_text(f"[    0.000000] {BANNER}\n")
    reason = findings[0].title if findings else "why"
    cause = 0 if findings else None
    ended = Attempt(
        number=number, outcome=outcome, reason=reason, findings=findings, seconds=1, kept=kept, cause=cause
    )
    return write_result(ended, kept)


LINES = [
    ("check_page", line("include/linux/mm.h", "report(*page);")),
    ("copy_page_range", line("mm/memory.c", "check_page(page)")),
    ("start_kernel", line("init/main.c", "copy_page_range(&count)")),
]


def test_record_and_result_have_lines(built: Built, finding: Finding, tmp_path: Path) -> None:
    told: list[str] = []
    after = Symboliser(Kernel(built.vmlinux), told.append).symbolised(attempt(1, tmp_path, finding))
    kept = json.loads((tmp_path / "attempt-1/result.json").read_text())
    for record in (after.to_json(), kept):
        (found,) = record["findings"]
        assert [(frame["function"], frame["source"]) for frame in found["frames"]] == LINES
        assert (found["title"], found["frame"], record["cause"]) == (finding.title, finding.frame, 0)
    assert told == []


def test_an_address_is_looked_up_once(
    built: Built, finding: Finding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symboliser = Symboliser(Kernel(built.vmlinux), print)
    first = symboliser.symbolised(attempt(1, tmp_path, finding))
    monkeypatch.setenv("PATH", "/nonexistent")  # no eu-addr2line any more
    assert symboliser.symbolised(attempt(2, tmp_path, finding)).findings == first.findings


@pytest.mark.parametrize("trouble", ["no tool", "no vmlinux", "another kernel's"])
def test_trouble_is_said_once_and_fails_nothing(
    trouble: str, built: Built, finding: Finding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    vmlinux = built.vmlinux
    if trouble == "no tool":
        monkeypatch.setenv("PATH", "/nonexistent")
    elif trouble == "no vmlinux":
        vmlinux = tmp_path / "vmlinux"
        vmlinux.write_bytes(b"\x7fELF, but no more")
    attempts = [attempt(number, tmp_path, finding) for number in (1, 2)]
    if trouble == "another kernel's":
        for each in attempts:
            assert each.kept
            (each.kept / "console.log").write_text("[    0.000000] Linux version 5.4.0 (x) #1 SMP\n")
    symboliser = Symboliser(Kernel(vmlinux), told.append)
    assert [symboliser.symbolised(each) for each in attempts] == attempts
    assert len(told) == 1
    assert {
        "no tool": "apt-get install elfutils",
        "no vmlinux": "no ELF file",
        "another kernel's": "5.4.0 #1",
    }[trouble] in told[0]


def test_a_hang_has_frames_of_its_program(built: Built, finding: Finding, tmp_path: Path) -> None:
    """Of which the kernel's files know nothing, whatever the names are."""
    hang = hang_finding("p", frames=finding.frames)
    one = attempt(1, tmp_path, hang)
    assert Symboliser(Kernel(built.vmlinux), print).symbolised(one) is one
    after = Symboliser(Kernel(built.vmlinux), print).symbolised(attempt(2, tmp_path, hang, finding, hang))
    assert [found.kind for found in after.findings] == ["hang", finding.kind, "hang"]
    assert after.findings[0] == after.findings[2] == hang
    assert [(frame.function, frame.source) for frame in after.findings[1].frames] == LINES


def test_a_kernel_without_symbols(finding: Finding, tmp_path: Path) -> None:
    told: list[str] = []
    one = attempt(1, tmp_path, finding)
    assert Symboliser(Kernel(), told.append).symbolised(one) is one
    shutil.rmtree(tmp_path / "attempt-1")  # nothing is read either
    assert Symboliser(Kernel(modules=tmp_path), told.append).symbolised(one) is one
    assert told == []


# --- What a person sees ----------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, *attempts: Attempt) -> list[str]:
    progress = Progress(as_json=False)
    (tmp_path / "mine.c").write_text("")
    progress.begins(own_subject(tmp_path / "mine.c", {}), "kernel", "x86_64", len(attempts))
    for each in attempts:
        progress.attempt(each, {})
    return [text.replace(str(tmp_path), "TMP") for text in capsys.readouterr().err.splitlines()]


def test_an_oops_is_shown_once(
    built: Built, finding: Finding, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    symboliser = Symboliser(Kernel(built.vmlinux), print)
    other = dataclasses.replace(finding, frames=finding.frames[:1])
    attempts = [
        symboliser.symbolised(each)
        for each in (
            attempt(1, tmp_path, finding),
            attempt(2, tmp_path, finding),
            attempt(3, tmp_path, other, outcome=Outcome.OTHER),
            attempt(4, tmp_path, other, outcome=Outcome.OTHER),
            attempt(5, tmp_path, outcome=Outcome.CLEAN),
        )
    ]
    copy = finding.frames[0]
    name = f"copy_page_range+{copy.offset:#x}/{copy.size:#x}"
    start = f"start_kernel+{finding.frames[1].offset:#x}/{finding.frames[1].size:#x}"
    width = len(name)
    assert shown(capsys, tmp_path, *attempts) == [
        "attempt 1: reproduced: kernel BUG in copy_page_range",
        f"    {'check_page (inlined)':<{width}}  {LINES[0][1]}",
        f"    {name}  {LINES[1][1]}",
        f"    {start:<{width}}  {LINES[2][1]}",
        "    log: TMP/attempt-1/console.log",
        "attempt 3: other: kernel BUG in copy_page_range",
        f"    {'check_page (inlined)':<{width}}  {LINES[0][1]}",
        f"    {name}  {LINES[1][1]}",
        "    log: TMP/attempt-3/console.log",
        "attempt 4: other: kernel BUG in copy_page_range",
        "    log: TMP/attempt-4/console.log",
    ]


def test_corrupt_data_has_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = corruption_finding("data corruption in a page")
    attempts = [attempt(number, tmp_path, found) for number in (1, 2)]
    assert shown(capsys, tmp_path, *attempts) == [
        "attempt 1: reproduced: data corruption in a page",
        "    kept in TMP/attempt-1",
    ]


def test_a_hang_is_shown_with_what_it_waits_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["lll_lock_wait", "free_atfork", "free", "dl_deallocate_tls", "deallocate_stack", "join", "main"]
    frames = [Frame(function=name, symbol=name, source="p.c:9" if name == "main" else None) for name in names]
    frames[1] = dataclasses.replace(frames[1], unsure=True)
    stuck = Thread(
        **{"pid": 2, "tid": 2, "parent": 1, "comm": "p", "state": "S", "executable": "/tmp/p"},
        frames=tuple(frames),
    )
    hang = hang_finding("p", frame="main", frames=stuck.frames, threads=(stuck, stuck))
    bare = hang_finding("p")
    attempts = [
        attempt(1, tmp_path, hang, outcome=Outcome.HANG),
        attempt(2, tmp_path, hang, outcome=Outcome.HANG),
        attempt(3, tmp_path, bare, outcome=Outcome.HANG),
    ]
    lines = shown(capsys, tmp_path, *attempts)
    assert lines == [
        "attempt 1: hang: hang in p",
        *(f"    {name}" for name in ["lll_lock_wait", "? free_atfork", *names[2:6], "main  p.c:9"]),
        "    stacks of 2 threads: TMP/attempt-1/threads.txt",
        "attempt 2: hang: hang in p",
        "    stacks of 2 threads: TMP/attempt-2/threads.txt",
        "attempt 3: hang: hang in p",
        "    kept in TMP/attempt-3",
    ]
    # What is much deeper is in the file.
    deep = dataclasses.replace(hang, frames=tuple(frames[:6]) * 3 + (frames[6],))
    assert len(trace_lines(deep, 4)) == 8


def test_a_trace_begins_with_the_guilty() -> None:
    frames = [
        Frame(function="dump_stack", symbol="dump_stack", offset=1, size=2),
        Frame(function="helper", inlined=True, source="a.h:1"),
        Frame(function="bad", symbol="bad.isra.0", offset=0x10, size=0x20, module="mod", source="a.c:2"),
        Frame(function="caller", symbol="caller"),
        Frame(function="main", symbol="main", offset=3),
    ]
    found = Finding(kind="BUG", title="t", frame="bad", frames=tuple(frames))
    assert trace_lines(found, 2) == [
        f"{'helper (inlined)':<26}  a.h:1",
        "bad.isra.0+0x10/0x20 [mod]  a.c:2",
        "caller",
    ]
    assert trace_lines(dataclasses.replace(found, frame="elsewhere"), 1) == ["dump_stack+0x1/0x2"]
    assert trace_lines(dataclasses.replace(found, frames=()), 4) == []


# --- cowpen parse --vmlinux ------------------------------------------------------------------------------------


@pytest.fixture
def log(built: Built, tmp_path: Path) -> Path:
    """An oops where check_page, inlined into copy_page_range, reads the page."""
    path = tmp_path / "console.log"
    at = built.frame("copy_page_range", "release")  # what follows that call
    caller = built.frame("start_kernel", "copy_page_range")
    (start, size), *_ = built.places("copy_page_range")
    built.tool("objcopy", "-O", "binary", "-j", ".text", built.vmlinux, tmp_path / "text")
    first = built.places("report")[0][0]
    text = (tmp_path / "text").read_bytes()[start - first : start - first + size]
    bytes_ = [f"<{byte:02x}>" if n == at.offset else f"{byte:02x}" for n, byte in enumerate(text)]
    lines = [
        BANNER,
        "Kernel command line: console=ttyS0",
        "------------[ cut here ]------------",
        "kernel BUG at include/linux/mm.h:5!",
        "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
        "CPU: 0 UID: 0 PID: 1 Comm: init Not tainted 6.12.9-test #3",
        f"RIP: 0010:copy_page_range+{at.offset:#x}/{size:#x}",
        f"Code: {' '.join(bytes_)}",
        "RSP: 0018:ffffc90000013e98 EFLAGS: 00010246",
        "RAX: 0000000000000000 RBX: 0000000000000000 RCX: 0000000000000000",
        "Call Trace:",
        " <TASK>",
        f" start_kernel+{caller.offset:#x}/{caller.size:#x}",
        " </TASK>",
        "---[ end trace 0000000000000000 ]---",
    ]
    path.write_text("".join(f"[    {n / 10:.6f}] {text}\n" for n, text in enumerate(lines)))
    return path


def parsed(*words: str | Path) -> tuple[list[str], str]:
    result = CliRunner().invoke(parse, [str(word) for word in words], catch_exceptions=False)
    return result.stdout.splitlines(), result.stderr


def test_parse_with_a_vmlinux(built: Built, log: Path) -> None:
    (printed,), told = parsed(log, "--vmlinux", built.vmlinux, "--json")
    assert told == ""
    (found,) = json.loads(printed)["findings"]
    assert [(frame["function"], frame["source"]) for frame in found["frames"]] == [
        ("check_page", line("include/linux/mm.h", "if (*page < 0)")),
        ("copy_page_range", line("mm/memory.c", "check_page(page)")),
        ("start_kernel", line("init/main.c", "copy_page_range(&count)")),
    ]
    (bare,) = json.loads(parsed(log, "--json")[0][0])["findings"]
    assert [frame["source"] for frame in bare["frames"]] == [None, None]
    for key in found.keys() - {"frames"}:
        assert found[key] == bare[key], f"{key} differs with a vmlinux"
    marked = [text for text in found["disassembly"] if ":*" in text]
    assert len(marked) == 1 and re.search(r"mov \(%r\w+\),%e\w+$", marked[0])

    lines, _ = parsed(log, "--vmlinux", built.vmlinux)
    assert [text.split() for text in lines[3:6]] == [
        ["check_page", "(inlined)", line("include/linux/mm.h", "if (*page < 0)")],
        [f"copy_page_range+{_at(bare, 0)}", line("mm/memory.c", "check_page(page)")],
        [f"start_kernel+{_at(bare, 1)}", line("init/main.c", "copy_page_range(&count)")],
    ]
    assert f"      {marked[0]}" in lines
    assert "copy_page_range < start_kernel" in "".join(parsed(log)[0])


def _at(record: dict[str, Any], number: int) -> str:
    frame = record["frames"][number]
    return f"{frame['offset']:#x}/{frame['size']:#x}"


def test_parse_says_what_is_wrong(built: Built, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = log.with_name("other.log")
    other.write_text(log.read_text().replace("6.12.9-test", "6.12.8"))
    lines, told = parsed(other, other, "--vmlinux", built.vmlinux)
    assert told.count("does not belong to the kernel of the log") == 1
    assert "6.12.8 #3" in told
    assert "copy_page_range < start_kernel" in lines[2]
    with pytest.raises(UserError, match="no ELF file"):
        parsed(log, "--vmlinux", log)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match="elfutils"):
        parsed(log, "--vmlinux", built.vmlinux)
    # What nobody asked for does not fail for the lack of a tool.
    (printed,), told = parsed(log, "--json")
    assert json.loads(printed)["findings"][0]["disassembly"] is None
    assert "objdump not found: apt-get install binutils" in told


def test_many_different_codes_are_not_all_disassembled(log: Path) -> None:
    text = log.read_text()
    many = [re.sub(r"Code: \S\S", f"Code: {n:02x}", text) for n in range(30)]
    log.write_text("".join(many))
    (printed,), told = parsed(log, "--json")
    done = [found["disassembly"] is not None for found in json.loads(printed)["findings"]]
    assert done == [True] * 20 + [False] * 10
    assert told.count("first are disassembled") == 1
