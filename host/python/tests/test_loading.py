"""Starts load together, and a granted start asks the component no more."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from circuitry import (
    CircuitRefused,
    Context,
    Factory,
    ManualClock,
    Outcome,
)
from doubles import NOW_MS, Interrupt, ThreadStore, once, wait_until


def test_starts_that_come_while_one_loads_share_a_load_that_begins_after_they_came() -> None:
    store = ThreadStore()
    breaker = Factory(store, store_timeout_ms=10_000).breaker_for("db")
    breaker.execute(int)
    loads, gates = store.loads, [threading.Event(), threading.Event()]

    def gated(circuit: str) -> None:
        number = store.loads - loads - 1
        if number < 2:
            gates[number].wait(10)

    store.before_load = gated
    threads = [threading.Thread(target=breaker.start) for _ in range(12)]
    threads[0].start()
    wait_until(lambda: store.loads == loads + 1)
    threads[1].start()
    wait_until(lambda: store.loads == loads + 2)
    for thread in threads[2:]:
        thread.start()
    wait_until(lambda: len(breaker._circuit.loads._waiting) == 10)
    gates[1].set()
    gates[0].set()
    for thread in threads:
        thread.join(10)
    assert store.loads == loads + 3, "the ten who came last share one load"


def test_an_interrupted_load_hangs_nobody() -> None:
    store = ThreadStore()
    breaker = Factory(store).breaker_for("db")
    breaker.execute(int)
    gate = threading.Event()

    def interrupted() -> None:
        gate.wait(10)
        raise Interrupt

    store.before_load = once(interrupted)
    failures: list[BaseException] = []

    def start() -> None:
        try:
            breaker.start()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert [type(failure) for failure in failures] == [Interrupt]


def test_a_granted_start_loads_and_asks_the_component_no_more() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    factory = Factory(store, clock=clock)
    breaker = factory.breaker_for("db")
    breaker.execute(int)
    decide, asked = factory._node.component.decide, []

    def counted(request: Any, *arguments: Any) -> Any:
        asked.append(request[0])
        return decide(request, *arguments)

    factory._node.component = type("Counted", (), {"decide": staticmethod(counted)})()
    loads = store.loads
    for _ in range(3):
        breaker.start()
    assert (asked, store.loads) == ([], loads + 3)
    breaker.execute(int)
    breaker.start()
    assert asked == ["end"], "a success of this process keeps the grant"
    Factory(store.inner, clock=clock).breaker_for("db").execute(int)
    breaker.start()
    assert asked == ["end", "start"], "an entry of somebody else's has none"
    clock.advance_ms(61_000)
    breaker.start()
    assert asked == ["end", "start", "start"], "a grant ends"


def test_a_start_sees_what_another_process_did_before_it() -> None:
    store = ThreadStore()
    breaker = Factory(store, failure_count_threshold=0).breaker_for("db")
    other = Factory(store.inner, failure_count_threshold=0).breaker_for("db")
    breaker.execute(int)
    other.start().end(Outcome.FAILURE)
    with pytest.raises(CircuitRefused):
        breaker.start()


def test_starts_have_consecutive_numbers_and_other_calls_numbers_apart_from_those() -> None:
    factory = Factory()
    node, breaker = factory._node, factory.breaker_for("db")
    seen: list[tuple[str, int]] = []
    decide = node.component.decide

    def noted(request: Any, *arguments: Any) -> Any:
        if "caller" in request[1]:
            seen.append((request[0], request[1]["caller"]["sequence"]))
        return decide(request, *arguments)

    node.component = type("Noted", (), {"decide": staticmethod(noted)})()
    for _ in range(4):
        # So that no start is granted.
        breaker._circuit.granted = None
        breaker.execute(int)
    starts = [sequence for kind, sequence in seen if kind == "start"]
    others = [sequence for kind, sequence in seen if kind != "start"]
    distinct = sorted(set(starts))
    assert distinct == list(range(distinct[0], distinct[0] + 4))
    assert all(sequence >= 1 << 63 for sequence in others)
    assert len(set(others)) == len(others)
    elsewhere = node.circuit("other", Context())
    assert next(elsewhere.starts) > distinct[-1]
