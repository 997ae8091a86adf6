"""A private apt: asks the host's Debian archives about any architecture, without root and without a
trace in the host's own apt configuration. Signatures and hashes are checked by apt itself.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
import time
from pathlib import Path

from harness import tools
from harness.errors import HostError
from harness.kernel import aptsources
from harness.kernel.aptsources import Stanza

_UPDATE_SECONDS = 300.0
_QUERY_SECONDS = 60.0
_DOWNLOAD_SECONDS = 900.0

# How the host reaches its archives (proxies, client certificates, clocks) holds for us too; its hooks,
# its index targets and its leave to take unsigned packages do not.
_KEPT = re.compile(
    r"Acquire::(?:https?|ftp|mirror|socks\w*|Check-\w+|Check-Valid-Until|Force\w+|By-Hash|PDiffs"
    r"|Max-ValidTime|Min-ValidTime)\b[^\s]* .*"
)
_OPTIONS = """\
APT::Architecture "{arch}";
APT::Architectures "{arch}";
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/log";
Dir::Etc "{folder}/etc";
Dir::Etc::sourcelist "none";
Dir::Etc::sourceparts "sources.list.d";
{host_keys}Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"""
# Where the host keeps what vouches for its archives: variable of apt-config, option, kind.
_HOST_KEYS = (
    ("TRUSTED", "Dir::Etc::trusted", "f"),
    ("TRUSTEDPARTS", "Dir::Etc::trustedparts", "d"),
    ("NETRC", "Dir::Etc::netrc", "f"),
    ("NETRCPARTS", "Dir::Etc::netrcparts", "d"),
)

# What apt's own words point at; the last row holds for everything else.
_TROUBLE = (
    (
        re.compile(r"No space left|not have enough free space|Disk quota"),
        "no space left for packages",
        "free some space, or point XDG_CACHE_HOME at a larger disk",
    ),
    (
        re.compile(r"NO_PUBKEY|is not signed|signatures? (?:were|was|could)|EXPKEYSIG|Hash Sum mismatch"),
        "the package archive's signature was not accepted",
        "apt-get install debian-archive-keyring, and see that `apt-get update` works",
    ),
    (
        re.compile(""),
        "cannot reach the package archive",
        "see that `apt-get update` works; path:IMAGE kernels need no network",
    ),
)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One package in the archive's index."""

    package: str
    version: str
    sha256: str
    size: int
    """Bytes of the ``.deb``."""
    filename: str
    """Path below the archive's root."""


class Apt:
    """apt for one Debian architecture and one list of archives, with its state in ``folder``.

    Not safe for two users at once: the caller holds a lock.
    """

    def __init__(self, folder: Path, debian_arch: str, sources: list[Stanza]) -> None:
        self.folder = folder
        self.debian_arch = debian_arch
        self.sources = sources
        self._stamp = folder / "updated"

    @property
    def age(self) -> float | None:
        """Seconds since the index was last complete; None if it never was."""
        try:
            age = time.time() - self._stamp.stat().st_mtime
        except OSError:
            return None
        return age if age >= 0 else None  # a clock that was set back tells nothing

    def update(self) -> str:
        """Fetch the index. Returns apt's complaint if some archives failed but there is an index.

        Raises `HostError` with apt's own words when no index is to be had.
        """
        self._configure()
        output = self._run("apt-get", "-q", "update", seconds=_UPDATE_SECONDS)
        if output.status == 0:
            self._stamp.touch()
            return ""
        self._stamp.unlink(missing_ok=True)
        if not any((self.folder / "state/lists").glob("*_Packages*")):
            raise _trouble(output)
        return _complaint(output)

    def names(self, prefix: str) -> list[str]:
        """Names of all packages that begin with ``prefix``."""
        output = self._run("apt-cache", "pkgnames", prefix, seconds=_QUERY_SECONDS)
        return sorted(set(output.stdout.split()))

    def candidates(self, names: list[str]) -> list[Candidate]:
        """Every version of the named packages that the archives hold now."""
        if not names:
            return []
        output = self._run("apt-cache", "show", "--", *names, seconds=_QUERY_SECONDS)
        found = []
        for block in output.stdout.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if _FIELD.match(line))
            if fields.keys() >= {"Package", "Version", "SHA256", "Size", "Filename"}:
                found.append(
                    Candidate(
                        fields["Package"],
                        fields["Version"],
                        fields["SHA256"],
                        int(fields["Size"]),
                        fields["Filename"],
                    )
                )
        return found

    def origin(self, candidate: Candidate) -> str:
        """The archive that has it, such as ``http://debian.example/debian bookworm/main``; may be empty."""
        output = self._run("apt-cache", "madison", candidate.package, seconds=_QUERY_SECONDS)
        for line in output.stdout.splitlines():
            columns = [column.strip() for column in line.split("|")]
            if len(columns) == 3 and columns[1] == candidate.version:
                # A URI may hold a user's name and password: never keep those.
                return re.sub(r"//[^/@\s]*@", "//", columns[2]).removesuffix(" Packages")
        return ""

    def download(self, candidate: Candidate, folder: Path) -> Path:
        """Fetch the package, verified by apt against the signed index, into the empty ``folder``."""
        output = self._run(
            "apt-get",
            "-q",
            "download",
            f"{candidate.package}={candidate.version}",
            seconds=_DOWNLOAD_SECONDS,
            cwd=folder,
        )
        debs = list(folder.glob("*.deb"))
        if output.status != 0 or len(debs) != 1:
            raise _trouble(output)
        return debs[0]

    def _configure(self) -> None:
        if '"' in str(self.folder) or "\n" in str(self.folder):
            raise HostError(f"apt cannot work in {self.folder}", mend="a path without quotation marks")
        for name in (
            "state/lists/partial",
            "cache/archives/partial",
            "log",
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
        ):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        (self.folder / "etc/sources.list.d/cowpen.sources").write_text(
            aptsources.render(self.sources, self.debian_arch), encoding="utf-8"
        )
        words = [word for name, option, kind in _HOST_KEYS for word in (name, f"{option}/{kind}")]
        host_keys = ""
        for line in tools.run(["apt-config", "shell", *words], seconds=30).stdout.splitlines():
            name, _, value = line.partition("=")
            host_keys += "".join(
                f'{option} "{value.strip(chr(39))}";\n' for key, option, _ in _HOST_KEYS if key == name
            )
        text = _OPTIONS.format(arch=self.debian_arch, folder=self.folder, host_keys=host_keys)
        if os.geteuid() == 0:
            # apt as root would fetch as the user _apt, who may not enter root's cache folder.
            text += 'APT::Sandbox::User "root";\n'
        dump = tools.run(["apt-config", "dump"], seconds=30).stdout
        text += "".join(f"{line}\n" for line in dump.splitlines() if _KEPT.fullmatch(line))
        write_atomically(self.folder / "apt.conf", text)

    def _run(self, *command: str, seconds: float, cwd: Path | None = None) -> tools.Output:
        env = {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}
        return tools.run(command, seconds=seconds, cwd=cwd, env=env, check=None)


_FIELD = re.compile(r"(?:Package|Version|SHA256|Size|Filename): ")


def _complaint(output: tools.Output) -> str:
    """The line of apt's output that says most: what failed and why, without a password in a URI."""
    lines = [line[2:].strip() for line in output.stderr.splitlines() if line[:2] in ("E:", "W:")]
    lines.sort(key=lambda line: not line.startswith("Failed to fetch"))  # stable: these first
    said = lines[0] if lines else output.stderr.strip().rpartition("\n")[2]
    said = re.sub(r"//[^/@\s]*@", "//", said)
    return " ".join(said.split()) or f"status {output.status}"


def _trouble(output: tools.Output) -> HostError:
    words = output.stderr + output.stdout
    message, mend = next((message, mend) for pattern, message, mend in _TROUBLE if pattern.search(words))
    return HostError(f"{message} ({_complaint(output)})", mend=mend, detail=words)


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step: nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
