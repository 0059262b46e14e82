"""With a quorum: the record by which a node decides for itself, and its vote when that opens.

The own record is one in memory, of this process and this circuit; it goes by the settings in force without their
quorum. It belongs to one era of the shared record and begins anew with the next, so what a node held against the
dependency does not outlive the fleet's recovery. Its probes hold places of this node only.

A vote is one call on the shared record. It is cast when the own record opens, again with each failed own probe, which
prolongs it; it is never taken back.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from ..errors import BusyError, CircuitryError, ContentionError, StoreError, shortened
from ..memory import Table
from ..outcome import Disposition, Settlement
from ..settings import CircuitSettings
from ..state import Information, OverrideKind
from .call import CastVote, End, Grant, Inspect, Renew, Start, Token, transitions_of
from .circuit import Circuit
from .deadline import Deadline
from .effects import Steps
from .ends import Batch, Ends
from .exchange import Answer, Exchange, decide_here, wrong_answer

if TYPE_CHECKING:
    from .node import Node

_log = logging.getLogger("circuitry")


class OwnRecord:
    """The record by which this node decides for itself."""

    def __init__(self, node: Node, circuit: Circuit, era: int, in_force: CircuitSettings) -> None:
        self.era = era
        # Starts that took a turn after this one have begun after the record.
        self.turn = next(circuit.turns)
        self.in_force = in_force
        rules = dataclasses.replace(in_force, quorum=None)
        self.settings = node.component.settings(rules.to_wit())
        self.records = Table(node.clock)
        self.ends = Ends()


def own_record(node: Node, circuit: Circuit, era: int, in_force: CircuitSettings, turn: int) -> OwnRecord:
    """This node's own record for the shared era that the start of that turn has seen; begun anew if it is of another or
    of other settings."""
    with circuit.lock:
        own = circuit.own
        if own is not None and own.era == era and own.in_force == in_force:
            return own
        begun = OwnRecord(node, circuit, era, in_force)
        # A start that began before the record and saw a lower era was answered late: that era is over. One that began
        # after it has seen what is now; eras go back too, after an outage or where a store was restored.
        if own is None or era >= own.era or turn > own.turn:
            circuit.own = begun
        return begun


def start(
    node: Node, circuit: Circuit, era: int, in_force: CircuitSettings, turn: int
) -> tuple[OwnRecord, tuple[str, Any]]:
    """Asks the node's own record too, where the shared one of the era has admitted the start of that turn."""
    own = own_record(node, circuit, era, in_force, turn)
    answer = node.ask_table(circuit, Start(next(circuit.own_starts)), own.records, own.settings)
    if answer[0] != "started":
        raise wrong_answer()
    node.announce(circuit, answer, local=True)
    if _has_opened(answer):
        # Its own half-open phase took too long. The start does not wait for the store a second time.
        node.driver.spawn(cast(node, circuit, era))
    return own, answer[1]["verdict"]


def look(node: Node, circuit: Circuit, information: Information) -> Information:
    """Adds what the node's own record shows, where the node goes by one in this era."""
    own = circuit.own
    if own is None or information.settings_in_force.quorum is None or own.era != information.era:
        return information
    answer = node.ask_table(circuit, Inspect(), own.records, own.settings)
    if answer[0] != "inspected":
        raise wrong_answer()
    seen = dataclasses.replace(Information.from_wit(answer[1]), local=True)
    explanation = f"{information.explanation} This node decides for itself: {seen.explanation}"
    return dataclasses.replace(information, own=seen, explanation=explanation)


def is_metrics_only(node: Node, circuit: Circuit) -> bool:
    """Whether nobody is to be refused now: an override of that kind stands above the node's own record, which does not
    know it."""
    # The entry that the start has just seen, or the last one of before the outage: no store is asked.
    known = circuit.known
    if known is None:
        return False
    answer = decide_here(node, circuit, Inspect(), known)
    if answer[0] != "inspected":
        raise wrong_answer()
    override = answer[1]["override"]
    return override is not None and override["kind"] == OverrideKind.METRICS_ONLY.value


def settle(node: Node, circuit: Circuit, own: OwnRecord, batch: Batch) -> Steps[None]:
    """Settles outcomes on the node's own record; if they open it, the node votes before they are told."""
    if circuit.own is not own:
        # The shared era is another one now.
        return batch.settle_all(Settlement(Disposition.STALE, local=True))
    answer = node.ask_table(circuit, End(batch.completions), own.records, own.settings)
    if answer[0] != "settled":
        raise wrong_answer()
    node.announce(circuit, answer, local=True)
    is_cast = not _has_opened(answer)
    try:
        if not is_cast:
            yield from cast(node, circuit, own.era)
            is_cast = True
    finally:
        batch.settle(answer[1]["dispositions"], local=True)
        if not is_cast:
            # Whoever waited is gone. A node's vote cast twice is one vote.
            node.driver.spawn(cast(node, circuit, own.era))


def renew(node: Node, circuit: Circuit, own: OwnRecord, grant: Grant, probe: Token) -> bool:
    """Prolongs the lease of one of the node's own probes; says whether it still holds its place."""
    answer = node.ask_table(circuit, Renew(grant.era, probe), own.records, own.settings)
    if answer[0] != "renewed":
        raise wrong_answer()
    return all(deadline is not None for deadline in answer[1]["deadlines"])


def _has_opened(answer: Answer) -> bool:
    return any(made["next"] == "open" for made in transitions_of(answer))


def cast(node: Node, circuit: Circuit, era: int) -> Steps[None]:
    """Casts this node's vote. Waits for the store's timeout at most; what is not through by then goes on."""
    operation = CastVote(era, node.vote_as)
    try:
        if not node.outage.is_down:
            exchange = Exchange(node, circuit, operation, circuit.known)
            try:
                return _told(node, circuit, (yield from exchange.run(Deadline(node.patience))), local=False)
            except (ContentionError, BusyError):
                node.driver.spawn(node.settle_parked(exchange))
                return None
            except StoreError as error:
                if error.kind == "other":
                    raise
                node.enter_outage(circuit, error)
                if exchange.may_have_written():
                    # Perhaps it opened the circuit, which is to be told.
                    node.finish_later(exchange)
        if node.settings.store_failure == "local":
            _told(node, circuit, node.ask_locally(circuit, operation, node.outage.records), local=True)
    except CircuitryError as error:
        _log.warning("circuit `%s`: this node's vote was not counted: %s", shortened(circuit.name), error)
    return None


def _told(node: Node, circuit: Circuit, answer: Answer, *, local: bool) -> None:
    if answer[0] != "voted":
        raise wrong_answer()
    _log.info(
        "circuit `%s`: this node has voted to open (%s, %d votes)",
        circuit.name,
        "accepted" if answer[1]["accepted"] else "not accepted",
        answer[1]["votes"],
    )
    node.announce(circuit, answer, local=local)
