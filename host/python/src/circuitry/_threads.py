"""The driver for threads, and factory, breaker and permit on it."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _steps
from ._engine import permits
from ._engine.circuit import Circuit
from ._engine.effects import Announce, Effect, Load, Sleep, Steps, Swap, Wait
from ._engine.node import Node
from ._engine.permits import Hold
from ._failures import failed_by, is_ours
from ._work import (
    PermitBase,
    check_result,
    check_work,
    checked_override,
    classified,
    context_of,
    entered_before,
    judge,
)
from .context import Context
from .errors import CircuitryError, SettingsError, StoreError, shortened
from .memory import MemoryStore
from .outcome import AnyOutcome, Outcome, Settlement, checked_outcome
from .settings import Options, Settings
from .state import Information, Override, State
from .store import Store

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Unpack

    P = ParamSpec("P")

T = TypeVar("T")

_log = logging.getLogger("circuitry")


class _Waiter:
    """What one thread waits for. A bare lock: releasing it takes no other lock."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Lets whoever waits go on."""
        try:
            self._lock.release()
        except RuntimeError:
            # It was set before.
            pass

    def wait(self, seconds: float) -> bool:
        """Waits until it is set."""
        return self._lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))


class _ThreadDriver:
    """Runs steps in the thread that calls, and others in daemon threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_ours = is_ours(store)
        self._background: set[threading.Thread] = set()

    def waiter(self) -> _Waiter:
        return _Waiter()

    def caller(self) -> object:
        return threading.get_ident()

    def after_fork(self) -> None:
        self._background = set()

    def announces(self) -> bool:
        return callable(getattr(self._store, "announce", None))

    def spawn(self, steps: Steps[Any]) -> bool:
        thread = threading.Thread(target=self._run_in_background, args=(steps,), name="circuitry", daemon=True)
        self._background.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            # The interpreter ends, or there are no threads left.
            self._background.discard(thread)
            _log.warning("a call of a circuit does not go on in the background: %s", error)
            return False
        return True

    def _run_in_background(self, steps: Steps[Any]) -> None:
        try:
            self.run(steps)
        except BaseException:
            # An interrupt in a thread of ours is nobody's.
            _log.exception("what went on in the background failed")
        finally:
            self._background.discard(threading.current_thread())

    def join(self, seconds: float) -> bool:
        """Waits for what goes on in the background; says whether nothing does any more."""
        until = time.monotonic() + seconds
        for thread in list(self._background):
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        return not self._background

    def run(self, steps: Steps[T]) -> T:
        """Runs steps to their end. An interrupt closes them: what is under way goes on in the background."""
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
                    answer = self._do(effect)
                except Exception as raised:
                    error = failed_by(effect, raised, handled, is_ours=self._is_ours)
        finally:
            steps.close()

    def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Load):
            return self._store.load(effect.circuit, timeout=effect.timeout)
        if isinstance(effect, Swap):
            return self._store.swap(
                effect.circuit, effect.expected, effect.value, effect.ttl_ms, timeout=effect.timeout
            )
        if isinstance(effect, Sleep):
            return time.sleep(effect.seconds)
        if isinstance(effect, Announce):
            return getattr(self._store, "announce")(effect.circuit, timeout=effect.timeout)  # noqa: B009 - not all have it
        waiter = effect.waiter
        assert isinstance(effect, Wait) and isinstance(waiter, _Waiter)
        return waiter.wait(effect.seconds)


class Factory:
    """Makes breakers for threads. Make one a process; any number of threads use it.

    ``store`` is where records live, by default this process's memory. The settings are keyword arguments; see
    :class:`circuitry.Options`, and the table in the README.

    Making it compiles the component, some tenths of a second, once a process; it asks no store. It raises
    :class:`SettingsError`, which names the setting.

    >>> factory = Factory(failure_count_threshold=15, allow_after_ms=1_800_000)
    >>> factory.breaker_for("emails", tenant="acme").name
    'emails/acme'
    """

    def __init__(self, store: Store | None = None, **options: Unpack[Options]) -> None:
        settings = Settings.of(options)
        if store is None:
            store = MemoryStore(clock=settings.clock)
        check_store(store, is_async=False)
        self._driver = _ThreadDriver(store)
        self._node = Node(settings, self._driver)

    def breaker_for(self, name: str, context: Context | None = None, *, tenant: str | None = None) -> Breaker:
        """A handle on the circuit of ``name`` and ``context``, under the name that ``name_fn`` gives it.

        Costs a look into a table. Raises :class:`ArgumentError` for a name that is out of its bounds (1 to 1,024 bytes
        of UTF-8).
        """
        circuit = self._node.circuit(name, context_of(context, tenant))
        return Breaker(self._node, self._driver, circuit, name)

    @property
    def is_store_down(self) -> bool:
        """Whether the store is taken as down, so that calls take the store-failure way."""
        return self._node.outage.is_down

    def close(self) -> bool:
        """Ends what goes on in the background, and waits at most the store's timeout for outcomes that are being
        settled there; says whether all are: while the store is down, those whose write may have happened are not. The
        store stays open: it is yours."""
        is_whole = self._node.close()
        return self._driver.join(self._node.store_timeout) and is_whole

    def __enter__(self) -> Factory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Breaker:
    """A handle on a circuit. Cheap to make; all handles of one name share the circuit.

    It is a decorator too: ``@breaker`` runs each call of a function as work.
    """

    def __init__(self, node: Node, driver: _ThreadDriver, circuit: Circuit, base: str) -> None:
        self._node = node
        self._driver = driver
        self._circuit = circuit
        self._base = base

    @property
    def name(self) -> str:
        """The circuit's name, as it is shared."""
        return self._circuit.name

    def start(self) -> Permit:
        """Asks to begin work. Settle the permit with :meth:`Permit.end`.

        Costs one load when the circuit is closed. Waits at most about the store's timeout; when the store does not
        answer, ``store_failure`` decides.

        Raises :class:`CircuitRefused` with the time to wait, and another :class:`CircuitryError` when the record cannot
        be read or the component failed. The work has not run.

        >>> from circuitry import Outcome
        >>> breaker = Factory().breaker_for("emails", tenant="acme")
        >>> permit = breaker.start()
        >>> permit.end(Outcome.SUCCESS).disposition
        <Disposition.ACCEPTED: 'accepted'>
        """
        admitted = self._driver.run(permits.start(self._node, self._circuit))
        return Permit(Hold(self._node, self._circuit, admitted), self._driver)

    def execute(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Starts, works and ends.

        What the work returns or raises is given back whatever becomes of its outcome. An exception is judged by the
        matcher of this circuit, or the fallback matcher; a ``KeyboardInterrupt`` is ignored.

        Raises as :meth:`start`; the work has not run then.
        """
        check_work(work, is_async=False)
        with self.permit() as permit:
            result = work(*args, **kwargs)
            try:
                check_result(result)
            except CircuitryError:
                permit.outcome = Outcome.IGNORED
                raise
            return result

    def execute_classified(
        self, work: Callable[[], T], classify: Callable[[T], AnyOutcome]
    ) -> tuple[T, Settlement | CircuitryError]:
        """Like :meth:`execute`, with ``classify`` to say what a result counts as, and with what became of the outcome.

        An answer of status 503 can be a failure so. What the work raises is judged as in :meth:`execute`, and raised. A
        classifier that raises, or gives no outcome, is left out: that is logged, and the work counts as a success.
        """
        check_work(work, is_async=False)
        with self.permit() as permit:
            result = work()
            # As what an interrupt of the classifier settles it.
            permit.outcome = Outcome.IGNORED
            permit.outcome = classified(self._circuit, classify, result)
            try:
                return result, permit.end(permit.outcome)
            except CircuitryError as error:
                return result, error

    def permit(self) -> Scope:
        """``with breaker.permit() as permit:`` starts, and ends as the block ends: an exception is judged as in
        :meth:`execute`. Set ``permit.outcome`` in the block to say it yourself. Call it for each block: one that is
        entered a second time, or by a second thread, raises :class:`ArgumentError`."""
        return Scope(self)

    def guard(self, work: Callable[P, T]) -> Callable[P, T]:
        """Makes a function each of whose calls is :meth:`execute`."""
        check_work(work, is_async=False)

        @functools.wraps(work)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.execute(work, *args, **kwargs)

        return guarded

    __call__ = guard

    def state(self) -> State:
        """The effective state: an open circuit whose time is over reads as half-open. Does not look at overrides."""
        return self.information().state

    def information(self) -> Information:
        """Everything that is known of the circuit. Reading never changes it. While the store is down this is the
        process's own record, and says so.

        Raises a :class:`CircuitryError` when the record cannot be read, or the store is down and the settings keep no
        local record.
        """
        return self._driver.run(_steps.information(self._node, self._circuit))

    def explain(self) -> str:
        """Says in a short paragraph, in English, what the circuit does, why, and until when."""
        return self.information().explanation

    def set_override(self, override: Override | None) -> Override | None:
        """Forces the circuit for the whole fleet, or takes the force away with ``None``; says what was in force before.

        Raises a :class:`CircuitryError` when it could not be stored; it is never kept in this process only.
        """
        return self._driver.run(_steps.set_override(self._node, self._circuit, checked_override(override)))

    def reset(self) -> Override | None:
        """Closes the circuit for the whole fleet as if it were new, whatever its state; says which override was in
        force before. What was started before does not count any more.

        Raises a :class:`CircuitryError` when it could not be stored.
        """
        return self._driver.run(_steps.reset(self._node, self._circuit))

    def __repr__(self) -> str:
        return f"<circuitry.Breaker {self.name!r}>"


class Permit(PermitBase):
    """Leave to work on a circuit.

    While a permit for a probe lives, its lease is renewed, for ten times the lease's length at most. A permit that is
    dropped is settled as ignored: it frees its place and counts nothing.
    """

    def __init__(self, hold: Hold, driver: _ThreadDriver) -> None:
        super().__init__(hold)
        self._driver = driver

    def end(self, outcome: AnyOutcome | str) -> Settlement:
        """Settles the permit, once; says what became of the outcome.

        Waits at most about the store's timeout; ``Disposition.UNSETTLED`` then says that the settling goes on, and at
        once where a state-change callback or a trip function ends work of the circuit that it is told of. A store that
        is down is no error: the outcome is then settled as ``store_failure`` says. Raises a
        :class:`CircuitryError` when the record cannot be read or the component failed.
        """
        outcome = checked_outcome(outcome)
        self._take()
        settled = self._hold.settle(outcome)
        return settled if isinstance(settled, Settlement) else self._driver.run(settled)


class Scope:
    """One ``with`` block around work; see :meth:`Breaker.permit`."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        # Taken once, by one thread.
        self._entry = iter((True,))
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        if not next(self._entry, False):
            raise entered_before()
        permit = self._permit = self._breaker.start()
        return permit

    def __exit__(
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
            permit.end(outcome)
        except CircuitryError as failed:
            # A store that fails after the work loses nothing of the user's.
            _log.warning(
                "circuit `%s`: the outcome of finished work could not be settled: %s", shortened(circuit.name), failed
            )


def check_store(store: object, *, is_async: bool) -> None:
    """Whether a store has the functions that it needs, of the right kind."""
    import inspect

    for name in ("load", "swap"):
        function = getattr(store, name, None)
        if not callable(function):
            raise SettingsError("store", f"{type(store).__name__} has no function `{name}`")
        if inspect.iscoroutinefunction(function) is not is_async:
            what = "coroutines: give it to an AsyncFactory" if not is_async else "no coroutines: give it to a Factory"
            raise SettingsError("store", f"the functions of {type(store).__name__} are {what}")
