"""Loads of starts: concurrent ones of a circuit share one, begun after the last of them asked.

Invariant: what somebody is given was asked for after he came. So strict stays strict.
"""

from __future__ import annotations

import threading

from ..errors import StoreError
from ..store import Loaded
from .deadline import Deadline
from .effects import Driver, Sleep, Steps, Wait, Waiter
from .store_steps import load


class _Waiting:
    __slots__ = ("answer", "leads", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.answer: Loaded | StoreError | None = None
        self.leads = False


class Gathering:
    """Those of one circuit who load. Who comes alone asks for himself. Who comes meanwhile waits for a *round*, which
    begins after he came, with all who wait by then; one of them leads it, and then another the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone = False
        self._rounds = False
        self._waiting: list[_Waiting] = []

    def load(self, driver: Driver, circuit: str, deadline: Deadline) -> Steps[Loaded]:
        """Loads the entry together with whoever asks for it at the same time."""
        with self._lock:
            own: _Waiting | None = None
            if not self._alone and not self._rounds:
                self._alone = True
            else:
                own = _Waiting(driver.waiter())
                own.leads = not self._rounds
                self._rounds = True
                self._waiting.append(own)
        if own is None:
            try:
                return (yield from load(circuit, deadline))
            finally:
                self._alone = False
        if not own.leads:
            try:
                yield Wait(own.waiter, deadline.left())
            except GeneratorExit:
                if self._leave(own):
                    self._end([], None, own)
                raise
            self._leave(own)
        if own.leads:
            return (yield from self._lead(own, circuit, deadline))
        if isinstance(own.answer, Loaded):
            return own.answer
        if own.answer is not None:
            raise StoreError(own.answer.kind, own.answer.message)
        # Whoever led was interrupted, or took too long.
        return (yield from load(circuit, deadline))

    def _leave(self, own: _Waiting) -> bool:
        """Waits no longer; says whether the lead has been handed over meanwhile."""
        with self._lock:
            if not own.leads and own in self._waiting:
                self._waiting.remove(own)
            return own.leads

    def _lead(self, own: _Waiting, circuit: str, deadline: Deadline) -> Steps[Loaded]:
        round_: list[_Waiting] = []
        answer: Loaded | StoreError | None = None
        try:
            # Those who are about to come, too.
            yield Sleep(0)
            with self._lock:
                round_, self._waiting = self._waiting, []
            answer = yield from load(circuit, deadline)
            return answer
        except StoreError as error:
            answer = error
            raise
        finally:
            self._end(round_, answer, own)

    def _end(self, round_: list[_Waiting], answer: Loaded | StoreError | None, own: _Waiting) -> None:
        with self._lock:
            for waiting in round_:
                waiting.answer = answer
            if own in self._waiting:
                self._waiting.remove(own)
            self._rounds = bool(self._waiting)
            if self._rounds:
                self._waiting[0].leads = True
                round_ = [*round_, self._waiting[0]]
        for waiting in round_:
            if waiting is not own:
                waiting.waiter.set()
