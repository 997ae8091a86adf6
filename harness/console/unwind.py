"""The stack of a thread of a user-space program, unwound by the call frame information of its binary.

glibc has no frame pointers on x86_64, but every binary has .eh_frame, so that the registers and the top of the stack
say exactly who called whom. Where that fails, in code of the kernel's vdso for one, a return address is looked for on
the stack; that is a guess, and the places found so say that they are.

The binary is the host's own. Registers and stack are the guest's, and may be anything.
"""

from __future__ import annotations

import bisect
import dataclasses
import io
import operator
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.arch import ARCHES, Arch
from harness.errors import UserError

MAX_FRAMES = 64
_MAX_GUESSES = 32
_ADDRESS_BITS = (1 << 48) - 1  # above them arm64 keeps what authenticates a return address
_WORD = (1 << 64) - 1
_VDSO_BYTES = 1 << 16
_LONGEST_CALL = 7

Values = dict[int, int]
"""What is known of a frame's registers."""


class Stack:
    """The bytes of a stack that were read, and where they were."""

    def __init__(self, start: int, data: bytes) -> None:
        self.start = start
        self._data = data

    def word(self, address: int) -> int | None:
        """The 8 bytes there, None if they were not read."""
        at = address - self.start
        if not 0 <= at <= len(self._data) - 8:
            return None
        return int.from_bytes(self._data[at : at + 8], "little")

    def words_from(self, address: int) -> Iterator[int]:
        """The addresses of the words at ``address`` and above it."""
        first = max(address, self.start)
        return iter(range(first + -first % 8, self.start + len(self._data) - 7, 8))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where one frame of a stack is in its function."""

    address: int
    exact: bool
    """It is the next instruction, not the one after a call."""
    unsure: bool = False
    """A guess led here."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """How a frame is undone at one place of a function."""

    rules: Mapping[Any, Any]
    """pyelftools' rules: of the CFA under "cfa", of registers under their numbers."""
    returns: int
    """The register under whose number the return address is found."""


@dataclasses.dataclass
class _Walk:
    """Frames found one after the other, by rules."""

    places: list[Place]
    values: Values
    """Of the last frame."""
    ended: bool
    """The last frame is the outermost one."""


class _UnknownError(Exception):
    """A register or a word of the stack that was not read."""


class CallFrames:
    """The call frame information of a program; `UserError` if it has none."""

    def __init__(self, path: Path) -> None:
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415  (0.1 s)

        try:
            # From memory: of a file pyelftools would believe any size, and ask for as much memory.
            self._read(ELFFile(io.BytesIO(path.read_bytes())), path)
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror})") from error
        except _damages() as error:
            raise UserError(f"{path} has no sound call frame information ({error})") from error

    def _read(self, elf: Any, path: Path) -> None:
        from elftools.dwarf.callframe import FDE  # noqa: PLC0415

        machine = elf["e_machine"]
        arch = next((arch for arch in ARCHES.values() if arch.elf_machine == machine), None)
        if arch is None:
            raise UserError(f"{path} is of an unknown architecture ({machine})")
        self.arch: Arch = arch
        self._call = re.compile(arch.registers.call)
        self.entry: int = elf["e_entry"]
        self.movable: bool = elf["e_type"] == "ET_DYN"
        self._code: list[tuple[int, bytes]] = [
            (segment["p_vaddr"], segment.data())
            for segment in elf.iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & 1
        ]
        dwarf = elf.get_dwarf_info()
        self._units = dwarf.get_aranges()
        entries = dwarf.EH_CFI_entries() if dwarf.has_EH_CFI() else []
        entries += dwarf.CFI_entries() if dwarf.has_CFI() else []
        functions = sorted(
            (entry for entry in entries if isinstance(entry, FDE)),
            key=lambda entry: entry["initial_location"],
        )
        if not functions:
            raise UserError(f"{path} has no call frame information")
        self._functions: list[Any] = functions
        self._begins: list[int] = [entry["initial_location"] for entry in functions]

    def executable(self, address: int) -> bool:
        """Whether there is code of the program."""
        return any(begin <= address < begin + len(code) for begin, code in self._code)

    def described(self, address: int) -> bool:
        """Whether there is debug information of that place; so it may be if no table says of which there is."""
        return self._units is None or self._units.cu_offset_at_addr(address) is not None

    def follows_call(self, address: int) -> bool:
        """Whether a call may return there."""
        for begin, code in self._code:
            at = address - begin
            if 0 < at <= len(code):
                return self._call.search(code[max(0, at - _LONGEST_CALL) : at]) is not None
        return False

    def row(self, address: int) -> _Row | None:
        """How to undo the frame of the instruction at ``address``; None if nothing says how."""
        index = bisect.bisect_right(self._begins, address) - 1
        if index < 0:
            return None
        entry = self._functions[index]
        if address >= entry["initial_location"] + entry["address_range"]:
            return None
        rows = _rows(entry)
        at = bisect.bisect_right([row["pc"] for row in rows], address) - 1
        return _Row(rows[at], entry.cie["return_address_register"]) if at >= 0 else None


def _rows(function: Any) -> Sequence[Mapping[Any, Any]]:
    """How to undo a function's frame, from its first instruction on; pyelftools keeps what it has decoded."""
    try:
        rows: Sequence[Mapping[Any, Any]] = function.get_decoded().table
    except _damages():  # or a vendor's instruction that pyelftools does not know
        return ()
    return rows


def _damages() -> tuple[type[Exception], ...]:
    """What a damaged file can lead pyelftools to: anything."""
    from elftools.common.exceptions import DWARFError, ELFError  # noqa: PLC0415

    native = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
    return (ELFError, DWARFError, struct.error, *native)


def unwind(
    frames: CallFrames, values: Mapping[int, int], stack: Stack, *, bias: int = 0, vdso: int = 0
) -> tuple[list[Place], bool]:
    """The frames of a thread, innermost first, and whether the last is the outermost one.

    ``values`` are the registers that were read. ``bias`` is how far from where it was linked the program runs: the
    places' addresses are those it was linked to. ``vdso`` is where the kernel's own code in the process begins, 0 if
    that is not known.
    """
    return _Unwinder(frames, stack, bias, vdso).unwind(values)


class _Unwinder:
    def __init__(self, frames: CallFrames, stack: Stack, bias: int, vdso: int) -> None:
        self._frames = frames
        self._stack = stack
        self._bias = bias
        self._vdso = vdso
        self._is = frames.arch.registers

    def unwind(self, values: Mapping[int, int]) -> tuple[list[Place], bool]:
        if self._is.pc not in values:
            return [], False
        walk = self._walk(dict(values), exact=True, unsure=False)
        if not walk.ended and (guessed := self._guessed(walk.values)):
            walk.places += guessed.places
            walk.ended = guessed.ended
        return walk.places[:MAX_FRAMES], walk.ended

    def _walk(self, values: Values, *, exact: bool, unsure: bool) -> _Walk:
        """The frames from this one on, as far as rules lead."""
        walk = _Walk([], values, ended=False)
        while len(walk.places) < MAX_FRAMES:
            place = Place(address=self._linked(walk.values[self._is.pc]), exact=exact, unsure=unsure)
            walk.places.append(place)
            interrupted = self._interrupted(walk.values) if not exact else None
            if interrupted is not None:
                walk.values, exact = interrupted, True
                walk.places[-1] = dataclasses.replace(place, exact=True)
                continue
            # A call that never returns may be a function's last instruction, and the next function follows.
            row = self._frames.row(place.address - (not exact))
            if row is None:
                return walk
            if self._is_outermost(row):
                walk.ended = True
                return walk
            try:
                walk.values = self._undo(row, walk.values)
            except _UnknownError:
                return walk
            if not walk.values[self._is.pc]:
                walk.ended = True
                return walk
            exact = self._returns_from_signal(row)
            if exact:
                # Nobody called it: its begin was made the address that the handler returns to.
                walk.places[-1] = dataclasses.replace(place, exact=True)
        return walk

    def _linked(self, address: int) -> int:
        return (address - self._bias) & _WORD

    def _is_outermost(self, row: _Row) -> bool:
        rule = row.rules.get(row.returns)
        return rule is not None and rule.type == "UNDEFINED"

    def _returns_from_signal(self, row: _Row) -> bool:
        # Only such a frame says where the stack pointer was kept: that of a call ends where the stack did before it.
        return self._is.sp in row.rules

    def _interrupted(self, values: Values) -> Values | None:
        """The registers at the moment of a signal, if this frame is what its handler returns to.

        That is in the vdso where the C library has no such code; and a program calls nothing from there.
        """
        if (
            self._is.signal_frame is None
            or not 0 <= values[self._is.pc] - self._vdso < _VDSO_BYTES
            or not self._vdso
        ):
            return None
        at = values.get(self._is.sp, 0) + self._is.signal_frame
        words = [self._stack.word(at + 8 * number) for number in range(self._is.pc + 1)]
        found = {number: word for number, word in enumerate(words) if word is not None}
        return found if len(found) == len(words) else None

    def _undo(self, row: _Row, values: Values) -> Values:
        """The registers of the caller."""
        rule = row.rules["cfa"]
        if rule.expr is not None:
            cfa = _evaluate(bytes(rule.expr), values, self._stack)
        else:
            cfa = _known(values, rule.reg) + rule.offset
        cfa &= _WORD
        caller = {number: values[number] for number in self._is.kept if number in values}
        caller[self._is.sp] = cfa
        for number, rule in row.rules.items():
            if isinstance(number, int):
                caller.pop(number, None)
                value = self._apply(rule, number, values, cfa)
                if value is not None:
                    caller[number] = value & _WORD
        if row.returns == self._is.link and row.returns not in row.rules and row.returns in values:
            caller[row.returns] = values[row.returns]  # not saved: a function that calls none, or its begin
        if row.returns not in caller:
            raise _UnknownError
        caller[self._is.pc] = caller.pop(row.returns) & _ADDRESS_BITS
        if row.returns == self._is.pc or self._returns_from_signal(row):
            return caller
        # A call has overwritten the link register of whoever it returns to.
        caller.pop(row.returns, None)
        return caller

    def _apply(self, rule: Any, number: int, values: Values, cfa: int) -> int | None:
        match rule.type:
            case "SAME_VALUE":
                return values.get(number)
            case "OFFSET":
                return self._stack.word(cfa + rule.arg)
            case "VAL_OFFSET":
                return cfa + int(rule.arg)
            case "REGISTER":
                return values.get(rule.arg)
            case "EXPRESSION" | "VAL_EXPRESSION":
                value = _evaluate(bytes(rule.arg), values, self._stack, cfa)
                return value if rule.type == "VAL_EXPRESSION" else self._stack.word(value)
        return None

    # Where there are no rules.

    def _guessed(self, values: Values) -> _Walk | None:
        """The frames from the caller of this one on, by the return address that leads furthest."""
        best: _Walk | None = None
        for number, candidate in enumerate(self._candidates(values)):
            walk = self._walk(candidate, exact=False, unsure=True)
            if walk.ended:
                return walk
            if best is None or len(walk.places) > len(best.places):
                best = walk
            if number + 1 == _MAX_GUESSES:
                break
        return best

    def _candidates(self, values: Values) -> Iterator[Values]:
        """What the registers of the caller may be, the nearest first."""
        pc, sp, fp, link = self._is.pc, self._is.sp, self._is.fp, self._is.link
        if sp not in values:
            return
        kept = {number: values[number] for number in self._is.kept if number in values}
        # The link register is that of a caller only if this function has called none.
        if link is not None and link in values and self._may_return_to(values[link]):
            yield {**kept, sp: values[sp], pc: values[link]}
        for address in self._stack.words_from(values[sp]):
            word = self._stack.word(address)
            if word is None or not self._may_return_to(word):
                continue
            below = self._stack.word(address - 8)
            if link is None:
                yield {**kept, sp: address + 8, pc: word}
                if below is not None:
                    yield {**kept, sp: address + 8, pc: word, fp: below}
            elif below is not None:
                # Frames begin with the record of frame pointer and return address.
                yield {**kept, sp: below, pc: word, fp: below}

    def _may_return_to(self, address: int) -> bool:
        return self._frames.follows_call(self._linked(address & _ADDRESS_BITS))


def _known(values: Mapping[int, int], number: int) -> int:
    if number not in values:
        raise _UnknownError
    return values[number]


_BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: operator.and_,
    0x1C: operator.sub,
    0x21: operator.or_,
    0x22: operator.add,
    0x24: lambda one, other: one << min(other, 64),
    0x29: operator.eq,
    0x2A: operator.ge,
    0x2B: operator.gt,
    0x2C: operator.le,
    0x2D: operator.lt,
    0x2E: operator.ne,
}


def _evaluate(expression: bytes, values: Mapping[int, int], stack: Stack, *given: int) -> int:
    """A DWARF expression, of the few operations that describe frames: of signals, and of the PLT."""
    numbers = list(given)
    at = 0

    def leb128(*, signed: bool) -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte = expression[at]
            at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return result - (1 << shift) if signed and byte & 0x40 else result

    try:
        while at < len(expression):
            operation = expression[at]
            at += 1
            if 0x30 <= operation < 0x50:  # DW_OP_lit0 …
                numbers.append(operation - 0x30)
            elif 0x70 <= operation < 0x90:  # DW_OP_breg0 …
                numbers.append(_known(values, operation - 0x70) + leb128(signed=True))
            elif operation == 0x06:  # DW_OP_deref
                word = stack.word(numbers.pop())
                if word is None:
                    raise _UnknownError
                numbers.append(word)
            elif operation == 0x23:  # DW_OP_plus_uconst
                numbers.append(numbers.pop() + leb128(signed=False))
            elif operation in _BINARY:
                other = numbers.pop()
                numbers.append(int(_BINARY[operation](numbers.pop(), other)) & _WORD)
            else:
                raise _UnknownError
        return numbers[-1] & _WORD
    except IndexError as error:
        raise _UnknownError from error
