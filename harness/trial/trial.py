"""A trial: the attempts of one subject on one kernel, and their verdict."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import queue
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from harness.cache import Cache
from harness.errors import BootError, CowpenError, UserError
from harness.kernel.spec import without_files
from harness.process import StoppingError, end_everything
from harness.trial.attempt import Attempt, Phase, failed_attempt, run_attempt
from harness.trial.facts import KernelFacts
from harness.trial.keep import keep_stage, no_room, trial_folder
from harness.trial.outcome import Outcome
from harness.trial.sequential import Question, detectable_rate
from harness.trial.stage import Stage
from harness.trial.subject import Subject
from harness.trial.symboliser import Symboliser
from harness.trial.target import Target
from harness.trial.verdict import Verdict, judge

_ATTEMPTS = 10  # of a user's own reproducer, for which no catalogue says otherwise
# A guest that fails to come up twice in a row will not come up the third time, and each failure costs a
# boot's deadline.
_TROUBLE_IN_A_ROW = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How trials are run. ``attempts`` None: as many as the bug's record says."""

    attempts: int | None = None
    stop_on_first: bool = False
    decide: float | None = None
    """End a trial when what is expected is decided with this confidence; ``attempts`` are the most then."""


class Listener(Protocol):
    """Who is told what happens while trials run; called from one thread."""

    def tell(self, line: str) -> None:
        """A line for people: what takes time, what is out of the ordinary."""

    def begins(self, subject: Subject, kernel: str, arch: str, attempts: int) -> None:
        """A trial begins; ``kernel`` is for display."""

    def phase(self, number: int, phase: Phase) -> None:
        """The attempt of this number is in another phase; starting is the first."""

    def attempt(self, attempt: Attempt, record: dict[str, Any]) -> None:
        """An attempt has ended; ``record`` is its JSON."""

    def verdict(self, verdict: Verdict) -> None:
        """A trial has ended."""


def run_trial(
    subject: Subject, target: Target[Any], options: Options, *, run: Path, cache: Cache, listener: Listener
) -> Verdict:
    """Run one trial and keep its results below ``run``.

    Trouble of any kind becomes outcomes; only `UserError` (a mistake in what was asked for) and an interrupt
    escape. A trial whose stage cannot even be set up has one attempt, ``infra``.
    """
    trial = _Trial(subject, target, options, run=run, cache=cache, listener=listener)
    try:
        return trial.run()
    except BrokenPipeError:
        raise  # whoever read our output has gone: nothing is wrong with the results
    except OSError as error:
        raise no_room(error, run) from error


class _CountedError(CowpenError):
    """A boot failed in a way that decides the trial; its attempt has been counted."""


class _Trial:
    def __init__(
        self,
        subject: Subject,
        target: Target[Any],
        options: Options,
        *,
        run: Path,
        cache: Cache,
        listener: Listener,
    ) -> None:
        self._subject = subject
        self._target = target
        self._options = options
        self._cache = cache
        self._listener = listener
        self._folder = trial_folder(run, subject.name, without_files(target.spec), target.arch.name)
        self._kernel: KernelFacts | None = None
        self._stage: Stage | None = None
        self._symboliser: Symboliser | None = None
        self._attempts: list[Attempt] = []
        bug_attempts = subject.record.attempts if subject.record else _ATTEMPTS
        self._wanted = options.attempts or bug_attempts
        self._question: Question | None = None

    def run(self) -> Verdict:
        try:
            lacking = self._set_up()
        except (UserError, StoppingError):
            raise
        except _CountedError:
            return self._judge()
        except CowpenError as error:
            self._failed(error)
            return self._judge()
        assert self._stage is not None
        if lacking:
            self._ended(self._unsupported(lacking))
        else:
            self._run_attempts(self._stage)
        return self._judge()

    def _set_up(self) -> str | None:
        """Make the stage; what the kernel lacks for this bug, in words: then it need not even boot."""
        tell = self._listener.tell
        self._kernel = self._target.kernel(self._cache, tell)
        self._question = self._asked(self._kernel)
        self._symboliser = Symboliser(self._kernel, tell)
        self._stage = self._target.stage(self._subject, self._kernel, self._cache, tell)
        self._listener.begins(self._subject, self._kernel.display, self._target.arch.name, self._wanted)
        lacking = self._subject.lacking(self._kernel)
        if not lacking:
            self._stage = self._primed(self._stage)
        keep_stage(self._stage, self._folder)
        return lacking

    def _primed(self, stage: Stage) -> Stage:
        """The stage with its shared boot done; a guest that dies in it is counted, and given one more try."""
        tell = self._listener.tell
        try:
            return stage.primed(self._cache, self._attempt_folder(1), tell)
        except BootError as error:
            if not error.died:
                raise
            if self._failed(error).outcome is not Outcome.INFRA:
                raise _CountedError(str(error)) from error
            tell("booting once more")
            return stage.primed(self._cache, self._attempt_folder(2), tell)

    def _failed(self, error: CowpenError) -> Attempt:
        """Count an attempt that ended before its guest was there."""
        folder = self._attempt_folder(len(self._attempts) + 1)
        if error.detail:
            (self._folder / "trouble.txt").write_text(error.detail, encoding="utf-8", errors="replace")
        attempt = failed_attempt(self._stage, len(self._attempts) + 1, folder, str(error))
        self._ended(attempt)
        return attempt

    def _run_attempts(self, stage: Stage) -> None:
        # What the attempts' threads have to say, for this one: a phase that begins, None when one has ended. Every
        # attempt ends by its own deadlines.
        notices: queue.SimpleQueue[tuple[int, Phase | None]] = queue.SimpleQueue()
        with concurrent.futures.ThreadPoolExecutor(stage.jobs, "attempt") as pool:
            under_way: dict[int, tuple[Stage, concurrent.futures.Future[Attempt]]] = {}
            try:
                while under_way or self._open(under_way):
                    while len(under_way) < stage.jobs and self._open(under_way):
                        number = len(self._attempts) + len(under_way) + 1
                        under_way[number] = stage, self._begin(pool, stage, number, notices)
                    number, phase = notices.get()
                    if phase is not None:
                        self._listener.phase(number, phase)
                        continue
                    begun_from, future = under_way.pop(number)
                    self._ended(future.result())
                    # Of several that began from one bad snapshot the first to say so is enough.
                    if future.result().stale and begun_from is stage:
                        stage = stage.renewed(self._cache, self._folder, self._listener.tell)
            except (KeyboardInterrupt, SystemExit):
                # The threads wait for guests; those gone, they unwind, and the pool can be left.
                end_everything()
                pool.shutdown(cancel_futures=True)
                raise
        if self._down:
            self._listener.tell(
                f"giving up after {len(self._attempts)} attempts: the last guests did not come up"
            )

    def _begin(
        self,
        pool: concurrent.futures.Executor,
        stage: Stage,
        number: int,
        notices: queue.SimpleQueue[tuple[int, Phase | None]],
    ) -> concurrent.futures.Future[Attempt]:
        """Start an attempt in a thread of its own, whose words and whose end go to ``notices``."""

        def on_phase(phase: Phase) -> None:
            notices.put((number, phase))

        future = pool.submit(run_attempt, stage, number, self._attempt_folder(number), on_phase)
        future.add_done_callback(lambda _: notices.put((number, None)))
        return future

    def _open(self, under_way: Collection[int]) -> bool:
        """Whether another attempt is to be started: not once the trial is decided, complete or hopeless.

        ``under_way`` are the numbers of those that have not ended.

        An attempt that was lost before its program began is made up for by one more, and is counted beside it;
        the substitutes are not made up for.
        """
        # What the guest lacks it will lack the next time too.
        lacking = any(a.outcome is Outcome.UNSUPPORTED for a in self._attempts[-1:])
        shown = any(a.outcome is Outcome.REPRODUCED for a in self._attempts)
        if self._down or lacking or (self._options.stop_on_first and shown):
            return False
        begun = self._in_order(before=min(under_way, default=None))
        if self._question and self._question.answer([attempt.outcome for attempt in begun]):
            return False
        lost = self._unstarted
        return len(self._attempts) + len(under_way) < self._wanted + min(lost, self._wanted)

    def _asked(self, kernel: KernelFacts) -> Question | None:
        """What the trial is to decide; nothing unless the user wants that, and the catalogue has an expectation."""
        bug, record = self._subject.bug, self._subject.record
        expectation = self._subject.expectation(kernel)
        if self._options.decide is None or bug is None or record is None or expectation is None:
            return None
        return Question(
            expectation=expectation,
            confidence=self._options.decide,
            detectable=detectable_rate(bug, record.name, record.attempts),
        )

    def _in_order(self, before: int | None = None) -> list[Attempt]:
        """The attempts that ended, in the order in which they were begun; only those before number ``before``."""
        ended = sorted(self._attempts, key=lambda attempt: attempt.number)
        return [attempt for attempt in ended if before is None or attempt.number < before]

    @property
    def _unstarted(self) -> int:
        return sum(a.outcome is Outcome.INFRA and not a.started for a in self._attempts)

    @property
    def _down(self) -> bool:
        """Whether the last guests did not come up, so that the next will not either."""
        last = self._attempts[-_TROUBLE_IN_A_ROW:]
        return len(last) == _TROUBLE_IN_A_ROW and not any(
            a.booted or a.stale or a.outcome is not Outcome.INFRA for a in last
        )

    def _attempt_folder(self, number: int) -> Path:
        folder = self._folder / f"attempt-{number:04d}"
        folder.mkdir(exist_ok=True)
        return folder

    def _unsupported(self, lacking: str) -> Attempt:
        return Attempt(
            number=1,
            outcome=Outcome.UNSUPPORTED,
            reason=lacking,
            findings=(),
            seconds=0.0,
            kept=self._attempt_folder(1),
        )

    def _identity(self) -> dict[str, Any]:
        kernel = self._kernel
        return {
            "bug": self._subject.bug.id if self._subject.bug else None,
            "program": self._subject.program.name,
            "variant": self._subject.variant,
            "kernel": {
                "spec": self._target.spec,
                "release": kernel.release if kernel else None,
                "provenance": kernel.provenance if kernel else None,
            },
            "arch": self._target.arch.name,
        }

    def _ended(self, attempt: Attempt) -> None:
        # Here, not in the attempt: what one of them learnt of an address is known to the next.
        if self._symboliser:
            attempt = self._symboliser.symbolised(attempt)
        self._attempts.append(attempt)
        self._listener.attempt(attempt, attempt.to_json(**self._identity()))

    def _judge(self) -> Verdict:
        identity = self._identity()
        verdict = judge(
            **identity,
            attempts=[(attempt.outcome, attempt.reason) for attempt in self._in_order()],
            unstarted=self._unstarted,
            wanted=self._wanted,
            expectation=self._subject.expectation(self._kernel) if self._kernel else None,
            question=self._question,
        )
        self._listener.verdict(verdict)
        return verdict
