//! Strict mode: a start goes by what the store has now, also where this process has been granted that it need not ask.

use circuitry::{Outcome, OverrideKind, RefusalReason, State};

use crate::world::{World, breaker, forced, information, refused, run, trip};

#[tokio::test]
async fn after_any_number_of_own_successes_the_next_start_sees_the_trip_of_another_process() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    run(&one, Outcome::Success, 5).await;
    run(&other, Outcome::Failure, 3).await;
    assert_eq!(refused(&one).await.reason(), RefusalReason::Open);
}

#[tokio::test]
async fn a_start_sees_the_override_of_another_process_and_its_end() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    run(&one, Outcome::Success, 2).await;
    other.set_override(Some(forced(OverrideKind::ForcedOpen))).await.expect("stored");
    assert_eq!(refused(&one).await.reason(), RefusalReason::ForcedOpen);
    other.set_override(None).await.expect("stored");
    run(&one, Outcome::Success, 1).await;
}

#[tokio::test]
async fn own_failures_between_successes_count_as_they_come() {
    let world = World::new();
    let one = breaker(&world.factory().await);
    run(&one, Outcome::Success, 2).await;
    run(&one, Outcome::Failure, 2).await;
    run(&one, Outcome::Success, 1).await;
    assert_eq!(information(&one).await.state, State::Closed, "a success is between them");
    trip(&one).await;
    assert_eq!(information(&one).await.counts.total, 0, "counts begin anew with each era");
}

#[tokio::test]
async fn after_a_recovery_a_start_belongs_to_the_new_era() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    run(&one, Outcome::Success, 1).await;
    let late = one.start().await.expect("a permit");
    trip(&other).await;
    world.open_time_passes();
    run(&other, Outcome::Success, 2).await;
    let fresh = one.start().await.expect("a permit");
    assert!(fresh.era() > late.era());
    let settled = fresh.end(Outcome::Success).await.expect("a settlement");
    assert_eq!(settled.disposition, circuitry::Disposition::Accepted);
    let settled = late.end(Outcome::Failure).await.expect("a settlement");
    assert_eq!(settled.disposition, circuitry::Disposition::Stale);
}
