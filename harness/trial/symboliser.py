"""Lines for the findings of attempts, as far as the kernel's files give them."""

from __future__ import annotations

import dataclasses

from harness.console.symbols import Boot, Symbols, boots_of
from harness.errors import CowpenError, Tell
from harness.process import StoppingError
from harness.trial.attempt import Attempt, write_result
from harness.trial.facts import KernelFacts


class Symboliser:
    """Symbolises what the attempts of a trial found; every address is looked up once.

    An attempt never fails for it: what goes wrong is told to ``tell``, once, and findings stay as the kernel printed
    them.
    """

    def __init__(self, kernel: KernelFacts, tell: Tell) -> None:
        self._tell = tell
        self._symbols: Symbols | None = None
        if kernel.vmlinux or kernel.system_map:
            configured = kernel.config is None or kernel.config_value("CONFIG_RANDOMIZE_BASE") is not None
            self._symbols = Symbols(
                vmlinux=kernel.vmlinux,
                # Without a vmlinux it is a stock kernel, whose modules were stripped.
                modules=kernel.modules if kernel.vmlinux else None,
                system_map=kernel.system_map,
                kaslr=configured,
                tell=tell,
            )

    def symbolised(self, attempt: Attempt) -> Attempt:
        """The attempt with lines in its findings; its kept result has them too."""
        # The frames of a hang are the program's.
        ours = [finding for finding in attempt.findings if finding.kind != "hang"]
        if self._symbols is None or attempt.kept is None or not any(finding.frames for finding in ours):
            return attempt
        try:
            log = boots_of(attempt.kept / "console.log")
        except OSError:
            log = list[Boot]()
        try:
            symbolised = iter(self._symbols.symbolise_all(ours, log))
        except StoppingError:
            raise
        except CowpenError as error:
            self._tell(f"reports have no lines: {error}")
            self._symbols = None
            return attempt
        findings = tuple(f if f.kind == "hang" else next(symbolised) for f in attempt.findings)
        if findings == attempt.findings:
            return attempt
        return write_result(dataclasses.replace(attempt, findings=findings), attempt.kept)
