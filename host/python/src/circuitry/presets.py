"""Settings for who comes from another circuit breaker: ``Factory(**like_polly(), allow_after_ms=30_000)``.

What differs in meaning is told in the presets of the Rust host.
"""

from __future__ import annotations

from .policy import FailureRate, SlowCallRate, Window
from .settings import Options


def like_resilience4j() -> Options:
    """The defaults of resilience4j 2 (``CircuitBreakerConfig.ofDefaults()``)."""
    window = Window.calls(100)
    return {
        "trip_rules": [FailureRate(500, window, 100), SlowCallRate(1_000, window, 100)],
        "slow_call_after_ms": 60_000,
        "allow_after_ms": 60_000,
        "probes": 10,
        "close_threshold": 6,
    }


def like_polly() -> Options:
    """The defaults of Polly 8 (``CircuitBreakerStrategyOptions``)."""
    return {
        "trip_rules": [FailureRate(100, Window.time_ms(30_000), 100)],
        "allow_after_ms": 5_000,
        "probe_timeout_ms": 5_000,
        "close_threshold": 1,
    }


def like_gobreaker() -> Options:
    """The defaults of sony/gobreaker 2 (``Settings{}``), which are the reference's rule."""
    return {"failure_count_threshold": 5, "close_threshold": 1, "allow_after_ms": 60_000}
