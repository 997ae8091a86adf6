"""What must not be found on a console: clean boots, and what user space prints."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.arch import get_arch
from harness.cache import Cache
from harness.console.detect import scan, scan_file
from harness.program.compile import compile_program

if TYPE_CHECKING:
    from conftest import Prepare

pytestmark = pytest.mark.guest

GOLDEN = Path(__file__).parent.parent / "console" / "golden"

# Copies lines to the console, or to the kernel's log, where each is a record; then the log to its output.
TALKER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/klog.h>
#include <unistd.h>

static char line[4096], kernel_log[1 << 20];

int main(int argc, char **argv)
{
	int to = argc == 2 ? open(argv[1], O_WRONLY) : -1;
	FILE *words = fopen("/tmp/words", "r");

	while (fgets(line, sizeof(line), words))
		if (write(to, line, strlen(line)) < 0)
			return 2;
	int got = klogctl(3, kernel_log, sizeof(kernel_log)); /* SYSLOG_ACTION_READ_ALL */
	return got < 0 || write(1, kernel_log, got) != got;
}
"""


@pytest.mark.parametrize(
    ("spec", "arch"),
    [
        ("debian:6.1", "x86_64"),
        ("debian:6.1", "aarch64"),
        ("debian:6.12", "x86_64"),
        ("debian:6.12", "aarch64"),
        pytest.param("debian:6.1-generic", "x86_64", marks=pytest.mark.long),
        pytest.param("debian:6.1-rt", "x86_64", marks=pytest.mark.long),
        pytest.param("debian:6.1-rt", "aarch64", marks=pytest.mark.long),
        pytest.param("debian:6.12-rt", "x86_64", marks=pytest.mark.long),
        pytest.param("debian:6.12-16k", "aarch64", marks=pytest.mark.long),
    ],
)
def test_clean_boot(spec: str, arch: str, tmp_path: Path, prepare: Prepare) -> None:
    """The whole boot, to the agent and to the end."""
    prepared = prepare(spec, arch)
    with prepared.guest(tmp_path) as guest:
        assert guest.ready().release == prepared.kernel.release
    console = tmp_path / "console.log"
    assert console.stat().st_size > 8192, "a boot has more to say"
    assert scan_file(console, arch) == []


def headers() -> list[str]:
    """The line of every golden log that made it a finding."""
    lines = {finding.header for path in GOLDEN.glob("*.log") for finding in scan(path.read_bytes())}
    return sorted(lines)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_words_of_a_program(arch: str, tmp_path: Path, prepare: Prepare, user_cache: Cache) -> None:
    """Every header, printed by a program: none is a finding on the console, all are marked in the kernel's log."""
    words = headers()
    assert len(words) >= 40
    program = compile_program(TALKER, "talker", get_arch(arch), user_cache).binary.read_bytes()
    prepared = prepare("debian:6.12", arch)
    kernel_log = bytearray()
    with prepared.guest(tmp_path) as guest:
        guest.ready()
        guest.channel.push("\n".join([*words, ""]).encode(), "/tmp/words", seconds=60, mode=0o600)
        guest.channel.push(program, "/tmp/talker", seconds=60)
        talk = functools.partial(guest.channel.run, seconds=120)
        assert talk(["/tmp/talker", "/dev/console"]).code == 0
        silent = (tmp_path / "console.log").read_bytes()
        said = talk(["/tmp/talker", "/dev/kmsg"], on_output=lambda stream, data: kernel_log.extend(data))
        assert said.code == 0
    assert all(word.encode() in silent for word in words), "the program was not heard"
    assert scan(silent, arch) == []
    marked = scan(bytes(kernel_log), arch)
    assert {finding.user_written for finding in marked} == {True}
    assert len(marked) >= len(words) / 2, "consequences are told by their cause, but most are findings"
