"""The small kernel: base-6.1 with what virtme-ng needs of a kernel, and nothing else.

    python -m bench.kernel [ARCH]…    build it (minutes, once) and print its kernel spec

Compared with a stock kernel it boots in a fraction of the time and needs no modules, which is what a developer's own
kernel looks like.
"""

from __future__ import annotations

import dataclasses
import sys

from harness.arch import ARCHES, Arch, get_arch
from harness.cache import Cache
from harness.errors import CowpenError, Tell
from harness.kernel.build import build
from harness.kernel.definition import define

NAME = "base-6.1"
_VIRTME = ("net", "host-files")


def small_kernel(arch: Arch, cache: Cache, tell: Tell) -> str:
    """The kernel spec of the small kernel for ``arch``, built if the cache has none; raises what `build` raises."""
    base = define(NAME)
    small = dataclasses.replace(base, name="small", fragments=(*base.fragments, *_VIRTME))
    return build(small.recipe(arch, cache, tell), arch, cache, tell).spec


def main() -> None:
    """Build what is named, or for every architecture."""
    for name in sys.argv[1:] or ARCHES:
        try:
            spec = small_kernel(get_arch(name), Cache(), lambda line: print(line, file=sys.stderr))
        except CowpenError as error:
            sys.exit(f"{error}\n{error.detail}")
        print(spec, flush=True)


if __name__ == "__main__":
    main()
