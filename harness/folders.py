"""Where cowpen's own data and the user's caches live."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder ``bugs``, ``guest-programs`` or ``kernels``.

    In a checkout they stand beside the package, in an installed wheel inside it (pyproject.toml,
    ``force-include``).
    """
    installed = _PACKAGE / "data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def _xdg(variable: str, default: str) -> Path:
    # The XDG specification: relative values must be ignored.
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / default


def cache_folder() -> Path:
    """Everything here can be made again: kernels, programs, snapshots, the accelerator's proof."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "cowpen"


def state_folder() -> Path:
    """What a user may want to look at later: the consoles and records of past runs."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "cowpen"
