"""The order of Debian package versions (deb-version(7)), without a process per comparison."""

from __future__ import annotations

import itertools
import re

_PARTS = re.compile(r"([^0-9]*)([0-9]*)")


def _weight(character: str) -> int:
    # A tilde sorts before everything, even before the end (which weighs 0); letters before the rest.
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _key(text: str) -> list[tuple[tuple[int, ...], int]]:
    """A sort key for one part: alternately text, by weight and closed by 0, and a number."""
    return [
        ((*map(_weight, word), 0), int(number or 0))
        for word, number in _PARTS.findall(text)
        if word or number
    ]


def _compare(left: str, right: str) -> int:
    for a, b in itertools.zip_longest(_key(left), _key(right), fillvalue=((0,), 0)):
        if a != b:
            return -1 if a < b else 1
    return 0


def compare(left: str, right: str) -> int:
    """Negative, zero or positive, as ``left`` is older than, the same as or newer than ``right``."""
    left_epoch, left_rest = _epoch(left)
    right_epoch, right_rest = _epoch(right)
    if left_epoch != right_epoch:
        return -1 if left_epoch < right_epoch else 1
    left_upstream, left_revision = _revision(left_rest)
    right_upstream, right_revision = _revision(right_rest)
    return _compare(left_upstream, right_upstream) or _compare(left_revision, right_revision)


def _epoch(version: str) -> tuple[int, str]:
    epoch, colon, rest = version.partition(":")
    return (int(epoch), rest) if colon and epoch.isdigit() else (0, version)


def _revision(version: str) -> tuple[str, str]:
    upstream, dash, revision = version.rpartition("-")
    return (upstream, revision) if dash else (version, "")


def upstream(version: str) -> str:
    """The upstream part: ``6.1.192`` of ``6.1.192-2``."""
    return _revision(_epoch(version)[1])[0]
