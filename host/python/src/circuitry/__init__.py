"""A distributed circuit breaker: many processes on many machines share one circuit for each dependency, tenant or kind
of job. Every decision is taken by one WebAssembly component, the same bytes in every language.

>>> from circuitry import CircuitRefused, Factory
>>> factory = Factory()  # without a store it keeps circuits in memory
>>> breaker = factory.breaker_for("emails", tenant="acme")
>>> try:
...     breaker.execute(print, "sent")
... except CircuitRefused as refused:
...     print("put the job back, to come again in", refused.spread_delay_ms(), "ms")
sent

This module is for threads; :mod:`circuitry.aio` is the same for asyncio, :mod:`circuitry.redis` has the stores on
Redis.
"""

from ._threads import Breaker, Factory, Permit, Scope
from .aio import AsyncBreaker, AsyncFactory, AsyncPermit, AsyncScope
from .clock import Clock, ManualClock, SystemClock
from .context import Context, default_name
from .errors import (
    ArgumentError,
    BusyError,
    CircuitRefused,
    CircuitryError,
    ComponentError,
    ContentionError,
    ForgottenError,
    RecordError,
    RefusalReason,
    SettingsError,
    StoreError,
)
from .memory import AsyncMemoryStore, MemoryStore
from .outcome import (
    Disposition,
    Expected,
    FailureRetryAfter,
    Outcome,
    Settlement,
    default_matcher,
)
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
    TripInformation,
    Window,
)
from .presets import like_gobreaker, like_polly, like_resilience4j
from .settings import CircuitSettings, Options, StoreFailure
from .state import (
    ChangeKind,
    Counts,
    Information,
    NextChange,
    Override,
    OverrideKind,
    Probe,
    RampPosition,
    RuleState,
    State,
    StateChange,
    Transition,
    TransitionReason,
    Trip,
    TripKind,
    Vote,
)
from .store import (
    AsyncStore,
    Conflict,
    Entry,
    Loaded,
    Store,
    Stored,
    Swapped,
    check_name,
    mint_version,
)

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "AsyncBreaker",
    "AsyncFactory",
    "AsyncMemoryStore",
    "AsyncPermit",
    "AsyncScope",
    "AsyncStore",
    "Backoff",
    "Breaker",
    "BusyError",
    "ChangeKind",
    "CircuitRefused",
    "CircuitSettings",
    "CircuitryError",
    "Clock",
    "ComponentError",
    "Conflict",
    "ConsecutiveFailures",
    "ContentionError",
    "Context",
    "Counts",
    "Custom",
    "Disposition",
    "Entry",
    "Expected",
    "Factory",
    "FailureCount",
    "FailureRate",
    "FailureRetryAfter",
    "ForgottenError",
    "HalfOpenLimit",
    "Information",
    "Loaded",
    "ManualClock",
    "MemoryStore",
    "NextChange",
    "Options",
    "Outcome",
    "Overdue",
    "Override",
    "OverrideKind",
    "Permit",
    "Probe",
    "Quorum",
    "Ramp",
    "RampPosition",
    "RecordError",
    "RefusalReason",
    "RuleState",
    "Scope",
    "SettingsError",
    "Settlement",
    "SlowCallRate",
    "State",
    "StateChange",
    "Store",
    "StoreError",
    "StoreFailure",
    "Stored",
    "Swapped",
    "SystemClock",
    "Transition",
    "TransitionReason",
    "Trip",
    "TripFunction",
    "TripInformation",
    "TripKind",
    "Vote",
    "Window",
    "check_name",
    "default_matcher",
    "default_name",
    "like_gobreaker",
    "like_polly",
    "like_resilience4j",
    "mint_version",
]
