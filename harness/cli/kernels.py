"""``cowpen kernels``: what kernels there are, fetch stock ones, show what is known of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from harness.arch import get_arch, host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from harness.errors import CowpenError
    from harness.kernel.kernel import Kernel

# What decides whether a bug of this family can show: `show` prints these.
_OPTIONS_SHOWN = (
    "CONFIG_AIO",
    "CONFIG_IO_URING",
    "CONFIG_MEMCG",
    "CONFIG_TRANSPARENT_HUGEPAGE",
    "CONFIG_COMPACTION",
    "CONFIG_MIGRATION",
    "CONFIG_KSM",
    "CONFIG_USERFAULTFD",
    "CONFIG_PREEMPT",
    "CONFIG_PREEMPT_RT",
    "CONFIG_DEBUG_VM",
    "CONFIG_KASAN",
    "CONFIG_KCSAN",
    "CONFIG_PROVE_LOCKING",
    "CONFIG_KCOV",
    "CONFIG_GUP_TEST",
    "CONFIG_ARM64_CONTPTE",
)

# What of a cache is not pruned: not entries, and next to nothing.
_NOT_PRUNED = ("apt", "accelerator")

_json_option = click.option("--json", "as_json", is_flag=True, help="JSON to standard output.")


@click.group("kernels", short_help="kernel specs and what is cached")
def kernels() -> None:
    """Kernels: which are in the cache, fetch stock ones, build others, show what is known of one."""


@kernels.command("list")
@_json_option
def list_kernels(as_json: bool) -> None:
    """List the cached kernels, the known specs that are not cached, the definitions of kernels/, and fragments.

    With --json: one object a line; a spec that is not cached has "cached": false, a build of a definition of kernels/
    that has changed since has "current": false.
    """
    from harness.arch import ARCHES  # noqa: PLC0415
    from harness.cache import Cache  # noqa: PLC0415
    from harness.kernel.build import fragment_names  # noqa: PLC0415
    from harness.kernel.kernel import cached  # noqa: PLC0415
    from harness.kernel.spec import FLAVOURS, KNOWN_SPECS, DebianSpec, parse  # noqa: PLC0415

    found, faults = cached(Cache())
    rows: list[dict[str, Any]] = [
        {
            "cached": True,
            "spec": kernel.spec,
            "arch": kernel.arch.name,
            "release": kernel.release,
            "version": kernel.package_version or kernel.version,
            "bytes": kernel.provenance.get("bytes"),
            "fetched": kernel.provenance.get("fetched"),
        }
        for kernel in found
    ]
    there = {(row["spec"], row["arch"]) for row in rows}
    for text in KNOWN_SPECS:
        spec = parse(text)
        arches = FLAVOURS[spec.flavour].arches if isinstance(spec, DebianSpec) else frozenset(ARCHES)
        rows += [
            {"cached": False, "spec": text, "arch": arch}
            for arch in ARCHES
            if arch in arches and (text, arch) not in there
        ]
    built_rows, built_faults = _built_rows()
    rows += built_rows
    rows.sort(key=lambda row: (row["spec"], row["arch"]))
    for fault in [*faults, *built_faults]:
        click.echo(f"warning: {fault}", err=True)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    _print_table(
        ("SPEC", "ARCH", "VERSION", "RELEASE", "SIZE", "FETCHED"),
        [
            (
                row["spec"] + ("" if row.get("current", True) else ", as it once was"),
                row["arch"],
                row.get("version") or "not cached",
                row.get("release") or "",
                _megabytes(row.get("bytes")),
                str(row.get("fetched") or "")[:10],
            )
            for row in rows
        ],
    )
    others = (
        "Any other Debian series: debian:VERSION[-FLAVOUR]; your own kernel: path:IMAGE or "
        "tree:DIR[@REV][+FRAGMENT…]\n"
        f"Fragments: {', '.join(fragment_names())}, or the path of your own"
    )
    click.echo(others, err=True)


def _built_rows() -> tuple[list[dict[str, Any]], list[CowpenError]]:
    """The definitions of ``kernels/``, and what of them and of users' trees has been built; and what is damaged.

    ``current`` is false for a build of a definition as it once was: `cowpen run` would build another.
    """
    from harness.arch import ARCHES  # noqa: PLC0415
    from harness.cache import Cache  # noqa: PLC0415
    from harness.kernel.build import cached as cached_builds  # noqa: PLC0415
    from harness.kernel.definition import define  # noqa: PLC0415
    from harness.kernel.names import definition_files  # noqa: PLC0415

    defined = {name: define(name) for name in definition_files()}
    rows: list[dict[str, Any]] = []
    found, faults = cached_builds(Cache())
    for built in found:
        provenance = built.provenance
        definition = defined.get(provenance["name"])
        rows.append(
            {
                "cached": True,
                # Who was built before there was such an identity may be any.
                "current": definition is None
                or provenance.get("recipe") in (None, definition.identity(built.arch)),
                "spec": provenance["name"],
                "arch": built.arch.name,
                "version": provenance["source"]["name"],
                "release": built.release,
                "bytes": built.bytes,
                "fetched": provenance["built"],
            }
        )
    there = {(row["spec"], row["arch"]) for row in rows if row["current"]}
    rows += [
        {"cached": False, "spec": name, "arch": arch, "title": definition.title}
        for name, definition in defined.items()
        for arch in ARCHES
        if arch in definition.arches and (name, arch) not in there
    ]
    return rows, faults


@kernels.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option("--arch", "arches", multiple=True, metavar="ARCH", help="Default: the host's own. Repeatable.")
@click.option("--refresh", is_flag=True, help="Look for a newer package even if today's look is remembered.")
def fetch(specs: tuple[str, ...], arches: tuple[str, ...], refresh: bool) -> None:
    """Fetch stock kernels into the cache, so that later runs need no network."""
    from harness.cache import Cache  # noqa: PLC0415
    from harness.kernel.kernel import check, resolve  # noqa: PLC0415

    wanted = [get_arch(name) for name in arches] or [host_arch()]
    cache = Cache()
    # Every mistake is reported before the first megabyte is fetched.
    for spec in specs:
        for arch in wanted:
            check(spec, arch)
    for arch in wanted:
        for spec in specs:
            kernel = resolve(spec, arch, cache, refresh=refresh, tell=_say)
            click.echo(f"{kernel.display}  {arch.name}  {kernel.release}")


@kernels.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option("--arch", "arches", multiple=True, metavar="ARCH", help="Default: the host's own. Repeatable.")
@click.option(
    "--jobs", type=click.IntRange(1, 1024), metavar="N", help="Compilers at once. [default: CPUs and one]"
)
def build(specs: tuple[str, ...], arches: tuple[str, ...], jobs: int | None) -> None:
    """Build kernels from source: a name in kernels/, or tree:DIR[@REV][+FRAGMENT…].

    A fragment is one of those that `cowpen kernels list` ends with, or the path of your own:
    tree:.+debug-vm+./my.config

    What the cache has is not built again. A kernel that is not there is also built when `cowpen run` needs it.
    """
    from harness.cache import Cache  # noqa: PLC0415
    from harness.errors import UserError  # noqa: PLC0415
    from harness.kernel.kernel import check, resolve  # noqa: PLC0415
    from harness.kernel.spec import NamedSpec, TreeSpec  # noqa: PLC0415

    wanted = [get_arch(name) for name in arches] or [host_arch()]
    # Every mistake is reported before the first kernel is built.
    for spec in specs:
        for arch in wanted:
            if not isinstance(check(spec, arch), NamedSpec | TreeSpec):
                raise UserError(
                    f"{spec} is not built from source", mend="cowpen kernels fetch, for a stock kernel"
                )
    for arch in wanted:
        for spec in specs:
            kernel = resolve(spec, arch, Cache(), tell=_say, jobs=jobs)
            click.echo(f"{kernel.display}  {arch.name}  {kernel.release}  {kernel.image}")


@kernels.command()
@click.option(
    "--keep",
    type=click.FloatRange(min=0),
    default=50.0,
    show_default=True,
    metavar="GB",
    help="How much may stay.",
)
@click.option(
    "--unused",
    type=click.FloatRange(min=0),
    default=90.0,
    show_default=True,
    metavar="DAYS",
    help="How long what nobody uses may stay.",
)
def prune(keep: float, unused: float) -> None:
    """Remove from the cache what was not used for long, then the least recently used beyond a size.

    Kernels, the trees they are built in, sources, programs, snapshots: all of it can be made again. What a cowpen uses
    just now stays.
    """
    from harness.cache import Cache  # noqa: PLC0415

    cache = Cache()
    before = cache.sizes()
    kinds = before.keys() - set(_NOT_PRUNED)
    cache.prune(*kinds, unused_seconds=unused * 86400, most_bytes=int(keep * 1e9))
    after = cache.sizes()
    for kind, size in before.items():
        freed = size - after.get(kind, 0)
        click.echo(f"{kind:<12} {_megabytes(freed):>9} removed, {_megabytes(after.get(kind, 0)):>9} left")


@kernels.command()
@click.argument("spec")
@click.option("--arch", "arch_name", metavar="ARCH", help="Default: the host's own.")
@_json_option
def show(spec: str, arch_name: str | None, as_json: bool) -> None:
    """Show a kernel: where it came from, its files, what its config says. Fetches it if need be."""
    from harness.cache import Cache  # noqa: PLC0415
    from harness.kernel.kernel import resolve  # noqa: PLC0415

    arch = get_arch(arch_name) if arch_name else host_arch()
    kernel = resolve(spec, arch, Cache(), tell=_say)
    facts = _facts(kernel)
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{kernel.display}  {arch.name}")
    groups: list[tuple[str, dict[str, Any]]] = [
        ("", {name: facts[name] for name in ("release", "version", "page_size", "content")}),
        ("files", facts["files"]),
        ("provenance", facts["provenance"]),
        ("config", facts["config"]),
    ]
    for title, values in groups:
        if title:
            click.echo(f"\n{title}")
        for name, value in values.items():
            click.echo(f"  {name:<32} {'-' if value is None else value}")


def _facts(kernel: Kernel) -> dict[str, Any]:
    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return {
        "spec": kernel.spec,
        "arch": kernel.arch.name,
        "release": kernel.release,
        "version": kernel.version,
        "package_version": kernel.package_version,
        "page_size": kernel.page_size,
        "content": kernel.content,
        "files": {
            name: text(getattr(kernel, name))
            for name in ("image", "config", "system_map", "vmlinux", "modules")
        },
        "provenance": kernel.provenance,
        "config": (
            {name: kernel.config_value(name) or "n" for name in _OPTIONS_SHOWN} if kernel.config else {}
        ),
    }


def _say(line: str) -> None:
    click.echo(line, err=True)


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f} MB"


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    # Into a pipe or file a table must not be cut to an imagined width of 80 columns.
    console.print(table) if console.is_terminal else Console(width=200).print(table)
