"""``cowpen doctor``: what this host can do, and what mends what it cannot."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.arch import Arch
    from harness.cache import Cache

_CANARY_KERNEL = "debian:6.1"
_ENOUGH_DISK = 4 << 30  # two kernels, their snapshots and a few hundred attempts, for both architectures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report. ``mend`` is the command that puts it right, empty if nothing is wrong."""

    topic: str
    good: bool
    says: str
    mend: str = ""


@click.command("doctor")
@click.option(
    "--json", "as_json", is_flag=True, help="A JSON object per line of the report, on standard output."
)
@click.option("--offline", is_flag=True, help="Prove accelerators only with kernels that are cached already.")
def doctor(as_json: bool, offline: bool) -> int:
    """Check tools, accelerators (by booting a guest, not by looking at /dev/kvm), disk space and kernels.

    Exit code 0 when nothing is missing, 125 otherwise.
    """
    from harness.cache import Cache  # noqa: PLC0415
    from harness.cli.progress import print_json  # noqa: PLC0415
    from harness.console.display import escape  # noqa: PLC0415

    cache = Cache()
    checks = [*_tools(), _disk(cache), *_accelerators(cache, offline=offline), *_kernels(cache)]
    for check in checks:
        if as_json:
            print_json(dataclasses.asdict(check))
            continue
        mark = "ok     " if check.good else "MISSING"
        click.echo(escape(f"{mark}  {check.topic:<22}  {check.says}"))
        if check.mend:
            click.echo(escape(f"{'':9}mend with: {check.mend}"))
    return 0 if all(check.good for check in checks) else 125


def _tools() -> list[Check]:
    from harness import tools  # noqa: PLC0415

    checks = []
    for package in tools.packages():
        for command in package.commands:
            path = shutil.which(command)
            checks.append(
                Check(
                    topic=command,
                    good=path is not None,
                    says=path or f"not found; {package.purpose}",
                    mend="" if path else f"apt-get install {package.name}",
                )
            )
    return checks


def _disk(cache: Cache) -> Check:
    place = cache.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    says = f"{free / 1e9:.0f} GB free for the cache in {cache.root}"
    mend = "" if free >= _ENOUGH_DISK else "free some space there, or point XDG_CACHE_HOME at a larger disk"
    return Check(topic="disk", good=not mend, says=says, mend=mend)


def _accelerators(cache: Cache, *, offline: bool) -> list[Check]:
    from harness.arch import ARCHES  # noqa: PLC0415

    return [_accelerator(arch, cache, offline=offline) for arch in ARCHES.values()]


def _accelerator(arch: Arch, cache: Cache, *, offline: bool) -> Check:
    from harness.errors import CowpenError  # noqa: PLC0415
    from harness.guest import accelerator  # noqa: PLC0415
    from harness.kernel.kernel import resolve  # noqa: PLC0415
    from harness.program.init import compile_init  # noqa: PLC0415

    topic = f"{arch.name} guests"
    try:
        proof = accelerator.remembered(arch, cache)
        if proof is None:
            kernel = resolve(_CANARY_KERNEL, arch, cache, offline=offline, progress=_tell)
            proof = accelerator.prove(kernel, compile_init(arch, cache), cache, tell=_tell)
    except CowpenError as error:
        return Check(topic=topic, good=False, says=f"not proved: {error.message}", mend=error.mend or "")
    if proof.boot_seconds is None:
        return Check(topic=topic, good=False, says=proof.reason, mend="cowpen shell --arch " + arch.name)
    return Check(topic=topic, good=True, says=f"{proof.accelerator}: {proof.reason} ({proof.kernel})")


def _kernels(cache: Cache) -> list[Check]:
    from harness.kernel.kernel import cached  # noqa: PLC0415

    kernels, faults = cached(cache)
    checks = [
        Check(topic=f"kernel {kernel.spec}", good=True, says=f"{kernel.release} ({kernel.arch.name})")
        for kernel in kernels
    ]
    if not kernels:
        checks.append(Check(topic="kernels", good=True, says="none cached yet; they are fetched when needed"))
    checks += [
        Check(topic="kernels", good=False, says=fault.message, mend=fault.mend or "") for fault in faults
    ]
    return checks


def _tell(line: str) -> None:
    from harness.console.display import escape  # noqa: PLC0415

    click.echo(escape(line), err=True)
