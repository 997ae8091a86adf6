"""What the catalogue expects of a kernel: ranges of versions and named kernels, and the verdict they should come to."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.arch import get_arch
from harness.datafile import Record
from harness.errors import CowpenError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Of a bug, a program or a variant."""

_BOUND = re.compile(r"(<=|>=|==|<|>)\s*(\d+(?:\.\d+){0,3}(?:-rc\d+)?)")
_VERSION = re.compile(r"(\d{1,9})((?:\.\d{1,9}){0,3})(?:-rc(\d{1,4}))?")


def _version(text: str) -> tuple[tuple[int, ...], float] | None:
    """``6.1.192-2`` as ((6, 1, 192, 0), inf): numbers, and the release candidate, infinite for none."""
    match = _VERSION.match(text)
    if not match:
        return None
    numbers = [int(match[1]), *(int(part) for part in match[2].split(".")[1:])]
    candidate = float(match[3]) if match[3] else math.inf
    return tuple([*numbers, 0, 0, 0][:4]), candidate


def _within(version: str, kernels: str) -> bool:
    """Whether a version lies in a range such as ``>=5.11,<6.3``.

    Numeric by component; what a distribution appends does not count. "Since 6.3" in the kernel's
    history means merged for 6.3-rc1, so a release candidate counts as its release unless the bound itself
    names a candidate. A version that cannot be read lies in no range.
    """
    have = _version(version)
    if have is None:
        return False
    for part in kernels.split(","):
        match = _BOUND.fullmatch(part.strip())
        bound = match and _version(match[2])
        if not match or not bound:
            return False
        left, right = (have, bound) if "-rc" in match[2] else ((have[0], 0.0), (bound[0], 0.0))
        order = (left > right) - (left < right)
        if order not in _ORDERS[match[1]]:
            return False
    return True


_ORDERS = {"<": (-1,), "<=": (-1, 0), "==": (0,), ">=": (0, 1), ">": (1,)}


class Expectation(Record):
    """What some kernels are expected to do."""

    kernels: str
    """A range of upstream versions (``<6.3``, ``>=5.11,<6.3``, ``*``) or one kernel spec (``debian:6.1``)."""
    arches: tuple[str, ...] = ()
    """Architectures; none named: all."""
    program: Name | None = None
    """One program of the bug; none named: all."""
    variants: tuple[Name, ...] = ()
    """Some variants of the program; none named: the program as it is, and all of them."""
    verdict: Literal["reproduced", "clean"]
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest rate per attempt at which the bug is expected to show."""

    @field_validator("kernels")
    @classmethod
    def _range_or_spec(cls, kernels: str) -> str:
        ranged = kernels[:1] in "<>=" and all(_BOUND.fullmatch(part.strip()) for part in kernels.split(","))
        if not (kernels == "*" or ranged or re.fullmatch(r"[A-Za-z][^\s,<>=]*", kernels)):
            raise ValueError(f'expected "*", a range such as ">=5.11,<6.3" or a kernel spec, not {kernels!r}')
        return kernels

    @field_validator("arches")
    @classmethod
    def _known_arches(cls, arches: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(get_arch(arch).name for arch in arches)
        except CowpenError as error:  # pydantic adds file and key to a ValueError only
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _rate_of_something(self) -> Self:
        if self.rate is not None and self.verdict != "reproduced":
            raise ValueError('rate: expected only with verdict = "reproduced"')
        return self

    def covers(
        self, *, kernel_version: str, kernel_spec: str, arch: str, program: str, variant: str | None = None
    ) -> bool:
        """Whether it speaks of this kernel, architecture, program and variant (None: the program as it is)."""
        return (
            (self.kernels in ("*", kernel_spec) or _within(kernel_version, self.kernels))
            and (not self.arches or arch in self.arches)
            and self.program in (None, program)
            and (not self.variants or variant in self.variants)
        )
