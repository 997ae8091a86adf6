"""The ssh channel keeps the contract on a machine that already runs: this host, through an sshd of the test's own."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from channel_contract import SECONDS, ChannelContract, Program, Reached
from trouble import Ended, cowpen, program

from harness.arch import get_arch
from harness.cache import Cache
from harness.errors import DeadlineError, HostError, ToolMissingError
from harness.guest import ssh
from harness.program.init import compile_init

pytestmark = pytest.mark.guest

_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user_key.pub
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
StrictModes no
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """A running sshd: its address, the files of a client that may come in, and what connects to it."""

    address: ssh.Address
    folder: Path
    agent_for: Callable[[str], Path]

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def vouch(self, key: Path) -> None:
        """Let ``key``, a public key file, be the one known for this host."""
        kind, words = key.read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.address.port} {kind} {words}\n")

    def connect(self, *, identity: str = "user_key", address: ssh.Address | None = None) -> ssh.SshChannel:
        return ssh.connect(
            address or self.address,
            self.agent_for,
            known_hosts=self.known_hosts,
            identity=self.folder / identity,
        )


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, user_cache: Cache) -> Iterator[Server]:
    if not Path(_SSHD).exists():
        pytest.skip("no sshd (apt-get install openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host_key", "user_key", "other_key"):
        _keygen(folder / name)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation wants it
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(_CONFIG.format(port=port, folder=folder))
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([_SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        for _ in range(200):
            if process.poll() is not None:
                pytest.skip(f"sshd does not start here: {(folder / 'sshd.log').read_text()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        try:
            agent = compile_init(get_arch(platform.machine()), user_cache)
        except ToolMissingError as error:
            pytest.skip(str(error))
        server = Server(
            address=ssh.Address(user=getpass.getuser(), host="127.0.0.1", port=port),
            folder=folder,
            agent_for=lambda machine: agent,
        )
        server.vouch(folder / "host_key.pub")
        yield server
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="class")
def reached(server: Server, class_folder: Path) -> Iterator[Reached]:
    with server.connect() as channel:
        yield Reached(
            channel=channel, arch=platform.machine(), release=platform.release(), folder=str(class_folder)
        )


class TestSsh(ChannelContract):
    pass


def _agents() -> dict[int, str]:
    """The agents that run on this host: pid to the folder they run from."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].startswith(b"/tmp/cowpen.") and words[0].endswith(b"/agent"):
                found[int(process.name)] = str(Path(os.fsdecode(words[0])).parent)
    return found


def _gone(condition: Callable[[], bool]) -> bool:
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.05)
    return False


class TestSession:
    def test_leaves_nothing_behind(self, server: Server) -> None:
        before = _agents()
        channel = server.connect()
        assert _gone(lambda: bool(_agents().items() - before.items()))
        ((pid, folder),) = _agents().items() - before.items()
        assert Path(folder).is_dir()
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        channel.hello(seconds=SECONDS)
        channel.close()
        assert _gone(lambda: not Path(f"/proc/{pid}").exists() and not Path(folder).exists())

    def test_a_program_ends_with_its_session(
        self, server: Server, class_folder: Path, helper: Callable[[str], bytes]
    ) -> None:
        """As when cowpen is interrupted in the midst of a run."""
        channel = server.connect()
        reached = Reached(
            channel=channel, arch=platform.machine(), release=platform.release(), folder=str(class_folder)
        )
        program = Program(reached, helper(platform.machine()))
        marker = f"marker-{time.monotonic_ns()}"
        pids: list[int] = []

        class InterruptedRunError(Exception):
            pass

        def interrupt(stream: object, data: bytes) -> None:
            pids.extend(_with_argument(marker))
            raise InterruptedRunError

        with channel, pytest.raises(InterruptedRunError):
            channel.run([program.path, "forever", marker], seconds=SECONDS, on_output=interrupt)
        assert pids
        assert _gone(lambda: not _with_argument(marker))


def _with_argument(word: str) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if word.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(process.name))
            except OSError:
                continue
    return found


class TestTrust:
    @pytest.fixture(autouse=True)
    def known_again(self, server: Server) -> Iterator[None]:
        yield
        server.vouch(server.folder / "host_key.pub")

    def test_unknown_host_is_refused(self, server: Server) -> None:
        server.known_hosts.write_text("")
        with pytest.raises(HostError, match="not found in known_hosts") as caught:
            server.connect()
        assert f"ssh -p {server.address.port}" in str(caught.value.mend)

    def test_changed_host_key_is_refused(self, server: Server) -> None:
        server.vouch(server.folder / "other_key.pub")
        with pytest.raises(HostError, match="does not match") as caught:
            server.connect()
        assert "ssh-keygen -R" in str(caught.value.mend)

    def test_wrong_user_key_is_refused(self, server: Server) -> None:
        with pytest.raises(HostError, match="uthentication") as caught:
            server.connect(identity="other_key")
        assert "--identity" in str(caught.value.mend)

    def test_nobody_listens(self, server: Server) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            nobody = dataclasses.replace(server.address, port=probe.getsockname()[1])
            with pytest.raises(HostError, match="cannot reach ssh://") as caught:
                server.connect(address=nobody)
        assert "is it up" in str(caught.value.mend)


def test_machine_that_stops_answering(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sshd is stopped in mid-session: paramiko would wait for its answer for ever."""
    monkeypatch.setattr(ssh, "_START_SECONDS", 3.0)
    stopped: list[int] = []

    def stop_sessions(machine: str) -> Path:
        agent = server.agent_for(machine)
        listener = int((server.folder / "sshd.pid").read_text())
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                _, _, rest = entry.read_text().rpartition(")")
                if int(rest.split()[1]) == listener:
                    stopped.append(int(entry.parent.name))
                    os.kill(stopped[-1], signal.SIGSTOP)
        assert stopped
        return agent

    begun = time.monotonic()
    try:
        with pytest.raises(DeadlineError, match="to start the agent"):
            dataclasses.replace(server, agent_for=stop_sessions).connect()
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - begun < 30


# -- cowpen run --machine ----------------------------------------------------------------------------


def _run_there(server: Server, folder: Path, name: str, *more: str) -> Ended:
    where = str(server.address)
    keys = ("--identity", server.folder / "user_key", "--known-hosts", server.folder / "known_hosts")
    return cowpen(
        "run", "--program", program(name), "--machine", where, *keys, *more, "--json", folder=folder
    )


def test_run_on_a_machine_that_runs(server: Server, tmp_path: Path) -> None:
    """A user's program on it, with its kernel in the verdict; that attempts are not independent is said."""
    ended = _run_there(server, tmp_path, "ok", "--attempts", "3")
    if "cannot read the machine's kernel log" in ended.out:
        pytest.skip("this user may not read the kernel's log")
    assert (ended.code, ended.outcomes) == (0, ["clean"] * 3), ended.err
    assert ended.verdict["kernel"]["spec"] == str(server.address)
    assert ended.verdict["kernel"]["release"] == platform.release()
    assert ended.verdict["arch"] == platform.machine()
    assert "not reset between attempts" in ended.err


def test_hang_on_a_machine_that_runs(server: Server, tmp_path: Path) -> None:
    """What cannot be seen from outside the agent can tell: where each thread of the program is."""
    ended = _run_there(server, tmp_path, "fork_lock", "--attempts", "1", "--seconds", "1")
    if "cannot read the machine's kernel log" in ended.out:
        pytest.skip("this user may not read the kernel's log")
    assert (ended.code, ended.outcomes) == (125, ["hang"]), ended.err
    (attempt,) = ended.records("attempt")
    finding = attempt["findings"][attempt["cause"]]
    assert (finding["kind"], finding["frame"], len(finding["threads"])) == ("hang", "child_takes_lock", 3)


def test_run_on_a_machine_with_a_wrong_key(server: Server, tmp_path: Path) -> None:
    server.vouch(server.folder / "other_key.pub")
    try:
        ended = _run_there(server, tmp_path, "ok")
    finally:
        server.vouch(server.folder / "host_key.pub")
    assert ended.code == 125
    assert "cannot reach" in ended.err
    assert "ssh-keygen -R" in ended.err


def test_run_on_a_machine_excludes_a_kernel(server: Server, tmp_path: Path) -> None:
    ended = _run_there(server, tmp_path, "ok", "--kernel", "debian:6.1")
    assert ended.code == 2
    assert "--machine excludes --kernel" in ended.err
