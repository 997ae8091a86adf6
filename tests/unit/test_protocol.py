"""The agent's framing against a peer that may send anything, over a socket pair. No guest."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ChannelError, DeadlineError, GuestDiedError, GuestError
from harness.guest.agent import AgentChannel
from harness.guest.channel import Ending, Stream, protocol

C: Any = protocol().dlopen(None)
HEADER = struct.Struct("<IHHII")  # magic, type, stream, id, length: protocol.h, written down a second time


def frame(kind: int, ident: int, payload: bytes = b"", *, stream: int = 0) -> bytes:
    return HEADER.pack(C.COWPEN_FRAME_MAGIC, kind, stream, ident, len(payload)) + payload


def exit_frame(ident: int, code: int = 0) -> bytes:
    return frame(C.COWPEN_EXIT, ident, struct.pack("<IIII", C.COWPEN_EXITED, code, 1500, 2048))


class Peer:
    """The agent's end of the socket pair: the channel under test talks to it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(10)

    def send(self, *parts: bytes) -> None:
        self.connection.sendall(b"".join(parts))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.connection.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def take(self) -> tuple[int, int, bytes]:
        """The next request as (type, id, payload)."""
        magic, kind, _, ident, length = HEADER.unpack(self._exactly(HEADER.size))
        assert magic == C.COWPEN_FRAME_MAGIC
        return kind, ident, self._exactly(length)


@contextlib.contextmanager
def pair(serve: Callable[[Peer], None] | None = None, **more: Any) -> Iterator[tuple[AgentChannel, Peer]]:
    """A channel and its peer; ``serve`` drives the peer in a thread."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer, trouble = Peer(theirs), []

    def run() -> None:
        try:
            assert serve is not None
            serve(peer)
        except (OSError, EOFError):
            return  # the channel closed: the test is over
        except BaseException as error:  # noqa: BLE001  (told at the end of the test)
            trouble.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with theirs, AgentChannel(ours, **more) as channel:
        if serve is not None:
            thread.start()
        yield channel, peer
    if serve is not None:
        thread.join(10)
    assert not trouble, trouble


def test_the_header_is_as_the_guest_packs_it() -> None:
    assert protocol().sizeof("struct cowpen_frame") == HEADER.size


def test_a_run_over_slow_and_split_bytes() -> None:
    def serve(peer: Peer) -> None:
        _, ident, _ = peer.take()
        answer = frame(C.COWPEN_OUTPUT, ident, b"\0\xff", stream=2) + exit_frame(ident, 3)
        for byte in answer:
            peer.send(bytes([byte]))

    heard = []
    with pair(serve) as (channel, _):
        ended = channel.run(["/x"], seconds=10, on_output=lambda *what: heard.append(what))
    assert (ended.ending, ended.code, ended.seconds, ended.max_rss_kib) == (Ending.EXITED, 3, 1.5, 2048)
    assert heard == [(Stream.STDERR, b"\0\xff")]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.pack(0xDEADBEEF, 18, 0, 1, 16), "magic 0xdeadbeef"),
        (HEADER.pack(C.COWPEN_FRAME_MAGIC, 18, 0, 1, 0xFFFFFFFF), "length 4294967295"),
        (HEADER.pack(C.COWPEN_FRAME_MAGIC, 17, 1, 1, C.COWPEN_FRAME_PAYLOAD + 1), "length 65537"),
    ],
)
def test_garbage_is_named_at_once(header: bytes, words: str) -> None:
    with pair(lambda peer: (peer.take(), peer.send(header), None)[-1]) as (channel, _):
        begun = time.monotonic()
        with pytest.raises(ChannelError, match=words):
            channel.run(["/x"], seconds=30)
        assert time.monotonic() - begun < 5


def test_half_a_frame_and_then_nothing_reaches_the_deadline() -> None:
    def serve(peer: Peer) -> None:
        peer.take()
        peer.send(HEADER.pack(C.COWPEN_FRAME_MAGIC, C.COWPEN_DATA, 0, 1, 1000), b"x" * 500)

    with pair(serve) as (channel, _), pytest.raises(DeadlineError, match="/file"):
        channel.pull("/file", seconds=0.3)


def test_half_a_frame_and_then_the_end() -> None:
    def serve(peer: Peer) -> None:
        peer.take()
        peer.send(exit_frame(1)[:-1])
        peer.connection.close()

    with pair(serve) as (channel, _), pytest.raises(ChannelError, match="closed the channel"):
        channel.run(["/x"], seconds=30)


@pytest.mark.parametrize("size", [0, 4, 15, 17, 4096])
def test_exit_of_the_wrong_size(size: int) -> None:
    answering = pair(lambda peer: peer.send(frame(C.COWPEN_EXIT, peer.take()[1], b"\0" * size)))
    with answering as (channel, _), pytest.raises(ChannelError, match="wrong size"):
        channel.run(["/x"], seconds=10)


def test_unknown_way_to_end() -> None:
    payload = struct.pack("<IIII", 77, 0, 0, 0)
    answering = pair(lambda peer: peer.send(frame(C.COWPEN_EXIT, peer.take()[1], payload)))
    with answering as (channel, _), pytest.raises(ChannelError, match="77"):
        channel.run(["/x"], seconds=10)


def test_unknown_stream_is_dropped() -> None:
    def serve(peer: Peer) -> None:
        _, ident, _ = peer.take()
        peer.send(frame(C.COWPEN_OUTPUT, ident, b"?", stream=99), exit_frame(ident))

    heard = []
    with pair(serve) as (channel, _):
        channel.run(["/x"], seconds=10, on_output=lambda *what: heard.append(what))
    assert heard == []


def test_answers_of_earlier_requests_are_dropped() -> None:
    def serve(peer: Peer) -> None:
        peer.take()  # never answered in time
        assert peer.take()[0] == C.COWPEN_KILL  # nor is this
        _, ident, _ = peer.take()
        peer.send(frame(C.COWPEN_OUTPUT, ident - 1, b"late", stream=1), exit_frame(ident - 1, 1))
        peer.send(frame(C.COWPEN_OUTPUT, ident, b"right", stream=1), exit_frame(ident, 2))

    heard = []
    with pair(serve, scale=0.0) as (channel, _):
        with pytest.raises(DeadlineError):
            channel.run(["/x"], seconds=0.1)
        ended = channel.run(["/x"], seconds=10, on_output=lambda *what: heard.append(what))
    assert ended.code == 2
    assert heard == [(Stream.STDOUT, b"right")]


def test_an_overdue_program_is_looked_at_and_then_killed() -> None:
    order = []

    def serve(peer: Peer) -> None:
        _, ident, payload = peer.take()
        assert (
            struct.unpack_from("<I", payload)[0] > 60_000
        )  # the agent's own deadline is for a host that is gone
        order.append("started")
        kind, killed, most = peer.take()
        assert (kind, killed) == (C.COWPEN_KILL, ident)
        assert min(struct.unpack("<II", most)) >= 2000, "bytes and ms for telling of its threads"
        order.append("killed")
        peer.send(frame(C.COWPEN_OUTPUT, ident, b"its threads", stream=C.COWPEN_THREADS))
        peer.send(frame(C.COWPEN_OUTPUT, ident, b"last words", stream=1))
        peer.send(frame(C.COWPEN_EXIT, ident, struct.pack("<IIII", C.COWPEN_DEADLINE, 9, 100, 1)))

    heard = []
    with pair(serve) as (channel, _):
        ended = channel.run(
            ["/x"],
            seconds=0.1,
            on_output=lambda *what: heard.append(what),
            on_overdue=lambda: order.append("looked at"),
        )
    assert ended.ending is Ending.DEADLINE
    assert order == ["started", "looked at", "killed"]
    assert heard == [(Stream.THREADS, b"its threads"), (Stream.STDOUT, b"last words")]


def test_a_guest_slower_than_the_hellos_is_heard() -> None:
    """Each answer comes after the next hello was sent; it greets us all the same."""

    def serve(peer: Peer) -> None:
        first = peer.take()[1]
        while peer.take()[1] < first + 2:
            pass
        words = struct.pack("<I", C.COWPEN_PROTOCOL_VERSION) + b"6.1.0\0x86_64\0"
        peer.send(frame(C.COWPEN_READY, first, words))

    with pair(serve) as (channel, _):
        greeting = channel.hello(seconds=10)
    assert (greeting.release, greeting.machine) == ("6.1.0", "x86_64")


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "protocol 0"),
        (struct.pack("<I", 999), "protocol 999"),
        (struct.pack("<I", C.COWPEN_PROTOCOL_VERSION) + b"6.1", "incomplete"),
    ],
)
def test_bad_greeting(payload: bytes, words: str) -> None:
    answering = pair(lambda peer: peer.send(frame(C.COWPEN_READY, peer.take()[1], payload)))
    with answering as (channel, _), pytest.raises(ChannelError, match=words):
        channel.hello(seconds=10)


def test_push_while_the_guest_still_sends_an_abandoned_file() -> None:
    """Both sides would wait for the other to read, were the channel not to read while it writes."""
    received = bytearray()

    def serve(peer: Peer) -> None:
        _, ident, payload = peer.take()
        assert payload == struct.pack("<I", 1001) + b"/big"
        piece = frame(C.COWPEN_DATA, ident, b"x" * 60000)
        for _ in range(200):  # 12 MB, of which only the first piece is wanted
            peer.send(piece)
        while True:
            kind, ident, payload = peer.take()
            if kind == C.COWPEN_DATA:
                received.extend(payload)
                if not payload:
                    break
        peer.send(frame(C.COWPEN_DONE, ident))

    content = bytes(range(256)) * 8192
    with pair(serve) as (channel, _):
        with pytest.raises(ChannelError, match="larger than 1000 bytes"):
            channel.pull("/big", seconds=10, limit=1000)
        channel.push(content, "/x", seconds=30)
    assert len(received) == len(content)
    assert bool(received == content)


def test_a_flood_while_we_send_is_bounded() -> None:
    def serve(peer: Peer) -> None:
        ident = peer.take()[1]
        piece = frame(C.COWPEN_DATA, ident, b"x" * 60000)
        while True:
            peer.send(piece)

    with pair(serve) as (channel, _), pytest.raises(ChannelError, match="without end"):
        channel.push(b"x" * (64 << 20), "/x", seconds=30)


def test_refusal_says_what_and_why() -> None:
    words = struct.pack("<I", 2) + b"/no/file.part: No such file or directory\x1b[31m"
    answering = pair(lambda peer: peer.send(frame(C.COWPEN_FAILED, peer.take()[1], words)))
    with (
        answering as (channel, _),
        pytest.raises(ChannelError, match=r"pushing /no/file: .*No such file") as caught,
    ):
        channel.push(b"", "/no/file", seconds=10)
    assert "\x1b" not in str(caught.value)


def test_death_of_the_guest_ends_the_wait_at_once() -> None:
    class Dead:
        def fds(self) -> list[int]:
            return []

        def check(self) -> None:
            raise GuestDiedError("gone")

    with pair(watch=Dead()) as (channel, _), pytest.raises(GuestDiedError):
        channel.run(["/x"], seconds=30)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=64),
            st.builds(
                lambda kind, ident, payload, stream: frame(kind, ident, payload, stream=stream),
                st.integers(0, 25),
                st.integers(0, 3),
                st.binary(max_size=40),
                st.integers(0, 5),
            ),
        ),
        max_size=12,
    ),
    st.sampled_from(["run", "push", "pull", "hello"]),
)
def test_whatever_comes_ends_in_an_answer_or_a_guest_error(parts: list[bytes], verb: str) -> None:
    with pair() as (channel, peer):
        peer.send(*parts)
        peer.connection.shutdown(socket.SHUT_WR)
        calls: dict[str, Callable[[], object]] = {
            "run": lambda: channel.run(["/x"], seconds=5),
            "push": lambda: channel.push(b"x" * 100, "/x", seconds=5),
            "pull": lambda: channel.pull("/x", seconds=5),
            "hello": lambda: channel.hello(seconds=5),
        }
        begun = time.monotonic()
        with contextlib.suppress(GuestError):
            calls[verb]()
        assert time.monotonic() - begun < 4
