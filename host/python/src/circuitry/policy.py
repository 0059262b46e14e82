"""Policies: when a circuit trips, for how long it opens, and how it recovers. All lengths are in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Union

from .state import Counts


@dataclass(frozen=True)
class Window:
    """Which calls of a closed circuit a rule looks at. Make one with :meth:`calls`, :meth:`time_ms` or
    :meth:`decaying_ms`."""

    kind: Literal["calls", "time", "decaying"]
    size: int

    @classmethod
    def calls(cls, calls: int) -> Window:
        """The last so many calls: 1 to 1,024."""
        return cls("calls", calls)

    @classmethod
    def time_ms(cls, ms: int) -> Window:
        """The calls of the last so many milliseconds, kept in at most 20 buckets; a call leaves with its bucket."""
        return cls("time", ms)

    @classmethod
    def decaying_ms(cls, half_life_ms: int) -> Window:
        """All calls, each with a weight that halves with every so many milliseconds."""
        return cls("decaying", half_life_ms)


@dataclass(frozen=True)
class ConsecutiveFailures:
    """Trips when the failures in a row are *over* ``failure_count_threshold``. Sleeps until ``minimum_calls`` were
    counted in this generation; 0 never sleeps."""

    minimum_calls: int = 0


@dataclass(frozen=True)
class FailureCount:
    """Trips when the window has ``failures`` failures. Sleeps until ``minimum_calls`` calls are in the window."""

    failures: int
    window: Window
    minimum_calls: int = 1


@dataclass(frozen=True)
class FailureRate:
    """Trips when ``per_mille`` of the calls in the window are failures. Sleeps until ``minimum_calls`` are in it."""

    per_mille: int
    window: Window
    minimum_calls: int = 1


@dataclass(frozen=True)
class SlowCallRate:
    """Trips when ``per_mille`` of the calls in the window were slow, whether they failed or not. Needs the setting
    ``slow_call_after_ms``."""

    per_mille: int
    window: Window
    minimum_calls: int = 1


@dataclass(frozen=True)
class Custom:
    """A rule that is a function somewhere. It is given with the setting ``trip_fn``; here it is for who reads the rules
    of a circuit."""

    name: str
    version: int


TripRule = Union[ConsecutiveFailures, FailureCount, FailureRate, SlowCallRate]
"""When a closed circuit trips."""


@dataclass(frozen=True)
class TripInformation:
    """What a trip function is asked about: a failure that was just counted on a closed circuit."""

    circuit: str
    failure_count_threshold: int
    generation: int
    counts: Counts


@dataclass(frozen=True)
class TripFunction:
    """A trip rule of your own, asked after each failure of a closed circuit.

    It must be pure and the same in every process. ``name`` (1 to 64 bytes) and ``version`` stand for it, so raise the
    version when you change it. Where the settings in force name another, or it raises, the rule of the consecutive
    failures stands in for it.
    """

    name: str
    version: int
    trips: Callable[[TripInformation], bool]


@dataclass(frozen=True)
class Backoff:
    """Open times that grow from trip to trip: each ``factor_per_mille`` (1,000 to 100,000) of the one before, up to
    ``max_ms``. A circuit that has been closed for ``healthy_after_ms`` begins with ``allow_after_ms`` again."""

    factor_per_mille: int
    max_ms: int
    healthy_after_ms: int


class Overdue(str, Enum):
    """What becomes of a half-open phase that takes too long."""

    OPENS = "opens"
    CLOSES = "closes"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class HalfOpenLimit:
    """The end of a half-open phase that its probes do not end."""

    after_ms: int
    then: Overdue


@dataclass(frozen=True)
class Ramp:
    """How the load comes back after a recovery: ``steps_per_mille`` (1 to 8 steps of 1 to 999, each above the one
    before) for ``step_ms`` each, and then all of it. A failure puts it one step back."""

    steps_per_mille: Sequence[int]
    step_ms: int


@dataclass(frozen=True)
class Quorum:
    """Nodes decide for themselves, and ``votes`` (1 to 32) of them within ``window_ms`` for the fleet."""

    votes: int
    window_ms: int


def rule_to_wit(rule: TripRule) -> tuple[str, Any]:
    """A rule as ``wit/`` has it."""
    if isinstance(rule, ConsecutiveFailures):
        return "consecutive-failures", {"minimum-calls": rule.minimum_calls}
    name, threshold = {
        FailureCount: ("failure-count", getattr(rule, "failures", 0)),
        FailureRate: ("failure-rate", getattr(rule, "per_mille", 0)),
        SlowCallRate: ("slow-call-rate", getattr(rule, "per_mille", 0)),
    }[type(rule)]
    window = (rule.window.kind, rule.window.size)
    return name, {"threshold": threshold, "minimum-calls": rule.minimum_calls, "window": window}


def rule_from_wit(rule: tuple[str, Any]) -> TripRule | Custom:
    """A rule of ``wit/``."""
    name, given = rule
    if name == "consecutive-failures":
        return ConsecutiveFailures(given["minimum-calls"])
    if name == "custom":
        return Custom(given["name"], given["version"])
    threshold, minimum_calls, window = given["threshold"], given["minimum-calls"], Window(*given["window"])
    if name == "failure-count":
        return FailureCount(threshold, window, minimum_calls)
    if name == "failure-rate":
        return FailureRate(threshold, window, minimum_calls)
    return SlowCallRate(threshold, window, minimum_calls)
