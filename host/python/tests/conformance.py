"""The rules that every store keeps, by the names that they have in ``host/store/src/conformance``.

A rule is a function of a harness that fails when the rule is broken. A store for asyncio is run through a store for
threads that waits for its coroutines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from circuitry import Conflict, Entry, Loaded, Store, Stored, StoreError, Swapped

SHORT_MS = 200
LIFE_MS = 1_000
LONG_MS = 3_600_000
WRITERS = 64
INCREMENTS_OF_EACH = 2
NAME_MAX_BYTES = 1024


class Harness(Protocol):
    """How a rule opens a store and makes things happen to it. Each rule gets one of its own."""

    grain_ms: int

    def open(self) -> Store:
        """A new handle; all handles of one harness share their entries."""
        ...

    def wait_ms(self, ms: int) -> None:
        """Lets at least so much of the store's time pass."""
        ...

    def open_unreachable(self) -> Store:
        """A handle on a store that is out of reach."""
        ...

    def open_losing_answer(self) -> Store:
        """A handle that shares the entries, whose next swap is sent while its answer is lost."""
        ...


def load(store: Store, circuit: str) -> Loaded:
    return store.load(circuit, timeout=10)


def swap(store: Store, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None = None) -> Swapped:
    return store.swap(circuit, expected, value, ttl_ms, timeout=10)


def write(store: Store, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None = None) -> Stored:
    """Writes over ``expected``, which must be the version of the entry."""
    swapped = swap(store, circuit, expected, value, ttl_ms)
    assert isinstance(swapped, Stored), f"nobody else writes {circuit!r}, yet a swap on {expected!r} lost: {swapped}"
    return swapped


def lose(store: Store, circuit: str, expected: bytes | None) -> Loaded:
    """Swaps on ``expected``, which must not be the version of the entry; gives what the conflict brought."""
    swapped = swap(store, circuit, expected, b"this must not be stored")
    assert isinstance(swapped, Conflict), f"a swap of {circuit!r} on {expected!r}, which is not its version, is stored"
    return swapped.loaded


def present(loaded: Loaded) -> Entry:
    assert loaded.entry is not None, "the entry is absent"
    return loaded.entry


# ---- swaps ----


def a_write_is_read(harness: Harness) -> None:
    store = harness.open()
    assert load(store, "circuit").entry is None
    expected = None
    for value in (b"first", b"", bytes(range(256)), b'{"json":1}', b"\r\n$-1\r\n"):
        expected = write(store, "circuit", expected, value).version
        assert load(store, "circuit").entry == Entry(value, expected)


def values_of_64_kb_are_kept(harness: Harness) -> None:
    store = harness.open()
    value = bytes((index * 31 >> 3) & 255 for index in range(64 * 1024))
    write(store, "large", None, value)
    read = present(load(store, "large"))
    assert read.value == value
    assert lose(store, "large", None).entry == read


def two_handles_share_data(harness: Harness) -> None:
    one, other = harness.open(), harness.open()
    first = write(one, "shared", None, b"one")
    assert present(load(other, "shared")) == Entry(b"one", first.version)
    second = write(other, "shared", first.version, b"other")
    assert present(lose(one, "shared", first.version)) == Entry(b"other", second.version)


def a_lost_race_brings_the_entry_that_won(harness: Harness) -> None:
    store = harness.open()
    never_written = b"never written!!!"
    assert lose(store, "race", never_written).entry is None
    assert load(store, "race").entry is None, "a lost race creates no entry"
    first = write(store, "race", None, b"first")
    winner = Entry(b"first", first.version)
    for wrong in (None, b"", b"\0", first.version + b"x", never_written):
        assert lose(store, "race", wrong).entry == winner
        assert load(store, "race").entry == winner, "a lost race writes nothing"
    second = write(store, "race", winner.version, b"second")
    brought = present(lose(store, "race", first.version))
    assert brought == Entry(b"second", second.version)
    write(store, "race", brought.version, b"third")


def of_64_creators_one_wins(harness: Harness) -> None:
    handles = [harness.open(), harness.open()]

    def create(creator: int) -> Swapped:
        return swap(handles[creator % 2], "new", None, creator.to_bytes(8, "big"))

    with ThreadPoolExecutor(WRITERS) as pool:
        swapped = list(pool.map(create, range(WRITERS)))
    stored = [one.version for one in swapped if isinstance(one, Stored)]
    assert len(stored) == 1, "one of 64 swaps that expect no entry is stored"
    brought = {present(one.loaded).version for one in swapped if isinstance(one, Conflict)}
    assert brought == set(stored), "each loser is brought the entry that won"
    assert present(load(handles[0], "new")).version == stored[0]


def swap_is_atomic_under_64_concurrent_writers(harness: Harness) -> None:
    handles = [harness.open(), harness.open()]

    def number(entry: Entry | None) -> int:
        return 0 if entry is None else int.from_bytes(entry.value, "big")

    def count_up(writer: int) -> list[int]:
        store = handles[writer % 2]
        written: list[int] = []
        known = load(store, "count").entry
        while len(written) < INCREMENTS_OF_EACH:
            value = (number(known) + 1).to_bytes(8, "big")
            swapped = swap(store, "count", None if known is None else known.version, value)
            if isinstance(swapped, Stored):
                written.append(number(known) + 1)
                known = Entry(value, swapped.version)
            else:
                known = swapped.loaded.entry
        return written

    with ThreadPoolExecutor(WRITERS) as pool:
        written = [one for several in pool.map(count_up, range(WRITERS)) for one in several]
    assert sorted(written) == list(range(1, WRITERS * INCREMENTS_OF_EACH + 1)), "a gap or a repetition is a lost update"
    assert number(load(handles[1], "count").entry) == WRITERS * INCREMENTS_OF_EACH


# ---- lifetimes ----


def _outwait(harness: Harness, ttl_ms: int) -> None:
    harness.wait_ms(ttl_ms + harness.grain_ms)


def versions_never_repeat(harness: Harness) -> None:
    store, seen = harness.open(), set()
    for _ in range(3):
        expected = None
        for index in range(20):
            # Only the last write of a life is mortal, so that a pause of the machine does not end it early.
            expected = write(store, "again", expected, b"the same", SHORT_MS if index == 19 else None).version
            assert expected not in seen
            seen.add(expected)
        _outwait(harness, SHORT_MS)
    assert write(store, "another", None, b"the same").version not in seen


def an_entry_lives_as_long_as_its_time_to_live_and_no_longer(harness: Harness) -> None:
    store = harness.open()
    write(store, "for ever", None, b"kept")
    # A machine that pauses for longer than the entry lives proves nothing, so it gets more time on the next round.
    for ttl_ms in (LIFE_MS, 4 * LIFE_MS, 16 * LIFE_MS):
        circuit, begun = f"round {ttl_ms}", time.monotonic()
        write(store, circuit, None, b"mortal", ttl_ms)
        harness.wait_ms(ttl_ms // 2)
        halfway = load(store, circuit).entry
        if halfway is None and time.monotonic() - begun >= ttl_ms / 1000:
            continue
        assert halfway is not None, f"an entry with {ttl_ms} ms to live was gone after half of them"
        _outwait(harness, ttl_ms - ttl_ms // 2)
        assert load(store, circuit).entry is None, f"an entry outlived its {ttl_ms} ms"
        assert load(store, "for ever").entry is not None
        return
    pytest.fail("this machine pauses for seconds at a time: no round could show how long an entry lives")


def an_expired_entry_is_absent_for_load_and_swap_alike(harness: Harness) -> None:
    store = harness.open()
    names = ("loaded first", "swapped first", "created first")
    old = {name: write(store, name, None, b"old", SHORT_MS).version for name in names}
    _outwait(harness, SHORT_MS)
    assert load(store, "loaded first").entry is None, "a load sees an expired entry"
    for name in ("loaded first", "swapped first"):
        assert lose(store, name, old[name]).entry is None, "a conflict brings an expired entry"
        write(store, name, None, b"new")
        assert present(lose(store, name, old[name])).value == b"new"
    created = write(store, "created first", None, b"new")
    assert present(load(store, "created first")) == Entry(b"new", created.version)


def a_write_sets_the_time_to_live_anew(harness: Harness) -> None:
    store = harness.open()
    changes: list[tuple[str, int | None, int | None, bool]] = [
        ("longer", LIFE_MS, LONG_MS, True),
        ("none any more", LIFE_MS, None, True),
        ("shorter", LONG_MS, LIFE_MS, False),
        ("one at last", None, LIFE_MS, False),
    ]
    for circuit, before, after, _ in changes:
        # Whoever pauses between these two finds the first entry expired, and writes it anew.
        first = write(store, circuit, None, b"first", before)
        swapped = swap(store, circuit, first.version, b"second", after)
        if isinstance(swapped, Conflict):
            assert swapped.loaded.entry is None
            write(store, circuit, None, b"second", after)
    _outwait(harness, LIFE_MS)
    for circuit, _, _, is_kept in changes:
        assert (load(store, circuit).entry is not None) is is_kept, circuit


def a_lost_race_changes_no_time_to_live(harness: Harness) -> None:
    store = harness.open()
    for circuit, losing_ttl_ms in (("longer", LONG_MS), ("none", None)):
        write(store, circuit, None, b"mortal", LIFE_MS)
        swapped = swap(store, circuit, b"not its version!", b"never stored", losing_ttl_ms)
        assert isinstance(swapped, Conflict)
    _outwait(harness, LIFE_MS)
    for circuit in ("longer", "none"):
        assert load(store, circuit).entry is None, f"a lost race with {circuit} kept the entry alive"


def a_time_to_live_of_any_length_is_taken(harness: Harness) -> None:
    store = harness.open()
    for circuit, ttl_ms in (("nothing", 0), ("a millisecond", 1)):
        write(store, circuit, None, b"mortal", ttl_ms)
    for ttl_ms in ((1 << 64) - 1, (1 << 63) - 1, 10**15):
        circuit = f"endless {ttl_ms}"
        write(store, circuit, None, b"kept", ttl_ms)
        assert load(store, circuit).entry is not None, f"an entry that lives for {ttl_ms} ms is gone at once"
    _outwait(harness, 1)
    for circuit in ("nothing", "a millisecond"):
        assert load(store, circuit).entry is None, f"an entry outlived {circuit}"


def a_told_time_goes_on_in_milliseconds(harness: Harness) -> None:
    wait_ms, at_most_ms = 1_200, 60_000
    store = harness.open()
    told: list[int | None] = []
    expected = None
    for round_ in range(2):
        told.append(load(store, "time").now_ms)
        receipt = write(store, "time", expected, b"tick")
        told += [receipt.now_ms, lose(store, "time", None).now_ms]
        expected = receipt.version
        if round_ == 0:
            harness.wait_ms(wait_ms)
    times = [one for one in told if one is not None]
    for before, after in zip(times, times[1:], strict=False):
        assert 0 <= after - before <= at_most_ms, f"the store's time went from {before} to {after}"
    assert times[-1] - times[0] >= wait_ms / 6


# ---- names ----


def hostile_names() -> list[str]:
    """Names that a protocol, a query language, a path or a template might take for something else."""
    names = [
        "a", "A", "a ", " a", " ", "  ", "\t", "\n", "\r\n", "\0", "a\0", "a\0b", "\0a", "\u0001", "\u007f", "\ufeffa",
        "{}", "{a}", "{a}b", "a{", "}a", "{{}}", ":", "::", "a:", ":a", "a:b", "/", "//", "a/", "/a", "a/b", "*", "a*",
        "?", "[a]", "[^a]", "\\", "\\*", "\\0", ".", "..", "../a", "../../etc/passwd", "./a", "C:\\a", "~", "~a", "$a",
        "${a}", "#a", "%", "%00", "%2F", "%2f", "a+b", "a&b=c", "'", '"', "''", "'; DROP TABLE a; --", "`a`", "<a>",
        "a|b", "a;b", "a,b", "(a)", "@a", "!a", "^", "-", "--", "_", "0", "00", "-1", "1e3", "null", "nil", "None",
        "undefined", "true", "__proto__", "constructor", "version", "value", "EVAL return 1 0", "$3\r\nGET\r\n", "é",
        "e\u0301", "ß", "ss", "İ", "i", "ı", "ﬁ", "fi", "日本", "\u202ea", "🦀", "🦀🦀", "👩\u200d🚀", "👩🚀",
        "\U0010ffff",
    ]  # fmt: skip
    # The longest names, which differ in the last byte only, and the next to longest.
    names += [long * (NAME_MAX_BYTES // len(long.encode())) for long in ("x", "/", "é", "🦀", "\0")]
    return [*names, "x" * (NAME_MAX_BYTES - 1), "x" * (NAME_MAX_BYTES - 1) + "y"]


def hostile_names_are_opaque(harness: Harness) -> None:
    store, names = harness.open(), hostile_names()
    for index, name in enumerate(names):
        assert load(store, name).entry is None, f"{name!r} has an entry that another name wrote"
        write(store, name, None, f"{index} {name}".encode())
    for index, name in enumerate(names):
        value = f"{index} {name}".encode()
        entry = present(load(store, name))
        assert entry.value == value, f"{name!r} has the entry of another name"
        assert lose(store, name, None).entry == entry, f"{name!r} is another circuit to swap than it is to load"
        write(store, name, entry.version, value)


def names_out_of_bounds_are_refused(harness: Harness) -> None:
    store = harness.open()
    # 1,025 bytes are too many also where they are fewer characters; a lone surrogate has no bytes at all.
    for name in ("", "x" * (NAME_MAX_BYTES + 1), "x" + "🦀" * (NAME_MAX_BYTES // 4), "a\ud800"):
        for operation in (lambda name=name: load(store, name), lambda name=name: swap(store, name, None, b"value")):
            with pytest.raises(StoreError) as raised:
                operation()
            assert raised.value.kind == "other"


# ---- failures ----


def errors_are_typed(harness: Harness) -> None:
    store = harness.open_unreachable()
    for operation in (lambda: load(store, "circuit"), lambda: swap(store, "circuit", None, b"value")):
        with pytest.raises(StoreError) as raised:
            operation()
        assert raised.value.kind == "unavailable"
        assert raised.value.message.strip()


def _lose_answer(harness: Harness, circuit: str, expected: bytes | None, value: bytes) -> Store:
    lossy = harness.open_losing_answer()
    with pytest.raises(StoreError) as raised:
        swap(lossy, circuit, expected, value)
    assert raised.value.kind == "unknown"
    return lossy


def an_ambiguous_write_is_reported_as_unknown(harness: Harness) -> None:
    store = harness.open()
    _lose_answer(harness, "created", None, b"new")
    created = load(store, "created").entry
    assert created is None or created.value == b"new"
    old = write(store, "replaced", None, b"old")
    _lose_answer(harness, "replaced", old.version, b"new")
    entry = present(load(store, "replaced"))
    assert entry.value in (b"old", b"new")
    assert (entry.version == old.version) is (entry.value == b"old")
    # It loses like any other swap: what is there stays.
    _lose_answer(harness, "replaced", b"never written!!!", b"lost race")
    assert load(store, "replaced").entry == entry


def an_ambiguous_write_is_not_repeated(harness: Harness) -> None:
    store = harness.open()
    for round_ in range(3):
        circuit = f"round {round_}"
        lossy = _lose_answer(harness, circuit, None, b"ambiguous")
        seen = load(store, circuit).entry
        last = write(store, circuit, None if seen is None else seen.version, b"after").version
        # The handle works again, and what it does now brings no second copy of what it did before.
        for value in (b"1", b"2"):
            brought = present(_lose_or_reconnect(lossy, circuit))
            assert brought.version == last, "the ambiguous write was written a second time"
            last = write(lossy, circuit, brought.version, value).version
            assert present(load(store, circuit)) == Entry(value, last)


def _lose_or_reconnect(store: Store, circuit: str) -> Loaded:
    """To be unavailable for a moment is no broken rule."""
    for _ in range(100):
        try:
            load(store, circuit)
        except StoreError as error:
            assert error.kind == "unavailable"
            time.sleep(0.05)
        else:
            return lose(store, circuit, None)
    pytest.fail("a handle that lost one answer has not worked again for 5 s")


# ---- pushes ----
#
# Strict mode asks the store for each start, so this host's stores do not watch, and a store that does not push passes
# these. What they announce for the processes that do watch is looked at in test_redis.py.


def _watch(harness: Harness) -> None:
    assert not hasattr(harness.open(), "watch"), "a store that watches needs these rules written out"


an_announcement_reaches_a_watcher_on_another_handle = _watch
a_watch_of_nothing_announced_yields_nothing = _watch
a_push_names_the_circuit_as_it_is = _watch
pushes_stay_among_those_who_share_entries = _watch
a_dropped_watch_ends_alone = _watch

RULES: dict[str, Callable[[Harness], None]] = {
    "a_write_is_read": a_write_is_read,
    "values_of_64_kb_are_kept": values_of_64_kb_are_kept,
    "two_handles_share_data": two_handles_share_data,
    "a_lost_race_brings_the_entry_that_won": a_lost_race_brings_the_entry_that_won,
    "of_64_creators_one_wins": of_64_creators_one_wins,
    "swap_is_atomic_under_64_concurrent_writers": swap_is_atomic_under_64_concurrent_writers,
    "versions_never_repeat": versions_never_repeat,
    "an_entry_lives_as_long_as_its_time_to_live_and_no_longer": (
        an_entry_lives_as_long_as_its_time_to_live_and_no_longer
    ),
    "an_expired_entry_is_absent_for_load_and_swap_alike": an_expired_entry_is_absent_for_load_and_swap_alike,
    "a_write_sets_the_time_to_live_anew": a_write_sets_the_time_to_live_anew,
    "a_lost_race_changes_no_time_to_live": a_lost_race_changes_no_time_to_live,
    "a_time_to_live_of_any_length_is_taken": a_time_to_live_of_any_length_is_taken,
    "a_told_time_goes_on_in_milliseconds": a_told_time_goes_on_in_milliseconds,
    "hostile_names_are_opaque": hostile_names_are_opaque,
    "names_out_of_bounds_are_refused": names_out_of_bounds_are_refused,
    "errors_are_typed": errors_are_typed,
    "an_ambiguous_write_is_reported_as_unknown": an_ambiguous_write_is_reported_as_unknown,
    "an_ambiguous_write_is_not_repeated": an_ambiguous_write_is_not_repeated,
    "an_announcement_reaches_a_watcher_on_another_handle": an_announcement_reaches_a_watcher_on_another_handle,
    "a_watch_of_nothing_announced_yields_nothing": a_watch_of_nothing_announced_yields_nothing,
    "a_push_names_the_circuit_as_it_is": a_push_names_the_circuit_as_it_is,
    "pushes_stay_among_those_who_share_entries": pushes_stay_among_those_who_share_entries,
    "a_dropped_watch_ends_alone": a_dropped_watch_ends_alone,
}


def bounded(rule: Callable[[Harness], None], harness: Harness) -> None:
    """Ends a rule that hangs: a store that hangs is told from a slow one."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            rule(harness)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), "an operation of the store did not end in two minutes"
    if failures:
        raise failures[0]
