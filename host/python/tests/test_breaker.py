"""What a breaker does, on the memory store and a clock that the test moves."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from typing import Any

import pytest

from circuitry import (
    ArgumentError,
    AsyncFactory,
    AsyncMemoryStore,
    Backoff,
    CircuitRefused,
    ConsecutiveFailures,
    Context,
    Disposition,
    Expected,
    Factory,
    FailureRate,
    FailureRetryAfter,
    HalfOpenLimit,
    ManualClock,
    MemoryStore,
    Outcome,
    Overdue,
    Override,
    OverrideKind,
    Quorum,
    Ramp,
    RecordError,
    RefusalReason,
    SettingsError,
    SlowCallRate,
    State,
    TripFunction,
    TripInformation,
    Window,
    default_name,
    like_gobreaker,
    like_polly,
    like_resilience4j,
)
from doubles import Recorder, ThreadStore, Work, failing

NOW_MS = 1_800_000_000_000


class Bench:
    """A factory on a clock of its own."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock(NOW_MS)
        self.recorder = Recorder()
        self.store = options.pop("store", None) or MemoryStore(clock=self.clock)
        self.factory = Factory(
            self.store,
            clock=self.clock,
            state_change_callback=self.recorder,
            **{"failure_count_threshold": 2, **options},
        )
        self.breaker = self.factory.breaker_for("emails", tenant="acme")

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(Work):
                self.breaker.execute(failing)

    def refusal(self) -> CircuitRefused:
        with pytest.raises(CircuitRefused) as raised:
            self.breaker.start()
        return raised.value


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


# ---- policies ----


def test_all_policies_reach_the_component_and_come_back() -> None:
    ramp = Ramp([100, 250, 500], 30_000)
    bench = Bench(
        trip_rules=[
            ConsecutiveFailures(3),
            FailureRate(500, Window.time_ms(60_000), 20),
            SlowCallRate(800, Window.calls(200), 50),
        ],
        slow_call_after_ms=2_000,
        allow_after_ms=30_000,
        backoff=Backoff(2_000, 600_000, 1_800_000),
        jitter_per_mille=100,
        probes=10,
        probes_at_once=2,
        close_threshold=6,
        half_open_limit=HalfOpenLimit(120_000, Overdue.OPENS),
        ramp=ramp,
        settings_revision=7,
    )
    bench.breaker.execute(int)
    information = bench.breaker.information()
    in_force = information.settings_in_force
    assert not information.settings_differ
    assert in_force == bench.factory._node.settings.rules
    assert in_force.ramp == Ramp((100, 250, 500), 30_000)
    assert len(information.rules) == 3


def test_slow_calls_trip_by_the_time_from_start_to_end() -> None:
    bench = Bench(trip_rules=[SlowCallRate(1_000, Window.calls(2), 2)], slow_call_after_ms=100)
    for took_ms in (101, 101):
        permit = bench.breaker.start()
        bench.clock.advance_ms(took_ms)
        permit.end(Outcome.SUCCESS)
    assert bench.recorder.reasons() == ["tripped"]


def test_a_ramp_admits_its_share_of_consecutive_starts() -> None:
    bench = Bench(ramp=Ramp([250], 60_000), allow_after_ms=1_000, failure_count_threshold=0)
    bench.fail()
    bench.clock.advance_ms(1_000)
    bench.breaker.execute(int)
    admitted = 0
    for _ in range(400):
        # Looks, renewals and ends have numbers apart from those of starts.
        bench.breaker.information()
        try:
            bench.breaker.start()
            admitted += 1
        except CircuitRefused as refusal:
            assert refusal.reason is RefusalReason.RAMP
    assert admitted == 100


def test_a_trip_function_is_asked_and_one_that_raises_gives_way_to_the_default_rule(caplog: Any) -> None:
    asked: list[TripInformation] = []

    def trips(information: TripInformation) -> bool:
        asked.append(information)
        if information.counts.total_failures == 1:
            raise RuntimeError("a bad rule")
        return information.counts.total_failures == 2

    bench = Bench(trip_fn=TripFunction("second", 1, trips), failure_count_threshold=50)
    bench.fail(2)
    assert bench.recorder.reasons() == ["tripped"]
    assert [one.counts.total_failures for one in asked] == [1, 2]
    assert (asked[0].circuit, asked[0].failure_count_threshold) == ("emails/acme", 50)
    assert "a bad rule" in caplog.text


def test_an_interrupt_in_a_trip_function_is_the_callers(caplog: Any) -> None:
    def trips(information: TripInformation) -> bool:
        raise KeyboardInterrupt

    bench = Bench(trip_fn=TripFunction("interrupted", 1, trips))
    permit = bench.breaker.start()
    with pytest.raises(KeyboardInterrupt):
        permit.end(Outcome.FAILURE)
    bench.factory.close()


def test_a_trip_function_may_ask_another_breaker() -> None:
    """It must be pure; one that is not does not hang."""
    other = Factory(failure_count_threshold=5).breaker_for("other")
    bench = Bench(trip_fn=TripFunction("asks", 1, lambda information: other.execute(lambda: True)))
    bench.fail()
    assert bench.recorder.reasons() == ["tripped"]


def test_other_settings_in_force_are_told_once(caplog: Any) -> None:
    clock = ManualClock(NOW_MS)
    store = MemoryStore(clock=clock)
    Factory(store, clock=clock, failure_count_threshold=3).breaker_for("shared").execute(int)
    mine = Factory(store, clock=clock, failure_count_threshold=9).breaker_for("shared")
    with caplog.at_level(logging.WARNING, "circuitry"):
        for _ in range(3):
            mine.execute(int)
    told = [record for record in caplog.records if "settings are in force" in record.message]
    assert len(told) == 1
    assert "failure_count_threshold" in told[0].message
    assert mine.information().settings_differ


@pytest.mark.parametrize("preset", [like_resilience4j, like_polly, like_gobreaker])
def test_presets_are_settings_that_can_be_used(preset: Any) -> None:
    Factory(**preset())


# ---- quorum ----


def quorum(store: Any, clock: ManualClock, node: str, **options: Any) -> Factory:
    return Factory(
        store, clock=clock, failure_count_threshold=1, allow_after_ms=10_000, quorum=Quorum(2, 60_000), node_id=node,
        **options,
    )  # fmt: skip


def test_a_node_that_trips_alone_is_refused_alone_and_enough_votes_open_for_all() -> None:
    clock = ManualClock(NOW_MS)
    store = MemoryStore(clock=clock)
    recorder = Recorder()
    nodes = [quorum(store, clock, name, state_change_callback=recorder).breaker_for("db") for name in "abc"]
    for _ in range(2):
        with pytest.raises(Work):
            nodes[0].execute(failing)
    with pytest.raises(CircuitRefused) as raised:
        nodes[0].start()
    assert raised.value.reason is RefusalReason.NODE_OPEN
    assert nodes[2].execute(int) == 0, "one node with a broken network does not stop the fleet"
    information = nodes[0].information()
    assert (information.state, [vote.node_id for vote in information.votes]) == (State.CLOSED, ["a"])
    assert information.own is not None
    assert (information.own.state, information.own.local) == (State.OPEN, True)
    assert "This node decides for itself" in information.explanation

    for _ in range(2):
        with pytest.raises(Work):
            nodes[1].execute(failing)
    assert nodes[2].state() is State.OPEN
    shared = [change for change in recorder.changes if not change.local]
    assert [change.transition.reason.value for change in shared] == ["votes-reached"]
    with pytest.raises(CircuitRefused) as raised:
        nodes[2].start()
    assert raised.value.reason is RefusalReason.OPEN


def test_with_a_quorum_an_outcome_is_settled_on_the_nodes_own_record() -> None:
    clock = ManualClock(NOW_MS)
    breaker = quorum(MemoryStore(clock=clock), clock, "a").breaker_for("db")
    settlement = breaker.start().end(Outcome.SUCCESS)
    assert (settlement.disposition, settlement.local) == (Disposition.ACCEPTED, True)
    late = breaker.start()
    breaker.reset()
    breaker.execute(int)
    assert late.end(Outcome.SUCCESS).disposition is Disposition.STALE


def test_an_override_frees_a_node_that_tripped_alone() -> None:
    clock = ManualClock(NOW_MS)
    breaker = quorum(MemoryStore(clock=clock), clock, "a").breaker_for("db")
    for _ in range(2):
        with pytest.raises(Work):
            breaker.execute(failing)
    breaker.set_override(Override(OverrideKind.METRICS_ONLY, "ops", "a trial"))
    permit = breaker.start()
    assert permit.would_have_refused is not None
    assert permit.would_have_refused.reason is RefusalReason.NODE_OPEN


def test_a_quorum_needs_a_name_for_this_node() -> None:
    with pytest.raises(SettingsError) as raised:
        Factory(quorum=Quorum(2, 60_000))
    assert raised.value.field == "node_id"


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


# ---- asyncio ----


async def test_the_same_for_asyncio() -> None:
    clock, recorder = ManualClock(NOW_MS), Recorder()
    factory = AsyncFactory(
        AsyncMemoryStore(clock=clock), clock=clock, failure_count_threshold=1, state_change_callback=recorder
    )
    breaker = factory.breaker_for("emails", tenant="acme")

    @breaker
    async def send(what: str) -> str:
        if what == "bad":
            raise Work
        return what

    assert await send("good") == "good"
    for _ in range(2):
        with pytest.raises(Work):
            await send("bad")
    with pytest.raises(CircuitRefused):
        await send("good")
    assert await breaker.state() is State.OPEN
    clock.advance_ms(60_000)
    async with breaker.permit() as permit:
        assert permit.is_probe
    assert recorder.reasons() == ["tripped", "open-time-over", "probes-succeeded"]
    assert (await breaker.explain()).startswith("Circuit emails/acme is closed")
    await breaker.set_override(Override(OverrideKind.FORCED_OPEN, "ops", ""))
    assert await breaker.reset() is not None
    status, settlement = await breaker.execute_classified(lambda: asyncio.sleep(0, 503), lambda _: Outcome.FAILURE)
    assert (status, settlement.disposition) == (503, Disposition.ACCEPTED)  # type: ignore[union-attr]
    await factory.aclose()


async def test_a_cancel_is_ignored_and_a_deadline_is_a_failure() -> None:
    factory = AsyncFactory(failure_count_threshold=5)
    breaker = factory.breaker_for("db")
    task = asyncio.create_task(breaker.execute(asyncio.sleep, 60))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await breaker.information()).counts.total == 0
    with pytest.raises(asyncio.TimeoutError):
        await breaker.execute(asyncio.wait_for, asyncio.sleep(60), 0.01)
    assert (await breaker.information()).counts.total_failures == 1


async def test_a_cancelled_probe_frees_its_place() -> None:
    clock = ManualClock(NOW_MS)
    factory = AsyncFactory(AsyncMemoryStore(clock=clock), clock=clock, failure_count_threshold=0)
    breaker = factory.breaker_for("db")
    with pytest.raises(Work):
        async with breaker.permit():
            raise Work
    clock.advance_ms(60_000)
    task = asyncio.create_task(breaker.execute(asyncio.sleep, 60))
    await asyncio.sleep(0.05)
    assert len((await breaker.information()).probes) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await factory._driver.join(5)
    assert (await breaker.information()).probes == ()
    assert (await breaker.start()).is_probe


async def test_what_is_not_awaited_is_refused() -> None:
    breaker = AsyncFactory().breaker_for("db")
    with pytest.raises(ArgumentError):
        breaker.guard(int)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        await breaker.execute(int)  # type: ignore[arg-type]
    assert (await breaker.information()).counts.total == 0


def test_a_factory_works_on_one_loop_after_another_but_not_on_two() -> None:
    factory = AsyncFactory()
    breaker = factory.breaker_for("db")

    async def work() -> int:
        await breaker.start()
        return await breaker.execute(asyncio.sleep, 0, 5)

    assert asyncio.run(work()) == 5
    assert asyncio.run(work()) == 5
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work())

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await breaker.start()

        asyncio.run(elsewhere())
    finally:
        loop.close()
