"""Asking the store: until a deadline, and with what comes back looked at."""

from __future__ import annotations

from ..errors import BusyError, RecordError, StoreError
from ..store import Conflict, Entry, Loaded, Swapped, checked_loaded, checked_swapped
from .deadline import Deadline
from .effects import Load, Steps, Swap

# A record has at most 4 kB; what is much larger is none, and is not shown to the component.
_VALUE_MAX_BYTES = 64 << 10
_VERSION_MAX_BYTES = 1 << 10


def _judged(error: StoreError, circuit: str, given: float, deadline: Deadline) -> StoreError | BusyError:
    """Silence after too little time says nothing of the store."""
    timed_out = deadline.left() <= 0.001 and error.kind in ("unavailable", "unknown")
    return BusyError(circuit) if timed_out and given < deadline.enough else error


def load(circuit: str, deadline: Deadline) -> Steps[Loaded]:
    """Loads; raises :class:`StoreError`, or :class:`BusyError` where the store was not given its time."""
    given = deadline.left()
    try:
        return checked_loaded((yield Load(circuit, given)))
    except StoreError as error:
        raise _judged(error, circuit, given, deadline) from error


class Interrupted(Exception):
    """A swap whose answer nobody waits for any more, or did not have its time: it may have been written."""

    def __init__(self, cause: StoreError | BusyError) -> None:
        super().__init__(cause)
        self.cause = cause


def swap(circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, deadline: Deadline) -> Steps[Swapped]:
    """Swaps; raises :class:`StoreError`, or :class:`Interrupted` where it may have been written."""
    given = deadline.left()
    try:
        return checked_swapped((yield Swap(circuit, expected, value, ttl_ms, given)))
    except StoreError as error:
        judged = _judged(error, circuit, given, deadline)
        if error.kind == "unknown":
            raise Interrupted(judged) from error
        raise judged from error


def to_wit(circuit: str, loaded: Loaded) -> dict[str, object]:
    """What the component is shown. Raises :class:`RecordError` where it is too large for a record."""
    entry = loaded.entry
    if entry is None:
        return {"entry": None, "now-ms": loaded.now_ms}
    for what, size, most in (
        ("value", len(entry.value), _VALUE_MAX_BYTES),
        ("version", len(entry.version), _VERSION_MAX_BYTES),
    ):
        if size > most:
            raise RecordError(circuit, "malformed", f"its {what} has {size} bytes, and no record has more than {most}")
    return {"entry": {"value": entry.value, "version": entry.version}, "now-ms": loaded.now_ms}


def seen_in(swapped: Swapped, value: bytes) -> Loaded:
    """The entry that is in the store now."""
    if isinstance(swapped, Conflict):
        return swapped.loaded
    return Loaded(Entry(value, swapped.version), swapped.now_ms)
