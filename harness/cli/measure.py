"""``cowpen measure``: what a kernel costs, beside whether it is right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.trial.fork_cost import Cost
    from harness.trial.statistics import Mean

_SIZE = re.compile(r"([1-9][0-9]{0,6})([MG])")
_MOST_MIB = 64 << 10


@click.group("measure")
def measure() -> None:
    """What a kernel costs, measured against another one."""


def _sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """``1M,10M,1G`` in MiB."""
    sizes = []
    for word in value.split(","):
        match = _SIZE.fullmatch(word.strip())
        mib = int(match[1]) * (1024 if match[2] == "G" else 1) if match else 0
        if not 0 < mib <= _MOST_MIB:
            raise click.BadParameter(
                f"{word.strip()!r}: expected sizes such as 100M or 1G, at most 64G", ctx, param
            )
        sizes.append(mib)
    return tuple(dict.fromkeys(sizes))


@measure.command("fork-cost")
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="A kernel; the first is what the others are compared with. The same twice shows what chance does.",
)
@click.option("--arch", "arch_name", metavar="ARCH", help="x86_64 or aarch64. [default: this host's]")
@click.option(
    "--sizes",
    callback=_sizes,
    default="1M,10M,100M,1000M",
    show_default=True,
    help="Anonymous memory of the process that forks.",
)
@click.option(
    "--rounds", type=click.IntRange(2, 1000), default=7, show_default=True, help="Turns of each kernel."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object per size on standard output.")
def fork_cost(
    kernels: tuple[str, ...], arch_name: str | None, sizes: tuple[int, ...], rounds: int, as_json: bool
) -> None:
    """How long fork() takes by size of anonymous memory, on several kernels in turn.

    A guest of each kernel is up all the time. Milliseconds are under this host's emulation: the ratio is what counts.
    Both come with 95 % intervals over the rounds.
    """
    from harness.arch import get_arch, host_arch  # noqa: PLC0415
    from harness.cache import Cache  # noqa: PLC0415
    from harness.cli.progress import print_json  # noqa: PLC0415
    from harness.console.display import escape  # noqa: PLC0415
    from harness.kernel.kernel import check  # noqa: PLC0415
    from harness.trial.fork_cost import measure_fork_cost  # noqa: PLC0415

    arch = get_arch(arch_name) if arch_name else host_arch()
    for spec in kernels:
        check(spec, arch)
    if len(kernels) < 2:
        raise UserError(
            "one kernel has nothing to be compared with", mend="name another: --kernel A --kernel B"
        )
    displayed, costs = measure_fork_cost(
        kernels,
        arch,
        sizes_mib=sizes,
        rounds=rounds,
        cache=Cache(),
        tell=lambda line: click.echo(escape(line), err=True),
    )
    if as_json:
        for cost in costs:
            print_json(_record(cost, kernels, displayed, arch.name, rounds))
    else:
        click.echo("\n".join(_table(displayed, costs, arch.name, rounds)))


def _record(
    cost: Cost, kernels: tuple[str, ...], displayed: list[str], arch: str, rounds: int
) -> dict[str, object]:
    return {
        "type": "fork-cost",
        "arch": arch,
        "mib": cost.mib,
        "rounds": rounds,
        "kernels": [
            {
                "spec": spec,
                "kernel": name,
                "milliseconds": mean.value,
                "interval": [mean.low, mean.high],
                "ratio": ratio.value,
                "ratio_interval": [ratio.low, ratio.high],
            }
            for spec, name, mean, ratio in zip(
                kernels, displayed, cost.milliseconds, cost.ratios, strict=True
            )
        ],
    }


def _table(displayed: list[str], costs: list[Cost], arch: str, rounds: int) -> list[str]:
    """The report's table, with intervals; kernels are numbered, for their names are long."""
    from harness.console.display import escape  # noqa: PLC0415

    numbers = range(1, len(displayed) + 1)
    rows = [["memory", *(f"({n}) ms" for n in numbers), *(f"({n}) / (1)" for n in numbers if n > 1)]]
    for cost in costs:
        cells = [f"{cost.mib}M", *(_milliseconds(mean) for mean in cost.milliseconds)]
        rows.append([*cells, *(_percent(ratio) for ratio in cost.ratios[1:])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"fork() on {arch}, means of {rounds} rounds with 95 % intervals"]
    lines += [f"({number}) {escape(name)}" for number, name in zip(numbers, displayed, strict=True)]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return lines


def _milliseconds(mean: Mean) -> str:
    return f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"


def _percent(ratio: Mean) -> str:
    return f"{100 * ratio.value:.1f} % ({100 * ratio.low:.1f} to {100 * ratio.high:.1f})"
