"""The classic programs of rhbz-471613 say what they said in the report: people search for these texts.

Races are a matter of chance, so each test says how often it fails though nothing is wrong: less than once in a million.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from trouble import cowpen

pytestmark = pytest.mark.guest

ARCHES = ("x86_64", "aarch64")

# Comment 65, whole: there as here the buffer begins 512 bytes into a page of 4 KiB, and the disk holds zeros.
FORKSCREW = """\
worker 0 failed check
0 - 3583: 0
3584 - 4095: 42
child dumping buffer:
0 - 4095: 0
4096 - 8191: 42
parent dumping full buffer
0 - 3583: 0
3584 - 4095: 42
4096 - 8191: 0
"""

# Comment 91, but for the byte of the file (0x5a) and the address. "Aborted" there is the shell's; here the status is 1.
DMA_THREAD = re.compile(
    r"^Bad data at 0x000e00: 0x[0-9a-f]+000, \n"
    r"Data dump starting at 0x000df8:\n"
    r"Expect 0x(?P<byte>[0-9a-f]{1,2}) followed by 0xfa:\n"
    r"(?P<good>(?:[0-9a-f]{2} ){8})\n"
    r"(?:fa ){8}\n",
    re.MULTILINE,
)

# Comments 51 and 61, one for each thread that got bad data.
READ_AND_FORK = """\
Bad data
rd_res = 512
pattern = 7
buf = 7777777777
"""


def reproduced(program: str, arch: str, folder: Path, attempts: int, *more: str) -> Sequence[str]:
    """What the program printed in each attempt on debian:6.1 that reproduced."""
    words = ("run", f"rhbz-471613/{program}", "--kernel", "debian:6.1", "--arch", arch, "--json", *more)
    ended = cowpen(*words, "--attempts", str(attempts), "--keep", folder / "keep", folder=folder, seconds=600)
    assert ended.code == 1, ended.err
    shown = [attempt for attempt in ended.records("attempt") if attempt["outcome"] == "reproduced"]
    return [(Path(attempt["kept"]) / "stdout").read_text() for attempt in shown]


@pytest.mark.parametrize("arch", ARCHES)
def test_forkscrew(arch: str, tmp_path: Path) -> None:
    """It reproduces in 95 % of all attempts and more: five misses in a row come once in 3 million."""
    (text,) = reproduced("forkscrew", arch, tmp_path, 5, "--stop-on-first")
    # Rounds before may have proved nothing, and said so.
    assert text.endswith(FORKSCREW)


@pytest.mark.parametrize("arch", ARCHES)
def test_dma_thread(arch: str, tmp_path: Path) -> None:
    """The end of a worker's data is lost, as in the report, or the beginning of its neighbour's.

    With 40 workers 12 of 15 attempts had the report's case, 55 % or more (95 % interval): 20 without it have a chance
    of 1 in 8 million.
    """
    texts = reproduced("dma_thread", arch, tmp_path, 20, "--set", "workers=40")
    found = [match for text in texts for match in DMA_THREAD.finditer(text)]
    assert found, texts
    for match in found:
        assert match["good"].split() == [f"{int(match['byte'], 16):02x}"] * 8


@pytest.mark.parametrize("arch", ARCHES)
def test_pthread_read_and_fork(arch: str, tmp_path: Path) -> None:
    """90 of 90 attempts reproduced, 95 % or more (95 % interval): five misses in a row come once in 3 million."""
    (text,) = reproduced("pthread_read_and_fork", arch, tmp_path, 5, "--stop-on-first")
    assert re.fullmatch(f"(?:{re.escape(READ_AND_FORK)})+", text)
