"""``cowpen run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.progress import Progress
    from harness.guest.machine import MachineShape
    from harness.trial.subject import Subject
    from harness.trial.target import Target
    from harness.trial.trial import Options

_DEFAULT_KERNEL = "debian:6.12"
_MAX_SECONDS = 7 * 86400.0  # as in program.toml

_EPILOG = """
\b
Exit code, made for `git bisect run`:
  0    clean: every attempt ended well and found nothing
  1    reproduced: at least one attempt showed the bug
  125  cannot tell: unsupported, infra, hang, or another finding
  2    wrong usage
  130  interrupted
Over several bugs and kernels: 1 if any reproduced, else 125 if any cannot tell, else 0.

\b
BUG/PROGRAM:VARIANT is another way to run a program (`cowpen bugs show BUG` lists them), BUG:VARIANT all programs
that have it, :all everything.
"""


def parse_settings(words: tuple[str, ...]) -> dict[str, str]:
    """``("alignment=0",)`` as a dictionary; `UserError` for what is not NAME=VALUE."""
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"--set {word!r}", mend="expected NAME=VALUE, for example --set alignment=0")
        settings[name.strip()] = value
    return settings


def _jobs(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number of guests, or None for ``auto``."""
    return None if value == "auto" else click.IntRange(1, 64)(value, param, ctx)


@click.command("run", epilog=_EPILOG)
@click.argument("bugs", nargs=-1, metavar="BUG[/PROGRAM][:VARIANT]…")
@click.option(
    "--program",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own reproducer: a C file, a .c.j2 template or a static binary. "
    "It exits with 0 when clean, 1 when it shows the bug.",
)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="SPEC",
    help="debian:6.1, debian:6.12, debian:6.12-16k, path:IMAGE[,modules=DIR,…]; may be repeated. "
    f"[default: {_DEFAULT_KERNEL}]",
)
@click.option(
    "--arch",
    "arches",
    multiple=True,
    metavar="ARCH",
    help="x86_64 or aarch64; may be repeated. [default: this host's]",
)
@click.option(
    "--machine", metavar="URL", help="A machine that already runs, ssh://USER@HOST:PORT, instead of guests."
)
@click.option(
    "--identity",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Private key for --machine. [default: your own keys and SSH agent]",
)
@click.option(
    "--known-hosts",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Host keys to trust with --machine. [default: ~/.ssh/known_hosts]",
)
@click.option(
    "--attempts", type=click.IntRange(1), help="Attempts of each trial. [default: the bug's, or 10]"
)
@click.option("--stop-on-first", is_flag=True, help="End a trial with its first reproduction.")
@click.option(
    "--until-decided",
    is_flag=True,
    help="End a trial as soon as it is decided whether the kernel does what the catalogue expects; --attempts are the "
    "most then. Where nothing is expected all of them are made.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(min=0.5, max=1, max_open=True),
    metavar="C",
    help="How sure --until-decided wants to be. [default: 0.95]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=_MAX_SECONDS, min_open=True),
    help="How long a program may run; slow guests get more. [default: the program's, or 60]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the program; may be repeated.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="A JSON object per attempt and per trial on standard output."
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where results go. [default: below ~/.local/state/cowpen/runs]",
)
@click.option(
    "--jobs",
    callback=_jobs,
    default="1",
    show_default=True,
    metavar="N|auto",
    help="Guests at once; auto: as many as cores and memory allow without starving each other's CPUs, which gives the "
    "most attempts a minute. Not the default, since neighbours change the timing that a race depends on.",
)
@click.option("--cold", is_flag=True, help="Boot for every attempt instead of starting from a snapshot.")
@click.option(
    "--cpus", type=click.IntRange(1, 64), default=2, show_default=True, help="At least so many CPUs."
)
@click.option(
    "--memory",
    type=click.IntRange(64),
    default=512,
    show_default=True,
    metavar="MIB",
    help="At least so much memory.",
)
@click.option(
    "--numa",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    metavar="N",
    help="At least so many NUMA nodes, over which CPUs and memory are spread evenly.",
)
@click.option(
    "--hugepages",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="At least so many huge pages of the default size, reserved at boot.",
)
@click.option(
    "--disk",
    type=click.Choice(["zeros", "ext4", "xfs"]),
    help="What the disk /dev/vda of --program holds; a file system is mounted on /mnt. [default: zeros]",
)
@click.option(
    "--symbol",
    "symbols",
    multiple=True,
    metavar="FUNCTION",
    help="Kernels without this function are unsupported: to be sure that a patch is in. May be repeated.",
)
@click.option("--cpu", metavar="MODEL", help="QEMU's CPU model. [default: the architecture's]")
@click.option(
    "--channel",
    type=click.Choice(["agent", "serial"]),
    default="agent",
    show_default=True,
    help="How to reach the guest; serial is for kernels without virtio-serial.",
)
@click.option("--append", multiple=True, metavar="ARGUMENT", help="A kernel argument; may be repeated.")
def run(
    bugs: tuple[str, ...],
    file: Path | None,
    kernels: tuple[str, ...],
    arches: tuple[str, ...],
    machine: str | None,
    identity: Path | None,
    known_hosts: Path | None,
    attempts: int | None,
    stop_on_first: bool,
    until_decided: bool,
    confidence: float | None,
    seconds: float | None,
    settings: tuple[str, ...],
    as_json: bool,
    keep: Path | None,
    jobs: int | None,
    cold: bool,
    cpus: int,
    memory: int,
    numa: int,
    hugepages: int,
    disk: str | None,
    symbols: tuple[str, ...],
    cpu: str | None,
    channel: str,
    append: tuple[str, ...],
) -> int:
    """Run a bug's programs, or your own reproducer, on kernels, and say what came of it."""
    from harness.cli.progress import Progress  # noqa: PLC0415
    from harness.trial.trial import Options  # noqa: PLC0415

    subjects = _subjects(bugs, file, parse_settings(settings), disk)
    if seconds is not None:
        subjects = [subject.with_seconds(seconds) for subject in subjects]
    subjects = [subject.with_symbols(symbols) for subject in subjects]
    if machine is not None:
        if kernels or arches:
            raise UserError(
                "--machine excludes --kernel and --arch", mend="a running machine has a kernel already"
            )
        targets = [_running(machine, identity, known_hosts)]
    else:
        from harness.guest.machine import MachineShape  # noqa: PLC0415

        base = MachineShape(
            cpus=cpus,
            memory_mib=memory,
            numa_nodes=numa,
            hugepages=hugepages,
            cpu=cpu,
            channel=channel,
            kernel_arguments=append,
        )
        targets = guest_targets(kernels or (_DEFAULT_KERNEL,), arches, base=base, jobs=jobs, cold=cold)
    options = Options(
        attempts=attempts, stop_on_first=stop_on_first, decide=_decide(until_decided, confidence)
    )
    return run_trials(subjects, targets, options, Progress(as_json=as_json), keep=keep)


def _decide(until_decided: bool, confidence: float | None) -> float | None:
    """The confidence with which trials are to be decided, None to make all attempts."""
    from harness.trial.sequential import CONFIDENCE  # noqa: PLC0415

    if not until_decided and confidence is not None:
        raise UserError(f"--confidence {confidence:g} without --until-decided", mend="give both, or neither")
    return (confidence or CONFIDENCE) if until_decided else None


def guest_targets(
    kernels: tuple[str, ...], arches: tuple[str, ...], *, base: MachineShape, jobs: int | None, cold: bool
) -> list[Target[Any]]:
    """Every kernel on every architecture; ``jobs`` None: as many at once as make sense.

    `UserError` for a name that cannot be right.
    """
    from harness.arch import get_arch, host_arch  # noqa: PLC0415
    from harness.kernel.kernel import check  # noqa: PLC0415
    from harness.trial.jobs import Jobs  # noqa: PLC0415
    from harness.trial.target import GuestTarget  # noqa: PLC0415

    at_once = Jobs(jobs)
    wanted = [get_arch(name) for name in arches] or [host_arch()]
    for spec in kernels:
        for arch in wanted:  # a mistake in the last spec is better known before the first trial
            check(spec, arch)
    return [
        GuestTarget(spec=spec, arch=arch, base=base, jobs=at_once, cold=cold)
        for spec in kernels
        for arch in wanted
    ]


def _running(url: str, identity: Path | None, known_hosts: Path | None) -> Target[Any]:
    from harness.cache import Cache  # noqa: PLC0415
    from harness.guest.ssh import parse_address  # noqa: PLC0415
    from harness.trial.running import reach  # noqa: PLC0415

    return reach(parse_address(url), identity=identity, known_hosts=known_hosts, cache=Cache())


def _subjects(
    bugs: tuple[str, ...], file: Path | None, settings: dict[str, str], disk: str | None
) -> list[Subject]:
    from harness.trial.subject import bug_subjects, own_subject  # noqa: PLC0415

    if file is not None and bugs:
        raise UserError("a BUG and --program exclude each other", mend="run them one after the other")
    if file is not None:
        return [own_subject(file, settings, filesystem=None if disk == "zeros" else disk)]
    if disk is not None:
        raise UserError(
            f"--disk {disk} without --program", mend="the record of a bug says what its disk holds"
        )
    if not bugs:
        raise UserError(
            "nothing to run", mend="name a BUG (see `cowpen bugs`) or your own reproducer with --program"
        )
    return [subject for name in bugs for subject in bug_subjects(name, settings)]


def run_trials(
    subjects: list[Subject],
    targets: Sequence[Target[Any]],
    options: Options,
    progress: Progress,
    *,
    keep: Path | None,
) -> int:
    """Run every subject on every target; show progress and, at the end, the table; the exit code of `run`."""
    from harness.cache import Cache  # noqa: PLC0415
    from harness.trial.keep import run_folder  # noqa: PLC0415
    from harness.trial.outcome import exit_code  # noqa: PLC0415
    from harness.trial.trial import run_trial  # noqa: PLC0415

    with run_folder(keep) as folder, progress:
        for subject in subjects:
            for target in targets:
                run_trial(subject, target, options, run=folder, cache=Cache(), listener=progress)
        progress.table()
        click.echo(f"results: {folder}", err=True)
    return exit_code(verdict.verdict for verdict in progress.verdicts)
