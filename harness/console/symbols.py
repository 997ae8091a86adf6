"""What the addresses of a finding mean: file, line and inlined functions, out of the kernel's own files."""

from __future__ import annotations

import bisect
import dataclasses
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.console.display import escape
from harness.console.finding import Finding, Frame
from harness.console.log import mapped
from harness.console.objectfile import Line, ObjectFile, Spot, Symbol
from harness.console.report import bare
from harness.errors import Tell, UserError

MAX_SPOTS = 20_000
"""Different instructions that are looked up for one log."""
MAX_BOOTS = 1000
_MAX_TOLD = 20  # a guest may think of any number of modules
_MAX_NAMESAKES = 16
# A module's name as the kernel prints it, without its taint or build id.
_MODULE = re.compile(r"[A-Za-z0-9_-]{1,64}")
# dump_stack_print_info(): release, and the first word of the version, "#1".
_RELEASE = re.compile(r"(?:Not tainted|Tainted: [A-Z \[\]=]{1,60}?) {1,20}(\d[\w.+~-]{0,80} #\d{1,9})\b")
_BANNER = re.compile(r"Linux version (?P<release>\S+) [^#]*(?P<version>#\d+.*)")
_BOOT = re.compile(
    rb"Linux version (?P<banner>\d[^\r\n]{0,1000})|Kernel command line: (?P<words>[^\r\n]{0,4096})"
)
_NOKASLR = re.compile(rb"(?:^|\s)nokaslr(?:\s|$)")
# After the entry of its handler arm64 prints the interrupted instruction itself; x86_64 prints that one as RIP only.
_ENTRY = re.compile(r"el1h?_\w+")
# A function that every kernel has, and its place in the tree: what precedes that is where the tree was built.
_LANDMARK = ("start_kernel", "init/main.c")
_ENDS = ("_etext", "_einittext")  # no code follows them
_SYSTEM_MAP = re.compile(r"([0-9a-f]{8,16}) [tTwW] (\S{1,512})\s*")
_COMPRESSED = (".xz", ".gz", ".zst")

_Place = tuple[ObjectFile, Spot]


@dataclasses.dataclass(frozen=True)
class Boot:
    """What a log says, from ``start`` on, of the kernel that prints it."""

    start: int
    banner: str = ""
    """The line ``Linux version …``; empty if it is not there."""
    kaslr: bool = True
    """False if it was switched off on the kernel's command line."""


def boots(data: bytes | mmap.mmap) -> list[Boot]:
    """The boots that a console log shows, in order; of more than `MAX_BOOTS` the first."""
    found: list[Boot] = []
    for match in _BOOT.finditer(data):
        if match["banner"] is not None:
            if len(found) == MAX_BOOTS:
                break
            banner = b"Linux version " + match["banner"]
            found.append(Boot(match.start(), banner.decode("utf-8", "replace").strip()))
        elif _NOKASLR.search(match["words"]):
            last = found.pop() if found else Boot(match.start())
            found.append(dataclasses.replace(last, kaslr=False))
    return found


def boots_of(log: Path) -> list[Boot]:
    """`boots` of a file; `OSError` if it cannot be read."""
    with mapped(log) as data:
        return boots(data)


class Symbols:
    """The files of one kernel, opened when the first finding needs them.

    ``modules`` is searched for ``.ko`` files with debug information; without it the folder of ``vmlinux`` is, which
    may be a build tree. ``system_map`` serves, without ``vmlinux``, for addresses that the kernel did not name itself.
    ``kaslr`` False: this kernel is never moved. ``tell`` gets, once each, what is wrong with these files: a finding is
    never given a line of which that is not certain.
    """

    def __init__(
        self,
        *,
        vmlinux: Path | None = None,
        modules: Path | None = None,
        system_map: Path | None = None,
        kaslr: bool = True,
        tell: Tell,
    ) -> None:
        self._vmlinux = vmlinux
        self._modules = modules or (vmlinux.parent if vmlinux else None)
        self._system_map = system_map
        self._kaslr = kaslr
        self._tell_once = tell
        self._told: set[str] = set()
        self._opened: dict[Path, ObjectFile | None] = {}
        """None for a file that is no good."""
        self._module_files: dict[str, Path] | None = None
        self._functions: tuple[list[int], list[str]] | None = None
        self._lines: dict[_Place, tuple[Line, ...]] = {}

    def symbolise(self, finding: Finding) -> Finding:
        """`symbolise_all` of one finding, of whose log nothing else is known."""
        return self.symbolise_all([finding])[0]

    def symbolise_all(self, findings: Sequence[Finding], log: Sequence[Boot] = ()) -> list[Finding]:
        """The findings of one log, their frames with ``source``, and between them the functions inlined into each.

        Nothing else of them changes. ``log`` is what it says of its kernels (`boots_of`). Raises `UserError` if the
        vmlinux is none, `ToolMissingError` without eu-addr2line, `HostError` if that fails.
        """
        if self._vmlinux is None and self._modules is None and self._system_map is None:
            return list(findings)
        started = [_boot_of(finding, log) for finding in findings]
        named = [self._named(*pair) for pair in zip(findings, started, strict=True)]
        if kernel := self._kernel():
            # One pass over its symbols, a hundred thousand, instead of one for each.
            frames = (frame for finding in named for frame in finding.frames)
            kernel.symbols({_LANDMARK[0], *(frame.symbol for frame in frames if not frame.module)})
        plans = [self._plan(*pair) for pair in zip(named, started, strict=True)]
        self._look_up({place for plan in plans for places in plan for place in places})
        return [
            dataclasses.replace(finding, frames=tuple(self._with_lines(finding.frames, plan)))
            for finding, plan in zip(named, plans, strict=True)
        ]

    def _tell(self, message: str) -> None:
        if message in self._told or len(self._told) > _MAX_TOLD:
            return
        self._told.add(message)
        more = len(self._told) > _MAX_TOLD
        self._tell_once("there is more that is wrong with the symbols" if more else message)

    # Where each frame is.

    def _plan(self, finding: Finding, boot: Boot) -> list[list[_Place]]:
        """For each frame the places it may be."""
        kernel = self._kernel()
        if kernel is not None and (strange := _strange(kernel, finding, boot)):
            self._tell_stranger(kernel, strange)
            return [[] for _ in finding.frames]
        moved = self._moved(finding, boot)
        plan: list[list[_Place]] = []
        sized: Counter[ObjectFile] = Counter()
        misfits: Counter[ObjectFile] = Counter()
        for number, frame in enumerate(finding.frames):
            plan.append([])
            objectfile = self._object_of(frame)
            if objectfile is None or not frame.symbol or frame.offset is None:
                continue
            fitting = _fitting(objectfile.symbols([frame.symbol])[frame.symbol], frame)
            if moved is not None and frame.address is not None and objectfile is kernel:
                address = frame.address - moved
                there = [symbol for symbol in fitting if symbol.address + frame.offset == address]
                fitting = there or fitting
            at = frame.offset if _exact(finding.frames, number) else max(0, frame.offset - 1)
            plan[-1] = [(objectfile, objectfile.spot(symbol, at)) for symbol in fitting]
            sized[objectfile] += frame.size is not None
            misfits[objectfile] += frame.size is not None and not fitting
        for objectfile, count in misfits.items():
            if count * 2 > sized[objectfile]:
                self._tell_stranger(
                    objectfile, f"{count} of {sized[objectfile]} functions are not there or of another size"
                )
                plan = [[place for place in places if place[0] is not objectfile] for places in plan]
        return plan

    def _tell_stranger(self, objectfile: ObjectFile, why: str) -> None:
        self._tell(
            f"{objectfile.path} does not belong to the kernel of the log ({why}), so no lines are taken from it: "
            "give the one that was built together with that kernel"
        )

    def _kernel(self) -> ObjectFile | None:
        return self._open(self._vmlinux, "the kernel's frames") if self._vmlinux else None

    def _open(self, path: Path, whose: str) -> ObjectFile | None:
        if path not in self._opened:
            self._opened[path] = None
            self._opened[path] = objectfile = ObjectFile(path)
            if not objectfile.has_lines:
                self._tell(
                    f"{path} has no debug information, so {whose} have no lines: "
                    "build the kernel with CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y"
                )
        return self._opened[path]

    def _object_of(self, frame: Frame) -> ObjectFile | None:
        """The file that holds the frame's function, unless its line is known already."""
        if frame.inlined or frame.source is not None:
            return None
        if frame.module is None:
            return self._kernel()
        module = _MODULE.match(frame.module)
        return self._module(module.group().replace("-", "_")) if module else None

    def _module(self, name: str) -> ObjectFile | None:
        """The module's file; ``name`` is the guest's, and is only compared with the names of those that are there."""
        if self._modules is None:
            return None
        if self._module_files is None:
            self._module_files = _module_files(self._modules)
        path = self._module_files.get(name)
        if path is None:
            self._tell(f"no {name}.ko below {self._modules}: frames of this module have no lines")
        elif path.suffix in _COMPRESSED:
            self._tell(f"{path} is compressed: give the build tree with --modules for lines of this module")
        else:
            try:
                return self._open(path, "frames of this module")
            except UserError as error:  # one of thousands in a folder: no mistake of the user's
                self._tell(str(error))
        return None

    # Addresses that the kernel did not name.

    def _named(self, finding: Finding, boot: Boot) -> Finding:
        """The finding with a symbol for each frame that is only an address."""
        if not any(_raw(frame) for frame in finding.frames):
            return finding
        kernel = self._kernel()
        if (kernel is None and self._system_map is None) or (kernel and _strange(kernel, finding, boot)):
            return finding
        moved = self._moved(finding, boot)
        if moved is None:
            self._tell(
                "the log has addresses without names, and does not say how far KASLR moved its kernel: "
                "boot it with nokaslr to have them named"
            )
            return finding
        frames = tuple(self._name(frame, moved) if _raw(frame) else frame for frame in finding.frames)
        return dataclasses.replace(finding, frames=frames)

    def _moved(self, finding: Finding, boot: Boot) -> int | None:
        """How far KASLR moved the kernel; None if that is not known."""
        return finding.kernel_offset if self._kaslr and boot.kaslr else 0

    def _name(self, frame: Frame, moved: int) -> Frame:
        addresses, names = self._table()
        address = (frame.address or 0) - moved
        # A call that never returns may be a function's last instruction, and the next function follows.
        index = bisect.bisect_right(addresses, address - (not frame.counter)) - 1
        if index < 0 or index + 1 == len(addresses) or names[index] in _ENDS:
            return frame
        return dataclasses.replace(
            frame,
            function=bare(names[index]),
            symbol=names[index],
            offset=address - addresses[index],
            size=addresses[index + 1] - addresses[index],
        )

    def _table(self) -> tuple[list[int], list[str]]:
        """Addresses, in order, and names of the kernel's functions."""
        if self._functions is None:
            kernel = self._kernel()
            table: dict[int, str] = {}
            if kernel is not None:
                table.update(kernel.functions())
            elif self._system_map is not None:
                table.update(_read_system_map(self._system_map))
                if not table:
                    self._tell(f"{self._system_map} has no symbols: addresses stay without names")
            addresses = sorted(table)
            self._functions = addresses, [escape(table[address]) for address in addresses]
        return self._functions

    # Lines.

    def _look_up(self, places: set[_Place]) -> None:
        """Learn the lines of all places that are new, by one eu-addr2line a file."""
        if len(self._lines) > MAX_SPOTS:
            self._lines.clear()
        missing = sorted(places - self._lines.keys(), key=lambda place: (str(place[0].path), place[1]))
        if len(missing) > MAX_SPOTS:
            self._tell(f"{len(missing)} different addresses: only {MAX_SPOTS} of them are looked up")
            missing = missing[:MAX_SPOTS]
        landmark = self._landmark()
        if missing and landmark and landmark not in self._lines and landmark not in missing:
            missing.append(landmark)
        by_file: dict[ObjectFile, list[Spot]] = {}
        for objectfile, spot in missing:
            by_file.setdefault(objectfile, []).append(spot)
        for objectfile, spots in by_file.items():
            if objectfile.has_lines:
                lines = objectfile.lines(spots)
                self._lines.update(((objectfile, spot), chain) for spot, chain in lines.items())

    def _landmark(self) -> _Place | None:
        kernel = self._kernel()
        found = kernel.symbols(_LANDMARK[:1])[_LANDMARK[0]] if kernel else []
        return (kernel, kernel.spot(found[0], 0)) if kernel and found else None

    def _with_lines(self, frames: Sequence[Frame], plan: Sequence[Sequence[_Place]]) -> Iterator[Frame]:
        landmark = self._landmark()
        known = self._lines.get(landmark) if landmark else None
        there = (known[-1].file if known else None) or ""
        tree = there.removesuffix(_LANDMARK[1]) if there.endswith(_LANDMARK[1]) else ""
        for frame, places in zip(frames, plan, strict=True):
            chains = {self._lines.get(place, ()) for place in places}
            # Functions of one name and size are copies of one in a header if they are of the same lines.
            chain = chains.pop() if len(chains) == 1 else ()
            for line in chain[:-1]:
                function = escape(line.function)
                yield Frame(function=function, module=frame.module, inlined=True, source=_source(line, tree))
            yield dataclasses.replace(frame, source=_source(chain[-1], tree)) if chain else frame


def _source(line: Line, tree: str) -> str | None:
    if line.file is None:
        return None
    return escape(f"{line.file.removeprefix(tree)}:{line.line}")


def _raw(frame: Frame) -> bool:
    return not frame.symbol and not frame.inlined and frame.address is not None


def _boot_of(finding: Finding, log: Sequence[Boot]) -> Boot:
    """The boot in which the finding was made."""
    return next((boot for boot in reversed(log) if boot.start <= finding.start), Boot(0))


def _strange(kernel: ObjectFile, finding: Finding, boot: Boot) -> str:
    """What shows that the finding is not of ``kernel``; empty if nothing does."""
    if finding.arch not in (None, kernel.arch.name):
        return f"it is of {kernel.arch.name}, the report of {finding.arch}"
    ours, theirs = _BANNER.match(kernel.banner), _BANNER.match(boot.banner)
    if ours and theirs and ours.groups() != theirs.groups():
        return f"it is {' '.join(ours.groups())}, the log of {escape(' '.join(theirs.groups()))}"
    if ours and (release := _RELEASE.search(finding.text)):
        short = f"{ours['release']} {ours['version'].split()[0]}"
        if release[1] != short:
            return f"it is {short}, the report of {release[1]}"
    return ""


def _fitting(symbols: Sequence[Symbol], frame: Frame) -> list[Symbol]:
    """The functions of the frame's name that the kernel would print like this; `Frame.size` tells them apart."""
    if len(symbols) > _MAX_NAMESAKES or frame.offset is None or frame.offset < 0:
        return []
    if frame.size is None:
        return [symbol for symbol in symbols if frame.offset <= (symbol.distance or symbol.size)]
    if frame.offset > frame.size:
        return []
    exact = [symbol for symbol in symbols if symbol.distance == frame.size]
    return exact or [symbol for symbol in symbols if symbol.fits(frame.size)]


def _exact(frames: Sequence[Frame], number: int) -> bool:
    """Whether the frame's address is that of an instruction, not the one to which a call returns."""
    frame, inner = frames[number], frames[number - 1] if number else None
    if frame.counter or inner is None:
        return frame.counter
    # The trace of arm64 begins with the program counter once more.
    again = inner.counter and (inner.symbol, inner.offset) == (frame.symbol, frame.offset)
    return again or _ENTRY.fullmatch(inner.symbol) is not None


def _module_files(folder: Path) -> dict[str, Path]:
    """The modules below ``folder`` by their name in the kernel; the best file where there are several."""
    files: list[Path] = []
    for parent, _, names in os.walk(folder):
        files += (Path(parent) / name for name in names if ".ko" in name)
    # foo.ko.debug, as distributions name what they stripped from foo.ko, before foo.ko, and that before foo.ko.xz.
    order = {suffix: rank for rank, suffix in enumerate((".debug", ".ko", *_COMPRESSED))}
    known = sorted((file for file in files if file.suffix in order), key=lambda file: order[file.suffix])
    found: dict[str, Path] = {}
    for file in known:
        found.setdefault(file.name.partition(".")[0].replace("-", "_"), file)
    return found


def _read_system_map(path: Path) -> Iterable[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if entry := _SYSTEM_MAP.fullmatch(line):
                    yield int(entry[1], 16), entry[2]
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error
