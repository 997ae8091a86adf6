"""The command line: ``cowpen``. Commands are imported when they are called, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import click

from harness import __version__
from harness.errors import CowpenError, UserError
from harness.process import StoppingError, end_everything

# name: (module, attribute, help)
_COMMANDS = {
    "doctor": ("harness.cli.doctor", "doctor", "what this host can do, and what mends what it cannot"),
    "bugs": ("harness.cli.bugs", "bugs", "the catalogue of bug reports"),
    "kernels": ("harness.cli.kernels", "kernels", "kernel specs and what is cached"),
    "run": ("harness.cli.run", "run", "run a bug's programs, or your own, on kernels"),
    "measure": ("harness.cli.measure", "measure", "what fork() costs, kernel against kernel"),
    "parse": ("harness.cli.parse", "parse", "findings of a console log"),
    "shell": ("harness.cli.shell", "shell", "an interactive guest on the serial console"),
    "demo": ("harness.cli.demo", "demo", "the main job: which stock kernels have the fork/O_DIRECT bug"),
}

EXIT_USAGE = 2
EXIT_TROUBLE = 125
"""Host or guest trouble kept the command from telling: `git bisect run` skips the commit."""
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""As a program that SIGPIPE ended."""
EXIT_DEFECT = 255
"""A defect in cowpen itself. Not Python's usual 1, which would tell `git bisect run` that the commit is bad;
any code above 127 stops the bisection instead."""


class _ReaderGoneError(Exception):
    """Whoever read the output has gone, as in ``cowpen … | head``."""


class _Commands(click.Group):
    """A group that imports a command when it is called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would end cowpen with 1 then, which says "reproduced".
            raise _ReaderGoneError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cowpen")
def cowpen() -> None:
    """Find, reproduce and bisect fork/COW/page-pinning races in real Linux kernels."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def say_error(error: CowpenError) -> None:
    """One line for people, then what detail there is, on standard error; nothing that could drive a terminal."""
    from harness.console.display import escape  # noqa: PLC0415

    click.echo(f"cowpen: {escape(str(error))}", err=True)
    lines = error.detail.splitlines()
    for line in lines[-25:]:
        click.echo(f"    {escape(line)}", err=True)


def main() -> NoReturn:
    """Run the command line and exit. Exit codes: see ``cowpen run --help``; wrong usage is 2."""
    # SIGTERM ends a nightly job as Ctrl-C ends a person's: guests down first, then cowpen.
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_exit_code())


def console_script() -> NoReturn:
    """`main` for a process of its own."""
    try:
        main()
    except SystemExit as end:
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Everything cowpen started has been ended by now. Python would spend another quarter of a second on taking
    # its modules apart, which is a tenth of an attempt from a cold boot.
    os._exit(code if isinstance(code, int) else EXIT_DEFECT)


def _exit_code() -> int:  # noqa: PLR0911  (one way to end per line)
    """Run the command line; the exit code, with everything said that there is to say."""
    try:
        code = cowpen.main(standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        say_error(error)
        return EXIT_USAGE
    except (KeyboardInterrupt, click.Abort, StoppingError):
        end_everything()
        click.echo("cowpen: interrupted", err=True)
        return EXIT_INTERRUPTED
    except CowpenError as error:
        say_error(error)
        return EXIT_TROUBLE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (_ReaderGoneError, BrokenPipeError):
        return EXIT_PIPE
    except Exception:  # noqa: BLE001  (all that is expected was handled above)
        traceback.print_exc()
        click.echo("cowpen: this is a defect in cowpen; please report it with the lines above", err=True)
        end_everything()
        return EXIT_DEFECT
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    console_script()
