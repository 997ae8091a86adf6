"""The instructions of a report's ``Code:`` line."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from harness import tools
from harness.arch import Arch
from harness.console.finding import Finding

_MAX_UNITS = 256  # x86_64 prints 64 bytes, arm64 5 words
_SECONDS = 30.0
# x86_64 marks the byte at the program counter <0f>, arm64 the word (d4210000).
_UNIT = re.compile(r"(?P<mark>[<(])?(?P<digits>[0-9a-f]{2}|[0-9a-f]{8})[>)]?")
_INSTRUCTION = re.compile(r" *(?P<address>[0-9a-f]+):\t(?P<bytes>[0-9a-f ]+?) *\t(?P<text>.*)")
_LONGEST = 15  # bytes of an x86 instruction


def disassemble(finding: Finding, arch: Arch) -> list[str]:
    """The instructions of ``finding.code``, a line each; empty if those were not printed.

    The first column is the offset in the function at the program counter, as far as the report names one, and a star
    follows it at the program counter itself. Raises `ToolMissingError` without objdump, `HostError` if that fails.
    """
    units = [_UNIT.fullmatch(word) for word in (finding.code or "").split()[: _MAX_UNITS + 1]]
    if not 0 < len(units) <= _MAX_UNITS:
        return []
    code, counter = bytearray(), None
    for unit in units:
        if unit is None or len(unit["digits"]) != 2 * arch.code_unit:
            return []  # "Bad RIP value.", "????????": nothing could be read there
        counter = len(code) if unit["mark"] else counter
        code += int(unit["digits"], 16).to_bytes(arch.code_unit, "little")
    offset = next((frame.offset for frame in finding.frames[:1] if frame.counter), None)
    begin = 0
    if counter is not None and offset is not None:
        # What precedes the function belongs to another one.
        begin = max(0, counter - offset)
    first = max(0, offset - counter) if counter is not None and offset is not None else 0
    # x86_64's bytes may begin in the middle of an instruction: the first beginning that leads to one at the counter.
    for skip in range(_LONGEST if not begin and arch.code_unit == 1 else 1):
        lines = _objdump(bytes(code[begin + skip :]), first + skip, arch)
        marked = None if counter is None else first + counter - begin
        if marked is None or any(address == marked for address, _ in lines):
            break
    return [f"{address:5x}:{'*' if address == marked else ' '} {text}" for address, text in lines]


def _objdump(code: bytes, address: int, arch: Arch) -> list[tuple[int, str]]:
    with tempfile.TemporaryDirectory(prefix="cowpen-code-") as folder:
        file = Path(folder) / "code"
        file.write_bytes(code)
        words = [arch.binutil("objdump"), "-D", "-z", "-w", "-b", "binary", *arch.objdump]
        output = tools.run([*words, f"--adjust-vma={address:#x}", file], seconds=_SECONDS)
    found = (_INSTRUCTION.fullmatch(line) for line in output.stdout.splitlines())
    return [
        (int(match["address"], 16), f"{match['bytes']:<32} {' '.join(match['text'].split())}")
        for match in found
        if match
    ]
