"""The stores in this process's memory: the default, and the doubles for tests."""

from __future__ import annotations

import os
import threading
import weakref

from .clock import Clock, SystemClock
from .store import Conflict, Entry, Loaded, Stored, Swapped, check_name, mint_version

# Entries are looked through for expired ones once in so many writes, so a name used once does not stay for ever.
_SWEEP_EVERY = 1024


class Table:
    """Entries with a time to live, for any number of threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = SystemClock() if clock is None else clock
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[Entry, int | None]] = {}
        self._writes = 0
        _tables.add(self)

    def after_fork(self) -> None:
        """In a child: nobody holds the lock there."""
        self._lock = threading.Lock()

    def _entry(self, circuit: str, now_ms: int) -> Entry | None:
        row = self._rows.get(circuit)
        if row is None or (row[1] is not None and row[1] <= now_ms):
            return None
        return row[0]

    def size(self) -> int:
        """How many entries there are, with those that are over and not yet swept."""
        return len(self._rows)

    def load(self, circuit: str) -> Loaded:
        """As a store's."""
        check_name(circuit)
        now_ms = self._clock.now_ms()
        return Loaded(self._entry(circuit, now_ms), now_ms)

    def swap(self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None) -> Swapped:
        """As a store's."""
        check_name(circuit)
        version = mint_version()
        with self._lock:
            now_ms = self._clock.now_ms()
            current = self._entry(circuit, now_ms)
            if (None if current is None else current.version) != expected:
                return Conflict(Loaded(current, now_ms))
            expires_at_ms = None if ttl_ms is None else now_ms + max(ttl_ms, 1)
            self._rows[circuit] = (Entry(bytes(value), version), expires_at_ms)
            self._writes += 1
            if self._writes >= _SWEEP_EVERY:
                self._writes = 0
                self._rows = {name: row for name, row in self._rows.items() if row[1] is None or row[1] > now_ms}
        return Stored(version, now_ms)


_tables: weakref.WeakSet[Table] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for table in list(_tables):
        table.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class MemoryStore:
    """A store in this process's memory, for threads: the default of a ``Factory``. Nothing is kept over a restart.

    >>> from circuitry import ManualClock
    >>> store = MemoryStore(clock=ManualClock(1_000))  # its entries age as the test moves the clock
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._table = Table(clock)

    def load(self, circuit: str, *, timeout: float = 0) -> Loaded:
        """As :meth:`circuitry.Store.load`."""
        return self._table.load(circuit)

    def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float = 0
    ) -> Swapped:
        """As :meth:`circuitry.Store.swap`."""
        return self._table.swap(circuit, expected, value, ttl_ms)

    def for_asyncio(self) -> AsyncMemoryStore:
        """The same entries for asyncio."""
        return AsyncMemoryStore._of(self._table)


class AsyncMemoryStore:
    """The same for asyncio: the default of an ``AsyncFactory``."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._table = Table(clock)

    @classmethod
    def _of(cls, table: Table) -> AsyncMemoryStore:
        store = cls.__new__(cls)
        store._table = table
        return store

    async def load(self, circuit: str, *, timeout: float = 0) -> Loaded:
        """As :meth:`circuitry.Store.load`."""
        return self._table.load(circuit)

    async def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float = 0
    ) -> Swapped:
        """As :meth:`circuitry.Store.swap`."""
        return self._table.swap(circuit, expected, value, ttl_ms)
