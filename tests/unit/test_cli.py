"""The command line without guests: what `run` makes of its words, what people and scripts see."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import harness.process
from harness.arch import X86_64
from harness.cli import main as entry
from harness.cli.progress import Progress
from harness.cli.run import guest_targets, parse_settings, run
from harness.errors import BuildError, HostError, UserError
from harness.guest.machine import MachineShape
from harness.process import StoppingError
from harness.trial.attempt import Attempt
from harness.trial.outcome import Outcome
from harness.trial.subject import Subject, own_subject
from harness.trial.verdict import Verdict, judge

HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\x9b31m\r\u202egnp"


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ((), {}),
        (("alignment=0",), {"alignment": "0"}),
        (("a=1", "b=2", "a=3"), {"a": "3", "b": "2"}),
        (("device=/dev/vda=x",), {"device": "/dev/vda=x"}),
        (("empty=",), {"empty": ""}),
    ],
)
def test_settings(words: tuple[str, ...], settings: dict[str, str]) -> None:
    assert parse_settings(words) == settings


@pytest.mark.parametrize("word", ["alignment", "=0", ""])
def test_settings_that_are_none(word: str) -> None:
    with pytest.raises(UserError, match=r"--set .*NAME=VALUE"):
        parse_settings((word,))


def test_targets_are_every_kernel_on_every_arch() -> None:
    targets = guest_targets(
        ("debian:6.1", "debian:6.12"), ("x86_64", "arm64"), base=MachineShape(), jobs=2, cold=True
    )
    assert [(target.spec, target.arch.name) for target in targets] == [
        ("debian:6.1", "x86_64"),
        ("debian:6.1", "aarch64"),
        ("debian:6.12", "x86_64"),
        ("debian:6.12", "aarch64"),
    ]
    with pytest.raises(UserError, match="nonsense"):
        guest_targets(("debian:6.1", "nonsense"), (), base=MachineShape(), jobs=1, cold=False)


def test_options_reach_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def record(subject: Subject, target: Any, options: Any, **more: Any) -> None:
        seen.append({"subject": subject, "target": target, "options": options, **more})

    monkeypatch.setattr("harness.trial.trial.run_trial", record)
    words = (
        "rhbz-471613 --kernel debian:6.1 --arch x86_64 --attempts 7 --stop-on-first --seconds 2.5 --jobs 3"
    )
    words += f" --cold --memory 900 --cpus 4 --cpu max --append a=1 --append b --keep {tmp_path}/keep"
    result = CliRunner().invoke(run, words.split(), standalone_mode=False)
    assert result.exception is None
    # No trial gave a verdict, which cannot tell.
    assert result.return_value == 125
    assert [one["subject"].program.name for one in seen] == [
        *("forkscrew", "dma_thread", "pthread_read_and_fork", "direct_write_fork"),
        *("pinned_fork", "fork_tlb", "fork_stale_pte"),
    ]
    assert all(one["subject"].program.seconds == 2.5 for one in seen)
    target, options = seen[0]["target"], seen[0]["options"]
    assert (target.spec, target.arch, target.jobs.wanted, target.cold) == (
        "debian:6.1",
        X86_64,
        3,
        True,
    )
    assert (options.attempts, options.stop_on_first, options.decide) == (7, True, None)
    assert (target.base.memory_mib, target.base.cpus, target.base.cpu) == (900, 4, "max")
    assert target.base.kernel_arguments == ("a=1", "b")
    assert seen[0]["run"] == tmp_path / "keep"


def test_as_many_jobs_as_make_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "harness.trial.trial.run_trial", lambda subject, target, *unused, **more: seen.append(target)
    )
    words = (
        "rhbz-471613/forkscrew rhbz-471613/dma_thread --kernel debian:6.1 --kernel debian:6.12 --jobs auto"
    )
    CliRunner().invoke(run, words.split(), standalone_mode=False)
    assert len(seen) == 4
    # One object, so that what it has to say is said once.
    assert {id(target.jobs) for target in seen} == {id(seen[0].jobs)}
    assert seen[0].jobs.wanted is None


@pytest.mark.parametrize(
    ("words", "confidence"),
    [([], None), (["--until-decided"], 0.95), (["--until-decided", "--confidence", "0.999"], 0.999)],
)
def test_until_decided(monkeypatch: pytest.MonkeyPatch, words: list[str], confidence: float | None) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "harness.trial.trial.run_trial", lambda subject, target, options, **more: seen.append(options)
    )
    CliRunner().invoke(run, ["rhbz-471613/forkscrew", *words], standalone_mode=False)
    assert [options.decide for options in seen] == [confidence]


def test_confidence_of_nothing_to_be_decided() -> None:
    result = CliRunner().invoke(run, ["rhbz-471613", "--confidence", "0.9"])
    assert isinstance(result.exception, UserError)
    assert "--until-decided" in str(result.exception)


@pytest.mark.parametrize(
    "words",
    [
        ["--until-decided", "--confidence", "1"],
        ["--until-decided", "--confidence", "0.4"],
        ["--seconds", "0"],
        ["--seconds", "-1"],
        ["--seconds", "1e9"],
        ["--jobs", "0"],
        ["--jobs", "65"],
        ["--jobs", "many"],
    ],
)
def test_numbers_out_of_range(words: list[str]) -> None:
    result = CliRunner().invoke(run, ["rhbz-471613", *words])
    assert result.exit_code == 2
    assert words[-2] in result.output


def code_of(monkeypatch: pytest.MonkeyPatch, words: list[str], error: BaseException | None = None) -> int:
    """The exit code of `main` when the command raises ``error``."""

    def command(**unused: object) -> int:
        if error is not None:
            raise error
        return 0

    monkeypatch.setattr("harness.cli.run.run_trials", lambda *a, **k: command())
    monkeypatch.setattr("harness.cli.main.end_everything", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *a: None)
    monkeypatch.setattr(sys, "argv", ["cowpen", *words])
    with pytest.raises(SystemExit) as caught:
        entry.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (UserError("bad word", mend="write a good one"), 2, "cowpen: bad word: write a good one\n"),
        (HostError("no disk", mend="buy one"), 125, "cowpen: no disk: buy one\n"),
        (BuildError("x.c", detail="a\nb\x1b[2J"), 125, "cowpen: x.c\n    a\n    b"),
        (StoppingError("interrupted"), 130, "cowpen: interrupted\n"),
        (KeyboardInterrupt(), 130, "cowpen: interrupted\n"),
        (click.Abort(), 130, "cowpen: interrupted\n"),
        (click.UsageError("no such thing"), 2, "no such thing"),
    ],
)
def test_exit_codes_of_errors(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    code: int,
    said: str,
) -> None:
    assert code_of(monkeypatch, ["run", "rhbz-471613"], error) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert "\x1b" not in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.EIO, "I/O"), MemoryError()])
def test_a_defect_is_neither_good_nor_bad_to_git_bisect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    code = code_of(monkeypatch, ["run", "rhbz-471613"], error)
    assert code == 125 or code > 127
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bugs --json", "run --help"])
def test_output_nobody_reads_is_no_error(command: str) -> None:
    """`cowpen … | head` neither complains nor ends with 1, which says "reproduced"."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli.main", *command.split()],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


def test_stopping_lets_no_process_start(monkeypatch: pytest.MonkeyPatch) -> None:
    harness.process.end_everything()
    try:
        assert harness.process.stopping()
        with pytest.raises(StoppingError):
            harness.process.Process(["true"])
    finally:
        harness.process._stopping.clear()


# -- what is shown -----------------------------------------------------------------------------------


def attempt(outcome: Outcome, reason: str = "why", kept: Path | None = None) -> Attempt:
    return Attempt(number=1, outcome=outcome, reason=reason, findings=(), seconds=1.5, kept=kept, booted=True)


def verdict(reason: str = "why", spec: str = "debian:6.1", release: str | None = "6.1.0") -> Verdict:
    kernel = {"spec": spec, "release": release, "provenance": {"version": "6.1.192-2"} if release else None}
    return judge(
        bug="b",
        program="p",
        kernel=kernel,
        arch="x86_64",
        attempts=[(Outcome.INFRA, reason)],
        expectation=None,
    )


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    (tmp_path / "mine.c").write_text("")
    return own_subject(tmp_path / "mine.c", {})


def test_json_alone_on_standard_output(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=True)
    progress.begins(subject, "kernel", "x86_64", 2)
    progress.tell("fetching")
    one = attempt(Outcome.INFRA, HOSTILE)
    progress.attempt(one, one.to_json(bug="b"))
    progress.verdict(verdict(HOSTILE))
    progress.table()
    printed = capsys.readouterr()
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert [record["type"] for record in records] == ["attempt", "verdict"]
    assert records[0]["reason"] == HOSTILE, "JSON escapes, and loses nothing"
    assert "fetching" in printed.err


def test_table_alone_on_standard_output(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=False)
    progress.begins(subject, "kernel", "x86_64", 2)
    progress.attempt(attempt(Outcome.CLEAN), {})
    progress.verdict(verdict())
    progress.verdict(verdict(release=None))
    assert capsys.readouterr().out == ""
    progress.table()
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["bug", "program", "kernel", "arch", "attempts", "reproduced", "verdict"]
    assert "(6.1.192-2)" in first and "CANNOT TELL" in first
    assert "(not booted)" in second
    # Columns stand below each other.
    assert header.index("arch") == first.index("x86_64") == second.index("x86_64")


@given(text=st.text(max_size=200))
def test_nothing_drives_the_terminal(text: str) -> None:
    runner = CliRunner()

    @click.command()
    def show() -> None:
        progress = Progress(as_json=False)
        progress.tell(text)
        progress.attempt(attempt(Outcome.INFRA, text), {})
        progress.verdict(verdict(text, spec=text))
        progress.table()

    result = runner.invoke(show)
    assert result.exception is None
    # Control and formatting characters, surrogates, separators of lines.
    driving = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert [
        char for char in result.output if unicodedata.category(char) in driving and char not in "\t\n"
    ] == []


def test_hostile_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=False)
    progress.attempt(attempt(Outcome.INFRA, HOSTILE, Path(f"/x{HOSTILE}")), {})
    progress.verdict(verdict(HOSTILE, spec=HOSTILE))
    progress.table()
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert "owned" in text, "escaped, not dropped"
        assert not any(mark in text for mark in "\x1b\x07\x9b\r\u202e")
