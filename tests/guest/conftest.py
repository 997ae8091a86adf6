"""Fixtures of the tests that boot real kernels: kernels made ready once a session, guests as they are needed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.arch import get_arch
from harness.cache import Cache
from harness.errors import ToolMissingError
from harness.guest import accelerator, disk, initramfs, snapshot
from harness.guest.accelerator import Proof
from harness.guest.channel import Channel
from harness.guest.guest import Guest, Snapshot, start
from harness.guest.machine import MachineShape
from harness.kernel.kernel import Kernel, resolve
from harness.program.compile import compile_program
from harness.program.init import compile_init

pytest.register_assert_rewrite("channel_contract")
from channel_contract import Program, Reached  # noqa: E402  (after its asserts are to be rewritten)

HELPER = Path(__file__).parent / "helper.c"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A kernel of one shape, ready to be booted: ``with prepared.guest(folder) as guest: guest.ready()``."""

    kernel: Kernel
    shape: MachineShape
    initramfs: Path
    proof: Proof
    cache: Cache
    images: tuple[Path | None, ...]

    def guest(self, folder: Path, saved: Snapshot | None = None) -> contextlib.AbstractContextManager[Guest]:
        """A guest, not yet ready; cold, or from ``saved``."""
        folder.mkdir(parents=True, exist_ok=True)
        return start(
            kernel=self.kernel,
            initramfs=self.initramfs,
            shape=self.shape,
            acceleration=self.proof.acceleration,
            speed=self.proof.speed(),
            folder=folder,
            snapshot=saved,
            images=self.images,
        )

    def snapshot(self, cache: Cache | None = None) -> Snapshot:
        """The snapshot of this guest, from the user's cache or made in ``cache``."""
        return snapshot.obtain(
            kernel=self.kernel,
            initramfs=self.initramfs,
            shape=self.shape,
            acceleration=self.proof.acceleration,
            speed=self.proof.speed(),
            cache=cache or self.cache,
            images=self.images,
        )


Prepare = Callable[..., Prepared]


@pytest.fixture(scope="session")
def prepare(user_cache: Cache, helper: Callable[[str], bytes]) -> Prepare:
    """``prepare("debian:6.1", "x86_64", MachineShape(…))``: everything up to the start of a guest, made once.

    ``with_helper`` puts helper.c's program into the initramfs, as /bin/helper.
    """

    @functools.cache
    def make(
        spec: str, arch: str, shape: MachineShape | None = None, *, with_helper: bool = False
    ) -> Prepared:
        shape = shape or MachineShape()
        try:
            kernel = resolve(spec, get_arch(arch), user_cache)
            init = compile_init(get_arch(arch), user_cache)
            extra = {"bin/helper": helper(arch)} if with_helper else None
            packed = initramfs.obtain(kernel, shape, init, user_cache, extra=extra)
            proof = accelerator.prove(kernel, init, user_cache)
            images = disk.images(shape, user_cache)
        except ToolMissingError as error:
            pytest.skip(str(error))
        return Prepared(
            kernel=kernel, shape=shape, initramfs=packed, proof=proof, cache=user_cache, images=images
        )

    return make


@pytest.fixture(scope="session")
def helper(user_cache: Cache) -> Callable[[str], bytes]:
    """The static binary of helper.c for an architecture."""

    @functools.cache
    def make(arch: str) -> bytes:
        source = HELPER.read_text(encoding="utf-8")
        try:
            return compile_program(source, "helper", get_arch(arch), user_cache).binary.read_bytes()
        except ToolMissingError as error:
            pytest.skip(str(error))

    return make


@pytest.fixture(scope="class")
def channel(reached: Reached) -> Channel:
    """The channel of the one machine of a test class."""
    return reached.channel


@pytest.fixture(scope="class")
def program(reached: Reached, helper: Callable[[str], bytes]) -> Program:
    """The helper in the one machine of a test class."""
    return Program(reached, helper(reached.arch))


@pytest.fixture(scope="class")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary folder for the one guest of a test class."""
    yield tmp_path_factory.mktemp("guest")
