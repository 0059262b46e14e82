"""What breakers for threads and for asyncio have in common: judging work, and looking at functions."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from ._engine.circuit import Circuit
from ._engine.node import Node
from ._engine.permits import Hold
from ._interrupts import interrupt_in
from .context import Context
from .errors import ArgumentError, CircuitRefused, StoreError, shortened
from .outcome import AnyOutcome, Outcome, checked_outcome
from .state import Override, OverrideKind

T = TypeVar("T")

_log = logging.getLogger("circuitry")


def judge(node: Node, circuit: Circuit, base: str, error: BaseException | None) -> AnyOutcome:
    """What the end of work counts as. A cancel and an interrupt are ignored; the matcher judges the rest."""
    if error is None:
        return Outcome.SUCCESS
    if not isinstance(error, Exception):
        # CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit.
        return Outcome.IGNORED
    matchers = node.settings.circuit_specific_error_matchers
    matcher = matchers.get(base, node.settings.fallback_error_matcher)
    try:
        return checked_outcome(matcher(error))
    except Exception as raised:
        if interrupt_in(raised, error) is not None:
            raise
        # The work did fail.
        _log.exception("circuit `%s`: the error matcher raised, or gave no outcome", shortened(circuit.name))
        return Outcome.FAILURE


def classified(circuit: Circuit, classify: Callable[[T], AnyOutcome], result: T) -> AnyOutcome:
    """What a result counts as. A classifier that raises is left out: the work went as it did."""
    handled = sys.exc_info()[1]
    try:
        return checked_outcome(classify(result))
    except Exception as raised:
        if interrupt_in(raised, handled) is not None:
            raise
        _log.exception("circuit `%s`: the classifier raised, or gave no outcome", shortened(circuit.name))
        return Outcome.SUCCESS


def entered_before() -> ArgumentError:
    """A block is around one piece of work."""
    return ArgumentError("permit", "its block was entered before: call `permit()` for each `with`")


def context_of(context: Context | None, tenant: str | None) -> Context:
    """The context that ``breaker_for`` was given."""
    if context is None:
        context = Context()
    elif not isinstance(context, Context):
        raise ArgumentError("context", f"{type(context).__name__} is no Context")
    if tenant is None:
        return context
    if not isinstance(tenant, str):
        raise ArgumentError("tenant", f"{type(tenant).__name__} is no str")
    return context.with_value("tenant", tenant)


def checked_override(override: Override | None) -> Override | None:
    """An override as a caller gave it, or an error that names the field."""
    if override is None:
        return None
    if not isinstance(override, Override):
        raise ArgumentError("override", f"{type(override).__name__} is no Override")
    try:
        kind = OverrideKind(override.kind)
    except ValueError:
        raise ArgumentError("override.kind", f"{override.kind!r} is no OverrideKind") from None
    for name, most in (("author", 128), ("reason", 256)):
        text = getattr(override, name)
        if not isinstance(text, str):
            raise ArgumentError(f"override.{name}", f"{type(text).__name__} is no str")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise ArgumentError(f"override.{name}", "it has a lone surrogate") from None
        if size > most:
            raise ArgumentError(f"override.{name}", f"it has {size} bytes: give it {most} at most")
    until_ms = override.until_ms
    if until_ms is not None and (
        not isinstance(until_ms, int) or isinstance(until_ms, bool) or not 0 <= until_ms < 1 << 64
    ):
        raise ArgumentError("override.until_ms", f"{until_ms!r} is no time in milliseconds since the Unix epoch")
    return Override(kind, override.author, override.reason, until_ms)


def check_work(work: object, *, is_async: bool) -> None:
    """Whether a function can be run as work: its outcome is known when it returns, or when it was awaited."""
    if not callable(work):
        raise ArgumentError("work", f"{type(work).__name__} is no function")
    if inspect.isgeneratorfunction(work) or inspect.isasyncgenfunction(work):
        raise ArgumentError("work", "a generator has not run when it is made: use `permit()` around its use")
    if inspect.iscoroutinefunction(work) and not is_async:
        raise ArgumentError("work", "it is a coroutine function: use circuitry.aio")


def check_result(result: Any) -> None:
    """Whether work for threads has run when it returned."""
    if inspect.iscoroutine(result):
        result.close()
        raise ArgumentError("work", "it gave a coroutine, which has not run: use circuitry.aio")


def store_down() -> StoreError:
    """What is told where nobody can be asked."""
    return StoreError(
        "unavailable",
        "it is down, or this process is too busy to ask it, and the settings keep no local record",
    )


class PermitBase:
    """What permits for threads and for asyncio have in common."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        # Taken once, by one thread.
        self._leave = iter((True,))
        self.outcome: AnyOutcome | None = None
        """As what a ``with`` block settles it; ``None``: by how the block ends."""

    @property
    def era(self) -> int | None:
        """The era of the circuit that it belongs to; ``None`` where it was given without asking, because the store is
        down."""
        return self._hold.admitted.era

    @property
    def is_probe(self) -> bool:
        """Whether the work is a probe: its outcome decides whether the circuit closes."""
        return self._hold.is_probe

    @property
    def would_have_refused(self) -> CircuitRefused | None:
        """The refusal that an override of the kind ``metrics-only`` turned into this permit. Its outcome counts
        nothing."""
        return self._hold.admitted.would_have_refused

    def _take(self) -> None:
        if not next(self._leave, False):
            raise ArgumentError("permit", "it was settled before: a permit is settled once")

    def __del__(self) -> None:
        hold = getattr(self, "_hold", None)
        if hold is not None:
            hold.drop()
