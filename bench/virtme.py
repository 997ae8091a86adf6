"""From the command to its result, against virtme-ng, the tool developers boot a kernel with today.

Both run a program that does nothing, with the same kernel, CPU count, memory, CPU model and accelerator, as whole
processes. They do not do the same: virtme-ng boots the host's own files as the guest's root, over 9p, so that every
program of the host is there; cowpen boots an initramfs with nothing but its agent, serves a disk, and keeps console
and result of the attempt. virtme-ng is installed from PyPI into cowpen's cache, for this comparison alone.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.report import Benchmark, Column, Options, Row, Spread, ratios
from bench.runs import SMALL, cowpen_run, in_turn, kernel_spec, timed
from harness import tools
from harness.arch import Arch, host_arch
from harness.cache import Cache, digest
from harness.errors import HostError
from harness.guest import accelerator
from harness.guest.machine import MachineShape
from harness.kernel.busybox import fetch_busybox
from harness.kernel.kernel import Kernel, resolve

_VERSION = "1.42"
_INSTALL_SECONDS = 300.0
_STOCK = "debian:6.1-generic"  # the cloud flavour has no 9p
_PAIRS = 5
# On a host without udev virtme-ng's init does not find the port for the exit status; vng then ends with 255, but the
# console tells.
_STATUSES = frozenset({0, 255})
_RESULT = "script exited with code 0"
_MOMENT = re.compile(r"\[ *([0-9.]+)\] virtme-ng-init: (running systemd-tmpfiles|basic initialization done)")
_PROGRAM = "int main(void) { return 0; }\n"


def _measure(options: Options) -> Iterator[Row]:
    arch = host_arch()
    if arch not in options.arches:
        options.tell(f"virtme-ng boots the host's own files, so only {arch.name} guests: nothing to compare")
        return
    kernels = [SMALL, _STOCK]
    if shutil.which("depmod") is None:
        options.tell(f"without {_STOCK}: virtme-ng needs depmod for its modules; apt-get install kmod")
        kernels.remove(_STOCK)
    for kernel in kernels:
        yield _row(arch, kernel, options)


def _row(arch: Arch, name: str, options: Options) -> Row:
    kernel = resolve(kernel_spec(name, arch, options), arch, options.cache, tell=options.tell)
    virtme = install(options.cache, options)
    with tempfile.TemporaryDirectory(prefix="cowpen-bench-") as folder:
        program = Path(folder) / "ok.c"
        program.write_text(_PROGRAM, encoding="utf-8")
        own = ("--program", str(program))
        cowpen_run(kernel.spec, arch, 1, subject=own)  # makes the snapshot, and compiles
        line = vng_line(kernel, virtme, options)
        env = {"PYTHONPATH": str(virtme), "PATH": f"{virtme}/bin:{os.environ['PATH']}", "HOME": folder}

        files: list[float] = []

        def run_virtme() -> float:
            seconds, output = timed(line, _STATUSES, env)
            if _RESULT not in output.stderr:
                raise HostError(f"virtme-ng did not run the program on {kernel.spec}", detail=output.stderr)
            files.append(_seconds_on_files(output.stderr))
            return seconds

        run_virtme()
        seconds = in_turn(
            {
                "cold": lambda: cowpen_run(kernel.spec, arch, 1, "--cold", subject=own).seconds,
                "virtme": run_virtme,
                "snapshot": lambda: cowpen_run(kernel.spec, arch, 1, subject=own).seconds,
            },
            options.rounds(_PAIRS),
        )
    return {
        "arch": arch.name,
        "kernel": name,
        "release": kernel.release,
        "virtme_version": _VERSION,
        **{what: Spread.of(values) for what, values in seconds.items()},
        "files": Spread.of(files),
        "ratio": ratios(seconds["virtme"], seconds["cold"]),
        "snapshot_ratio": ratios(seconds["virtme"], seconds["snapshot"]),
    }


def _seconds_on_files(console: str) -> float:
    """Seconds of the guest's clock that virtme-ng spent on preparing the host's files (systemd-tmpfiles), if it did."""
    moments = dict(map(reversed, _MOMENT.findall(console)))
    if len(moments) < 2:
        return 0.0
    return float(moments["basic initialization done"]) - float(moments["running systemd-tmpfiles"])


def install(cache: Cache, options: Options) -> Path:
    """The folder virtme-ng lives in, apart from every other Python package; `HostError` if it is not to be had."""

    def build(folder: Path) -> None:
        options.tell(f"installing virtme-ng {_VERSION}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        tools.run([*pip, "--target", folder, f"virtme-ng=={_VERSION}"], seconds=_INSTALL_SECONDS)

    key = digest(_VERSION, sys.version, sys.executable)
    return cache.entry("virtme-ng", key, build, seconds=_INSTALL_SECONDS, what="virtme-ng")


def vng_line(kernel: Kernel, virtme: Path, options: Options) -> list[str]:
    """virtme-ng's command line for a machine like cowpen's."""
    shape = MachineShape()
    image = kernel.image if kernel.modules is None else _installed(kernel, options.cache)
    line = [str(virtme / "bin/vng"), "--run", str(image), "--cpus", str(shape.cpus)]
    # --verbose: cowpen keeps the console, too. --force-9p: a virtiofsd that does not suit it (QEMU's own, up to 7.2)
    # would cost it four seconds of waiting.
    line += ["--memory", f"{shape.memory_mib}M", "--verbose", "--force-9p", "--exec", "true"]
    if kernel.modules is not None:  # loaded by a busybox in an initramfs
        line += ["--busybox", str(fetch_busybox(kernel.arch, options.cache, options.tell))]
    proof = accelerator.remembered(kernel.arch, options.cache)
    if proof is None or proof.accelerator != accelerator.KVM.name:
        line.append("--disable-kvm")
    return line


def _installed(kernel: Kernel, cache: Cache) -> Path:
    """The image of a kernel as if installed below a folder, with its modules and their modules.dep beside it."""
    modules = kernel.modules
    assert modules is not None
    release = modules.name

    def build(folder: Path) -> None:
        (folder / "boot").mkdir()
        shutil.copy(kernel.image, folder / f"boot/vmlinuz-{release}")
        shutil.copytree(modules, folder / "lib/modules" / release)
        tools.run(["depmod", "-b", folder, release], seconds=_INSTALL_SECONDS)

    entry = cache.entry("installed", kernel.content, build, seconds=_INSTALL_SECONDS, what=kernel.spec)
    return entry / f"boot/vmlinuz-{release}"


BENCHMARK = Benchmark(
    title=f"from the command to its result, against virtme-ng {_VERSION}",
    columns=(
        Column.word("kernel", "kernel"),
        Column.seconds("virtme-ng", "virtme"),
        Column.seconds("of it for the host's files", "files"),
        Column.seconds("`cowpen run --cold`", "cold"),
        Column.spread("virtme-ng / cold", "ratio", 1),
        Column.seconds("`cowpen run`", "snapshot"),
        Column.spread("virtme-ng / snapshot", "snapshot_ratio", 1),
    ),
    measure=_measure,
    goal="cowpen takes no longer than virtme-ng, even cold",
    missed=lambda row: row["ratio"].median < 1,
)
