"""The calls of a breaker in steps, beside starts and ends."""

from __future__ import annotations

import dataclasses
from typing import Any

from ._engine import ballot
from ._engine.call import Inspect, Operation, Reset, SetOverride
from ._engine.circuit import Circuit
from ._engine.effects import Steps
from ._engine.exchange import wrong_answer
from ._engine.node import Node
from ._work import store_down
from .state import Information, Override


def information(node: Node, circuit: Circuit) -> Steps[Information]:
    """Everything that is known of the circuit."""
    who, answer = yield from node.ask(circuit, Inspect())
    if who == "nobody":
        raise store_down()
    if answer[0] != "inspected":
        raise wrong_answer()
    seen = Information.from_wit(answer[1])
    if who == "local":
        said = f"{seen.explanation} So says this process's own record; the store was not asked."
        seen = dataclasses.replace(seen, local=True, explanation=said)
    return ballot.look(node, circuit, seen)


def set_override(node: Node, circuit: Circuit, override: Override | None) -> Steps[Override | None]:
    """Forces the circuit, or takes the force away."""
    answer = yield from _ask_shared(node, circuit, SetOverride(override), "overridden")
    return Override.from_wit(answer["previous"])


def reset(node: Node, circuit: Circuit) -> Steps[Override | None]:
    """Closes the circuit as if it were new."""
    answer = yield from _ask_shared(node, circuit, Reset(), "cleared")
    return Override.from_wit(answer["previous"])


def _ask_shared(node: Node, circuit: Circuit, operation: Operation, kind: str) -> Steps[Any]:
    answer = yield from node.ask_shared(circuit, operation)
    node.announce(circuit, answer, local=False)
    if answer[0] != kind:
        raise wrong_answer()
    return answer[1]
