"""The golden vectors of ``tests/vectors``, run on the component in wasmtime, as their README says."""

from __future__ import annotations

import copy
import json
from collections import deque
from pathlib import Path
from typing import Any, Literal

from wasmtime import Config, Engine, Store
from wasmtime import component as wit

from circuitry._wasm import component as host
from circuitry._wasm import values

FOLDER = Path(__file__).parents[3] / "tests" / "vectors"
NO_VECTORS = {"hostile.json", "records.json", "records-schema-1.json"}
TRIES_MAX = 8
Way = Literal["breaker", "exchange"]
Plain = dict[str, Any]


def read(name: str) -> Any:
    """A file of the vectors."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def vectors() -> list[tuple[str, Plain]]:
    """Every vector with the file that it is in."""
    files = sorted(path.name for path in FOLDER.glob("*.json") if path.name not in NO_VECTORS)
    return [(name, vector) for name in files for vector in read(name)]


class Memory:
    """A store in memory whose versions are the same in every run, and that fails on demand."""

    def __init__(self) -> None:
        self.entries: dict[str, Plain] = {}
        self.clock_ms: int | None = None
        self.down = False
        self.faults: deque[str] = deque()
        self.loads = 0
        self.swaps = 0
        self.ttl_ms: int | None = None
        self._versions = 0

    def loaded(self, circuit: str) -> Plain:
        """What a load would answer; not counted, and no failure."""
        return {"entry": self.entries.get(circuit), "now-ms": self.clock_ms}

    def load(self, circuit: str) -> tuple[str, Any]:
        """As in ``wit/``."""
        self.loads += 1
        return ("err", ("unavailable", "it is down")) if self.down else ("ok", self.loaded(circuit))

    def swap(self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None) -> tuple[str, Any]:
        """As in ``wit/``."""
        self.swaps += 1
        fault = self.faults.popleft() if self.faults else "none"
        errors = {
            "write-lost": ("unknown", "no answer"),
            "unavailable": ("unavailable", "it is down"),
            "denied": ("denied", "no permission"),
        }
        if fault in errors:
            return "err", errors[fault]
        if fault == "race":
            there = self.entries.get(circuit)
            self.put(circuit, value if there is None else there["value"])
        there = self.entries.get(circuit)
        if (None if there is None else there["version"]) != expected:
            return "ok", ("conflict", self.loaded(circuit))
        version = self.put(circuit, value)
        self.ttl_ms = ttl_ms
        if fault == "answer-lost":
            return "err", ("unknown", "no answer")
        return "ok", ("stored", {"version": version, "now-ms": self.clock_ms})

    def put(self, circuit: str, value: bytes) -> bytes:
        """Writes without asking, as somebody else would."""
        self._versions += 1
        version = self._versions.to_bytes(8, "big")
        self.entries[circuit] = {"value": value, "version": version}
        return version


def will_trip(query: Plain) -> bool:
    """The four trip rules that vectors name."""
    counts = query["counts"]
    name = query["rule"]["name"]
    if name == "every-third-failure":
        return bool(counts["total-failures"] % 3 == 0)
    if name == "half-of-four":
        return bool(counts["total"] >= 4 and counts["total-failures"] * 2 >= counts["total"])
    return bool(name == "always")


class Machine:
    """An instance of the component with a store in memory; ``public`` calls the way that wasmtime documents."""

    _code: dict[bool, tuple[Engine, wit.Component]] = {}  # noqa: RUF012 - compiled once

    def __init__(self, *, public: bool = False) -> None:
        if not self._code:
            engine = Engine(Config())
            self._code[True] = (engine, wit.Component(engine, host.packaged_component()))
        engine, code = self._code[True]
        self.memory = Memory()
        self._public = public
        self._store = Store(engine)
        self._instance = self._link(engine).instantiate(self._store, code)
        self._functions: dict[str, tuple[wit.Func, host.Function]] = {}

    def _link(self, engine: Engine) -> wit.Linker:
        linker = wit.Linker(engine)
        kinds = _import_types(engine, self._code[True][1])
        with linker.root() as root:
            with root.add_instance(host.STORE) as store:
                for name in ("load", "swap"):
                    store.add_func(name, _imported(kinds[name], getattr(self.memory, name)))
            with root.add_instance(host.HOOKS) as hooks:
                hooks.add_func("will-trip", _imported(kinds["will-trip"], will_trip))
        return linker

    def _function(self, interface: str, name: str) -> tuple[wit.Func, host.Function]:
        found = self._functions.get(name)
        if found is None:
            exported = self._instance.get_export_index(self._store, interface)
            assert exported is not None
            index = self._instance.get_export_index(self._store, name, exported)
            assert index is not None
            function = self._instance.get_func(self._store, index)
            assert function is not None
            found = self._functions[name] = (function, host.Function(self._store, function, public=self._public))
        return found

    def _call(self, interface: str, name: str, arguments: list[Any]) -> Any:
        function, call = self._function(interface, name)
        # The vectors are JSON; the types say what a value is.
        lowered = [from_json(kind, value) for kind, value in zip(call.parameters, arguments, strict=True)]
        return call.call(self._store, function, tuple(lowered))

    def check(self, settings: Plain) -> tuple[str, Any]:
        """``breaker.check``."""
        answer: tuple[str, Any] = self._call(host.BREAKER, "check", [settings])
        return answer

    def decide(self, request: Plain, loaded: Plain, now_ms: int) -> tuple[str, Any]:
        """``exchange.decide``."""
        decision: tuple[str, Any] = self._call(host.EXCHANGE, "decide", [request, loaded, now_ms])
        return decision

    def call(self, request: Plain, known: Plain | None, now_ms: int) -> tuple[str, Any]:
        """The function of ``breaker`` that the request names, against the memory."""
        ((name, ask),) = request.items()
        more = {
            "end": ["completions"],
            "renew": ["era", "probes"],
            "set-override": ["override"],
            "vote": ["era", "node-id"],
        }
        arguments = [ask["circuit"], ask["settings"], *([] if name == "inspect" else [ask["caller"]]), known]
        arguments += [ask.get(field) for field in more.get(name, [])]
        answer: tuple[str, Any] = self._call(host.BREAKER, name, [*arguments, now_ms])
        return answer

    def call_in_steps(self, request: Plain, known: Plain | None, now_ms: int) -> tuple[str, Any]:
        """The same call by the loop that ``wit/exchange.wit`` describes."""
        (ask,) = request.values()
        circuit = ask["circuit"]
        unverified = known is not None
        seen = known
        if seen is None:
            what, seen = self.memory.load(circuit)
            if what == "err":
                return "err", _failure(("store", seen), None)
        for _ in range(TRIES_MAX):
            # A later time is kept through a conflict that tells none.
            now_ms = max(now_ms, seen["now-ms"] or 0)
            what, decided = self.decide(request, seen, now_ms)
            if what == "done":
                kind, answer = decided
                if kind == "failed":
                    return "err", _failure(answer, seen)
                if unverified and _denies(kind, answer):
                    unverified = False
                    what, loaded = self.memory.load(circuit)
                    if what == "err":
                        return "err", _failure(("store", loaded), seen)
                    seen = loaded
                    continue
                return "ok", (answer, seen)
            expected = None if seen["entry"] is None else seen["entry"]["version"]
            outcome, swapped = self.memory.swap(circuit, expected, decided["value"], decided["ttl-ms"])
            if outcome == "err":
                revision = decided["based-on"] if swapped[0] == "unknown" else None
                return "err", _failure(("store", swapped), seen, revision)
            what, fresh = swapped
            if what == "stored":
                entry = {"value": decided["value"], "version": fresh["version"]}
                return "ok", (decided["answer-if-stored"][1], {"entry": entry, "now-ms": fresh["now-ms"]})
            unverified = False
            seen = fresh
        return "err", _failure(("contention", None), seen)


def _failure(error: tuple[str, Any], seen: Plain | None, revision: int | None = None) -> Plain:
    return {"error": error, "last-seen": seen, "revision": revision}


def _denies(kind: str, answer: Plain) -> bool:
    if kind == "settled":
        return any(disposition["stale"] > 0 for disposition in answer["dispositions"])
    if kind == "renewed":
        return any(deadline is None for deadline in answer["deadlines"])
    return kind == "voted" and not answer["accepted"]


def _import_types(engine: Engine, code: wit.Component) -> dict[str, wit.FuncType]:
    kinds: dict[str, wit.FuncType] = {}
    imports = code.type.imports(engine)
    for interface in (host.STORE, host.HOOKS):
        instance = imports[interface].ty
        assert isinstance(instance, wit.ComponentInstanceType)
        for name, item in instance.exports(engine).items():
            kind = item.ty
            if isinstance(kind, wit.FuncType):
                kinds[name] = kind
    return kinds


def _imported(kind: wit.FuncType, function: Any) -> Any:
    """A function of plain values as wasmtime calls it."""
    lifts = [values.lifting(parameter) for _, parameter in kind.params]
    lower = values.lowering(kind.result)

    def call(_store: Any, *arguments: Any) -> Any:
        return lower(function(*(lift(argument) for lift, argument in zip(lifts, arguments, strict=True))))

    return call


# ---- values of the vectors ----

DEFAULT_POLICIES = {
    "trip-rules": [],
    "jitter-per-mille": 0,
    "retry-after-max-ms": 600_000,
}
DEFAULTS: dict[str, Any] = {"slow": False, "settings-revision": 0, **DEFAULT_POLICIES}


def from_json(kind: wit.ValType | None, value: Any) -> Any:
    """A value as the vectors write it, as a plain value of its type. What is plain already stays as it is."""
    if kind is None:
        return None
    if type(kind) in values.INTEGERS:
        return int(value)
    if isinstance(kind, wit.RecordType):
        return {name: from_json(field, _field(field, name, value)) for name, field in kind.fields}
    if isinstance(kind, wit.OptionType):
        return None if value is None else from_json(kind.payload, value)
    if isinstance(kind, wit.ListType):
        return value if values.is_bytes(kind) else [from_json(kind.element, item) for item in value]
    if isinstance(kind, (wit.VariantType, wit.ResultType)):
        cases = dict(values.cases_of(kind))
        if isinstance(value, tuple):
            name, payload = value
        elif isinstance(value, str):
            name, payload = value, None
        else:
            ((name, payload),) = value.items()
        return name, from_json(cases[name], payload)
    return value


def _field(kind: wit.ValType, name: str, value: Plain) -> Any:
    if name in value:
        return value[name]
    return None if isinstance(kind, wit.OptionType) else DEFAULTS[name]


def to_json(value: Any) -> Any:
    """A plain value as the vectors write it."""
    if isinstance(value, dict):
        return {name: to_json(field) for name, field in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, tuple):
        name, payload = value
        return name if payload is None else {name: to_json(payload)}
    return value


def matches(expected: Any, found: Any, place: str) -> str | None:
    """Compares as far as ``expected`` goes: an object may leave fields out, a list may not. Says what differs."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, field in expected.items():
            if name not in found:
                return f"{place}.{name} is not there"
            problem = matches(field, found[name], f"{place}.{name}")
            if problem is not None:
                return problem
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (item, value) in enumerate(zip(expected, found, strict=True)):
            problem = matches(item, value, f"{place}[{index}]")
            if problem is not None:
                return problem
        return None
    if isinstance(expected, str) and isinstance(found, str) and expected.startswith("…"):
        equal = expected.strip("…") in found
    elif {type(expected), type(found)} == {int, str}:
        equal = str(expected) == str(found)
    else:
        equal = type(expected) is type(found) and expected == found
    return None if equal else f"{place}: expected {expected!r}, found {found!r}"


# ---- running ----


def run(vector: Plain, machine: Machine, way: Way) -> dict[str, str]:
    """Runs a vector; gives what is stored after it, in hexadecimal digits, by circuit."""
    names: dict[str, Plain] = {"nothing": {"entry": None, "now-ms": None}}
    for index, step in enumerate(vector["steps"]):
        problem = _step(vector, step, machine, way, names)
        assert problem is None, f"{vector['name']}: step {index + 1} by {way}: {problem}"
    return {circuit: entry["value"].hex() for circuit, entry in machine.memory.entries.items()}


def _step(vector: Plain, step: Plain, machine: Machine, way: Way, names: dict[str, Plain]) -> str | None:
    unknown = step.keys() - {
        "call", "at-ms", "circuit", "settings", "seen", "store-at-ms", "down", "swaps-meet", "answer", "failure",
        "loads", "swaps", "ttl-ms", "leaves",
    }  # fmt: skip
    assert not unknown, f"a step has fields that this runner does not know: {unknown}"
    circuit = step.get("circuit", "upstream")
    settings: Plain = step["settings"] if "settings" in step else vector["settings"]
    memory = machine.memory
    store_at_ms = step.get("store-at-ms")
    memory.clock_ms = None if store_at_ms is None else int(store_at_ms)
    memory.down = step.get("down", False)
    memory.faults = deque(step.get("swaps-meet", []))
    memory.loads = memory.swaps = 0
    known = copy.deepcopy(names[step["seen"]]) if "seen" in step else None
    ((call, ask),) = step["call"].items()
    if call == "lose":
        memory.entries.pop(circuit, None)
        return None
    if call == "check":
        what, value = machine.check(settings)
        found = to_json(value)
    else:
        request = {call: {"circuit": circuit, "settings": settings, **ask}}
        if call == "set-override":
            request[call].setdefault("override", None)
        run_call = machine.call if way == "breaker" else machine.call_in_steps
        what, value = run_call(request, known, int(step["at-ms"]))
        if what == "ok":
            value, seen = value
            if ("seen" not in step or memory.swaps > 0) and seen != memory.loaded(circuit):
                return f"the entry last seen is {seen}, stored is {memory.loaded(circuit)}"
        found = to_json(value)
    expectation = "answer" if what == "ok" else "failure"
    if step.keys() & {"answer", "failure"} != {expectation}:
        return f"unexpected: {what} {found}"
    problem = matches(step[expectation], found, expectation)
    if problem is not None:
        return problem
    if "loads" in step and way == "breaker" and step["loads"] != memory.loads:
        return f"loads: expected {step['loads']}, found {memory.loads}"
    if "swaps" in step and step["swaps"] != memory.swaps:
        return f"swaps: expected {step['swaps']}, found {memory.swaps}"
    if "ttl-ms" in step:
        problem = matches(step["ttl-ms"], memory.ttl_ms, "ttl-ms")
    if "leaves" in step:
        # Its time is left out: a host keeps that apart.
        names[step["leaves"]] = copy.deepcopy({**memory.loaded(circuit), "now-ms": None})
    return problem
