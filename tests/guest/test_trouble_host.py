"""A host that lacks something: a tool, the network, room; and cowpen ended by others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from trouble import Command, cowpen, leftovers, no_network, path_spec, path_without, program, small_disk

from harness.arch import get_arch, host_arch
from harness.cache import Cache
from harness.kernel.kernel import resolve

pytestmark = pytest.mark.guest
FOREIGN = next(arch for arch in (get_arch("x86_64"), get_arch("aarch64")) if arch is not host_arch())


@pytest.mark.parametrize(
    ("tool", "package"),
    [
        (host_arch().qemu, host_arch().qemu_package),
        (FOREIGN.compiler(), "gcc-" + FOREIGN.gnu.replace("_", "-")),
        ("nbdkit", "nbdkit"),
    ],
)
def test_tool_missing(tool: str, package: str, tmp_path: Path) -> None:
    arch = FOREIGN if tool == FOREIGN.compiler() else host_arch()
    ended = cowpen(
        *("run", "--program", program("ok"), "--arch", arch.name, "--attempts", "1", "--json"),
        folder=tmp_path,
        env=path_without(tmp_path / "bin", tool),
    )
    assert ended.code == 125, ended.err
    # An attempt that never began its program is made up for once.
    assert ended.outcomes in (["infra"], ["infra", "infra"]), ended.verdict["reason"]
    assert f"{tool} not found: apt-get install {package}" in ended.verdict["reason"]


def test_package_that_does_not_exist(tmp_path: Path) -> None:
    ended = cowpen("run", "rhbz-471613/forkscrew", "--kernel", "debian:6.99", "--json", folder=tmp_path)
    assert ended.code == 125, ended.err
    reason = ended.verdict["reason"]
    if "cannot reach" in reason:
        pytest.skip(reason)
    assert "no package matches linux-image-6.99." in reason
    assert "kernel series there: 6." in reason


def test_no_network_and_a_warm_cache(tmp_path: Path, user_cache: Cache) -> None:
    resolve("debian:6.12", host_arch(), user_cache)
    words = ("run", "--program", program("ok"), "--kernel", "debian:6.12", "--attempts", "1")
    ended = cowpen(*words, folder=tmp_path, before=no_network())
    assert ended.code == 0, ended.err


def test_no_network_and_a_cold_cache(tmp_path: Path) -> None:
    ended = cowpen(
        *("run", "--program", program("ok"), "--kernel", "debian:6.12", "--attempts", "1", "--json"),
        folder=tmp_path,
        before=no_network(),
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
        seconds=60,
    )
    assert ended.code == 125, ended.err
    assert "cannot reach the package archive" in ended.verdict["reason"]
    assert "path:IMAGE kernels need no network" in ended.verdict["reason"]
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize("size", ["400k", "2m"], ids=["while compiling", "while packing"])
def test_disk_full_while_caching(size: str, tmp_path: Path, user_cache: Cache) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        ended = cowpen(
            *("run", "--program", program("ok"), "--kernel", path_spec("debian:6.12", "x86_64", user_cache)),
            *("--arch", "x86_64", "--attempts", "1", "--json"),
            folder=tmp_path,
            env={"XDG_CACHE_HOME": str(disk)},
        )
        assert leftovers(disk) == []
    assert ended.code == 125, ended.err
    assert ended.outcomes == ["infra"], ended.verdict["reason"]
    assert "no space left" in ended.verdict["reason"]
    assert "XDG_CACHE_HOME" in ended.verdict["reason"]


def test_disk_full_while_saving_a_snapshot(tmp_path: Path, user_cache: Cache) -> None:
    """The guest's memory does not fit: said, and every attempt boots."""
    with small_disk(tmp_path / "disk", "40m") as disk:
        ended = cowpen(
            *("run", "--program", program("ok"), "--kernel", path_spec("debian:6.12", "x86_64", user_cache)),
            *("--arch", "x86_64", "--attempts", "1"),
            folder=tmp_path,
            env={"XDG_CACHE_HOME": str(disk)},
        )
        assert leftovers(disk) == []
    assert ended.code == 0, ended.err
    assert "no snapshot (no space left while caching the snapshot of 6.12." in ended.err
    assert f"in {tmp_path}/disk/cowpen" in ended.err


def test_disk_full_while_keeping(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        words = ("run", "--program", program("ok"), "--attempts", "1", "--keep", disk)
        ended = cowpen(*words, folder=tmp_path)
    # Not 1, which is "reproduced".
    assert ended.code == 125, ended.err
    assert f"cowpen: no space left for results in {tmp_path}/disk: free some space there" in ended.err
    assert "--keep" in ended.err


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("run", "--program", program("ok"), "--attempts", "1", "--keep", tmp_path / "file/below")
    ended = cowpen(*words, folder=tmp_path)
    assert ended.code in (2, 125)
    assert f"{tmp_path}/file/below" in ended.err
    assert "--keep" in ended.err


def booting(keep: Path) -> Callable[[], bool]:
    """Whether a guest has printed something."""
    return lambda: any(console.stat().st_size for console in keep.glob("*/attempt-0001/console.log"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_during_boot(number: signal.Signals, tmp_path: Path) -> None:
    """In the boot of an attempt, which another thread waits for than the one that is interrupted."""
    keep = tmp_path / "keep"
    words = ("run", "--program", program("ok"), "--cold", "--keep", keep)
    with Command(*words, folder=tmp_path) as command:
        command.wait_for("boot", booting(keep))
        command.process.send_signal(number)
        ended = command.end(seconds=5)
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err


def test_interrupted_while_a_snapshot_is_made(tmp_path: Path, user_cache: Cache) -> None:
    before = set(leftovers(user_cache.root.parent))
    # An argument of its own, so that there is no such snapshot yet.
    words = ("run", "--program", program("ok"), "--append", f"cowpen.test={os.getpid()}.{tmp_path.name}")
    with Command(*words, folder=tmp_path) as command:
        command.wait_for("boot", lambda: command.pids("qemu-system"))
        command.process.send_signal(signal.SIGINT)
        ended = command.end(seconds=5)
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err
    assert set(leftovers(user_cache.root.parent)) <= before


def test_killed(tmp_path: Path) -> None:
    """SIGKILL cannot be handled: the kernel itself ends QEMU and nbdkit then."""
    keep = tmp_path / "keep"
    with Command("run", "--program", program("hang"), "--cold", "--keep", keep, folder=tmp_path) as command:
        command.wait_for("boot", booting(keep))
        assert command.pids("qemu-system") and command.pids("nbdkit"), command.living()
        command.process.kill()
        command.process.wait(5)
        command.nothing_left(seconds=2.0)


@pytest.mark.slow
def test_two_at_once_on_a_cold_cache(tmp_path: Path) -> None:
    """They share one fresh cache: both succeed, and everything in it is made once."""
    words = ("run", "--program", program("ok"), "--kernel", "debian:6.12", "--attempts", "1", "--json")
    cache = tmp_path / "cache"
    env = {"XDG_CACHE_HOME": str(cache)}
    with Command(*words, folder=tmp_path, env=env) as one, Command(*words, folder=tmp_path, env=env) as other:
        both = [command.end(seconds=300) for command in (one, other)]
    for ended in both:
        if "cannot reach" in ended.verdict["reason"]:
            pytest.skip(ended.verdict["reason"])
        assert ended.code == 0, ended.err
    assert len(list((cache / "cowpen/kernels").iterdir())) == 1
    assert len(list((cache / "cowpen/snapshots").iterdir())) == 1
    assert leftovers(cache) == []
    fetched = sum("fetching linux-image" in ended.err for ended in both)
    assert fetched == 1
