"""Until when a call may take."""

from __future__ import annotations

import time


class Deadline:
    """So many seconds from now on.

    Silence speaks against the store only where it had half of them: with less, the time went to lost races, or to a
    caller who did not run.
    """

    __slots__ = ("at", "enough")

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self.enough = seconds / 2

    def left(self) -> float:
        """How many seconds are left."""
        return max(0.0, self.at - time.monotonic())
