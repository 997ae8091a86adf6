"""One line of ``cowpen doctor``'s report."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report. ``mend`` is the command that puts it right, empty if nothing is wrong.

    ``measured`` are the figures behind ``says``: bytes, seconds, MiB as the names tell.
    """

    topic: str
    good: bool
    says: str
    mend: str = ""
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)
