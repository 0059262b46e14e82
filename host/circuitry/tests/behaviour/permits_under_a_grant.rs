//! Permits that are started and ended by hand, under a grant.

use std::time::Duration;

use circuitry::{Disposition, Outcome, State, TripRule, Window};

use crate::bounded::{bounded, totals};
use crate::world::{World, breaker, factory, information, refused, run};

#[tokio::test(start_paused = true)]
async fn permits_by_hand_count_each_in_the_era_that_they_show() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 2).await;
    let (loads, swaps) = (world.store.loads(), world.store.swaps());
    let mut permits = Vec::new();
    for _ in 0..10 {
        permits.push(breaker.start().await.expect("a permit"));
    }
    let era = permits[0].era().expect("an era");
    for permit in permits {
        assert_eq!((permit.era(), permit.is_probe()), (Some(era), false));
        let settled = permit.end(Outcome::Success).await.expect("settled");
        assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
    }
    assert_eq!((world.store.loads(), world.store.swaps()), (loads, swaps), "nobody was asked");
    factory.flush().await.expect("flushed");
    assert_eq!(totals(&breaker).await, (12, 0));
    assert_eq!(information(&breaker).await.era, era);
}

#[tokio::test(start_paused = true)]
async fn failures_of_permits_by_hand_trip_and_what_ends_after_that_is_stale() {
    let world = World::new();
    let breaker = breaker(&factory(bounded(&world)).await);
    run(&breaker, Outcome::Success, 2).await;
    let late = [breaker.start().await.expect("a permit"), breaker.start().await.expect("a permit")];
    for _ in 0..3 {
        let permit = breaker.start().await.expect("a permit");
        assert_eq!(permit.end(Outcome::Failure).await.expect("settled").disposition, Disposition::Accepted);
    }
    refused(&breaker).await;
    let [success, failure] = late;
    assert_eq!(success.end(Outcome::Success).await.expect("settled").disposition, Disposition::Stale);
    assert_eq!(failure.end(Outcome::Failure).await.expect("settled").disposition, Disposition::Stale);
    assert_eq!(information(&breaker).await.state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_permit_of_a_term_that_is_over_counts_in_no_other() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 2).await;
    let late = breaker.start().await.expect("a permit");
    run(&breaker, Outcome::Failure, 3).await;
    world.open_time_passes();
    // Two probes close it.
    run(&breaker, Outcome::Success, 2 + 2).await;
    let now = breaker.start().await.expect("a permit");
    assert!(late.era() < now.era(), "{late:?} and {now:?}");
    assert_eq!(late.end(Outcome::Success).await.expect("settled").disposition, Disposition::Stale);
    assert_eq!(now.end(Outcome::Success).await.expect("settled").disposition, Disposition::Accepted);
    factory.flush().await.expect("flushed");
    assert_eq!(totals(&breaker).await, (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_permit_counts_nothing() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 2).await;
    drop(breaker.start().await.expect("a permit"));
    let ignored = breaker.start().await.expect("a permit").end(Outcome::Ignored).await.expect("settled");
    assert_eq!(ignored.disposition, Disposition::Accepted);
    factory.flush().await.expect("flushed");
    assert_eq!(totals(&breaker).await, (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_success_of_a_permit_by_hand_counts_as_slow() {
    let world = World::new();
    let settings =
        bounded(&world).slow_call_after(Duration::from_millis(50)).trip_rules([TripRule::SlowCallRate {
            per_mille: 1_000,
            minimum_calls: 2,
            window: Window::Calls(2),
        }]);
    let breaker = breaker(&factory(settings).await);
    run(&breaker, Outcome::Success, 2).await;
    for _ in 0..2 {
        let permit = breaker.start().await.expect("a permit");
        world.clock.advance_ms(51);
        permit.end(Outcome::Success).await.expect("settled");
    }
    refused(&breaker).await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_by_hand_that_ends_in_an_outage_counts_on_the_outage_s_record() {
    let world = World::new();
    let factory = factory(bounded(&world)).await;
    let breaker = breaker(&factory);
    run(&breaker, Outcome::Success, 2).await;
    let permit = breaker.start().await.expect("a permit");
    world.store.go_down();
    factory.flush().await.expect_err("the store is down");
    let settled = permit.end(Outcome::Failure).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
    let seen = information(&breaker).await;
    assert_eq!((seen.local, seen.counts.total_failures), (true, 1));
}
