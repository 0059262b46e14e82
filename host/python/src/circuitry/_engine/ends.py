"""The outcomes that wait to be settled together on one record, and who settles them.

One of those who wait leads: he settles what waits now, one swap for all of it, and then hands the lead to another who
waits, or to the background where nobody does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from ..errors import CircuitryError
from ..outcome import AnyOutcome, Disposition, Settlement
from .call import COMPLETIONS_MAX, RUN_MAX, Completion, Grant, Values
from .effects import Waiter


class Ended:
    """One outcome that waits, and who wants to know."""

    __slots__ = ("answer", "grant", "is_awaited", "leads", "outcome", "slow", "waiter")

    def __init__(self, grant: Grant, outcome: AnyOutcome, slow: bool, waiter: Waiter) -> None:
        self.grant = grant
        self.outcome = outcome
        self.slow = slow
        self.waiter = waiter
        self.answer: Settlement | CircuitryError | None = None
        self.leads = False
        self.is_awaited = True


class Batch:
    """Outcomes that go to the record in one swap."""

    def __init__(self, completions: list[Completion], ended: list[Ended]) -> None:
        self.completions = completions
        self._ended = ended

    def outcomes(self) -> int:
        """How many outcomes there are in it."""
        return sum(completion.count for completion in self.completions)

    def settle(self, rulings: Iterable[Values], local: bool) -> None:
        """Tells everybody what became of their outcome: of a run the first ones are accepted. Nobody is told twice."""

        def dispositions() -> Iterator[Disposition]:
            for ruling in rulings:
                for _ in range(ruling["accepted"]):
                    yield Disposition.ACCEPTED
                for _ in range(ruling["stale"]):
                    yield Disposition.STALE
            # A component that rules on too few leaves the rest unsettled.
            while True:
                yield Disposition.UNSETTLED

        ended, self._ended = self._ended, []
        for one, disposition in zip(ended, dispositions(), strict=False):
            one.answer = Settlement(disposition, local)
            one.waiter.set()

    def settle_all(self, answer: Settlement | CircuitryError) -> None:
        """Tells everybody the same."""
        ended, self._ended = self._ended, []
        for one in ended:
            one.answer = answer
            one.waiter.set()


class Ends:
    """The outcomes that wait to be settled on one record."""

    def __init__(self) -> None:
        # A finalizer may run, and take it, in a thread that holds it.
        self._lock = threading.RLock()
        self._waiting: list[Ended] = []
        self._settling = False
        # Who settles just now: a thread, or a task. What it ends meanwhile it cannot wait for.
        self.led_by: object = None

    def push(self, ended: Ended) -> None:
        """Adds an outcome; who ended it leads where nobody else does."""
        with self._lock:
            self._waiting.append(ended)
            if not self._settling:
                ended.leads = True
                self._settling = True

    def give_up(self, ended: Ended) -> bool:
        """Who ended it waits no longer; says whether he was made to lead meanwhile, and has to see to it."""
        with self._lock:
            ended.is_awaited = False
            return ended.leads

    def pass_on(self) -> bool:
        """Hands the lead to one who waits; says whether the background has to take it."""
        with self._lock:
            if not self._waiting:
                self._settling = False
                return False
            for ended in self._waiting:
                if ended.is_awaited:
                    ended.leads = True
                    ended.waiter.set()
                    return False
            return True

    def let_go(self) -> None:
        """Nobody can lead now: the next who ends leads, and settles what waits too."""
        with self._lock:
            self._settling = False

    def next_batch(self) -> Batch | None:
        """Takes what waits, as much as fits into one call."""
        with self._lock:
            completions: list[Completion] = []
            taken = 0
            for ended in self._waiting:
                last = completions[-1] if completions else None
                if (
                    last is not None
                    and ended.grant.probe is None
                    and last.grant == ended.grant
                    and last.outcome == ended.outcome
                    and last.slow == ended.slow
                    and last.count < RUN_MAX
                ):
                    last.count += 1
                elif len(completions) == COMPLETIONS_MAX:
                    break
                else:
                    completions.append(Completion(ended.grant, ended.outcome, ended.slow))
                taken += 1
            batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return Batch(completions, batch) if batch else None
