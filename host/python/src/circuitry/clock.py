"""Time: where it comes from, and the store's time as well as this process knows it."""

from __future__ import annotations

import threading
import time
from typing import Protocol

_TIME_MAX = (1 << 64) - 1
# A sample is held for so long against ones that look earlier: their answers were only longer under way.
_SAMPLE_HELD_MS = 10_000


class Clock(Protocol):
    """Tells the time in milliseconds since the Unix epoch."""

    def now_ms(self) -> int:
        """The time now."""
        ...


class SystemClock:
    """The system's time when it was made, and from then on what the monotonic clock counts: it never goes back, and
    nobody who sets the system's clock moves it."""

    def __init__(self) -> None:
        self._begun_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        """The time now."""
        return max(0, (self._begun_ns + time.monotonic_ns()) // 1_000_000)


class ManualClock:
    """A clock that a test moves.

    >>> clock = ManualClock(1_000)
    >>> clock.advance_ms(5)
    >>> clock.now_ms()
    1005
    """

    def __init__(self, at_ms: int) -> None:
        self._now_ms = at_ms

    def now_ms(self) -> int:
        """The time that was set."""
        return self._now_ms

    def advance_ms(self, ms: int) -> None:
        """Moves it on."""
        self._now_ms += ms

    def set_ms(self, at_ms: int) -> None:
        """Sets it."""
        self._now_ms = at_ms


class StoreClock:
    """The host's clock, put right by what the store's answers tell. Through an outage it goes on as it was."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._lock = threading.Lock()
        # Store time less base time, and when that was taken, in base time.
        self._sample: tuple[int, int] | None = None

    def after_fork(self) -> None:
        """In a child: nobody holds the lock there."""
        self._lock = threading.Lock()

    def learn(self, store_ms: int) -> None:
        """Takes the store's time, as an answer that just came in tells it.

        The answer was under way for a while, so the store's time is that or later: of two samples the later one is
        nearer to the truth, until it is old.
        """
        base_ms = self._base.now_ms()
        offset_ms = store_ms - base_ms
        with self._lock:
            held = self._sample
            if held is None or base_ms - held[1] >= _SAMPLE_HELD_MS or offset_ms > held[0]:
                self._sample = (offset_ms, base_ms)

    def now_ms(self) -> int:
        """The store's time now."""
        sample = self._sample
        now_ms = self._base.now_ms() + (0 if sample is None else sample[0])
        return min(max(now_ms, 0), _TIME_MAX)
