"""Outages, on a Redis that is killed, restarted, and stalled."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from circuitry import (
    AsyncFactory,
    CircuitRefused,
    Disposition,
    Factory,
    ManualClock,
    Outcome,
    Override,
    OverrideKind,
    RefusalReason,
    Settlement,
    State,
    StoreError,
)
from circuitry.redis import AsyncRedisStore, RedisStore
from doubles import Recorder, ThreadStore, fail, once
from servers import Server, fresh_prefix, own_server

NOW_MS = 1_800_000_000_000


@pytest.fixture
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come to pass"
        time.sleep(0.01)


def make(server: Server, **options: Any) -> tuple[Factory, RedisStore, Recorder]:
    recorder = Recorder()
    store = RedisStore(server.url, prefix=fresh_prefix())
    given = {"failure_count_threshold": 2, "state_change_callback": recorder, **options}
    return Factory(store, **given), store, recorder


def test_while_the_store_is_down_the_same_rules_go_on_on_a_local_record(server: Server, caplog: Any) -> None:
    factory, store, recorder = make(server, allow_after_ms=300)
    breaker = factory.breaker_for("db")
    for _ in range(2):
        breaker.start().end(Outcome.FAILURE)
    with caplog.at_level(logging.INFO, "circuitry"):
        server.kill()
        settlement = breaker.start().end(Outcome.FAILURE)
        assert settlement == Settlement(Disposition.ACCEPTED, local=True), "it goes on from the entry last seen"
        assert [(change.transition.reason.value, change.local) for change in recorder.changes] == [("tripped", True)]
        with pytest.raises(CircuitRefused):
            breaker.start()
        information = breaker.information()
        assert (information.state, information.local) == (State.OPEN, True)
        assert "So says this process's own record" in information.explanation
        time.sleep(0.31)
        probe = breaker.start()
        assert probe.is_probe
        assert probe.end(Outcome.SUCCESS).local
        server.start()
        wait_until(lambda: not factory.is_store_down)

        def events(text: str) -> int:
            return len([record for record in caplog.records if text in record.getMessage()])

        wait_until(lambda: events("the store answers again") > 0)
    assert events("the store is down") == events("the store answers again") == 1, "entering and leaving is one event"
    # The local record is dropped and nothing of it is written: the server was emptied by its restart.
    assert breaker.information().era == 0
    assert breaker.start().end(Outcome.SUCCESS) == Settlement(Disposition.ACCEPTED)
    factory.close()
    store.close()


def test_an_open_circuit_stays_open_through_an_outage(server: Server) -> None:
    factory, _, _ = make(server)
    breaker = factory.breaker_for("db")
    for _ in range(3):
        breaker.start().end(Outcome.FAILURE)
    server.kill()
    for _ in range(3):
        with pytest.raises(CircuitRefused) as raised:
            breaker.start()
        assert raised.value.reason is RefusalReason.OPEN
    assert factory.breaker_for("never seen").execute(int) == 0
    factory.close()


def test_calls_during_an_outage_do_not_pay_the_timeout(server: Server) -> None:
    factory, _, _ = make(server, store_timeout_ms=500)
    breakers = [factory.breaker_for("db", tenant=str(tenant)) for tenant in range(50)]
    breakers[0].execute(int)
    server.stall()
    begun = time.monotonic()
    breakers[0].execute(int)
    assert time.monotonic() - begun < 2
    begun = time.monotonic()
    for breaker in breakers:
        breaker.execute(int)
    assert time.monotonic() - begun < 2, "fifty timeouts would take 25 s"
    server.resume()
    wait_until(lambda: not factory.is_store_down)
    factory.close()


def test_what_ends_on_a_stalled_store_is_local_and_the_write_is_counted_once_when_it_is_back(server: Server) -> None:
    factory, _, _ = make(server, store_timeout_ms=400, failure_count_threshold=100)
    breaker = factory.breaker_for("db")
    breaker.start().end(Outcome.SUCCESS)
    permit = breaker.start()
    server.stall()
    begun = time.monotonic()
    settlement = permit.end(Outcome.FAILURE)
    assert time.monotonic() - begun < 2
    assert settlement.local
    server.resume()
    wait_until(lambda: not factory.is_store_down)
    wait_until(lambda: breaker.information().counts.total_failures == 1)
    time.sleep(0.2)
    counts = breaker.information().counts
    assert (counts.total_successes, counts.total_failures) == (1, 1), "it was parked, and counted once"
    factory.close()


def test_a_permit_of_before_the_outage_settles_afterwards(server: Server) -> None:
    factory, _, _ = make(server)
    breaker = factory.breaker_for("db")
    permit = breaker.start()
    server.stall()
    breaker.execute(int)
    assert factory.is_store_down
    server.resume()
    wait_until(lambda: not factory.is_store_down)
    assert permit.end(Outcome.FAILURE) == Settlement(Disposition.ACCEPTED)
    factory.close()


def test_admit_counts_nothing_and_refuse_refuses(server: Server) -> None:
    admits, _, _ = make(server, store_failure="admit")
    refuses, _, _ = make(server, store_failure="refuse", store_timeout_ms=700)
    for factory in (admits, refuses):
        factory.breaker_for("db").execute(int)
    server.kill()
    permit = admits.breaker_for("db").start()
    assert (permit.era, permit.end(Outcome.FAILURE)) == (None, Settlement(Disposition.UNCOUNTED, local=True))
    with pytest.raises(CircuitRefused) as raised:
        refuses.breaker_for("db").start()
    assert (raised.value.reason, raised.value.retry_after_ms) == (RefusalReason.STORE_DOWN, 700)
    for factory in (admits, refuses):
        with pytest.raises(StoreError):
            factory.breaker_for("db").information()
        factory.close()


def test_an_override_that_cannot_be_stored_is_an_error(server: Server) -> None:
    factory, _, _ = make(server)
    breaker = factory.breaker_for("db")
    breaker.execute(int)
    server.kill()
    for call in (breaker.reset, lambda: breaker.set_override(Override(OverrideKind.FORCED_OPEN, "ops", ""))):
        with pytest.raises(StoreError) as raised:
            call()
        assert raised.value.kind == "unavailable"
    factory.close()


def test_an_outage_ends_when_the_store_writes_not_when_it_reads() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    factory = Factory(store, clock=clock, store_timeout_ms=200)
    breaker = factory.breaker_for("db")
    breaker.execute(int)
    store.before_swap = lambda circuit: fail("unavailable", "READONLY")()
    assert breaker.start().end(Outcome.SUCCESS).local
    wait_until(lambda: store.loads > 4)
    assert factory.is_store_down
    store.before_swap = lambda circuit: None
    wait_until(lambda: not factory.is_store_down)
    wait_until(lambda: factory._node._closing == set())
    factory.close()


def test_an_outage_that_comes_back_at_once_keeps_its_local_records() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    factory = Factory(store, clock=clock, failure_count_threshold=0)
    breaker = factory.breaker_for("db")
    breaker.execute(int)
    broken = [True]

    def one_shard(circuit: str) -> None:
        if broken[0] and "trial" not in circuit:
            fail("unavailable")()

    store.before_swap = one_shard
    assert breaker.start().end(Outcome.FAILURE).local
    wait_until(lambda: not factory.is_store_down)
    # The circuit's own shard is still down; it was tripped locally, and stays so.
    store.before_load = one_shard
    with pytest.raises(CircuitRefused):
        breaker.start()
    broken[0] = False
    factory.close()


def test_a_store_that_denies_access_is_an_outage_and_one_that_cannot_is_an_error() -> None:
    store = ThreadStore()
    factory = Factory(store)
    store.before_load = once(fail("denied"))
    assert factory.breaker_for("db").start().end(Outcome.SUCCESS).local is True
    factory.close()
    store = ThreadStore()
    factory = Factory(store)
    store.before_load = once(fail("other", "a foreign key"))
    with pytest.raises(StoreError, match="a foreign key"):
        factory.breaker_for("db").start()
    assert not factory.is_store_down


def test_a_start_whose_answer_was_lost_in_an_outage_gives_its_place_back_afterwards() -> None:
    clock, recorder = ManualClock(NOW_MS), Recorder()
    store = ThreadStore(clock)
    factory = Factory(
        store, clock=clock, failure_count_threshold=0, state_change_callback=recorder, store_timeout_ms=300,
        store_failure="refuse",
    )  # fmt: skip
    breaker = factory.breaker_for("db")
    breaker.start().end(Outcome.FAILURE)
    clock.advance_ms(60_000)
    down = [False]

    def lost(circuit: str) -> None:
        down[0] = True
        fail("unknown")()

    def refuse(circuit: str) -> None:
        if down[0]:
            fail("unavailable")()

    store.after_swap, store.before_load = once(lambda: lost("")), refuse
    with pytest.raises(CircuitRefused) as raised:
        breaker.start()
    assert raised.value.reason is RefusalReason.STORE_DOWN
    down[0] = False
    wait_until(lambda: not factory.is_store_down)
    wait_until(lambda: len(recorder.changes) == 2 and breaker.information().probes == ())
    assert recorder.reasons() == ["tripped", "open-time-over"]
    factory.close()


def test_an_outage_that_nobody_can_watch_ends_at_once(monkeypatch: Any) -> None:
    store = ThreadStore()
    factory = Factory(store)
    breaker = factory.breaker_for("db")
    breaker.execute(int)
    permit = breaker.start()

    def no_threads_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_threads_left)
        store.before_load = store.before_swap = lambda circuit: fail("unavailable")()
        breaker.start()
        assert permit.end(Outcome.SUCCESS).local
        assert not factory.is_store_down
    store.before_load = store.before_swap = lambda circuit: None
    assert not breaker.start().end(Outcome.SUCCESS).local


def test_closing_in_an_outage_says_that_a_write_may_be_lost(caplog: Any) -> None:
    store = ThreadStore()
    factory = Factory(store)
    permit = factory.breaker_for("db").start()
    store.after_swap = once(fail("unknown"))
    store.before_load = lambda circuit: fail("unavailable")()
    assert permit.end(Outcome.FAILURE).local
    assert not factory.close()
    assert "1 outcomes may be lost" in caplog.text
    assert factory.close(), "it was told"


def test_what_may_have_been_written_after_closing_in_an_outage_is_told_as_lost(caplog: Any) -> None:
    store = ThreadStore()
    factory = Factory(store)
    permit = factory.breaker_for("db").start()
    store.after_swap = once(lambda: (factory.close(), fail("unknown")()))
    store.before_load = lambda circuit: fail("unavailable")()
    assert permit.end(Outcome.FAILURE).local
    assert "1 outcomes may be lost" in caplog.text
    assert factory._node.outage._parked == []


def test_a_closed_factory_watches_no_store() -> None:
    store = ThreadStore()
    factory = Factory(store, store_timeout_ms=100)
    store.before_load = lambda circuit: fail("unavailable")()
    factory.breaker_for("db").start()
    assert factory.close()
    loads = store.loads
    time.sleep(0.3)
    assert store.loads == loads


async def test_the_same_for_asyncio(server: Server) -> None:
    store = AsyncRedisStore(server.url, prefix=fresh_prefix())
    factory = AsyncFactory(store, failure_count_threshold=1, store_timeout_ms=400)
    breaker = factory.breaker_for("db")
    await (await breaker.start()).end(Outcome.FAILURE)
    permit = await breaker.start()
    server.stall()
    begun = time.monotonic()
    assert (await permit.end(Outcome.FAILURE)).local
    assert time.monotonic() - begun < 2
    with pytest.raises(CircuitRefused):
        await breaker.start()
    server.resume()
    while factory.is_store_down:
        await asyncio.sleep(0.01)
    for _ in range(500):
        if (await breaker.information()).state is State.OPEN:
            break
        await asyncio.sleep(0.01)
    information = await breaker.information()
    assert (information.state, information.local) == (State.OPEN, False), "the parked failure is counted"
    server.kill()
    with pytest.raises(CircuitRefused):
        await breaker.start()
    assert factory.is_store_down
    await factory.aclose()
    await store.aclose()


def test_the_stores_time_counts_not_the_hosts(server: Server) -> None:
    factory, store, _ = make(server, clock=ManualClock(5_000), allow_after_ms=60_000, failure_count_threshold=0)
    breaker = factory.breaker_for("db")
    breaker.start().end(Outcome.FAILURE)
    told = store.load("db").now_ms
    trip = breaker.information().last_trip
    assert told is not None
    assert trip is not None
    assert abs(told - trip.at_ms) < 10_000
    with pytest.raises(CircuitRefused) as raised:
        breaker.start()
    assert 0 < raised.value.retry_after_ms <= 60_000
    factory.close()


def test_those_who_meet_the_beginning_of_an_outage_get_no_more_probes_than_one_record_has() -> None:
    clock = ManualClock(NOW_MS)
    store, recorder = ThreadStore(clock), Recorder()
    factory = Factory(
        store, clock=clock, failure_count_threshold=0, close_threshold=1, allow_after_ms=10_000, store_timeout_ms=300,
        state_change_callback=recorder,
    )  # fmt: skip
    breaker = factory.breaker_for("db")
    breaker.start().end(Outcome.FAILURE)
    changes = len(recorder.changes)
    clock.advance_ms(10_000)

    def hang(circuit: str) -> None:
        time.sleep(0.3)
        fail_always(circuit)

    store.before_load = hang
    answers: list[Any] = []

    def start() -> None:
        try:
            answers.append(breaker.start())
        except CircuitRefused as refused:
            answers.append(refused.reason)

    threads = [threading.Thread(target=start) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    permits = [answer for answer in answers if not isinstance(answer, RefusalReason)]
    assert (len(answers), len(permits)) == (30, 1), "the local record has one place"
    assert len(recorder.changes) == changes + 1, "and it went half-open once"
    permits[0].end(Outcome.SUCCESS)
    factory.close()


def test_in_an_outage_no_more_local_records_are_kept_than_circuits_are_remembered() -> None:
    store = ThreadStore()
    store.before_load = store.before_swap = fail_always
    factory = Factory(store, failure_count_threshold=0, max_circuits=3)
    answers = []
    for tenant in range(5):
        breaker = factory.breaker_for("db", tenant=str(tenant))
        breaker.start().end(Outcome.FAILURE)
        try:
            breaker.start()
            answers.append("admitted")
        except CircuitRefused as refused:
            answers.append(refused.reason.value)
    assert answers == ["open"] * 3 + ["admitted"] * 2, "what has no record goes by what was seen last"
    store.before_load = store.before_swap = lambda circuit: None
    factory.close()


def fail_always(circuit: str) -> None:
    raise StoreError("unavailable", "as the test says")
