"""What an exception is that comes out of a store's call: the store's error, or somebody else's."""

from __future__ import annotations

from ._engine.effects import Effect, Sleep, Swap, Wait
from ._interrupts import interrupt_in
from .errors import StoreError


def is_ours(store: object) -> bool:
    """Whether a store is one of this package, which raises nothing but :class:`StoreError`."""
    return type(store).__module__.partition(".")[0] == __name__.partition(".")[0]


def failed_by(
    effect: Effect, raised: Exception, handled: BaseException | None, *, is_ours: bool, late: StoreError | None = None
) -> StoreError:
    """The store's error that an exception of an effect is. What is none is raised: it is for whoever calls.

    A store of this package raises a :class:`StoreError`, so whatever else comes out of it comes from elsewhere. Of a
    store of somebody else's, what a signal's handler has raised is told by its traceback, also where the store has made
    an error of its own of it; the rest is taken for a bug of that store.
    """
    interrupt = interrupt_in(raised, handled)
    if interrupt is not None:
        raise interrupt
    if isinstance(raised, StoreError):
        return raised
    if late is not None:
        late.__cause__ = raised
        return late
    if is_ours or isinstance(effect, (Sleep, Wait)):
        raise raised
    # Whoever swaps and raises may have written.
    text = f"its code raised {type(raised).__name__}: {raised}"
    failed = StoreError("unknown" if isinstance(effect, Swap) else "other", text)
    failed.__cause__ = raised
    return failed
