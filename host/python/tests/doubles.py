"""Stores that do as a test says, and a breaker on a clock of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from circuitry import (
    AsyncMemoryStore,
    CircuitRefused,
    Factory,
    Loaded,
    ManualClock,
    MemoryStore,
    StateChange,
    StoreError,
    Swapped,
)

NOW_MS = 1_800_000_000_000


class Recorder:
    """Remembers what a state-change callback was told."""

    def __init__(self) -> None:
        self.changes: list[StateChange] = []

    def __call__(self, change: StateChange) -> None:
        self.changes.append(change)

    def reasons(self) -> list[str]:
        return [change.transition.reason.value for change in self.changes]


class ThreadStore:
    """A store in memory for threads that counts, and does before each operation what a test says."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.inner = MemoryStore(clock=clock)
        self.loads = 0
        self.swaps = 0
        self.values: list[bytes] = []
        self.before_load: Callable[[str], Any] = lambda circuit: None
        self.after_load: Callable[[str], Any] = lambda circuit: None
        self.before_swap: Callable[[str], Any] = lambda circuit: None
        self.after_swap: Callable[[str], Any] = lambda circuit: None
        self._lock = threading.Lock()

    def load(self, circuit: str, *, timeout: float) -> Loaded:
        with self._lock:
            self.loads += 1
        self.before_load(circuit)
        loaded = self.inner.load(circuit)
        self.after_load(circuit)
        return loaded

    def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float
    ) -> Swapped:
        with self._lock:
            self.swaps += 1
            self.values.append(value)
        self.before_swap(circuit)
        swapped = self.inner.swap(circuit, expected, value, ttl_ms)
        self.after_swap(circuit)
        return swapped


class TaskStore:
    """The same for asyncio."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.inner = AsyncMemoryStore(clock=clock)
        self.loads = 0
        self.swaps = 0
        self.before_load: Callable[[str], Any] = _nothing
        self.before_swap: Callable[[str], Any] = _nothing
        self.after_swap: Callable[[str], Any] = _nothing

    async def load(self, circuit: str, *, timeout: float) -> Loaded:
        self.loads += 1
        await self.before_load(circuit)
        return await self.inner.load(circuit)

    async def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float
    ) -> Swapped:
        self.swaps += 1
        await self.before_swap(circuit)
        swapped = await self.inner.swap(circuit, expected, value, ttl_ms)
        await self.after_swap(circuit)
        return swapped


async def _nothing(circuit: str) -> None:
    return None


def once(action: Callable[[], Any]) -> Callable[[str], Any]:
    """Does it the first time."""
    left = [action]

    def run(circuit: str) -> Any:
        return left.pop()() if left else None

    return run


def fail(kind: Any, text: str = "as the test says") -> Callable[[], Any]:
    """Raises an error of the store."""

    def raising() -> Any:
        raise StoreError(kind, text)

    return raising


class Work(Exception):
    """What the work of a test raises."""


def failing() -> None:
    raise Work


class Bench:
    """A factory on a clock of its own."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock(NOW_MS)
        self.recorder = Recorder()
        self.store = options.pop("store", None) or MemoryStore(clock=self.clock)
        self.factory = Factory(
            self.store,
            clock=self.clock,
            state_change_callback=self.recorder,
            **{"failure_count_threshold": 2, **options},
        )
        self.breaker = self.factory.breaker_for("emails", tenant="acme")

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(Work):
                self.breaker.execute(failing)

    def refusal(self) -> CircuitRefused:
        with pytest.raises(CircuitRefused) as raised:
            self.breaker.start()
        return raised.value


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come to pass"
        time.sleep(0.002)


class Interrupt(BaseException):
    pass
