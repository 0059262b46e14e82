"""What a circuit is, as people and events see it: the words of ``wit/types.wit``. Times are milliseconds since the Unix
epoch in store time (``…_at_ms``, ``since_ms``), lengths are milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import Context
    from .policy import Custom, TripRule
    from .settings import CircuitSettings


class _Word(str, Enum):
    def __str__(self) -> str:
        return str(self.value)


class State(_Word):
    """What a circuit does with a start."""

    CLOSED = "closed"
    """It admits."""
    OPEN = "open"
    """It refuses."""
    HALF_OPEN = "half-open"
    """It admits a few probes."""


class TransitionReason(_Word):
    """Why a circuit changed its state."""

    TRIPPED = "tripped"
    """closed → open: a trip rule said so."""
    OPEN_TIME_OVER = "open-time-over"
    """open → half-open: the open time is over and somebody asked to start."""
    PROBES_SUCCEEDED = "probes-succeeded"
    """half-open → closed: enough probes succeeded."""
    PROBE_FAILED = "probe-failed"
    """half-open → open: too many probes failed."""
    VOTES_REACHED = "votes-reached"
    """closed → open: enough nodes voted."""
    HALF_OPEN_OVERDUE_OPENED = "half-open-overdue-opened"
    """half-open → open: the phase took too long."""
    HALF_OPEN_OVERDUE_CLOSED = "half-open-overdue-closed"
    """half-open → closed: the phase took too long."""
    RESET = "reset"
    """any state → closed: a person said so."""


class OverrideKind(_Word):
    """What a person can force."""

    FORCED_OPEN = "forced-open"
    """Every start is refused."""
    FORCED_CLOSED = "forced-closed"
    """Every start is admitted; outcomes of a closed circuit are counted, but nothing trips."""
    DISABLED = "disabled"
    """Every start is admitted with a permit that counts nothing, and no outcome counts anything."""
    METRICS_ONLY = "metrics-only"
    """Everything goes on as ever, but a start that would be refused is admitted with a permit that counts nothing and
    says so: ``permit.would_have_refused``."""


class TripKind(_Word):
    """What made a circuit open."""

    CONSECUTIVE_FAILURES = "consecutive-failures"
    FAILURE_COUNT = "failure-count"
    FAILURE_RATE = "failure-rate"
    SLOW_CALL_RATE = "slow-call-rate"
    CUSTOM = "custom"
    PROBE = "probe"
    OVERDUE = "overdue"
    VOTES = "votes"


class ChangeKind(_Word):
    """What may change next without an outcome or a person."""

    HALF_OPEN = "half-open"
    LEASE_END = "lease-end"
    HALF_OPEN_OVERDUE = "half-open-overdue"
    RAMP_STEP = "ramp-step"
    OVERRIDE_END = "override-end"
    COUNTS_CLEAR = "counts-clear"
    VOTE_END = "vote-end"


@dataclass(frozen=True)
class Counts:
    """What has been counted since the generation began; each count stops at its largest value."""

    total: int = 0
    total_successes: int = 0
    total_failures: int = 0
    consecutive_successes: int = 0
    consecutive_failures: int = 0

    @classmethod
    def from_wit(cls, counts: dict[str, int]) -> Counts:
        """The record of ``wit/``."""
        return cls(**{name.replace("-", "_"): count for name, count in counts.items()})


@dataclass(frozen=True)
class Transition:
    """A change of state."""

    previous: State
    next: State
    reason: TransitionReason
    at_ms: int
    era: int
    generation: int

    @classmethod
    def from_wit(cls, made: dict[str, Any]) -> Transition:
        """The record of ``wit/``."""
        return cls(
            State(made["previous"]),
            State(made["next"]),
            TransitionReason(made["reason"]),
            made["at-ms"],
            made["era"],
            made["generation"],
        )


@dataclass(frozen=True)
class StateChange:
    """A change of state, as the callback is told."""

    name: str
    """The name given to ``breaker_for``."""
    circuit: str
    """The circuit's name, as it is shared."""
    context: Context
    """The context of the breaker that first named the circuit in this process."""
    previous: State
    next: State
    transition: Transition
    """All of it: reason, time, era, generation."""
    local: bool
    """Whether it is a record of this process's own that changed: because the store was down, or because a quorum is in
    force."""


@dataclass(frozen=True)
class Override:
    """A state set by a person, for the whole fleet. The state underneath goes on as it is when the override ends."""

    kind: OverrideKind
    author: str
    """Who set it; at most 128 bytes."""
    reason: str
    """Why; at most 256 bytes."""
    until_ms: int | None = None
    """When it ends, in store time; ``None``: when somebody takes it away."""

    @classmethod
    def from_wit(cls, given: dict[str, Any] | None) -> Override | None:
        """The option of ``wit/``."""
        if given is None:
            return None
        return cls(OverrideKind(given["kind"]), given["author"], given["reason"], given["until-ms"])


@dataclass(frozen=True)
class Probe:
    """A probe that holds a place in half-open: the process that has it, the start that was given it, and when its lease
    ends."""

    node: int
    sequence: int
    deadline_ms: int


@dataclass(frozen=True)
class Vote:
    """A node that tripped for itself, and when."""

    node_id: str
    at_ms: int


@dataclass(frozen=True)
class Trip:
    """Why a circuit opened last: what was found, with what it opens, the calls that the rule looked at, when, and for
    how long."""

    kind: TripKind
    observed: int
    threshold: int
    calls: int
    at_ms: int
    open_for_ms: int


@dataclass(frozen=True)
class RuleState:
    """What a rule sees now."""

    rule: TripRule | Custom
    observed: int
    calls: int


@dataclass(frozen=True)
class RampPosition:
    """Where a ramp is."""

    share_per_mille: int
    next_step_at_ms: int


@dataclass(frozen=True)
class NextChange:
    """The next change that time brings."""

    kind: ChangeKind
    at_ms: int


@dataclass(frozen=True)
class Information:
    """What a person asks of a circuit."""

    state: State
    """The effective state, before any override: an open circuit whose time is over reads as half-open."""
    era: int
    """The era, 0 where nothing is stored yet."""
    generation: int
    counts: Counts
    since_ms: int
    expires_at_ms: int | None
    """Open: when the open time ends. Closed: when the counts are cleared. Half-open: when the phase is overdue."""
    probes: Sequence[Probe]
    probe_successes: int
    probe_failures: int
    override: Override | None
    transitions: Sequence[Transition]
    """The last 8, oldest first."""
    revision: int
    """How often the record was written."""
    last_trip: Trip | None
    trips_in_a_row: int
    rules: Sequence[RuleState]
    ramp: RampPosition | None
    votes: Sequence[Vote]
    next_change: NextChange | None
    settings_in_force: CircuitSettings
    settings_differ: bool
    """Whether this process has others."""
    explanation: str
    """All this in a short paragraph, in English."""
    local: bool = False
    """Whether this is the process's own record, because the store is down or the process too busy to ask it."""
    own: Information | None = None
    """With a quorum: the record by which this node decides for itself, once it has asked it."""

    @classmethod
    def from_wit(cls, given: dict[str, Any]) -> Information:
        """The record of ``wit/``."""
        from .policy import rule_from_wit
        from .settings import CircuitSettings

        trip, ramp, change = given["last-trip"], given["ramp"], given["next-change"]
        return cls(
            state=State(given["state"]),
            era=given["era"],
            generation=given["generation"],
            counts=Counts.from_wit(given["counts"]),
            since_ms=given["since-ms"],
            expires_at_ms=given["expires-at-ms"],
            probes=tuple(
                Probe(probe["id"]["node"], probe["id"]["sequence"], probe["deadline-ms"]) for probe in given["probes"]
            ),
            probe_successes=given["probe-successes"],
            probe_failures=given["probe-failures"],
            override=Override.from_wit(given["override"]),
            transitions=tuple(map(Transition.from_wit, given["transitions"])),
            revision=given["revision"],
            last_trip=trip
            and Trip(
                TripKind(trip["kind"]),
                trip["observed"],
                trip["threshold"],
                trip["calls"],
                trip["at-ms"],
                trip["open-for-ms"],
            ),
            trips_in_a_row=given["trips-in-a-row"],
            rules=tuple(
                RuleState(rule_from_wit(rule["rule"]), rule["observed"], rule["calls"]) for rule in given["rules"]
            ),
            ramp=ramp and RampPosition(ramp["share-per-mille"], ramp["next-step-at-ms"]),
            votes=tuple(Vote(vote["node-id"], vote["at-ms"]) for vote in given["votes"]),
            next_change=change and NextChange(ChangeKind(change["kind"]), change["at-ms"]),
            settings_in_force=CircuitSettings.from_wit(given["settings-in-force"]),
            settings_differ=given["settings-differ"],
            explanation=given["explanation"],
        )
