"""The ssh channel: the agent on a machine that already runs, spoken to through an SSH session.

The agent is the guest's own init, pushed as one static file and run as ``init --stdio``; it goes when the session
ends. Nothing else is installed there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ChannelError, DeadlineError, HostError, UserError
from harness.guest.agent import AgentChannel

if TYPE_CHECKING:
    import paramiko

_CONNECT_SECONDS = 30.0
_COMMAND_SECONDS = 60.0
_START_SECONDS = 90.0
_FOLDER = re.compile(r"/tmp/cowpen\.[A-Za-z0-9]+")  # noqa: S108  (on the other machine)

AgentFor = Callable[[str], Path]
"""Gives the agent's binary for a ``uname -m``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
    """Where a machine is reached and who is asked for there."""

    user: str
    host: str
    port: int = 22

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user}@{host}:{self.port}"


def parse_address(url: str) -> Address:
    """The address in ``ssh://USER@HOST:PORT``; the port may be left out. `UserError` for anything else."""
    example = "expected ssh://USER@HOST:PORT, for example ssh://root@127.0.0.1:2222"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UserError(f"--machine {url!r} ({error})", mend=example) from error
    if parts.scheme != "ssh" or not parts.hostname or not parts.username or parts.path.strip("/"):
        raise UserError(f"--machine {url!r}", mend=example)
    if parts.password:
        raise UserError(
            "--machine: a password does not belong into a command line", mend="use a key (--identity)"
        )
    return Address(user=parts.username, host=parts.hostname, port=port or 22)


class SshChannel(AgentChannel):
    """A machine reached by SSH; make one with `connect`."""

    def __init__(self, client: paramiko.SSHClient, session: paramiko.Channel, *, scale: float) -> None:
        session.settimeout(0.0)
        super().__init__(session, scale=scale)
        self._client = client

    def close(self) -> None:
        """End the session; the agent then ends, and removes itself."""
        super().close()
        self._client.close()


def connect(
    address: Address,
    agent_for: AgentFor,
    *,
    known_hosts: Path | None = None,
    identity: Path | None = None,
    scale: float = 1.0,
) -> SshChannel:
    """Open a session, push the agent and start it.

    The host's key must be in ``known_hosts`` (default: the user's own): a machine nobody has vouched for is
    refused. ``identity`` is a private key file (default: the user's keys and SSH agent). Raises `HostError` when the
    machine cannot be reached or trusted, `ChannelError` when it does not run the agent, `DeadlineError` when it
    stops answering.
    """
    import paramiko  # noqa: PLC0415  (0.2 s)

    client = paramiko.SSHClient()
    with contextlib.ExitStack() as stack:
        stack.callback(client.close)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            if known_hosts is None:
                client.load_system_host_keys()
            else:
                client.load_host_keys(str(known_hosts))
            client.connect(
                address.host,
                port=address.port,
                username=address.user,
                key_filename=str(identity) if identity else None,
                allow_agent=identity is None,
                look_for_keys=identity is None,
                timeout=_CONNECT_SECONDS,
                banner_timeout=_CONNECT_SECONDS,
                auth_timeout=_CONNECT_SECONDS,
                channel_timeout=_CONNECT_SECONDS,
            )
        except (paramiko.SSHException, OSError) as error:
            raise HostError(f"cannot reach {address} ({error})", mend=_mend(error, address)) from error
        try:
            with _at_most(_START_SECONDS, client, f"{address} to start the agent"):
                machine = _command(client, "uname -m").strip()
                folder = _push_agent(client, agent_for(machine))
                transport = client.get_transport()
                assert transport is not None  # connected above
                session = transport.open_session(timeout=_CONNECT_SECONDS)
                session.exec_command(f"{folder}/agent --stdio; rm -rf {folder}")
        except (paramiko.SSHException, OSError) as error:
            raise ChannelError(f"{address} does not run the agent ({error})") from error
        stack.pop_all()
        return SshChannel(client, session, scale=scale)


@contextlib.contextmanager
def _at_most(seconds: float, client: paramiko.SSHClient, what: str) -> Iterator[None]:
    """Bound waits that paramiko itself does not: it waits for ever for the answer to a request to run a command.

    The connection is closed at the deadline, which ends every wait on it; then `DeadlineError` is raised.
    """
    passed = threading.Event()

    def end() -> None:
        passed.set()
        client.close()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if passed.is_set():
            raise DeadlineError(f"waited {seconds:.0f} s in vain for {what}") from error
        raise
    finally:
        timer.cancel()


def _mend(error: Exception, address: Address) -> str:
    words = str(error)
    if "not found in known_hosts" in words:
        return f"connect once by hand to check its key: ssh -p {address.port} {address.user}@{address.host}"
    if "does not match" in words:
        return "its key is another than the one known; if that is right, remove the old one: ssh-keygen -R"
    if "uthentication" in words:
        return "install your public key there, or name its private key with --identity"
    return "is it up, and is the port right?"


def _command(client: paramiko.SSHClient, command: str, data: bytes = b"") -> str:
    """Run a shell command there and give what it prints; `ChannelError` if it fails."""
    stdin, stdout, stderr = client.exec_command(command, timeout=_COMMAND_SECONDS)
    stdin.write(data)
    stdin.channel.shutdown_write()
    printed = stdout.read(1 << 16).decode(errors="replace")
    said = stderr.read(1 << 16).decode(errors="replace").strip()
    if not stdout.channel.status_event.wait(_COMMAND_SECONDS):  # recv_exit_status() would wait for ever
        raise ChannelError(f"the machine's shell does not end {command.split(maxsplit=1)[0]!r}")
    status = stdout.channel.recv_exit_status()
    if status != 0:
        raise ChannelError(
            f"the machine's shell refuses {command.split(maxsplit=1)[0]!r} (status {status}: {said})"
        )
    return printed


def _push_agent(client: paramiko.SSHClient, agent: Path) -> str:
    printed = _command(
        client,
        'd=$(mktemp -d /tmp/cowpen.XXXXXX) && cat > "$d/agent" && chmod 700 "$d/agent" && echo "$d"',
        agent.read_bytes(),
    )
    folder = printed.strip()
    if not _FOLDER.fullmatch(folder):
        raise ChannelError(f"the machine's mktemp gave an odd name: {folder[:80]!r}")
    return folder
