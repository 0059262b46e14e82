"""What a store is: it replaces an entry only if it is unchanged. There is no plain write.

A store of your own is a class with :meth:`Store.load` and :meth:`Store.swap`, for threads, or the same as coroutines
(:class:`AsyncStore`), for asyncio.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol, Union

from .errors import StoreError

NAME_MAX_BYTES = 1024
"""The most bytes of a circuit's name, in UTF-8."""
VERSION_BYTES = 16
"""How many random bytes a version has."""
_TIME_MAX = (1 << 64) - 1


@dataclass(frozen=True)
class Entry:
    """What is stored for a circuit: the record's bytes, and the version of the write that put it there."""

    value: bytes
    version: bytes


@dataclass(frozen=True)
class Loaded:
    """What a load answers: the entry, or ``None`` where there is none or its time to live is over; and the store's own
    clock (milliseconds since the Unix epoch), where it tells it."""

    entry: Entry | None
    now_ms: int | None = None


@dataclass(frozen=True)
class Stored:
    """A swap was stored; this is the version that the entry has now."""

    version: bytes
    now_ms: int | None = None


@dataclass(frozen=True)
class Conflict:
    """A swap was not stored: the entry is another than expected, and here it is."""

    loaded: Loaded


Swapped = Union[Stored, Conflict]


class Store(Protocol):
    """Where records live, for threads. Any number of threads use it at once.

    * ``swap`` is atomic: of several with the same ``expected``, at most one is stored.
    * A version is minted anew, at random, before each write (:func:`mint_version`). None repeats for a circuit.
    * A swap whose answer was lost is ``StoreError("unknown", …)`` and is not sent again.
    * An entry whose time to live is over is absent, for ``load`` and ``swap`` alike.
    * Names are opaque: any UTF-8 text of 1 to 1,024 bytes (:func:`check_name`).
    * Each operation ends by itself within ``timeout`` seconds.
    """

    def load(self, circuit: str, *, timeout: float) -> Loaded:
        """Reads the entry. A failure (:class:`StoreError`) is never read as absence."""
        ...

    def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float
    ) -> Swapped:
        """Replaces the entry by ``value`` if its version is still ``expected`` (``None``: if there is no entry); it
        lives for ``ttl_ms`` from now on (``None``: for ever)."""
        ...


class AsyncStore(Protocol):
    """The same for asyncio. An operation that is cancelled may have happened or not; it is not sent again."""

    async def load(self, circuit: str, *, timeout: float) -> Loaded:
        """As :meth:`Store.load`."""
        ...

    async def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float
    ) -> Swapped:
        """As :meth:`Store.swap`."""
        ...


def mint_version() -> bytes:
    """A new version."""
    return os.urandom(VERSION_BYTES)


def check_name(circuit: str) -> bytes:
    """The bytes of a circuit's name.

    Raises :class:`StoreError` of the kind ``other`` where it is none.
    """
    problem = name_problem(circuit)
    if problem is not None:
        raise StoreError("other", f"the circuit's name {problem}")
    return circuit.encode()


def name_problem(circuit: object) -> str | None:
    """What is wrong with a circuit's name, and what would do."""
    if not isinstance(circuit, str):
        return f"is of the type {type(circuit).__name__}: give a str"
    if len(circuit) > NAME_MAX_BYTES:
        return f"has {len(circuit)} characters: give it 1 to {NAME_MAX_BYTES} bytes of UTF-8"
    try:
        size = len(circuit.encode())
    except UnicodeEncodeError as error:
        return f"has a lone surrogate at {error.start}, which UTF-8 has no bytes for: decode it properly, or escape it"
    if not 1 <= size <= NAME_MAX_BYTES:
        return f"has {size} bytes: give it 1 to {NAME_MAX_BYTES}"
    return None


def _check_now(now_ms: object) -> None:
    if now_ms is None:
        return
    if not isinstance(now_ms, int) or isinstance(now_ms, bool) or not 0 <= now_ms <= _TIME_MAX:
        raise StoreError("other", f"the store told the time {str(now_ms)[:40]!r}, which is none in milliseconds")


def checked_loaded(loaded: object) -> Loaded:
    """What a store answered to a load, or an error where that is no answer."""
    if not isinstance(loaded, Loaded):
        raise StoreError("other", f"the store answered a load with {type(loaded).__name__}, not with Loaded")
    _check_now(loaded.now_ms)
    entry = loaded.entry
    if entry is None:
        return loaded
    if not isinstance(entry, Entry) or not isinstance(entry.value, bytes) or not isinstance(entry.version, bytes):
        raise StoreError("other", "the store answered with an entry that is not of bytes")
    return loaded


def checked_swapped(swapped: object) -> Swapped:
    """What a store answered to a swap. Whoever answers otherwise may have done anything: ``unknown``."""
    try:
        if isinstance(swapped, Conflict):
            checked_loaded(swapped.loaded)
            return swapped
        if isinstance(swapped, Stored) and isinstance(swapped.version, bytes):
            _check_now(swapped.now_ms)
            return swapped
    except StoreError as error:
        raise StoreError("unknown", error.message) from None
    raise StoreError("unknown", f"the store answered a swap with {type(swapped).__name__}, not with Stored or Conflict")
