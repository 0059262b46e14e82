"""How the component is run: instances, traps, the cache of compiled code."""

from __future__ import annotations

import gc
import os
import stat
import threading
import weakref
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from wasmtime import WasmtimeError

from circuitry import ComponentError, Custom, Factory, SettingsError
from circuitry._wasm import raw
from circuitry._wasm.component import Component, Instance, packaged_component
from circuitry.settings import CircuitSettings
from doubles import Work, failing

SETTINGS: dict[str, Any] = CircuitSettings().to_wit()


def test_a_trap_takes_its_instance_and_nothing_else() -> None:
    component = Component(packaged_component())
    (first,) = component._idle
    request = ("inspect", {"circuit": "db", "settings": SETTINGS})
    nothing = {"entry": None, "now-ms": None}

    # More than the memory that an instance may have.
    huge = {"entry": {"value": b"x" * (8 << 20), "version": b"v"}, "now-ms": None}
    with pytest.raises(ComponentError, match="trapped"):
        component.decide(request, huge, 0, None)
    assert component._idle == []
    assert component.decide(request, nothing, 0, None)[0] == "done"
    assert component._idle[0] is not first


def test_an_instance_that_is_not_put_back_is_freed() -> None:
    component = Component(packaged_component())
    huge = {"entry": {"value": b"x" * (8 << 20), "version": b"v"}, "now-ms": None}
    trapped = weakref.ref(component._idle[0])
    with pytest.raises(ComponentError, match="trapped"):
        component.decide(("inspect", {"circuit": "db", "settings": SETTINGS}), huge, 0, None)
    # More than are kept.
    instances = [Instance(component._linked, component._engine, component._code) for _ in range(20)]
    for instance in instances:
        component._check.call(instance.store, instance.check, (SETTINGS,))
    dropped = [weakref.ref(instance) for instance in instances]
    del instance, instances
    gc.collect()
    assert [ref() for ref in [trapped, *dropped]] == [None] * 21


def test_a_call_that_runs_without_end_is_stopped(monkeypatch: Any) -> None:
    component = Component(packaged_component())
    monkeypatch.setattr("circuitry._wasm.component._FUEL", 100)
    with pytest.raises(ComponentError, match="trapped"):
        component.check(SETTINGS)


def test_a_trapped_call_leaves_the_breaker_usable(monkeypatch: Any) -> None:
    factory = Factory(failure_count_threshold=1_000)
    breaker = factory.breaker_for("db")
    permit = breaker.start()
    run = raw.Signature.call
    left = [1]

    def trapping(self: Any, *arguments: Any) -> Any:
        if left:
            left.pop()
            raise WasmtimeError("a trap")
        return run(self, *arguments)

    monkeypatch.setattr(raw.Signature, "call", trapping)
    with pytest.raises(ComponentError, match="a trap"):
        permit.end("failure")
    with pytest.raises(Work):
        breaker.execute(failing)
    assert breaker.information().counts.total_failures == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"circuit": "db"},
        {"circuit": "db", "settings": {**SETTINGS, "allow-after-ms": -1}},
        {"circuit": "db", "settings": {**SETTINGS, "allow-after-ms": 1 << 64}},
        {"circuit": 5, "settings": SETTINGS},
        {"circuit": "\ud800", "settings": SETTINGS},
        None,
    ],
)
def test_values_that_are_not_of_the_contract_raise_and_crash_nothing(broken: Any) -> None:
    component = Component.load()
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever; what matters is that there is no crash
        component.decide(("inspect", broken), {"entry": None, "now-ms": None}, 0, None)
    assert not isinstance(raised.value, ComponentError)
    assert component.check(SETTINGS) > 0


def test_many_threads_decide_at_once_each_on_an_instance_of_its_own() -> None:
    component = Component(packaged_component())
    seen: set[int] = set()
    together = threading.Barrier(6, timeout=10)

    def trips(query: Any) -> bool:
        together.wait()
        seen.add(threading.get_ident())
        return False

    settings = CircuitSettings(trip_rules=(Custom("mine", 1),)).to_wit()
    caller: dict[str, Any] = {"node": 1, "sequence": 1, "retry-of": None}
    asked: dict[str, Any] = {"circuit": "db", "settings": settings, "caller": caller}
    what, write = component.decide(("start", asked), {"entry": None, "now-ms": None}, 1_000, None)
    assert what == "write"
    era = write["answer-if-stored"][1]["verdict"][1]["era"]
    loaded = {"entry": {"value": write["value"], "version": b"v"}, "now-ms": None}
    completion: dict[str, Any] = {
        "era": era,
        "probe": None,
        "outcome": "failure",
        "slow": False,
        "count": 1,
        "retry-after-ms": None,
    }
    ask = ("end", {**asked, "caller": {**caller, "sequence": 2}, "completions": [completion]})
    threads = [threading.Thread(target=component.decide, args=(ask, loaded, 1_000, trips)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 6


@pytest.mark.parametrize("release", ["49.0.0", "51.0.0", "500.0.0", None])
def test_a_release_of_wasmtime_that_was_not_tried_is_called_the_public_way(
    release: str | None, monkeypatch: Any, caplog: Any
) -> None:
    def version(package: str) -> str:
        if release is None:
            raise PackageNotFoundError(package)
        return release

    def laid(*_: Any) -> Any:
        raise AssertionError("its structures are laid out")

    right = Component.load().check(SETTINGS)
    monkeypatch.setattr(raw, "version", version)
    monkeypatch.setattr(raw.Signature, "call", laid)
    assert Component(packaged_component()).check(SETTINGS) == right
    assert "was not tried" in caplog.text


@pytest.mark.parametrize("fault", ["answers", "raises"])
def test_where_the_two_ways_to_call_differ_the_public_one_is_gone(fault: str, monkeypatch: Any, caplog: Any) -> None:
    right = Component.load().check(SETTINGS)

    def faulty(*_: Any) -> Any:
        if fault == "raises":
            raise KeyError("fields")
        return "done", ("inspected", {})

    monkeypatch.setattr(raw.Signature, "call", faulty)
    component = Component(packaged_component())
    assert component.check(SETTINGS) == right
    assert "do not answer as its public way" in caplog.text


def test_the_component_is_compiled_once_a_process() -> None:
    assert Component.load() is Component.load()
    assert Factory()._node.component is Component.load()


# ---- the cache ----


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def load_anew(folder: Path) -> Component:
    Component._loaded.clear()
    return Component.load(cache_folder=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir(mode=0o700)
    return made


def test_compiled_code_is_kept_and_loaded(folder: Path, monkeypatch: Any) -> None:
    load_anew(folder)
    kept = only_file(folder)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    monkeypatch.setattr("circuitry._wasm.cache.Component", _MustNotCompile)
    component = load_anew(folder)
    assert component.check(SETTINGS) == Factory(component_cache=folder)._node.fingerprint


class _MustNotCompile:
    def __init__(self, *_: Any) -> None:
        raise AssertionError("it is compiled again")

    @staticmethod
    def deserialize(engine: Any, code: bytes) -> Any:
        from wasmtime.component import Component as Compiled

        return Compiled.deserialize(engine, code)


def test_a_damaged_file_is_compiled_anew_and_replaced(folder: Path, caplog: Any) -> None:
    load_anew(folder)
    kept = only_file(folder)
    whole = kept.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1] + b"x", os.urandom(1_000)):
        kept.write_bytes(damaged)
        load_anew(folder).check(SETTINGS)
        assert len(kept.read_bytes()) == len(whole)
    assert "damaged" in caplog.text


def test_a_folder_or_a_file_that_others_may_write_is_refused(folder: Path) -> None:
    load_anew(folder)
    kept = only_file(folder)
    kept.chmod(0o622)
    for path in (kept, folder):
        path.chmod(0o777 if path is folder else 0o622)
        with pytest.raises(SettingsError, match="others may write") as raised:
            load_anew(folder)
        assert raised.value.field == "component_cache"
        path.chmod(0o700 if path is folder else 0o600)
    load_anew(folder)


def test_a_file_of_another_user_is_refused(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    load_anew(folder)
    os.chown(only_file(folder), 12_345, 12_345)
    with pytest.raises(SettingsError, match="another user"):
        load_anew(folder)


def test_a_link_is_not_followed(folder: Path, tmp_path: Path, caplog: Any) -> None:
    load_anew(folder)
    kept = only_file(folder)
    elsewhere = tmp_path / "elsewhere"
    kept.rename(elsewhere)
    kept.symlink_to(elsewhere)
    load_anew(folder)
    assert not kept.is_symlink(), "it is replaced"


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path, monkeypatch: Any, caplog: Any) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    load_anew(folder).check(SETTINGS)
    assert "cannot be kept" in caplog.text


def test_a_component_of_a_file_is_run(tmp_path: Path) -> None:
    copy = tmp_path / "copy.wasm"
    copy.write_bytes(packaged_component())
    assert Factory(component_path=copy).breaker_for("db").execute(int) == 0
