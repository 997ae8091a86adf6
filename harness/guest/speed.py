"""How fast guests are here, measured: what every deadline is scaled by."""

from __future__ import annotations

import dataclasses

# A Debian 6.1 cloud kernel to user space under TCG on the machine the numbers in this project were chosen
# on; a guest that takes twice as long gets twice the time for everything.
REFERENCE_BOOT_SECONDS = 2.0
# From the median boot to a deadline: ten times as long is a hang on any host that makes progress at all.
_BOOT_FACTOR = 10.0
_LEAST_BOOT_DEADLINE = 20.0
# Nothing measured yet, as for the very first boot on a host.
_UNKNOWN_SCALE = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """The measured speed of guests of one architecture on this host.

    ``boot_seconds`` is the time of the canary's boot, None when none has been timed; ``load`` is how many
    guests share each core.
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
