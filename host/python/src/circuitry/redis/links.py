"""Connections to one server, made by redis-py and driven here: so a request is sent at most once, is bounded as a
whole, and it is known whether it was sent."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from redis import ConnectionPool, exceptions
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from .._interrupts import interrupt_in
from .protocol import Command, Trouble

# Connections that are kept for later.
_KEPT = 64
# What a connection that failed raises, or an answer that is none of Redis's protocol: its parser raises all kinds then.
# Whatever else is raised meanwhile comes from elsewhere, as out of a signal's handler, and is passed on.
_FAILURES = (
    exceptions.RedisError,
    OSError,
    EOFError,
    asyncio.TimeoutError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
# What a pool adds to the settings of its connections for its own use.
_POOLS_OWN = ("maint_", "maintenance_", "orig_", "oss_", "himport", "cache", "event_dispatcher")


def settings_of(pool: Any, retry: Any) -> dict[str, Any]:
    """The settings of a pool's connections, with what a circuit breaker's store has to have: bytes come as bytes, and
    nothing is sent a second time."""
    given = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(_POOLS_OWN)}
    given.update(
        decode_responses=False, retry=retry, retry_on_error=[], retry_on_timeout=False, health_check_interval=0
    )
    return given


def place_of(settings: Mapping[str, Any]) -> str:
    """Where a server is, without what is secret."""
    if "path" in settings:
        return str(settings["path"])
    if "connection_pool" in settings:
        return f"the master {getattr(settings['connection_pool'], 'service_name', '')!r}"
    return f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def _trouble(
    how_far: Literal["not sent", "no answer"], error: Exception, handled: BaseException | None
) -> Trouble | BaseException:
    """What a failure is told as. An interrupt that looks like one, or that the client made one of, stays what it is."""
    interrupt = interrupt_in(error, handled)
    if interrupt is not None:
        return interrupt
    return Trouble(how_far, "its time is over" if isinstance(error, asyncio.TimeoutError) else error)


class _Bounded:
    """A connection of redis-py of which each step has the time that is left of the whole, and no limit of its own."""

    until = math.inf
    connect_until = math.inf

    @property
    def socket_timeout(self) -> float | None:
        """As redis-py asks for it."""
        return _left(self.until)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | None) -> None:
        return None

    @property
    def socket_connect_timeout(self) -> float | None:
        """As redis-py asks for it, for each of the server's addresses."""
        return _left(min(self.until, self.connect_until))

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float | None) -> None:
        return None

    def _limit(self) -> None:
        if time.monotonic() >= self.until:
            raise exceptions.TimeoutError("its time is over")
        connection: Any = self
        connection.update_current_socket_timeout(_left(self.until))

    def send_packed_command(self, command: Any, check_health: bool = True) -> Any:
        """As redis-py's."""
        self._limit()
        above: Any = super()
        return above.send_packed_command(command, check_health=check_health)

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """As redis-py's."""
        self._limit()
        above: Any = super()
        return above.read_response(*arguments, **options)


def _left(until: float) -> float | None:
    return None if until == math.inf else max(0.001, until - time.monotonic())


class Link:
    """Connections for threads."""

    def __init__(self, pool: Any, connect_timeout: float) -> None:
        # A pool of connections to a master is asked where that is.
        self._pool = pool
        self._class: Any = type("BoundedConnection", (_Bounded, pool.connection_class), {})
        self._settings = settings_of(pool, Retry(NoBackoff(), 0))
        self.place = place_of(self._settings)
        self._connect_timeout = connect_timeout
        # Appending to a list and popping from it are one step each.
        self._idle: list[Any] = []
        _links.add(self)

    def after_fork(self) -> None:
        """In a child: the connections are the parent's."""
        idle, self._idle = self._idle, []
        _inherited.extend(idle)

    def send(self, commands: Sequence[Command], until: float) -> list[Any]:
        """Sends one message and reads its answers; an error of the server is an answer. Raises :class:`Trouble`."""
        handled = sys.exc_info()[1]
        connection = self._take(until, handled)
        try:
            connection.until = until
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers = [self._read(connection) for _ in commands]
        except Trouble:
            connection.disconnect()
            raise
        except _FAILURES as error:
            connection.disconnect()
            raise _trouble("no answer", error, handled) from None
        except BaseException:
            connection.disconnect()
            raise
        if len(self._idle) < _KEPT:
            self._idle.append(connection)
        else:
            connection.disconnect()
        return answers

    def _read(self, connection: Any) -> Any:
        try:
            return connection.read_response(disable_decoding=True)
        except (exceptions.ResponseError, exceptions.AuthenticationError, exceptions.BusyLoadingError) as error:
            return error

    def _take(self, until: float, handled: BaseException | None) -> Any:
        """A connection on which nothing waits to be read, as on one that the server has closed."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect(until, handled)
            try:
                if not connection.can_read(timeout=0):
                    return connection
            except _FAILURES as error:
                # It is of no use any more, whatever it says.
                interrupt = interrupt_in(error, handled)
                if interrupt is not None:
                    raise interrupt from None
            connection.disconnect()

    def _connect(self, until: float, handled: BaseException | None) -> Any:
        now = time.monotonic()
        if now >= until:
            raise Trouble("not sent", "there was no time to connect")
        connection = self._class(**self._settings)
        try:
            # To connect, to log in and what else comes before the first request.
            connection.until = connection.connect_until = min(until, now + self._connect_timeout)
            connection.connect()
        except _FAILURES as error:
            connection.disconnect()
            raise _trouble("not sent", error, handled) from None
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle:
            self._idle.pop().disconnect()


class AsyncLink:
    """Connections for asyncio, of the loop that runs."""

    def __init__(self, pool: Any, connect_timeout: float) -> None:
        # A pool of connections to a master is asked where that is.
        self._pool = pool
        self._class = pool.connection_class
        self._settings = settings_of(pool, AsyncRetry(NoBackoff(), 0))
        self.place = place_of(self._settings)
        self._connect_timeout = connect_timeout
        self._idle: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        _links.add(self)

    def after_fork(self) -> None:
        """In a child: the connections are the parent's."""
        idle, self._idle = self._idle, []
        self._loop = None
        _inherited.extend(idle)

    async def send(self, commands: Sequence[Command], until: float) -> list[Any]:
        """As :meth:`Link.send`. Cancelled, its connection is closed."""
        handled = sys.exc_info()[1]
        connection = await self._take(until, handled)
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers = [await self._read(connection, until) for _ in commands]
        except Trouble:
            await connection.disconnect(nowait=True)
            raise
        except _FAILURES as error:
            await connection.disconnect(nowait=True)
            raise _trouble("no answer", error, handled) from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if len(self._idle) < _KEPT and self._loop is asyncio.get_running_loop():
            self._idle.append(connection)
        else:
            await connection.disconnect(nowait=True)
        return answers

    async def _read(self, connection: Any, until: float) -> Any:
        try:
            answer = await connection.read_response(
                disable_decoding=True, timeout=max(0.000_001, until - time.monotonic())
            )
        except (exceptions.ResponseError, exceptions.AuthenticationError, exceptions.BusyLoadingError) as error:
            return error
        if answer is None:
            # No request of ours is answered so.
            raise Trouble("no answer", "there was none in time")
        return answer

    def _move(self) -> None:
        """Keeps connections of the loop that runs only: those of another cannot be used in it."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and self._loop.is_closed():
            for connection in self._idle:
                _close_without_loop(connection)
        else:
            _inherited.extend(self._idle)
        self._idle, self._loop = [], loop

    async def _take(self, until: float, handled: BaseException | None) -> Any:
        self._move()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return await self._connect(until, handled)
            try:
                if connection.is_connected and not await connection.can_read():
                    return connection
            except _FAILURES as error:
                # It is of no use any more, whatever it says.
                interrupt = interrupt_in(error, handled)
                if interrupt is not None:
                    raise interrupt from None
            await connection.disconnect(nowait=True)

    async def _connect(self, until: float, handled: BaseException | None) -> Any:
        left = until - time.monotonic()
        if left <= 0:
            raise Trouble("not sent", "there was no time to connect")
        left = min(left, self._connect_timeout)
        # The whole is bounded below; afterwards each answer is by itself.
        connection = self._class(**{**self._settings, "socket_timeout": None, "socket_connect_timeout": left})
        try:
            # To connect, to log in and what else comes before the first request.
            await asyncio.wait_for(connection.connect(), left)
        except _FAILURES as error:
            await connection.disconnect(nowait=True)
            raise _trouble("not sent", error, handled) from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def aclose(self) -> None:
        """Closes what is idle."""
        self._move()
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)


def _close_without_loop(connection: Any) -> None:
    """Closes a connection whose loop has ended: its transport would ask that loop to do it."""
    writer, connection._writer, connection._reader = connection._writer, None, None
    wrapped = None if writer is None else writer.get_extra_info("socket")
    # Where a loop shows none, it has closed its sockets itself.
    socket = getattr(wrapped, "_sock", None)
    if socket is not None:
        socket.close()


def make_pool(server: Any, *, is_async: bool) -> Any:
    """The pool of a client, or of a URL."""
    if isinstance(server, str):
        return (aioredis.ConnectionPool if is_async else ConnectionPool).from_url(server)
    return getattr(server, "connection_pool", None)


_links: weakref.WeakSet[Any] = weakref.WeakSet()
# Connections that belong to a parent, or to another loop that lives: they are not used, and not closed by a finalizer.
_inherited: list[Any] = []


def _after_fork_in_child() -> None:
    for link in list(_links):
        link.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
