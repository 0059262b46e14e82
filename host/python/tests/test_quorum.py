"""With a quorum nodes decide for themselves, and so many of them for the fleet."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from circuitry import (
    CircuitRefused,
    Disposition,
    Factory,
    ManualClock,
    MemoryStore,
    Outcome,
    Override,
    OverrideKind,
    Quorum,
    RefusalReason,
    SettingsError,
    Settlement,
    State,
)
from doubles import NOW_MS, Recorder, ThreadStore, Work, failing, once


def quorum(store: Any, clock: ManualClock, node: str, **options: Any) -> Factory:
    return Factory(
        store, clock=clock, failure_count_threshold=1, allow_after_ms=10_000, quorum=Quorum(2, 60_000), node_id=node,
        **options,
    )  # fmt: skip


def test_a_node_that_trips_alone_is_refused_alone_and_enough_votes_open_for_all() -> None:
    clock = ManualClock(NOW_MS)
    store = MemoryStore(clock=clock)
    recorder = Recorder()
    nodes = [quorum(store, clock, name, state_change_callback=recorder).breaker_for("db") for name in "abc"]
    for _ in range(2):
        with pytest.raises(Work):
            nodes[0].execute(failing)
    with pytest.raises(CircuitRefused) as raised:
        nodes[0].start()
    assert raised.value.reason is RefusalReason.NODE_OPEN
    assert nodes[2].execute(int) == 0, "one node with a broken network does not stop the fleet"
    information = nodes[0].information()
    assert (information.state, [vote.node_id for vote in information.votes]) == (State.CLOSED, ["a"])
    assert information.own is not None
    assert (information.own.state, information.own.local) == (State.OPEN, True)
    assert "This node decides for itself" in information.explanation

    for _ in range(2):
        with pytest.raises(Work):
            nodes[1].execute(failing)
    assert nodes[2].state() is State.OPEN
    shared = [change for change in recorder.changes if not change.local]
    assert [change.transition.reason.value for change in shared] == ["votes-reached"]
    with pytest.raises(CircuitRefused) as raised:
        nodes[2].start()
    assert raised.value.reason is RefusalReason.OPEN


def test_with_a_quorum_an_outcome_is_settled_on_the_nodes_own_record() -> None:
    clock = ManualClock(NOW_MS)
    breaker = quorum(MemoryStore(clock=clock), clock, "a").breaker_for("db")
    settlement = breaker.start().end(Outcome.SUCCESS)
    assert (settlement.disposition, settlement.local) == (Disposition.ACCEPTED, True)
    late = breaker.start()
    breaker.reset()
    breaker.execute(int)
    assert late.end(Outcome.SUCCESS).disposition is Disposition.STALE


def test_an_override_frees_a_node_that_tripped_alone() -> None:
    clock = ManualClock(NOW_MS)
    breaker = quorum(MemoryStore(clock=clock), clock, "a").breaker_for("db")
    for _ in range(2):
        with pytest.raises(Work):
            breaker.execute(failing)
    breaker.set_override(Override(OverrideKind.METRICS_ONLY, "ops", "a trial"))
    permit = breaker.start()
    assert permit.would_have_refused is not None
    assert permit.would_have_refused.reason is RefusalReason.NODE_OPEN


def test_a_quorum_needs_a_name_for_this_node() -> None:
    with pytest.raises(SettingsError) as raised:
        Factory(quorum=Quorum(2, 60_000))
    assert raised.value.field == "node_id"


def test_a_start_that_is_answered_late_takes_no_newer_counts_away() -> None:
    clock = ManualClock(NOW_MS)
    store = ThreadStore(clock)
    factory = quorum(store, clock, "a", store_timeout_ms=20_000)
    breaker = factory.breaker_for("db")
    breaker.execute(int)
    loaded, answer = threading.Event(), threading.Event()

    def answer_late() -> None:
        loaded.set()
        assert answer.wait(20)

    store.after_load = once(answer_late)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(breaker.start)
        assert loaded.wait(20)
        breaker.reset()
        with pytest.raises(Work):
            breaker.execute(failing)
        permit = breaker.start()
        answer.set()
        assert late.result().end(Outcome.FAILURE) == Settlement(Disposition.STALE, local=True)
    assert permit.end(Outcome.FAILURE) == Settlement(Disposition.ACCEPTED, local=True)
    with pytest.raises(CircuitRefused) as raised:
        breaker.start()
    assert raised.value.reason is RefusalReason.NODE_OPEN, "the second failure of the era"
