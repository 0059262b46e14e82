"""What a decision costs in this host: one JSON line for each measure, in microseconds.

    python host/python/bench.py [rounds]

A round makes each decision some hundred times on the usual record: closed, 32 remembered calls. Told are the median
over the rounds, and the least and the most.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from circuitry import Factory
from circuitry._engine.call import Completion, End, Grant, Start
from circuitry._wasm.component import Component, packaged_component
from circuitry.outcome import Outcome
from circuitry.store import Entry, Loaded, mint_version

CALLS_A_ROUND = 300
NOW_MS = 1_800_000_000_000


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    factory = Factory()
    node = factory._node
    circuit = node.circuit("emails", factory.breaker_for("emails")._circuit.context)

    def decide(operation: Start | End, seen: Loaded) -> tuple[str, Any]:
        return node.decide(circuit, operation, node.token(operation), None, seen, NOW_MS)

    def written(decision: tuple[str, Any]) -> Loaded:
        return Loaded(Entry(decision[1]["value"], mint_version()))

    first = decide(Start(1), Loaded(None))
    seen = written(first)
    era = first[1]["answer-if-stored"][1]["verdict"][1]["era"]
    success = End([Completion(Grant(era, None), Outcome.SUCCESS, False)])
    for _ in range(40):
        seen = written(decide(success, seen))

    def start() -> None:
        decide(Start(2), seen)

    def start_and_end() -> None:
        decide(Start(2), seen)
        decide(success, seen)

    def execute() -> None:
        breaker.execute(int)

    breaker = factory.breaker_for("memory")
    measures: list[tuple[str, Callable[[], None]]] = [
        ("exchange.decide of a start", start),
        ("exchange.decide of a start and of an end", start_and_end),
        ("execute on the memory store", execute),
    ]
    for name, measured in measures:
        figures = [_microseconds(measured) for _ in range(rounds)]
        _tell(name, figures, CALLS_A_ROUND)
    compiled = []
    for _ in range(3):
        compiled.append(_microseconds(lambda: Component(packaged_component()), 1))
    _tell("compiling the component, once a process", compiled, 1)


def _microseconds(measured: Callable[[], object], calls: int = CALLS_A_ROUND) -> tuple[float, float]:
    """The time of a call, and the processor's share of it: on a busy machine they differ."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    for _ in range(calls):
        measured()
    took, cpu_took = time.perf_counter() - begun, time.process_time() - cpu_begun
    return took / calls * 1_000_000, cpu_took / calls * 1_000_000


def _tell(name: str, both: list[tuple[float, float]], calls: int) -> None:
    figures = [took for took, _ in both]
    line = {
        "host": "python",
        "measure": name,
        "unit": "us",
        "median": round(statistics.median(figures), 1),
        "least": round(min(figures), 1),
        "most": round(max(figures), 1),
        "processor_median": round(statistics.median(cpu_took for _, cpu_took in both), 1),
        "rounds": len(figures),
        "calls_a_round": calls,
        "python": sys.version.split()[0],
        "wasmtime": version("wasmtime"),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
