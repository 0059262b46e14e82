//! Outcomes: none lost, none counted twice, few swaps.

use std::sync::Arc;
use std::time::Duration;

use circuitry::{Clock, Disposition, ManualClock, Outcome, Settings, State};
use circuitry_store::fault::{Fault, Odds};

use crate::world::{BEGIN_MS, World, breaker, factory, run, trip, until};

#[tokio::test]
async fn a_strict_start_on_a_closed_circuit_costs_one_load_and_an_end_one_swap() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    run(&breaker, Outcome::Success, 1).await;
    let before = (world.store.loads(), world.store.swaps());
    run(&breaker, Outcome::Success, 100).await;
    assert_eq!((world.store.loads() - before.0, world.store.swaps() - before.1), (100, 100));
}

#[tokio::test]
async fn a_lost_race_costs_one_swap_more_and_no_load() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    run(&one, Outcome::Success, 1).await;
    let permit = one.start().await.expect("a permit");
    run(&other, Outcome::Success, 1).await;
    let before = (world.store.loads(), world.store.swaps());
    permit.end(Outcome::Success).await.expect("settled");
    assert_eq!((world.store.loads() - before.0, world.store.swaps() - before.1), (0, 2));
    assert_eq!(one.information().await.expect("information").counts.total, 3);
}

#[tokio::test]
async fn ends_of_one_circuit_are_combined_one_swap_under_way_at_a_time() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    run(&breaker, Outcome::Success, 1).await;
    let mut permits = Vec::new();
    for _ in 0..64 {
        permits.push(breaker.start().await.expect("a permit"));
    }
    let swaps = world.store.swaps();
    world.store.on_next_swap(Fault::Hang);
    let mut permits = permits.into_iter();
    let first = tokio::spawn(permits.next().expect("a permit").end(Outcome::Success));
    world.store.until_hanging(1).await;
    let others: Vec<_> = permits.map(|permit| tokio::spawn(permit.end(Outcome::Success))).collect();
    assert_eq!(world.store.swaps() - swaps, 1, "the others wait");
    world.store.release();
    for end in std::iter::once(first).chain(others) {
        let settled = end.await.expect("no panic").expect("settled");
        assert_eq!(settled.disposition, Disposition::Accepted);
    }
    assert_eq!(world.store.swaps() - swaps, 2, "63 went together");
    assert_eq!(breaker.information().await.expect("information").counts.total, 65);
}

#[tokio::test]
async fn what_follows_a_trip_in_a_combined_swap_is_stale() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let mut permits = Vec::new();
    for _ in 0..11 {
        permits.push(breaker.start().await.expect("a permit"));
    }
    world.store.on_next_swap(Fault::Hang);
    let mut permits = permits.into_iter();
    let first = tokio::spawn(permits.next().expect("a permit").end(Outcome::Success));
    world.store.until_hanging(1).await;
    let failures: Vec<_> = permits.map(|permit| permit.end(Outcome::Failure)).collect();
    world.store.release();
    first.await.expect("no panic").expect("settled");
    let mut dispositions = Vec::new();
    for failure in failures {
        dispositions.push(failure.await.expect("settled").disposition);
    }
    let accepted =
        dispositions.iter().take_while(|disposition| **disposition == Disposition::Accepted).count();
    assert_eq!(accepted, 3, "the third failure trips");
    assert!(dispositions[3..].iter().all(|disposition| *disposition == Disposition::Stale));
    assert_eq!(world.changes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_of_several_processes_lose_no_outcome() {
    let world = World::new();
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let settings = Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .store(world.store.clone())
            .failure_count_threshold(u64::MAX);
        let breaker = breaker(&factory(settings).await);
        for task in 0..16 {
            let breaker = breaker.clone();
            tasks.push(tokio::spawn(async move {
                let outcome = if task % 4 == 0 { Outcome::Failure } else { Outcome::Success };
                for _ in 0..25 {
                    let permit = breaker.start().await.expect("a permit");
                    let settled = permit.end(outcome).await.expect("settled");
                    assert_eq!(settled.disposition, Disposition::Accepted, "nobody is left waiting");
                }
            }));
        }
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let counts = breaker(&world.factory().await).information().await.expect("information").counts;
    assert_eq!((counts.total, counts.total_successes, counts.total_failures), (1_600, 1_200, 400));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_never_counted_twice() {
    for seed in 0..200 {
        let world = World::new();
        let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
        run(&one, Outcome::Success, 1).await;
        world.store.set_odds(Odds { lost_answer: 300, ..Odds::default() }, seed);
        let mut accepted = 1;
        for breaker in [&one, &other, &one, &other] {
            let Ok(permit) = breaker.start().await else { continue };
            let settled = permit.end(Outcome::Success).await.expect("settled");
            // A local settlement may also have been written before its answer was lost: it is looked at below.
            accepted += u64::from(settled.disposition == Disposition::Accepted);
        }
        world.store.clear();
        until("both processes are back on the shared record", || async {
            let shared = |information: circuitry::Information| !information.local;
            shared(one.information().await.expect("information"))
                && shared(other.information().await.expect("information"))
        })
        .await;
        let information = one.information().await.expect("information");
        assert_eq!(information.state, State::Closed);
        assert!(
            information.counts.total <= accepted,
            "seed {seed}: {} > {accepted}",
            information.counts.total
        );
    }
}

#[tokio::test(start_paused = true)]
async fn contention_gives_no_outcome_up() {
    let world = World::new();
    let breakers: Vec<_> = {
        let mut breakers = Vec::new();
        for _ in 0..12 {
            breakers.push(Arc::new(breaker(&world.factory().await)));
        }
        breakers
    };
    run(&breakers[0], Outcome::Success, 1).await;
    // Delays let the races overlap: of twelve swaps on one version eleven lose, again and again.
    world
        .store
        .set_odds(Odds { delay: 1_000, delay_at_most: Duration::from_millis(3), ..Odds::default() }, 7);
    let mut tasks = Vec::new();
    for breaker in &breakers {
        let breaker = breaker.clone();
        tasks.push(tokio::spawn(async move {
            let mut dispositions = Vec::new();
            for _ in 0..10 {
                let permit = breaker.start().await.expect("a permit");
                dispositions.push(permit.end(Outcome::Success).await.expect("settled").disposition);
            }
            dispositions
        }));
    }
    let mut unsettled = 0;
    for task in tasks {
        let dispositions = task.await.expect("no panic");
        assert!(dispositions.iter().all(|d| matches!(d, Disposition::Accepted | Disposition::Unsettled)));
        unsettled += dispositions.iter().filter(|d| **d == Disposition::Unsettled).count();
    }
    world.store.clear();
    until("all outcomes are counted", || async {
        breakers[0].information().await.expect("information").counts.total == 121
    })
    .await;
    assert!(unsettled < 120);
}

#[tokio::test]
async fn an_outcome_is_not_stale_because_an_older_entry_was_seen_later() {
    for load_of_before in [Fault::HangAnswer, Fault::Hang] {
        let world = World::new();
        let breaker = breaker(&world.factory().await);
        // A look at the circuit before there is a record; its answer comes after the start's.
        world.store.on_next_load(load_of_before);
        let looking = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.information().await }
        });
        world.store.until_hanging(1).await;
        let permit = breaker.start().await.expect("a permit");
        world.store.release();
        looking.await.expect("no panic").expect("information");
        let settled = permit.end(Outcome::Success).await.expect("settled");
        assert_eq!(settled.disposition, Disposition::Accepted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_renewed_although_an_older_entry_was_seen_later() {
    let world = World::new();
    let breaker = breaker(&factory(world.settings().probe_timeout(Duration::from_secs(3))).await);
    trip(&breaker).await;
    world.open_time_passes();
    world.store.on_next_load(Fault::HangAnswer);
    let looking = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.information().await }
    });
    world.store.until_hanging(1).await;
    let probe = breaker.start().await.expect("a probe");
    let leased_until_ms = world.clock.now_ms() + 3_000;
    world.store.release();
    assert!(looking.await.expect("no panic").expect("information").probes.is_empty());
    world.clock.advance_ms(1_000);
    until("the lease is renewed", || async {
        let probes = breaker.information().await.expect("information").probes;
        probes.iter().any(|probe| probe.deadline_ms > leased_until_ms)
    })
    .await;
    probe.end(Outcome::Success).await.expect("settled");
}

#[tokio::test]
async fn a_host_whose_clock_is_ahead_does_not_end_an_open_time_with_its_first_call() {
    let world = World::new();
    trip(&breaker(&world.factory().await)).await;
    let ahead = ManualClock::at_ms(BEGIN_MS + 10 * 60_000);
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .store(world.store.clone())
        .clock(ahead);
    let late = breaker(&factory(settings).await);
    let loads = world.store.loads();
    assert!(late.start().await.is_err(), "the open time has a minute to go");
    assert_eq!(world.store.loads(), loads + 1, "and it costs no more than any other call");
    assert_eq!(late.state().await.expect("a state"), State::Open);
}

#[tokio::test]
async fn two_processes_do_not_take_each_others_calls_for_repeated_ones_whatever_seed_the_user_sets() {
    let world = World::new();
    for run_of_process in 1..=3 {
        // An application that seeds its random numbers, started again and again.
        fastrand::seed(7);
        run(&breaker(&world.factory().await), Outcome::Success, 3).await;
        let counts = breaker(&world.factory().await).information().await.expect("information").counts;
        assert_eq!(counts.total, run_of_process * 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_is_settled_although_the_one_before_it_is_not_polled() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let (one, other) = (breaker.start().await.expect("a permit"), breaker.start().await.expect("a permit"));
    let unpolled = one.end(Outcome::Success);
    let settled = other.end(Outcome::Success).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Accepted);
    assert_eq!(unpolled.await.expect("settled").disposition, Disposition::Accepted);
    assert_eq!(breaker.information().await.expect("information").counts.total, 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_settled_although_the_one_before_it_was_polled_once_and_then_left() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let (one, other) = (breaker.start().await.expect("a permit"), breaker.start().await.expect("a permit"));
    world.store.on_next_swap(Fault::Delay(Duration::from_millis(50)));
    let mut left = Box::pin(one.end(Outcome::Success));
    assert!(futures_util::poll!(&mut left).is_pending(), "its swap is under way");
    let settled = other.end(Outcome::Success).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Accepted);
    assert_eq!(left.await.expect("settled").disposition, Disposition::Accepted);
}

#[tokio::test(start_paused = true)]
async fn lost_races_are_no_outage() {
    let world = World::new();
    let mut nodes = Vec::new();
    for _ in 0..24 {
        let factory = world.factory().await;
        nodes.push((breaker(&factory), factory));
    }
    run(&nodes[0].0, Outcome::Success, 1).await;
    world
        .store
        .set_odds(Odds { delay: 1_000, delay_at_most: Duration::from_millis(25), ..Odds::default() }, 11);
    let mut tasks = Vec::new();
    for (breaker, _) in &nodes {
        let breaker = breaker.clone();
        tasks.push(tokio::spawn(async move {
            let mut unsettled = 0;
            for _ in 0..5 {
                let permit = breaker.start().await.expect("a permit");
                let settled = permit.end(Outcome::Success).await.expect("settled");
                unsettled += u64::from(settled.disposition == Disposition::Unsettled);
            }
            unsettled
        }));
    }
    let mut unsettled = 0;
    for task in tasks {
        unsettled += task.await.expect("no panic");
    }
    assert!(nodes.iter().all(|(_, factory)| !factory.is_store_down()), "others write too; the store is well");
    world.store.clear();
    // A swap that was cut off may be forgotten among so many writers; it is told so, and never counted twice.
    until("what was told to be accepted is counted", || async {
        nodes[0].0.information().await.expect("information").counts.total >= 121 - unsettled
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(nodes[0].0.information().await.expect("information").counts.total <= 121);
}
