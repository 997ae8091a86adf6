"""What a person sees on a real terminal (a pseudo one) while a trial runs. No guests here: a script plays the trial."""

from __future__ import annotations

import re
import termios
from pathlib import Path
from typing import Any

import pexpect
import pytest
from terminal import Screen, spawn

from harness.cli.live import Standing
from harness.trial.attempt import Phase
from harness.trial.outcome import Outcome

pytestmark = pytest.mark.slow  # each with an interpreter and a terminal of its own

SECONDS = 30

PLAY = r"""
import sys, time
from pathlib import Path
from harness.cli.progress import Progress
from harness.trial.attempt import Attempt, Phase
from harness.trial.outcome import Outcome
from harness.trial.subject import own_subject
from harness.trial.verdict import judge

file = Path(sys.argv[1])
hostile = "\x1b[2J[bold]red[/bold]:smile: \x07" if "hostile" in sys.argv else ""
progress = Progress(as_json="json" in sys.argv)

def ended(number, outcome):
    reason, kept = "why" + hostile, Path("/kept")
    attempt = Attempt(number=number, outcome=outcome, reason=reason, findings=(), seconds=1, kept=kept)
    progress.attempt(attempt, attempt.to_json())

with progress:
    progress.begins(own_subject(file, {}), "debian:6.1" + hostile, "x86_64", 8)
    time.sleep(0.3)
    progress.phase(1, Phase.STARTING)
    progress.phase(2, Phase.STARTING)
    progress.phase(2, Phase.RUNNING)
    time.sleep(0.8)
    ended(1, Outcome.REPRODUCED)
    ended(2, Outcome.INFRA)
    progress.phase(3, Phase.SETTLING)
    for number in range(4, 4 + 30 * ("many" in sys.argv)):
        progress.phase(number, Phase.STARTING)
    print("half", file=sys.stderr) if "mark" in sys.argv else None
    time.sleep(60 if "long" in sys.argv else 0.8)
    kernel = {"spec": "debian:6.1", "release": "6.1.0", "provenance": None}
    progress.verdict(judge(bug=None, program="mine", kernel=kernel, arch="x86_64",
                           attempts=[(Outcome.REPRODUCED, "x"), (Outcome.INFRA, "y")]))
    progress.table()
"""


def play(folder: Path, *words: str, columns: int = 140, rows: int = 24, **env: str) -> pexpect.spawn[str]:
    (folder / "mine.c").write_text("")
    env["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    file = str(folder / "mine.c")
    return spawn("-c", PLAY, file, *words, size=(rows, columns), seconds=SECONDS, **env)


def shown(child: pexpect.spawn[str], columns: int = 140) -> tuple[str, Screen]:
    """All that was sent, to the end, and what stays to be seen of it."""
    child.expect(pexpect.EOF)
    child.close()
    text: Any = child.before
    return text, Screen(columns).feed(text)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0"}])
def test_lines_follow_the_trial_and_go(tmp_path: Path, env: dict[str, str]) -> None:
    text, screen = shown(play(tmp_path, **env))
    assert "mine on debian:6.1 x86_64\r\n[....................] 0/8  preparing" in text
    assert "attempt 1    starting" in text
    assert "attempt 2    running" in text
    assert "attempt 3    settling" in text
    assert "[#####...............] 2/8  " in text
    assert "left  rate 100 %  1 infra, 1 reproduced".replace(", ", "  ") in text
    lines = screen.lines
    assert lines[0] == "attempt 2: infra: why"
    assert lines[1].startswith("    kept in /kept")
    assert lines[2].startswith("mine on debian:6.1 (6.1.0) x86_64: REPRODUCED")
    assert lines[3].startswith("bug  program")
    assert len(lines) == 5


@pytest.mark.parametrize("columns", [1, 30])
def test_narrow_terminal(tmp_path: Path, columns: int) -> None:
    text, screen = shown(play(tmp_path, columns=columns), columns)
    # What follows the trial is a column narrower than the terminal, and goes without a trace.
    following = re.split(r"[\r\n]+|\x1b\[\d*[AK]", text.partition("attempt 2: infra")[0])
    assert max(map(len, following)) == max(1, columns - 1)
    assert "".join(screen.lines).replace(" ", "").startswith("attempt2:infra:why")
    assert "preparing" not in "".join(screen.lines)


def test_more_guests_than_rows(tmp_path: Path) -> None:
    text, screen = shown(play(tmp_path, "many", rows=10))
    assert "… 25 more" in text  # 33 lines: 8 are shown, and one says how many are not
    assert len(screen.lines) == 5


def test_terminal_that_changes_its_size(tmp_path: Path) -> None:
    child = play(tmp_path, "mark", columns=90)
    child.expect("half")
    child.setwinsize(24, 30)
    child.expect(r"\n\[#{5}\.{15}\] 2/8  …")  # 29 columns of the bar's line
    child.expect("REPRODUCED")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_hostile_text_drives_nothing(tmp_path: Path) -> None:
    text, screen = shown(play(tmp_path, "hostile"))
    assert "\x07" not in text and "\x1b[2J" not in text
    assert "attempt 2: infra: why\\x1b[2J[bold]red[/bold]:smile: \\x07" in screen.lines[0]
    assert "mine on debian:6.1\\x1b[2J[bold]red[/bold]:smile:" in text


def test_terminal_that_takes_nothing_back(tmp_path: Path) -> None:
    text, screen = shown(play(tmp_path, TERM="dumb"))
    assert "\x1b" not in text
    assert len(screen.lines) == 5


def test_json_on_the_same_terminal_is_not_torn_apart(tmp_path: Path) -> None:
    text, _ = shown(play(tmp_path, "json"))
    assert "\x1b" not in text
    assert text.count('{"type": "attempt"') == 2


def test_interrupt_leaves_a_sane_terminal(tmp_path: Path) -> None:
    child = play(tmp_path, "long", "mark")
    before = termios.tcgetattr(child.child_fd)
    child.expect("half")
    child.sendintr()
    text, screen = shown(child)
    assert "KeyboardInterrupt" in text
    assert "\x1b[?25l" not in text, "the cursor was hidden"
    assert not any("attempt 3" in line for line in screen.lines), "lines were left behind"
    assert before[3] & termios.ECHO


def test_killed_with_its_lines_on_the_terminal(tmp_path: Path) -> None:
    """Nobody can clear up after SIGKILL, so there is nothing that would have to be: the cursor was never hidden."""
    child = play(tmp_path, "long", "mark")
    child.expect("half")
    child.kill(9)
    text, _ = shown(child)
    assert "\x1b[?" not in str(child.before) + text


def test_standing() -> None:
    standing = Standing("title", 4)
    assert standing.lines() == ["title", "[....................] 0/4  preparing"]
    standing.phase(7, Phase.STARTING)
    standing.phase(7, Phase.RUNNING)
    assert [line.split()[:3] for line in standing.lines()[2:]] == [["attempt", "7", "running"]]
    standing.ended(7, Outcome.CLEAN)
    standing.ended(8, Outcome.REPRODUCED)  # one that was never under way, as when the boot fails
    _, bar = standing.lines()
    assert bar == "[##########..........] 2/4  0:00 left  rate 50 %  1 clean  1 reproduced"
    for number in range(9, 15):  # attempts are made up for: more than wanted
        standing.ended(number, Outcome.INFRA)
    assert standing.lines()[1].startswith("[####################] 8/4  rate 50 %")
