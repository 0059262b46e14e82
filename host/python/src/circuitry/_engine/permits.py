"""Starts and permits: leave to work, settled once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CircuitRefused, CircuitryError, RefusalReason, shortened
from ..outcome import AnyOutcome, Disposition, Outcome, Settlement
from ..settings import CircuitSettings
from . import ballot, settling
from .call import Grant, Renew, Start, Token
from .circuit import Circuit
from .effects import Steps, Wait
from .exchange import wrong_answer
from .node import Node

if TYPE_CHECKING:
    from .ballot import OwnRecord

# How often a lease is renewed within its length, so that two renewals may fail.
_RENEWALS_A_LEASE = 3
# For how many lengths of a lease a place is held. A probe whose work hangs, or whose permit leaked, is given up then.
_LEASES_HELD = 10

_log = logging.getLogger("circuitry")


@dataclass(frozen=True)
class Admitted:
    """A start that was admitted."""

    era: int | None
    grant: Grant | None
    """``None`` where nobody judges the outcome."""
    own: OwnRecord | None = None
    """The node's own record, where that judges it."""
    local: bool = False
    """Where nobody judges it: because the store is down, and not by an override."""
    slow_call_after_ms: int | None = None
    would_have_refused: CircuitRefused | None = None
    lease_ms: int = 0


def refused(circuit: Circuit, refusal: dict[str, Any]) -> CircuitRefused:
    """A refusal of ``wit/``."""
    return CircuitRefused(circuit.name, RefusalReason(refusal["reason"]), refusal["retry-after-ms"])


def start(node: Node, circuit: Circuit) -> Steps[Admitted]:
    """What the shared record says, then, with a quorum, what this node's own says; an override stands above both."""
    turn = next(circuit.turns)
    # One number a start, whoever answers it.
    who, answer = yield from node.ask(circuit, Start(next(circuit.starts)))
    if who == "nobody":
        if node.settings.store_failure == "admit":
            return Admitted(None, None, local=True)
        raise CircuitRefused(circuit.name, RefusalReason.STORE_DOWN, node.settings.store_timeout_ms)
    if answer[0] != "started":
        raise wrong_answer()
    node.announce(circuit, answer, local=who == "local")
    started = answer[1]
    in_force = node.settings.rules
    if started["settings-in-force"] is not None:
        in_force = CircuitSettings.from_wit(started["settings-in-force"])
        circuit.saw_settings(in_force, node.settings.rules)
    verdict, leave = started["verdict"]
    if verdict == "refusal":
        raise refused(circuit, leave)
    era: int = leave["era"]
    would_have = leave["would-have-refused"]
    if leave["judged-by"] == "nobody":
        return Admitted(era, None, would_have_refused=would_have and refused(circuit, would_have))
    own = None
    if leave["judged-by"] == "node":
        own, (verdict, own_leave) = ballot.start(node, circuit, era, in_force, turn)
        if verdict == "refusal":
            if own_leave["reason"] == "open":
                own_leave = {**own_leave, "reason": RefusalReason.NODE_OPEN.value}
            refusal = refused(circuit, own_leave)
            if ballot.is_metrics_only(node, circuit):
                return Admitted(era, None, would_have_refused=refusal)
            raise refusal
        leave = own_leave
    probe = leave["probe"] and Token(leave["probe"]["id"]["node"], leave["probe"]["id"]["sequence"])
    return Admitted(
        era,
        Grant(leave["era"], probe),
        own,
        slow_call_after_ms=leave["slow-call-after-ms"],
        lease_ms=in_force.probe_timeout_ms,
    )


class Hold:
    """What a permit and the renewal of its lease share. The renewal holds no permit, so one that leaked is found."""

    def __init__(self, node: Node, circuit: Circuit, admitted: Admitted) -> None:
        self.node = node
        self.circuit = circuit
        self.admitted = admitted
        self.begun_ms = node.settings.clock.now_ms()
        self.is_settled = False
        self.is_dropped = False
        self.stop = node.driver.waiter()
        if self.is_probe:
            node.set_when_closed(self.stop)
            node.driver.spawn(_renew(self))

    @property
    def is_probe(self) -> bool:
        """Whether the work is a probe."""
        grant = self.admitted.grant
        return grant is not None and grant.probe is not None

    def drop(self) -> None:
        """The permit is gone. It takes no lock: a finalizer may call it at any moment."""
        if not self.is_settled and self.is_probe:
            self.is_dropped = True
            self.stop.set()

    def settle(self, outcome: AnyOutcome) -> Settlement | Steps[Settlement]:
        """How it is settled: at once, or in steps."""
        self.is_settled = True
        self.stop.set()
        admitted = self.admitted
        grant = admitted.grant
        if grant is None:
            return Settlement(Disposition.UNCOUNTED, admitted.local)
        if grant.probe is None and outcome is Outcome.IGNORED:
            # It would change nothing, so nobody needs to be asked.
            return Settlement(Disposition.ACCEPTED, admitted.own is not None)
        slow = outcome is not Outcome.IGNORED and self._is_slow()
        return settling.settle(self.node, self.circuit, admitted.own, grant, outcome, slow)

    def _is_slow(self) -> bool:
        limit_ms = self.admitted.slow_call_after_ms
        return limit_ms is not None and self.node.settings.clock.now_ms() - self.begun_ms > limit_ms


def _renew(hold: Hold) -> Steps[None]:
    """Renews a probe's lease until its place is lost, the permit is settled, or it takes too long."""
    node = hold.node
    every = max(hold.admitted.lease_ms / _RENEWALS_A_LEASE, 1) / 1000
    try:
        yield from _renew_until(hold, every)
    finally:
        node.forget(hold.stop)


def _renew_until(hold: Hold, every: float) -> Steps[None]:
    node, circuit, admitted = hold.node, hold.circuit, hold.admitted
    grant = admitted.grant
    assert grant is not None and grant.probe is not None
    for _ in range((_LEASES_HELD - 1) * _RENEWALS_A_LEASE):
        yield Wait(hold.stop, every)
        if hold.is_dropped and not hold.is_settled:
            hold.is_settled = True
            yield from settling.settle(node, circuit, admitted.own, grant, Outcome.IGNORED, False)
            return
        if hold.is_settled or node.is_closed:
            return
        try:
            if admitted.own is not None:
                is_held = ballot.renew(node, circuit, admitted.own, grant, grant.probe)
            else:
                who, answer = yield from node.ask(circuit, Renew(grant.era, grant.probe))
                # What an outage's record does not hold the shared one may.
                is_held = who != "shared" or all(deadline is not None for deadline in answer[1]["deadlines"])
        except CircuitryError as error:
            _log.debug("circuit `%s`: a probe's lease was not renewed: %s", shortened(circuit.name), error)
        else:
            if not is_held:
                _log.debug("circuit `%s`: the probe's place was given to another", shortened(circuit.name))
                return
    _log.warning("circuit `%s`: a probe's work takes too long; its place may go to another", shortened(circuit.name))
