"""A kernel's configuration: fragments, what became of them, and why an option was not taken."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from harness.arch import Arch
from harness.errors import UserError, nearest

_SETTING = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.MULTILINE)
# Nothing else may stand in a fragment, for merge_config.sh takes any other line for a comment.
_FRAGMENT_LINE = re.compile(
    r"CONFIG_\w+=(?:[ymn]|-?\d+|0x[0-9a-fA-F]+|\".*\")|# CONFIG_\w+ is not set|#(?! *CONFIG_\w+ is not set).*|"
)
_CONFIG = re.compile(r"^\s*(?:menu)?config\s+(\w+)\s*$")
_DEPENDS = re.compile(r"^\s*depends\s+on\s+(.+)$")
_PROMPT = re.compile(r'^\s*(?:prompt|bool|tristate|int|hex|string)\s+["\']')
_SOURCE = re.compile(r'^\s*source\s+"([^"]+)"')
_BLOCK = re.compile(r"^\s*(if|menu|choice)\b\s*(.*)$")
_END = re.compile(r"^\s*end(if|menu|choice)\b")
# Other statements of Kconfig that stand alone: attributes after them belong to no option.
_OTHER = re.compile(r"^\s*(?:mainmenu|comment)\b")
_HELP = re.compile(r"^(\s*)(?:---)?help(?:---)?\s*$")
_TOKEN = re.compile(r'\s*(&&|\|\||!=|<=|>=|[!()=<>]|\$\((?:[^()]|\([^()]*\))*\)|"[^"]*"|\'[^\']*\'|[\w.-]+)')
_DEEPEST = 40  # files that include each other


def settings(config: str) -> dict[str, str]:
    """``.config`` or a fragment as a dictionary, the last word on an option; what is not set is ``n``."""
    return {name or unset: value if name else "n" for name, value, unset in _SETTING.findall(config)}


def check_fragment(path: Path) -> None:
    """`UserError` names the first line of a fragment that would be taken for a comment and is not written as one."""
    # Bytes, for read_text() would take the carriage returns away.
    lines = path.read_bytes().decode(errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not _FRAGMENT_LINE.fullmatch(line):
            raise UserError(
                f"{path}:{number}: {line!r} is no option",
                mend="write CONFIG_X=…, # CONFIG_X is not set, or a comment in a line of its own",
            )


@dataclasses.dataclass(frozen=True)
class Missing:
    """An option that was asked for and that the kernel's configuration does not have so."""

    name: str
    wanted: str
    got: str
    why: str
    known: bool
    """Whether this source has such an option at all."""

    def __str__(self) -> str:
        return f"{self.name}={self.wanted}: {self.why}"


def missing(wanted: Mapping[str, str], got: Mapping[str, str], tree: Path, arch: Arch) -> list[Missing]:
    """The options of ``wanted`` that ``.config`` has otherwise, by name, each with the reason as Kconfig has it."""
    # An option that is off may also be invisible, and then .config has no line for it.
    faults = {name: value for name, value in sorted(wanted.items()) if got.get(name, "n") != value}
    if not faults:
        return []
    options = _options(tree, arch)
    found = []
    for name, value in faults.items():
        entries = options.get(name.removeprefix("CONFIG_"))
        if entries is None:
            # What is said to be off and does not exist is off, and another release's option.
            why = f"this source has no such option: {nearest(name, [f'CONFIG_{known}' for known in options])}"
        else:
            why = _why(entries, got, got.get(name, "n"))
        found.append(Missing(name, value, got.get(name, "n"), why, entries is not None))
    return found


@dataclasses.dataclass
class _Entry:
    """One ``config`` of a Kconfig file; an option may have several."""

    place: str
    conditions: list[str]
    prompt: bool = False


def _why(entries: list[_Entry], got: Mapping[str, str], value: str) -> str:
    reasons = []
    for entry in entries:
        if not entry.prompt:
            continue
        off = [part for text in entry.conditions for part in _conjuncts(text) if not _holds(part, got)]
        if not off:
            return (
                f"it is {value}, though all it depends on is there ({entry.place}): another option decides it"
            )
        reasons.append(f"depends on {' && '.join(dict.fromkeys(off))} ({entry.place})")
    return "; or ".join(reasons) or f"nobody can set it, only other options do ({entries[0].place})"


def _options(tree: Path, arch: Arch) -> dict[str, list[_Entry]]:
    reader = _Reader(tree, arch)
    reader.read("Kconfig", [], 0)
    return reader.found


class _Reader:
    """Reads Kconfig files: options, and the conditions that they have and inherit."""

    def __init__(self, tree: Path, arch: Arch) -> None:
        self.found: dict[str, list[_Entry]] = {}
        self._tree = tree
        self._arch = arch.kernel_arch

    def read(self, name: str, outer: list[str], depth: int) -> None:
        """Add the options of one file and of those it includes, which inherit the conditions ``outer``."""
        path = self._tree / name
        if depth > _DEEPEST or not path.is_file():
            return
        blocks: list[list[str]] = []  # the conditions of each open if, menu and choice
        entry: _Entry | None = None
        heading = False  # what follows a menu or choice are its own attributes
        for number, line in _statements(path):
            within = outer + [condition for block in blocks for condition in block]
            if entry and _attribute(entry, line):
                continue
            if heading and (match := _DEPENDS.match(line)):
                blocks[-1].append(match[1])
            elif match := _CONFIG.match(line):
                entry, heading = _Entry(f"{name}:{number}", within), False
                self.found.setdefault(match[1], []).append(entry)
            elif match := _BLOCK.match(line):
                entry, heading = None, match[1] != "if"
                blocks.append([] if heading else [match[2]])
            elif _END.match(line):
                entry, heading = None, False
                del blocks[-1:]
            elif match := _SOURCE.match(line):
                entry, heading = None, False
                self.read(match[1].replace("$(SRCARCH)", self._arch), within, depth + 1)
            elif _OTHER.match(line):
                entry, heading = None, False


def _attribute(entry: _Entry, line: str) -> bool:
    """Take an attribute of an option that says whether it can be had; False if the line is none."""
    if match := _DEPENDS.match(line):
        entry.conditions = [*entry.conditions, match[1]]
    elif _PROMPT.match(line):
        entry.prompt = True
        _, _, condition = line.partition(" if ")
        entry.conditions = [*entry.conditions, *([condition] if condition else [])]
    else:
        return False
    return True


def _statements(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, continued ones as one, without comments and the texts of help."""
    help_indent: int | None = None
    pending, begin = "", 0
    for number, raw in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        line = raw.expandtabs()
        if help_indent is not None:
            if not line.strip() or len(line) - len(line.lstrip()) > help_indent:
                continue
            help_indent = None
        if match := _HELP.match(line):
            help_indent = len(match[1])
            continue
        begin = begin if pending else number
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        text, pending = pending, ""
        if text.strip() and not text.lstrip().startswith("#"):
            yield begin, text


def _conjuncts(text: str) -> list[str]:
    """The parts of an expression all of which must hold."""
    parts, depth, begin = [], 0, 0
    for match in re.finditer(r"[()]|&&|\|\|", text):
        if match[0] == "(":
            depth += 1
        elif match[0] == ")":
            depth -= 1
        elif depth == 0 and match[0] == "||":
            return [text.strip()]
        elif depth == 0:
            parts.append(text[begin : match.start()].strip())
            begin = match.end()
    return [*parts, text[begin:].strip()]


def _holds(text: str, got: Mapping[str, str]) -> bool:
    """Whether an expression of Kconfig is not ``n``, for all that can be told: what it asks the compiler is true."""
    return _Expression(_TOKEN.findall(text), got).either()


class _Expression:
    """Kconfig's expressions, by descent: ``||`` of ``&&`` of symbols, comparisons, ``!`` and brackets."""

    def __init__(self, parts: list[str], got: Mapping[str, str]) -> None:
        self._parts = parts
        self._got = got
        self._at = 0

    def either(self) -> bool:
        result = self._both()
        while self._takes("||"):
            result |= self._both()
        return result

    def _both(self) -> bool:
        result = self._simple()
        while self._takes("&&"):
            result &= self._simple()
        return result

    def _simple(self) -> bool:
        if self._takes("!"):
            return not self._simple()
        if self._takes("("):
            inside = self.either()
            self._takes(")")
            return inside
        left = self._value()
        for sign, compare in _COMPARE.items():
            if self._takes(sign):
                return compare(left, self._value())
        return left not in ("n", "")

    def _takes(self, part: str) -> bool:
        found = self._at < len(self._parts) and self._parts[self._at] == part
        self._at += found
        return found

    def _value(self) -> str:
        part = self._parts[self._at] if self._at < len(self._parts) else ""
        self._at += 1
        if part[:1] in ("'", '"'):
            return part[1:-1]
        if part.startswith("$(") or part in ("y", "m"):
            return "y"
        return self._got.get(f"CONFIG_{part}", part if part[:1].isdigit() else "n").strip('"')


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0


_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<=": lambda left, right: _number(left) <= _number(right),
    ">=": lambda left, right: _number(left) >= _number(right),
    "<": lambda left, right: _number(left) < _number(right),
    ">": lambda left, right: _number(left) > _number(right),
}
