"""Outcomes settle together, and an interrupt tears nothing."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import pytest

from circuitry import (
    AsyncFactory,
    Disposition,
    Factory,
    FailureRetryAfter,
    ManualClock,
    Outcome,
    Settlement,
    State,
)
from circuitry._engine.call import COMPLETIONS_MAX, Grant, Token
from circuitry._engine.ends import Ended, Ends
from doubles import NOW_MS, Interrupt, Recorder, TaskStore, ThreadStore, fail, once, wait_until


class _Nobody:
    def set(self) -> None:
        return None


def ended(outcome: Any = Outcome.SUCCESS, *, era: int = 1, probe: int | None = None, slow: bool = False) -> Ended:
    token = None if probe is None else Token(1, probe)
    return Ended(Grant(era, token), outcome, slow, _Nobody())


def batches(several: list[Ended]) -> list[list[tuple[Any, int]]]:
    ends = Ends()
    for one in several:
        ends.push(one)
    told = []
    while (batch := ends.next_batch()) is not None:
        told.append([(completion.outcome, completion.count) for completion in batch.completions])
    return told


def test_equal_outcomes_in_a_row_go_as_one_run() -> None:
    success, failure = Outcome.SUCCESS, Outcome.FAILURE
    several = [ended(success), ended(success), ended(failure), ended(success), ended(FailureRetryAfter(5))]
    assert batches(several) == [[(success, 2), (failure, 1), (success, 1), (FailureRetryAfter(5), 1)]]


def test_runs_end_with_the_era_with_slowness_and_with_probes() -> None:
    success = Outcome.SUCCESS
    several = [ended(), ended(era=2), ended(era=2, slow=True), ended(era=2, probe=1), ended(era=2, probe=2)]
    assert batches(several) == [[(success, 1)] * 5]


def test_a_call_has_256_completions_at_most_and_what_is_over_goes_next() -> None:
    success, failure = Outcome.SUCCESS, Outcome.FAILURE
    several = [ended(success if index % 2 else failure) for index in range(COMPLETIONS_MAX + 3)]
    assert [len(batch) for batch in batches(several)] == [COMPLETIONS_MAX, 3]


def test_a_run_ends_at_65536_permits() -> None:
    assert batches([ended() for _ in range(65_537)]) == [[(Outcome.SUCCESS, 65_536), (Outcome.SUCCESS, 1)]]


def test_of_a_run_the_first_ones_are_accepted_and_what_is_not_ruled_on_is_unsettled() -> None:
    ends, several = Ends(), [ended() for _ in range(4)]
    for one in several:
        ends.push(one)
    batch = ends.next_batch()
    assert batch is not None
    batch.settle([{"accepted": 1, "stale": 2}], local=False)
    accepted, stale, unsettled = Disposition.ACCEPTED, Disposition.STALE, Disposition.UNSETTLED
    assert [one.answer for one in several] == [Settlement(one) for one in (accepted, stale, stale, unsettled)]


# ---- threads ----


def end_all(permits: list[Any], outcomes: list[Outcome]) -> tuple[list[threading.Thread], list[Settlement]]:
    told: list[Settlement] = []

    def end(permit: Any, outcome: Outcome) -> None:
        told.append(permit.end(outcome))

    threads = [
        threading.Thread(target=end, args=(permit, outcome)) for permit, outcome in zip(permits, outcomes, strict=True)
    ]
    return threads, told


def test_what_ends_while_a_swap_is_under_way_goes_with_the_next_one() -> None:
    store = ThreadStore()
    breaker = Factory(store, failure_count_threshold=1_000).breaker_for("db")
    permits = [breaker.start() for _ in range(20)]
    swaps, gate = store.swaps, threading.Event()
    store.before_swap = lambda circuit: gate.wait(10)
    outcomes = [Outcome.SUCCESS] * 10 + [Outcome.FAILURE] * 10
    threads, told = end_all(permits, outcomes)
    threads[0].start()
    wait_until(lambda: store.swaps == swaps + 1)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: len(breaker._circuit.ends._waiting) == 19)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert store.swaps == swaps + 2, "nineteen outcomes went in one swap"
    assert [settlement.disposition for settlement in told] == [Disposition.ACCEPTED] * 20
    counts = breaker.information().counts
    assert (counts.total_successes, counts.total_failures) == (10, 10)


def test_what_follows_a_trip_in_a_batch_is_stale_and_each_one_is_told() -> None:
    store = ThreadStore()
    recorder = Recorder()
    breaker = Factory(store, failure_count_threshold=2, state_change_callback=recorder).breaker_for("db")
    permits = [breaker.start() for _ in range(10)]
    gate = threading.Event()
    store.before_swap = lambda circuit: gate.wait(10)
    threads, told = end_all(permits, [Outcome.FAILURE] * 10)
    for thread in threads:
        thread.start()
    wait_until(lambda: len(breaker._circuit.ends._waiting) == 9)
    gate.set()
    for thread in threads:
        thread.join(10)
    dispositions = sorted(settlement.disposition.value for settlement in told)
    assert dispositions == ["accepted"] * 3 + ["stale"] * 7
    assert recorder.reasons() == ["tripped"], "one trip is told once"


def test_a_lost_race_is_decided_again_on_the_record_that_won() -> None:
    store = ThreadStore()
    breaker = Factory(store).breaker_for("db")
    other = Factory(store.inner).breaker_for("db")
    permit = breaker.start()
    store.before_swap = once(lambda: other.execute(int))
    assert permit.end(Outcome.FAILURE).disposition is Disposition.ACCEPTED
    counts = breaker.information().counts
    assert (counts.total_successes, counts.total_failures) == (1, 1)


def test_races_without_end_give_no_outcome_up() -> None:
    """Eight lost races are a call that came to nothing; the next one goes on."""
    store = ThreadStore()
    breaker = Factory(store, failure_count_threshold=100, store_timeout_ms=10_000).breaker_for("db")
    other = Factory(store.inner, failure_count_threshold=100).breaker_for("db")
    permit = breaker.start()
    left = list(range(20))

    def race(circuit: str) -> None:
        if left:
            left.pop()
            other.execute(int)

    store.before_swap = race
    assert permit.end(Outcome.FAILURE).disposition is Disposition.ACCEPTED
    counts = breaker.information().counts
    assert (counts.total_successes, counts.total_failures) == (20, 1)


def test_a_start_that_loses_every_race_waits_and_goes_on() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    options: dict[str, Any] = {"clock": clock, "failure_count_threshold": 0, "close_threshold": 64}
    breaker = Factory(store, store_timeout_ms=10_000, **options).breaker_for("db")
    other = Factory(store.inner, **options).breaker_for("db")
    breaker.start().end(Outcome.FAILURE)
    clock.advance_ms(60_000)
    left, probes = list(range(10)), []

    def race(circuit: str) -> None:
        if left:
            left.pop()
            probes.append(other.start())

    store.before_swap = race
    permit = breaker.start()
    assert permit.is_probe
    assert len(breaker.information().probes) == 11


def test_a_lost_answer_is_asked_for_and_counted_once() -> None:
    store = ThreadStore()
    breaker = Factory(store).breaker_for("db")
    permit = breaker.start()
    store.after_swap = once(fail("unknown"))
    assert permit.end(Outcome.FAILURE) == Settlement(Disposition.ACCEPTED)
    assert breaker.information().counts.total_failures == 1


def test_a_write_that_was_lost_is_written_once() -> None:
    store = ThreadStore()
    breaker = Factory(store).breaker_for("db")
    permit = breaker.start()
    store.before_swap = once(fail("unknown"))
    assert permit.end(Outcome.FAILURE) == Settlement(Disposition.ACCEPTED)
    assert breaker.information().counts.total_failures == 1


def test_a_lost_answer_that_a_retry_meets_after_a_race_is_still_counted_once() -> None:
    store = ThreadStore()
    breaker = Factory(store).breaker_for("db")
    other = Factory(store.inner).breaker_for("db")
    permit = breaker.start()

    def lose() -> None:
        for _ in range(5):
            other.execute(int)
        fail("unknown")()

    store.after_swap = once(lose)
    assert permit.end(Outcome.FAILURE) == Settlement(Disposition.ACCEPTED)
    counts = breaker.information().counts
    assert (counts.total_failures, counts.total_successes) == (1, 5)


def test_whether_a_call_was_applied_may_be_forgotten_and_then_it_is_not_applied() -> None:
    store = ThreadStore()
    breaker = Factory(store, failure_count_threshold=1_000).breaker_for("db")
    other = Factory(store.inner, failure_count_threshold=1_000).breaker_for("db")
    permit = breaker.start()

    def lose() -> None:
        for _ in range(40):
            other.execute(int)
        fail("unknown")()

    store.before_swap = once(lose)
    assert permit.end(Outcome.FAILURE).disposition is Disposition.UNSETTLED
    assert breaker.information().counts.total_failures == 0


def test_an_answer_that_takes_no_place_twice() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    breaker = Factory(store, clock=clock, failure_count_threshold=0, close_threshold=2).breaker_for("db")
    breaker.start().end(Outcome.FAILURE)
    clock.advance_ms(60_000)
    store.after_swap = once(fail("unknown"))
    permit = breaker.start()
    assert permit.is_probe
    assert len(breaker.information().probes) == 1


def test_the_settling_goes_on_when_the_timeout_of_its_leader_is_over() -> None:
    store = ThreadStore()
    breaker = Factory(store, store_timeout_ms=300, failure_count_threshold=1_000).breaker_for("db")
    other = Factory(store.inner, failure_count_threshold=1_000).breaker_for("db")
    permit = breaker.start()
    until = time.monotonic() + 0.6

    def race(circuit: str) -> None:
        if time.monotonic() < until:
            time.sleep(0.02)
            other.execute(int)

    store.before_swap = race
    assert permit.end(Outcome.FAILURE).disposition is Disposition.UNSETTLED
    wait_until(lambda: breaker.information().counts.total_failures == 1)
    assert breaker.start().end(Outcome.SUCCESS).disposition is Disposition.ACCEPTED, "the circuit is not stuck"


def interrupt() -> None:
    raise Interrupt


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_in_a_swap_settles_everybodys_outcome_once(when: str) -> None:
    store = ThreadStore()
    breaker = Factory(store, failure_count_threshold=1_000).breaker_for("db")
    permits = [breaker.start() for _ in range(6)]
    gate = threading.Event()

    def interrupted() -> None:
        gate.wait(10)
        raise Interrupt

    if when == "before":
        store.before_swap = once(interrupted)
    else:
        store.after_swap = once(interrupted)
    raised: list[BaseException] = []

    def lead() -> None:
        try:
            permits[0].end(Outcome.FAILURE)
        except BaseException as error:
            raised.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    wait_until(lambda: breaker._circuit.ends._settling)
    threads, told = end_all(permits[1:], [Outcome.FAILURE] * 5)
    for thread in threads:
        thread.start()
    wait_until(lambda: len(breaker._circuit.ends._waiting) == 5)
    gate.set()
    for thread in [leader, *threads]:
        thread.join(10)
    assert [type(error) for error in raised] == [Interrupt]
    assert [settlement.disposition for settlement in told] == [Disposition.ACCEPTED] * 5
    wait_until(lambda: breaker.information().counts.total_failures == 6)


class TooLong(Exception):
    """What a job queue raises out of a signal's handler when a job has taken too long."""


def test_a_time_limit_that_a_signal_raises_while_an_outcome_waits_reaches_the_caller() -> None:
    store = ThreadStore()
    breaker = Factory(store, store_timeout_ms=60_000, failure_count_threshold=1_000).breaker_for("db")
    permits = [breaker.start() for _ in range(2)]
    gate = threading.Event()
    store.before_swap = once(lambda: gate.wait(60))
    leader = threading.Thread(target=permits[0].end, args=(Outcome.FAILURE,))
    leader.start()
    wait_until(lambda: store.swaps == 2)

    def too_long(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, too_long)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TooLong):
            permits[1].end(Outcome.FAILURE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gate.set()
    leader.join(10)
    wait_until(lambda: breaker.information().counts.total_failures == 2)


def test_a_lead_that_nobody_can_take_over_holds_nobody_up(monkeypatch: Any, caplog: Any) -> None:
    store = ThreadStore()
    breaker = Factory(store, store_timeout_ms=60_000, failure_count_threshold=1_000).breaker_for("db")
    permits = [breaker.start() for _ in range(2)]
    store.before_swap = once(interrupt)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_threads_left)
        with pytest.raises(Interrupt):
            permits[0].end(Outcome.FAILURE)
    assert "1 outcomes are lost" in caplog.text
    begun = time.monotonic()
    assert permits[1].end(Outcome.FAILURE).disposition is Disposition.ACCEPTED
    assert time.monotonic() - begun < 30, "it did not wait for a leader"


def no_threads_left(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("where", ["push", "next_batch"])
def test_an_interrupt_as_the_lead_is_taken_holds_nobody_up(where: str, monkeypatch: Any) -> None:
    store = ThreadStore()
    breaker = Factory(store, store_timeout_ms=60_000, failure_count_threshold=1_000).breaker_for("db")
    permits = [breaker.start() for _ in range(2)]
    inner = getattr(Ends, where)

    def interrupted(self: Ends, *arguments: Any) -> Any:
        if where == "push":
            inner(self, *arguments)
        raise Interrupt

    later: list[Any] = []

    def spawn(steps: Any) -> bool:
        later.append(steps)
        return True

    with monkeypatch.context() as patched:
        patched.setattr(Ends, where, interrupted)
        patched.setattr(breaker._driver, "spawn", spawn)
        with pytest.raises(Interrupt):
            permits[0].end(Outcome.FAILURE)
    for steps in later:
        breaker._driver.spawn(steps)
    begun = time.monotonic()
    assert permits[1].end(Outcome.FAILURE).disposition is Disposition.ACCEPTED
    assert time.monotonic() - begun < 30, "it did not wait for a leader"
    wait_until(lambda: breaker.information().counts.total_failures == 2)


def test_an_interrupted_start_gives_its_place_back() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    recorder = Recorder()
    breaker = Factory(
        store, clock=clock, failure_count_threshold=0, state_change_callback=recorder
    ).breaker_for("db")  # fmt: skip
    breaker.start().end(Outcome.FAILURE)
    clock.advance_ms(60_000)
    store.after_swap = once(interrupt)
    with pytest.raises(Interrupt):
        breaker.start()
    wait_until(lambda: breaker.information().probes == () and len(recorder.changes) == 2)
    assert recorder.reasons() == ["tripped", "open-time-over"], "what it changed is told"
    assert breaker.start().is_probe


# ---- asyncio ----


async def test_tasks_settle_and_load_together() -> None:
    store = TaskStore()
    factory = AsyncFactory(store, failure_count_threshold=1_000)
    breaker = factory.breaker_for("db")
    await breaker.execute(asyncio.sleep, 0)
    loads, swaps = store.loads, store.swaps

    async def slowly(circuit: str) -> None:
        await asyncio.sleep(0.02)

    store.before_load = store.before_swap = slowly
    permits = await asyncio.gather(*(breaker.start() for _ in range(50)))
    assert store.loads == loads + 2
    outcomes = [Outcome.SUCCESS] * 25 + [Outcome.FAILURE] * 25
    told = await asyncio.gather(
        *(permit.end(outcome) for permit, outcome in zip(permits, outcomes, strict=True))
    )  # fmt: skip
    assert {settlement.disposition for settlement in told} == {Disposition.ACCEPTED}
    assert store.swaps == swaps + 2
    counts = (await breaker.information()).counts
    assert (counts.total_successes, counts.total_failures) == (26, 25)


async def test_a_cancelled_end_is_settled_all_the_same() -> None:
    store = TaskStore()
    factory = AsyncFactory(store)
    breaker = factory.breaker_for("db")
    permit = await breaker.start()

    reached, gate = asyncio.Event(), asyncio.Event()

    async def held(circuit: str) -> None:
        reached.set()
        await gate.wait()

    store.before_swap = held
    task = asyncio.create_task(permit.end(Outcome.FAILURE))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await factory.aclose()
    assert (await breaker.information()).counts.total_failures == 1


async def test_a_cancelled_start_gives_its_place_back() -> None:
    clock = ManualClock(NOW_MS)
    store = TaskStore(clock)
    factory = AsyncFactory(store, clock=clock, failure_count_threshold=0)
    breaker = factory.breaker_for("db")
    await (await breaker.start()).end(Outcome.FAILURE)
    clock.advance_ms(60_000)

    reached, gate = asyncio.Event(), asyncio.Event()

    async def held(circuit: str) -> None:
        reached.set()
        await gate.wait()

    store.before_swap = held
    task = asyncio.create_task(breaker.start())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    until = time.monotonic() + 10
    # The start ends, and then gives back what it was given.
    while store.swaps < 4 or (await breaker.information()).probes:
        assert time.monotonic() < until, "the place is not given back"
        await asyncio.sleep(0.001)
    information = await breaker.information()
    assert (information.state, information.probes) == (State.HALF_OPEN, ())
    probe = await breaker.start()
    assert probe.is_probe
    await probe.end(Outcome.SUCCESS)
    assert await factory.aclose(), "no renewal goes on"


async def test_a_store_that_hangs_is_bounded_by_the_timeout() -> None:
    store = TaskStore()
    factory = AsyncFactory(store, store_timeout_ms=200)
    breaker = factory.breaker_for("db")
    await breaker.execute(asyncio.sleep, 0)

    async def hanging(circuit: str) -> None:
        await asyncio.sleep(60)

    store.before_load = store.before_swap = hanging
    begun = time.monotonic()
    permit = await breaker.start()
    assert time.monotonic() - begun < 2
    assert factory.is_store_down
    assert (await permit.end(Outcome.SUCCESS)).local
    await factory.aclose()


def test_closing_ends_the_renewal_of_leases_and_waits_for_what_settles() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    factory = Factory(store, clock=clock, failure_count_threshold=0, store_timeout_ms=60_000)
    breaker = factory.breaker_for("db")
    breaker.start().end(Outcome.FAILURE)
    clock.advance_ms(60_000)
    permit = breaker.start()
    assert permit.is_probe
    begun = time.monotonic()
    assert factory.close(), "nothing goes on"
    assert time.monotonic() - begun < 9, "a renewal comes after ten seconds"
    assert permit.end(Outcome.SUCCESS).disposition is Disposition.ACCEPTED
