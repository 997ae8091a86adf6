"""The host's apt sources: Debian's are taken with their keys, all others are left alone."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.kernel.aptsources import read_sources, render, suites

_DEB822 = """\
# the usual
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-pgdg
Components: main contrib
Architectures: amd64
# a comment inside
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://vendor.example/apt
Suites: nodistro
Components: main

Types: deb
URIs: http://vendor.example/docker
Suites: bookworm
Components: stable

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: trixie
Components: main

Types: deb-src
URIs: http://mirror.example/debian
Suites: sid
Components: main
"""
_ONE_LINE = """\
deb http://one.example/debian bullseye main contrib # trailing
deb [arch=amd64,i386 signed-by=/k/a.gpg trusted=yes] http://two.example/debian bookworm-security main
#deb http://off.example/debian bookworm main
deb-src http://src.example/debian bookworm main
deb https://packages.example/ bookworm-pgdg main
deb broken
deb http://flat.example/ ./
"""


def test_deb822(tmp_path: Path) -> None:
    path = tmp_path / "debian.sources"
    path.write_text(_DEB822)
    found = read_sources([path])
    assert [stanza["uris"] for stanza in found] == ["http://mirror.example/debian"]
    assert suites(found) == ["bookworm", "bookworm-updates"]
    text = render(found, "arm64")
    assert "Types: deb\n" in text
    assert "Architectures: arm64\n" in text
    assert "Components: main\n" in text
    assert " abcd\n -----END" in text  # an embedded key travels whole
    assert "amd64" not in text
    path.write_text(text)
    assert suites(read_sources([path])) == suites(found)  # what is written reads as the same


def test_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sources.list"
    path.write_text(_ONE_LINE)
    found = read_sources([path])
    assert [stanza["uris"] for stanza in found] == ["http://one.example/debian", "http://two.example/debian"]
    assert found[1]["signed-by"] == "/k/a.gpg"
    assert found[1]["trusted"] == "yes"
    assert "Architectures: arm64\n" in render(found[1:], "arm64")


def test_unreadable_is_skipped(tmp_path: Path) -> None:
    assert read_sources([tmp_path / "gone.list", tmp_path]) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.sampled_from([".list", ".sources"]))
def test_any_text(tmp_path: Path, text: str, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_text(text, encoding="utf-8", errors="replace")
    render(read_sources([path]), "amd64")
