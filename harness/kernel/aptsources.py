"""Which package archives to ask for stock Debian kernels: the host's own Debian sources, as it has them.

Third-party archives of the host are left out: they have no Debian kernels, and their trouble is not ours.
Formats: sources.list(5).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from harness import tools

Stanza = dict[str, str]
"""One archive in deb822 form: field name in lower case -> value (may have several lines)."""

_RELEASES = (
    "stretch|buster|bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable"
)
_DEBIAN_SUITE = re.compile(rf"(?:{_RELEASES})(?:-updates|-security|-backports|-proposed-updates|/updates)?")
# One-line options whose deb822 names are not just capitalised differently; sources.list(5).
_OPTION_NAMES = {"arch": "architectures", "lang": "languages", "target": "targets"}


def host_sources() -> list[Stanza]:
    """The enabled Debian archives with a ``main`` component, out of the host's source files."""
    return read_sources(host_files())


def read_sources(files: Iterable[Path]) -> list[Stanza]:
    """The same, out of given files."""
    stanzas = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # apt itself skips what it may not read; if nothing is left, the caller says so
        parse = _parse_deb822 if path.suffix == ".sources" else _parse_one_line
        stanzas += [found for stanza in parse(text) if (found := _debian_part(stanza))]
    return stanzas


def host_files() -> list[Path]:
    """The host's source files, wherever its apt configuration says they are."""
    output = tools.run(
        ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"],
        seconds=30,
    )
    places = dict(word.split("=", 1) for word in shlex.split(output.stdout) if "=" in word)
    files = [Path(places["LIST"])] if places.get("LIST") else []
    if places.get("PARTS") and Path(places["PARTS"]).is_dir():
        # apt reads these two endings and nothing else.
        folder = Path(places["PARTS"])
        files += sorted(path for path in folder.iterdir() if path.suffix in (".list", ".sources"))
    return files


def render(stanzas: Iterable[Stanza], debian_arch: str) -> str:
    """The text of a ``.sources`` file: binary packages of one architecture."""
    blocks = []
    for stanza in stanzas:
        fields = {**stanza, "types": "deb", "architectures": debian_arch}
        blocks.append("".join(f"{name.title()}: {value}\n" for name, value in fields.items()))
    return "\n".join(blocks)


def suites(stanzas: Iterable[Stanza]) -> list[str]:
    """The suites looked in, for messages."""
    return list(dict.fromkeys(suite for stanza in stanzas for suite in stanza["suites"].split()))


def _debian_part(stanza: Stanza) -> Stanza | None:
    wanted = [suite for suite in stanza.get("suites", "").split() if _DEBIAN_SUITE.fullmatch(suite)]
    usable = (
        "deb" in stanza.get("types", "").split()
        and stanza.get("enabled", "yes").lower() not in ("no", "false", "0", "off", "without", "disable")
        and "main" in stanza.get("components", "").split()
        and stanza.get("uris", "").strip()
    )
    if not wanted or not usable:
        return None
    return {**stanza, "suites": " ".join(wanted), "components": "main"}


def _parse_deb822(text: str) -> list[Stanza]:
    stanzas: list[Stanza] = [{}]
    name = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
            name = ""
        elif line[0] in " \t":
            if name:
                stanzas[-1][name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            stanzas[-1][name] = value.strip()
    return [stanza for stanza in stanzas if stanza]


def _parse_one_line(text: str) -> list[Stanza]:
    stanzas = []
    for line in text.splitlines():
        head, bracket, tail = line.partition("#")[0].strip().partition("[")
        options, _, rest = tail.partition("]") if bracket else ("", "", "")
        words = head.split() + rest.split()
        if len(words) < 3:
            continue
        stanza = {
            "types": words[0],
            "uris": words[1],
            "suites": words[2],
            "components": " ".join(words[3:]),
        }
        for option in options.split():
            key, equals, value = option.partition("=")
            if equals:
                key = key.lower().removesuffix("+").removesuffix("-")
                stanza[_OPTION_NAMES.get(key, key)] = value.replace(",", " ")
        stanzas.append(stanza)
    return stanzas
