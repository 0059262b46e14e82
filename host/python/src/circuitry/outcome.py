"""How work ended, what became of that, and who says which exception is what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Union

from .errors import ArgumentError, CircuitRefused

_RETRY_AFTER_MAX = (1 << 64) - 1
# A chain of causes that is longer is not looked through.
_CAUSES_MAX = 32


class Outcome(str, Enum):
    """How work ended."""

    SUCCESS = "success"
    """It went well, or with an error that is expected."""
    FAILURE = "failure"
    """The dependency failed; a deadline that passed is a failure too."""
    IGNORED = "ignored"
    """Neither: changes no count and frees a probe's place. A cancel by the caller is one."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class FailureRetryAfter:
    """A failure of a dependency that asked to be left alone for so many milliseconds (HTTP's ``Retry-After``). If it
    opens the circuit, that opens for at least so long, the setting ``retry_after_max_ms`` at most."""

    retry_after_ms: int


AnyOutcome = Union[Outcome, FailureRetryAfter]

Matcher = Callable[[Exception], AnyOutcome]
"""Says what an exception of the work means for the circuit."""


class Disposition(str, Enum):
    """Whether an outcome was applied."""

    ACCEPTED = "accepted"
    """It was applied."""
    STALE = "stale"
    """It belongs to another era, or to a probe's place that was given away, and changed nothing."""
    UNSETTLED = "unsettled"
    """Not known: the store did not answer in time, and it is settled in the background, once; or an answer was lost
    and so many others have written since that nobody can tell."""
    UNCOUNTED = "uncounted"
    """It was not counted: by an override nothing counts, or the store is down, or was when the permit was given, and
    the settings keep no local record."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Settlement:
    """What became of an outcome. ``local``: on a record of this process's own, because the store was down or because a
    quorum is in force."""

    disposition: Disposition
    local: bool = False


class Expected(Exception):
    """An error that is part of the work and no fault of the dependency; it counts as a success.

    Raise it, or make your own exceptions subclasses of it: ``class NoSuchCustomer(Expected): ...``
    """


def default_matcher(error: Exception) -> AnyOutcome:
    """Every exception is a failure, but :class:`Expected` is a success and a breaker's own refusal is ignored; both
    also as the cause (``raise … from``) of another. An exception with a whole number ``retry_after_ms`` is a failure
    of a dependency that asked to be left alone for so long."""
    cause: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if cause is None:
            break
        if isinstance(cause, Expected):
            return Outcome.SUCCESS
        if isinstance(cause, CircuitRefused):
            return Outcome.IGNORED
        cause = cause.__cause__
    retry_after_ms = getattr(error, "retry_after_ms", None)
    if isinstance(retry_after_ms, int) and not isinstance(retry_after_ms, bool) and retry_after_ms > 0:
        return FailureRetryAfter(min(retry_after_ms, _RETRY_AFTER_MAX))
    return Outcome.FAILURE


def checked_outcome(outcome: object) -> AnyOutcome:
    """An outcome as a caller gave it, or an error that names the field."""
    if isinstance(outcome, Outcome):
        return outcome
    if isinstance(outcome, FailureRetryAfter):
        ms = outcome.retry_after_ms
        if not isinstance(ms, int) or isinstance(ms, bool) or not 0 <= ms <= _RETRY_AFTER_MAX:
            raise ArgumentError("retry_after_ms", f"{ms!r} is no whole number of milliseconds from 0 to 2^64 - 1")
        return outcome
    if isinstance(outcome, str):
        try:
            return Outcome(outcome)
        except ValueError:
            pass
    raise ArgumentError("outcome", f"{outcome!r} is none: give an Outcome or a FailureRetryAfter")
