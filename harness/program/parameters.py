"""Typed parameters of a program: declared in TOML, given on the command line or by a bug record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints, field_validator, model_validator

from harness.datafile import Record
from harness.errors import UserError, nearest

Value: TypeAlias = int | float | str | bool

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})

# A parameter's name becomes a C macro (PARAM_NAME) and a Jinja variable.
ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class _Declared(Record):
    """What every type of parameter has. Subclasses say what a value may be and how to read one."""

    help: str = Field(min_length=1)

    def expected(self) -> str:
        """What a value may be, in words that fit after "must be"."""
        raise NotImplementedError

    def allows(self, value: object) -> bool:
        """Whether a value of the right Python type is in range."""
        raise NotImplementedError

    def parse(self, text: str) -> Value:
        """The value ``text`` stands for; `ValueError` if it is of another type."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _default_is_in_range(self) -> _Declared:
        default = getattr(self, "default", None)
        if not self.allows(default):
            raise ValueError(f"default must be {self.expected()}, not {default!r}")
        return self


def _bounds(kind: str, low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{kind} {low}…{high}"
    if low is not None:
        return f"{kind}, at least {low}"
    return kind if high is None else f"{kind}, at most {high}"


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


class IntParameter(_Declared):
    """A whole number; ``0x`` and ``0o`` are understood. Bounds stay within C's ``long long``."""

    type: Literal["int"]
    default: int
    min: int = Field(default=-(2**63) + 1, ge=-(2**63) + 1)
    max: int = Field(default=2**63 - 1, le=2**63 - 1)
    multiple_of: int | None = Field(default=None, gt=0)

    def expected(self) -> str:
        # The outermost bounds are C's, not the program's: not worth a word.
        low = None if self.min == -(2**63) + 1 else self.min
        high = None if self.max == 2**63 - 1 else self.max
        step = f", a multiple of {self.multiple_of}" if self.multiple_of else ""
        return _bounds("a whole number", low, high) + step

    def allows(self, value: object) -> bool:
        return (
            isinstance(value, int)
            and _within(value, self.min, self.max)
            and (self.multiple_of is None or value % self.multiple_of == 0)
        )

    def parse(self, text: str) -> Value:
        return int(text, 0)


class FloatParameter(_Declared):
    """A finite number."""

    type: Literal["float"]
    default: float
    min: float | None = None
    max: float | None = None

    def expected(self) -> str:
        return _bounds("a number", self.min, self.max)

    def allows(self, value: object) -> bool:
        return isinstance(value, float) and math.isfinite(value) and _within(value, self.min, self.max)

    def parse(self, text: str) -> Value:
        return float(text)


class StringParameter(_Declared):
    """Any text that fits in a C string, up to ``max_length`` bytes of UTF-8."""

    type: Literal["string"]
    default: str
    max_length: int = Field(default=4095, ge=0)

    def expected(self) -> str:
        return f"text without NUL, at most {self.max_length} bytes"

    def allows(self, value: object) -> bool:
        # surrogateescape: a file name given on the command line need not be UTF-8.
        if not isinstance(value, str) or "\0" in value:
            return False
        return len(value.encode("utf-8", "surrogateescape")) <= self.max_length

    def parse(self, text: str) -> Value:
        return text


class BoolParameter(_Declared):
    """True or false."""

    type: Literal["bool"]
    default: bool

    def expected(self) -> str:
        return "true or false"

    def allows(self, value: object) -> bool:
        return isinstance(value, bool)

    def parse(self, text: str) -> Value:
        word = text.lower()
        if word not in _TRUE | _FALSE:
            raise ValueError(text)
        return word in _TRUE


class ChoiceParameter(_Declared):
    """One of a few words."""

    type: Literal["choice"]
    default: str
    choices: tuple[str, ...] = Field(min_length=1)

    @field_validator("choices")
    @classmethod
    def _are_plain_words(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        if any(not word.isprintable() for word in choices):
            raise ValueError("choices must be printable")
        return choices

    def expected(self) -> str:
        return "one of " + ", ".join(self.choices)

    def allows(self, value: object) -> bool:
        return value in self.choices

    def parse(self, text: str) -> Value:
        return text


Parameter: TypeAlias = Annotated[
    IntParameter | FloatParameter | StringParameter | BoolParameter | ChoiceParameter,
    Field(discriminator="type"),
]


def resolve(
    parameters: Mapping[str, Parameter], given: Mapping[str, Value], *, program: str
) -> dict[str, Value]:
    """Every parameter with its value: the one given, else its default, in the order of the declaration.

    ``given`` holds text from the command line (``--set alignment=1024``) or values from a bug record.
    `UserError` for an unknown name and for a value of the wrong type or out of range; it names ``program``.
    """
    for name in given:
        if name not in parameters:
            raise UserError(f"{program} has no parameter {name!r}", mend=nearest(name, parameters))
    return {
        name: _read(parameter, given[name], f"{program}: {name}") if name in given else parameter.default
        for name, parameter in parameters.items()
    }


def _read(parameter: Parameter, value: Value, place: str) -> Value:
    text = value if isinstance(value, str) else str(value).lower()  # Python's True is TOML's true
    try:
        parsed = parameter.parse(text)
    except ValueError:
        parsed = None
    if parsed is None or not parameter.allows(parsed):
        shown = text if len(text) <= 80 else text[:80] + "…"
        raise UserError(f"{place} must be {parameter.expected()}, not {shown!r}")
    return parsed
