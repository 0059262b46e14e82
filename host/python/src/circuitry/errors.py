"""What can go wrong, each its own type. All of them are :class:`CircuitryError`."""

from __future__ import annotations

import random
from enum import Enum
from typing import Literal

StoreErrorKind = Literal["unavailable", "unknown", "denied", "other"]


def shortened(name: str) -> str:
    """A name for a message: whatever it is, it stays on a line."""
    shown = name[:120].encode("unicode_escape").decode("ascii")
    return shown + "…" if len(name) > 120 else shown


class RefusalReason(str, Enum):
    """Why a start was refused."""

    OPEN = "open"
    """The circuit is open."""
    TOO_MANY_REQUESTS = "too-many-requests"
    """The circuit is half-open and every probe's place is taken."""
    FORCED_OPEN = "forced-open"
    """A person forced the circuit open."""
    RAMP = "ramp"
    """The circuit has recovered and admits a share for now."""
    NODE_OPEN = "node-open"
    """This node's own circuit is open, and the fleet's is not: the node tripped alone (see the setting ``quorum``)."""
    STORE_DOWN = "store-down"
    """The store is down, and the settings say to refuse then."""

    def __str__(self) -> str:
        return self.value


_WHY = {
    RefusalReason.OPEN: "the circuit is open",
    RefusalReason.TOO_MANY_REQUESTS: "the circuit is half-open and all its probes are out",
    RefusalReason.FORCED_OPEN: "the circuit was forced open",
    RefusalReason.RAMP: "the circuit has recovered and admits a share for now",
    RefusalReason.NODE_OPEN: "the circuit is open for this node",
    RefusalReason.STORE_DOWN: "the store is down and the settings refuse then",
}


class CircuitryError(Exception):
    """Any error of this package."""


class CircuitRefused(CircuitryError):
    """A start was refused; the work has not run.

    ``retry_after_ms`` says how long to wait before asking again. A queue gives the job back with
    :meth:`spread_delay_ms`.
    """

    def __init__(self, circuit: str, reason: RefusalReason, retry_after_ms: int) -> None:
        super().__init__(circuit, reason, retry_after_ms)
        self.circuit = circuit
        self.reason = reason
        self.retry_after_ms = retry_after_ms

    def spread_delay_ms(self) -> int:
        """``retry_after_ms`` and up to a tenth of it more, at random, so that the jobs of a circuit do not all return
        at once."""
        return self.retry_after_ms + int(self.retry_after_ms * random.random() / 10)

    def __str__(self) -> str:
        return f"circuit `{shortened(self.circuit)}`: {_WHY[self.reason]}; try again in {self.retry_after_ms} ms"


class SettingsError(CircuitryError, ValueError):
    """A setting that cannot be used, found when the factory is made. ``field`` names it, ``problem`` says what would
    do."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"the setting `{self.field}` cannot be used: {self.problem}"


class ArgumentError(CircuitryError, ValueError):
    """A name or another argument is out of its bounds. ``field`` names it, ``problem`` says what would do."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"`{self.field}` cannot be used: {self.problem}"


class StoreError(CircuitryError):
    """The store failed. ``kind`` says what to do next:

    ``unavailable``
        Nothing was written; try again later.
    ``unknown``
        A write may or may not have happened.
    ``denied``
        The store refuses this client; fix its configuration. Nothing was written.
    ``other``
        Retrying does not help. Nothing was written.
    """

    def __init__(self, kind: StoreErrorKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind: StoreErrorKind = kind
        self.message = message

    def __str__(self) -> str:
        head = {
            "unavailable": "the store is unavailable",
            "unknown": "it is unknown whether the store has written",
            "denied": "the store denies access",
            "other": "the store cannot do this",
        }[self.kind]
        return f"{head}: {self.message}"


class RecordError(CircuitryError):
    """Stored bytes that cannot be used. They are left as they are.

    ``kind`` is ``malformed``, or ``newer-schema`` with the schema's number in ``schema``.
    """

    def __init__(
        self, circuit: str, kind: Literal["malformed", "newer-schema"], detail: str, schema: int | None = None
    ) -> None:
        super().__init__(circuit, kind, detail, schema)
        self.circuit = circuit
        self.kind = kind
        self.detail = detail
        self.schema = schema

    def __str__(self) -> str:
        name = shortened(self.circuit)
        if self.kind == "newer-schema":
            return (
                f"circuit `{name}`: what is stored for it has schema {self.schema}, newer than this version knows; "
                "deploy a newer circuitry here too"
            )
        return (
            f"circuit `{name}`: what is stored for it is no record of circuitry ({self.detail}); remove it, or give "
            "this factory's store a prefix of its own"
        )


class ComponentError(CircuitryError):
    """The component, or what runs it, failed. The call is lost and so is its instance; nothing else is."""


class ContentionError(CircuitryError):
    """Others kept writing and this call came to no end in its time. Nothing was written; try again."""

    def __init__(self, circuit: str) -> None:
        super().__init__(circuit)
        self.circuit = circuit

    def __str__(self) -> str:
        return f"circuit `{shortened(self.circuit)}`: too many processes write it at once; try again"


class BusyError(CircuitryError):
    """The call came to no end in its time, and the store was given too little of that to be judged."""

    def __init__(self, circuit: str) -> None:
        super().__init__(circuit)
        self.circuit = circuit

    def __str__(self) -> str:
        return (
            f"circuit `{shortened(self.circuit)}`: the call came to no end in its time; the store was given too "
            "little of it to be judged"
        )


class ForgottenError(CircuitryError):
    """An answer was lost and so many others have written since that nobody can tell whether the call was applied. It
    was not applied again."""

    def __init__(self, circuit: str) -> None:
        super().__init__(circuit)
        self.circuit = circuit

    def __str__(self) -> str:
        return (
            f"circuit `{shortened(self.circuit)}`: whether the call was applied cannot be told any more; it was not "
            "applied again"
        )
