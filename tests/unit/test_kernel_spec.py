"""Kernel specs: what they mean, and that every mistake is told as one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.arch import AARCH64, X86_64
from harness.errors import UserError
from harness.kernel.spec import KNOWN_SPECS, DebianSpec, PathSpec, check_arch, parse


@pytest.mark.parametrize(
    ("text", "series", "flavour", "canonical"),
    [
        ("debian:6.1", "6.1", "cloud", "debian:6.1"),
        ("debian:6.12-cloud", "6.12", "cloud", "debian:6.12"),
        ("debian:6.12-16k", "6.12", "16k", "debian:6.12-16k"),
        ("debian:6.1-rt", "6.1", "rt", "debian:6.1-rt"),
    ],
)
def test_debian(text: str, series: str, flavour: str, canonical: str) -> None:
    assert parse(text) == DebianSpec(canonical, series, flavour)


def test_path() -> None:
    spec = parse("path:/b/bzImage,vmlinux=/b/vmlinux,modules=/m")
    assert isinstance(spec, PathSpec)
    assert (spec.image, spec.vmlinux, spec.modules, spec.config) == (
        Path("/b/bzImage"),
        Path("/b/vmlinux"),
        Path("/m"),
        None,
    )


def test_path_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    spec = parse("path:~/bzImage,config=~/.config")
    assert isinstance(spec, PathSpec)
    assert spec.image == Path("/home/someone/bzImage")
    assert spec.config == Path("/home/someone/.config")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("debain:6.1", ["unknown kernel spec 'debain:6.1'", "debian:VERSION", "did you mean debian:6.1"]),
        ("6.1", ["unknown kernel spec", "path:IMAGE"]),
        ("", ["unknown kernel spec"]),
        ("tree:~/linux@", ["a part is empty", "tree:DIR[@REV][+FRAGMENT…]"]),
        ("tree:linux\n", ["control character"]),
        ("debian:", ["not a series"]),
        ("debian:6", ["not a series"]),
        ("debian:6.1.192", ["not a series"]),
        ("debian:٦.١", ["not a series"]),
        ("debian:6.1-", ["unknown flavour"]),
        ("debian:6.12-16", ["unknown flavour '16'", "16k"]),
        ("path:", ["no image"]),
        ("path:a,vmlinx=b", ["unknown part 'vmlinx=b'", "vmlinux"]),
        ("path:a,vmlinux=", ["without a value"]),
        ("path:a,config", ["without a value"]),
        ("path:a,config=b,config=c", ["given twice"]),
        ("path:a\nb", ["control character"]),
    ],
)
def test_mistakes(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    for word in words:
        assert word in str(caught.value)


def test_flavour_of_another_arch() -> None:
    check_arch(parse("debian:6.12-16k"), AARCH64)
    with pytest.raises(UserError, match="does not exist for x86_64: it exists for aarch64"):
        check_arch(parse("debian:6.12-16k"), X86_64)


@pytest.mark.parametrize("text", KNOWN_SPECS)
def test_known_specs_parse_to_themselves(text: str) -> None:
    assert parse(text).text == text


@given(st.one_of(st.text(), st.text().map("debian:{}".format), st.text().map("path:{}".format)))
def test_never_another_error(text: str) -> None:
    try:
        spec = parse(text)
    except UserError:
        return
    assert parse(spec.text) == spec
