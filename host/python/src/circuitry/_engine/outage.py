"""Whether the store is down, and the records that this process keeps meanwhile.

Entering and leaving is one event each. While the store is down no call asks it: one watch does, with growing pauses,
until it reads *and writes*. Then the local records are dropped, and nothing of them is written.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING

from ..errors import BusyError, CircuitryError, StoreError, shortened
from ..memory import Table
from ..store import Stored
from .deadline import Deadline
from .effects import Steps, Wait, Waiter
from .store_steps import Interrupted, load, swap

if TYPE_CHECKING:
    from .exchange import Exchange
    from .node import Node

# The first pause before the store is asked again, and the longest, in seconds.
_PAUSES = (0.05, 2.0)
# An outage that begins so soon after another is the same one: one shard of a cluster may work and another not.
_GOES_ON_WITHIN = 10.0
# How long the entry lives that the watch writes.
_TRIAL_TTL_MS = 60_000

_log = logging.getLogger("circuitry")


class Outage:
    """Whether the store is down, and what this process keeps meanwhile."""

    def __init__(self, node: Node) -> None:
        self._node = weakref.ref(node)
        self._clock = node.clock
        self.begin()

    def begin(self) -> None:
        """In a forked child everything begins anew: whoever watches the store is not there."""
        # A finalizer may run, and take it, in a thread that holds it.
        self._lock = threading.RLock()
        self.is_down = False
        self.records = Table(self._clock)
        self._left_at: float | None = None
        self._parked: list[Exchange] = []

    def park(self, exchange: Exchange) -> bool:
        """Keeps a call until the store answers: it may have been applied, and is applied once if it was not. Says
        whether it is kept; it is not when the store is not down (any more)."""
        with self._lock:
            if self.is_down:
                self._parked.append(exchange)
            return self.is_down

    def enter(self, circuit: str, error: StoreError) -> float | None:
        """Takes the store as down; says after which pause it is to be asked again, if it was taken as up until now."""
        with self._lock:
            if self.is_down:
                return None
            goes_on = self._left_at is not None and time.monotonic() - self._left_at < _GOES_ON_WITHIN
            if not goes_on:
                self.records = Table(self._clock)
            self.is_down = True
        _log.warning(
            "circuit `%s`: the store is down; calls take the store-failure way until it answers: %s",
            shortened(circuit),
            error,
        )
        return _PAUSES[1] if goes_on else _PAUSES[0]

    def call_off(self) -> None:
        """Takes the store as up again where nobody can watch it: the next call that fails enters anew."""
        with self._lock:
            self.is_down = False
        self.drop_parked()

    def drop_parked(self) -> bool:
        """Nobody will repeat what is parked; says whether there was anything."""
        with self._lock:
            parked, self._parked = self._parked, []
        for exchange in parked:
            _log.warning(
                "circuit `%s`: a call that may have been applied is not repeated, and %d outcomes may be lost",
                shortened(exchange.circuit.name),
                exchange.outcomes(),
            )
        return bool(parked)

    def leave(self) -> list[Exchange]:
        """Takes the store as up; gives what was parked."""
        with self._lock:
            self.is_down = False
            self._left_at = time.monotonic()
            parked, self._parked = self._parked, []
        _log.info("the store answers again; the local records are dropped, and %d calls go on", len(parked))
        return parked


def watch(node_ref: weakref.ref[Node], circuit: str, first: float) -> Steps[None]:
    """Asks the store with growing pauses until it answers, then leaves the outage."""
    node = node_ref()
    if node is None:
        return
    stop = node.driver.waiter()
    node.set_when_closed(stop)
    del node
    try:
        yield from _watch_until(node_ref, circuit, first, stop)
    finally:
        node = node_ref()
        if node is not None:
            node.forget(stop)


def _watch_until(node_ref: weakref.ref[Node], circuit: str, pause: float, stop: Waiter) -> Steps[None]:
    while True:
        # Up to a half longer, so that the processes of a fleet do not ask together.
        yield Wait(stop, pause * random.uniform(1.0, 1.5))
        pause = min(pause * 2, _PAUSES[1])
        node = node_ref()
        # A factory that is gone needs no store.
        if node is None or node.is_closed:
            return
        if (yield from _answers(node, circuit)):
            for exchange in node.outage.leave():
                yield from node.settle_parked(exchange)
            return
        del node


def _answers(node: Node, circuit: str) -> Steps[bool]:
    """Whether the store does its work: it reads the circuit that could not be read or written, and writes an entry of
    this process's own, so that the answer does not hang on others."""
    deadline = Deadline(node.store_timeout)
    try:
        try:
            yield from load(circuit, deadline)
        except StoreError as error:
            # That what it has for this circuit is not ours is an answer too.
            if error.kind != "other":
                raise
        trial = node.trial_name()
        entry = (yield from load(trial, deadline)).entry
        version = None if entry is None else entry.version
        swapped = yield from swap(trial, version, b"circuitry: the store writes", _TRIAL_TTL_MS, deadline)
    except (StoreError, BusyError, Interrupted):
        return False
    except CircuitryError:
        _log.exception("the store could not be asked whether it works")
        return False
    return isinstance(swapped, Stored)
