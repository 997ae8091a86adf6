"""Snapshots that cannot be restored: never relied on, never the end of a trial; by the real command and real QEMU."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trouble import Command, Ended, kernels_alone, leftovers

from harness.arch import get_arch
from harness.cache import Cache

pytestmark = pytest.mark.guest

NAP = "#include <unistd.h>\nint main(void)\n{\n\tusleep(300000);\n\treturn 0;\n}\n"
QEMU = get_arch("x86_64").qemu
# A QEMU that restores three times, for the proof and for two attempts, and never again.
WRAPPER = """#!/bin/sh
case "$*" in *-incoming*)
	printf x >> {count}
	if [ "$(wc -c < {count})" -gt 3 ]; then echo "no restoring today" >&2; exit 1; fi ;;
esac
exec {qemu} "$@"
"""


class Trial:
    """``cowpen run`` of a short program, with a cache and snapshots of its own."""

    def __init__(self, folder: Path, cache: Cache) -> None:
        self.folder = folder
        self.program = folder / "nap.c"
        self.program.write_text(NAP)
        self.env = kernels_alone(folder / "cache", cache, ("debian:6.1", "x86_64"))

    def command(self, *words: str) -> Command:
        """The command, begun; its results are below a `keep` of its own."""
        self.keep = self.folder / f"keep-{uuid.uuid4()}"
        return Command(
            *("run", "--program", self.program, "--kernel", "debian:6.1", "--arch", "x86_64", "--json"),
            *("--keep", self.keep, *words),
            folder=self.folder,
            env=self.env,
        )

    def run(self, *words: str) -> Ended:
        with self.command(*words) as command:
            return command.end()

    def run_and(self, spoil: Callable[[], None], *words: str) -> Ended:
        """Run, and ``spoil`` something when the first attempt has ended."""
        with self.command(*words) as command:
            command.wait_for("the first result", lambda: command.records("attempt"))
            spoil()
            return command.end()

    @property
    def snapshots(self) -> list[Path]:
        folder = self.folder / "cache/cowpen/snapshots"
        return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def trial(tmp_path: Path, user_cache: Cache) -> Iterator[Trial]:
    trial = Trial(tmp_path, user_cache)
    yield trial
    assert leftovers(tmp_path / "cache") == []
    shutil.rmtree(tmp_path / "cache")  # hundreds of megabytes, which pytest would keep for three runs


def garble(snapshot: Path) -> None:
    """Other bytes in the middle of the device state: QEMU itself may not notice."""
    with (snapshot / "state").open("r+b") as file:
        file.seek(100_000)
        file.write(os.urandom(100))


def truncate_state(snapshot: Path) -> None:
    """Half of the device state, and a seal that fits: only QEMU finds out."""
    state = snapshot / "state"
    os.truncate(state, state.stat().st_size // 2)
    from harness.cache import digest

    seal = json.loads((snapshot / "seal.json").read_text())
    (snapshot / "seal.json").write_text(json.dumps(seal | {"state": digest(state)}))


def truncate_memory(snapshot: Path) -> None:
    os.truncate(snapshot / "ram0", 1 << 20)


def infra(ended: Ended) -> list[str]:
    """The reasons of the attempts that were lost."""
    return [attempt["reason"] for attempt in ended.records("attempt") if attempt["outcome"] == "infra"]


def test_damaged_between_runs(trial: Trial) -> None:
    """Noticed before an attempt is lost, said, and made anew; and old snapshots go when a new one is made."""
    assert trial.run("--attempts", "1").code == 0
    (made,) = trial.snapshots
    for damage, words in ((garble, "state changed"), (truncate_memory, "ram0 changed")):
        damage(made)
        old = made.parent / "0123456789abcdef"
        old.mkdir()
        os.utime(old, (1, 1))
        ended = trial.run("--attempts", "2")
        assert ended.code == 0, ended.err
        assert ended.outcomes == ["clean"] * 2
        assert f"is dropped: {words} since it was made" in ended.err
        assert trial.snapshots == [made]  # of the same name, and without the old one


@pytest.mark.parametrize(
    ("damage", "jobs", "words"),
    [
        (garble, 1, "state changed since it was made"),
        pytest.param(truncate_state, 2, "QEMU ended with status", marks=pytest.mark.long),
    ],
)
def test_damaged_during_a_trial(trial: Trial, damage: Callable[[Path], None], jobs: int, words: str) -> None:
    """The attempts that began from it are lost, and said to be; the others begin from another one."""

    def spoil() -> None:
        damage(trial.snapshots[0])

    ended = trial.run_and(spoil, "--attempts", "6", "--jobs", str(jobs))
    lost = infra(ended)
    assert 1 <= len(lost) <= jobs, ended.err
    # With two at once the second may find the snapshot dropped already.
    assert any(words in reason for reason in lost), lost
    assert all("snapshot" in reason for reason in lost), lost
    # What was lost is made up for, so the verdict stands.
    assert ended.outcomes.count("clean") == 6
    assert ended.code == 0, ended.err
    assert ended.err.count("dropped a snapshot that does not start, to make another") == 1
    assert len(trial.snapshots) == 1


def test_qemu_that_restores_no_longer(trial: Trial) -> None:
    """What it saves is proved before anybody relies on it: no snapshot then, every attempt boots, and that is said."""
    folder = trial.folder / "bin"
    folder.mkdir()
    (folder / QEMU).write_text(WRAPPER.format(count=trial.folder / "count", qemu=shutil.which(QEMU)))
    (folder / QEMU).chmod(0o755)
    trial.env["PATH"] = f"{folder}:{os.environ['PATH']}"
    ended = trial.run("--attempts", "4", "--jobs", "2")
    lost = [reason for reason in infra(ended) if "snapshot" in reason]
    assert 1 <= len(lost) <= 2, ended.err
    assert any("no restoring today" in reason for reason in lost), lost
    assert ended.outcomes.count("clean") == 4
    assert ended.code == 0, ended.err
    assert "no snapshot (QEMU cannot restore what it saved: " in ended.err
    assert "): every attempt boots" in ended.err
    assert trial.snapshots == []
