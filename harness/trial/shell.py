"""An interactive guest: a person's terminal on a guest's serial console."""

from __future__ import annotations

import contextlib
import os
import re
import select
import termios
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.arch import Arch
from harness.cache import Cache
from harness.errors import GuestDiedError, Tell
from harness.guest import accelerator, initramfs
from harness.guest.guest import Guest, start
from harness.guest.machine import MachineShape
from harness.kernel.busybox import fetch_busybox
from harness.kernel.kernel import resolve
from harness.program.compile import compile_source
from harness.program.init import compile_init
from harness.program.parameters import resolve as resolve_parameters
from harness.program.program import load_program

_LEAVE = b"\x1d"  # Ctrl-], as in telnet and virsh console
# The applets a person reaches for; busybox finds out by the name it is called by.
_APPLETS = (
    "sh ls cat echo dmesg ps top kill mount umount dd hexdump xxd grep sed awk vi less find head tail wc sort "
    "sleep time taskset free uname mkdir rm cp mv ln chmod stty sync sysctl lsmod insmod rmmod poweroff reboot"
).split()


def interact(
    spec: str,
    arch: Arch,
    shape: MachineShape,
    *,
    programs: Sequence[str],
    folder: Path,
    cache: Cache,
    tell: Tell,
) -> None:
    """Boot a guest with a shell on its console and connect the terminal to it until either side ends.

    ``programs`` are names of cowpen's own programs, found in the guest's /bin with their default parameters.
    """
    kernel = resolve(spec, arch, cache, tell=tell)
    init = compile_init(arch, cache)
    proof = accelerator.prove(kernel, init, cache, tell=tell)
    busybox = fetch_busybox(arch, cache, tell).read_bytes()
    extra = {"bin/busybox": busybox}
    # A two-line script per applet: the archive stays free of links, and of a copy of busybox for each.
    for name in _APPLETS:
        extra[f"bin/{name}"] = f'#!/bin/busybox sh\nexec /bin/busybox {name} "$@"\n'.encode()
    extra["bin/sh"] = busybox
    for name in programs:
        program = load_program(name)
        values = resolve_parameters(program.parameters, {}, program=name)
        extra[f"bin/{name}"] = compile_source(program, values, arch, cache).binary.read_bytes()
    packed = initramfs.obtain(kernel, shape, init, cache, extra=extra)
    tell(f"booting {kernel.display} ({arch.name}, {proof.accelerator}); Ctrl-] ends the guest")
    with start(
        kernel=kernel,
        initramfs=packed,
        shape=shape,
        acceleration=proof.acceleration,
        speed=proof.speed(),
        folder=folder,
    ) as guest:
        try:
            with _raw_terminal():
                _converse(guest)
            guest.check()
        except GuestDiedError as end:
            tell(f"{end}")


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, which does its own echo; the terminal is as before in the end."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _converse(guest: Guest) -> None:
    """Pass bytes between terminal and console until the person leaves or the guest is gone."""
    console = guest.connection
    console.setblocking(False)
    screen = TerminalFilter()
    while True:
        readable, _, _ = select.select([0, console.fileno(), *guest.fds()], [], [], 1.0)
        if console.fileno() in readable:
            data = console.recv(65536)
            if not data:
                return
            _write_all(1, screen.pass_on(data))
        elif set(readable) & set(guest.fds()):
            guest.check()
        if 0 in readable:
            keys = os.read(0, 1024)
            if not keys or _LEAVE in keys:
                return
            console.sendall(keys)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class TerminalFilter:
    """Lets a guest draw on the terminal, and no more: what would set titles, clipboards or keys is dropped.

    Plain text, and the cursor and colour sequences that shells and editors use, pass; a sequence may be split over
    several calls.
    """

    _ALLOWED = re.compile(rb"\x1b(?:\[[0-9;?]{0,16}[ABCDEFGHJKLMPSTXdfhlmnr]|[78DEM=>]|[()][0AB])")
    _UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;?]{0,16}|[()])?\Z")
    _PLAIN = re.compile(rb"[^\x00-\x06\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]+")

    def __init__(self) -> None:
        self._held = b""

    def pass_on(self, data: bytes) -> bytes:
        """What of ``data`` may reach the terminal now."""
        data = self._held + data
        self._held = b""
        shown = bytearray()
        position = 0
        while position < len(data):
            if match := self._PLAIN.match(data, position) or self._ALLOWED.match(data, position):
                shown += match.group()
                position = match.end()
            elif self._UNFINISHED.match(data, position):
                self._held = data[position:]
                break
            else:
                position += 1
        return bytes(shown)
