"""The catalogue: loading, versions, signatures, expectations."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bug import Bug, Signature, list_bugs, load_bug
from harness.console.finding import Finding, Frame, Thread, corruption_finding, hang_finding
from harness.errors import UserError
from harness.expectation import Expectation
from harness.kernel.definition import define
from harness.kernel.names import definition_files

RECORD = """
id = "x-1"
title = "t"
[[programs]]
name = "smoke"
[[signatures]]
kind = "BUG"
"""


def load_text(tmp_path, text, name="x-1") -> Bug:
    (tmp_path / f"{name}.toml").write_text(text)
    return load_bug(name, folder=tmp_path)


def test_defaults(tmp_path) -> None:
    (program,) = load_text(tmp_path, RECORD).programs
    assert (program.memory_mib, program.cpus, program.attempts, program.disk) == (512, 2, 10, None)


def test_settings_are_what_a_user_would_type(tmp_path) -> None:
    record = RECORD.replace(
        'name = "smoke"', 'name = "smoke"\nset = {a = true, b = 3, c = "x"}\ndisk = {size = "64M"}'
    )
    (program,) = load_text(tmp_path, record).programs
    assert program.settings == {"a": "true", "b": "3", "c": "x"}
    assert program.disk is not None
    assert program.disk.bytes == 64 << 20


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "BUG"', 'kind = "BUGG"', ["signatures.0.kind", "did you mean BUG"]),
        ('kind = "BUG"', 'kind = "BUG"\nfile = "mm/memory.c:12"', ["signatures.0.file", "without a line"]),
        ('kind = "BUG"', 'kind = "BUG"\ntitle = "(a+)+$"', ["signatures.0.title", "none after a group"]),
        ('kind = "BUG"', 'kind = "BUG"\ntitle = "("', ["signatures.0.title", "not a regular expression"]),
        ('kind = "BUG"', 'kind = "BUG"\nprogram = "nope"', ["signatures.0.program", "nope"]),
        ('name = "smoke"', 'name = "smoke"\ncpus = 0', ["programs.0.cpus", "greater than or equal to 1"]),
        ('name = "smoke"', 'name = "smoke"\ncpu = 1', ["programs.0.cpu", "not permitted"]),
        ('name = "smoke"', 'name = "smoke"\ndisk = {size = "64 MB"}', ["programs.0.disk.size", "pattern"]),
        ('name = "smoke"', 'name = "smoke"\nneeds = ["AIO"]', ["programs.0.needs.0", "CONFIG_"]),
        ("[[signatures]]", '[[programs]]\nname = "smoke"\n[[signatures]]', ["smoke is there twice"]),
        ('id = "x-1"', 'id = "x-2"', ["id: expected 'x-1'"]),
        ('id = "x-1"', "id = ", ["not TOML"]),
    ],
)
def test_error_names_file_key_and_expected(tmp_path, old, new, words) -> None:
    with pytest.raises(UserError) as caught:
        load_text(tmp_path, RECORD.replace(old, new))
    for word in ["x-1.toml", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('kernels = "6.3"\nverdict = "clean"', ["kernels", ">=5.11,<6.3"]),
        ('kernels = "<six"\nverdict = "clean"', ["kernels"]),
        ('kernels = "<6.3"\nverdict = "clean"\nrate = 0.5', ["rate"]),
        ('kernels = "<6.3"\nverdict = "maybe"', ["verdict", "'reproduced' or 'clean'"]),
        ('kernels = "*"\nverdict = "clean"\narches = ["arm65"]', ["arches", "arm64"]),
    ],
)
def test_error_in_expectation(tmp_path, line, words) -> None:
    with pytest.raises(UserError) as caught:
        load_text(tmp_path, f"{RECORD}\n[[expectations]]\n{line}\n")
    for word in ["x-1.toml: expectations.0", *words]:
        assert word in str(caught.value)


def test_unknown_bug_and_program_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean rhbz-471613"):
        load_bug("rhbz-47161")
    with pytest.raises(UserError, match="unknown bug"):
        load_bug("../bugs/rhbz-471613")
    with pytest.raises(UserError, match="did you mean forkscrew"):
        load_bug("rhbz-471613").program("forkscrw")


@pytest.mark.parametrize(
    ("version", "kernels", "within"),
    [
        ("6.1.192", "<6.3", True),
        ("6.1.192-2", "<6.3", True),
        ("6.12.117", ">=6.3", True),
        ("6.12.117", "<6.3", False),
        ("6.3", ">=6.3", True),
        ("6.3", "<6.3", False),
        ("6.3.0", "==6.3", True),
        ("6.10", ">6.9", True),
        ("5.10.1", ">=5.11,<6.3", False),
        ("5.15", ">=5.11, <6.3", True),
        # What is merged in the merge window is in rc1: it counts as 6.3.
        ("6.3-rc1", "<6.3", False),
        ("6.3-rc1", "<6.3-rc2", True),
        ("6.3", ">6.3-rc2", True),
        ("6.6.0+", ">=6.6", True),
        ("unknown", "<6.3", False),
        ("unknown", ">=0", False),
        ("unknown", "*", True),
        ("6.1.192", "debian:6.1", True),
        ("6.1.192", "debian:6.12", False),
    ],
)
def test_kernel_ranges(version, kernels, within) -> None:
    expectation = Expectation(kernels=kernels, verdict="clean")
    covers = expectation.covers(
        kernel_version=version, kernel_spec="debian:6.1", arch="x86_64", program="smoke"
    )
    assert covers is within


numbers = st.lists(st.integers(0, 400), min_size=1, max_size=4)


@given(numbers, numbers)
def test_ranges_order_versions_numerically(left, right) -> None:
    padded = [[*version, 0, 0, 0][:4] for version in (left, right)]
    bound = ".".join(map(str, right))
    for sign, holds in (("<", padded[0] < padded[1]), (">=", padded[0] >= padded[1])):
        expectation = Expectation(kernels=sign + bound, verdict="clean")
        version = ".".join(map(str, left))
        assert expectation.covers(kernel_version=version, kernel_spec="", arch="", program="") is holds


@given(st.text())
def test_any_version_text_is_survived(version) -> None:
    Expectation(kernels=">=5.11,<6.3", verdict="clean").covers(
        kernel_version=version, kernel_spec="", arch="", program=""
    )


BUG_FOUND = Finding(
    kind="BUG",
    title="kernel BUG in copy_page_range",
    frame="copy_page_range",
    frames=(Frame(function="copy_page_range"), Frame(function="dup_mmap")),
    file="include/linux/mm.h",
)


@pytest.mark.parametrize(
    ("signature", "matches"),
    [
        ({"kind": "BUG"}, True),
        ({"kind": "oops"}, False),
        ({"kind": "BUG", "title": "^kernel BUG in copy_"}, True),
        ({"kind": "BUG", "title": "BUG$"}, False),
        ({"kind": "BUG", "frames": ["dup_mmap", "x"]}, True),
        ({"kind": "BUG", "frames": ["dup_mm"]}, False),
        ({"kind": "BUG", "file": "linux/mm.h"}, True),
        ({"kind": "BUG", "file": "include/linux/mm.h"}, True),
        ({"kind": "BUG", "file": "x/mm.h"}, False),
        ({"kind": "BUG", "file": "m.h"}, False),
        ({"kind": "BUG", "program": "smoke"}, True),
        ({"kind": "BUG", "program": "forkscrew"}, False),
    ],
)
def test_signature(signature, matches) -> None:
    assert Signature.model_validate(signature).matches(BUG_FOUND, "smoke") is matches


def test_catalogue_is_sound_and_its_programs_exist() -> None:
    from harness.program.program import list_programs

    known = {getattr(program, "name", program) for program in list_programs()}
    for bug in list_bugs():
        assert {program.name for program in bug.programs} <= known
        assert bug.links
        assert bug.expectations


@pytest.mark.parametrize("name", [name for name, (_, series) in definition_files().items() if series])
def test_a_mutant_is_expected_to_be_caught_if_it_was_and_its_sound_kernel_is_not(name: str) -> None:
    mutant = define(name)
    assert mutant.caught_by is not None
    bug_id, _, program = mutant.caught_by.partition("/")
    bug = load_bug(bug_id)
    assert bug.program(program).name == program
    for arch in mutant.arches:
        # Without a version: what is said of releases is not said of kernels with patches (`harness.trial.subject`).
        caught = bug.expected("", name, arch, program)
        assert (caught and caught.verdict) == ("reproduced" if arch in mutant.caught_on else None)
    sound = bug.expected(mutant.series, f"debug-vm-{mutant.series}", "x86_64", program)
    assert sound is not None
    assert sound.verdict == "clean"


def test_signature_of_a_hang_speaks_of_any_thread() -> None:
    """Which thread keeps the others waiting is only believed, not known."""
    signature = Signature(kind="hang", frames=("free_atfork",))
    stuck = Thread(
        **{"pid": 2, "tid": 2, "parent": 1, "comm": "p", "state": "S", "executable": "/tmp/p"},
        frames=(Frame(function="__lll_lock_wait_private"), Frame(function="free_atfork")),
        kernel=(Frame(function="futex_wait_queue"),),
    )
    other = dataclasses.replace(stuck, frames=(Frame(function="main"),), kernel=())
    assert signature.matches(hang_finding("p", frames=other.frames, threads=(other, stuck)))
    assert not signature.matches(hang_finding("p", frames=other.frames, threads=(other,)))
    assert not signature.matches(hang_finding("p"))
    in_kernel = Signature(kind="hang", frames=("futex_wait_queue",))
    assert in_kernel.matches(hang_finding("p", threads=(other, stuck)))


def test_rhbz_471613() -> None:
    bug = load_bug("rhbz-471613")
    assert bug.matches(corruption_finding("data corruption: stale bytes in O_DIRECT read buffer (forkscrew)"))
    assert not bug.matches(BUG_FOUND)
    assert not bug.matches(hang_finding("forkscrew"))
    for arch in ("x86_64", "aarch64"):
        old = bug.expected("6.1.192", "debian:6.1", arch, "forkscrew")
        new = bug.expected("6.12.117", "debian:6.12", arch, "forkscrew")
        assert old
        assert new
        assert (old.verdict, new.verdict) == ("reproduced", "clean")
    assert bug.expected("unknown", "path:x", "x86_64", "forkscrew") is None
    disk = bug.program("forkscrew").disk
    assert disk is not None
    assert (disk.bytes, disk.read_delay_ms) == (64 << 20, 20)


VARIANTS = """
[[programs.variants]]
name = "ext4"
text = "the same on a file system"
set = {device = "/mnt/data"}
disk = {size = "64M", content = "ext4"}
[[programs.variants]]
name = "many"
cpus = 8
"""


def with_variants(more: str = "") -> str:
    head, _, tail = RECORD.partition("[[signatures]]")
    return f"{head}set = {{sleep_seconds = 0.5}}\nmemory_mib = 256\n{VARIANTS}\n[[signatures]]{tail}{more}"


def test_a_variant_says_what_is_different(tmp_path) -> None:
    (program,) = load_text(tmp_path, with_variants()).programs
    ext4, many = program.variant("ext4"), program.variant("many")
    assert ext4.set == {"sleep_seconds": 0.5, "device": "/mnt/data"}
    assert (ext4.name, ext4.memory_mib, ext4.cpus) == ("smoke", 256, 2)
    assert ext4.disk is not None and ext4.disk.content == "ext4"
    assert (many.cpus, many.disk, many.set) == (8, None, {"sleep_seconds": 0.5})
    with pytest.raises(UserError, match="smoke has no variant 'ext3': did you mean ext4"):
        program.variant("ext3")


def test_a_variant_has_a_name_of_its_own(tmp_path) -> None:
    for name in ("many", "all"):
        with pytest.raises(UserError, match=f"{name} is there twice, or means all"):
            load_text(tmp_path, with_variants().replace('name = "ext4"', f'name = "{name}"'))


def test_expectations_of_variants(tmp_path) -> None:
    more = """
[[expectations]]
kernels = "<6.3"
variants = ["many"]
verdict = "clean"
[[expectations]]
kernels = "<6.3"
verdict = "reproduced"
"""
    bug = load_text(tmp_path, with_variants(more))
    expected = [bug.expected("6.1", "k", "x86_64", "smoke", variant) for variant in (None, "ext4", "many")]
    assert [one and one.verdict for one in expected] == ["reproduced", "reproduced", "clean"]
    with pytest.raises(
        UserError, match=r"expectations\.0\.variants: expected variants of a program, not 'meny'"
    ):
        load_text(tmp_path, with_variants(more.replace('"many"', '"meny"')))


def test_each_bug_has_a_module_of_tests_for_each_of_its_programs() -> None:
    """tests/bugs is the regression suite: nothing of the catalogue is left out of it."""
    folder = Path(__file__).resolve().parents[1] / "bugs"
    for bug in list_bugs():
        text = (folder / f"test_{bug.id.replace('-', '_')}.py").read_text(encoding="utf-8")
        marks = re.findall(r'@pytest\.mark\.bug\("([^"]+)"(?:, program="([^"]+)")?', text)
        assert {mark[0] for mark in marks} == {bug.id}
        tested = {name for _, name in marks if name} or {program.name for program in bug.programs}
        assert tested == {program.name for program in bug.programs}
