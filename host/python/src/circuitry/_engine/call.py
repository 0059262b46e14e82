"""One call of the component, as values: what is asked and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

from ..outcome import AnyOutcome, FailureRetryAfter
from ..state import Override

# The most completions of one call, and the most permits in one completion, as `wit/` says.
COMPLETIONS_MAX = 256
RUN_MAX = 65_536

Values = dict[str, Any]


@dataclass(frozen=True)
class Token:
    """Names one call of one process, and the probe that the call was given."""

    node: int
    sequence: int

    def to_wit(self) -> Values:
        """The record of ``wit/``."""
        return {"node": self.node, "sequence": self.sequence}


@dataclass(frozen=True)
class Grant:
    """To what an outcome belongs."""

    era: int
    probe: Token | None


@dataclass
class Completion:
    """One permit's outcome, or a run of equal ones."""

    grant: Grant
    outcome: AnyOutcome
    slow: bool
    count: int = 1

    def to_wit(self) -> Values:
        """The record of ``wit/``."""
        retry_after_ms, outcome = None, self.outcome
        if isinstance(outcome, FailureRetryAfter):
            retry_after_ms, name = outcome.retry_after_ms, "failure"
        else:
            name = outcome.value
        probe = self.grant.probe
        return {
            "era": self.grant.era,
            "probe": None if probe is None else probe.to_wit(),
            "outcome": name,
            "slow": self.slow,
            "count": self.count,
            "retry-after-ms": retry_after_ms,
        }


@dataclass(frozen=True)
class Start:
    """A start, with its number: those of a process on a circuit are consecutive."""

    number: int


@dataclass(frozen=True)
class End:
    """Settles permits."""

    completions: Sequence[Completion]


@dataclass(frozen=True)
class Renew:
    """Prolongs the lease of a probe."""

    era: int
    probe: Token


@dataclass(frozen=True)
class Inspect:
    """Looks."""


@dataclass(frozen=True)
class SetOverride:
    """Forces the circuit, or takes the force away."""

    override: Override | None


@dataclass(frozen=True)
class CastVote:
    """Votes for a trip of an era."""

    era: int
    node_id: str


@dataclass(frozen=True)
class Reset:
    """Closes the circuit as if it were new."""


Operation = Union[Start, End, Renew, Inspect, SetOverride, CastVote, Reset]


def request(
    operation: Operation, circuit: str, settings: Any, token: Token, retry_of: int | None
) -> tuple[str, Values]:
    """The request of ``exchange.decide``."""
    asked: Values = {"circuit": circuit, "settings": settings}
    if isinstance(operation, Inspect):
        return "inspect", asked
    asked["caller"] = {"node": token.node, "sequence": token.sequence, "retry-of": retry_of}
    if isinstance(operation, Start):
        return "start", asked
    if isinstance(operation, End):
        asked["completions"] = [completion.to_wit() for completion in operation.completions]
        return "end", asked
    if isinstance(operation, Renew):
        return "renew", {**asked, "era": operation.era, "probes": [operation.probe.to_wit()]}
    if isinstance(operation, SetOverride):
        given = operation.override
        asked["override"] = given and {
            "kind": given.kind.value,
            "author": given.author,
            "reason": given.reason,
            "until-ms": given.until_ms,
        }
        return "set-override", asked
    if isinstance(operation, CastVote):
        return "vote", {**asked, "era": operation.era, "node-id": operation.node_id}
    return "reset", asked


def denies(answer: tuple[str, Any]) -> bool:
    """Whether the answer denies something that a newer entry may grant."""
    kind, value = answer
    if kind == "settled":
        return any(disposition["stale"] > 0 for disposition in value["dispositions"])
    if kind == "renewed":
        return any(deadline is None for deadline in value["deadlines"])
    return kind == "voted" and not value["accepted"]


def transitions_of(answer: tuple[str, Any]) -> list[Values]:
    """What a call changed."""
    made: list[Values] = answer[1].get("transitions", [])
    return made
