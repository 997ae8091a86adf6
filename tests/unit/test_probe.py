"""What a running kernel lacks, from what it says of itself."""

from __future__ import annotations

import gzip

import pytest

from harness.errors import ChannelError, UnsupportedError
from harness.trial.probe import check_options, check_symbols

KALLSYMS = b"""\
0000000000000000 T dup_mmap
0000000000000000 t copy_pte_range.isra.0
0000000000000000 t bio_lock_unlock_all
0000000000000000 t ext4_init\t[ext4]
0000000000000000 r __ksymtab_fork_idle
"""
CONFIG = b"# CONFIG_AIO is not set\nCONFIG_BLOCK=y\nCONFIG_BLK_DEV_LOOP=m\n"


class Guest:
    """A channel to a guest with these files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def pull(self, path: str, *, seconds: float, limit: int) -> bytes:
        if path not in self.files:
            raise ChannelError(f"{path}: No such file or directory")
        if len(self.files[path]) > limit:
            raise ChannelError(f"{path} is larger than {limit} bytes")
        return self.files[path]


@pytest.mark.parametrize("symbols", [(), ("dup_mmap",), ("copy_pte_range", "ext4_init")])
def test_symbols_that_are_there(symbols: tuple[str, ...]) -> None:
    check_symbols(Guest({"/proc/kallsyms": KALLSYMS}), symbols, scale=1)


@pytest.mark.parametrize("symbol", ["bio_lock_unlock", "dup", "mmap", "fork_idle", "copy.pte_range", "T"])
def test_a_part_of_a_name_is_another_name(symbol: str) -> None:
    with pytest.raises(UnsupportedError, match=f"has no {symbol} "):
        check_symbols(Guest({"/proc/kallsyms": KALLSYMS}), ("dup_mmap", symbol), scale=1)


def test_a_kernel_without_kallsyms_cannot_tell() -> None:
    with pytest.raises(UnsupportedError, match="cannot tell whether the kernel has dup_mmap"):
        check_symbols(Guest({}), ("dup_mmap",), scale=1)


@pytest.mark.parametrize(
    ("file", "content"),
    [("/proc/config.gz", gzip.compress(CONFIG)), ("/boot/config-6.1.0-9-x", CONFIG)],
    ids=["proc", "boot"],
)
def test_options(file: str, content: bytes) -> None:
    asked = Guest({file: content})
    check_options(asked, ("CONFIG_BLOCK", "CONFIG_BLK_DEV_LOOP"), "6.1.0-9-x", scale=1)
    with pytest.raises(UnsupportedError, match=r"6\.1\.0-9-x, is built without CONFIG_AIO$"):
        check_options(asked, ("CONFIG_BLOCK", "CONFIG_AIO"), "6.1.0-9-x", scale=1)


@pytest.mark.parametrize(
    "packed",
    [None, b"no gzip", gzip.compress(CONFIG)[:-12], gzip.compress(bytes(5 << 20))],
    ids=["none", "not-packed", "cut-off", "too-much"],
)
def test_a_kernel_that_tells_no_config_may_have_the_option(packed: bytes | None) -> None:
    asked = Guest({} if packed is None else {"/proc/config.gz": packed})
    check_options(asked, ("CONFIG_AIO",), "6.1", scale=1)
