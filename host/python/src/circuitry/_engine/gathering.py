"""Loads of starts: concurrent ones of a circuit share one, begun after the last of them asked.

Invariant: what somebody is given was asked for after he came. So strict stays strict.
"""

from __future__ import annotations

import threading
import time

from ..errors import StoreError
from ..store import Loaded
from .deadline import Deadline
from .effects import Driver, Sleep, Steps, Wait, Waiter
from .store_steps import load

# So long after its deadline a load is over: who led it is gone, whatever has become of him.
_GRACE = 0.1


class _Caller:
    """One who loads: alone, in a round that he leads, or in that of another."""

    __slots__ = ("answer", "is_alone", "is_told", "leads", "round", "until", "waiter")

    def __init__(self, until: float) -> None:
        self.until = until
        self.waiter: Waiter | None = None
        self.is_alone = False
        self.leads = False
        # Those who load with him, where he leads.
        self.round: list[_Caller] = []
        self.is_told = False
        self.answer: Loaded | StoreError | None = None


class Gathering:
    """Those of one circuit who load. Who comes alone asks for himself. Who comes meanwhile waits for a *round*, which
    begins after he came, with all who wait by then; one of them leads it, and then another the next.

    An interrupt may come between any two steps, also as somebody leaves. So nobody is waited for beyond his deadline:
    who waits then takes the lead himself.
    """

    def __init__(self) -> None:
        # A finalizer may run, and take it, in a thread that holds it.
        self._lock = threading.RLock()
        # Until when somebody loads alone, and until when somebody leads; 0 where nobody does.
        self._alone_until = 0.0
        self._led_until = 0.0
        self._waiting: list[_Caller] = []

    def load(self, driver: Driver, circuit: str, deadline: Deadline) -> Steps[Loaded]:
        """Loads the entry together with whoever asks for it at the same time."""
        own = _Caller(deadline.at + _GRACE)
        try:
            self._come(own, driver)
            while not (own.is_alone or own.leads or own.is_told) and deadline.left() > 0:
                assert own.waiter is not None
                yield Wait(own.waiter, min(deadline.left(), max(0.0, self._led_until - time.monotonic())))
                self._take_over(own)
            if own.is_alone:
                return (yield from load(circuit, deadline))
            if own.leads:
                return (yield from self._lead(own, circuit, deadline))
        finally:
            self._leave(own)
        if isinstance(own.answer, Loaded):
            return own.answer
        if own.answer is not None:
            raise StoreError(own.answer.kind, own.answer.message)
        # Whoever led was interrupted, or took too long.
        return (yield from load(circuit, deadline))

    def _come(self, own: _Caller, driver: Driver) -> None:
        now = time.monotonic()
        with self._lock:
            is_led = now < self._led_until
            if not is_led and now >= self._alone_until and not self._waiting:
                own.is_alone = True
                self._alone_until = own.until
                return
            own.waiter = driver.waiter()
            self._waiting.append(own)
            if not is_led:
                self._let_lead(own)

    def _let_lead(self, caller: _Caller) -> None:
        caller.leads = True
        self._led_until = caller.until

    def _take_over(self, own: _Caller) -> None:
        """Leads where whoever led is overdue."""
        with self._lock:
            if not (own.leads or own.is_told) and time.monotonic() >= self._led_until:
                self._let_lead(own)

    def _lead(self, own: _Caller, circuit: str, deadline: Deadline) -> Steps[Loaded]:
        # Those who are about to come, too.
        yield Sleep(0)
        with self._lock:
            own.round, self._waiting = self._waiting, []
        try:
            own.answer = yield from load(circuit, deadline)
            return own.answer
        except StoreError as error:
            own.answer = error
            raise

    def _leave(self, own: _Caller) -> None:
        """Loads no longer: tells his round, and hands the lead over."""
        with self._lock:
            if own.is_alone:
                own.is_alone = False
                self._alone_until = 0.0
            if own in self._waiting:
                self._waiting.remove(own)
            told, own.round = own.round, []
            for caller in told:
                caller.answer = own.answer
                caller.is_told = True
            if own.leads:
                own.leads = False
                self._led_until = 0.0
                if self._waiting:
                    self._let_lead(self._waiting[0])
                    told = [*told, self._waiting[0]]
        for caller in told:
            if caller is not own and caller.waiter is not None:
                caller.waiter.set()
