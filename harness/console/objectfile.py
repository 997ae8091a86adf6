"""An ELF file with symbols, a vmlinux or a module: where its functions are, and which lines they come from.

The symbol table is read here; lines come from elfutils' eu-addr2line. It reads every architecture, takes an address as
section and offset (llvm-symbolizer does not, and modules need that), finds its way in hundreds of megabytes at once,
and is right: binutils 2.40 names the wrong file for what a compilation unit took from a header before anything else.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
import re
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import tools
from harness.arch import ARCHES, Arch
from harness.errors import HostError, UserError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_NAMELESS = (3, 4)  # STT_SECTION, STT_FILE
_ALLOC, _EXEC = 2, 4  # SHF_ALLOC, SHF_EXECINSTR
# What the kernel's table of symbols leaves out (scripts/kallsyms.c, is_mapping_symbol()), so that the sizes it prints
# reach beyond them.
_HIDDEN = (b"$", b".L", b"__crc_", b"__kstrtab", b"__efistub_", b"__kvm_nvhe_")
_MAX_BANNER = 1024
_MAX_KNOWN = 20_000  # names that were looked for; a guest may think of any number
_MAX_PAGE = 1 << 16
_MAX_PADDING = 64
"""Bytes between a function and the next: the largest alignment that kernels give to functions."""

_SECONDS = 60.0
_BYTES_PER_SECOND = 4 << 20  # of debug information, on a slow host that is busy
_AT_ONCE = 1000  # addresses on one command line: 20 KiB, of the 2 MiB that the host's kernel allows
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_PLACE = re.compile(r"(?P<file>.+?):(?P<line>[1-9]\d*)(?::\d+)?")
_INLINED = " inlined at "  # follows a function's name, with what the next lines say again


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A function of an object file, or its data."""

    name: str
    section: int
    address: int
    """In a module relative to its section."""
    size: int
    """Bytes, by the file's own account; 0 if it has none."""
    distance: int | None
    """Bytes to the next symbol, which is what the kernel takes for the size; None for the last of its section."""

    def fits(self, size: int) -> bool:
        """Whether ``size`` is what a kernel with this very function would print as its size.

        Of a module's last function the kernel believes that it reaches to the end of a page.
        """
        if self.distance is None:
            return self.size <= size <= self.size + _MAX_PAGE
        return size == self.distance or 0 < self.size <= size < self.size + _MAX_PADDING


@dataclasses.dataclass(frozen=True, order=True)
class Spot:
    """One instruction of an object file; ``section`` is the name of a module's section, empty in a vmlinux."""

    section: str
    address: int


@dataclasses.dataclass(frozen=True)
class Line:
    """A function at a spot, and the line there, or the line where the function inlined into it begins."""

    function: str
    file: str | None
    """Its path where the kernel was built."""
    line: int | None


class ObjectFile:
    """A vmlinux or a module (``.ko``); `UserError` if it is no such file, or was stripped of its symbols."""

    def __init__(self, path: Path) -> None:
        from elftools.common.exceptions import ELFError  # noqa: PLC0415  (0.1 s)
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415

        self.path = path.absolute()
        self._found: dict[str, list[Symbol]] = {}
        try:
            with self.path.open("rb") as file:
                self._read(ELFFile(file))
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror})") from error
        # What a damaged file can lead pyelftools to is anything.
        except (ELFError, ArithmeticError, AttributeError, LookupError, struct.error, ValueError) as error:
            raise UserError(
                f"{path} is no ELF file with symbols ({error})",
                mend="give the vmlinux of the kernel's build tree, not its bootable image",
            ) from error

    def _read(self, elf: ELFFile) -> None:
        machine = elf["e_machine"]
        arch = next((arch for arch in ARCHES.values() if arch.elf_machine == machine), None)
        if arch is None:
            raise UserError(f"{self.path} is of an unknown architecture ({machine})")
        self.arch: Arch = arch
        self.relocatable: bool = elf["e_type"] == "ET_REL"
        self.size = self.path.stat().st_size
        sections = list(elf.iter_sections())
        table = next((section for section in sections if section["sh_type"] == "SHT_SYMTAB"), None)
        if table is None:
            raise UserError(f"{self.path} has no symbols", mend="give one that was not stripped")
        self._table: bytes = table.data()
        self._names: bytes = sections[table["sh_link"]].data()
        self._sections: list[str] = [section.name for section in sections]
        self._flags: list[int] = [section["sh_flags"] for section in sections]
        self.has_lines = any(name in (".debug_info", ".zdebug_info") for name in self._sections)
        self.banner = ""
        """The ``Linux version …`` line that the kernel prints, of a vmlinux."""
        values: dict[int, set[int]] = {}
        for raw, section, value, size in self._entries():
            values.setdefault(self._space(section), set()).add(value)
            if raw == b"linux_banner" and sections[section]["sh_type"] != "SHT_NOBITS":
                elf.stream.seek(sections[section]["sh_offset"] + value - sections[section]["sh_addr"])
                banner: bytes = elf.stream.read(min(size, _MAX_BANNER))
                self.banner = banner.partition(b"\0")[0].decode("utf-8", "replace").strip()
        self._values = {space: array("Q", sorted(found)) for space, found in values.items()}

    def symbols(self, names: Iterable[str]) -> dict[str, list[Symbol]]:
        """The symbols of these names, each at a place of its own; a kernel that runs astray may be in its data."""
        names = list(names)
        if len(self._found) > _MAX_KNOWN:
            self._found.clear()
        wanted = {name.encode(): name for name in names if name not in self._found}
        self._found.update((name, []) for name in wanted.values())
        if wanted:
            for raw, section, value, size in self._entries():
                name = wanted.get(raw)
                if name is not None:
                    known = self._found[name]
                    if all((symbol.section, symbol.address) != (section, value) for symbol in known):
                        known.append(Symbol(name, section, value, size, self._distance(section, value)))
        return {name: self._found[name] for name in names}

    def spot(self, symbol: Symbol, offset: int) -> Spot:
        """The instruction ``offset`` bytes from the symbol's begin."""
        section = self._sections[symbol.section] if self.relocatable else ""
        return Spot(section, symbol.address + offset)

    def functions(self) -> Iterator[tuple[int, str]]:
        """Address and name of every symbol in a vmlinux's code."""
        for raw, section, value, _ in self._entries():
            if self._flags[section] & _EXEC:
                yield value, raw.decode("ascii", "replace")

    def lines(self, spots: Sequence[Spot]) -> dict[Spot, tuple[Line, ...]]:
        """The functions at each spot, innermost first: the last is the one of the symbol table, others are inlined.

        One eu-addr2line for each section. Raises `ToolMissingError`, and `HostError` if it fails or takes too long.
        """
        result: dict[Spot, tuple[Line, ...]] = {}
        for section in sorted({spot.section for spot in spots}):
            here = sorted({spot for spot in spots if spot.section == section})
            for begin in range(0, len(here), _AT_ONCE):
                some = here[begin : begin + _AT_ONCE]
                result.update(zip(some, self._addr2line(section, some), strict=True))
        return result

    def _addr2line(self, section: str, spots: Sequence[Spot]) -> list[tuple[Line, ...]]:
        # The path is absolute and the addresses are numbers: nothing is taken for an option.
        words = ["eu-addr2line", "-f", "-i", "-a", "-e", str(self.path)]
        words += [f"--section={section}"] if section else []
        words += [f"{spot.address:#x}" for spot in spots]
        # Its status is 1 also if of all these addresses it does not know one.
        output = tools.run(words, seconds=_SECONDS + self.size / _BYTES_PER_SECOND, check=None)
        chains: list[list[Line]] = []
        printed = iter(output.stdout.splitlines())
        for function in printed:
            if _ADDRESS.fullmatch(function):
                chains.append([])
            elif chains:
                name = function.partition(_INLINED)[0]
                place = _PLACE.fullmatch(next(printed, ""))
                line = Line(name, None, None)
                if place:
                    line = Line(name, os.path.normpath(place["file"]), int(place["line"]))
                # It says some functions twice, that were split in parts, and of others no name.
                if chains[-1][-1:] == [line] or (chains[-1] and chains[-1][-1].function == "??"):
                    chains[-1].pop()
                chains[-1].append(line)
        if len(chains) != len(spots):
            raise HostError(
                f"eu-addr2line failed with status {output.status} on {self.path} ({output.stderr.strip()[-200:]})"
            )
        return [tuple(chain) for chain in chains]

    def _entries(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Name, section, value and size of every symbol that the kernel's own table may hold."""
        names, flags = self._names, self._flags
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(self._table):
            if section < len(flags) and flags[section] & _ALLOC and info & 15 not in _NAMELESS:
                raw = names[name : names.find(b"\0", name)]
                if raw and not raw.startswith(_HIDDEN):
                    yield raw, section, value, size

    def _space(self, section: int) -> int:
        """Sections of a vmlinux share one space of addresses, those of a module have one each."""
        return section if self.relocatable else 0

    def _distance(self, section: int, value: int) -> int | None:
        values = self._values[self._space(section)]
        following = bisect.bisect_right(values, value)
        return values[following] - value if following < len(values) else None
