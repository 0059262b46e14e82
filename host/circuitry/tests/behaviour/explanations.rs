//! What a person is told of a circuit.

use circuitry::{ChangeKind, Outcome, OverrideKind, TripKind, TripRule};

use crate::world::{BEGIN_MS, World, breaker, forced, information, run, trip};

/// Whether the text has all these in it.
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[tokio::test]
async fn the_explanation_says_state_cause_end_and_override() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    says(&breaker.explain().await.expect("told"), &["jobs/acme", "closed", "nothing is stored"]);
    trip(&breaker).await;
    breaker.set_override(Some(forced(OverrideKind::MetricsOnly))).await.expect("stored");
    world.clock.advance_ms(20_000);
    let told = breaker.explain().await.expect("told");
    says(
        &told,
        &[
            "jobs/acme is open since 20 s",
            "for another 40 s",
            "3 failures in a row",
            "ann",
            "the provider asked",
        ],
    );
    assert_eq!(information(&breaker).await.explain(), told);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_in_an_outage_says_whose_record_it_is_of() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    run(&breaker, Outcome::Success, 1).await;
    world.store.go_down();
    says(&breaker.explain().await.expect("told"), &["closed", "this process's own record"]);
}

#[tokio::test]
async fn information_says_what_the_rules_see_why_it_opened_and_what_comes_next() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    run(&breaker, Outcome::Success, 2).await;
    run(&breaker, Outcome::Failure, 2).await;
    let closed = information(&breaker).await;
    let [rule] = &closed.rules[..] else { panic!("one rule") };
    assert_eq!(rule.rule, TripRule::ConsecutiveFailures { minimum_calls: 0 });
    assert_eq!((rule.observed, rule.calls), (2, 4));
    assert_eq!((closed.last_trip, closed.next_change), (None, None));
    run(&breaker, Outcome::Failure, 1).await;
    let open = information(&breaker).await;
    let trip = open.last_trip.expect("a trip");
    assert_eq!(
        (trip.kind, trip.observed, trip.threshold, trip.calls),
        (TripKind::ConsecutiveFailures, 3, 3, 5)
    );
    assert_eq!((trip.at_ms, trip.open_for_ms), (BEGIN_MS, 60_000));
    let next = open.next_change.expect("a change");
    assert_eq!((next.kind, next.at_ms), (ChangeKind::HalfOpen, BEGIN_MS + 60_000));
    assert!(open.rules.is_empty());
    world.open_time_passes();
    let probe = breaker.start().await.expect("a probe");
    let next = information(&breaker).await.next_change.expect("a change");
    assert_eq!((next.kind, next.at_ms), (ChangeKind::LeaseEnd, BEGIN_MS + 90_000));
    drop(probe);
}
