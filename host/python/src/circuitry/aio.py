"""The same for asyncio: :class:`AsyncFactory`, :class:`AsyncBreaker`, :class:`AsyncPermit`.

A caller's cancel never tears an exchange with the store: it runs on in a task of its own.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _steps
from ._engine import permits
from ._engine.circuit import Circuit
from ._engine.effects import Announce, Effect, Load, Sleep, Steps, Swap, Wait
from ._engine.node import Node
from ._engine.permits import Admitted, Hold
from ._failures import failed_by, is_ours
from ._threads import check_store
from ._work import PermitBase, check_work, checked_override, classified, context_of, entered_before, judge
from .context import Context
from .errors import ArgumentError, CircuitryError, StoreError, shortened
from .memory import AsyncMemoryStore
from .outcome import AnyOutcome, Outcome, Settlement, checked_outcome
from .settings import Options, Settings
from .state import Information, Override, State
from .store import AsyncStore

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Unpack

    P = ParamSpec("P")

T = TypeVar("T")

_log = logging.getLogger("circuitry")


class _Waiter:
    """What one task waits for; set from any thread."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def set(self) -> None:
        """Lets whoever waits go on."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._set()
            return
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            # The loop has ended, and whoever waited with it.
            pass

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


if sys.version_info >= (3, 11):

    async def _bounded(work: Awaitable[T], seconds: float) -> T:
        async with asyncio.timeout(seconds):
            return await work

else:

    async def _bounded(work: Awaitable[T], seconds: float) -> T:
        return await asyncio.wait_for(work, seconds)


class _AsyncDriver:
    """Runs steps in tasks of one event loop."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._is_ours = is_ours(store)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.restart: Callable[[], None] = lambda: None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs; a factory works on one."""
        running = asyncio.get_running_loop()
        if self._loop is not running:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this AsyncFactory works on another event loop: make one for each loop")
            if self._loop is not None:
                # What was under way on it will never end.
                self.restart()
            self._loop = running
            self._tasks = set()
        return running

    def waiter(self) -> _Waiter:
        return _Waiter(self.loop())

    def caller(self) -> object:
        try:
            return asyncio.current_task()
        except RuntimeError:
            return None

    def after_fork(self) -> None:
        self._loop = None
        self._tasks = set()

    def announces(self) -> bool:
        return callable(getattr(self._store, "announce", None))

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that is held until it ends."""
        try:
            task = self.loop().create_task(work)
        except RuntimeError:
            work.close()
            raise
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spawn(self, steps: Steps[Any]) -> bool:
        loop = self._loop
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None and (running is loop or loop is None):
            self.task(self._in_background(steps))
        elif loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(lambda: self.task(self._in_background(steps)))
        else:
            _log.warning("a call of a circuit does not go on in the background: its event loop has ended")
            return False
        return True

    async def _in_background(self, steps: Steps[Any]) -> None:
        try:
            await self.drive(steps)
        except Exception:
            _log.exception("what went on in the background failed")

    async def join(self, seconds: float) -> bool:
        """Waits for what goes on in the background; says whether nothing does any more."""
        tasks = {task for task in self._tasks if task is not asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return all(task.done() for task in tasks)

    async def run(self, steps: Steps[T]) -> T:
        """Runs steps to their end, also where the caller is cancelled."""
        return await asyncio.shield(self.task(self.drive(steps)))

    async def drive(self, steps: Steps[T]) -> T:
        """Runs steps in this task. A cancel closes them: what is under way goes on in another."""
        handled = sys.exc_info()[1]
        answer: Any = None
        error: StoreError | None = None
        try:
            while True:
                try:
                    effect = steps.send(answer) if error is None else steps.throw(error)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer = error = None
                try:
                    answer = await self._do(effect)
                except Exception as raised:
                    late = _late(effect) if isinstance(raised, (asyncio.TimeoutError, TimeoutError)) else None
                    error = failed_by(effect, raised, handled, is_ours=self._is_ours, late=late)
        finally:
            steps.close()

    async def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Load):
            load = self._store.load(effect.circuit, timeout=effect.timeout)
            return await _bounded(load, effect.timeout)
        if isinstance(effect, Swap):
            swap = self._store.swap(
                effect.circuit, effect.expected, effect.value, effect.ttl_ms, timeout=effect.timeout
            )
            return await _bounded(swap, effect.timeout)
        if isinstance(effect, Sleep):
            return await asyncio.sleep(effect.seconds)
        if isinstance(effect, Announce):
            announce = getattr(self._store, "announce")  # noqa: B009 - not all have it
            return await _bounded(announce(effect.circuit, timeout=effect.timeout), effect.timeout)
        waiter = effect.waiter
        assert isinstance(effect, Wait) and isinstance(waiter, _Waiter)
        if not waiter.future.done():
            await asyncio.wait([waiter.future], timeout=max(effect.seconds, 0.0))
        return waiter.future.done()


def _late(effect: Effect) -> StoreError:
    if isinstance(effect, Swap):
        return StoreError("unknown", "a swap was not answered within the store's timeout")
    return StoreError("unavailable", "a load was not answered within the store's timeout")


class AsyncFactory:
    """Makes breakers for asyncio. Make one a process (and event loop).

    ``store`` is an :class:`circuitry.AsyncStore`, by default this process's memory. The settings are those of
    :class:`circuitry.Factory`.
    """

    def __init__(self, store: AsyncStore | None = None, **options: Unpack[Options]) -> None:
        settings = Settings.of(options)
        if store is None:
            store = AsyncMemoryStore(clock=settings.clock)
        check_store(store, is_async=True)
        self._driver = _AsyncDriver(store)
        self._node = Node(settings, self._driver)
        self._driver.restart = self._node.restart

    def breaker_for(self, name: str, context: Context | None = None, *, tenant: str | None = None) -> AsyncBreaker:
        """As :meth:`circuitry.Factory.breaker_for`."""
        circuit = self._node.circuit(name, context_of(context, tenant))
        return AsyncBreaker(self._node, self._driver, circuit, name)

    @property
    def is_store_down(self) -> bool:
        """Whether the store is taken as down, so that calls take the store-failure way."""
        return self._node.outage.is_down

    async def aclose(self) -> bool:
        """As :meth:`circuitry.Factory.close`."""
        is_whole = self._node.close()
        return await self._driver.join(self._node.store_timeout) and is_whole

    async def __aenter__(self) -> AsyncFactory:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncBreaker:
    """A handle on a circuit; a decorator of coroutine functions too. See :class:`circuitry.Breaker`."""

    def __init__(self, node: Node, driver: _AsyncDriver, circuit: Circuit, base: str) -> None:
        self._node = node
        self._driver = driver
        self._circuit = circuit
        self._base = base

    @property
    def name(self) -> str:
        """The circuit's name, as it is shared."""
        return self._circuit.name

    async def start(self) -> AsyncPermit:
        """As :meth:`circuitry.Breaker.start`. Cancelled, it goes on without the caller, and the permit that it may get
        is settled as ignored."""
        task = self._driver.task(self._driver.drive(permits.start(self._node, self._circuit)))
        try:
            admitted = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise
        return AsyncPermit(Hold(self._node, self._circuit, admitted), self._driver)

    def _give_back(self, task: asyncio.Task[Admitted]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        AsyncPermit(Hold(self._node, self._circuit, task.result()), self._driver).end_later(Outcome.IGNORED)

    async def execute(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Starts, works and ends; see :meth:`circuitry.Breaker.execute`. A cancel of the work is ignored by the
        circuit; a ``TimeoutError`` is a failure."""
        check_work(work, is_async=True)
        async with self.permit() as permit:
            awaitable = work(*args, **kwargs)
            if not inspect.isawaitable(awaitable):
                permit.outcome = Outcome.IGNORED
                raise ArgumentError("work", "it gave nothing to await: use circuitry.Factory for plain functions")
            return await awaitable

    async def execute_classified(
        self, work: Callable[[], Awaitable[T]], classify: Callable[[T], AnyOutcome]
    ) -> tuple[T, Settlement | CircuitryError]:
        """As :meth:`circuitry.Breaker.execute_classified`."""
        check_work(work, is_async=True)
        async with self.permit() as permit:
            result = await work()
            # As what an interrupt of the classifier settles it.
            permit.outcome = Outcome.IGNORED
            permit.outcome = classified(self._circuit, classify, result)
            try:
                return result, await permit.end(permit.outcome)
            except CircuitryError as error:
                return result, error

    def permit(self) -> AsyncScope:
        """``async with breaker.permit() as permit:``; see :meth:`circuitry.Breaker.permit`."""
        return AsyncScope(self)

    def guard(self, work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Makes a coroutine function each of whose calls is :meth:`execute`."""
        check_work(work, is_async=True)
        if not inspect.iscoroutinefunction(work):
            raise ArgumentError("work", "it is no coroutine function: use circuitry.Factory for plain functions")

        @functools.wraps(work)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.execute(work, *args, **kwargs)

        return guarded

    __call__ = guard

    async def state(self) -> State:
        """As :meth:`circuitry.Breaker.state`."""
        return (await self.information()).state

    async def information(self) -> Information:
        """As :meth:`circuitry.Breaker.information`."""
        return await self._driver.run(_steps.information(self._node, self._circuit))

    async def explain(self) -> str:
        """As :meth:`circuitry.Breaker.explain`."""
        return (await self.information()).explanation

    async def set_override(self, override: Override | None) -> Override | None:
        """As :meth:`circuitry.Breaker.set_override`."""
        return await self._driver.run(_steps.set_override(self._node, self._circuit, checked_override(override)))

    async def reset(self) -> Override | None:
        """As :meth:`circuitry.Breaker.reset`."""
        return await self._driver.run(_steps.reset(self._node, self._circuit))

    def __repr__(self) -> str:
        return f"<circuitry.AsyncBreaker {self.name!r}>"


class AsyncPermit(PermitBase):
    """Leave to work on a circuit; see :class:`circuitry.Permit`."""

    def __init__(self, hold: Hold, driver: _AsyncDriver) -> None:
        super().__init__(hold)
        self._driver = driver

    async def end(self, outcome: AnyOutcome | str) -> Settlement:
        """As :meth:`circuitry.Permit.end`. Cancelled, the settling goes on."""
        outcome = checked_outcome(outcome)
        self._take()
        settled = self._hold.settle(outcome)
        return settled if isinstance(settled, Settlement) else await self._driver.run(settled)

    def end_later(self, outcome: AnyOutcome | str) -> None:
        """Settles it in the background: for who is being cancelled."""
        outcome = checked_outcome(outcome)
        self._take()
        settled = self._hold.settle(outcome)
        if not isinstance(settled, Settlement):
            self._driver.spawn(settled)


class AsyncScope:
    """One ``async with`` block around work; see :meth:`AsyncBreaker.permit`."""

    def __init__(self, breaker: AsyncBreaker) -> None:
        self._breaker = breaker
        # Taken once, by one task.
        self._entry = iter((True,))
        self._permit: AsyncPermit | None = None

    async def __aenter__(self) -> AsyncPermit:
        if not next(self._entry, False):
            raise entered_before()
        permit = self._permit = await self._breaker.start()
        return permit

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        permit, breaker = self._permit, self._breaker
        self._permit = None
        if permit is None or permit._hold.is_settled:
            return
        node, circuit = breaker._node, breaker._circuit
        outcome = permit.outcome
        try:
            if outcome is None:
                outcome = judge(node, circuit, breaker._base, error)
            if error is not None and not isinstance(error, Exception):
                # Whoever is cancelled is not held up.
                permit.end_later(outcome)
            else:
                await permit.end(outcome)
        except CircuitryError as failed:
            # A store that fails after the work loses nothing of the user's.
            _log.warning(
                "circuit `%s`: the outcome of finished work could not be settled: %s", shortened(circuit.name), failed
            )


__all__ = ["AsyncBreaker", "AsyncFactory", "AsyncMemoryStore", "AsyncPermit", "AsyncScope", "AsyncStore"]
