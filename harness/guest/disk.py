"""The disk of a guest: an nbdkit of its own, spoken to over a socket pair."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from harness import tools
from harness.guest.machine import Disk
from harness.process import Process


def serve(disk: Disk, stack: contextlib.ExitStack, log: Path) -> socket.socket:
    """Start an nbdkit for ``disk`` and return the client's end of its connection.

    The server lives until ``stack`` is left. Its memory disk starts as zeros; contents are never shared
    between guests. No name appears in any file system: the two processes hold the ends of one socket pair.
    """
    theirs, ours = socket.socketpair()
    with theirs:
        arguments = [
            tools.find("nbdkit"),
            "--single",  # serve the one client on standard input and output, and end with it
            "--foreground",
            "--log=stderr",
        ]
        delays = {"rdelay": disk.read_delay_ms, "wdelay": disk.write_delay_ms}
        wanted = [f"{name}={value}ms" for name, value in delays.items() if value]
        if wanted:
            arguments.append("--filter=delay")
        arguments += ["memory", f"{disk.size_mib}M", *wanted]
        with log.open("ab") as messages:
            process = Process(arguments, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=messages)
        stack.enter_context(process)
    stack.enter_context(ours)
    return ours
