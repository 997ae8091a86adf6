"""TOML data files, validated on load: an error names the file, the key and what was expected."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UserError


class Record(BaseModel):
    """Base of everything read from a data file: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=BaseModel)


def load(path: Path, model: type[R]) -> R:
    """Read and validate one file; `UserError` for every way in which it can be wrong."""
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})") from error
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            key = ".".join(map(str, fault["loc"])) or "(whole file)"
            faults.append(f"{path}: {key}: {fault['msg']}")
        raise UserError(faults[0], detail="\n".join(faults[1:])) from error
