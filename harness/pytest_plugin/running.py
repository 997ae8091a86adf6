"""Running the trial of a test: beside others' guests, with everything kept, and what comes of it for the test."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.arch import Arch
from harness.cache import Cache
from harness.console.display import escape
from harness.errors import CowpenError, Tell
from harness.guest.machine import MachineShape
from harness.guest.speed import share
from harness.kernel.kernel import Kernel
from harness.process import StoppingError, end_everything
from harness.pytest_plugin import keys
from harness.pytest_plugin.cases import Case
from harness.pytest_plugin.result import Trial
from harness.trial import trial as trials
from harness.trial.attempt import Attempt, Phase
from harness.trial.jobs import cores
from harness.trial.keep import run_folder
from harness.trial.slots import FOLDER, Alive, Slots
from harness.trial.stage import GuestStage
from harness.trial.subject import Subject
from harness.trial.target import GuestTarget
from harness.trial.verdict import Verdict


class Run:
    """What the trials of one pytest have in common: where results go, and how many guests there may be."""

    def __init__(self, config: pytest.Config, name: str) -> None:
        keep = config.option.cowpen_keep
        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        self.config = config
        self.cache = Cache()
        self.slots = Slots(self.cache.root / FOLDER, config.option.cowpen_guests)
        self.folder = stack.enter_context(run_folder(Path(keep) if keep else None, name=name))

    def say(self, line: str) -> None:
        """Show a line to who watches, now: what takes minutes must not look like a hang."""
        if self.config.option.verbose < 0:
            return
        capture: Any = self.config.pluginmanager.getplugin("capturemanager")
        terminal: Any = self.config.pluginmanager.getplugin("terminalreporter")
        worker: dict[str, Any] | None = getattr(self.config, "workerinput", None)
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            if worker is not None:  # of xdist: nobody sees its terminal
                print(f"cowpen ({worker['workerid']}): {line}", file=sys.stderr, flush=True)
            elif terminal is not None:
                terminal.ensure_newline()
                terminal.write_line(f"cowpen: {line}")


class Notes:
    """The `Listener` of one trial: what it came to, and what it said."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.alive: Alive = lambda: None
        self.attempts: list[Attempt] = []
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        for line in escape(text).splitlines():
            self.told.append(line)
            self._run.say(line)

    def begins(self, subject: Subject, kernel: str, arch: str, attempts: int) -> None:
        self.alive()

    def phase(self, number: int, phase: Phase) -> None:
        self.alive()

    def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
        self.alive()
        self.attempts.append(attempt)

    def verdict(self, verdict: Verdict) -> None:
        """It is what `run_trial` returns."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BesideOthers:
    """A `Target` whose guests have a place among those of all pytests, from the first boot to the trial's end."""

    target: GuestTarget
    slots: Slots
    notes: Notes
    stack: contextlib.ExitStack
    """Left at the trial's end."""

    @property
    def spec(self) -> str:
        return self.target.spec

    @property
    def arch(self) -> Arch:
        return self.target.arch

    def kernel(self, cache: Cache, tell: Tell) -> Kernel:
        return self.target.kernel(cache, tell)

    def stage(self, subject: Subject, kernel: Kernel, cache: Cache, tell: Tell) -> GuestStage:
        shape = subject.shape(self.target.base)
        self.notes.alive = self.stack.enter_context(self.slots.place(shape, tell))
        stage = self.target.stage(subject, kernel, cache, tell)
        # Deadlines allow for the neighbours that may come.
        crowd = share(self.slots.most(shape) * shape.cpus / cores())
        return dataclasses.replace(stage, speed=dataclasses.replace(stage.speed, load=crowd))


_run_key = pytest.StashKey[Run]()


def run_for(item: pytest.Item, case: Case) -> Trial:
    """Run the trial of a case in the setup of its test; leaves the setup if there is nothing that a test could judge.

    Then what is unsupported skips the test, and trouble is an error of the test, not a failure.
    """
    if case.excluded:
        _skip(item, escape(case.excluded))
    if _run_key not in item.config.stash:
        item.config.stash[_run_key] = Run(item.config, item.config.stash[keys.run_name])
    try:
        done = _run(case, item.config.stash[_run_key])
    except KeyboardInterrupt:
        end_everything()
        raise
    except StoppingError as error:
        raise KeyboardInterrupt from error
    except CowpenError as error:
        _fail(item, escape(f"{case!r}: {error}"))
    item.stash[keys.trial] = done
    item.user_properties += [(keys.PROPERTY, done.line), *done.properties()]
    if done.verdict == "unsupported":
        _skip(item, done.reason)
    # What found something else, or hung, is for the test to judge.
    if done.verdict == "cannot-tell" and not done.counts["other"] + done.counts["hang"]:
        _fail(item, done.explain())
    return done


def _run(case: Case, run: Run) -> Trial:
    notes = Notes(run)
    with contextlib.ExitStack() as stack:
        target = BesideOthers(
            target=GuestTarget(spec=case.spec, arch=case.arch, base=MachineShape()),
            slots=run.slots,
            notes=notes,
            stack=stack,
        )
        options = trials.Options(attempts=case.attempts, decide=case.confidence)
        verdict = trials.run_trial(
            case.subject, target, options, run=run.folder, cache=run.cache, listener=notes
        )
    kept = next((attempt.kept.parent for attempt in notes.attempts if attempt.kept), None)
    return Trial(record=verdict, ended=tuple(notes.attempts), kept=kept, told=tuple(notes.told))


def _skip(item: pytest.Item, reason: str) -> NoReturn:
    item.stash[keys.left] = keys.Left.UNSUPPORTED
    pytest.skip(reason)


def _fail(item: pytest.Item, reason: str) -> NoReturn:
    item.stash[keys.left] = keys.Left.TROUBLE
    pytest.fail(reason, pytrace=False)
