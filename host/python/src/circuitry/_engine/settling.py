"""Settling: outcomes of one record go to it together, one swap under way at a time; what ends meanwhile waits and goes
with the next. The record is the circuit's shared one, or with a quorum this node's own."""

from __future__ import annotations

import logging
import random
import sys
from typing import TYPE_CHECKING, Any

from .._interrupts import interrupt_in
from ..errors import BusyError, CircuitryError, ComponentError, ContentionError, ForgottenError, StoreError, shortened
from ..outcome import AnyOutcome, Disposition, Settlement
from . import ballot
from .call import End, Grant
from .circuit import Circuit
from .deadline import Deadline
from .effects import Sleep, Steps, Wait
from .ends import Batch, Ended, Ends
from .exchange import Answer, Exchange, wrong_answer
from .node import Node, is_outage, lost

if TYPE_CHECKING:
    from .ballot import OwnRecord

_log = logging.getLogger("circuitry")

Judge = Any
"""The node's own record (:class:`.ballot.OwnRecord`), or ``None`` for the shared one."""


def _ends(circuit: Circuit, own: OwnRecord | None) -> Ends:
    return circuit.ends if own is None else own.ends


def settle(
    node: Node, circuit: Circuit, own: OwnRecord | None, grant: Grant, outcome: AnyOutcome, slow: bool
) -> Steps[Settlement]:
    """Settles an outcome together with those that end at the same time.

    Waits at most the store's timeout; the settling goes on. It goes on too when whoever ended it is gone.
    """
    deadline = Deadline(node.store_timeout)
    ends = _ends(circuit, own)
    ended = Ended(grant, outcome, slow, node.driver.waiter())
    try:
        ends.push(ended)
        while ended.answer is None:
            if ended.leads:
                yield from _lead(node, circuit, own, ended, deadline)
                continue
            left = deadline.left()
            if left <= 0 or (ends.led_by is not None and ends.led_by == node.driver.caller()):
                # A callback or a trip function has ended it: who leads settles it next, and nobody can wait for that.
                break
            yield Wait(ended.waiter, left)
            if ended.leads and ended.answer is None:
                # The next wait needs another waiter, since this one is set.
                ended.waiter = node.driver.waiter()
    finally:
        if ends.give_up(ended) and ended.answer is None:
            # The lead came too late for one who is gone.
            _settle_rest_later(node, circuit, own)
    if ended.answer is None:
        return Settlement(Disposition.UNSETTLED)
    if isinstance(ended.answer, CircuitryError):
        raise ended.answer
    return ended.answer


def _lead(node: Node, circuit: Circuit, own: OwnRecord | None, leader: Ended, deadline: Deadline) -> Steps[None]:
    """Settles what waits now, and hands the lead over."""
    ends = _ends(circuit, own)
    settling: _Settling | None = None
    is_whole = False
    try:
        leader.leads = False
        settling = _Settling(node, circuit, own, ends.next_batch())
        is_whole = yield from settling.run(deadline)
    finally:
        if settling is None or is_whole:
            if ends.pass_on():
                _settle_rest_later(node, circuit, own)
        elif not node.driver.spawn(settling.go_on()):
            # It takes longer than its leader waits, or he was interrupted, and there is no background to go on in.
            settling.give_up()
            ends.let_go()


def _settle_rest_later(node: Node, circuit: Circuit, own: OwnRecord | None) -> None:
    if not node.driver.spawn(settle_rest(node, circuit, own)):
        _ends(circuit, own).let_go()


def settle_rest(node: Node, circuit: Circuit, own: OwnRecord | None) -> Steps[None]:
    """Settles all that waits, where none of those who wait can lead."""
    ends = _ends(circuit, own)
    while True:
        yield from _Settling(node, circuit, own, ends.next_batch()).run(None)
        if not ends.pass_on():
            return


class _Settling:
    """The settling of one batch, which may be interrupted and gone on with."""

    def __init__(self, node: Node, circuit: Circuit, own: OwnRecord | None, batch: Batch | None) -> None:
        self._node = node
        self._circuit = circuit
        self._own = own
        self._batch = batch
        self._operation = None if batch is None else End(batch.completions)
        self._exchange: Exchange | None = None

    def go_on(self) -> Steps[None]:
        """Goes on with it in the background, and with what has come meanwhile."""
        yield from self.run(None)
        if _ends(self._circuit, self._own).pass_on():
            yield from settle_rest(self._node, self._circuit, self._own)

    def give_up(self) -> None:
        """Nobody can tell what becomes of it."""
        if self._batch is not None:
            lost(self._circuit, self._batch.outcomes(), ContentionError(self._circuit.name))
            self._batch.settle_all(Settlement(Disposition.UNSETTLED))

    def run(self, until: Deadline | None) -> Steps[bool]:
        """Settles the batch; says whether it is settled, or the time was over first."""
        batch = self._batch
        if batch is None:
            return True
        ends = _ends(self._circuit, self._own)
        handled = sys.exc_info()[1]
        try:
            ends.led_by = self._node.driver.caller()
            if self._own is not None:
                # A record in memory settles it before the first step, so it is not gone on with.
                self._batch = None
                yield from ballot.settle(self._node, self._circuit, self._own, batch)
                return True
            return (yield from self._run(batch, until))
        except CircuitryError as error:
            lost(self._circuit, batch.outcomes(), error)
            batch.settle_all(error)
            return True
        except GeneratorExit:
            raise
        except BaseException as error:
            if until is not None and interrupt_in(error, handled) is not None:
                # It interrupts the one who leads; the settling goes on without him.
                raise
            # What must not happen fails this batch, and not the circuit for ever.
            _log.exception("circuit `%s`: outcomes could not be settled", shortened(self._circuit.name))
            batch.settle_all(ComponentError(f"the settling ended early: {error}"))
            return True
        finally:
            ends.led_by = None

    def _run(self, batch: Batch, until: Deadline | None) -> Steps[bool]:
        node, circuit = self._node, self._circuit
        assert self._operation is not None
        while not node.outage.is_down:
            if self._exchange is None:
                self._exchange = Exchange(node, circuit, self._operation, circuit.known)
            try:
                answer = yield from self._exchange.run(Deadline(node.patience))
            except (ContentionError, BusyError):
                # No outcome is given up because others write too.
                if until is not None and until.left() <= 0:
                    return False
                yield Sleep(random.uniform(0.000_5, 0.008))
            except StoreError as error:
                if not is_outage(error):
                    raise
                if not node.enter_outage(circuit, error):
                    break
            except ForgottenError as error:
                lost(circuit, batch.outcomes(), error)
                batch.settle_all(Settlement(Disposition.UNSETTLED))
                return True
            else:
                if answer[0] != "settled":
                    raise wrong_answer()
                self._tell(batch, answer, local=False)
                return True
        if self._exchange is not None and self._exchange.may_have_written():
            node.finish_later(self._exchange)
        self._settle_locally(batch)
        return True

    def _settle_locally(self, batch: Batch) -> None:
        """On this process's own record, so that the circuit protects through the outage."""
        node, circuit = self._node, self._circuit
        if node.settings.store_failure != "local":
            return batch.settle_all(Settlement(Disposition.UNCOUNTED, local=True))
        answer = node.ask_locally(circuit, End(batch.completions), node.outage.records)
        if answer[0] != "settled":
            raise wrong_answer()
        return self._tell(batch, answer, local=True)

    def _tell(self, batch: Batch, answer: Answer, *, local: bool) -> None:
        """Tells of the changes, and everybody what became of his outcome; also where the callback is interrupted."""
        self._batch = None
        try:
            self._node.announce(self._circuit, answer, local=local)
        finally:
            batch.settle(answer[1]["dispositions"], local=local)
