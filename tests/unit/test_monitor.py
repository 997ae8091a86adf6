"""The event loop that serves every monitor of the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time

import pytest

from harness.guest import qmp


def test_threads_that_come_first_together_share_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loop each, a guest of ``--jobs 2`` waited in vain for its monitor in 3 of 6 runs."""
    new_event_loop = asyncio.new_event_loop

    def slow() -> asyncio.AbstractEventLoop:
        time.sleep(0.05)  # the others come meanwhile
        return new_event_loop()

    monkeypatch.setattr("asyncio.new_event_loop", slow)
    together = threading.Barrier(4)

    def first() -> asyncio.AbstractEventLoop:
        together.wait(10)
        return qmp._loop()

    qmp._make_loop.cache_clear()
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            loops = {future.result(10) for future in [pool.submit(first) for _ in range(4)]}
        assert len(loops) == 1
    finally:
        qmp._loop().call_soon_threadsafe(qmp._loop().stop)
        qmp._make_loop.cache_clear()
