"""What this process keeps of one circuit. Nothing in it is needed: a circuit forgotten costs one load."""

from __future__ import annotations

import itertools
import logging
import threading
from typing import TYPE_CHECKING, Any

from ..context import Context
from ..errors import shortened
from ..settings import CircuitSettings
from ..store import Loaded
from .ends import Ends
from .gathering import Gathering

if TYPE_CHECKING:
    from .ballot import OwnRecord

# So many settings of others are remembered, so that each is told once.
_TOLD_MAX = 16

_log = logging.getLogger("circuitry")


class Circuit:
    """What this process keeps of one circuit."""

    def __init__(self, name: str, base: str, context: Context, first_start: int) -> None:
        self.name = name
        self.base = base
        self.context = context
        # `next` on these is one step, so no lock is needed.
        self.starts = itertools.count(first_start)
        self.own_starts = itertools.count(first_start)
        # Tells which of the starts and of the node's own records began earlier.
        self.turns = itertools.count()
        # The entry last seen in the store, without the time at which it was seen.
        self.known: Loaded | None = None
        # An entry's version on which the component has granted starts, until when, and its answer.
        self.granted: tuple[bytes, int, Any] | None = None
        self.begin()

    def begin(self) -> None:
        """What belongs to calls under way; in a forked child there are none."""
        self.loads = Gathering()
        self.ends = Ends()
        self.lock = threading.Lock()
        self._told: list[CircuitSettings] = []
        self.own: OwnRecord | None = None

    def saw(self, seen: Loaded) -> None:
        """Remembers the entry last seen in the store."""
        self.known = Loaded(seen.entry)

    # A strict start loads, always. But where the entry is one of which the component has granted that every start is
    # admitted until a time, or nothing but this process's own successes has changed it since, it is not asked again.

    def granted_start(self, seen: Loaded, now_ms: int) -> Any:
        """The answer to a start on the entry ``seen``, where a grant has it."""
        granted = self.granted
        if granted is None or seen.entry is None or seen.entry.version != granted[0] or now_ms >= granted[1]:
            return None
        return granted[2]

    def learn_grant(self, started: Any, seen: Loaded) -> None:
        """Remembers the answer to a start on the entry ``seen``, where it carries a grant."""
        verdict, leave = started["verdict"]
        until_ms = leave["grant-until-ms"] if verdict == "permit" else None
        if until_ms is not None and seen.entry is not None:
            self.granted = (seen.entry.version, until_ms, {**started, "transitions": []})

    def keep_grant(self, before: bytes, seen: Loaded) -> None:
        """Nothing but successes turned the entry of the version ``before`` into ``seen``: what was granted stays so."""
        granted = self.granted
        if granted is not None and granted[0] == before and seen.entry is not None:
            self.granted = (seen.entry.version, granted[1], granted[2])

    def saw_settings(self, in_force: CircuitSettings, own: CircuitSettings) -> None:
        """Tells once of each settings in force that are others than this process's own."""
        if in_force in self._told:
            return
        self._told = [*self._told[-_TOLD_MAX + 1 :], in_force]
        _log.warning(
            "circuit `%s`: another process's settings are in force, not this one's; they differ in %s (revision %s "
            "in force, %s here)",
            shortened(self.name),
            ", ".join(in_force.differing_from(own)),
            in_force.settings_revision,
            own.settings_revision,
        )
