"""Module order, from real ELF files made here."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.arch import X86_64
from harness.errors import UserError
from harness.kernel import modules
from harness.kernel.kernel import Kernel
from harness.kernel.modules import module_name, module_order, read_module


def module(depends: str = "", softdep: str = "") -> bytes:
    """A relocatable ELF file with nothing but a .modinfo section."""
    info = b"license=GPL\0depends=" + depends.encode() + b"\0"
    if softdep:
        info += b"softdep=" + softdep.encode() + b"\0"
    names = b"\0.modinfo\0.shstrtab\0"
    body = info + names
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        *(1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, 3, 2),
    )
    section = "<IIQQQQIIQQ"
    return (
        header
        + body
        + bytes(64)
        + struct.pack(section, 1, 1, 2, 0, 64, len(info), 0, 0, 1, 0)
        + struct.pack(section, 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    )


def kernel_with(folder: Path, *, config: str = "") -> Kernel:
    config_file = folder / "config"
    config_file.write_text(config)
    tree = folder / "modules"
    return Kernel(
        spec="path:x",
        arch=X86_64,
        release="6.1.0",
        version="6.1.0",
        package_version=None,
        image=folder / "image",
        config=config_file,
        system_map=None,
        vmlinux=None,
        modules=tree if tree.is_dir() else None,
        provenance={},
        content="0",
        page_size=4096,
    )


def populate(folder: Path, files: dict[str, bytes], builtin: str | None = "") -> Kernel:
    for name, data in files.items():
        path = folder / "modules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if builtin is not None:
        (folder / "modules/modules.builtin").write_text(builtin)
    return kernel_with(folder)


def names(order: modules.ModuleOrder) -> list[str]:
    return [module_name(path) for path in order.paths]


def test_dependencies_first(tmp_path: Path) -> None:
    kernel = populate(
        tmp_path,
        {
            "kernel/drivers/virtio/virtio.ko": module("virtio_ring"),
            "kernel/drivers/virtio/virtio_ring.ko.xz": lzma.compress(module()),
            "kernel/drivers/block/virtio_blk.ko.gz": gzip.compress(module("virtio,virtio_ring")),
            "kernel/lib/crc-thing.ko": module(),
        },
        builtin="kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio-mmio.ko\n",
    )
    order = module_order(kernel, ["virtio-blk", "crc_thing", "ext4", "virtio_mmio", "nope", "virtio_blk"])
    assert names(order) == ["virtio_ring", "virtio", "virtio_blk", "crc_thing"]
    assert order.builtin == ("ext4", "virtio_mmio")
    assert order.missing == ("nope",)


def test_cycle_and_missing_dependency_end(tmp_path: Path) -> None:
    kernel = populate(tmp_path, {"a.ko": module("b"), "b.ko": module("a,gone")})
    order = module_order(kernel, ["a"])
    assert names(order) == ["b", "a"]
    assert order.missing == ("gone",)


def test_soft_dependencies(tmp_path: Path) -> None:
    kernel = populate(
        tmp_path,
        {
            "fs.ko": module(softdep="pre: crypto-crc32c unknown post: late"),
            "crc32c_generic.ko": module(),
            "late.ko": module(),
        },
    )
    order = module_order(kernel, ["fs"])
    assert names(order) == ["crc32c_generic", "fs"]
    assert order.missing == ()


def test_updates_hide_what_came_with_the_kernel(tmp_path: Path) -> None:
    kernel = populate(tmp_path, {"kernel/a.ko": module(), "updates/a.ko": module()})
    assert [path.parent.name for path in module_order(kernel, ["a"]).paths] == ["updates"]


def test_without_modules_the_config_tells(tmp_path: Path) -> None:
    kernel = kernel_with(tmp_path, config="CONFIG_VIRTIO_BLK=y\nCONFIG_XFS_FS=y\nCONFIG_VIRTIO_NET=m\n")
    order = module_order(kernel, ["virtio_blk", "xfs", "virtio_net"])
    assert order == modules.ModuleOrder((), ("virtio_blk", "xfs"), ("virtio_net",))


def test_builtin_list_wins_over_config(tmp_path: Path) -> None:
    kernel = kernel_with(tmp_path, config="CONFIG_XFS_FS=y\n")
    assert module_order(kernel, ["xfs"]).builtin == ("xfs",)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    assert module_order(kernel_with(tmp_path, config="CONFIG_XFS_FS=y\n"), ["xfs"]).missing == ("xfs",)


@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress)])
def test_read_module(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"m.ko{ending}"
    path.write_bytes(pack(module("a")))
    assert read_module(path) == module("a")


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd to pack with")
def test_read_zstd(tmp_path: Path) -> None:
    path = tmp_path / "m.ko"
    path.write_bytes(module("a"))
    subprocess.run(["zstd", "-q", path], check=True, timeout=20)
    assert read_module(tmp_path / "m.ko.zst") == module("a")


@pytest.mark.parametrize(("ending", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress)])
def test_bombs_and_stumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"m.ko{ending}"
    path.write_bytes(pack(module("a"))[:-9])
    with pytest.raises(UserError, match=r"truncated|damaged"):
        read_module(path)
    monkeypatch.setattr(modules, "_MAX_MODULE", 1 << 20)
    path.write_bytes(pack(bytes(2 << 20)))
    with pytest.raises(UserError, match=r"unpacks to over|damaged"):
        read_module(path)


def test_not_a_module(tmp_path: Path) -> None:
    kernel = populate(tmp_path, {"a.ko": b"hello"})
    with pytest.raises(UserError, match=r"a\.ko is damaged"):
        module_order(kernel, ["a"])


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(module("a")) - 1), st.integers(0, 255)), max_size=6))
def test_damaged_modules_are_told(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(module("a"))
    for place, value in changes:
        data[place] = value
    kernel = populate(tmp_path, {"x.ko": bytes(data)})
    try:
        module_order(kernel, ["x"])
    except UserError as error:
        assert "x.ko" in str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdefg"), st.sets(st.sampled_from("abcdefg")), min_size=1))
def test_order_of_any_graph_without_cycles(tmp_path: Path, graph: dict[str, set[str]]) -> None:
    shutil.rmtree(tmp_path / "modules", ignore_errors=True)
    needs = {name: sorted(other for other in others if other < name) for name, others in graph.items()}
    kernel = populate(tmp_path, {f"{name}.ko": module(",".join(others)) for name, others in needs.items()})
    order = names(module_order(kernel, sorted(needs, reverse=True)))
    assert sorted(order) == sorted(needs)
    for name, others in needs.items():
        assert all(order.index(other) < order.index(name) for other in others if other in needs)
