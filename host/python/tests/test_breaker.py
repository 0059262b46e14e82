"""What a breaker does, on the memory store and a clock that the test moves."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest

from circuitry import (
    ArgumentError,
    CircuitRefused,
    Context,
    Disposition,
    Expected,
    Factory,
    FailureRetryAfter,
    ManualClock,
    MemoryStore,
    Outcome,
    Override,
    OverrideKind,
    RecordError,
    RefusalReason,
    State,
    default_name,
)
from doubles import NOW_MS, Bench, ThreadStore, Work, failing

# ---- the states ----


def test_one_failure_more_than_the_threshold_trips_and_the_refusal_tells_when_to_come_back() -> None:
    bench = Bench(allow_after_ms=10_000)
    bench.fail(2)
    assert bench.breaker.state() is State.CLOSED
    bench.fail()
    assert bench.recorder.reasons() == ["tripped"]
    bench.clock.advance_ms(4_000)
    refusal = bench.refusal()
    assert (refusal.reason, refusal.retry_after_ms, refusal.circuit) == (RefusalReason.OPEN, 6_000, "emails/acme")
    assert all(6_000 <= refusal.spread_delay_ms() <= 6_600 for _ in range(100))
    assert len({refusal.spread_delay_ms() for _ in range(100)}) > 1


def test_refused_work_does_not_run() -> None:
    bench = Bench()
    bench.fail(3)
    ran: list[int] = []
    with pytest.raises(CircuitRefused):
        bench.breaker.execute(ran.append, 1)
    assert ran == []


def test_a_circuit_opens_probes_and_closes() -> None:
    bench = Bench(allow_after_ms=10_000, close_threshold=2)
    bench.fail(3)
    bench.clock.advance_ms(10_000)
    assert bench.breaker.state() is State.HALF_OPEN, "an open circuit whose time is over reads as half-open"
    probes = [bench.breaker.start() for _ in range(2)]
    assert all(probe.is_probe for probe in probes)
    assert bench.refusal().reason is RefusalReason.TOO_MANY_REQUESTS
    assert [probe.end(Outcome.SUCCESS).disposition for probe in probes] == [Disposition.ACCEPTED] * 2
    assert bench.breaker.state() is State.CLOSED
    assert bench.recorder.reasons() == ["tripped", "open-time-over", "probes-succeeded"]


def test_a_failed_probe_opens_again() -> None:
    bench = Bench(allow_after_ms=10_000)
    bench.fail(3)
    bench.clock.advance_ms(10_000)
    bench.fail()
    assert bench.recorder.reasons() == ["tripped", "open-time-over", "probe-failed"]


def test_an_outcome_of_another_era_is_stale_and_changes_nothing() -> None:
    bench = Bench()
    late = bench.breaker.start()
    bench.fail(3)
    before = bench.breaker.information()
    assert late.end(Outcome.SUCCESS).disposition is Disposition.STALE
    assert bench.breaker.information() == before


def test_a_permit_is_settled_once() -> None:
    bench = Bench()
    permit = bench.breaker.start()
    permit.end("success")
    with pytest.raises(ArgumentError) as raised:
        permit.end(Outcome.FAILURE)
    assert raised.value.field == "permit"
    assert bench.breaker.information().counts.total == 1


def test_a_dropped_probe_frees_its_place_and_counts_nothing() -> None:
    bench = Bench(allow_after_ms=10_000)
    bench.fail(3)
    bench.clock.advance_ms(10_000)
    permit = bench.breaker.start()
    assert permit.is_probe
    del permit
    gc.collect()
    until = time.monotonic() + 10
    while bench.breaker.information().probes and time.monotonic() < until:
        time.sleep(0.01)
    assert bench.breaker.information().probes == ()
    assert bench.breaker.start().is_probe


# ---- work ----


def test_what_work_returns_is_given_back_and_its_arguments_are_passed_on() -> None:
    def work(left: int, right: int = 0) -> int:
        return left - right

    assert Bench().breaker.execute(work, 7, right=2) == 5


def test_a_decorated_function_keeps_its_name_and_runs_as_work() -> None:
    bench = Bench()

    @bench.breaker
    def send(to: str) -> str:
        """Sends."""
        return f"sent to {to}"

    guarded = bench.breaker.guard(send)
    assert (send("a"), guarded("b"), send.__name__, send.__doc__) == ("sent to a", "sent to b", "send", "Sends.")
    # The second one is guarded twice.
    assert bench.breaker.information().counts.total_successes == 3


def test_a_block_ends_as_it_ends() -> None:
    bench = Bench()
    with bench.breaker.permit() as permit:
        assert permit.era is not None
    with pytest.raises(Work), bench.breaker.permit():
        raise Work
    with bench.breaker.permit() as permit:
        permit.outcome = Outcome.FAILURE
    with bench.breaker.permit() as permit:
        permit.end(Outcome.IGNORED)
    counts = bench.breaker.information().counts
    assert (counts.total_successes, counts.total_failures) == (1, 2)


def test_a_result_can_be_a_failure() -> None:
    bench = Bench()

    def classify(status: int) -> Outcome | FailureRetryAfter:
        return FailureRetryAfter(90_000) if status == 503 else Outcome.SUCCESS

    for _ in range(2):
        status, settlement = bench.breaker.execute_classified(lambda: 503, classify)
        assert (status, settlement.disposition) == (503, Disposition.ACCEPTED)  # type: ignore[union-attr]
    bench.breaker.execute_classified(lambda: 503, classify)
    assert bench.refusal().retry_after_ms == 90_000


@pytest.mark.parametrize("classify", [lambda status: 1 / 0, lambda status: "well"])
def test_a_classifier_that_fails_is_left_out_and_the_work_counts_as_it_went(classify: Any, caplog: Any) -> None:
    bench = Bench()
    status, settlement = bench.breaker.execute_classified(lambda: 200, classify)
    assert (status, settlement.disposition) == (200, Disposition.ACCEPTED)  # type: ignore[union-attr]
    counts = bench.breaker.information().counts
    assert (counts.total_successes, counts.total_failures) == (1, 0)
    assert "the classifier raised, or gave no outcome" in caplog.text


def test_an_exception_that_says_how_long_to_leave_it_alone_lengthens_the_open_time() -> None:
    class Throttled(Exception):
        retry_after_ms = 120_000

    def work() -> None:
        raise Throttled

    bench = Bench(allow_after_ms=10_000)
    bench.fail(2)
    with pytest.raises(Throttled):
        bench.breaker.execute(work)
    assert bench.refusal().retry_after_ms == 120_000


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_an_interrupt_is_ignored(interrupt: type[BaseException]) -> None:
    def work() -> None:
        raise interrupt

    bench = Bench()
    with pytest.raises(interrupt):
        bench.breaker.execute(work)
    assert bench.breaker.information().counts.total == 0


def test_a_deadline_is_a_failure_and_an_expected_error_a_success() -> None:
    class NoSuchCustomer(Expected):
        pass

    def late() -> None:
        raise TimeoutError

    def expected() -> None:
        raise NoSuchCustomer

    def caused() -> None:
        raise Work from NoSuchCustomer()

    bench = Bench()
    for work, error in ((late, TimeoutError), (expected, NoSuchCustomer), (caused, Work)):
        with pytest.raises(error):
            bench.breaker.execute(work)
    counts = bench.breaker.information().counts
    assert (counts.total_failures, counts.total_successes) == (1, 2)


def test_the_refusal_of_an_inner_breaker_is_ignored_by_the_outer_one() -> None:
    bench = Bench()
    bench.fail(3)
    outer = bench.factory.breaker_for("outer")

    def work() -> None:
        try:
            bench.breaker.execute(failing)
        except CircuitRefused as refusal:
            raise Work from refusal

    with pytest.raises(CircuitRefused):
        outer.execute(bench.breaker.execute, failing)
    with pytest.raises(Work):
        outer.execute(work)
    assert outer.information().counts.total == 0


def test_matchers_judge_by_the_name_given_and_one_that_raises_means_a_failure(caplog: Any) -> None:
    def confused(error: Exception) -> Outcome:
        raise RuntimeError("no idea")

    bench = Bench(
        fallback_error_matcher=lambda error: Outcome.IGNORED,
        circuit_specific_error_matchers={"emails": lambda error: Outcome.SUCCESS, "broken": confused},
    )
    bench.fail()
    assert bench.breaker.information().counts.total_successes == 1
    for name, failures in (("other", 0), ("broken", 1)):
        breaker = bench.factory.breaker_for(name)
        with pytest.raises(Work):
            breaker.execute(failing)
        assert breaker.information().counts.total_failures == failures
    assert "no idea" in caplog.text


def test_what_would_be_settled_before_it_has_run_is_refused() -> None:
    breaker = Bench().breaker

    def generator() -> Any:
        yield 1

    async def coroutine() -> None:
        return None

    for work in (generator, coroutine, 5):
        with pytest.raises(ArgumentError) as raised:
            breaker.execute(work)  # type: ignore[arg-type]
        assert raised.value.field == "work"
        with pytest.raises(ArgumentError):
            breaker.guard(work)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        breaker.execute(lambda: coroutine())  # type: ignore[unused-coroutine]
    assert breaker.information().counts.total == 0


def test_a_callback_that_raises_breaks_no_call(caplog: Any) -> None:
    def callback(change: Any) -> None:
        raise RuntimeError("a bad listener")

    clock = ManualClock(NOW_MS)
    factory = Factory(MemoryStore(clock=clock), clock=clock, failure_count_threshold=0, state_change_callback=callback)
    with pytest.raises(Work):
        factory.breaker_for("a").execute(failing)
    assert "a bad listener" in caplog.text
    assert factory.breaker_for("a").state() is State.OPEN


# ---- names ----


def test_names_and_tenants_are_escaped_so_that_no_two_pairs_share_a_circuit() -> None:
    factory = Bench().factory
    assert factory.breaker_for("emails").name == "emails"
    assert factory.breaker_for("emails", tenant="acme").name == "emails/acme"
    assert factory.breaker_for("emails", Context.tenant("a/b%")).name == "emails/a%2Fb%25"
    assert factory.breaker_for("emails/acme").name == "emails%2Facme"
    assert default_name("a", Context(tenant="")) == "a/"
    context = Context(tenant="acme", region="eu").with_value("region", "us")
    assert list(context.items()) == [("region", "us"), ("tenant", "acme")]


@pytest.mark.parametrize("name", ["", "x" * 1025, "é" * 513, "a\ud800", "\udfff", 5, None, b"bytes"])
def test_a_name_out_of_bounds_is_refused_by_name(name: Any) -> None:
    with pytest.raises(ArgumentError) as raised:
        Bench().factory.breaker_for(name)
    assert raised.value.field == "name"


def test_hostile_names_are_circuits_of_their_own() -> None:
    from conformance import hostile_names

    bench = Bench(name_fn=lambda name, _: name, failure_count_threshold=0)
    names = hostile_names()
    for name in names[::2]:
        with pytest.raises(Work):
            bench.factory.breaker_for(name).execute(failing)
    for index, name in enumerate(names):
        state = bench.factory.breaker_for(name).state()
        assert state is (State.OPEN if index % 2 == 0 else State.CLOSED), repr(name)


def test_one_tenant_does_not_open_the_circuit_of_another() -> None:
    bench = Bench()
    bench.fail(3)
    assert bench.factory.breaker_for("emails", tenant="birch").execute(int) == 0


# ---- what a person does ----


def test_an_override_stands_above_the_state_and_ends_by_store_time() -> None:
    bench = Bench()
    override = Override(OverrideKind.FORCED_OPEN, "ops", "maintenance", until_ms=NOW_MS + 5_000)
    assert bench.breaker.set_override(override) is None
    assert bench.refusal().reason is RefusalReason.FORCED_OPEN
    assert bench.breaker.information().override == override
    bench.clock.advance_ms(5_000)
    assert bench.breaker.execute(int) == 0
    bench.breaker.set_override(Override(OverrideKind.DISABLED, "ops", ""))
    settlement = bench.breaker.start().end(Outcome.FAILURE)
    assert settlement.disposition is Disposition.UNCOUNTED
    previous = bench.breaker.set_override(None)
    assert previous is not None
    assert previous.kind is OverrideKind.DISABLED


def test_metrics_only_admits_and_says_what_it_would_have_refused() -> None:
    bench = Bench()
    bench.breaker.set_override(Override(OverrideKind.METRICS_ONLY, "ops", "a trial"))
    bench.fail(3)
    permit = bench.breaker.start()
    assert permit.would_have_refused is not None
    assert permit.would_have_refused.reason is RefusalReason.OPEN
    assert permit.end(Outcome.SUCCESS).disposition is Disposition.UNCOUNTED


@pytest.mark.parametrize(
    ("override", "field"),
    [
        (Override(OverrideKind.DISABLED, "a\ud800", ""), "override.author"),
        (Override(OverrideKind.DISABLED, "a" * 129, ""), "override.author"),
        (Override(OverrideKind.DISABLED, "", "r" * 257), "override.reason"),
        (Override("half", "", ""), "override.kind"),  # type: ignore[arg-type]
        (Override(OverrideKind.DISABLED, "", "", -1), "override.until_ms"),
        (Override(OverrideKind.DISABLED, "", "", 1 << 64), "override.until_ms"),
        ("disabled", "override"),
    ],
)
def test_a_bad_override_is_refused_by_field(override: Any, field: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        Bench().breaker.set_override(override)
    assert raised.value.field == field


def test_a_reset_closes_as_if_it_were_new() -> None:
    bench = Bench()
    bench.fail(3)
    bench.breaker.set_override(Override(OverrideKind.FORCED_OPEN, "ops", ""))
    previous = bench.breaker.reset()
    assert previous is not None
    information = bench.breaker.information()
    assert (information.state, information.counts.total, information.override) == (State.CLOSED, 0, None)
    assert bench.recorder.reasons() == ["tripped", "reset"]


def test_reading_never_changes_a_circuit_and_explains_it() -> None:
    store = ThreadStore(ManualClock(NOW_MS))
    bench = Bench(store=store)
    bench.fail(3)
    swaps = store.swaps
    assert bench.breaker.explain().startswith("Circuit emails/acme is open")
    assert bench.breaker.information().last_trip is not None
    assert store.swaps == swaps


# ---- leases ----


def test_a_lease_is_renewed_while_the_work_runs() -> None:
    clock = ManualClock(NOW_MS)
    factory = Factory(clock=clock, failure_count_threshold=0, probe_timeout_ms=600)
    breaker = factory.breaker_for("db")
    with pytest.raises(Work):
        breaker.execute(failing)
    clock.advance_ms(60_000)
    permit = breaker.start()
    assert permit.is_probe
    until = time.monotonic() + 10
    for _ in range(3):
        clock.advance_ms(400)
        # It is renewed each third of a lease of the host's time, whatever the clock says.
        while breaker.information().probes[0].deadline_ms < clock.now_ms() + 600:
            assert time.monotonic() < until, "the lease is not renewed"
            time.sleep(0.005)
        with pytest.raises(CircuitRefused):
            breaker.start()
    assert permit.end(Outcome.SUCCESS).disposition is Disposition.ACCEPTED
    assert breaker.state() is State.CLOSED


def test_a_probe_that_hangs_is_given_up_after_ten_leases() -> None:
    factory = Factory(failure_count_threshold=0, allow_after_ms=1, probe_timeout_ms=20)
    breaker = factory.breaker_for("db")
    with pytest.raises(Work):
        breaker.execute(failing)
    time.sleep(0.01)
    hanging = breaker.start()
    assert hanging.is_probe
    begun = time.monotonic()
    while True:
        try:
            other = breaker.start()
            break
        except CircuitRefused:
            assert time.monotonic() - begun < 30
            time.sleep(0.005)
    assert time.monotonic() - begun > 0.1
    assert other.end(Outcome.SUCCESS).disposition is Disposition.ACCEPTED
    assert hanging.end(Outcome.FAILURE).disposition is Disposition.STALE


# ---- many threads ----


def test_many_threads_count_exactly() -> None:
    factory = Factory(failure_count_threshold=1_000_000)
    breaker = factory.breaker_for("db")

    def work(share: int) -> None:
        for index in range(50):
            breaker.start().end(Outcome.FAILURE if (share + index) % 3 == 0 else Outcome.SUCCESS)

    threads = [threading.Thread(target=work, args=(share,)) for share in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = breaker.information().counts
    expected = sum((share + index) % 3 == 0 for share in range(16) for index in range(50))
    assert (counts.total, counts.total_failures) == (800, expected)


# ---- a store that answers garbage ----


class Garbage:
    """A store that answers what it must not."""

    def __init__(self, loaded: Any, swapped: Any = None) -> None:
        self._loaded = loaded
        self._swapped = swapped

    def load(self, circuit: str, *, timeout: float) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded

    def swap(self, circuit: str, expected: Any, value: bytes, ttl_ms: Any, *, timeout: float) -> Any:
        if isinstance(self._swapped, Exception):
            raise self._swapped
        return self._swapped


def garbage() -> list[Any]:
    from circuitry import Entry, Loaded

    return [
        Loaded(Entry(b"no record", b"v")),
        Loaded(Entry(b"", b"v")),
        Loaded(Entry(b"CKT\x02" + b"\xff" * 60_000, b"v")),
        Loaded(Entry(b"CKT\x02\xa0" + b"\x00" * 5_000_000, b"v")),
        Loaded(Entry(b"CKT\x63\xa0", b"v")),
        Loaded(Entry("text", "v")),  # type: ignore[arg-type]
        Loaded(None, -1),
        Loaded(None, 1 << 64),
        Loaded(None, "now"),  # type: ignore[arg-type]
        Loaded("entry"),  # type: ignore[arg-type]
        None,
        {"value": b"", "version": b""},
        ValueError("a bug in it"),
    ]


@pytest.mark.parametrize("loaded", garbage(), ids=lambda loaded: repr(loaded)[:40])
def test_garbage_from_a_load_is_an_error_and_never_a_permit(loaded: Any) -> None:
    from circuitry import CircuitryError

    breaker = Factory(Garbage(loaded)).breaker_for("db")
    for call in (breaker.start, breaker.information, breaker.reset):
        with pytest.raises(CircuitryError) as raised:
            call()
        assert not isinstance(raised.value, CircuitRefused)


def test_a_record_of_a_newer_schema_says_what_to_do() -> None:
    from circuitry import Entry, Loaded

    breaker = Factory(Garbage(Loaded(Entry(b"CKT\x63\xa0", b"v")))).breaker_for("db")
    with pytest.raises(RecordError) as raised:
        breaker.start()
    assert (raised.value.kind, raised.value.schema) == ("newer-schema", 0x63)


@pytest.mark.parametrize("swapped", [None, "stored", 5, ValueError("a bug in it")], ids=repr)
def test_garbage_from_a_swap_may_have_been_written(swapped: Any) -> None:
    """It is asked again, and then the store is taken as down: nothing is believed of it."""
    from circuitry import Loaded

    factory = Factory(Garbage(Loaded(None), swapped), store_timeout_ms=200)
    breaker = factory.breaker_for("db")
    permit = breaker.start()
    assert factory.is_store_down
    assert permit.end(Outcome.SUCCESS).local
    factory.close()
