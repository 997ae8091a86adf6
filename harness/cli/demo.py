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
    from harness.arch import get_arch  # noqa: PLC0415
    from harness.cache import Cache  # noqa: PLC0415
    from harness.cli.progress import Progress  # noqa: PLC0415
    from harness.trial.keep import run_folder  # noqa: PLC0415
    from harness.trial.subject import bug_subjects  # noqa: PLC0415
    from harness.trial.trial import Options, run_trial  # noqa: PLC0415

    progress = Progress(as_json=False)
    (subject,) = bug_subjects(_BUG, {})
    with run_folder(None) as folder:
        for kernel in _KERNELS:
            for arch in _ARCHES:
                run_trial(
                    subject,
                    kernel,
                    get_arch(arch),
                    Options(attempts=attempts),
                    run=folder,
                    cache=Cache(),
                    listener=progress,
                )
        click.echo(f"results: {folder}", err=True)
    progress.table()
    unexpected = [verdict for verdict in progress.verdicts if verdict.as_expected is not True]
    for verdict in unexpected:
        click.echo(f"not as expected: {verdict.kernel['spec']} {verdict.arch}: {verdict.reason}", err=True)
    return 1 if unexpected else 0
