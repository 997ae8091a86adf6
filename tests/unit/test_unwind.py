"""Stacks unwound by call frame information, of functions whose frames are known because they are written down here."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import tools
from harness.arch import ARCHES, Arch
from harness.console.unwind import MAX_FRAMES, CallFrames, Place, Stack, unwind
from harness.errors import ToolMissingError, UserError

# In each: _start calls middle, whose frame is found by the frame pointer, calls inner, whose frame of 48 bytes is found
# by the stack pointer. leaf keeps nothing; bare says nothing about itself.
SOURCES = {
    "x86_64": """
    .text
    .globl _start
    _start:
        .cfi_startproc
        .cfi_undefined rip
        call middle
    after_start:
        hlt
        .cfi_endproc
    middle:
        .cfi_startproc
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        mov %rsp, %rbp
        .cfi_def_cfa_register rbp
        sub $64, %rsp
        call inner
    after_middle:
        leave
        ret
        .cfi_endproc
    inner:
        .cfi_startproc
        push %rbx
        .cfi_def_cfa_offset 16
        .cfi_offset rbx, -16
        sub $32, %rsp
        .cfi_def_cfa_offset 48
    in_inner:
        nop
        .cfi_endproc
    leaf:
        .cfi_startproc
    in_leaf:
        nop
        .cfi_endproc
    bare:
        nop
    in_bare:
        nop
    """,
    "aarch64": """
    .text
    .globl _start
    _start:
        .cfi_startproc
        .cfi_undefined x30
        bl middle
    after_start:
        nop
        .cfi_endproc
    middle:
        .cfi_startproc
        stp x29, x30, [sp, -96]!
        .cfi_def_cfa_offset 96
        .cfi_offset x29, -96
        .cfi_offset x30, -88
        mov x29, sp
        .cfi_def_cfa_register x29
        sub sp, sp, 64
        bl inner
    after_middle:
        nop
        .cfi_endproc
    inner:
        .cfi_startproc
        stp x29, x30, [sp, -48]!
        .cfi_def_cfa_offset 48
        .cfi_offset x29, -48
        .cfi_offset x30, -40
    in_inner:
        nop
        .cfi_endproc
    leaf:
        .cfi_startproc
    in_leaf:
        nop
        .cfi_endproc
    bare:
        nop
    in_bare:
        nop
    """,
}
SP = 0x7FFC_0000_1000  # in inner
IN_MIDDLE = SP + 48
FP = IN_MIDDLE + 64
BYTES = 1024


@dataclasses.dataclass(frozen=True)
class Built:
    arch: Arch
    path: Path
    labels: dict[str, int]

    @functools.cached_property
    def frames(self) -> CallFrames:
        return CallFrames(self.path)

    def values(self, label: str, sp: int, **more: int) -> dict[int, int]:
        registers = self.arch.registers
        found = {registers.pc: self.labels[label], registers.sp: sp}
        if registers.link is not None and "link" in more:
            found[registers.link] = more["link"]
        return found | ({registers.fp: more["fp"]} if "fp" in more else {})

    def words(self) -> dict[int, int]:
        """The stack in inner."""
        on_stack = self.arch.registers.link is None
        return {
            SP: 0x4141_4141 if on_stack else FP,
            (SP + 40) if on_stack else (SP + 8): self.labels["after_middle"],
            FP: 0,
            FP + 8: self.labels["after_start"],
        }


def stack(words: dict[int, int], length: int = BYTES) -> Stack:
    data = bytearray(BYTES)
    for address, word in words.items():
        data[address - SP : address - SP + 8] = word.to_bytes(8, "little")
    return Stack(SP, bytes(data[:length]))


@pytest.fixture(scope="module", params=ARCHES.values(), ids=lambda arch: arch.name)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    from elftools.elf.elffile import ELFFile

    arch, folder = request.param, tmp_path_factory.mktemp("frames")
    (folder / "frames.S").write_text(SOURCES[arch.name])
    try:
        words = (arch.compiler(), "-nostdlib", "-static", "-no-pie", "-o", "frames", "frames.S")
        tools.run(words, seconds=60, cwd=folder)
    except ToolMissingError as error:
        pytest.skip(str(error))
    with (folder / "frames").open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        labels = {symbol.name: symbol["st_value"] for symbol in symbols.iter_symbols()}
    return Built(arch, folder / "frames", labels)


def places(built: Built, found: list[Place]) -> list[str]:
    names = {address: label for label, address in built.labels.items()}
    return [
        f"{'?' if place.unsure else ''}{names.get(place.address, hex(place.address))}"
        f"{'!' if place.exact else ''}"
        for place in found
    ]


def test_stack_and_frame_pointer(built: Built) -> None:
    found, whole = unwind(built.frames, built.values("in_inner", SP, fp=FP), stack(built.words()))
    assert (places(built, found), whole) == (["in_inner!", "after_middle", "after_start"], True)


def test_a_function_that_has_only_begun(built: Built) -> None:
    """Its frame is not there yet: the rules are those of its first instruction."""
    words = {**built.words(), IN_MIDDLE - 8: built.labels["after_middle"]}
    at = IN_MIDDLE - (8 if built.arch.registers.link is None else 0)
    values = built.values("inner", at, fp=FP, link=built.labels["after_middle"])
    for label in ("inner", "in_leaf"):
        here = values | {built.arch.registers.pc: built.labels[label]}
        found, whole = unwind(built.frames, here, stack(words))
        assert (places(built, found), whole) == ([f"{label}!", "after_middle", "after_start"], True)


def test_a_program_that_was_moved(built: Built) -> None:
    bias = 0x5555_0000_0000
    values = built.values("in_inner", SP, fp=FP)
    values[built.arch.registers.pc] += bias
    words = {at: word + bias if word in built.labels.values() else word for at, word in built.words().items()}
    found, whole = unwind(built.frames, values, stack(words), bias=bias)
    assert (places(built, found), whole) == (["in_inner!", "after_middle", "after_start"], True)


def test_a_stack_that_was_not_read_to_its_end(built: Built) -> None:
    found, whole = unwind(
        built.frames, built.values("in_inner", SP, fp=FP), stack(built.words(), FP + 8 - SP)
    )
    assert (places(built, found), whole) == (["in_inner!", "after_middle"], False)


def test_a_guess_says_that_it_is_one(built: Built) -> None:
    """Code without rules, as the kernel's in every process; what leads to the outermost function is believed."""
    stale = {SP: built.labels["in_leaf"], SP + 16: built.labels["after_middle"], SP + 24: 0x1234}
    words = {**built.words(), **stale}
    words[SP + 32], words[SP + 40] = FP, built.labels["after_middle"]
    found, whole = unwind(built.frames, built.values("in_bare", SP, fp=FP), stack(words))
    assert whole
    assert places(built, found)[0] == "in_bare!"
    assert set(places(built, found)[1:]) <= {"?after_middle", "?after_start"}
    assert places(built, found)[-1] == "?after_start"
    # Nothing on the stack that a call returns to.
    found, whole = unwind(built.frames, built.values("in_bare", SP, fp=FP), stack({SP: 0x1234}))
    assert (places(built, found), whole) == (["in_bare!"], False)


def test_registers_that_were_not_read(built: Built) -> None:
    """Of a thread that does not stop the kernel tells two registers; the frame pointer is not among them."""
    values = built.values("in_inner", SP)
    found, whole = unwind(built.frames, values, stack(built.words()))
    expected = ["in_inner!", "after_middle", "?after_start" if values.get(6) is None else "after_start"]
    if built.arch.registers.link is not None:
        expected[2] = "after_start"  # inner has kept it
    assert (places(built, found), whole) == (expected, True)
    assert unwind(built.frames, {}, stack(built.words())) == ([], False)


def test_a_handler_returns_through_the_kernels_code(built: Built) -> None:
    """arm64's vdso: all registers are in the frame that the kernel made for the signal."""
    registers = built.arch.registers
    if registers.signal_frame is None:
        pytest.skip("the C library's code is described by its own rules")
    vdso = 0xFFFF_8000_0000
    words = dict(built.words())
    # The handler is a leaf; the signal's frame is at its stack pointer, and was made in inner.
    frame = SP + 256
    interrupted = {registers.pc: built.labels["in_inner"], registers.sp: SP, registers.fp: 0}
    for number in range(registers.pc + 1):
        words[frame + registers.signal_frame + 8 * number] = interrupted.get(number, 0)
    values = built.values("in_leaf", frame, link=vdso + 0x7BC)
    found, whole = unwind(built.frames, values, stack(words), vdso=vdso)
    assert places(built, found) == [
        "in_leaf!",
        f"{vdso + 0x7BC:#x}!",
        "in_inner!",
        "after_middle",
        "after_start",
    ]
    assert whole
    # What is not known to be the kernel's is not taken for it.
    assert places(built, unwind(built.frames, values, stack(words))[0])[:2] == [
        "in_leaf!",
        f"{vdso + 0x7BC:#x}",
    ]


def test_a_return_address_with_authentication(built: Built) -> None:
    if built.arch.registers.link is None:
        pytest.skip("arm64's")
    words = built.words()
    words[SP + 8] |= 0x2A << 48
    found, whole = unwind(built.frames, built.values("in_inner", SP, fp=FP), stack(words))
    assert (places(built, found), whole) == (["in_inner!", "after_middle", "after_start"], True)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_guest_tells(built: Built, data: st.DataObject) -> None:
    """A hostile guest chooses registers and stack: what comes of them is bounded."""
    interesting = [*built.labels.values(), SP, SP + 8, FP, FP + 64, 0, (1 << 64) - 1]
    word = st.sampled_from(interesting) | st.integers(0, (1 << 64) - 1)
    values = data.draw(st.dictionaries(st.integers(0, 32), word))
    values |= data.draw(
        st.just({}) | st.just(built.values(data.draw(st.sampled_from(sorted(built.labels))), SP))
    )
    content = b"".join(value.to_bytes(8, "little") for value in data.draw(st.lists(word, max_size=64)))
    kept = Stack(SP, content + data.draw(st.binary(max_size=7)))
    found, _ = unwind(
        built.frames, values, kept, bias=data.draw(word), vdso=data.draw(st.sampled_from([0, SP]) | word)
    )
    assert len(found) <= MAX_FRAMES
    assert all(0 <= place.address < 1 << 64 for place in found)


def test_a_circle_of_frames_ends(built: Built) -> None:
    """Frame pointers that lead back to where they were."""
    words = built.words() | {FP: FP, FP + 8: built.labels["after_middle"]}
    found, whole = unwind(built.frames, built.values("in_inner", SP, fp=FP), stack(words))
    assert not whole
    assert len(found) == MAX_FRAMES


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n"])
def test_a_file_that_is_no_program(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="no sound call frame information"):
        CallFrames(tmp_path / "file")
    with pytest.raises(UserError, match="cannot read"):
        CallFrames(tmp_path / "missing")


def test_a_damaged_program(built: Built, tmp_path: Path) -> None:
    """Any byte may be wrong: it is refused in words, or read as what it is not."""
    whole = built.path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 300)):
        file = tmp_path / "damaged"
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            frames = CallFrames(file)
        except UserError:
            continue
        unwind(frames, built.values("in_inner", SP, fp=FP), stack(built.words()))
