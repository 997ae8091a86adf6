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
class Finding:
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
    findings = [*_tools(), _disk(cache), *_accelerators(cache, offline=offline), *_kernels(cache)]
    for finding in findings:
        if as_json:
            print_json(dataclasses.asdict(finding))
            continue
        mark = "ok     " if finding.good else "MISSING"
        click.echo(escape(f"{mark}  {finding.topic:<22}  {finding.says}"))
        if finding.mend:
            click.echo(escape(f"{'':9}mend with: {finding.mend}"))
    return 0 if all(finding.good for finding in findings) else 125


def _tools() -> list[Finding]:
    from harness import tools  # noqa: PLC0415

    findings = []
    for package in tools.packages():
        for command in package.commands:
            path = shutil.which(command)
            findings.append(
                Finding(
                    topic=command,
                    good=path is not None,
                    says=path or f"not found; {package.purpose}",
                    mend="" if path else f"apt-get install {package.name}",
                )
            )
    return findings


def _disk(cache: Cache) -> Finding:
    place = cache.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    says = f"{free / 1e9:.0f} GB free for the cache in {cache.root}"
    mend = "" if free >= _ENOUGH_DISK else "free some space there, or point XDG_CACHE_HOME at a larger disk"
    return Finding(topic="disk", good=not mend, says=says, mend=mend)


def _accelerators(cache: Cache, *, offline: bool) -> list[Finding]:
    from harness.arch import ARCHES  # noqa: PLC0415

    return [_accelerator(arch, cache, offline=offline) for arch in ARCHES.values()]


def _accelerator(arch: Arch, cache: Cache, *, offline: bool) -> Finding:
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
        return Finding(topic=topic, good=False, says=f"not proved: {error.message}", mend=error.mend or "")
    if proof.boot_seconds is None:
        return Finding(topic=topic, good=False, says=proof.reason, mend="cowpen shell --arch " + arch.name)
    return Finding(topic=topic, good=True, says=f"{proof.accelerator}: {proof.reason} ({proof.kernel})")


def _kernels(cache: Cache) -> list[Finding]:
    from harness.kernel.kernel import cached  # noqa: PLC0415

    kernels, faults = cached(cache)
    findings = [
        Finding(topic=f"kernel {kernel.spec}", good=True, says=f"{kernel.release} ({kernel.arch.name})")
        for kernel in kernels
    ]
    if not kernels:
        findings.append(
            Finding(topic="kernels", good=True, says="none cached yet; they are fetched when needed")
        )
    findings += [
        Finding(topic="kernels", good=False, says=fault.message, mend=fault.mend or "") for fault in faults
    ]
    return findings


def _tell(line: str) -> None:
    click.echo(line, err=True)
