"""What interrupts a call reaches whoever made it, at whatever step, and loses and doubles nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from circuitry import (
    AsyncFactory,
    Disposition,
    Factory,
    ManualClock,
    MemoryStore,
    Outcome,
    Settlement,
    StoreError,
    TripFunction,
)
from circuitry._engine.ends import Ends
from circuitry._engine.exchange import Exchange
from circuitry._engine.gathering import Gathering
from circuitry._interrupts import interrupt_in
from circuitry.redis import RedisStore
from doubles import Interrupt, TaskStore, ThreadStore, Work, fail, failing, once, wait_until
from servers import fresh_prefix, own_server
from test_settling import TooLong, ended

LONG: dict[str, Any] = {"store_timeout_ms": 60_000, "failure_count_threshold": 1_000}


class TooLate(TimeoutError):
    """One that looks like an error of a socket."""


@contextmanager
def alarms(kind: type[Exception] = TooLong) -> Iterator[None]:
    """A signal's handler that raises, as a job queue's."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise kind

    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def alarm_in(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)


def alarm_now() -> None:
    os.kill(os.getpid(), signal.SIGALRM)
    # The handler has run by then.
    time.sleep(0.001)


def alarm_that_a_store_takes_for_its_own() -> None:
    try:
        alarm_now()
    except Exception as error:
        raise StoreError("unknown", "no answer") from error


# ---- a signal's handler, in a call of the store ----


@pytest.mark.parametrize("raising", [alarm_now, alarm_that_a_store_takes_for_its_own])
def test_a_time_limit_in_a_load_is_no_failure_of_the_store(raising: Any) -> None:
    store = ThreadStore()
    factory = Factory(store, **LONG)
    breaker = factory.breaker_for("db")
    store.before_load = once(raising)
    with alarms(), pytest.raises(TooLong):
        breaker.start()
    assert not factory.is_store_down
    assert breaker.execute(int) == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("raising", [alarm_now, alarm_that_a_store_takes_for_its_own])
def test_a_time_limit_in_a_swap_reaches_the_caller_and_the_outcome_counts_once(raising: Any, when: str) -> None:
    store = ThreadStore()
    factory = Factory(store, **LONG)
    breaker = factory.breaker_for("db")
    permit = breaker.start()
    setattr(store, f"{when}_swap", once(raising))
    with alarms(), pytest.raises(TooLong):
        permit.end(Outcome.FAILURE)
    assert factory.close(), "it is settled in the background"
    assert breaker.information().counts.total_failures == 1
    assert not factory.is_store_down


@pytest.mark.parametrize("kind", [TooLong, TooLate])
@pytest.mark.parametrize("stalls", ["connecting", "load", "swap"])
def test_a_time_limit_in_a_call_of_redis_reaches_the_caller(kind: type[Exception], stalls: str) -> None:
    with own_server() as server:
        store = RedisStore(server.url, prefix=fresh_prefix(), operation_timeout_ms=20_000, connect_timeout_ms=20_000)
        factory = Factory(store, **LONG)
        breaker = factory.breaker_for("db")
        if stalls != "connecting":
            breaker.execute(int)
        permit = breaker.start() if stalls == "swap" else None
        server.stall()
        call = breaker.start if permit is None else lambda: permit.end(Outcome.FAILURE)
        begun = time.monotonic()
        with alarms(kind):
            alarm_in(0.1)
            with pytest.raises(kind):
                call()
        assert time.monotonic() - begun < 10
        server.resume()
        assert factory.close()
        assert breaker.information().counts.total_failures == (0 if permit is None else 1)
        store.close()


def test_what_comes_out_of_a_store_of_ours_and_is_no_error_of_a_store_is_the_callers(monkeypatch: Any) -> None:
    """As what another thread raises in this one."""
    store = MemoryStore()
    breaker = Factory(store).breaker_for("db")

    def raising(*_: Any) -> Any:
        raise TooLong

    with monkeypatch.context() as patched:
        patched.setattr(store._table, "load", raising)
        patched.setattr(store._table, "swap", raising)
        with pytest.raises(TooLong):
            breaker.start()


def test_a_bug_of_somebody_elses_store_is_still_an_error_of_the_store() -> None:
    store = ThreadStore()
    breaker = Factory(store).breaker_for("db")
    store.before_load = once(failing)
    with pytest.raises(StoreError, match="its code raised Work"):
        breaker.start()


def test_a_time_limit_that_the_caller_has_caught_does_not_come_again() -> None:
    store = ThreadStore()
    breaker = Factory(store, store_timeout_ms=200).breaker_for("db")
    permit = breaker.start()
    store.before_load = store.before_swap = lambda circuit: fail("unavailable")()
    with alarms():
        try:
            alarm_now()
        except TooLong as caught:
            assert interrupt_in(caught) is caught
            assert permit.end(Outcome.FAILURE).local


async def test_the_same_for_asyncio() -> None:
    store = TaskStore()
    factory = AsyncFactory(store, **LONG)
    breaker = factory.breaker_for("db")
    permit = await breaker.start()

    async def interrupted(circuit: str) -> None:
        store.before_swap = nothing
        alarm_now()

    async def nothing(circuit: str) -> None:
        return None

    store.before_swap = interrupted
    with alarms(), pytest.raises(TooLong):
        await permit.end(Outcome.FAILURE)
    assert await factory.aclose()
    assert (await breaker.information()).counts.total_failures == 1


# ---- a signal's handler, in code of the user's ----


def test_a_time_limit_in_a_callback_reaches_the_caller_and_the_outcome_counts_once() -> None:
    store = ThreadStore()
    changes: list[Any] = []

    def callback(change: Any) -> None:
        changes.append(change)
        alarm_now()

    factory = Factory(store, failure_count_threshold=0, state_change_callback=callback)
    breaker = factory.breaker_for("db")
    permit = breaker.start()
    with alarms(), pytest.raises(TooLong):
        permit.end(Outcome.FAILURE)
    assert factory.close()
    assert (len(changes), store.swaps, breaker._circuit.ends._settling) == (1, 2, False)


def test_a_time_limit_in_a_trip_function_reaches_the_caller_and_the_outcome_counts_once() -> None:
    calls: list[Any] = []

    def trips(information: Any) -> bool:
        calls.append(information)
        if len(calls) == 1:
            alarm_now()
        return False

    factory = Factory(ThreadStore(), trip_fn=TripFunction("mine", 1, trips))
    breaker = factory.breaker_for("db")
    permit = breaker.start()
    with alarms(), pytest.raises(TooLong):
        permit.end(Outcome.FAILURE)
    assert factory.close()
    assert breaker.information().counts.total_failures == 1


def test_a_time_limit_in_a_matcher_or_a_classifier_reaches_the_caller() -> None:
    def judge(_: Any) -> Outcome:
        alarm_now()
        return Outcome.SUCCESS

    breaker = Factory(fallback_error_matcher=judge).breaker_for("db")
    with alarms():
        with pytest.raises(TooLong):
            breaker.execute(failing)
        matcher, breaker = breaker, Factory().breaker_for("db")
        assert matcher.start().end(Outcome.SUCCESS).disposition is Disposition.ACCEPTED
        with pytest.raises(TooLong):
            breaker.execute_classified(int, judge)
    assert breaker.information().counts.total == 0, "what is not judged is ignored"


# ---- an interrupt between two steps ----


@pytest.mark.parametrize("where", ["_learn_time", "_learn_grant"])
def test_an_interrupt_between_the_stores_answer_and_its_use_counts_once(where: str, monkeypatch: Any) -> None:
    store = ThreadStore()
    factory = Factory(store, **LONG)
    breaker = factory.breaker_for("db")
    other = Factory(store.inner, **LONG).breaker_for("db")
    permit = breaker.start()
    inner, left = getattr(Exchange, where), [1]

    def interrupted(self: Exchange, *arguments: Any) -> Any:
        if left and store.swaps == 2 and self._node is factory._node:
            left.pop()
            # More than the record remembers the names of calls for.
            for _ in range(40):
                other.execute(int)
            raise Interrupt
        return inner(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Exchange, where, interrupted)
        with pytest.raises(Interrupt):
            permit.end(Outcome.FAILURE)
        assert factory.close()
    assert left == []
    assert breaker.information().counts.total_failures == 1


@pytest.mark.parametrize("where", ["_come", "_lead", "_leave"])
@pytest.mark.parametrize("role", ["alone", "leads"])
def test_a_lead_of_loads_that_an_interrupt_takes_away_is_taken_over(where: str, role: str, monkeypatch: Any) -> None:
    store = ThreadStore()
    breaker = Factory(store, store_timeout_ms=300).breaker_for("db")
    breaker.execute(int)
    loads, gate = breaker._circuit.loads, threading.Event()
    other = threading.Thread(target=breaker.start)
    if role == "leads":
        store.before_load = once(lambda: gate.wait(10))
        other.start()
        wait_until(lambda: loads._alone_until > 0)
    inner, left = getattr(Gathering, where), [1]
    mine = threading.get_ident()

    def interrupted(self: Gathering, *arguments: Any) -> Any:
        if left and threading.get_ident() == mine:
            left.pop()
            if where == "_come":
                inner(self, *arguments)
            raise Interrupt
        return inner(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Gathering, where, interrupted)
        if (where, role) == ("_lead", "alone"):
            breaker.start()
        else:
            with pytest.raises(Interrupt):
                breaker.start()
    gate.set()
    if role == "leads":
        other.join(10)
    threads = [threading.Thread(target=breaker.start) for _ in range(6)]
    until = time.monotonic() + 10
    while loads._led_until or loads._alone_until or loads._waiting:
        assert time.monotonic() < until, "the lead is lost"
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        threads = [threading.Thread(target=breaker.start) for _ in range(6)]
    failures = len(store.values)
    begun = time.monotonic()
    breaker.start()
    assert time.monotonic() - begun < 0.25, "it waits for nobody"
    assert len(store.values) == failures


# ---- who would wait for himself ----


def test_work_that_a_callback_ends_on_its_circuit_is_settled_after_it() -> None:
    told: list[Settlement] = []
    permits: list[Any] = []
    factory = Factory(
        ThreadStore(),
        failure_count_threshold=0,
        store_timeout_ms=20_000,
        state_change_callback=lambda change: told.append(permits.pop().end(Outcome.SUCCESS)),
    )
    breaker = factory.breaker_for("db")
    permits += [breaker.start(), breaker.start()]
    begun = time.monotonic()
    assert permits.pop().end(Outcome.FAILURE).disposition is Disposition.ACCEPTED
    assert time.monotonic() - begun < 10, "it did not wait for itself"
    assert told == [Settlement(Disposition.UNSETTLED)]
    assert factory.close()
    assert breaker._circuit.ends._waiting == []
    assert not breaker._circuit.ends._settling


def test_work_that_a_trip_function_ends_on_its_circuit_is_settled_after_it() -> None:
    told: list[Settlement] = []
    permits: list[Any] = []

    def trips(_: Any) -> bool:
        if permits:
            told.append(permits.pop().end(Outcome.SUCCESS))
        return False

    factory = Factory(ThreadStore(), trip_fn=TripFunction("mine", 1, trips), store_timeout_ms=20_000)
    breaker = factory.breaker_for("db")
    permits += [breaker.start(), breaker.start()]
    begun = time.monotonic()
    assert permits.pop().end(Outcome.FAILURE).disposition is Disposition.ACCEPTED
    assert time.monotonic() - begun < 10, "it did not wait for itself"
    assert told == [Settlement(Disposition.UNSETTLED)]
    assert factory.close()
    counts = breaker.information().counts
    assert (counts.total_failures, counts.total_successes) == (1, 1)


def test_a_finalizer_may_settle_in_the_middle_of_what_its_thread_does() -> None:
    """The garbage collector runs one anywhere, also where the thread holds a lock."""
    factory = Factory(ThreadStore())
    node, circuit = factory._node, factory.breaker_for("db")._circuit
    waiting = ended()
    ends = Ends()

    def finalize() -> None:
        with node._lock, node.outage._lock, ends._lock, circuit.loads._lock:
            node.forget(node.driver.waiter())
            node.outage.drop_parked()
            ends.push(waiting)
            ends.give_up(waiting)
            factory.breaker_for("db")
            circuit.loads._leave(type("Nobody", (), {"is_alone": False, "leads": False, "round": []})())

    thread = threading.Thread(target=finalize, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_a_block_is_around_one_piece_of_work() -> None:
    from circuitry import ArgumentError

    breaker = Factory(clock=ManualClock(1_000)).breaker_for("db")
    scope = breaker.permit()
    with scope as permit:
        with pytest.raises(ArgumentError, match="for each"), scope:
            raise AssertionError("it is entered twice")
        permit.outcome = Outcome.FAILURE
    assert breaker.information().counts.total_failures == 1
    with pytest.raises(ArgumentError, match="for each"), scope:
        raise Work
