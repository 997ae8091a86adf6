"""Symbolising, with ELF files that real compilers make of data/kernel-tree/: a kernel of three files and a module."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.arch import AARCH64, X86_64, Arch
from harness.console.disassembly import disassemble
from harness.console.finding import Finding, Frame
from harness.console.symbols import MAX_BOOTS, Boot, Symbols, boots, boots_of
from harness.errors import ToolMissingError, UserError

TREE = Path(__file__).parent / "data" / "kernel-tree"
# Addresses where such kernels really are, and what makes the compiler use them.
FLAGS = {
    "x86_64": ["-mcmodel=kernel", "-Wl,-Ttext=0xffffffff81000000"],
    # arm64's are shared objects, so that they can be moved.
    "aarch64": ["-Wl,-Ttext-segment=0xffff800008000000,-shared,-Bsymbolic"],
}
BANNER = "Linux version 6.12.9-test (me@host) (gcc 12) #3 SMP Sat Nov 21 07:00:00 UTC 2026"


@dataclasses.dataclass(frozen=True)
class Built:
    """The tree, built somewhere; what is known of it here comes from nm and objdump, never from addr2line."""

    arch: Arch
    folder: Path

    @property
    def vmlinux(self) -> Path:
        return self.folder / "vmlinux"

    def tool(self, name: str, *words: str | Path) -> str:
        command = [self.arch.binutil(name), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def places(self, function: str) -> list[tuple[int, int]]:
        """Address and size of all functions of a name; the size is the kernel's: up to the next symbol."""
        entries = [line.split() for line in self.tool("nm", "-n", self.vmlinux).splitlines()]
        starts = sorted({int(address, 16) for address, _, _ in entries})
        return [
            (int(address, 16), starts[starts.index(int(address, 16)) + 1] - int(address, 16))
            for address, _, name in entries
            if name == function
        ]

    def calls(self, function: str, which: int = 0, *, file: str = "vmlinux") -> list[tuple[str, int]]:
        """What a function calls, and the offset to which each call returns."""
        dump = self.tool("objdump", "-dr", self.folder / file)
        (start, body), *_ = re.findall(rf"(?m)^([0-9a-f]+) <{function}>:\n((?:.+\n)+)", dump)[which:]
        lines = re.findall(r"(?m)^ *([0-9a-f]+):\t[^\t]+\t(\S+) *(.*)\n(?:\t+.*R_\w+\t(\w+).*\n)?", body)
        found = []
        for (_, mnemonic, operands, relocation), following in zip(lines, [*lines[1:], None], strict=True):
            if mnemonic in ("call", "bl"):
                target = relocation or operands.rpartition("<")[2].rstrip(">")
                assert following is not None
                found.append((target, int(following[0], 16) - int(start, 16)))
        return found

    def frame(self, function: str, callee: str, which: int = 0) -> Frame:
        """The frame of a function while it calls another, as the kernel prints it."""
        size = self.places(function)[which][1]
        offset = next(offset for target, offset in self.calls(function, which) if target == callee)
        return Frame(function=function, symbol=function, offset=offset, size=size)


def line(file: str, text: str, after: str = "") -> str:
    """``file:line`` of the first line that holds ``text``, behind the one that holds ``after``."""
    lines = (TREE / file).read_text().splitlines()
    begin = next(number for number, each in enumerate(lines) if after in each)
    return f"{file}:{next(n for n, each in enumerate(lines) if n >= begin and text in each) + 1}"


@pytest.fixture(scope="module", params=[X86_64, AARCH64], ids=lambda arch: str(arch.name))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(request.param, tmp_path_factory.mktemp(request.param.name) / "tree")


def build(arch: Arch, folder: Path, *more: str) -> Built:
    if shutil.which(arch.compiler()) is None or shutil.which("eu-addr2line") is None:
        pytest.skip(f"no compiler for {arch.name}")
    shutil.copytree(TREE, folder)
    common = [arch.compiler(), "-g", "-O2", "-fno-pic", "-ffreestanding", "-I./include", *more]
    model = [flag for flag in FLAGS[arch.name] if not flag.startswith("-Wl")]
    link = ["-no-pie", "-nostdlib", "-static", "-Wl,--build-id=none,-e,start_kernel", *FLAGS[arch.name]]
    sources = ["init/main.c", "mm/memory.c", "mm/swap.c"]
    for words in (
        [*common, *link, "-o", "vmlinux", *sources],
        [*common, *model, "-c", "-o", "drivers/vex-drive.ko", "drivers/vex-drive.c"],
    ):
        subprocess.run(words, cwd=folder, check=True, timeout=60)
    return Built(arch, folder)


def finding(*frames: Frame, arch: Arch | None = None, **more: object) -> Finding:
    base = Finding(
        kind="BUG", title="kernel BUG in release", frame="release", arch=arch.name if arch else None
    )
    return dataclasses.replace(base, frames=frames, **more)  # type: ignore[arg-type]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def symbols(built: Built, told: list[str]) -> Symbols:
    return Symbols(vmlinux=built.vmlinux, tell=told.append)


# --- Lines ---------------------------------------------------------------------------------------------------


def test_calls_get_the_line_of_the_call(built: Built, symbols: Symbols, told: list[str]) -> None:
    frames = [
        built.frame("release", "report"),
        built.frame("copy_page_range", "release"),
        built.frame("start_kernel", "copy_page_range"),
    ]
    before = finding(*frames, arch=built.arch)
    after = symbols.symbolise(before)
    # Not the next line, where the call returns to; and no path of where the tree was built.
    assert [frame.source for frame in after.frames] == [
        line("mm/memory.c", "report(3)"),
        line("mm/memory.c", "release(page);", "copy_page_range"),
        line("init/main.c", "copy_page_range(&count)"),
    ]
    # Nothing else has changed.
    assert dataclasses.replace(after, frames=before.frames) == before
    assert [dataclasses.replace(frame, source=None) for frame in after.frames] == frames
    assert told == []


def test_the_program_counter_is_where_it_is(built: Built, symbols: Symbols) -> None:
    returns = built.frame("release", "report")
    faulted = dataclasses.replace(returns, counter=True)
    (frame,) = symbols.symbolise(finding(faulted)).frames
    assert frame.source == line("mm/memory.c", "report(*page + 4)")
    # So is what arm64 prints beneath the entry of an interrupt.
    entry = Frame(function="el1h_64_irq", symbol="el1h_64_irq", offset=0x64, size=None)
    assert symbols.symbolise(finding(entry, returns)).frames[1].source == frame.source
    assert symbols.symbolise(finding(returns, entry)).frames[0].source == line("mm/memory.c", "report(3)")
    # And what begins its trace, the same instruction again.
    assert symbols.symbolise(finding(faulted, returns)).frames[1].source == frame.source


def test_inlined_functions_come_before_the_one_they_are_in(built: Built, symbols: Symbols) -> None:
    frames = [built.frame("copy_page_range", "report"), built.frame("start_kernel", "copy_page_range")]
    after = symbols.symbolise(finding(*frames))
    inlined, outer, caller = after.frames
    assert inlined == Frame(
        function="check_page", inlined=True, source=line("include/linux/mm.h", "report(*page);")
    )
    assert outer == dataclasses.replace(frames[0], source=line("mm/memory.c", "check_page(page)"))
    assert caller.function == "start_kernel"
    assert (after.frame, after.title) == ("release", "kernel BUG in release")
    assert symbols.symbolise(after) == after  # what has its lines keeps them


def test_of_two_functions_of_one_name_the_size_tells(built: Built, symbols: Symbols) -> None:
    for which, expected in enumerate((line("mm/memory.c", "report(3)"), line("mm/swap.c", "report(5)"))):
        (frame,) = symbols.symbolise(finding(built.frame("release", "report", which))).frames
        assert frame.source == expected


def test_what_the_size_does_not_tell_is_not_guessed(built: Built, symbols: Symbols) -> None:
    frame = built.frame("forget", "report", 1)
    sized = [size for _, size in built.places("forget")]
    (same,) = symbols.symbolise(finding(frame)).frames
    assert same.source == (None if len(set(sized)) == 1 else line("mm/swap.c", "report(7)"))
    (unsized,) = symbols.symbolise(finding(dataclasses.replace(frame, size=None))).frames
    assert unsized.source is None
    # Copies of a function in a header have the same lines, whichever it is.
    (copy,) = symbols.symbolise(
        finding(dataclasses.replace(built.frame("put_page", "report"), size=None))
    ).frames
    assert copy.source == line("include/linux/mm.h", "report(*page + 1)")


# --- Addresses without names ---------------------------------------------------------------------------------


def raw(built: Built, moved: int) -> Finding:
    """The frames of `built` as a kernel without KALLSYMS prints them."""
    frames = [built.frame("release", "report"), built.frame("copy_page_range", "release")]
    starts = [built.places(frame.function)[0][0] for frame in frames]
    return finding(
        *(
            Frame(
                function=f"0x{start + (frame.offset or 0) + moved:x}",
                address=start + (frame.offset or 0) + moved,
            )
            for frame, start in zip(frames, starts, strict=True)
        )
    )


@pytest.mark.parametrize("moved", [0, 0x1A00_0000])
def test_raw_addresses_less_what_kaslr_moved_them(built: Built, symbols: Symbols, moved: int) -> None:
    after = symbols.symbolise(dataclasses.replace(raw(built, moved), kernel_offset=moved))
    assert [frame.symbol for frame in after.frames] == ["release", "copy_page_range"]
    assert [frame.source for frame in after.frames] == [
        line("mm/memory.c", "report(3)"),
        line("mm/memory.c", "release(page);", "copy_page_range"),
    ]


def test_raw_addresses_are_not_guessed(built: Built, symbols: Symbols, told: list[str]) -> None:
    before = raw(built, 0)
    assert symbols.symbolise(before) == before
    assert len(told) == 1 and "nokaslr" in told[0]
    # Known to be unmoved: by the log, or by the kernel's configuration.
    assert symbols.symbolise_all([before], [Boot(0, kaslr=False)])[0].frames[0].symbol == "release"
    fixed = Symbols(vmlinux=built.vmlinux, kaslr=False, tell=told.append)
    assert fixed.symbolise(before).frames[0].symbol == "release"
    beyond = finding(Frame(function="0x10", address=0x10), Frame(function="0xf", address=(1 << 64) - 1))
    assert fixed.symbolise(beyond) == beyond
    assert len(told) == 1


def test_system_map_names_them(built: Built, tmp_path: Path, told: list[str]) -> None:
    system_map = tmp_path / "System.map"
    system_map.write_text(built.tool("nm", "-n", built.vmlinux))
    after = Symbols(system_map=system_map, kaslr=False, tell=told.append).symbolise(raw(built, 0))
    assert [(frame.function, frame.source) for frame in after.frames] == [
        ("release", None),
        ("copy_page_range", None),
    ]
    assert after.frames[0].offset == built.frame("release", "report").offset
    assert after.frames[0].size == built.places("release")[0][1]
    assert told == []


def test_debians_system_map_is_none(built: Built, tmp_path: Path, told: list[str]) -> None:
    system_map = tmp_path / "System.map"
    system_map.write_text("ffffffffffffffff B The real System.map is in the linux-image-6.1.0-dbg package\n")
    before = raw(built, 0)
    assert Symbols(system_map=system_map, kaslr=False, tell=told.append).symbolise(before) == before
    assert "no symbols" in told[0]


# --- Modules -------------------------------------------------------------------------------------------------


def in_module(built: Built, function: str, size: int) -> Frame:
    offset = next(
        offset for target, offset in built.calls(function, file="drivers/vex-drive.ko") if target == "report"
    )
    return Frame(function=function, symbol=function, offset=offset, size=size, module="vex_drive")


@pytest.mark.parametrize("where", ["beside", "given"])
def test_modules(built: Built, where: str, tmp_path: Path, told: list[str]) -> None:
    """Both functions begin at 0 of their sections.

    vex_on is the last of .text: for the kernel it ends with the page.
    """
    modules = None
    if where == "given":
        modules = tmp_path / "lib/modules/6.12.9-test"
        (modules / "kernel").mkdir(parents=True)
        shutil.copy(built.folder / "drivers/vex-drive.ko", modules / "kernel")
    symbols = Symbols(vmlinux=built.vmlinux, modules=modules, tell=told.append)
    sections = built.tool("nm", "-n", built.folder / "drivers/vex-drive.ko")
    assert len(re.findall(r"(?m)^0+ t vex_", sections)) == 2
    size = int(re.findall(r"(?m)^([0-9a-f]+) T init_module", sections)[0], 16)
    frames = [in_module(built, "vex_on", 0x1000), in_module(built, "vex_begin", size)]
    after = symbols.symbolise(finding(*frames))
    ours = [(frame.function, frame.source) for frame in after.frames if not frame.inlined]
    told_lines = {frame.source for frame in after.frames}
    assert told == []
    assert [function for function, _ in ours] == ["vex_on", "vex_begin"]
    assert told_lines <= {
        line("include/linux/mm.h", "report(*page);"),
        *(line("drivers/vex-drive.c", text, after) for after in ("vex_begin(int", "vex_on(int")
          for text in ("check_page(page)", "report(2")),
    }  # fmt: skip
    for (_, source), start in zip(ours, ("vex_on(int", "vex_begin(int"), strict=True):
        number = int((source or "").rpartition(":")[2])
        begin = int(line("drivers/vex-drive.c", start).rpartition(":")[2])
        assert begin < number < begin + 5, f"{source} is not in {start}"


def test_a_module_that_is_not_there_is_said_once(built: Built, symbols: Symbols, told: list[str]) -> None:
    frames = [
        Frame(function="f", symbol="f", offset=1, size=2, module=name) for name in ("nfs", "nfs", "nfs(OE)")
    ]
    assert symbols.symbolise(finding(*frames)).frames == tuple(frames)
    assert len(told) == 1
    assert "no nfs.ko below" in told[0]


# --- Files of another kernel ---------------------------------------------------------------------------------


def test_another_kernel_gives_no_lines(built: Built, told: list[str]) -> None:
    frame = built.frame("release", "report")
    good = finding(frame)

    def refused(finding: Finding, why: str, *log: Boot) -> bool:
        told.clear()
        symbols = Symbols(vmlinux=built.vmlinux, tell=told.append)
        after = symbols.symbolise_all([finding, finding], log)[0]
        assert len(told) <= 1
        return after == finding and why in "".join(told) and "built together" in "".join(told)

    report = "CPU: 0 PID: 1 Comm: x Not tainted {} #{} Debian"
    other = "arm64" if built.arch is X86_64 else "x86_64"
    assert not refused(good, "", Boot(0, BANNER))
    assert not refused(dataclasses.replace(good, text=report.format("6.12.9-test", 3)), "")
    assert refused(good, "#4 SMP", Boot(0, BANNER.replace("#3", "#4")))
    assert refused(good, "07:01:00", Boot(0, BANNER.replace("07:00:00", "07:01:00")))
    assert refused(dataclasses.replace(good, text=report.format("6.12.9-test", 4)), "6.12.9-test #4")
    assert refused(dataclasses.replace(good, text=report.format("6.1.0", 3)), "6.1.0 #3")
    assert refused(dataclasses.replace(good, arch=other), f"the report of {other}")
    wrong = dataclasses.replace(frame, size=(frame.size or 0) + 0x200)
    assert refused(finding(wrong, wrong, frame), "2 of 3 functions are not there or of another size")
    assert not refused(finding(wrong, frame, frame), "")


def test_the_boot_before_the_finding_counts(built: Built, told: list[str]) -> None:
    symbols = Symbols(vmlinux=built.vmlinux, tell=told.append)
    log = boots(f"[ 0.0] Linux version 5.4.0 #1 SMP\r\nx\n[ 0.0] {BANNER}\r\n".encode())
    early, late = (finding(built.frame("release", "report"), start=start) for start in (20, 1000))
    after = symbols.symbolise_all([early, late], log)
    assert [found.frames[0].source is None for found in after] == [True, False]


def test_boots(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(
        f"junk\n[    0.000000] {BANNER}\r\n[    0.000000] Kernel command line: console=ttyS0 nokaslr quiet\r\n"
        "Linux version 6.1.0 (x) #1 SMP now\nKernel command line: xnokaslr nokaslrx\n".encode()
    )
    first, second = boots_of(log)
    assert (first.banner, first.kaslr) == (BANNER, False)
    assert (second.banner, second.kaslr) == ("Linux version 6.1.0 (x) #1 SMP now", True)
    assert len(boots(b"Linux version 1\n" * (2 * MAX_BOOTS))) == MAX_BOOTS
    log.write_bytes(b"")
    assert boots_of(log) == []


# --- What guests and hosts do ----------------------------------------------------------------------------------


HOSTILE = [
    Frame(function="x", symbol="--help", offset=1, size=2),
    Frame(function="x", symbol="-x", offset=1 << 70, size=1 << 70),
    Frame(function="x", symbol="release\0", offset=-5, size=3),
    Frame(function="x", symbol="release", offset=1 << 80),
    Frame(function="x", symbol="release", offset=-(1 << 80), size=None),
    Frame(function="x", symbol="é" * 5000, offset=0, size=0),
    Frame(function="x", symbol="x", offset=1, size=2, module="../../../etc/passwd"),
    Frame(function="x", symbol="x", offset=1, size=2, module="-j"),
    Frame(function="x", symbol="x", offset=1, size=2, module=""),
    Frame(function="x", address=1 << 90),
    Frame(function="x", address=-1),
]


def test_hostile_frames(built: Built, symbols: Symbols) -> None:
    before = [finding(*HOSTILE, kernel_offset=-(1 << 90)), *(finding(frame) for frame in HOSTILE)]
    for found in symbols.symbolise_all(before):
        assert all(frame.source is None for frame in found.frames)
    assert symbols.symbolise(finding(built.frame("release", "report"))).frames[0].source


def test_without_debug_information(built: Built, tmp_path: Path, told: list[str]) -> None:
    bare = tmp_path / "vmlinux"
    built.tool("strip", "--strip-debug", "-o", bare, built.vmlinux)
    before = finding(built.frame("release", "report"))
    assert Symbols(vmlinux=bare, tell=told.append).symbolise(before) == before
    assert "CONFIG_DEBUG_INFO" in told[0]
    named = Symbols(vmlinux=bare, kaslr=False, tell=told.append).symbolise(raw(built, 0))
    assert [frame.symbol for frame in named.frames] == ["release", "copy_page_range"]
    built.tool("strip", "-o", bare, built.vmlinux)
    with pytest.raises(UserError, match="no symbols: give one that was not stripped"):
        Symbols(vmlinux=bare, tell=told.append).symbolise(before)


def test_what_is_no_vmlinux(built: Built, tmp_path: Path, told: list[str]) -> None:
    before = finding(built.frame("release", "report"))
    file = tmp_path / "file"
    whole = built.vmlinux.read_bytes()
    for content in (b"", b"MZ" + bytes(1000), b"\x7fELF", whole[:100], whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=str(file)):
            Symbols(vmlinux=file, tell=told.append).symbolise(before)
    with pytest.raises(UserError, match="No such file"):
        Symbols(vmlinux=tmp_path / "none", tell=told.append).symbolise(before)


def test_a_missing_tool_is_named(built: Built, symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    before = finding(built.frame("release", "report"))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match=r"eu-addr2line not found: apt-get install elfutils"):
        symbols.symbolise(before)
    with pytest.raises(ToolMissingError, match=r"objdump not found: apt-get install binutils"):
        disassemble(finding(code=CODE[built.arch.name]), built.arch)


# --- Code: -----------------------------------------------------------------------------------------------------

# From data/wpseq-writer-6.1-x86_64.log (copy_page_range+0x136a) and data/oops-arm64.log (try_grab_folio+0x54).
CODE = {
    "x86_64": "75 a0 e8 49 38 fd ff 48 8b 75 a0 e9 c7 f9 ff ff 49 89 da e9 10 fb ff ff 48 8b 75 b8 48 8b 7d b0 e8 7b "
    "f0 f1 ff e9 09 fb ff ff <0f> 0b 8d 46 e5 83 f8 02 0f 86 b3 01 00 00 48 83 fe 1e 0f 85 46 f8",
    "aarch64": "f9400e81 b4000121 (f9400c20) d65f03c0",
}
COUNTER = {"x86_64": 0x136A, "aarch64": 0x54}
MARKED = {
    "x86_64": (r" 136a:\* 0f 0b +ud2", " 136c:"),
    "aarch64": (r"   54:\* f9400c20 +ldr x0, \[x1, #24\]", "   58:"),
}


def coded(arch: Arch, code: str, offset: int) -> list[str]:
    if shutil.which(arch.binutil("objdump")) is None:
        pytest.skip(f"no binutils for {arch.name}")
    return disassemble(finding(Frame(function="f", symbol="f", offset=offset, counter=True), code=code), arch)


@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: str(arch.name))
def test_disassembly(arch: Arch) -> None:
    lines = coded(arch, CODE[arch.name], COUNTER[arch.name])
    ((number, marked),) = [
        (n, text) for n, text in enumerate(lines) if "*" in text.partition(" ")[0] + text[:8]
    ]
    pattern, following = MARKED[arch.name]
    assert re.match(pattern, marked)
    assert lines[number + 1].startswith(following)
    assert number > 0
    # Of the function before there is nothing to be seen.
    lines = coded(arch, CODE[arch.name], 0)
    assert re.match(r"    0:\* ", lines[0])


def test_disassembly_begins_between_instructions() -> None:
    """The first byte is the last of a long jump: whatever it may mean alone, the marked instruction must be one."""
    lines = coded(X86_64, "48 b8 01 02 <0f> 0b 90", 0x20)
    assert any(re.match(r"   20:\* 0f 0b +ud2", text) for text in lines)


@pytest.mark.parametrize(
    "code", ["Bad RIP value.", "", "f9400e81 ????????", "zz <0f>", "-x", "00 " * 5000, "<0f> f9400e81", "é"]
)
@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: str(arch.name))
def test_what_is_no_code(arch: Arch, code: str) -> None:
    assert coded(arch, code, 1) == []
