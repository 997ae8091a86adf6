"""``cowpen doctor``: what this host can do, and what mends what it cannot."""

from __future__ import annotations

import ctypes.util
import dataclasses
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.check import Check

if TYPE_CHECKING:
    from harness.cache import Cache

_ENOUGH_DISK = 4 << 30  # two kernels, their snapshots and a few hundred attempts, for both architectures
_ENOUGH_RESULTS = 256 << 20  # 20 runs of 40 attempts, see harness/trial/keep.py
# What cowpen has open beside its guests, at most: 7 descriptors were seen with one to four guests, plus compilers.
_OWN_DESCRIPTORS = 32
# Of one guest with a disk, where the canary could not tell: 8 to 9 seen on both architectures.
_GUEST_DESCRIPTORS = 10


@click.command("doctor")
@click.option(
    "--json", "as_json", is_flag=True, help="A JSON object per line of the report, on standard output."
)
@click.option("--offline", is_flag=True, help="Prove accelerators only with kernels that are cached already.")
def doctor(as_json: bool, offline: bool) -> int:
    """Check tools, folders and limits, and prove accelerators and snapshots by booting guests.

    /dev/kvm that is there proves nothing, nor does a QEMU that is: so a guest of each architecture is booted, saved
    and restored, which takes about ten seconds. Exit code 0 when nothing is missing, 125 otherwise.
    """
    from harness.cli.progress import print_json  # noqa: PLC0415
    from harness.console.display import escape  # noqa: PLC0415

    every_one_good = True
    for check in _checks(offline=offline):
        every_one_good &= check.good
        if as_json:
            print_json(dataclasses.asdict(check))
            continue
        mark = "ok     " if check.good else "MISSING"
        click.echo(escape(f"{mark}  {check.topic:<22}  {check.says}"))
        if check.mend:
            click.echo(escape(f"{'':9}mend with: {check.mend}"))
    return 0 if every_one_good else 125


def _checks(*, offline: bool) -> Iterator[Check]:
    from harness.arch import ARCHES  # noqa: PLC0415
    from harness.cache import Cache  # noqa: PLC0415
    from harness.cli.canary import examine  # noqa: PLC0415
    from harness.folders import state_folder  # noqa: PLC0415

    cache = Cache()
    yield from _tools()
    yield _temporary()
    yield _writable("cache", cache.root, variable="XDG_CACHE_HOME")
    yield _room("disk", cache.root, "the cache", _ENOUGH_DISK, variable="XDG_CACHE_HOME")
    yield _cached(cache)
    yield _writable("results", state_folder(), variable="XDG_STATE_HOME")
    yield _room("disk for results", state_folder(), "results", _ENOUGH_RESULTS, variable="XDG_STATE_HOME")
    yield _guests_at_once()
    descriptors = 0
    for arch in ARCHES.values():
        for check in examine(arch, cache, offline=offline):
            yield check
            descriptors = max(descriptors, check.measured.get("descriptors", 0))
    yield _open_files(descriptors or _GUEST_DESCRIPTORS)
    yield _file_size()
    yield from _kernels(cache)


def _tools() -> Iterator[Check]:
    from harness import tools  # noqa: PLC0415
    from harness.arch import ARCHES  # noqa: PLC0415

    purposes = {command: package.purpose for package in tools.packages() for command in package.commands}
    for arch in ARCHES.values():
        # On an arm64 host the foreign compiler is another one than the table's.
        purposes.setdefault(arch.compiler(), f"programs for {arch.name} guests")
    for command, purpose in purposes.items():
        path = shutil.which(command)
        package = tools.package_of(command)
        yield Check(
            topic=command,
            good=path is not None,
            says=path or f"not found; {purpose}",
            mend="" if path else f"apt-get install {package}",
        )
    library = ctypes.util.find_library("archive")
    yield Check(
        topic="libarchive",
        good=library is not None,
        says=library or "not found; writes the initramfs",
        mend="" if library else "apt-get install libarchive13",
    )


def _temporary() -> Check:
    try:
        return _writable("temporary files", Path(tempfile.gettempdir()), variable="TMPDIR")
    except FileNotFoundError as error:  # of all places that Python knows
        says = f"none can be written ({error.strerror})"
        return Check(topic="temporary files", good=False, says=says, mend="chmod 1777 /tmp")


def _writable(topic: str, folder: Path, *, variable: str) -> Check:
    """Whether a file can be written there, by writing one."""
    place = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"cowpen")
            file.flush()
    except OSError as error:
        mend = f"chmod u+rwx {place}, or export {variable}= another folder"
        return Check(
            topic=topic, good=False, says=f"{folder} cannot be written ({error.strerror})", mend=mend
        )
    return Check(topic=topic, good=True, says=f"{folder} can be written")


def _room(topic: str, folder: Path, what: str, enough: int, *, variable: str) -> Check:
    free = shutil.disk_usage(_nearest(folder)).free
    good = free >= enough
    says = f"{_size(free)} free for {what} in {folder}" + ("" if good else f", {_size(enough)} wanted")
    mend = "" if good else f"free some space there, or export {variable}= a folder on a larger disk"
    return Check(topic=topic, good=good, says=says, mend=mend, measured={"free_bytes": free})


def _nearest(folder: Path) -> Path:
    """The folder, or what of it exists: it is made when it is needed."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _cached(cache: Cache) -> Check:
    """What the cache takes, by kind; all of it can be made again."""
    kinds = cache.sizes()
    shares = ", ".join(f"{kind} {_size(size)}" for kind, size in kinds.items() if size)
    says = f"{_size(sum(kinds.values()))} in {cache.root}" + (f": {shares}" if shares else "")
    return Check(topic="cache size", good=True, says=says, measured={"bytes": kinds})


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _guests_at_once() -> Check:
    from harness.guest.machine import MachineShape  # noqa: PLC0415
    from harness.trial import jobs  # noqa: PLC0415

    shape = MachineShape()
    room = jobs.available_mib()
    each = jobs.guest_mib(shape)
    most, _ = jobs.ceiling(shape)
    auto = jobs.sensible(shape)
    says = (
        f"--jobs auto is {auto}, at most {most}: {jobs.cores()} cores, {room} MiB of memory,"
        f" {each} MiB a guest of {shape.memory_mib} MiB"
    )
    return Check(
        topic="guests at once",
        good=room >= each,
        says=says,
        mend="" if room >= each else "cowpen run --memory 256 …, or end what takes the memory",
        measured={
            "auto": auto,
            "most": most,
            "cores": jobs.cores(),
            "available_mib": room,
            "guest_mib": each,
        },
    )


def _open_files(each: int) -> Check:
    from harness.guest.machine import MachineShape  # noqa: PLC0415
    from harness.trial import jobs  # noqa: PLC0415

    most, _ = jobs.ceiling(MachineShape())
    needed = _OWN_DESCRIPTORS + most * each
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = limit == resource.RLIM_INFINITY or limit >= needed
    return Check(
        topic="open files",
        good=good,
        says=f"{limit} allowed; {most} guests at once take {needed}, {each} each",
        mend="" if good else f"ulimit -n {max(1024, needed)}",
        measured={"limit": limit, "needed": needed, "descriptors": each},
    )


def _file_size() -> Check:
    from harness.guest.machine import MachineShape  # noqa: PLC0415

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    needed = MachineShape().memory_mib << 20
    good = limit == resource.RLIM_INFINITY or limit >= needed
    allowed = "no limit" if limit == resource.RLIM_INFINITY else f"{_size(limit)} allowed"
    return Check(
        topic="file size",
        good=good,
        says=allowed if good else f"{allowed}; a guest's memory is a file of {_size(needed)} in a snapshot",
        mend="" if good else "ulimit -f unlimited",
        measured={"limit": limit, "needed": needed},
    )


def _kernels(cache: Cache) -> Iterator[Check]:
    from harness.kernel.kernel import cached  # noqa: PLC0415

    kernels, faults = cached(cache)
    for kernel in kernels:
        yield Check(topic=f"kernel {kernel.spec}", good=True, says=f"{kernel.release} ({kernel.arch.name})")
    if not kernels:
        yield Check(topic="kernels", good=True, says="none cached yet; they are fetched when needed")
    for fault in faults:
        yield Check(topic="kernels", good=False, says=fault.message, mend=fault.mend or "")
