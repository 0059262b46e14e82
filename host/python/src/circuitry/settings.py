"""Settings: how circuits behave, what becomes of calls while the store is down, and who is told.

They are keyword arguments of ``Factory`` and ``AsyncFactory``. All lengths are whole milliseconds, as their names say.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, get_args

from .clock import Clock, SystemClock
from .context import Context, default_name
from .errors import SettingsError
from .outcome import Matcher, default_matcher
from .policy import (
    Backoff,
    ConsecutiveFailures,
    Custom,
    FailureCount,
    FailureRate,
    HalfOpenLimit,
    Overdue,
    Quorum,
    Ramp,
    SlowCallRate,
    TripFunction,
    TripRule,
    Window,
    rule_from_wit,
    rule_to_wit,
)
from .state import StateChange

StoreFailure = Literal["local", "admit", "refuse"]
"""What becomes of starts and outcomes while the store is down: go on with the same rules on a record of this process,
begun from the entry last seen; admit every start and count nothing; refuse every start."""

RETRY_AFTER_MAX_MS = 600_000
_RULE_NAME_MAX_BYTES = 64
_NODE_ID_MAX_BYTES = 48


class Options(TypedDict, total=False):
    """All settings, as keyword arguments. The README has a table of them."""

    failure_count_threshold: int
    close_threshold: int
    allow_after_ms: int
    cyclic_clear_after_ms: int | None
    probe_timeout_ms: int
    idle_retention_ms: int
    settings_revision: int
    trip_rules: Sequence[TripRule]
    trip_fn: TripFunction | None
    slow_call_after_ms: int | None
    backoff: Backoff | None
    jitter_per_mille: int
    retry_after_max_ms: int
    probes: int | None
    probes_at_once: int | None
    half_open_limit: HalfOpenLimit | None
    ramp: Ramp | None
    quorum: Quorum | None
    node_id: str | None
    store_failure: StoreFailure
    store_timeout_ms: int
    name_fn: Callable[[str, Context], str]
    fallback_error_matcher: Matcher
    circuit_specific_error_matchers: Mapping[str, Matcher]
    state_change_callback: Callable[[StateChange], None] | None
    clock: Clock
    max_circuits: int
    component_path: str | os.PathLike[str] | None
    component_cache: str | os.PathLike[str] | None


@dataclass(frozen=True)
class CircuitSettings:
    """How a circuit behaves: the part of the settings that a fleet shares."""

    failure_count_threshold: int = 5
    close_threshold: int = 1
    allow_after_ms: int = 60_000
    cyclic_clear_after_ms: int | None = None
    probe_timeout_ms: int = 30_000
    idle_retention_ms: int = 86_400_000
    settings_revision: int = 0
    trip_rules: tuple[TripRule | Custom, ...] = (ConsecutiveFailures(),)
    slow_call_after_ms: int | None = None
    backoff: Backoff | None = None
    jitter_per_mille: int = 0
    retry_after_max_ms: int = RETRY_AFTER_MAX_MS
    probes: int | None = None
    probes_at_once: int | None = None
    half_open_limit: HalfOpenLimit | None = None
    ramp: Ramp | None = None
    quorum: Quorum | None = None

    def to_wit(self) -> dict[str, Any]:
        """The record of ``wit/``."""
        return {
            "failure-count-threshold": self.failure_count_threshold,
            "close-threshold": self.close_threshold,
            "allow-after-ms": self.allow_after_ms,
            "cyclic-clear-after-ms": self.cyclic_clear_after_ms,
            "probe-timeout-ms": self.probe_timeout_ms,
            "idle-retention-ms": self.idle_retention_ms,
            "policies": self._policies(),
            "settings-revision": self.settings_revision,
        }

    def _policies(self) -> dict[str, Any] | None:
        if all(getattr(self, name) == _DEFAULTS[name] for name in _POLICIES):
            # The component need not be told of policies then.
            return None
        backoff, limit, ramp, quorum = self.backoff, self.half_open_limit, self.ramp, self.quorum
        return {
            "trip-rules": [
                ("custom", {"name": rule.name, "version": rule.version})
                if isinstance(rule, Custom)
                else rule_to_wit(rule)
                for rule in self.trip_rules
            ],
            "slow-call-after-ms": self.slow_call_after_ms,
            "backoff": backoff
            and {
                "factor-per-mille": backoff.factor_per_mille,
                "max-ms": backoff.max_ms,
                "healthy-after-ms": backoff.healthy_after_ms,
            },
            "jitter-per-mille": self.jitter_per_mille,
            "retry-after-max-ms": self.retry_after_max_ms,
            "probes": self.probes,
            "probes-at-once": self.probes_at_once,
            "half-open-limit": limit and {"after-ms": limit.after_ms, "then": limit.then.value},
            "ramp": ramp and {"steps-per-mille": list(ramp.steps_per_mille), "step-ms": ramp.step_ms},
            "quorum": quorum and {"votes": quorum.votes, "window-ms": quorum.window_ms},
        }

    @classmethod
    def from_wit(cls, given: dict[str, Any]) -> CircuitSettings:
        """The record of ``wit/``."""
        policies = given["policies"]
        more: dict[str, Any] = {}
        if policies is not None:
            backoff, limit = policies["backoff"], policies["half-open-limit"]
            ramp, quorum = policies["ramp"], policies["quorum"]
            rules = tuple(rule_from_wit(rule) for rule in policies["trip-rules"])
            more = {
                "trip_rules": rules or (ConsecutiveFailures(),),
                "slow_call_after_ms": policies["slow-call-after-ms"],
                "backoff": backoff
                and Backoff(backoff["factor-per-mille"], backoff["max-ms"], backoff["healthy-after-ms"]),
                "jitter_per_mille": policies["jitter-per-mille"],
                "retry_after_max_ms": policies["retry-after-max-ms"],
                "probes": policies["probes"],
                "probes_at_once": policies["probes-at-once"],
                "half_open_limit": limit and HalfOpenLimit(limit["after-ms"], Overdue(limit["then"])),
                "ramp": ramp and Ramp(tuple(ramp["steps-per-mille"]), ramp["step-ms"]),
                "quorum": quorum and Quorum(quorum["votes"], quorum["window-ms"]),
            }
        return cls(
            failure_count_threshold=given["failure-count-threshold"],
            close_threshold=given["close-threshold"],
            allow_after_ms=given["allow-after-ms"],
            cyclic_clear_after_ms=given["cyclic-clear-after-ms"],
            probe_timeout_ms=given["probe-timeout-ms"],
            idle_retention_ms=given["idle-retention-ms"],
            settings_revision=given["settings-revision"],
            **more,
        )

    def differing_from(self, other: CircuitSettings) -> list[str]:
        """The names of the settings that are others in ``other``; the idle retention is each process's own."""
        names = [known.name for known in fields(self) if known.name != "idle_retention_ms"]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


_DEFAULTS = {known.name: known.default for known in fields(CircuitSettings)}
_POLICIES = [
    "trip_rules",
    "slow_call_after_ms",
    "backoff",
    "jitter_per_mille",
    "retry_after_max_ms",
    "probes",
    "probes_at_once",
    "half_open_limit",
    "ramp",
    "quorum",
]
_U32 = {"close_threshold", "jitter_per_mille", "probes", "probes_at_once"}
_NUMBERS = [
    "failure_count_threshold",
    "close_threshold",
    "allow_after_ms",
    "cyclic_clear_after_ms",
    "probe_timeout_ms",
    "idle_retention_ms",
    "settings_revision",
    "slow_call_after_ms",
    "jitter_per_mille",
    "retry_after_max_ms",
    "probes",
    "probes_at_once",
]


@dataclass(frozen=True)
class Settings:
    """Everything that a factory is told, checked as far as this host can; the component checks the rest."""

    rules: CircuitSettings
    trip_fn: TripFunction | None = None
    node_id: str | None = None
    store_failure: StoreFailure = "local"
    store_timeout_ms: int = 500
    name_fn: Callable[[str, Context], str] = default_name
    fallback_error_matcher: Matcher = default_matcher
    circuit_specific_error_matchers: Mapping[str, Matcher] = field(default_factory=dict)
    state_change_callback: Callable[[StateChange], None] | None = None
    clock: Clock = field(default_factory=SystemClock)
    max_circuits: int = 100_000
    component_path: str | os.PathLike[str] | None = None
    component_cache: str | os.PathLike[str] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Checks keyword arguments. Raises :class:`SettingsError` with the name of the first that cannot be used."""
        known = get_known()
        for name in options:
            if name not in known:
                raise SettingsError(name, f"there is no such setting; there are {', '.join(known)}")
        rules = _rules_of(options)
        own = {name: value for name, value in options.items() if name in {known.name for known in fields(cls)}}
        settings = cls(rules=rules, **own)
        settings._check()
        return settings

    def _check(self) -> None:
        _number("store_timeout_ms", self.store_timeout_ms, 1, 3_600_000)
        _number("max_circuits", self.max_circuits, 1, 1 << 63)
        if self.store_failure not in get_args(StoreFailure):
            raise SettingsError("store_failure", f"{self.store_failure!r} is none of {get_args(StoreFailure)}")
        for name in ("name_fn", "fallback_error_matcher", "state_change_callback"):
            _function(name, getattr(self, name), optional=name == "state_change_callback")
        if not isinstance(self.circuit_specific_error_matchers, Mapping):
            raise SettingsError("circuit_specific_error_matchers", "give a mapping of names to matchers")
        for name, matcher in self.circuit_specific_error_matchers.items():
            _function(f"circuit_specific_error_matchers[{name!r}]", matcher)
        if not callable(getattr(self.clock, "now_ms", None)):
            raise SettingsError("clock", "it has no method now_ms")
        if self.node_id is not None:
            _text("node_id", self.node_id, _NODE_ID_MAX_BYTES)
        elif self.rules.quorum is not None:
            problem = (
                "a quorum is set, and votes are told apart by it: name this node, with a name that no other has and "
                "that a restart keeps"
            )
            raise SettingsError("node_id", problem)


def get_known() -> list[str]:
    """The names of all settings."""
    return list(Options.__annotations__)


def _rules_of(options: Mapping[str, Any]) -> CircuitSettings:
    given = {name: value for name, value in options.items() if name in _DEFAULTS}
    for name in _NUMBERS:
        value = given.get(name, _DEFAULTS[name])
        if value is None and _DEFAULTS[name] is None:
            continue
        _number(name, value, 0, (1 << 32) - 1 if name in _U32 else (1 << 64) - 1)
    _parts("backoff", given, Backoff, {"factor_per_mille": 32, "max_ms": 64, "healthy_after_ms": 64})
    _parts("half_open_limit", given, HalfOpenLimit, {"after_ms": 64})
    _parts("ramp", given, Ramp, {"step_ms": 64})
    _parts("quorum", given, Quorum, {"votes": 32, "window_ms": 64})
    limit, ramp = given.get("half_open_limit"), given.get("ramp")
    if limit is not None:
        try:
            given["half_open_limit"] = HalfOpenLimit(limit.after_ms, Overdue(limit.then))
        except ValueError:
            raise SettingsError("half_open_limit.then", f"{limit.then!r} is no Overdue") from None
    if ramp is not None:
        if isinstance(ramp.steps_per_mille, (str, bytes)) or not isinstance(ramp.steps_per_mille, Sequence):
            raise SettingsError("ramp.steps_per_mille", "give a list of numbers")
        for step in ramp.steps_per_mille:
            _number("ramp.steps_per_mille", step, 0, (1 << 32) - 1)
        given["ramp"] = Ramp(tuple(ramp.steps_per_mille), ramp.step_ms)
    given["trip_rules"] = _trip_rules(given.get("trip_rules", ()), options.get("trip_fn"))
    return CircuitSettings(**given)


def _trip_rules(given: object, function: object) -> tuple[TripRule | Custom, ...]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise SettingsError("trip_rules", "give a list of rules")
    rules: list[TripRule | Custom] = []
    for index, rule in enumerate(given):
        name = f"trip_rules[{index}]"
        if isinstance(rule, Custom):
            raise SettingsError(name, "a custom rule has code: give it with `trip_fn`")
        if not isinstance(rule, (ConsecutiveFailures, FailureCount, FailureRate, SlowCallRate)):
            raise SettingsError(name, f"{type(rule).__name__} is no trip rule")
        _number(f"{name}.minimum_calls", rule.minimum_calls, 0, (1 << 32) - 1)
        if not isinstance(rule, ConsecutiveFailures):
            threshold = "failures" if isinstance(rule, FailureCount) else "per_mille"
            _number(f"{name}.{threshold}", getattr(rule, threshold), 0, (1 << 32) - 1)
            if not isinstance(rule.window, Window) or rule.window.kind not in ("calls", "time", "decaying"):
                raise SettingsError(f"{name}.window", "give a Window")
            _number(f"{name}.window", rule.window.size, 0, (1 << (32 if rule.window.kind == "calls" else 64)) - 1)
        rules.append(rule)
    if function is not None:
        if not isinstance(function, TripFunction):
            raise SettingsError("trip_fn", "give a TripFunction: its name, its version and the function")
        _text("trip_fn.name", function.name, _RULE_NAME_MAX_BYTES)
        _number("trip_fn.version", function.version, 0, (1 << 32) - 1)
        _function("trip_fn.trips", function.trips)
        rules.append(Custom(function.name, function.version))
    return tuple(rules) or (ConsecutiveFailures(),)


def _parts(name: str, given: Mapping[str, Any], kind: type, numbers: dict[str, int]) -> None:
    value = given.get(name)
    if value is None:
        return
    if not isinstance(value, kind):
        raise SettingsError(name, f"give a {kind.__name__}, not {type(value).__name__}")
    for part, bits in numbers.items():
        _number(f"{name}.{part}", getattr(value, part), 0, (1 << bits) - 1)


def _number(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingsError(name, f"{str(value)[:60]!r} is no whole number")
    if not least <= value <= most:
        raise SettingsError(name, f"{value} is out of bounds: give it {least} to {most}")


def _text(name: str, value: object, most: int) -> None:
    if not isinstance(value, str):
        raise SettingsError(name, f"{type(value).__name__} is no str")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise SettingsError(name, "it has a lone surrogate, which UTF-8 has no bytes for") from None
    if not 1 <= size <= most:
        raise SettingsError(name, f"it has {size} bytes: give it 1 to {most}")


def _function(name: str, value: object, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not callable(value):
        raise SettingsError(name, f"{type(value).__name__} is no function")
    if inspect.iscoroutinefunction(value):
        raise SettingsError(name, "it is a coroutine function, and is not awaited: give a plain one")
