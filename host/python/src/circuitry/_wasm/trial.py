"""A decision by which two ways to call the component are compared.

It is to override a circuit whose settings name every policy, so most of the types of ``wit/`` are handed over.
"""

from __future__ import annotations

from typing import Any

_NOW_MS = 1_800_000_000_000

_WINDOW = {"window": ("calls", 20), "minimum-calls": 5}

_SETTINGS: dict[str, Any] = {
    "failure-count-threshold": 5,
    "close-threshold": 2,
    "allow-after-ms": 60_000,
    "cyclic-clear-after-ms": 1_000_000,
    "probe-timeout-ms": 30_000,
    "idle-retention-ms": 86_400_000,
    "policies": {
        "trip-rules": [
            ("consecutive-failures", {"minimum-calls": 3}),
            ("failure-rate", {"threshold": 500, **_WINDOW}),
            ("custom", {"name": "trial", "version": 7}),
        ],
        "slow-call-after-ms": 2_000,
        "backoff": {"factor-per-mille": 2_000, "max-ms": 600_000, "healthy-after-ms": 300_000},
        "jitter-per-mille": 100,
        "retry-after-max-ms": 600_000,
        "probes": 4,
        "probes-at-once": 2,
        "half-open-limit": {"after-ms": 100_000, "then": "closes"},
        "ramp": {"steps-per-mille": [100, 500], "step-ms": 10_000},
        "quorum": None,
    },
    "settings-revision": 1 << 40,
}

ARGUMENTS: tuple[Any, ...] = (
    (
        "set-override",
        {
            "circuit": "ein Versuch – 試す",
            "settings": _SETTINGS,
            "caller": {"node": (1 << 64) - 1, "sequence": 3, "retry-of": None},
            "override": {
                "kind": "forced-open",
                "author": "circuitry",
                "reason": "",
                "until-ms": _NOW_MS + 1,
            },
        },
    ),
    {"entry": None, "now-ms": _NOW_MS},
    _NOW_MS,
)
