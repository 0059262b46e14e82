"""Circuits that many processes share through a Redis or Valkey server: :class:`RedisStore` for threads,
:class:`AsyncRedisStore` for asyncio. Redis 6.2 or newer.

One key for each circuit: the prefix and the circuit's name, as they are. It holds a hash with the fields ``version``
and ``value``. A key that holds anything else is never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

from ..errors import SettingsError, StoreError
from ..store import Loaded, Swapped
from .links import AsyncLink, Link, make_pool
from .protocol import Protocol, Trouble, kind_without_connection

__all__ = ["DEFAULT_PREFIX", "AsyncRedisStore", "RedisStore"]

DEFAULT_PREFIX = "circuitry:"
"""What stands before a circuit's name in its key."""

T = TypeVar("T")


class _Base:
    """What the two stores have in common."""

    _protocol: Protocol
    _operation_timeout: float

    def key(self, circuit: str) -> str:
        """The key of a circuit: the prefix and the circuit's name, as they are."""
        return self._protocol.key(circuit)

    def _until(self, timeout: float | None) -> float:
        limit = self._operation_timeout if timeout is None else min(timeout, self._operation_timeout)
        return time.monotonic() + limit

    def _set(self, prefix: object, place: str, operation_timeout_ms: object) -> None:
        if not isinstance(prefix, str):
            raise SettingsError("prefix", f"{type(prefix).__name__} is no str")
        try:
            prefix.encode()
        except UnicodeEncodeError:
            raise SettingsError("prefix", "it has a lone surrogate, which UTF-8 has no bytes for") from None
        self._operation_timeout = _seconds("operation_timeout_ms", operation_timeout_ms)
        self._protocol = Protocol(prefix, place)

    def __repr__(self) -> str:
        return f"<circuitry.redis.{type(self).__name__} {self._protocol.key('')!r}>"


def _seconds(name: str, ms: object) -> float:
    if not isinstance(ms, int) or isinstance(ms, bool) or not 1 <= ms <= 60_000:
        raise SettingsError(name, f"{ms!r} is out of bounds: give it 1 to 60000 milliseconds")
    return ms / 1000


def _pool(server: object, *, is_async: bool) -> Any:
    try:
        pool = make_pool(server, is_async=is_async)
    except ValueError as error:
        raise SettingsError("server", f"the URL is not usable: {error}") from None
    if pool is None or not hasattr(pool, "connection_kwargs"):
        raise SettingsError(
            "server",
            f"give a URL or a client of redis-py, not {type(server).__name__}; a cluster's client is not supported",
        )
    is_async_pool = pool.connection_class.__module__.startswith("redis.asyncio") or any(
        base.__module__.startswith("redis.asyncio") for base in pool.connection_class.__mro__
    )
    if is_async_pool is not is_async:
        raise SettingsError("server", f"give a client of {'redis.asyncio' if is_async else 'redis'}")
    return pool


class RedisStore(_Base):
    """A store on Redis for threads.

    ``server`` is a URL (``redis://``, ``rediss://``, ``unix://``), or a client of redis-py, of which only the settings
    are taken: the store has connections of its own, which send nothing twice, decode nothing, and are bounded. A client
    of a master behind Sentinel (``Sentinel.master_for``) works too. It connects with the first operation.

    ``operation_timeout_ms`` bounds a load or a swap, ``connect_timeout_ms`` a connection. A factory bounds them too, by
    its ``store_timeout_ms``.

    Raises :class:`circuitry.SettingsError` with the field's name.
    """

    def __init__(
        self,
        server: Any,
        *,
        prefix: str = DEFAULT_PREFIX,
        operation_timeout_ms: int = 1_000,
        connect_timeout_ms: int = 2_000,
    ) -> None:
        pool = _pool(server, is_async=False)
        self._link = Link(pool, _seconds("connect_timeout_ms", connect_timeout_ms))
        self._set(prefix, self._link.place, operation_timeout_ms)

    def load(self, circuit: str, *, timeout: float | None = None) -> Loaded:
        """As :meth:`circuitry.Store.load`."""
        return self._run(self._protocol.load(circuit), timeout)

    def swap(
        self,
        circuit: str,
        expected: bytes | None,
        value: bytes,
        ttl_ms: int | None,
        *,
        timeout: float | None = None,
    ) -> Swapped:
        """As :meth:`circuitry.Store.swap`."""
        return self._run(self._protocol.swap(circuit, expected, value, ttl_ms), timeout)

    def announce(self, circuit: str, *, timeout: float | None = None) -> None:
        """Tells processes that listen that the circuit has changed. A hint: it may be lost."""
        self._run(self._protocol.announce(circuit), timeout)

    def connect(self) -> None:
        """Connects now, so that what is wrong with the address, the login or the certificate is told now.

        Raises :class:`circuitry.StoreError`.
        """
        try:
            self._link.send([[b"TIME"]], self._until(None))
        except Trouble as trouble:
            raise _unconnected(self._link.place, trouble) from None

    def close(self) -> None:
        """Closes the connections that nobody uses just now."""
        self._link.close()

    def _run(self, steps: Generator[Any, Any, T], timeout: float | None) -> T:
        until = self._until(timeout)
        try:
            commands = next(steps)
            while True:
                try:
                    answers = self._link.send(commands, until)
                except Trouble as trouble:
                    commands = steps.throw(trouble)
                else:
                    commands = steps.send(answers)
        except StopIteration as end:
            result: T = end.value
            return result


class AsyncRedisStore(_Base):
    """A store on Redis for asyncio; see :class:`RedisStore`. A client is one of ``redis.asyncio``."""

    def __init__(
        self,
        server: Any,
        *,
        prefix: str = DEFAULT_PREFIX,
        operation_timeout_ms: int = 1_000,
        connect_timeout_ms: int = 2_000,
    ) -> None:
        pool = _pool(server, is_async=True)
        self._link = AsyncLink(pool, _seconds("connect_timeout_ms", connect_timeout_ms))
        self._set(prefix, self._link.place, operation_timeout_ms)

    async def load(self, circuit: str, *, timeout: float | None = None) -> Loaded:
        """As :meth:`circuitry.Store.load`."""
        return await self._run(self._protocol.load(circuit), timeout)

    async def swap(
        self,
        circuit: str,
        expected: bytes | None,
        value: bytes,
        ttl_ms: int | None,
        *,
        timeout: float | None = None,
    ) -> Swapped:
        """As :meth:`circuitry.Store.swap`."""
        return await self._run(self._protocol.swap(circuit, expected, value, ttl_ms), timeout)

    async def announce(self, circuit: str, *, timeout: float | None = None) -> None:
        """As :meth:`RedisStore.announce`."""
        await self._run(self._protocol.announce(circuit), timeout)

    async def connect(self) -> None:
        """As :meth:`RedisStore.connect`."""
        try:
            await self._link.send([[b"TIME"]], self._until(None))
        except Trouble as trouble:
            raise _unconnected(self._link.place, trouble) from None

    async def aclose(self) -> None:
        """Closes the connections that nobody uses just now."""
        await self._link.aclose()

    async def _run(self, steps: Generator[Any, Any, T], timeout: float | None) -> T:
        until = self._until(timeout)
        try:
            commands = next(steps)
            while True:
                try:
                    answers = await self._link.send(commands, until)
                except Trouble as trouble:
                    commands = steps.throw(trouble)
                else:
                    commands = steps.send(answers)
        except StopIteration as end:
            result: T = end.value
            return result


def _unconnected(place: str, trouble: Trouble) -> StoreError:
    return StoreError(kind_without_connection(trouble.error), f"connect to {place}: {trouble.error}")
