"""Panics in every phase of an attempt, by a real kernel module in stock kernels: none ever ends as clean."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import module
import pytest
from reliability import NEVER_CLEAN, Attacked
from single import run, run_once
from trouble import program

from harness.arch import get_arch
from harness.cache import Cache
from harness.kernel.kernel import resolve

pytestmark = pytest.mark.guest
LONG = pytest.mark.long
SPEC = "debian:6.12"
ARCHES = pytest.mark.parametrize("arch", ["x86_64", pytest.param("aarch64", marks=LONG)])
STARTS = pytest.mark.parametrize(
    "start", [pytest.param((), id="snapshot"), pytest.param(("--cold",), marks=LONG, id="cold")]
)


def loader(arch: str, folder: Path, cache: Cache, what: str, **more: int) -> Path:
    """A program that brings this calamity upon the stock kernel."""
    return module.loader(module.build(get_arch(arch), SPEC, cache), folder, what, **more)


@pytest.mark.long
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@STARTS
def test_before_init(start: tuple[str, ...], arch: str, tmp_path: Path, attacked: Attacked) -> None:
    """A kernel that has no memory for its own start."""
    words = ("--arch", arch, "--kernel", SPEC, "--append", "mem=48M", *start)
    for single in run(program("ok"), tmp_path, *words):  # a boot that fails is tried, and shown, twice
        assert b"Run /init" not in single.console  # arm64 does not even come to its console
        assert single.outcome == "infra", single
        assert "the guest did not boot" in single.reason
        assert "panic" in single.reason
    attacked(NEVER_CLEAN, "a panic before init", times=1)


@ARCHES
@STARTS
def test_in_init(
    start: tuple[str, ...], arch: str, tmp_path: Path, user_cache: Cache, attacked: Attacked
) -> None:
    """A module that kills the kernel while init loads it, in the place of the last that the agent needs."""
    spec = "debian:6.1"  # 6.12 has built in what the agent needs
    kernel = resolve(spec, get_arch(arch), user_cache)
    assert kernel.modules is not None
    modules = tmp_path / "modules"
    shutil.copytree(kernel.modules, modules)
    (replaced,) = modules.rglob("virtio_console.ko*")
    replaced.unlink()
    ours = module.build(get_arch(arch), spec, user_cache, what="null_deref")
    shutil.copyfile(ours, replaced.with_name("virtio_console.ko"))
    spec = f"path:{kernel.image},config={kernel.config},modules={modules}"
    for single in run(program("ok"), tmp_path, "--arch", arch, "--kernel", spec, *start):
        assert b"calamity: null_deref" in single.console
        assert b"Kernel panic - not syncing" in single.console
        assert single.outcome == "infra", single
        assert "the guest did not boot" in single.reason
        assert "null_deref" in single.reason
    attacked(NEVER_CLEAN, "a panic while init loads modules", times=1)


@ARCHES
@STARTS
@pytest.mark.parametrize("what", ["null_deref", pytest.param("panic_now", marks=LONG)])
def test_while_the_program_runs(
    what: str, start: tuple[str, ...], arch: str, tmp_path: Path, user_cache: Cache, attacked: Attacked
) -> None:
    file = loader(arch, tmp_path, user_cache, what)
    single = run_once(file, tmp_path, "--arch", arch, "--kernel", SPEC, *start)
    assert b"Kernel panic - not syncing" in single.console
    assert single.outcome == "reproduced", single
    title = {"null_deref": "null_deref", "panic_now": "calamity: as it was told to"}[what]
    assert title in single.titles[0]
    attacked(NEVER_CLEAN, "a panic while the program runs", times=1)


def test_without_a_word(tmp_path: Path, user_cache: Cache, attacked: Attacked) -> None:
    """A triple fault prints nothing, and is no finding; but the guest resets, and that is seen."""
    file = loader("x86_64", tmp_path, user_cache, "no_vectors")
    single = run_once(file, tmp_path, "--arch", "x86_64", "--kernel", SPEC)
    assert b"Kernel panic" not in single.console
    assert single.outcome == "infra", single
    assert "the guest reset itself" in single.reason
    attacked(NEVER_CLEAN, "a triple fault", times=1)


@ARCHES
@STARTS
@pytest.mark.parametrize("what", ["panic_later", pytest.param("oops_later", marks=pytest.mark.long)])
def test_after_the_program_said_clean(
    what: str, start: tuple[str, ...], arch: str, tmp_path: Path, user_cache: Cache, attacked: Attacked
) -> None:
    """The program ends well, and 0 to 100 ms later the kernel panics in an interrupt.

    The guest is ended when it has answered once more after the program's end; a panic after that does not happen. All
    that is on the console counts: the attempt is clean if, and only if, there is no word of a panic.
    """
    times = 8 if what == "oops_later" or start else 20
    file = loader(arch, tmp_path, user_cache, what, SPREAD_US=100_000)
    singles = run(file, tmp_path, "--arch", arch, "--kernel", SPEC, *start, attempts=times)
    assert len(singles) == times
    seen = []
    for single in singles:
        (delay,) = re.findall(rb"delay_us=(\d+)", (single.folder / "stdout").read_bytes()) or [b"0"]
        worded = re.search(rb"Kernel panic|calamity: as it|BUG: |Unable to handle|Oops", single.console)
        assert b"calamity: " + what.encode() in single.console
        assert single.outcome == ("reproduced" if worded else "clean"), single
        seen.append((int(delay), single.outcome))  # 0: it had no time to be told
    caught = [delay for delay, outcome in seen if outcome == "reproduced"]
    missed = [delay for delay, outcome in seen if outcome == "clean"]
    print(f"caught up to {max(caught)} us, missed from {min(missed, default=-1)} us on: {sorted(seen)}")
    assert caught
    assert any(delay for delay, _ in seen)
    attacked(NEVER_CLEAN, "a panic 0 to 100 ms after the program said clean", times=times)
