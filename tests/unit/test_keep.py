"""Where results are kept, and what is thrown away."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HostError
from harness.guest.channel import Stream
from harness.trial import keep
from harness.trial.capture import Capture
from harness.trial.keep import no_room, run_folder, trial_folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "cowpen/runs"
    folder.mkdir(parents=True)
    return folder


def old_runs(runs: Path, count: int) -> list[Path]:
    folders = [runs / f"20200101-0000{number:02d}-1" for number in range(count)]
    for folder in folders:
        (folder / "trial").mkdir(parents=True)
        (folder / "trial/console.log").write_text("x")
    return folders


def test_new_folder_below_the_state_folder(runs: Path) -> None:
    with run_folder(None) as folder:
        assert folder.parent == runs
        assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{os.getpid()}", folder.name)
        with run_folder(None) as second:  # in the same second
            assert second != folder
    assert folder.is_dir(), "results stay"


def test_wanted_folder(tmp_path: Path, runs: Path) -> None:
    for _ in range(2):
        with run_folder(tmp_path / "a/b") as folder:
            assert folder == tmp_path / "a/b"
    assert list(runs.iterdir()) == []


def test_processes_that_make_one_run_share_its_folder(runs: Path) -> None:
    old_runs(runs, 30)
    with (
        run_folder(None, name="29991231-235959-7") as first,
        run_folder(None, name="29991231-235959-7") as other,
    ):
        assert first == other == runs / "29991231-235959-7"
        assert len(list(runs.iterdir())) == keep._RUNS_KEPT


def test_newest_stay(runs: Path) -> None:
    old = old_runs(runs, 30)
    with run_folder(None) as folder:
        left = set(runs.iterdir())
    assert left == {folder, *old[-19:]}
    assert len(left) == keep._RUNS_KEPT


def test_a_run_under_way_is_never_removed(runs: Path) -> None:
    old = old_runs(runs, 30)
    descriptor = os.open(old[0], os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with run_folder(None):
            assert (old[0] / "trial/console.log").exists()
            assert not old[1].exists()
    finally:
        os.close(descriptor)
    with run_folder(None):
        assert not old[0].exists(), "its run has ended"


def test_two_runs_at_once_do_not_remove_each_other(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "_RUNS_KEPT", 1)
    with run_folder(None) as first:
        monkeypatch.setattr(os, "getpid", lambda: 999999999)
        with run_folder(None) as second:
            assert first.is_dir() and second.is_dir()


def test_wanted_folder_is_never_pruned(tmp_path: Path, runs: Path) -> None:
    mine = old_runs(tmp_path / "mine", 40)
    with run_folder(tmp_path / "mine"):
        assert all(folder.exists() for folder in mine)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ["no space left for results in /place", "free some space", "--keep"]),
        (errno.EDQUOT, ["no space left for results in /place", "--keep"]),
        (errno.EACCES, ["cannot write results to /place (Permission denied)", "--keep"]),
    ],
)
def test_no_room(number: int, words: list[str]) -> None:
    error = no_room(OSError(number, os.strerror(number)), Path("/place"))
    assert isinstance(error, HostError)
    for word in words:
        assert word in str(error)


def test_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=rf"cannot write results to {tmp_path}/file/x .*--keep"):  # noqa: SIM117
        with run_folder(tmp_path / "file/x"):
            pytest.fail("there is no such place")


def test_errors_of_the_run_itself_pass(tmp_path: Path, runs: Path) -> None:
    """Only errors of making the folder are about the place."""
    with pytest.raises(BrokenPipeError), run_folder(tmp_path / "keep"):
        raise BrokenPipeError
    with pytest.raises(BrokenPipeError), run_folder(None):
        raise BrokenPipeError


def test_trial_folders_are_numbered(tmp_path: Path) -> None:
    words = ("rhbz-471613/forkscrew", "debian:6.1", "x86_64")
    assert trial_folder(tmp_path, *words).name == "rhbz-471613_forkscrew-debian_6.1-x86_64"
    assert trial_folder(tmp_path, *words).name == "rhbz-471613_forkscrew-debian_6.1-x86_64.2"
    assert trial_folder(tmp_path, *words).name == "rhbz-471613_forkscrew-debian_6.1-x86_64.3"


@given(words=st.lists(st.text(max_size=300), min_size=1, max_size=4))
def test_trial_folder_stays_in_its_run(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    run = tmp_path_factory.mktemp("run")
    folder = trial_folder(run, *words)
    assert folder.parent == run
    assert folder.is_dir()
    assert folder.name not in (".", "..")
    assert list(run.iterdir()) == [folder]


@given(pieces=st.lists(st.binary(max_size=400), max_size=60))
def test_capture_keeps_both_ends_and_counts(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    from unittest import mock

    folder = tmp_path_factory.mktemp("capture")
    whole = b"".join(pieces)
    limits = {"_FILE_LIMIT": 1000, "_TAIL_LIMIT": 300}
    with mock.patch.multiple("harness.trial.capture", **limits), Capture(folder) as capture:
        for piece in pieces:
            capture(Stream.STDOUT, piece)
        assert capture.total(Stream.STDOUT) == len(whole)
    kept = (folder / "stdout").read_bytes()
    assert kept[:1000] == whole[:1000]
    if len(whole) <= 1300:
        assert kept == whole
    else:
        assert kept.endswith(whole[-300:])
        assert (
            kept
            == whole[:1000] + b"\n[cowpen: %d bytes left out here]\n" % (len(whole) - 1300) + whole[-300:]
        )


def test_capture_last_line(tmp_path: Path) -> None:
    with Capture(tmp_path) as capture:
        assert capture.last_line(Stream.STDERR) == ""
        capture(Stream.STDERR, b"first\nunsupported: no A")
        capture(Stream.STDERR, b"IO\n\n \n")
        assert capture.last_line(Stream.STDERR) == "unsupported: no AIO"
        capture(Stream.RECORDS, b"abc")
        assert capture.records() == b"abc"


def test_capture_of_threads_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.trial.capture._THREADS_LIMIT", 5)
    with Capture(tmp_path) as capture:
        for piece in (b"abc", b"def", b"ghi"):
            capture(Stream.THREADS, piece)
        assert capture.threads == b"abcde"
        assert capture.records() == b""
