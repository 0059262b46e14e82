"""This process among the fleet's: its numbers, its settings, and whom it asks."""

from __future__ import annotations

import itertools
import logging
import os
import random
import secrets
import sys
import threading
import weakref
from collections import OrderedDict
from typing import Any, Literal

from .._interrupts import interrupt_in
from .._wasm.component import Component, will_trip_by
from ..clock import StoreClock
from ..context import Context
from ..errors import (
    ArgumentError,
    BusyError,
    CircuitryError,
    ContentionError,
    RefusalReason,
    SettingsError,
    StoreError,
    shortened,
)
from ..memory import Table
from ..outcome import Outcome
from ..settings import Settings
from ..state import StateChange, Transition
from ..store import Conflict, Loaded, name_problem
from .call import CastVote, Completion, End, Grant, Operation, Renew, Start, Token, request, transitions_of
from .circuit import Circuit
from .deadline import Deadline
from .effects import Announce, Driver, Sleep, Steps, Waiter
from .exchange import Answer, Exchange, failure
from .outage import Outage, watch
from .store_steps import seen_in, to_wit

_log = logging.getLogger("circuitry")

# Set in the numbers of all calls but starts, which have consecutive numbers of their own.
_NO_START = 1 << 63

Asked = tuple[Literal["shared", "local", "nobody"], Answer]
"""Who answered: the shared record; this process's own, because the store is down; or nobody, because the store is down
and the settings keep no local record."""

_NOBODY: Asked = ("nobody", ("", None))
_nodes: weakref.WeakSet[Node] = weakref.WeakSet()


def _forgotten(answer: Answer, wait_ms: int) -> Answer:
    """The answer of a copy that is thrown away: what changed on it is told to nobody, and it gives no probe's place,
    since each call would have places of its own."""
    kind, value = answer
    if kind != "started":
        return answer
    verdict, leave = value["verdict"]
    if verdict == "permit" and leave["probe"] is not None:
        refusal = {"reason": RefusalReason.TOO_MANY_REQUESTS.value, "retry-after-ms": wait_ms}
        return kind, {**value, "transitions": [], "verdict": ("refusal", refusal)}
    return kind, {**value, "transitions": []}


class Node:
    """This process among the fleet's."""

    def __init__(self, settings: Settings, driver: Driver) -> None:
        self.settings = settings
        self.driver = driver
        self.component = Component.load(settings.component_path, settings.component_cache)
        rules = settings.rules.to_wit()
        try:
            self.fingerprint = self.component.check(rules)
        except SettingsError as error:
            raise SettingsError(settings_name(error.field), error.problem) from None
        self._laid = self.component.settings(rules)
        self._will_trip = will_trip_by(settings.trip_fn)
        self.store_timeout = settings.store_timeout_ms / 1000
        # How long one try at the store may take, so that the fallback still answers within the store's timeout.
        self.patience = self.store_timeout - min(self.store_timeout / 5, 0.05)
        self.clock = StoreClock(settings.clock)
        self.is_closed = False
        self._circuits: weakref.WeakValueDictionary[str, Circuit] = weakref.WeakValueDictionary()
        self._lately: OrderedDict[str, Circuit] = OrderedDict()
        # Goes on in a forked child, which has its parent's circuits.
        self._circuits_made = itertools.count()
        self.outage = Outage(self)
        self._begin()
        _nodes.add(self)

    def _begin(self) -> None:
        """What no two processes may share: a forked child begins it anew."""
        # A finalizer may run, and take it, in a thread that holds it.
        self._lock = threading.RLock()
        self._closing: set[Waiter] = set()
        self._id = secrets.randbits(64)
        # Names this process on records of its own, so that no place there is taken for one on the shared record.
        self._local_id = secrets.randbits(64)
        self._sequence = itertools.count(1)
        self.pid = os.getpid()
        # Without a name of the user's, a vote is told apart for as long as this process lives.
        self.vote_as = self.settings.node_id or f"unnamed-{self._id:016x}"

    def after_fork(self) -> None:
        """In a child: another process, with nothing under way."""
        self._begin()
        self.clock.after_fork()
        self.driver.after_fork()
        self.restart()

    def restart(self) -> None:
        """Nothing is under way any more."""
        self.outage.begin()
        for circuit in [*self._circuits.values(), *self._lately.values()]:
            circuit.begin()

    # ---- circuits ----

    def circuit(self, base: str, context: Context) -> Circuit:
        """The circuit of a name and a context. Raises :class:`ArgumentError` where its name is none."""
        if not isinstance(base, str):
            raise ArgumentError("name", f"{type(base).__name__} is no str")
        name = self.settings.name_fn(base, context)
        problem = name_problem(name)
        if problem is not None:
            raise ArgumentError("name", f"the circuit's name {problem}")
        with self._lock:
            circuit = self._lately.get(name)
            if circuit is not None:
                self._lately.move_to_end(name)
                return circuit
            # One that somebody holds is there although it was not asked for lately; so there are never two.
            circuit = self._circuits.get(name)
            if circuit is None:
                circuit = self._circuits[name] = Circuit(name, base, context, self._first_start())
            self._lately[name] = circuit
            if len(self._lately) > self.settings.max_circuits:
                self._lately.popitem(last=False)
            return circuit

    def _first_start(self) -> int:
        """The number of the first start of a circuit that is made now. They are consecutive from there on.

        A circuit that was forgotten and is made again repeats none. Processes begin somewhere else each, so that a
        ramp does not admit the same starts of all.
        """
        made = next(self._circuits_made) & ((1 << 31) - 1)
        return (made << 32) + random.Random(self._id ^ made).randrange(1_000)

    def trial_name(self) -> str:
        """The name of the entry that this process writes to see whether the store writes. No circuit is called so."""
        return f"\x01trial of node {self._id:016x}"

    # ---- calls ----

    def token(self, operation: Operation) -> Token:
        """Names a call; no two of this process on a circuit have the same name."""
        if isinstance(operation, Start):
            return Token(self._id, operation.number)
        return Token(self._id, next(self._sequence) | _NO_START)

    def local_token(self, operation: Operation) -> Token:
        """Names a call on a record of this process's own."""
        return Token(self._local_id, self.token(operation).sequence)

    def decide(
        self,
        circuit: Circuit,
        operation: Operation,
        token: Token,
        retry_of: int | None,
        seen: Loaded,
        now_ms: int,
        settings: Any = None,
    ) -> tuple[str, Any]:
        """``exchange.decide`` on the entry ``seen``."""
        asked = request(operation, circuit.name, self._laid if settings is None else settings, token, retry_of)
        return self.component.decide(asked, to_wit(circuit.name, seen), now_ms, self._will_trip)

    def ask(self, circuit: Circuit, operation: Operation) -> Steps[Asked]:
        """Asks the shared record, and the fallback that the settings name when the store is down."""
        if not self.outage.is_down:
            try:
                return "shared", (yield from self.ask_shared(circuit, operation))
            except StoreError as error:
                if not is_outage(error):
                    raise
                self.enter_outage(circuit, error)
            except BusyError:
                # The store may be well, and this call alone is not: it goes by a copy of the entry last seen. Where the
                # store has turned out to be down meanwhile, the record that all calls share is asked.
                return self.ask_fallback(circuit, operation, self.outage.records if self.outage.is_down else None)
        return self.ask_fallback(circuit, operation, self.outage.records)

    def ask_shared(self, circuit: Circuit, operation: Operation) -> Steps[Answer]:
        """Asks the shared record and nothing else."""
        # Strict: a start sees what the store has now, and so does who looks.
        known = circuit.known if isinstance(operation, (Renew, CastVote)) else None
        exchange = Exchange(self, circuit, operation, known)
        try:
            return (yield from exchange.run(Deadline(self.patience)))
        except StoreError as error:
            if isinstance(operation, Start) and is_outage(error):
                # Before what may have been written is parked.
                self.enter_outage(circuit, error)
            raise
        finally:
            if isinstance(operation, Start) and exchange.may_have_written() and not exchange.is_answered:
                # Perhaps it made a transition, which is to be told, and took a place, which is to be given back.
                self.finish_later(exchange)

    def finish_later(self, exchange: Exchange) -> None:
        """Sees to it that a call whose write may have happened is applied once and told."""
        if not self._park(exchange):
            self.driver.spawn(self.settle_parked(exchange))

    def _park(self, exchange: Exchange) -> bool:
        is_parked = self.outage.park(exchange)
        if is_parked and self.is_closed:
            # Nobody watches for the store's return any more, so it is told as lost.
            self.outage.drop_parked()
        return is_parked

    def ask_fallback(self, circuit: Circuit, operation: Operation, records: Table | None) -> Asked:
        """Asks as the settings say for when the store is down."""
        if self.settings.store_failure == "local":
            return "local", self.ask_locally(circuit, operation, records)
        return _NOBODY

    def ask_locally(self, circuit: Circuit, operation: Operation, records: Table | None) -> Answer:
        """Asks a record of this process's own, which begins as a copy of the entry last seen. It is kept in
        ``records``, or thrown away where there are none, or as many as circuits are remembered: names may come from
        requests."""
        entry = None if records is None else records.load(circuit.name).entry
        is_kept = records is not None and (entry is not None or records.size() < self.settings.max_circuits)
        asked = records if records is not None and is_kept else Table(self.clock)
        known = circuit.known
        if known is not None and known.entry is not None and entry is None:
            # If another call was first, its copy is as good.
            asked.swap(circuit.name, None, known.entry.value, None)
        answer = self.ask_table(circuit, operation, asked)
        return answer if is_kept else _forgotten(answer, self.settings.store_timeout_ms)

    def ask_table(self, circuit: Circuit, operation: Operation, records: Table, settings: Any = None) -> Answer:
        """Asks a record in memory. It does not fail, and who loses a race tries again."""
        token = self.local_token(operation)
        seen = records.load(circuit.name)
        while True:
            now_ms = max(self.clock.now_ms(), seen.now_ms or 0)
            what, decided = self.decide(circuit, operation, token, None, seen, now_ms, settings)
            if what == "done":
                answer: Answer = decided
                break
            expected = None if seen.entry is None else seen.entry.version
            swapped = records.swap(circuit.name, expected, decided["value"], decided["ttl-ms"])
            if not isinstance(swapped, Conflict):
                answer = decided["answer-if-stored"]
                break
            seen = seen_in(swapped, b"")
        if answer[0] == "failed":
            raise failure(circuit.name, answer[1])
        return answer

    def tell_watchers(self, circuit: Circuit) -> None:
        """Tells other processes of a change, where they listen. A hint: nobody waits for it, and it may be lost."""
        if self.driver.announces():
            self.driver.spawn(_announce(circuit.name, self.store_timeout))

    # ---- outages ----

    def enter_outage(self, circuit: Circuit, error: StoreError) -> bool:
        """Goes on without the store, and watches for its return; says whether it can."""
        pause = self.outage.enter(circuit.name, error)
        if pause is not None and not self.driver.spawn(watch(weakref.ref(self), circuit.name, pause)):
            self.outage.call_off()
            return False
        return True

    def settle_parked(self, exchange: Exchange) -> Steps[None]:
        """Runs a call again whose write may have happened: it is applied once, and what it did is told."""
        circuit = exchange.circuit
        while not self.is_closed:
            # While the store is down only its watch asks it: what goes on before the outage has ended would end on the
            # local record.
            if self._park(exchange):
                return None
            try:
                answer = yield from exchange.run(Deadline(self.patience))
            except (ContentionError, BusyError):
                yield Sleep(random.uniform(0.000_5, 0.008))
            except StoreError as error:
                if not is_outage(error):
                    return lost(circuit, exchange.outcomes(), error)
                self.enter_outage(circuit, error)
            except CircuitryError as error:
                return lost(circuit, exchange.outcomes(), error)
            else:
                self.announce(circuit, answer, local=False)
                if answer[0] == "started" and answer[1]["verdict"][0] == "permit":
                    leave = answer[1]["verdict"][1]
                    if leave["probe"] is not None:
                        # Whoever asked is gone: the place is given back.
                        id_ = leave["probe"]["id"]
                        grant = Grant(leave["era"], Token(id_["node"], id_["sequence"]))
                        freed = End([Completion(grant, Outcome.IGNORED, False)])
                        self.driver.spawn(self.settle_parked(Exchange(self, circuit, freed, circuit.known)))
                return None
        # The factory is closed.
        return lost(circuit, exchange.outcomes(), ContentionError(circuit.name))

    # ---- events ----

    def announce(self, circuit: Circuit, answer: Answer, *, local: bool) -> None:
        """Tells of the transitions that a call made."""
        for made in transitions_of(answer):
            transition = Transition.from_wit(made)
            _log.info(
                "circuit `%s` is %s now, it was %s: %s%s",
                shortened(circuit.name),
                transition.next,
                transition.previous,
                transition.reason,
                " (on a record of this process's own)" if local else "",
            )
            callback = self.settings.state_change_callback
            if callback is None:
                continue
            change = StateChange(
                circuit.base,
                circuit.name,
                circuit.context,
                transition.previous,
                transition.next,
                transition,
                local,
            )
            handled = sys.exc_info()[1]
            try:
                callback(change)
            except Exception as raised:
                if interrupt_in(raised, handled) is not None:
                    raise
                # A listener that raises must not break the call that it listens to.
                _log.exception("circuit `%s`: the state-change callback raised", shortened(circuit.name))

    # ---- the end ----

    def set_when_closed(self, waiter: Waiter) -> None:
        """The waiter is set when the factory is closed."""
        with self._lock:
            self._closing.add(waiter)
            is_closed = self.is_closed
        if is_closed:
            waiter.set()

    def forget(self, waiter: Waiter) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._closing.discard(waiter)

    def close(self) -> bool:
        """Ends what goes on in the background; says whether it leaves no call that waits for the store's return."""
        with self._lock:
            self.is_closed = True
            closing, self._closing = self._closing, set()
        for waiter in closing:
            waiter.set()
        return not self.outage.drop_parked()


def _announce(circuit: str, timeout: float) -> Steps[None]:
    try:
        yield Announce(circuit, timeout)
    except StoreError as error:
        _log.debug("circuit `%s`: others were not told of a change: %s", shortened(circuit), error)


def is_outage(error: CircuitryError) -> bool:
    """Whether the store is to be taken as down."""
    return isinstance(error, StoreError) and error.kind != "other"


def lost(circuit: Circuit, outcomes: int, error: CircuitryError) -> None:
    """Outcomes that are not counted, or of which nobody can tell."""
    if outcomes > 0:
        _log.warning("circuit `%s`: %d outcomes are lost: %s", shortened(circuit.name), outcomes, error)


def settings_name(field: str) -> str:
    """A field of ``wit/`` as the keyword argument is called: ``backoff.max-ms`` is ``backoff.max_ms``."""
    return field.replace("-", "_")


def _after_fork_in_child() -> None:
    for node in list(_nodes):
        node.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
