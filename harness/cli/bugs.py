"""``cowpen bugs``: the catalogue."""

from __future__ import annotations

import json
from typing import Any

import click

from harness.bug import Bug, BugProgram, Disk, Signature, list_bugs, load_bug
from harness.expectation import Expectation


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.pass_context
def bugs(context: click.Context, as_json: bool) -> None:
    """The catalogue of bugs."""
    context.obj = as_json
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@bugs.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.pass_obj
def list_command(group_json: bool, as_json: bool) -> None:
    """All bugs, with the programs that show them."""
    _list(as_json=as_json or group_json)


@bugs.command("show")
@click.argument("bug_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.pass_obj
def show_command(group_json: bool, bug_id: str, as_json: bool) -> None:
    """Everything the catalogue says about one bug."""
    bug = load_bug(bug_id)
    if as_json or group_json:
        click.echo(json.dumps(_record(bug)))
    else:
        click.echo("\n".join(_describe(bug)))


def _record(bug: Bug) -> dict[str, Any]:
    return {"type": "bug", **bug.model_dump(mode="json")}


def _list(*, as_json: bool) -> None:
    known = list_bugs()
    if as_json:
        for bug in known:
            click.echo(json.dumps(_record(bug)))
        return
    from rich.console import Console  # noqa: PLC0415  rich is slow to import
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for heading in ("BUG", "PROGRAMS", "TITLE"):
        # An id must stay whole: it is what people copy.
        table.add_column(heading, no_wrap=heading == "BUG")
    for bug in known:
        names = ", ".join(program.name for program in bug.programs)
        table.add_row(*(Text(cell) for cell in (bug.id, names, bug.title)))
    Console().print(table)


def _describe(bug: Bug) -> list[str]:
    lines = [f"{bug.id}: {bug.title}", *(f"  {link}" for link in bug.links)]
    if bug.text:
        lines += ["", *bug.text.strip().splitlines()]
    lines += ["", "Programs"]
    for program in bug.programs:
        lines += _program(program)
        for variant in program.variants:
            lines.append(f"    :{variant.name}  {' '.join(variant.text.split())}".rstrip())
            lines += [f"    {line}" for line in _differences(program, program.variant(variant.name))]
    lines += ["", "Signatures", *(f"  {_signature(signature)}" for signature in bug.signatures)]
    if bug.expectations:
        lines += ["", "Expectations (the first that fits counts)"]
        lines += [f"  {_expectation(expectation)}" for expectation in bug.expectations]
    return lines


def _program(program: BugProgram) -> list[str]:
    machine = f"{program.memory_mib} MiB, {program.cpus} CPUs"
    machine += f", {program.numa_nodes} NUMA nodes" if program.numa_nodes > 1 else ""
    machine += f", {program.hugepages} huge pages" if program.hugepages else ""
    lines = [f"  {program.name}: {machine}, {program.attempts} attempts"]
    lines += [f"    --set {name}={value}" for name, value in program.settings.items()]
    lines += [f"    disk: {_disk(program.disk)}"] if program.disk else []
    for word, values in (
        ("kernel arguments", program.kernel_arguments),
        ("modules", program.modules),
        ("needs", (*program.needs, *(f"{symbol}()" for symbol in program.symbols))),
    ):
        lines += [f"    {word}: {' '.join(values)}"] if values else []
    return lines


def _differences(program: BugProgram, variant: BugProgram) -> list[str]:
    """What of the description is another one for the variant."""
    usual = _program(program)
    return [line for line in _program(variant) if line not in usual]


def _disk(disk: Disk) -> str:
    delays = [
        f"{word} {delay} ms late"
        for word, delay in (("reads", disk.read_delay_ms), ("writes", disk.write_delay_ms))
        if delay
    ]
    return ", ".join([f"{disk.size} of {disk.content}", *delays])


def _signature(signature: Signature) -> str:
    parts = [signature.kind]
    parts += [f"of {signature.program}"] if signature.program else []
    parts += [f"titled /{signature.title}/"] if signature.title else []
    parts += [f"in {' or '.join(signature.frames)}"] if signature.frames else []
    parts += [f"at {signature.file}"] if signature.file else []
    return " ".join(parts)


def _expectation(expectation: Expectation) -> str:
    where = [
        expectation.kernels,
        *expectation.arches,
        *([expectation.program] if expectation.program else []),
        *(f":{variant}" for variant in expectation.variants),
    ]
    rate = f", at a rate of at least {expectation.rate:.0%}" if expectation.rate is not None else ""
    return f"{' '.join(where)}: {expectation.verdict}{rate}"
