"""Stock kernels from the real archives. Needs a network; nothing is booted here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.arch import ARCHES
from harness.cache import Cache
from harness.errors import HostError
from harness.kernel import aptsources, image
from harness.kernel.kernel import resolve
from harness.kernel.modules import module_name, module_order

pytestmark = pytest.mark.slow

_WANTED = ("virtio_blk", "virtio-pci", "virtio_net", "virtio_console", "ext4", "xfs")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("spec", "arch", "page_size"),
    [
        ("debian:6.1", "x86_64", 4096),
        ("debian:6.12", "x86_64", 4096),
        ("debian:6.1", "aarch64", 4096),
        ("debian:6.12", "aarch64", 4096),
        ("debian:6.12-16k", "aarch64", 16384),
    ],
)
def test_stock_kernel(cache: Cache, spec: str, arch: str, page_size: int) -> None:
    kernel = resolve(spec, ARCHES[arch], cache)
    assert kernel.page_size == page_size
    assert kernel.version.startswith(spec.removeprefix("debian:").split("-")[0] + ".")
    # The package's own name for the release is what the image says of itself.
    facts = image.inspect(kernel.image, ARCHES[arch])
    assert facts.release == kernel.release
    assert kernel.config_value("CONFIG_AIO") == "y"
    assert kernel.system_map is not None
    order = module_order(kernel, _WANTED)
    assert order.missing == ()
    names = [module_name(path) for path in order.paths]
    assert len(names) == len(set(names))
    assert {name.replace("-", "_") for name in _WANTED} <= {*names, *order.builtin}
    if "virtio" in names:
        # On 6.1 the core itself is a module, and needs the ring.
        assert names.index("virtio_ring") < names.index("virtio") < names.index("virtio_blk")
    begun = time.monotonic()
    assert resolve(spec, ARCHES[arch], cache) == kernel
    assert time.monotonic() - begun < 0.5


def test_without_debian_sources_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aptsources, "host_sources", list)
    with pytest.raises(HostError, match=r"no Debian archive .* add a Debian archive .* or use path:IMAGE"):
        resolve("debian:6.12", ARCHES["aarch64"], Cache(tmp_path))
