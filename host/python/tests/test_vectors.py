"""The golden vectors, through ``breaker`` and through ``exchange``, by both ways of calling wasmtime."""

from __future__ import annotations

import copy
from typing import Any

import cbor2
import pytest

from circuitry import Context, default_name
from circuitry._wasm import raw
from vectors import Machine, Way, matches, read, run, to_json, vectors

VECTORS = vectors()
RECORDS = read("records.json")


def _id(value: object) -> str:
    return value["name"] if isinstance(value, dict) else str(value).removesuffix(".json")


@pytest.mark.parametrize("way", ["breaker", "exchange"])
@pytest.mark.parametrize(("file", "vector"), VECTORS, ids=_id)
def test_the_component_keeps_to_the_vectors(file: str, vector: dict[str, Any], way: Way) -> None:
    stored = run(vector, Machine(), way)
    assert stored == RECORDS[vector["name"]], f"{file}: the record's bytes differ"


@pytest.mark.parametrize("file", sorted({file for file, _ in VECTORS}))
def test_the_public_way_of_calling_keeps_to_the_vectors(file: str) -> None:
    """It stands in where wasmtime's structures are others than those that are laid out."""
    # It takes milliseconds a call, so of each file it runs a few.
    of_file = [vector for name, vector in VECTORS if name == file]
    for vector in of_file[:: max(1, len(of_file) // 4)]:
        for way in ("breaker", "exchange"):
            assert run(vector, Machine(public=True), way) == RECORDS[vector["name"]]


def test_the_structures_of_this_wasmtime_are_known() -> None:
    assert raw.is_known()


def test_every_vector_was_run_and_no_record_is_left_over() -> None:
    names = [vector["name"] for _, vector in VECTORS]
    assert len(names) == len(set(names)) >= 200
    assert set(names) == set(RECORDS)


def test_a_wrong_expectation_fails() -> None:
    found = {"a": [1, {"b": "x"}], "c": 18446744073709551615, "d": None}
    same: list[Any] = [
        {},
        {"a": [1, {}]},
        {"a": [1, {"b": "x"}], "c": "18446744073709551615", "d": None},
        {"a": [1, {"b": "…x…"}]},
    ]
    other: list[Any] = [
        {"a": [1]},
        {"a": [1, {"b": "y"}]},
        {"a": [1, {"e": None}]},
        {"a": {"b": "x"}},
        {"c": 5},
        {"a": [1, {"b": "…y…"}]},
        {"d": 0},
        {"d": False},
        {"e": None},
    ]
    for expected in same:
        assert matches(expected, found, "it") is None
    for expected in other:
        assert matches(expected, found, "it") is not None, expected
    _, vector = VECTORS[0]
    for index in range(len(vector["steps"])):
        wrong = copy.deepcopy(vector)
        wrong["steps"][index]["answer"] = {"at-ms": 1}
        with pytest.raises(AssertionError):
            run(wrong, Machine(), "breaker")


def requests(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One request of each kind."""
    token = {"node": 1, "sequence": 1}
    asked = {"circuit": "upstream", "settings": settings}
    called = {**asked, "caller": {**token, "retry-of": None}}
    completion = {"era": 1, "probe": None, "outcome": "success", "slow": False, "count": 1, "retry-after-ms": None}
    return [
        {"start": called},
        {"end": {**called, "completions": [completion]}},
        {"renew": {**called, "era": 1, "probes": [token]}},
        {"inspect": asked},
        {"set-override": {**called, "override": None}},
        {"vote": {**called, "era": 1, "node-id": "a"}},
        {"reset": called},
    ]


@pytest.mark.parametrize("hostile", read("hostile.json"), ids=_id)
def test_bytes_that_are_no_record_fail_each_call_and_stay_as_they_are(hostile: dict[str, Any]) -> None:
    machine = Machine()
    machine.memory.put("upstream", bytes.fromhex(hostile["bytes"]))
    before = copy.deepcopy(machine.memory.entries)
    for request in requests(VECTORS[0][1]["settings"]):
        loaded = machine.memory.loaded("upstream")
        what, decided = machine.decide(request, loaded, 1_000_000)
        assert (what, decided[0]) == ("done", "failed"), f"{request} was decided"
        assert matches(hostile["error"], to_json(decided[1]), hostile["name"]) is None
        what, failure = machine.call(request, None, 1_000_000)
        assert what == "err"
        assert (failure["error"], failure["last-seen"]) == (decided[1], loaded)
    assert machine.memory.entries == before, "something was written"


# ---- records of the oldest schema ----

STATES = ["closed", "open", "half-open"]
REASONS = ["tripped", "open-time-over", "probes-succeeded", "probe-failed"]
KINDS = ["forced-open", "forced-closed"]


def shown_of_schema_1(stored: bytes) -> dict[str, Any]:
    """What ``inspect`` shows of a record of schema 1 at the time its state was entered, read from the bytes."""
    assert stored[:4] == b"CKT\x01"
    fields = cbor2.loads(stored[4:])
    status, counts = fields[4], fields[5]

    def at(items: list[Any], index: int) -> Any:
        # An option that is none at the end of a list is left out.
        return items[index] if index < len(items) else None

    state = STATES[status[0]]
    expires_at_ms, probes, successes = None, [], 0
    if state == "half-open":
        probes, successes = at(status[1], 0), at(status[1], 1)
    else:
        expires_at_ms = at(status[1], 0)
    override = None
    if 6 in fields:
        given = fields[6]
        override = {"kind": KINDS[given[0]], "author": given[1], "reason": given[2], "until-ms": at(given, 3)}
    names = ["total", "total-successes", "total-failures", "consecutive-successes", "consecutive-failures"]
    return {
        "state": state,
        "era": fields[1],
        "generation": fields[2],
        "since-ms": fields[3],
        "revision": fields[0],
        "counts": dict(zip(names, counts, strict=True)),
        "expires-at-ms": expires_at_ms,
        "probes": [{"id": {"node": id_[0], "sequence": id_[1]}, "deadline-ms": until} for id_, until in probes],
        "probe-successes": successes,
        "probe-failures": 0,
        "override": override,
        "transitions": [
            {
                "previous": STATES[made[0]],
                "next": STATES[made[1]],
                "reason": REASONS[made[2]],
                "at-ms": made[3],
                "era": made[4],
                "generation": made[5],
            }
            for made in fields[7]
        ],
        "last-trip": None,
        "trips-in-a-row": 0,
        "ramp": None,
        "votes": [],
        "settings-differ": False,
    }


def test_the_oldest_record_bytes_still_load() -> None:
    settings = {
        "failure-count-threshold": 2,
        "close-threshold": 1,
        "allow-after-ms": 60_000,
        "probe-timeout-ms": 10_000,
        "idle-retention-ms": 86_400_000,
    }
    seen: set[str] = set()
    machine = Machine()
    for name, circuits in read("records-schema-1.json").items():
        for digits in circuits.values():
            stored = bytes.fromhex(digits)
            expected = shown_of_schema_1(stored)
            machine.memory.entries.clear()
            machine.memory.put("upstream", stored)
            asked = {"circuit": "upstream", "settings": settings}
            what, answer = machine.call({"inspect": asked}, None, expected["since-ms"])
            assert what == "ok", name
            assert matches(expected, to_json(answer[0]), name) is None
            # Later than any open time or override of theirs.
            later = min(expected["since-ms"] + 1_000_000, (1 << 64) - 1)
            caller = {"node": 1_000, "sequence": 1, "retry-of": None}
            what, _ = machine.call({"start": {**asked, "caller": caller}}, None, later)
            assert what == "ok", name
            now = machine.memory.entries["upstream"]["value"]
            wrote = "kept" if now == stored else "wrote"
            if wrote == "wrote":
                assert now[:4] == b"CKT\x02", name
            forced = "" if expected["override"] is None else ", forced"
            seen.add(f"{expected['state']}{forced}, {wrote}")
    assert seen >= {
        "closed, kept",
        "closed, forced, kept",
        "open, wrote",
        "open, forced, wrote",
        "half-open, wrote",
    }


def test_breakers_have_the_circuits_that_the_list_of_names_says() -> None:
    named = read("names/circuits.json")
    for each in named:
        assert default_name(each["name"], Context(each["context"])) == each["circuit"]
    assert named
