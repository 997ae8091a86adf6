"""C headers read through cffi, so that C programs and Python share one definition of a structure."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

# cffi parses declarations only. A header meant for both sides keeps what cffi must not see (includes,
# inline functions) between these marks, and the shared structures are plain fixed-width C.
_HIDDEN = re.compile(r"/\* cffi: off \*/.*?/\* cffi: on \*/", re.DOTALL)
# cffi takes a #define for a constant only if nothing follows the number.
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_GUARD = re.compile(r"^\s*#\s*(ifndef|define\s+\w+_H\s*$|endif|include|pragma).*$", re.MULTILINE)


@functools.cache
def load(header: Path) -> Any:  # cffi has no types of its own
    """A `cffi.FFI` that knows the declarations and integer ``#define`` constants of ``header``.

    ``ffi.new("struct name *")`` makes a structure; `constants` gives the rest.
    """
    import cffi  # noqa: PLC0415  (0.1 s with its C parser, paid while a guest boots)

    text = _COMMENT.sub("", _HIDDEN.sub("", header.read_text(encoding="utf-8")))
    ffi = cffi.FFI()
    ffi.cdef(_GUARD.sub("", text))
    return ffi


@functools.cache
def constants(header: Path) -> Any:
    """The integer constants of ``header``, as attributes.

    Once a process: cffi never lets go of what it has opened, and 6 KiB an attempt come to much in a long campaign.
    """
    return load(header).dlopen(None)
