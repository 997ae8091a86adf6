"""How fast guests are here, measured: what every deadline is scaled by."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

# A Debian 6.1 cloud kernel to user space under TCG on the machine the numbers in this project were chosen
# on; a guest that takes twice as long gets twice the time for everything.
REFERENCE_BOOT_SECONDS = 2.0
# From the median boot to a deadline: ten times as long is a hang on any host that makes progress at all.
_BOOT_FACTOR = 10.0
_LEAST_BOOT_DEADLINE = 20.0
# Nothing measured yet, as for the very first boot on a host.
_UNKNOWN_SCALE = 5.0
# Others' work stretches deadlines so many times at most: a guest that hangs must still be noticed some time.
_MOST_OTHERS = 8.0
_LOADAVG = Path("/proc/loadavg")


def others_per_core() -> float:
    """Processes per processor of the host that want to run at this moment, or did on average in the last minute.

    What a guest started now has to share with, beside its neighbours of the same trial; at most 8. The average alone
    would overlook work that has just begun, the moment alone such as pauses. What cowpen itself ran in that minute
    counts too: that makes deadlines longer than they need be, never shorter.
    """
    average, _, _, entities, _ = _LOADAVG.read_text(encoding="ascii").split()
    running = int(entities.partition("/")[0]) - 1  # without the one that asks
    return min(_MOST_OTHERS, max(float(average), running) / (os.cpu_count() or 1))


def share(vcpus_per_core: float) -> float:
    """The ``load`` of `Speed` for a trial whose own guests have so many CPUs per core of the host.

    They get all of the host when it is idle; what else it runs takes its part.
    """
    return max(1.0, vcpus_per_core + others_per_core())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """The measured speed of guests of one architecture on this host.

    ``boot_seconds`` is the time of the canary's boot, None when none has been timed; ``load`` is how many
    runnable threads share each core, guests' CPUs and others' work (see `share`).
    """

    boot_seconds: float | None = None
    load: float = 1.0
    boot_limit: float | None = None
    """A boot deadline of its own instead of the scaled one: the canary's, which is a race against a clock."""

    @property
    def scale(self) -> float:
        """How many times slower than the reference guests are here; never below 1."""
        if self.boot_seconds is None:
            return _UNKNOWN_SCALE
        return max(1.0, self.boot_seconds / REFERENCE_BOOT_SECONDS) * max(1.0, self.load)

    @property
    def boot_deadline(self) -> float:
        """Seconds a guest may take to become ready."""
        if self.boot_limit is not None:
            return self.boot_limit
        return max(_LEAST_BOOT_DEADLINE, _BOOT_FACTOR * REFERENCE_BOOT_SECONDS * self.scale)
