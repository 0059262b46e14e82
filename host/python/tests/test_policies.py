"""Policies: trip rules, slow calls, growing open times, half-open phases, ramps, presets."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from circuitry import (
    Backoff,
    CircuitRefused,
    ConsecutiveFailures,
    Factory,
    FailureRate,
    HalfOpenLimit,
    ManualClock,
    MemoryStore,
    Outcome,
    Overdue,
    Ramp,
    RefusalReason,
    SlowCallRate,
    TripFunction,
    TripInformation,
    Window,
    like_gobreaker,
    like_polly,
    like_resilience4j,
)
from doubles import NOW_MS, Bench


def test_all_policies_reach_the_component_and_come_back() -> None:
    ramp = Ramp([100, 250, 500], 30_000)
    bench = Bench(
        trip_rules=[
            ConsecutiveFailures(3),
            FailureRate(500, Window.time_ms(60_000), 20),
            SlowCallRate(800, Window.calls(200), 50),
        ],
        slow_call_after_ms=2_000,
        allow_after_ms=30_000,
        backoff=Backoff(2_000, 600_000, 1_800_000),
        jitter_per_mille=100,
        probes=10,
        probes_at_once=2,
        close_threshold=6,
        half_open_limit=HalfOpenLimit(120_000, Overdue.OPENS),
        ramp=ramp,
        settings_revision=7,
    )
    bench.breaker.execute(int)
    information = bench.breaker.information()
    in_force = information.settings_in_force
    assert not information.settings_differ
    assert in_force == bench.factory._node.settings.rules
    assert in_force.ramp == Ramp((100, 250, 500), 30_000)
    assert len(information.rules) == 3


def test_slow_calls_trip_by_the_time_from_start_to_end() -> None:
    bench = Bench(trip_rules=[SlowCallRate(1_000, Window.calls(2), 2)], slow_call_after_ms=100)
    for took_ms in (101, 101):
        permit = bench.breaker.start()
        bench.clock.advance_ms(took_ms)
        permit.end(Outcome.SUCCESS)
    assert bench.recorder.reasons() == ["tripped"]


def test_a_ramp_admits_its_share_of_consecutive_starts() -> None:
    bench = Bench(ramp=Ramp([250], 60_000), allow_after_ms=1_000, failure_count_threshold=0)
    bench.fail()
    bench.clock.advance_ms(1_000)
    bench.breaker.execute(int)
    admitted = 0
    for _ in range(400):
        # Looks, renewals and ends have numbers apart from those of starts.
        bench.breaker.information()
        try:
            bench.breaker.start()
            admitted += 1
        except CircuitRefused as refusal:
            assert refusal.reason is RefusalReason.RAMP
    assert admitted == 100


def test_a_trip_function_is_asked_and_one_that_raises_gives_way_to_the_default_rule(caplog: Any) -> None:
    asked: list[TripInformation] = []

    def trips(information: TripInformation) -> bool:
        asked.append(information)
        if information.counts.total_failures == 1:
            raise RuntimeError("a bad rule")
        return information.counts.total_failures == 2

    bench = Bench(trip_fn=TripFunction("second", 1, trips), failure_count_threshold=50)
    bench.fail(2)
    assert bench.recorder.reasons() == ["tripped"]
    assert [one.counts.total_failures for one in asked] == [1, 2]
    assert (asked[0].circuit, asked[0].failure_count_threshold) == ("emails/acme", 50)
    assert "a bad rule" in caplog.text


def test_an_interrupt_in_a_trip_function_is_the_callers(caplog: Any) -> None:
    def trips(information: TripInformation) -> bool:
        raise KeyboardInterrupt

    bench = Bench(trip_fn=TripFunction("interrupted", 1, trips))
    permit = bench.breaker.start()
    with pytest.raises(KeyboardInterrupt):
        permit.end(Outcome.FAILURE)
    bench.factory.close()


def test_a_trip_function_may_ask_another_breaker() -> None:
    """It must be pure; one that is not does not hang."""
    other = Factory(failure_count_threshold=5).breaker_for("other")
    bench = Bench(trip_fn=TripFunction("asks", 1, lambda information: other.execute(lambda: True)))
    bench.fail()
    assert bench.recorder.reasons() == ["tripped"]


def test_other_settings_in_force_are_told_once(caplog: Any) -> None:
    clock = ManualClock(NOW_MS)
    store = MemoryStore(clock=clock)
    Factory(store, clock=clock, failure_count_threshold=3).breaker_for("shared").execute(int)
    mine = Factory(store, clock=clock, failure_count_threshold=9).breaker_for("shared")
    with caplog.at_level(logging.WARNING, "circuitry"):
        for _ in range(3):
            mine.execute(int)
    told = [record for record in caplog.records if "settings are in force" in record.message]
    assert len(told) == 1
    assert "failure_count_threshold" in told[0].message
    assert mine.information().settings_differ


@pytest.mark.parametrize("preset", [like_resilience4j, like_polly, like_gobreaker])
def test_presets_are_settings_that_can_be_used(preset: Any) -> None:
    Factory(**preset())
