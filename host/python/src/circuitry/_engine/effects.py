"""What the engine asks its driver to do, and the driver itself as the engine sees it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, Union

T = TypeVar("T")


@dataclass(frozen=True)
class Load:
    """Load an entry from the store within ``timeout`` seconds; sends ``Loaded``, or throws ``StoreError``."""

    circuit: str
    timeout: float


@dataclass(frozen=True)
class Swap:
    """Swap an entry within ``timeout`` seconds; sends ``Stored`` or ``Conflict``, or throws ``StoreError``."""

    circuit: str
    expected: bytes | None
    value: bytes
    ttl_ms: int | None
    timeout: float


@dataclass(frozen=True)
class Sleep:
    """Wait for so many seconds; with 0, let others run."""

    seconds: float


@dataclass(frozen=True)
class Wait:
    """Wait until the waiter is set, for ``seconds`` at most."""

    waiter: Waiter
    seconds: float


@dataclass(frozen=True)
class Announce:
    """Tell other processes that a circuit has changed, where the store can; a hint, which may be lost."""

    circuit: str
    timeout: float


Effect = Union[Load, Swap, Sleep, Wait, Announce]

Steps = Generator[Effect, Any, T]
"""Work in steps, which gives a ``T`` in the end."""


class Waiter(Protocol):
    """What one waits for, and others set: once. Setting it takes no lock, so a finalizer may do it."""

    def set(self) -> None:
        """Lets whoever waits go on."""
        ...


class Driver(Protocol):
    """Runs steps."""

    def waiter(self) -> Waiter:
        """Makes a waiter."""
        ...

    def spawn(self, steps: Steps[Any]) -> bool:
        """Runs steps in the background: nobody waits for them, and what they raise is logged. Says whether it does."""
        ...

    def caller(self) -> object:
        """Who runs the steps now: a thread, or a task."""
        ...

    def announces(self) -> bool:
        """Whether the store tells others of changes."""
        ...

    def after_fork(self) -> None:
        """In a child: whatever ran in the background is not there."""
        ...
