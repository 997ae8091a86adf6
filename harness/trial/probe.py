"""What a running kernel lacks for a bug, found by looking: functions in kallsyms, options in its own config.

The config file that comes with a kernel is looked at before anything boots (`Subject.lacking`). A kernel without one, a
bare image or a machine that already runs, may still tell its config when it is asked.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from harness.errors import ChannelError, UnsupportedError
from harness.guest.channel import Channel
from harness.kernel.kernel import parse_config

_SECONDS = 60.0  # a hundred thousand lines, each made when it is read
_SYMBOLS_LIMIT = 64 << 20
_CONFIG_LIMIT = 4 << 20  # Debian's has 300 KB; what is packed may say that it is much more


def check_symbols(channel: Channel, symbols: Sequence[str], *, scale: float) -> None:
    """`UnsupportedError` unless the running kernel has all these functions.

    What the compiler made of one counts as it: ``copy_pte_range.isra.0``. ``scale`` stretches the deadline.
    """
    if not symbols:
        return
    try:
        known = channel.pull("/proc/kallsyms", seconds=_SECONDS * scale, limit=_SYMBOLS_LIMIT)
    except ChannelError as error:
        raise UnsupportedError(
            f"cannot tell whether the kernel has {', '.join(symbols)}: no /proc/kallsyms ({error})"
        ) from error
    lacking = [symbol for symbol in symbols if not _defines(known, symbol)]
    if lacking:
        raise UnsupportedError(f"the running kernel has no {', '.join(lacking)} (/proc/kallsyms)")


def _defines(known: bytes, symbol: str) -> bool:
    line = rb"^[0-9a-f]+ [A-Za-z] " + re.escape(symbol).encode() + rb"(?:\.\S*)?(?:\t\S*)?$"
    return re.search(line, known, re.MULTILINE) is not None


def check_options(channel: Channel, options: Sequence[str], release: str, *, scale: float) -> None:
    """`UnsupportedError` if the running kernel tells its config, and these options are not all in it.

    A kernel that does not tell (no /proc/config.gz, no /boot/config-RELEASE) may have them: the program will see.
    """
    if not options:
        return
    text = _config(channel, release, _SECONDS * scale)
    if text is None:
        return
    config = parse_config(text.decode(errors="replace").splitlines())
    lacking = [option for option in options if option not in config]
    if lacking:
        raise UnsupportedError(f"the running kernel, {release}, is built without {', '.join(lacking)}")


def _config(channel: Channel, release: str, seconds: float) -> bytes | None:
    try:
        return _unpacked(channel.pull("/proc/config.gz", seconds=seconds, limit=_CONFIG_LIMIT))
    except ChannelError:  # ENOENT
        pass
    try:
        return channel.pull(f"/boot/config-{release}", seconds=seconds, limit=_CONFIG_LIMIT)
    except ChannelError:
        return None


def _unpacked(data: bytes) -> bytes | None:
    """What gzip packed; None if it is no such thing, or more than any config."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        text = unpacker.decompress(data, _CONFIG_LIMIT)
    except zlib.error:
        return None
    return text if unpacker.eof else None
