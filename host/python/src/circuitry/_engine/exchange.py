"""One call on the shared record, from its load to its last try, under one token.

This is the loop that ``wit/exchange.wit`` describes: the component decides, the host asks the store.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from ..errors import (
    ArgumentError,
    BusyError,
    CircuitryError,
    ComponentError,
    ContentionError,
    ForgottenError,
    RecordError,
    SettingsError,
    StoreError,
    StoreErrorKind,
)
from ..outcome import Outcome
from ..store import Conflict, Loaded
from .call import End, Operation, Start, denies, transitions_of
from .circuit import Circuit
from .deadline import Deadline
from .effects import Sleep, Steps
from .store_steps import Interrupted, load, seen_in, swap

if TYPE_CHECKING:
    from .node import Node

# How many swaps a call tries before it gives the race up; the same number as in the component.
_SWAPS_MAX = 8
# How often a call asks a store that fails, within its timeout.
_TRIES_MAX = 3

Answer = tuple[str, Any]


def failure(circuit: str, error: tuple[str, Any]) -> CircuitryError:
    """An ``error`` of ``wit/`` as an exception."""
    kind, value = error
    if kind == "circuit-name":
        return ArgumentError("circuit", value)
    if kind == "settings":
        return SettingsError(value["field"], value["problem"])
    if kind == "request":
        return ArgumentError("request", value)
    if kind == "stored-record":
        what, detail = value
        if what == "newer-schema":
            return RecordError(circuit, "newer-schema", "", detail)
        return RecordError(circuit, "malformed", detail)
    if kind == "store":
        store_kind: StoreErrorKind = value[0]
        return StoreError(store_kind, value[1])
    if kind == "contention":
        return ContentionError(circuit)
    if kind == "forgotten":
        return ForgottenError(circuit)
    return ComponentError(f"the component failed with an unknown error: {kind}")


class Exchange:
    """A call, which may be tried several times and is applied once."""

    def __init__(self, node: Node, circuit: Circuit, operation: Operation, known: Loaded | None) -> None:
        self.circuit = circuit
        self.operation = operation
        self._node = node
        self._token = node.token(operation)
        self._known = known
        # The lowest revision that a swap was based on whose fate is unknown: until its answer is taken.
        self._retry_of: int | None = None
        self._answer: Answer | None = None

    @property
    def is_answered(self) -> bool:
        """Whether its answer is known."""
        return self._answer is not None

    def outcomes(self) -> int:
        """How many outcomes it carries."""
        if isinstance(self.operation, End):
            return sum(completion.count for completion in self.operation.completions)
        return 0

    def may_have_written(self) -> bool:
        """Whether it may have written although no answer said so."""
        return self._retry_of is not None

    def run(self, deadline: Deadline) -> Steps[Answer]:
        """Runs the call; tries again within its time after lost races and failures that may pass.

        May be run again after an error: it is the same call, and is applied once.
        """
        if self._answer is not None:
            return self._answer
        tries = 0
        while True:
            try:
                answer = yield from self._attempt(deadline)
                self._answer = answer
                if answer[0] in ("overridden", "cleared") or transitions_of(answer):
                    self._node.tell_watchers(self.circuit)
                return answer
            except Interrupted as interrupted:
                error: CircuitryError = interrupted.cause
                # The token is remembered for 32 writes of others only, so a lost answer is asked for at once.
                at_once = tries == 0
            except (ContentionError, StoreError) as other:
                error, at_once = other, False
            tries += 1
            if isinstance(error, ContentionError):
                pause = random.uniform(0.000_5, 0.008)
            elif isinstance(error, StoreError) and error.kind in ("unavailable", "unknown") and tries < _TRIES_MAX:
                # What was seen before the failure may be old: begin with a load.
                self._known = None
                pause = 0.0 if at_once else random.uniform(0.002, 0.010) * (1 << tries)
            else:
                raise error
            if pause >= deadline.left():
                raise error
            if pause > 0:
                yield Sleep(pause)

    def _attempt(self, deadline: Deadline) -> Steps[Answer]:
        node, circuit, known = self._node, self.circuit, self._known
        self._known = None
        unverified = known is not None
        seen = known if known is not None else (yield from self._load(deadline))
        try:
            now_ms = node.clock.now_ms()
            if isinstance(self.operation, Start) and not self.may_have_written():
                granted = circuit.granted_start(seen, now_ms)
                if granted is not None:
                    return "started", granted
            for _ in range(_SWAPS_MAX):
                now_ms = max(now_ms, seen.now_ms or 0)
                what, decided = node.decide(circuit, self.operation, self._token, self._retry_of, seen, now_ms)
                if what == "done":
                    if decided[0] == "failed":
                        raise failure(circuit.name, decided[1])
                    if unverified and denies(decided):
                        # No swap has shown that the entry is still the one in the store.
                        unverified = False
                        seen = yield from self._load(deadline)
                        continue
                    self._learn_grant(decided, seen, None)
                    done: Answer = decided
                    return done
                before = None if seen.entry is None else seen.entry.version
                swapped = yield from self._swap(before, decided, deadline)
                seen = seen_in(swapped, decided["value"])
                self._learn_time(seen)
                if isinstance(swapped, Conflict):
                    unverified = False
                    continue
                answer: Answer = decided["answer-if-stored"]
                if answer[0] == "failed":
                    # So it was answered.
                    self._retry_of = None
                    raise failure(circuit.name, answer[1])
                self._learn_grant(answer, seen, before)
                return answer
            self._known = seen
            raise ContentionError(circuit.name)
        finally:
            circuit.saw(seen)

    def _load(self, deadline: Deadline) -> Steps[Loaded]:
        """A start loads together with those that come at the same time."""
        if isinstance(self.operation, Start):
            loaded = yield from self.circuit.loads.load(self._node.driver, self.circuit.name, deadline)
        else:
            loaded = yield from load(self.circuit.name, deadline)
        self._learn_time(loaded)
        return loaded

    def _swap(self, expected: bytes | None, write: Any, deadline: Deadline) -> Steps[Any]:
        unsure = self._retry_of
        based_on: int = write["based-on"]
        # From now on, and after it is stored until the answer is taken: an interrupt may come at any moment.
        self._retry_of = based_on if unsure is None else min(unsure, based_on)
        try:
            swapped = yield from swap(self.circuit.name, expected, write["value"], write["ttl-ms"], deadline)
        except (StoreError, BusyError):
            # Nothing was written.
            self._retry_of = unsure
            raise
        if isinstance(swapped, Conflict):
            self._retry_of = unsure
        return swapped

    def _learn_time(self, seen: Loaded) -> None:
        if seen.now_ms is not None:
            self._node.clock.learn(seen.now_ms)

    def _learn_grant(self, answer: Answer, seen: Loaded, before: bytes | None) -> None:
        kind, value = answer
        if kind == "started":
            self.circuit.learn_grant(value, seen)
        elif (
            kind == "settled"
            and before is not None
            and isinstance(self.operation, End)
            and all(
                completion.outcome is Outcome.SUCCESS and not completion.slow and completion.grant.probe is None
                for completion in self.operation.completions
            )
        ):
            self.circuit.keep_grant(before, seen)


def decide_here(node: Node, circuit: Circuit, operation: Operation, seen: Loaded) -> Answer:
    """An answer on an entry in hand, without asking any store; one that would have to write is an error."""
    what, decided = node.decide(circuit, operation, node.token(operation), None, seen, node.clock.now_ms())
    if what != "done":
        raise ComponentError("the component wants to write where nothing is written")
    if decided[0] == "failed":
        raise failure(circuit.name, decided[1])
    answer: Answer = decided
    return answer


def wrong_answer() -> ComponentError:
    """An answer of another kind than the question."""
    return ComponentError("the component answered another question")
