"""``cowpen shell``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from harness.errors import UserError


@click.command("shell")
@click.option(
    "--kernel", "spec", default="debian:6.12", show_default=True, metavar="SPEC", help="The kernel to boot."
)
@click.option("--arch", "arch_name", metavar="ARCH", help="x86_64 or aarch64. [default: this host's]")
@click.option("--cpus", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--memory", type=click.IntRange(64), default=512, show_default=True, metavar="MIB")
@click.option(
    "--program", "programs", multiple=True, metavar="NAME", help="Put a program of cowpen's into /bin."
)
@click.option("--append", multiple=True, metavar="ARGUMENT", help="A kernel argument; may be repeated.")
def shell(
    spec: str,
    arch_name: str | None,
    cpus: int,
    memory: int,
    programs: tuple[str, ...],
    append: tuple[str, ...],
) -> None:
    """Boot a guest and talk to its shell on the serial console.

    The guest has a slow disk /dev/vda (64 MiB, 20 ms a read) and no network. `exit` switches it off; so does Ctrl-].
    """
    from harness.arch import get_arch, host_arch  # noqa: PLC0415
    from harness.cache import Cache  # noqa: PLC0415
    from harness.console.display import escape  # noqa: PLC0415
    from harness.guest.machine import Disk, MachineShape  # noqa: PLC0415

    if not sys.stdin.isatty():
        raise UserError(
            "cowpen shell needs a terminal", mend="use `cowpen run --program` for what runs by itself"
        )
    arch = get_arch(arch_name) if arch_name else host_arch()
    shape = MachineShape(
        cpus=cpus,
        memory_mib=memory,
        disks=(Disk(read_delay_ms=20),),
        kernel_arguments=append,
        channel="shell",
    )
    with tempfile.TemporaryDirectory(prefix="cowpen-shell-") as folder:
        from harness.trial.shell import interact  # noqa: PLC0415

        interact(
            spec,
            arch,
            shape,
            programs=programs,
            folder=Path(folder),
            cache=Cache(),
            tell=lambda line: click.echo(escape(line), err=True),
        )
