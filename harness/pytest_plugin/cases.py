"""What is run: the cases of a test, one for each program, kernel and architecture, from its marker and the options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import pytest

from harness.arch import Arch, get_arch, host_arch
from harness.bug import ALL_VARIANTS
from harness.errors import UserError, nearest
from harness.kernel.kernel import check
from harness.kernel.spec import parse, without_files
from harness.trial.sequential import CONFIDENCE
from harness.trial.subject import Subject, bug_subjects

DEFAULT_KERNEL = "debian:6.12"  # as of `cowpen run`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One trial that a test wants."""

    subject: Subject
    spec: str
    arch: Arch
    attempts: int | None
    """At most; None: as many as the bug's record says."""
    confidence: float
    excluded: str | None = None
    """Why it is not run, if it is not."""

    def __repr__(self) -> str:
        return f"<{self.subject.name} on {without_files(self.spec)} {self.arch.name}>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a marker says, or ``--bug``. ``kernels`` and ``arches`` empty: any."""

    bug: str
    program: str | None = None
    variant: str | None = None
    attempts: int | None = None
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    confidence: float | None = None
    kernels: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()

    @classmethod
    def of(cls, marker: pytest.Mark) -> Self:
        """What a marker says; `UserError` for what it cannot say."""
        words, named = marker.args, dict(marker.kwargs)
        if "id" in named:
            words = (*words, named.pop("id"))
        if len(words) != 1 or not isinstance(words[0], str):
            raise UserError(f"bug{words!r}", mend='expected the id of one bug, as in bug("rhbz-471613")')
        for key, value in named.items():
            if key not in _KINDS:
                raise UserError(f"bug(…, {key}=…)", mend=nearest(key, _KINDS))
            kinds, expected, fits = _KINDS[key]
            whole = value is None or (
                isinstance(value, kinds) and not isinstance(value, bool) and fits(value)
            )
            if not whole:
                raise UserError(f"bug(…, {key}={value!r})", mend=f"expected {expected}")
        given = {key: value for key, value in named.items() if value is not None}
        for key in ("kernels", "arches"):
            given[key] = _words(key, given.get(key, ()))
        return cls(bug=words[0], **given)

    @property
    def name(self) -> str:
        """``BUG[/PROGRAM][:VARIANT]``."""
        name = self.bug if self.program is None else f"{self.bug}/{self.program}"
        return name if self.variant is None else f"{name}:{self.variant}"

    def subjects(self) -> list[Subject]:
        """Programs with their settings; `UserError` if there are no such."""
        settings = {key: _setting(value) for key, value in self.set.items()}
        subjects = bug_subjects(self.name, settings)
        return subjects if self.seconds is None else [one.with_seconds(self.seconds) for one in subjects]


# Types of a marker's keyword, what is expected, and whether a value of such a type will do.
_KINDS: dict[str, tuple[Any, str, Any]] = {
    "program": (str, "the name of a program", bool),
    "variant": (str, "the name of a variant", bool),
    "attempts": (int, "a number, 1 or more", lambda value: value >= 1),
    "set": (Mapping, "a dictionary of the program's parameters", lambda value: True),
    "seconds": ((int, float), "seconds, more than 0", lambda value: 0 < value <= 7 * 86400),
    "confidence": (float, "a number from 0.5 to 1, as 0.99", lambda value: 0.5 <= value < 1),
    "kernels": ((str, list, tuple), "a kernel spec, or a list of them", bool),
    "arches": ((str, list, tuple), "an architecture, or a list of them", bool),
}


def _words(key: str, value: str | Iterable[Any]) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else tuple(value)
    for word in words:
        if not isinstance(word, str):
            raise UserError(f"bug(…, {key}=…)", mend=f"expected words, not {word!r}")
    return words


def _setting(value: object) -> str:
    """As ``--set NAME=VALUE`` would give it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A kernel on an architecture."""

    spec: str
    arch: Arch
    lacking: str | None = None
    """Why there is no such thing."""


def _places(specs: Sequence[str], arches: Sequence[Arch]) -> list[Place]:
    """Every kernel on every architecture; `UserError` for a spec that is wrong, or fits none of them."""
    places = []
    for text in specs:
        spec = parse(text).text
        trouble: dict[str, UserError] = {}
        for arch in arches:
            try:
                check(text, arch)
            except UserError as error:
                trouble[arch.name] = error
        if len(trouble) == len(arches):
            raise next(iter(trouble.values()))
        places += [
            Place(spec=spec, arch=arch, lacking=str(trouble[arch.name]) if arch.name in trouble else None)
            for arch in arches
        ]
    return places


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the options of this run ask for. Empty: what each test says, or else the default."""

    bugs: tuple[Wanted, ...]
    kernels: tuple[str, ...]
    arches: tuple[Arch, ...]
    attempts: int | None
    confidence: float | None
    faults: list[str] = dataclasses.field(default_factory=list)
    """What is wrong with the markers seen so far."""

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """`pytest.UsageError` for what no option can say."""
        option = config.option
        try:
            plan = cls(
                bugs=tuple(_named(name) for name in option.cowpen_bugs),
                kernels=tuple(option.cowpen_kernels),
                arches=tuple(get_arch(name) for name in option.cowpen_arches),
                attempts=option.cowpen_attempts,
                confidence=option.cowpen_confidence,
            )
            _places(plan.kernels, plan.arches or [host_arch()])
        except UserError as error:
            raise pytest.UsageError(str(error)) from error
        return plan

    @property
    def header(self) -> str:
        """A line for the head of the report."""
        kernels = " ".join(self.kernels) or f"each test's own, or {DEFAULT_KERNEL}"
        arches = " ".join(arch.name for arch in self.arches) or f"each test's own, or {host_arch().name}"
        return f"cowpen: kernels {kernels}; architectures {arches}"

    def cases(self, markers: Sequence[pytest.Mark], where: str) -> dict[str, Case]:
        """The cases of a test, by the id of each; what is wrong with a marker becomes one of the `faults`."""
        found: dict[str, Case] = {}
        for marker in markers:
            try:
                found |= self.of_bug(Wanted.of(marker), several=len(markers) > 1)
            except UserError as error:
                self.faults.append(f"{where}: {error}")
        return found

    def of_bug(self, wanted: Wanted, *, several: bool = False) -> dict[str, Case]:
        """The cases of one bug; ``several``: the ids must tell it from another's."""
        subjects = wanted.subjects()
        own = [get_arch(name).name for name in wanted.arches]
        arches = self.arches or tuple(get_arch(name) for name in own) or (host_arch(),)
        places = _places(self.kernels or wanted.kernels or (DEFAULT_KERNEL,), arches)
        kernels = [parse(spec).text for spec in wanted.kernels]
        found: dict[str, Case] = {}
        for subject in subjects:
            whole = subject.name if several else subject.name.partition("/")[2]
            for place in places:
                words = [without_files(place.spec), place.arch.name]
                if several or len(subjects) > 1:
                    words.insert(0, whole.replace("/", "-"))
                excluded = place.lacking
                if kernels and place.spec not in kernels:
                    excluded = f"this test is of {', '.join(kernels)}, not of {without_files(place.spec)}"
                elif own and place.arch.name not in own:
                    excluded = f"this test is of {', '.join(own)}, not of {place.arch.name}"
                name = "-".join(words)
                while name in found:  # two images of one name, each with files of its own
                    name += "+"
                found[name] = Case(
                    subject=subject,
                    spec=place.spec,
                    arch=place.arch,
                    attempts=self.attempts or wanted.attempts,
                    confidence=self.confidence or wanted.confidence or CONFIDENCE,
                    excluded=excluded,
                )
        return found

    def selects(self, case: Case | None) -> bool:
        """Whether ``--bug`` names what this case runs."""
        return case is not None and any(selects(wanted, case) for wanted in self.bugs)


def selects(wanted: Wanted, case: Case) -> bool:
    """Whether the case is of this bug; of this program and variant, where one is named."""
    subject = case.subject
    return (
        subject.bug is not None
        and subject.bug.id == wanted.bug
        and wanted.program in (None, subject.program.name)
        and wanted.variant in (None, ALL_VARIANTS, subject.variant)
    )


def _named(name: str) -> Wanted:
    """What ``--bug`` names; `UserError` if there is none."""
    whole, _, variant = name.partition(":")
    bug, _, program = whole.partition("/")
    wanted = Wanted(bug=bug, program=program or None, variant=variant or None)
    wanted.subjects()
    return wanted
