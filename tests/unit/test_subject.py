"""From what a user or a bug record asks for to the shape of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.bug import load_bug
from harness.cli.run import run
from harness.errors import UserError
from harness.guest.machine import Disk, MachineShape
from harness.program.program import load_program
from harness.trial.subject import Subject, own_subject

RECORD = """
id = "x-1"
title = "t"
[[programs]]
name = "smoke"
{}
[[signatures]]
kind = "BUG"
"""


def shape_of(folder: Path, keys: str, base: MachineShape | None = None) -> MachineShape:
    (folder / "x-1.toml").write_text(RECORD.format(keys))
    bug = load_bug("x-1", folder=folder)
    (record,) = bug.programs
    subject = Subject(program=load_program("smoke"), settings={}, bug=bug, record=record)
    return subject.shape(base or MachineShape())


def test_a_record_may_ask_for_all_of_a_shape(tmp_path: Path) -> None:
    shape = shape_of(
        tmp_path,
        'cpus = 4\nnuma_nodes = 3\nhugepages = 5\ndisk = {size = "1G", content = "xfs", write_delay_ms = 7}',
    )
    assert (shape.cpus, shape.numa_nodes, shape.hugepages) == (4, 3, 5)
    assert shape.disks == (Disk(size_mib=1024, write_delay_ms=7, filesystem="xfs"),)


def test_more_is_had_for_the_asking(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, "hugepages = 5", MachineShape(cpus=8, numa_nodes=2, hugepages=4))
    assert (shape.cpus, shape.numa_nodes, shape.hugepages, shape.disks) == (8, 2, 5, ())


def test_zeros_are_no_file_system(tmp_path: Path) -> None:
    for content in ("", ', content = "zeros"'):
        assert shape_of(tmp_path, f'disk = {{size = "3M"{content}}}').disks == (Disk(size_mib=3),)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('disk = {size = "3M", content = "btrfs"}', "programs.0.disk.content"),
        ("numa_nodes = 0", "programs.0.numa_nodes"),
        ("hugepages = -1", "programs.0.hugepages"),
    ],
)
def test_wrong_record(tmp_path: Path, keys: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        shape_of(tmp_path, keys)


@pytest.mark.parametrize(("filesystem", "size_mib"), [(None, 64), ("ext4", 64), ("xfs", 301)])
def test_disk_of_an_own_reproducer(tmp_path: Path, filesystem: str | None, size_mib: int) -> None:
    file = tmp_path / "own.c"
    file.write_text("int main(void) { return 0; }")
    subject = own_subject(file, {}, filesystem=filesystem)
    assert subject.shape(MachineShape()).disks == (Disk(size_mib=size_mib, filesystem=filesystem),)


def test_a_bug_says_itself_what_its_disk_holds() -> None:
    with pytest.raises(UserError, match="--disk ext4 without --program"):
        CliRunner().invoke(run, ["rhbz-471613", "--disk", "ext4"], catch_exceptions=False)
