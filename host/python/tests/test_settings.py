# mypy: disable-error-code="arg-type,list-item"
"""Settings that cannot be used are refused by name, when the factory is made."""

from __future__ import annotations

from typing import Any

import pytest

from circuitry import (
    AsyncFactory,
    AsyncMemoryStore,
    Backoff,
    ConsecutiveFailures,
    Custom,
    Factory,
    FailureCount,
    FailureRate,
    HalfOpenLimit,
    ManualClock,
    MemoryStore,
    Overdue,
    Quorum,
    Ramp,
    SettingsError,
    SlowCallRate,
    TripFunction,
    Window,
)
from circuitry.settings import CircuitSettings, get_known


async def coroutine(_: Any) -> None:
    return None


BAD: list[tuple[dict[str, Any], str]] = [
    ({"failure_treshold": 5}, "failure_treshold"),
    ({"failure_count_threshold": -1}, "failure_count_threshold"),
    ({"failure_count_threshold": 1 << 64}, "failure_count_threshold"),
    ({"failure_count_threshold": 5.0}, "failure_count_threshold"),
    ({"failure_count_threshold": True}, "failure_count_threshold"),
    ({"failure_count_threshold": None}, "failure_count_threshold"),
    ({"failure_count_threshold": "5"}, "failure_count_threshold"),
    ({"close_threshold": 0}, "close_threshold"),
    ({"close_threshold": 65}, "close_threshold"),
    ({"close_threshold": 1 << 32}, "close_threshold"),
    ({"allow_after_ms": 0}, "allow_after_ms"),
    ({"allow_after_ms": float("nan")}, "allow_after_ms"),
    ({"cyclic_clear_after_ms": 0}, "cyclic_clear_after_ms"),
    ({"probe_timeout_ms": 0}, "probe_timeout_ms"),
    ({"idle_retention_ms": 0}, "idle_retention_ms"),
    ({"settings_revision": -1}, "settings_revision"),
    ({"trip_rules": 5}, "trip_rules"),
    ({"trip_rules": "consecutive"}, "trip_rules"),
    ({"trip_rules": ["consecutive"]}, "trip_rules[0]"),
    ({"trip_rules": [Custom("mine", 1)]}, "trip_rules[0]"),
    ({"trip_rules": [ConsecutiveFailures(), FailureCount(0, Window.calls(10))]}, "trip_rules.failure_count"),
    ({"trip_rules": [FailureCount(1, Window.calls(0))]}, "trip_rules.failure_count"),
    ({"trip_rules": [FailureCount(1, Window.calls(1_025))]}, "trip_rules.failure_count"),
    ({"trip_rules": [FailureCount(1, 10)]}, "trip_rules[0].window"),
    ({"trip_rules": [FailureCount(1, Window("hours", 5))]}, "trip_rules[0].window"),
    ({"trip_rules": [FailureRate(1_001, Window.calls(10))]}, "trip_rules.failure_rate"),
    ({"trip_rules": [FailureRate(-1, Window.calls(10))]}, "trip_rules[0].per_mille"),
    ({"trip_rules": [FailureRate(500, Window.calls(10), 11)]}, "trip_rules.failure_rate"),
    ({"trip_rules": [SlowCallRate(500, Window.calls(10))]}, "slow_call_after_ms"),
    ({"trip_rules": [ConsecutiveFailures(-1)]}, "trip_rules[0].minimum_calls"),
    ({"trip_rules": [ConsecutiveFailures()] * 5}, "trip_rules"),
    ({"trip_fn": lambda _: True}, "trip_fn"),
    ({"trip_fn": TripFunction("", 1, bool)}, "trip_fn.name"),
    ({"trip_fn": TripFunction("x" * 65, 1, bool)}, "trip_fn.name"),
    ({"trip_fn": TripFunction("\ud800", 1, bool)}, "trip_fn.name"),
    ({"trip_fn": TripFunction("x", -1, bool)}, "trip_fn.version"),
    ({"trip_fn": TripFunction("x", 1, coroutine)}, "trip_fn.trips"),
    ({"slow_call_after_ms": 0}, "slow_call_after_ms"),
    ({"backoff": 2}, "backoff"),
    ({"backoff": Backoff(999, 60_000, 1)}, "backoff.factor_per_mille"),
    ({"backoff": Backoff(2_000, 1, 1)}, "backoff.max_ms"),
    ({"backoff": Backoff(2_000, -1, 1)}, "backoff.max_ms"),
    ({"jitter_per_mille": 1_001}, "jitter_per_mille"),
    ({"retry_after_max_ms": -1}, "retry_after_max_ms"),
    ({"probes": 0}, "probes"),
    ({"probes": 65}, "probes"),
    ({"probes": 2, "probes_at_once": 3}, "probes_at_once"),
    ({"half_open_limit": HalfOpenLimit(0, Overdue.OPENS)}, "half_open_limit.after_ms"),
    ({"half_open_limit": HalfOpenLimit(5, "explodes")}, "half_open_limit.then"),
    ({"ramp": Ramp([], 1)}, "ramp.steps_per_mille"),
    ({"ramp": Ramp([500, 100], 1)}, "ramp.steps_per_mille"),
    ({"ramp": Ramp(5, 1)}, "ramp.steps_per_mille"),
    ({"ramp": Ramp(["100"], 1)}, "ramp.steps_per_mille"),
    ({"ramp": Ramp([100], 0)}, "ramp.step_ms"),
    ({"quorum": Quorum(33, 1), "node_id": "a"}, "quorum.votes"),
    ({"quorum": Quorum(2, 0), "node_id": "a"}, "quorum.window_ms"),
    ({"node_id": ""}, "node_id"),
    ({"node_id": "x" * 49}, "node_id"),
    ({"node_id": "\udfff"}, "node_id"),
    ({"store_failure": "panic"}, "store_failure"),
    ({"store_timeout_ms": 0}, "store_timeout_ms"),
    ({"store_timeout_ms": 0.5}, "store_timeout_ms"),
    ({"name_fn": "name"}, "name_fn"),
    ({"fallback_error_matcher": None}, "fallback_error_matcher"),
    ({"circuit_specific_error_matchers": []}, "circuit_specific_error_matchers"),
    ({"circuit_specific_error_matchers": {"a": 5}}, "circuit_specific_error_matchers['a']"),
    ({"state_change_callback": coroutine}, "state_change_callback"),
    ({"clock": 5}, "clock"),
    ({"max_circuits": 0}, "max_circuits"),
    ({"component_path": "/nowhere/at/all.wasm"}, "component_path"),
    ({"component_path": __file__}, "component_path"),
]


@pytest.mark.parametrize("factory", [Factory, AsyncFactory])
@pytest.mark.parametrize(("options", "field"), BAD, ids=lambda value: str(value)[:60])
def test_a_setting_that_cannot_be_used_is_refused_by_name(options: dict[str, Any], field: str, factory: Any) -> None:
    with pytest.raises(SettingsError) as raised:
        factory(**options)
    assert raised.value.field == field
    assert raised.value.problem
    assert field in str(raised.value)


@pytest.mark.parametrize(
    ("factory", "store"),
    [
        (Factory, AsyncMemoryStore()),
        (AsyncFactory, MemoryStore()),
        (Factory, object()),
        (Factory, "redis://127.0.0.1"),
        (AsyncFactory, 5),
    ],
)
def test_a_store_of_the_wrong_kind_is_refused(factory: Any, store: Any) -> None:
    with pytest.raises(SettingsError) as raised:
        factory(store)
    assert raised.value.field == "store"


def test_defaults_are_those_of_the_contract() -> None:
    rules = CircuitSettings()
    assert rules.to_wit() == {
        "failure-count-threshold": 5,
        "close-threshold": 1,
        "allow-after-ms": 60_000,
        "cyclic-clear-after-ms": None,
        "probe-timeout-ms": 30_000,
        "idle-retention-ms": 86_400_000,
        "policies": None,
        "settings-revision": 0,
    }
    assert CircuitSettings.from_wit(rules.to_wit()) == rules
    # Given as they are by default, policies are the same settings.
    given = Factory(trip_rules=[ConsecutiveFailures()], jitter_per_mille=0, retry_after_max_ms=600_000)
    assert given._node.fingerprint == Factory()._node.fingerprint
    assert Factory(jitter_per_mille=1)._node.fingerprint != Factory()._node.fingerprint


def test_the_largest_numbers_are_taken() -> None:
    most = (1 << 64) - 1
    clock = ManualClock(most)
    breaker = Factory(
        clock=clock,
        failure_count_threshold=most,
        allow_after_ms=most,
        cyclic_clear_after_ms=most,
        probe_timeout_ms=most,
        idle_retention_ms=most,
        settings_revision=most,
        backoff=Backoff(100_000, most, most),
    ).breaker_for("db")
    assert breaker.execute(int) == 0
    assert breaker.information().settings_in_force.allow_after_ms == most
    clock.set_ms(0)
    assert breaker.execute(int) == 0


def test_no_setting_is_unknown_to_itself() -> None:
    assert len(get_known()) == len(set(get_known()))
    assert {"store_failure", "trip_fn", "quorum", "component_cache"} <= set(get_known())


def test_circuits_are_forgotten_past_the_limit_and_those_in_use_are_not() -> None:
    factory = Factory(max_circuits=3)
    held = factory.breaker_for("held")
    for index in range(100):
        factory.breaker_for(f"passing {index}")
    assert factory.breaker_for("held")._circuit is held._circuit
    assert len(factory._node._lately) == 3
    assert len(factory._node._circuits) <= 5
