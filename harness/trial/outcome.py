"""What one attempt showed, decided from everything that was seen of it."""

from __future__ import annotations

import enum
import signal as signals
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.bug import Bug
from harness.console.finding import Finding, hang_finding


class Outcome(enum.StrEnum):
    """The outcome of an attempt; its value is the word in the JSON records."""

    CLEAN = "clean"
    REPRODUCED = "reproduced"
    OTHER = "other"
    HANG = "hang"
    UNSUPPORTED = "unsupported"
    INFRA = "infra"

    @property
    def help(self) -> str:
        """One line that says what the word means."""
        return _HELP[self]

    @property
    def decided(self) -> bool:
        """Whether the attempt could tell if the bug shows: the denominator of a reproduction rate."""
        return self not in (Outcome.UNSUPPORTED, Outcome.INFRA)


_HELP = {
    Outcome.CLEAN: "the program ended by itself and nothing was found",
    Outcome.REPRODUCED: "a finding matches the bug's signature",
    Outcome.OTHER: "something was found that is not this bug",
    Outcome.HANG: "the program did not end by its deadline, or the guest did not answer afterwards",
    Outcome.UNSUPPORTED: "the kernel or the machine lacks what the bug needs",
    Outcome.INFRA: "build, boot, transport or host trouble: nothing was learned",
}

EXIT_CLEAN = 0
EXIT_REPRODUCED = 1
EXIT_UNSUPPORTED = 4
"""Exit statuses of a guest program; anything else is trouble of the program itself."""

# Exit codes of `cowpen run` by verdict, made for `git bisect run`: 0 good, 1 bad, 125 skip.
EXIT_CODES: dict[str, int] = {"clean": 0, "reproduced": 1, "unsupported": 125, "cannot-tell": 125}


def exit_code(verdicts: Iterable[str]) -> int:
    """Exit code of a run of several trials: 1 if any reproduced, else 125 if any cannot tell, else 0.

    No trial at all cannot tell either.
    """
    codes = {EXIT_CODES[verdict] for verdict in verdicts} or {125}
    return next(code for code in (1, 125, 0) if code in codes)


class Decision(NamedTuple):
    """An outcome, why, and the finding that decided it, if one did."""

    outcome: Outcome
    reason: str
    finding: Finding | None = None


def decide(
    *,
    findings: Sequence[Finding],
    bug: Bug | None,
    program: str,
    exit_status: int | None = None,
    signal: int | None = None,
    hang: str | None = None,
    infra: str | None = None,
    unsupported: str | None = None,
    said: str = "",
) -> Decision:
    """The outcome of an attempt. Of several the first of these that applies counts:

    1. A finding that has a signature of the bug: ``reproduced``, even if booting failed or the machine died
       afterwards. For a user's own program (``bug`` is None) every finding but a hang is one.
    2. Any other finding: ``other``. An oops is never ``clean``, whatever the program says.
    3. ``infra``, the trouble in words: QEMU ended, boot or transport failed, the console could not be scanned.
    4. ``unsupported``, what is missing in words, or exit status 4 of a program of ours.
    5. ``hang``, what did not come by its deadline: ``reproduced`` if that is the bug's signature, else ``hang``.
    6. How the program ended. 0: ``clean``. 1 from a user's own program: ``reproduced``. 1 from a program of
       ours: ``infra``, for ours write a record of every corruption, so there would have been a finding; without
       one nobody can say what was seen. Any other status, a signal, no status: ``infra``.

    What a process wrote to /dev/kmsg is not the kernel's word and decides nothing. Nor does a lack of memory, which
    is no defect of the kernel's; but where the attempt comes to ``infra`` it is said.

    ``findings`` are those of the console and of the program's records, the cause first. ``program`` is the
    name that signatures know. ``exit_status`` is None if it was never seen or ``signal`` ended the program. ``said`` is
    the last line of its standard error, escaped; it becomes part of the reason if that is the program's own trouble.
    """
    findings = [finding for finding in findings if not finding.user_written]
    seen = [finding for finding in findings if finding.kind not in ("hang", "memory")]
    hung = next((finding for finding in findings if finding.kind == "hang"), None)
    if hung is None and hang is not None:
        hung = hang_finding(program)
    for finding in seen:
        if bug is None or bug.matches(finding, program):
            return Decision(Outcome.REPRODUCED, finding.title, finding)
    if seen:
        return Decision(Outcome.OTHER, f"not this bug: {seen[0].title}", seen[0])
    if infra is not None:
        return Decision(Outcome.INFRA, infra)
    if unsupported is not None:
        return Decision(Outcome.UNSUPPORTED, unsupported)
    if hung is not None:
        signature = bug is not None and bug.matches(hung, program)
        reason = hang or f"{program} did not end by its deadline"
        return Decision(Outcome.REPRODUCED if signature else Outcome.HANG, reason, hung)
    return _explained(_ended(program, exit_status, signal, own=bug is None), findings, said)


def _explained(ended: Decision, findings: Sequence[Finding], said: str) -> Decision:
    """Trouble of the program with what it says of it, and what may have caused it: a lack of memory."""
    if ended.outcome is not Outcome.INFRA:
        return ended
    shortage = next((finding for finding in findings if finding.kind == "memory"), None)
    reason = ended.reason
    if said:
        reason += f": {said}"
    if shortage is not None:
        reason += f"; the kernel says: {shortage.title}"
    return ended._replace(reason=reason)


def _ended(program: str, exit_status: int | None, signal: int | None, *, own: bool) -> Decision:
    """The outcome when all there is to go by is how the program ended; ``own``: the user's own program."""
    if signal is not None:
        return Decision(Outcome.INFRA, f"{program} was killed by signal {signal} ({_signal_name(signal)})")
    if exit_status is None:
        return Decision(Outcome.INFRA, f"the end of {program} was never seen")
    ends: dict[tuple[int, bool], tuple[Outcome, str]] = {
        (EXIT_CLEAN, True): (Outcome.CLEAN, f"{program} exited with status 0 and nothing was found"),
        (EXIT_CLEAN, False): (Outcome.CLEAN, f"{program} exited with status 0 and nothing was found"),
        (EXIT_REPRODUCED, True): (Outcome.REPRODUCED, f"{program} exited with status 1"),
        (EXIT_REPRODUCED, False): (Outcome.INFRA, f"{program} exited with status 1 without a record"),
        (EXIT_UNSUPPORTED, False): (
            Outcome.UNSUPPORTED,
            f"{program} exited with status 4 and gave no reason",
        ),
    }
    default = (Outcome.INFRA, f"{program} exited with status {exit_status}")
    return Decision(*ends.get((exit_status, own), default))


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return "no name"
