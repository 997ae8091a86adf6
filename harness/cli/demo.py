"""``cowpen demo``: what ``make demo`` runs."""

from __future__ import annotations

import click

_BUG = "rhbz-471613/forkscrew"
_KERNELS = ("debian:6.1", "debian:6.12")
_ARCHES = ("x86_64", "aarch64")


@click.command("demo")
@click.option(
    "--attempts", type=click.IntRange(1), default=10, show_default=True, help="Attempts of each row."
)
def demo(attempts: int) -> int:
    """Tell which stock kernels have the fork/O_DIRECT bug, on both architectures, measured now.

    Exit code 0 when every row is as the catalogue expects, 1 otherwise.
    """
    from harness.cli.progress import Progress  # noqa: PLC0415
    from harness.cli.run import guest_targets, run_trials  # noqa: PLC0415
    from harness.guest.machine import MachineShape  # noqa: PLC0415
    from harness.trial.subject import bug_subjects  # noqa: PLC0415
    from harness.trial.trial import Options  # noqa: PLC0415

    progress = Progress(as_json=False)
    targets = guest_targets(_KERNELS, _ARCHES, base=MachineShape(), jobs=1, cold=False)
    run_trials(bug_subjects(_BUG, {}), targets, Options(attempts=attempts), progress, keep=None)
    unexpected = [verdict for verdict in progress.verdicts if verdict.as_expected is not True]
    for verdict in unexpected:
        click.echo(f"not as expected: {verdict.kernel['spec']} {verdict.arch}: {verdict.reason}", err=True)
    return 1 if unexpected else 0
