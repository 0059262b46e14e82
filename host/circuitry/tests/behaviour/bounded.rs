//! Bounded mode: the store is off the call path, and nothing else changes.

use std::convert::Infallible;
use std::time::Duration;

use circuitry::{
    Breaker, Consistency, Disposition, Outcome, OverrideKind, Quorum, RefusalReason, SettingsBuilder, State,
    TripRule, Window,
};
use circuitry_store::fault::Fault;

use crate::world::{World, breaker, factory, forced, information, refused, run};

pub(crate) const TENTH: Duration = Duration::from_millis(100);

/// The settings of the world in bounded mode, by its default times.
pub(crate) fn bounded(world: &World) -> SettingsBuilder {
    world.settings_in(Consistency::Bounded { max_staleness: TENTH, flush_every: TENTH })
}

/// Lets time pass, for the host's clock and for the tasks, in small steps.
pub(crate) async fn pass(world: &World, ms: u64) {
    for _ in 0..ms / 5 {
        world.clock.advance_ms(5);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn execute(breaker: &Breaker, outcome: Outcome) -> Disposition {
    let work = || async { Ok::<_, Infallible>(()) };
    let executed = breaker.execute_classified(work, |_| outcome).await.expect("admitted");
    executed.settlement.expect("settled").disposition
}

pub(crate) async fn totals(breaker: &Breaker) -> (u64, u64) {
    let counts = information(breaker).await.counts;
    (counts.total_successes, counts.total_failures)
}

#[tokio::test(start_paused = true)]
async fn a_closed_circuit_in_use_asks_the_store_once_in_a_while_and_not_a_call() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    for _ in 0..200 {
        for _ in 0..50 {
            execute(&breaker, Outcome::Success).await;
        }
        pass(&world, 5).await;
    }
    factory.flush().await.expect("flushed");
    // A second in all, and something is due after 75 ms.
    let (loads, swaps) = (world.store.loads(), world.store.swaps());
    assert!(loads + swaps <= 18, "{loads} loads, {swaps} swaps");
    assert_eq!(totals(&breaker).await, (10_000, 0), "and the totals are exact");
}

#[tokio::test(start_paused = true)]
async fn a_first_start_costs_a_load_and_the_record_and_the_next_ones_nothing() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Success, 1).await;
    assert_eq!((world.store.loads(), world.store.swaps()), (1, 1));
    run(&breaker, Outcome::Success, 100).await;
    run(&breaker, Outcome::Failure, 1).await;
    assert_eq!((world.store.loads(), world.store.swaps()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_from_the_view() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Failure, 3).await;
    let before = (world.store.loads(), world.store.swaps());
    for _ in 0..100 {
        assert_eq!(refused(&breaker).await.reason(), RefusalReason::Open);
    }
    assert_eq!((world.store.loads(), world.store.swaps()), before);
}

#[tokio::test(start_paused = true)]
async fn an_older_view_costs_one_load_first() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Success, 1).await;
    // Nobody uses it: it is flushed, looked after once, and then left alone.
    pass(&world, 1_000).await;
    let (loads, swaps) = (world.store.loads(), world.store.swaps());
    pass(&world, 60_000).await;
    assert_eq!((world.store.loads(), world.store.swaps()), (loads, swaps), "an idle circuit costs nothing");
    breaker.start().await.expect("a permit").end(Outcome::Ignored).await.expect("settled");
    assert_eq!((world.store.loads(), world.store.swaps()), (loads + 1, swaps));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_in_steady_use_never_waits_for_the_store() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Success, 1).await;
    for round in 0..200 {
        // Not even a success, so only that somebody asks says that it is in use.
        let begun = tokio::time::Instant::now();
        let permit = breaker.start().await.expect("a permit");
        assert_eq!(begun.elapsed(), Duration::ZERO, "round {round}");
        drop(permit);
        world.store.on_next_load(Fault::Delay(Duration::from_millis(10)));
        pass(&world, 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_trip_of_another_process_is_seen_when_the_view_is_over_though_every_push_is_lost() {
    let world = World::new();
    let (one, two) = (factory(bounded(&world)).await, factory(bounded(&world)).await);
    let (one, two) = (breaker(&one), breaker(&two));
    run(&one, Outcome::Success, 1).await;
    run(&two, Outcome::Success, 1).await;
    world.store.on_next_announce(Fault::LostPush);
    run(&two, Outcome::Failure, 3).await;
    // As of before; after a tenth of a second nobody may go by it.
    world.clock.advance_ms(101);
    assert_eq!(refused(&one).await.reason(), RefusalReason::Open);
}

#[tokio::test(start_paused = true)]
async fn a_push_shortens_the_wait_and_a_doubled_or_late_one_changes_nothing() {
    for fault in [None, Some(Fault::DoubledPush), Some(Fault::HeldPush)] {
        let world = World::new();
        let (one, two) = (factory(bounded(&world)).await, factory(bounded(&world)).await);
        let (one, two) = (breaker(&one), breaker(&two));
        run(&one, Outcome::Success, 1).await;
        run(&two, Outcome::Success, 1).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let held = fault == Some(Fault::HeldPush);
        if let Some(fault) = fault {
            world.store.on_next_announce(fault);
        }
        run(&two, Outcome::Failure, 3).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        if held {
            world.store.release_pushes().await.expect("pushed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // No time has passed by which the view would be too old.
        assert_eq!(refused(&one).await.reason(), RefusalReason::Open);
        assert_eq!(world.shared_changes(), [State::Open]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_costs_one_swap_and_no_load() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Failure, 3).await;
    // The view is old by then, and a swap needs no load to find that out.
    world.open_time_passes();
    let (loads, swaps) = (world.store.loads(), world.store.swaps());
    let probe = breaker.start().await.expect("a probe");
    assert!(probe.is_probe());
    assert_eq!((world.store.loads(), world.store.swaps()), (loads, swaps + 1));
    let second = breaker.start().await.expect("a probe");
    assert_eq!((world.store.loads(), world.store.swaps()), (loads, swaps + 2));
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::TooManyRequests);
    probe.end(Outcome::Success).await.expect("settled");
    second.end(Outcome::Success).await.expect("settled");
    assert_eq!(world.shared_changes(), [State::Open, State::HalfOpen, State::Closed]);
    run(&breaker, Outcome::Success, 1).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_trips_the_circuit_waits_until_it_is_stored() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Failure, 2).await;
    assert_eq!(world.shared_changes(), []);
    run(&breaker, Outcome::Failure, 1).await;
    assert_eq!(world.shared_changes(), [State::Open], "flushed at once, and told once");
    assert_eq!(information(&breaker).await.state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn while_a_trip_is_being_written_the_process_refuses() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Failure, 2).await;
    let permit = breaker.start().await.expect("a permit");
    world.store.on_next_swap(Fault::Delay(Duration::from_millis(50)));
    let end = tokio::spawn(permit.end(Outcome::Failure));
    tokio::task::yield_now().await;
    assert_eq!(refused(&breaker).await.reason(), RefusalReason::Open);
    assert_eq!(world.shared_changes(), [], "it is not stored yet");
    let settlement = end.await.expect("no panic").expect("settled");
    assert_eq!(settlement.disposition, Disposition::Accepted);
    assert_eq!(world.shared_changes(), [State::Open]);
}

#[tokio::test(start_paused = true)]
async fn no_permit_of_a_new_era_is_given_while_a_trip_is_being_written() {
    let world = World::new();
    // Open for so short a time that it would be half-open as soon as it is open.
    let settings = bounded(&world).store_timeout(Duration::from_secs(5));
    let breaker = breaker(&factory(settings).await);
    run(&breaker, Outcome::Failure, 2).await;
    let permit = breaker.start().await.expect("a permit");
    world.store.on_next_swap(Fault::Delay(Duration::from_millis(500)));
    let end = tokio::spawn(permit.end(Outcome::Failure));
    tokio::task::yield_now().await;
    world.open_time_passes();
    let begun = tokio::time::Instant::now();
    let probe = breaker.start().await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "it waits for the trip");
    end.await.expect("no panic").expect("settled");
    if let Ok(probe) = probe {
        assert!(probe.is_probe());
        drop(probe);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_for_a_trip_is_told_by_the_winner_only() {
    let world = World::new();
    let (one, two) = (factory(bounded(&world)).await, factory(bounded(&world)).await);
    let (one, two) = (breaker(&one), breaker(&two));
    run(&one, Outcome::Failure, 2).await;
    run(&two, Outcome::Failure, 2).await;
    // Both have seen two failures of their own; the third of either trips, with the other's in it.
    let (first, second) = (one.start().await.expect("a permit"), two.start().await.expect("a permit"));
    let (first, second) = tokio::join!(first.end(Outcome::Failure), second.end(Outcome::Failure));
    first.expect("settled");
    second.expect("settled");
    assert_eq!(world.shared_changes(), [State::Open]);
    assert_eq!(refused(&one).await.reason(), RefusalReason::Open);
    assert_eq!(refused(&two).await.reason(), RefusalReason::Open);
}

#[tokio::test(start_paused = true)]
async fn failures_of_several_processes_add_up_when_they_are_flushed() {
    let world = World::new();
    let (one, two) = (factory(bounded(&world)).await, factory(bounded(&world)).await);
    let (one, two) = (breaker(&one), breaker(&two));
    run(&one, Outcome::Failure, 2).await;
    run(&two, Outcome::Failure, 1).await;
    pass(&world, 300).await;
    assert_eq!(one.state().await.expect("a state"), State::Open);
    assert_eq!(world.shared_changes(), [State::Open]);
}

#[tokio::test(start_paused = true)]
async fn successes_under_a_grant_come_before_the_failure_after_them() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    for _ in 0..5 {
        execute(&breaker, Outcome::Failure).await;
        execute(&breaker, Outcome::Failure).await;
        // Ends the row of failures; without it the third would trip.
        execute(&breaker, Outcome::Success).await;
    }
    assert_eq!(information(&breaker).await.counts.consecutive_failures, 0);
    assert_eq!(totals(&breaker).await, (5, 10));
    assert_eq!(world.changes(), []);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_an_era_that_is_over_is_stale() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Success, 1).await;
    let (late, later) = (breaker.start().await.expect("a permit"), breaker.start().await.expect("a permit"));
    let during = breaker.execute_classified(
        || async {
            run(&breaker, Outcome::Failure, 3).await;
            Ok::<_, Infallible>(())
        },
        |_| Outcome::Success,
    );
    let during = during.await.expect("admitted").settlement.expect("settled");
    // Counted under the grant of its start, flushed after the trip.
    assert_eq!(late.end(Outcome::Success).await.expect("settled").disposition, Disposition::Stale);
    breaker.reset().await.expect("stored");
    assert_eq!(later.end(Outcome::Failure).await.expect("settled").disposition, Disposition::Stale);
    let counts = information(&breaker).await.counts;
    assert_eq!(counts.total, 0, "{during:?}");
}

#[tokio::test(start_paused = true)]
async fn ignored_and_dropped_work_counts_nothing() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Success, 1).await;
    assert_eq!(execute(&breaker, Outcome::Ignored).await, Disposition::Accepted);
    drop(breaker.execute(|| async { std::future::pending::<Result<(), Infallible>>().await }));
    let hung = breaker.execute(|| async { std::future::pending::<Result<(), Infallible>>().await });
    assert!(tokio::time::timeout(TENTH, hung).await.is_err());
    assert_eq!(totals(&breaker).await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_success_is_counted_as_slow_also_under_a_grant() {
    let world = World::new();
    let rule = TripRule::SlowCallRate { per_mille: 500, minimum_calls: 2, window: Window::Calls(10) };
    let settings = bounded(&world).trip_rules([rule]).slow_call_after(Duration::from_secs(1));
    let breaker = breaker(&factory(settings).await);
    run(&breaker, Outcome::Success, 1).await;
    breaker.start().await.expect("a permit").end(Outcome::Success).await.expect("settled");
    for _ in 0..2 {
        let clock = world.clock.clone();
        let slow = || async move {
            clock.advance_ms(1_001);
            Ok::<_, Infallible>(())
        };
        breaker.execute(slow).await.expect("admitted");
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_override_of_another_process_is_seen_like_a_trip() {
    let world = World::new();
    let (one, two) = (factory(bounded(&world)).await, factory(bounded(&world)).await);
    let (one, two) = (breaker(&one), breaker(&two));
    run(&one, Outcome::Success, 1).await;
    two.set_override(Some(forced(OverrideKind::ForcedOpen))).await.expect("stored");
    world.clock.advance_ms(101);
    assert_eq!(refused(&one).await.reason(), RefusalReason::ForcedOpen);
    one.set_override(None).await.expect("stored");
    run(&one, Outcome::Success, 1).await;
    one.set_override(Some(forced(OverrideKind::Disabled))).await.expect("stored");
    run(&one, Outcome::Failure, 10).await;
    assert_eq!(totals(&one).await, (2, 0), "a disabled circuit counts nothing");
}

#[tokio::test(start_paused = true)]
async fn with_a_quorum_a_node_judges_for_itself_and_votes_in_bounded_mode_too() {
    let world = World::new();
    let node = async |id: &str| {
        let quorum = Quorum { votes: 2, window: Duration::from_secs(600) };
        breaker(&factory(bounded(&world).quorum(quorum).node_id(id)).await)
    };
    let (one, two, well) = (node("a").await, node("b").await, node("c").await);
    run(&well, Outcome::Success, 5).await;
    run(&one, Outcome::Failure, 3).await;
    assert_eq!(refused(&one).await.reason(), RefusalReason::NodeOpen);
    assert_eq!(information(&well).await.votes.len(), 1);
    run(&well, Outcome::Success, 5).await;
    run(&two, Outcome::Failure, 3).await;
    world.clock.advance_ms(101);
    assert_eq!(refused(&well).await.reason(), RefusalReason::Open);
    assert_eq!(world.shared_changes(), [State::Open]);
}

#[tokio::test(start_paused = true)]
async fn who_holds_a_look_without_polling_it_holds_nobody_up() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Success, 1).await;
    world.store.on_next_load(Fault::Delay(Duration::from_millis(10)));
    let mut look = Box::pin(breaker.information());
    assert!(futures::poll!(look.as_mut()).is_pending());
    let begun = tokio::time::Instant::now();
    world.clock.advance_ms(150);
    run(&breaker, Outcome::Success, 1).await;
    assert!(begun.elapsed() <= Duration::from_millis(50), "{:?}", begun.elapsed());
    drop(look);
}

#[tokio::test]
async fn times_out_of_bounds_are_refused_by_name() {
    for (setting, max_staleness, flush_every) in [
        ("consistency.max_staleness", Duration::ZERO, TENTH),
        ("consistency.max_staleness", Duration::from_secs(61), TENTH),
        ("consistency.flush_every", TENTH, Duration::ZERO),
        ("consistency.flush_every", TENTH, Duration::from_secs(61)),
    ] {
        let settings = circuitry::Settings::builder();
        let settings = settings.consistency(Consistency::Bounded { max_staleness, flush_every });
        let error = settings.build().expect_err("out of bounds").to_string();
        assert!(error.contains(setting), "{error}");
    }
}

/// A clock that counts who asks it; its cell is read without asking.
#[derive(Clone, Debug)]
struct Counting {
    clock: circuitry::ManualClock,
    asked: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl circuitry::Clock for Counting {
    fn now_ms(&self) -> u64 {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.clock.now_ms()
    }

    fn cell(&self) -> Option<std::sync::Arc<std::sync::atomic::AtomicU64>> {
        self.clock.cell()
    }
}

#[tokio::test]
async fn a_call_under_a_grant_reads_no_clock() {
    let clock =
        Counting { clock: circuitry::ManualClock::at_ms(1_000_000), asked: std::sync::Arc::default() };
    let asked = || clock.asked.load(std::sync::atomic::Ordering::SeqCst);
    let settings = circuitry::Settings::builder().clock(clock.clone());
    let breaker = breaker(&factory(settings).await);
    // The first one makes the record, the second one is given the grant.
    execute(&breaker, Outcome::Success).await;
    execute(&breaker, Outcome::Success).await;
    let before = asked();
    // Nothing here yields, so nobody else asks it.
    for _ in 0..1_000 {
        execute(&breaker, Outcome::Success).await;
    }
    assert_eq!(asked(), before);
    execute(&breaker, Outcome::Failure).await;
    assert!(asked() > before, "what ends the grant is decided");
    assert_eq!(totals(&breaker).await, (1_002, 1));
}
