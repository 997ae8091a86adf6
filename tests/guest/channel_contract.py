"""What every channel promises, whatever carries it. One class; each implementation's tests inherit it.

Beside the subclass stands the class-scoped fixture ``reached``: one machine, reached once, for all tests of the
class. The fixtures ``channel`` and ``program``, made from it, are in conftest.py.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Mapping

import pytest

from harness.arch import get_arch
from harness.errors import ChannelError
from harness.guest.channel import Channel, Ending, Exit, Stream
from harness.guest.guest import Guest
from harness.guest.threads import parse_threads

SECONDS = 60.0  # for anything that takes a moment, on a host that does other things besides
EVERY_BYTE = bytes(range(256))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
    """A machine with a channel into it. ``folder`` is where tests may write there."""

    channel: Channel
    arch: str
    release: str
    folder: str = "/tmp"
    helper: str | None = None
    """Where the helper is already: a slow channel need not bring it."""
    guest: Guest | None = None


class Output:
    """An `OnOutput` that keeps everything, and when the first of it came."""

    def __init__(self) -> None:
        self.data = dict.fromkeys(Stream, b"")
        self.first: float | None = None

    def __call__(self, stream: Stream, data: bytes) -> None:
        if self.first is None:
            self.first = time.monotonic()
        self.data[stream] += data

    @property
    def stdout(self) -> bytes:
        return self.data[Stream.STDOUT]

    @property
    def stderr(self) -> bytes:
        return self.data[Stream.STDERR]

    @property
    def records(self) -> bytes:
        return self.data[Stream.RECORDS]


class Program:
    """The helper in the machine, called like a function: ``program("exit", "3")``."""

    def __init__(self, reached: Reached, binary: bytes) -> None:
        self.channel = reached.channel
        self.path = reached.helper or f"{reached.folder}/helper"
        if reached.helper is None:
            self.channel.push(binary, self.path, seconds=SECONDS)

    def __call__(
        self, *arguments: str, seconds: float = SECONDS, env: Mapping[str, str] | None = None
    ) -> tuple[Exit, Output]:
        output = Output()
        ended = self.channel.run([self.path, *arguments], seconds=seconds, env=env, on_output=output)
        return ended, output

    def says(self, *arguments: str) -> str:
        """What it prints, having ended well."""
        ended, output = self(*arguments)
        assert (ended.ending, ended.code) == (Ending.EXITED, 0), (arguments, ended, output.stderr)
        return output.stdout.decode()


class ChannelContract:
    """The tests. ``big_file``, ``big_output`` and ``beyond_buffers`` are bytes, less where the way is slow.

    ``tells_threads``: it tells of the threads of a program that is overdue.
    """

    big_file = 1 << 20
    beyond_buffers = 1 << 20
    big_output = 3_000_000
    tells_threads = True

    # -- greeting ----------------------------------------------------------------------------------

    def test_hello_says_what_answers(self, reached: Reached) -> None:
        greeting = reached.channel.hello(seconds=SECONDS)
        assert greeting.release == reached.release
        assert greeting.machine == get_arch(reached.arch).name

    # -- how a program ends ------------------------------------------------------------------------

    @pytest.mark.parametrize("status", [0, 1, 2, 127, 255])
    def test_exit_status(self, program: Program, status: int) -> None:
        ended, _ = program("exit", str(status))
        assert (ended.ending, ended.code) == (Ending.EXITED, status)

    @pytest.mark.parametrize("signal", [6, 9, 11])
    def test_death_by_signal(self, program: Program, signal: int) -> None:
        ended, _ = program("die", str(signal))
        assert (ended.ending, ended.code) == (Ending.SIGNALLED, signal)

    def test_missing_program_ends_with_127_and_says_so(self, channel: Channel) -> None:
        output = Output()
        ended = channel.run(["/no/such/program"], seconds=SECONDS, on_output=output)
        assert (ended.ending, ended.code) == (Ending.EXITED, 127)
        assert b"/no/such/program" in output.stderr

    def test_deadline_ends_the_program_and_all_it_started(self, program: Program) -> None:
        marker = uuid.uuid4().hex
        begun = time.monotonic()
        ended, output = program("forever", marker, seconds=1.5)
        assert ended.ending is Ending.DEADLINE
        assert output.stdout.count(b"running") >= 1
        assert time.monotonic() - begun < 20
        assert 1.4 < ended.seconds < 20
        for _ in range(20):
            if program.says("count", marker) == "0":
                break
            time.sleep(0.1)
        else:
            pytest.fail("the program's child survives its deadline")

    def test_what_an_overdue_program_was_doing(self, program: Program) -> None:
        marker = uuid.uuid4().hex
        ended, output = program("forever-away", marker, seconds=1.5)
        assert ended.ending is Ending.DEADLINE
        told = parse_threads(output.data[Stream.THREADS])
        if not self.tells_threads:
            assert output.data[Stream.THREADS] == b""
            return
        assert (told.processes, told.counted) == (2, 2)
        assert {thread.comm for thread in told.threads} == {b"helper"}
        assert {thread.state for thread in told.threads} == {"S"}
        parent, child = told.threads
        assert (parent.pid, child.parent) == (parent.tid, parent.pid)
        assert all(len(thread.values) > 16 for thread in told.threads), "all its registers"
        # The child was in a session of its own.
        for _ in range(20):
            if program.says("count", marker) == "0":
                break
            time.sleep(0.1)
        else:
            pytest.fail("what was told of survives its deadline")

    def test_measures_time_and_memory(self, program: Program) -> None:
        small, _ = program("exit", "0")
        large, _ = program("touch", "24")
        assert 24 << 10 < large.max_rss_kib < 64 << 10
        assert small.max_rss_kib < 8 << 10
        slow, _ = program("early")
        assert 1.3 < slow.seconds < 20

    # -- what it is given --------------------------------------------------------------------------

    def test_arguments_arrive_as_they_are(self, program: Program) -> None:
        given = [
            "with blank",
            "",
            "'single' \"double\" `back`",
            "$HOME;*?[x]\\n",
            "ünï→🐄",
            "\n\t\x01\x7f",
            "-",
            "--",
            "",
        ]
        _, output = program("args", *given)
        assert output.stdout.decode().split("\0")[:-1] == given

    def test_environment_arrives_and_nothing_else(self, program: Program) -> None:
        _, output = program("env", env={"COWPEN_TEST": "a b=c\n→", "EMPTY": "", "HOME": "/nowhere"})
        found = dict(word.split("=", 1) for word in output.stdout.decode().split("\0")[:-1])
        assert found["COWPEN_TEST"] == "a b=c\n→"
        assert found["EMPTY"] == ""
        assert found["HOME"] == "/nowhere"
        assert set(found) == {"COWPEN_TEST", "EMPTY", "HOME", "PATH", "COWPEN_RECORD_FD"}

    def test_standard_input_is_empty(self, program: Program) -> None:
        ended, _ = program("input", seconds=10)
        assert (ended.ending, ended.code) == (Ending.EXITED, 0)

    def test_nul_in_an_argument_is_refused(self, channel: Channel, program: Program) -> None:
        with pytest.raises(ChannelError, match="NUL"):
            program("args", "a\0b")
        with pytest.raises(ChannelError, match="NUL"):
            program("env", env={"A": "b\0c"})
        with pytest.raises(ChannelError, match="NUL"):
            channel.push(b"", "/tmp/a\0b", seconds=SECONDS)
        with pytest.raises(ChannelError, match="NUL"):
            channel.pull("/tmp/a\0b", seconds=SECONDS)
        assert program.says("args", "x") == "x\0"

    def test_too_many_arguments_are_refused(self, program: Program) -> None:
        with pytest.raises(ChannelError):
            program("args", *("x" * 100_000 for _ in range(2)))
        with pytest.raises(ChannelError):
            program("args", *("x" for _ in range(400)))
        assert program.says("args", "x") == "x\0"

    # -- what it prints ----------------------------------------------------------------------------

    def test_streams_arrive_apart(self, program: Program) -> None:
        _, output = program("apart")
        assert (output.stdout, output.stderr, output.records) == (b"to stdout", b"to stderr", b"to records")

    def test_every_byte_value_arrives(self, program: Program) -> None:
        _, output = program("spam", str(len(EVERY_BYTE) * 8))
        assert output.stdout == output.records == EVERY_BYTE * 8

    def test_much_output_arrives_whole(self, program: Program) -> None:
        ended, output = program("spam", str(self.big_output), seconds=120)
        assert (ended.ending, ended.code) == (Ending.EXITED, 0)
        expected = (EVERY_BYTE * (self.big_output // 256 + 1))[: self.big_output]
        # Not compared in the assert: pytest would explain the difference of megabytes.
        assert len(output.stdout) == len(output.records) == self.big_output
        same = output.stdout == expected, output.records == expected
        assert same == (True, True)

    def test_output_arrives_before_the_end(self, program: Program) -> None:
        ended, output = program("early")
        assert output.stdout == b"earlylate"
        assert output.first is not None
        assert time.monotonic() - output.first > 0.8
        assert ended.code == 0

    def test_program_that_closes_its_output_goes_on(self, program: Program) -> None:
        ended, output = program("closed")
        assert (ended.ending, ended.code) == (Ending.EXITED, 7)
        assert (output.stdout, output.stderr) == (b"last words", b"still here")

    @pytest.mark.parametrize("how", ["hold", "hold-away"])
    def test_child_left_with_the_pipes_does_not_hang_the_run(self, program: Program, how: str) -> None:
        begun = time.monotonic()
        ended, output = program(how)
        assert (ended.ending, ended.code) == (Ending.EXITED, 0)
        assert output.stdout == b"parent ends"
        assert time.monotonic() - begun < 10

    def test_many_runs_in_a_row(self, program: Program) -> None:
        for number in range(50):
            assert program.says("args", str(number)) == f"{number}\0"

    # -- files -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 3071, 3072, 3073, None])
    def test_file_there_and_back(self, reached: Reached, size: int | None) -> None:
        size = self.big_file if size is None else size
        content = (EVERY_BYTE * (size // 256 + 1))[:size]
        path = f"{reached.folder}/röund trip"
        reached.channel.push(content, path, seconds=120)
        back = reached.channel.pull(path, seconds=120)
        assert len(back) == size
        same = back == content
        assert same

    def test_push_replaces_a_longer_file(self, reached: Reached) -> None:
        path = f"{reached.folder}/replaced"
        reached.channel.push(b"long" * 1000, path, seconds=SECONDS)
        reached.channel.push(b"short", path, seconds=SECONDS)
        assert reached.channel.pull(path, seconds=SECONDS) == b"short"

    @pytest.mark.parametrize("mode", [0o755, 0o600, 0o444, 0o4711])
    def test_mode_bits(self, reached: Reached, program: Program, mode: int) -> None:
        path = f"{reached.folder}/mode"
        reached.channel.push(b"x", path, seconds=SECONDS, mode=mode)
        assert program.says("mode", path) == f"{mode:o}"

    def test_pull_of_a_file_that_does_not_know_its_size(self, channel: Channel) -> None:
        words = channel.pull("/proc/self/maps", seconds=SECONDS)
        assert words.endswith(b"\n")
        assert b"[stack]" in words

    def test_pull_of_a_missing_file_names_it(self, channel: Channel) -> None:
        with pytest.raises(ChannelError, match=r"/no/such/file.*No such file"):
            channel.pull("/no/such/file", seconds=SECONDS)
        channel.hello(seconds=SECONDS)

    def test_pull_of_a_folder_is_refused(self, channel: Channel) -> None:
        with pytest.raises(ChannelError, match="Is a directory"):
            channel.pull("/proc", seconds=SECONDS)

    def test_pull_over_the_limit(self, reached: Reached) -> None:
        channel, path = reached.channel, f"{reached.folder}/limited"
        content = EVERY_BYTE * 40
        channel.push(content, path, seconds=SECONDS)
        assert channel.pull(path, seconds=SECONDS, limit=len(content)) == content
        with pytest.raises(ChannelError, match=f"larger than {len(content) - 1} bytes"):
            channel.pull(path, seconds=SECONDS, limit=len(content) - 1)
        # A file without an end, and then a push larger than any buffer on the way.
        with pytest.raises(ChannelError, match="larger than"):
            channel.pull("/dev/zero", seconds=SECONDS, limit=20_000)
        channel.push(EVERY_BYTE * (self.beyond_buffers // 256), path, seconds=120)
        channel.push(content, path, seconds=SECONDS)
        assert channel.pull(path, seconds=SECONDS) == content

    def test_push_into_a_missing_folder_names_it(self, channel: Channel) -> None:
        with pytest.raises(ChannelError, match=r"/no/such/folder.*No such file"):
            channel.push(b"x" * 100_000, "/no/such/folder/file", seconds=SECONDS)
        channel.hello(seconds=SECONDS)
        assert channel.pull("/proc/sys/kernel/ostype", seconds=SECONDS) == b"Linux\n"
