"""Programs and kernels that misbehave, in real guests: the outcome, the reason in words, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from trouble import Command, Ended, cowpen, program

from harness.arch import get_arch
from harness.cache import Cache
from harness.kernel.kernel import resolve

pytestmark = pytest.mark.guest


def run_own(name: str, folder: Path, *more: str, seconds: float = 120) -> Ended:
    words = ("run", "--program", program(name), "--attempts", "1", "--json", "--keep", folder / "keep", *more)
    return cowpen(*words, folder=folder, seconds=seconds)


def attempt_folder(folder: Path) -> Path:
    (found,) = folder.glob("keep/*/attempt-0001")
    return found


def test_program_that_does_not_compile(tmp_path: Path) -> None:
    ended = run_own("broken", tmp_path)
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["infra"], ended.verdict["reason"]
    # The compiler's first error, with its place; the rest is kept.
    assert "broken does not compile: broken.c:4:" in ended.verdict["reason"]
    assert "never_declared" in ended.err
    (kept,) = tmp_path.glob("keep/*/trouble.txt")
    assert "never_declared" in kept.read_text()


def test_program_that_never_ends(tmp_path: Path) -> None:
    ended = run_own("hang", tmp_path, "--seconds", "1")
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["hang"], ended.verdict["reason"]
    assert "hang did not end by its deadline" in ended.verdict["reason"]
    assert b"hang: under way" in (attempt_folder(tmp_path) / "console.log").read_bytes()


def test_program_that_prints_200_mb(tmp_path: Path) -> None:
    ended = run_own("flood", tmp_path, "--seconds", "300", seconds=400)
    assert ended.code == 0, ended.err
    assert ended.peak_kib < 300 << 10
    stdout = attempt_folder(tmp_path) / "stdout"
    assert stdout.stat().st_size < 8 << 20
    text = stdout.read_bytes()
    # What is left out is counted, and beginning and end are there.
    assert text.startswith(b"x" * 79 + b"\n")
    assert text.endswith(b"x" * 79 + b"\n")
    left_out = int(text.partition(b"[cowpen: ")[2].split()[0])
    assert left_out + len(text) == pytest.approx(200_000_000, abs=100)
    print(f"{ended.peak_kib >> 10} MiB, {ended.seconds:.1f} s, kept {len(text)} bytes")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_program_that_kills_init(arch: str, tmp_path: Path) -> None:
    """A panic never ends as success, however the program would have ended."""
    ended = run_own("kill_init", tmp_path, "--arch", arch)
    assert ended.code == 1, ended.err
    (attempt,) = ended.records("attempt")
    assert attempt["outcome"] == "reproduced"
    assert "Attempted to kill init" in attempt["findings"][0]["title"]
    console = attempt_folder(tmp_path) / "console.log"
    assert b"Kernel panic - not syncing: Attempted to kill init" in console.read_bytes()


def test_program_that_reboots(tmp_path: Path) -> None:
    ended = run_own("reboot", tmp_path)
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["infra"], ended.verdict["reason"]
    assert "the guest reset itself" in ended.verdict["reason"]


def test_qemu_killed_from_outside(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    words = ("run", "--program", program("hang"), "--attempts", "1", "--json", "--keep", keep)
    with Command(*words, folder=tmp_path) as command:

        def under_way() -> bool:
            consoles = keep.glob("*/attempt-0001/console.log")
            return any(b"hang: under way" in console.read_bytes() for console in consoles)

        command.wait_for("attempt", under_way)
        (qemu,) = command.pids("qemu-system")
        killed = time.monotonic()
        os.kill(qemu, signal.SIGKILL)
        ended = command.end(seconds=10)
        took = time.monotonic() - killed
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["infra"], ended.verdict["reason"]
    assert "QEMU was killed by signal 9" in ended.verdict["reason"]
    # Noticed within 1 s; another for the verdict and Python's end on a busy host.
    assert took < 2
    print(f"noticed, judged and ended {took:.2f} s after the kill")


@pytest.mark.parametrize(
    "more",
    [pytest.param((), id="snapshot"), pytest.param(("--cold",), id="cold", marks=pytest.mark.long)],
)
def test_kernel_that_panics_at_boot(more: tuple[str, ...], tmp_path: Path) -> None:
    """It is skipped by a bisection, with the panic in the reason, and not tried ten times over."""
    ended = cowpen(
        *("run", "rhbz-471613/forkscrew", "--json", "--keep", tmp_path / "keep", "--arch", "x86_64"),
        *("--append", "rdinit=/nonexistent", "--append", "init=/nonexistent", *more),
        folder=tmp_path,
    )
    assert ended.code == 125, ended.err
    assert set(ended.outcomes) == {"infra"}
    assert len(ended.outcomes) <= 2
    assert "the guest did not boot" in ended.verdict["reason"]
    assert "panic" in ended.verdict["reason"].lower()
    console = attempt_folder(tmp_path) / "console.log"
    assert b"Kernel panic - not syncing" in console.read_bytes()


def test_kernel_that_prints_nothing(tmp_path: Path) -> None:
    """A 16 KiB-page kernel on a CPU without them stops before its first line."""
    ended = cowpen(
        *("run", "rhbz-471613/forkscrew", "--kernel", "debian:6.12-16k", "--arch", "aarch64"),
        *("--cpu", "cortex-a57", "--json"),
        folder=tmp_path,
    )
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["infra"], ended.verdict["reason"]
    assert "printed nothing at all" in ended.verdict["reason"]
    assert "its CPU model may lack what the kernel needs" in ended.verdict["reason"]


@pytest.mark.parametrize(
    ("name", "content", "arch", "said"),
    [
        ("passwd", b"root:x:0:0:root:/root:/bin/sh\n", "x86_64", ["not a bootable x86_64", "bzImage"]),
        ("Image", b"", "aarch64", ["not a bootable aarch64", "Image"]),
        ("missing", None, "x86_64", ["no file"]),
    ],
)
def test_image_that_is_none(
    name: str, content: bytes | None, arch: str, said: list[str], tmp_path: Path
) -> None:
    image = tmp_path / name
    if content is not None:
        image.write_bytes(content)
    words = ("run", "--program", program("ok"), "--kernel", f"path:{image}", "--arch", arch)
    ended = cowpen(*words, folder=tmp_path)
    assert ended.code == 2
    for part in [str(image), *said]:
        assert part in ended.err


def test_image_of_another_architecture(tmp_path: Path, user_cache: Cache) -> None:
    image = resolve("debian:6.12", get_arch("x86_64"), user_cache).image
    words = ("run", "--program", program("ok"), "--kernel", f"path:{image}", "--arch", "aarch64")
    ended = cowpen(*words, folder=tmp_path)
    assert ended.code == 2
    assert f"{image} is a kernel image of x86_64, not of aarch64: give --arch x86_64" in ended.err
