"""Exceptions that are no error of what was running, but a demand on whoever runs it: interrupts.

A ``BaseException`` that is no ``Exception`` is one. So is whatever a signal's handler raises: a job queue ends a job
that takes too long with an ``Exception`` of its own (Celery's ``SoftTimeLimitExceeded``, RQ's ``JobTimeoutException``).
Such a one shows in its traceback: Python gives a handler the number of the signal and the frame that it interrupts, and
the handler's own frame is the next.
"""

from __future__ import annotations

from itertools import pairwise
from types import FrameType, TracebackType

_HAS_VARARGS = 0x04


def interrupt_in(error: BaseException, handled: BaseException | None = None) -> BaseException | None:
    """The interrupt that an exception is, or was made of by whoever caught one and raised his own; ``None`` where there
    is none. A cancel that became a timeout is none any more. ``handled`` is what the caller was handling before
    (``sys.exc_info()[1]``): that is nothing new."""
    if not isinstance(error, Exception):
        return error
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or link is handled or id(link) in seen:
            continue
        seen.add(id(link))
        if isinstance(link, (KeyboardInterrupt, SystemExit)) or _is_of_a_handler(link.__traceback__):
            return link
        waiting += [link.__context__, link.__cause__]
    return None


def _is_of_a_handler(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        given = _arguments(trace.tb_next.tb_frame)
        if any(isinstance(number, int) and frame is trace.tb_frame for number, frame in pairwise(given)):
            return True
        trace = trace.tb_next
    return False


def _arguments(frame: FrameType) -> list[object]:
    """What a function was called with, as its names have it now."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[: count + bool(code.co_flags & _HAS_VARARGS)]
    given: list[object] = []
    for name in names:
        value = frame.f_locals.get(name)
        given += value if isinstance(value, tuple) else [value]
    return given
