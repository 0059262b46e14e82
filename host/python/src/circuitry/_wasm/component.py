"""The component: compiled once a process, run in instances that are taken, used and put back.

Invariant: an instance is used by one thread at a time.

Invariant: a call that trapped, or was interrupted, takes its instance with it, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from wasmtime import Config, Engine, Store, WasmtimeError
from wasmtime import component as wit

from .._interrupts import interrupt_in
from ..errors import ComponentError, SettingsError
from ..policy import TripFunction, TripInformation
from ..state import Counts
from . import cache, raw, trial
from .values import lifting, lowering

BREAKER = "circuitry:breaker/breaker@0.1.0"
EXCHANGE = "circuitry:breaker/exchange@0.1.0"
STORE = "circuitry:breaker/store@0.1.0"
HOOKS = "circuitry:breaker/hooks@0.1.0"

# A decision takes some ten thousand units; one over 256 completions and the widest windows a few million.
_FUEL = 200_000_000
_MEMORY_BYTES = 4 << 20
# Instances that are kept for later; more are made while more threads decide at once.
_KEPT = 8

_log = logging.getLogger("circuitry")

Values = dict[str, Any]
Decision = tuple[Literal["done", "write"], Any]
WillTrip = Callable[[Values], bool]


def packaged(name: str) -> bytes:
    """A file that the package brings along."""
    try:
        return files("circuitry").joinpath("_data").joinpath(name).read_bytes()
    except OSError as error:
        raise ComponentError(
            f"the package lacks its file {name} ({error}): install it again; in a clone of the project, "
            "pip install -e host/python puts it there"
        ) from None


def packaged_component() -> bytes:
    """circuitry.wasm, whole."""
    wasm = packaged("circuitry.wasm")
    if hashlib.sha256(wasm).hexdigest() != packaged("circuitry.wasm.sha256").decode().split()[0]:
        raise ComponentError("the package's circuitry.wasm is damaged: install the package again")
    return wasm


class Function:
    """An exported function: calls by way of wasmtime's C structures, or its public way."""

    def __init__(self, store: Store, function: wit.Func, *, public: bool = False) -> None:
        kind = function.type(store)
        self.parameters = [parameter for _, parameter in kind.params]
        self.is_public = public
        self._signature = None if public else raw.Signature(store, function)
        if self._signature is None:
            self._lower = [lowering(parameter) for parameter in self.parameters]
            self._lift = lifting(kind.result)

    def call(self, store: Store, function: wit.Func, arguments: tuple[Any, ...]) -> Any:
        """Calls; a trap is wasmtime's error."""
        if self._signature is not None:
            return self._signature.call(store, function, arguments)
        lowered = [lower(argument) for lower, argument in zip(self._lower, arguments, strict=True)]
        return self._lift(function(store, *lowered))

    def laid(self, kind: wit.ValType, value: Any) -> Any:
        """A value made ready for many calls."""
        return value if self._signature is None else raw.Laid(kind, value)


class Instance:
    """An instance, and the functions of it that this host calls."""

    def __init__(self, linked: Callable[[Instance], wit.Linker], engine: Engine, code: wit.Component) -> None:
        self.will_trip: WillTrip | None = None
        self.interrupted: BaseException | None = None
        self.store = Store(engine)
        self.store.set_limits(memory_size=_MEMORY_BYTES)
        self.store.set_fuel(_FUEL)
        self._linker = linked(self)
        self.instance = self._linker.instantiate(self.store, code)
        self.decide = self.function(EXCHANGE, "decide")
        self.check = self.function(BREAKER, "check")

    def function(self, interface: str, name: str) -> wit.Func:
        """An exported function."""
        exported = self.instance.get_export_index(self.store, interface)
        index = exported and self.instance.get_export_index(self.store, name, exported)
        function = index and self.instance.get_func(self.store, index)
        if not function:
            raise ComponentError(f"the component does not export {interface}#{name}: it is of another version")
        return function

    def asked(self, query: Any) -> bool:
        """Answers ``hooks.will-trip``. It raises nothing: there is wasm code between it and its caller."""
        counts = query.counts
        plain = {
            "circuit": query.circuit,
            "rule": {"name": query.rule.name, "version": query.rule.version},
            "failure-count-threshold": getattr(query, "failure-count-threshold"),
            "generation": query.generation,
            "counts": dict(vars(counts)),
        }
        by_default: bool = plain["counts"]["consecutive-failures"] > plain["failure-count-threshold"]
        if self.will_trip is None:
            return by_default
        handled = sys.exc_info()[1]
        try:
            return bool(self.will_trip(plain))
        except BaseException as error:
            self.interrupted = interrupt_in(error, handled)
            if self.interrupted is None:
                _log.exception("the trip function raised; the rule of the consecutive failures stands in for it")
        return by_default


class Component:
    """The compiled component with its instances. :meth:`load` gives the one of a file to all who ask for it."""

    _loaded: ClassVar[dict[tuple[str, str], Component]] = {}
    _loading = threading.Lock()

    def __init__(self, wasm: bytes, cache_folder: str | os.PathLike[str] | None = None) -> None:
        config = Config()
        config.consume_fuel = True
        # A pool of threads would not be there in a forked child that compiles.
        config.parallel_compilation = False
        if cache_folder is None:
            # What is compiled for one process is compiled quickly.
            config.cranelift_opt_level = "none"
            config.cranelift_flag_set("regalloc_algorithm", "single_pass")
        self._engine = Engine(config)
        try:
            if cache_folder is None:
                self._code = wit.Component(self._engine, wasm)
            else:
                self._code = cache.compiled(self._engine, wasm, cache_folder, "fuel")
            self._idle: list[Instance] = []
            first = Instance(self._linked, self._engine, self._code)
            self._decide = self._tried(first)
            self._check = Function(first.store, first.check, public=self._decide.is_public)
        except WasmtimeError as error:
            raise ComponentError(f"the component cannot be used: {error}") from None
        self._settings_type = self._check.parameters[0]
        self._idle.append(first)

    def _tried(self, instance: Instance) -> Function:
        """``decide`` by way of wasmtime's C structures, where that answers a trial as the public way does."""
        store, decide = instance.store, instance.decide
        public = Function(store, decide, public=True)
        if not raw.is_known():
            _log.warning("this release of wasmtime was not tried: each decision takes some milliseconds longer")
            return public
        expected = public.call(store, decide, trial.ARGUMENTS)
        # What goes wrong there must not reach the instance that is kept.
        tried = Instance(self._linked, self._engine, self._code)
        answer: Any
        try:
            function = Function(tried.store, tried.decide)
            answer = function.call(tried.store, tried.decide, trial.ARGUMENTS)
        except Exception as error:
            if interrupt_in(error) is not None:
                raise
            answer = error
        if answer == expected:
            return function
        _log.error(
            "calls by way of wasmtime's C structures do not answer as its public way does, so that one is gone: each "
            "decision takes some milliseconds longer; the answer was %.200r",
            answer,
        )
        return public

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, cache_folder: str | os.PathLike[str] | None = None
    ) -> Component:
        """The component of a file, by default the one that the package brings along; compiled once a process."""
        try:
            wasm = packaged_component() if path is None else Path(path).read_bytes()
        except OSError as error:
            raise SettingsError("component_path", f"it cannot be read: {error}") from None
        key = (hashlib.sha256(wasm).hexdigest(), "" if cache_folder is None else os.fspath(cache_folder))
        with cls._loading:
            found = cls._loaded.get(key)
            if found is None:
                try:
                    found = cls._loaded[key] = cls(wasm, cache_folder)
                except ComponentError as error:
                    if path is None:
                        raise
                    raise SettingsError("component_path", str(error)) from None
            return found

    def _linked(self, instance: Instance) -> wit.Linker:
        linker = wit.Linker(self._engine)

        def none_here(*_: Any) -> wit.Variant:
            return wit.Variant("other", "this host drives the steps itself; the component is not to ask")

        # wasmtime holds these functions until the linker is gone, and the instance holds that.
        asks = weakref.ref(instance)

        def will_trip(_: Any, query: Any) -> bool:
            asked = asks()
            return asked is not None and asked.asked(query)

        with linker.root() as root:
            with root.add_instance(STORE) as store:
                store.add_func("load", none_here)
                store.add_func("swap", none_here)
            with root.add_instance(HOOKS) as hooks:
                hooks.add_func("will-trip", will_trip)
        return linker

    def settings(self, settings: Values) -> Any:
        """Settings made ready for many calls."""
        return self._check.laid(self._settings_type, settings)

    def check(self, settings: Values) -> int:
        """The fingerprint of settings. Raises :class:`SettingsError` with the field as ``wit/`` names it."""
        outcome, value = self._run("check", (settings,), None)
        if outcome == "err":
            raise SettingsError(value["field"], value["problem"])
        fingerprint: int = value
        return fingerprint

    def decide(self, request: tuple[str, Values], loaded: Values, now_ms: int, will_trip: WillTrip | None) -> Decision:
        """``exchange.decide``."""
        decision: Decision = self._run("decide", (request, loaded, now_ms), will_trip)
        return decision

    def _run(self, name: Literal["check", "decide"], arguments: tuple[Any, ...], will_trip: WillTrip | None) -> Any:
        try:
            instance = self._idle.pop()
        except IndexError:
            instance = Instance(self._linked, self._engine, self._code)
        instance.will_trip = will_trip
        instance.store.set_fuel(_FUEL)
        try:
            if name == "decide":
                answer = self._decide.call(instance.store, instance.decide, arguments)
            else:
                answer = self._check.call(instance.store, instance.check, arguments)
        except WasmtimeError as error:
            raise ComponentError(f"the component trapped: {error}") from None
        if instance.interrupted is not None:
            raise instance.interrupted
        instance.will_trip = None
        if len(self._idle) < _KEPT:
            self._idle.append(instance)
        return answer


def _after_fork_in_child() -> None:
    # Somebody else may have held it.
    Component._loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def will_trip_by(function: TripFunction | None) -> WillTrip | None:
    """The hook that asks a trip function, where the settings in force name it."""
    if function is None:
        return None

    def will_trip(query: Values) -> bool:
        counts = Counts.from_wit(query["counts"])
        threshold = query["failure-count-threshold"]
        if query["rule"] != {"name": function.name, "version": function.version}:
            return counts.consecutive_failures > int(threshold)
        return bool(function.trips(TripInformation(query["circuit"], threshold, query["generation"], counts)))

    return will_trip
