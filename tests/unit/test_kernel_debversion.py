"""Debian versions sort as dpkg sorts them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kernel.debversion import compare, upstream

_VERSIONS = st.from_regex(r"([0-9]:)?[0-9][0-9a-c.+~]{0,8}(-[0-9a-c.+~]{1,5})?", fullmatch=True)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.1.9-1", "6.1.10-1"),
        ("6.12.117-1~deb12u1", "6.12.117-1"),
        ("6.1.192-2", "6.1.192-10"),
        ("6.1~rc1-1", "6.1-1"),
        ("9.9-1", "1:0.1-1"),
        ("linux-image-6.1.0-9-amd64", "linux-image-6.1.0-10-amd64"),
    ],
)
def test_order(older: str, newer: str) -> None:
    assert compare(older, newer) < 0 < compare(newer, older)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg to compare with")
@settings(max_examples=150, deadline=None)
@given(_VERSIONS, _VERSIONS)
def test_same_as_dpkg(left: str, right: str) -> None:
    relation = "lt" if compare(left, right) < 0 else "gt" if compare(left, right) > 0 else "eq"
    command = ["dpkg", "--compare-versions", left, relation, right]
    assert subprocess.run(command, check=False, timeout=20).returncode == 0, relation


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("6.1.192-2", "6.1.192"),
        ("6.12.117-1~deb12u1", "6.12.117"),
        ("1:6.1-rc1-3", "6.1-rc1"),
        ("6.1", "6.1"),
    ],
)
def test_upstream(version: str, expected: str) -> None:
    assert upstream(version) == expected
