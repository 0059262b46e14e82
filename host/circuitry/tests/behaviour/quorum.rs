//! Nodes decide for themselves, and so many of them for the fleet.

use std::time::Duration;

use circuitry::{
    Breaker, Disposition, Outcome, OverrideKind, Quorum, Ramp, RefusalReason, SettingsBuilder, State,
    TransitionReason, TripKind,
};
use circuitry_store::fault::Fault;

use crate::world::{BEGIN_MS, World, breaker, factory, forced, information, refused, run};

/// How long a vote lives.
const WINDOW: Duration = Duration::from_secs(600);

/// Two of the nodes trip the circuit.
pub(crate) fn settings(world: &World, node_id: &str) -> SettingsBuilder {
    world.settings().quorum(Quorum { votes: 2, window: WINDOW }).node_id(node_id)
}

/// A node of its own: a factory that shares the store with the others.
pub(crate) async fn node(world: &World, node_id: &str) -> Breaker {
    breaker(&factory(settings(world, node_id)).await)
}

/// Fails until the node trips for itself.
pub(crate) async fn trip_alone(node: &Breaker) {
    run(node, Outcome::Failure, 3).await;
}

/// The nodes that have voted.
pub(crate) async fn voters(node: &Breaker) -> Vec<String> {
    information(node).await.votes.into_iter().map(|vote| vote.node_id).collect()
}

#[tokio::test]
async fn a_lone_sick_node_is_refused_alone_and_the_others_go_on() {
    let world = World::new();
    let (sick, well) = (node(&world, "a").await, node(&world, "b").await);
    trip_alone(&sick).await;
    let refusal = refused(&sick).await;
    assert_eq!((refusal.reason(), refusal.retry_after()), (RefusalReason::NodeOpen, Duration::from_secs(60)));
    run(&well, Outcome::Success, 10).await;
    assert_eq!(well.state().await.expect("a state"), State::Closed);
    assert_eq!(voters(&well).await, ["a"]);
    let name = "jobs/acme".to_owned();
    assert_eq!(world.changes(), [(name, State::Closed, State::Open, true)], "told as the node's own");
}

#[tokio::test]
async fn a_node_that_is_refused_alone_is_told_why() {
    let world = World::new();
    let (sick, well) = (node(&world, "a").await, node(&world, "b").await);
    assert_eq!(information(&sick).await.own, None, "it has not decided anything yet");
    trip_alone(&sick).await;
    let told = information(&sick).await;
    let own = told.own.as_deref().expect("the node's own record");
    assert_eq!((told.state, own.state, own.local), (State::Closed, State::Open, true));
    assert_eq!(own.last_trip.map(|trip| trip.kind), Some(TripKind::ConsecutiveFailures));
    for part in ["1 of 2", "This node decides for itself", "is open", "3 failures in a row"] {
        assert!(told.explain().contains(part), "no {part:?} in: {}", told.explain());
    }
    run(&well, Outcome::Failure, 2).await;
    let own = information(&well).await.own.expect("the other node's");
    assert_eq!((own.state, own.rules[0].observed), (State::Closed, 2));
}

#[tokio::test]
async fn so_many_nodes_that_trip_open_the_circuit_for_all() {
    let world = World::new();
    let (one, two, well) = (node(&world, "a").await, node(&world, "b").await, node(&world, "c").await);
    run(&well, Outcome::Success, 5).await;
    trip_alone(&one).await;
    trip_alone(&two).await;
    assert_eq!(refused(&well).await.reason(), RefusalReason::Open);
    let open = information(&well).await;
    let trip = open.last_trip.expect("a trip");
    assert_eq!((trip.kind, trip.observed, trip.threshold), (TripKind::Votes, 2, 2));
    assert_eq!(open.transitions.last().map(|last| last.reason), Some(TransitionReason::VotesReached));
    assert_eq!(world.shared_changes(), [State::Open], "told once");
}

#[tokio::test]
async fn failures_that_no_node_minds_alone_do_not_add_up() {
    let world = World::new();
    let mut nodes = Vec::new();
    for id in ["a", "b", "c", "d"] {
        nodes.push(node(&world, id).await);
    }
    for node in &nodes {
        run(node, Outcome::Failure, 2).await;
    }
    assert_eq!(information(&nodes[0]).await.state, State::Closed);
    assert!(voters(&nodes[0]).await.is_empty() && world.changes().is_empty());
}

#[tokio::test]
async fn a_vote_ends_with_the_window() {
    let world = World::new();
    let (one, two) = (node(&world, "a").await, node(&world, "b").await);
    trip_alone(&one).await;
    world.clock.advance_ms(WINDOW.as_millis() as u64);
    assert!(voters(&two).await.is_empty());
    trip_alone(&two).await;
    assert_eq!((information(&two).await.state, voters(&two).await), (State::Closed, vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_nodes_second_trip_prolongs_its_vote_and_makes_no_second_one() {
    let world = World::new();
    let sick = node(&world, "a").await;
    trip_alone(&sick).await;
    world.open_time_passes();
    let probe = sick.start().await.expect("a probe of this node's own");
    assert!(probe.is_probe());
    let settled = probe.end(Outcome::Failure).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, true));
    assert_eq!(refused(&sick).await.reason(), RefusalReason::NodeOpen);
    let votes = information(&sick).await.votes;
    let votes: Vec<_> = votes.iter().map(|vote| (&*vote.node_id, vote.at_ms)).collect();
    assert_eq!(votes, [("a", BEGIN_MS + 60_000)]);
    assert_eq!(sick.state().await.expect("a state"), State::Closed);
}

#[tokio::test]
async fn a_node_recovers_by_probes_of_its_own_while_the_others_go_on() {
    let world = World::new();
    let (sick, well) = (node(&world, "a").await, node(&world, "b").await);
    trip_alone(&sick).await;
    world.open_time_passes();
    let probes = [sick.start().await.expect("a probe"), sick.start().await.expect("a probe")];
    assert!(probes.iter().all(circuitry::Permit::is_probe));
    assert_eq!(refused(&sick).await.reason(), RefusalReason::TooManyRequests);
    assert!(!well.start().await.expect("a permit").is_probe());
    for probe in probes {
        probe.end(Outcome::Success).await.expect("settled");
    }
    assert!(!sick.start().await.expect("a permit").is_probe());
    assert!(world.shared_changes().is_empty());
    let own: Vec<_> = world.changes().into_iter().map(|change| change.2).collect();
    assert_eq!(own, [State::Open, State::HalfOpen, State::Closed]);
}

#[tokio::test]
async fn of_the_starts_that_the_fleets_ramp_admits_a_nodes_own_ramp_admits_its_share() {
    let world = World::new();
    let ramp = || Ramp { steps_per_mille: vec![500], step: Duration::from_secs(3_600) };
    let (one, two) = (
        breaker(&factory(settings(&world, "a").ramp(ramp())).await),
        breaker(&factory(settings(&world, "b").ramp(ramp())).await),
    );
    trip_alone(&one).await;
    trip_alone(&two).await;
    world.open_time_passes();
    run(&one, Outcome::Success, 2).await;
    let admitted = async |starts: usize, outcome| {
        let mut admitted = 0;
        for _ in 0..starts {
            if let Ok(permit) = one.start().await {
                admitted += 1;
                permit.end(outcome).await.expect("settled");
            }
        }
        admitted
    };
    assert_eq!(admitted(100, Outcome::Success).await, 50, "the fleet's ramp");
    assert_eq!(admitted(6, Outcome::Failure).await, 3);
    assert_eq!(information(&one).await.own.expect("its own record").state, State::Open);
    world.open_time_passes();
    assert_eq!(admitted(4, Outcome::Success).await, 2, "its own probes");
    assert_eq!(admitted(400, Outcome::Success).await, 100, "both ramps");
}

#[tokio::test]
async fn a_dropped_probe_of_a_nodes_own_frees_its_place() {
    let world = World::new();
    let sick = node(&world, "a").await;
    trip_alone(&sick).await;
    world.open_time_passes();
    for _ in 0..5 {
        // Handed over with the drop; the next start comes after it on the node's own record.
        drop(sick.start().await.expect("a place"));
        crate::world::until("the place is free", || async {
            match (sick.start().await, sick.start().await) {
                (Ok(one), Ok(two)) => {
                    let ends = (one.end(Outcome::Ignored).await, two.end(Outcome::Ignored).await);
                    ends.0.is_ok() && ends.1.is_ok()
                }
                _ => false,
            }
        })
        .await;
    }
}

#[tokio::test]
async fn after_the_fleets_recovery_the_nodes_own_records_begin_anew() {
    let world = World::new();
    let (one, two) = (node(&world, "a").await, node(&world, "b").await);
    run(&two, Outcome::Failure, 2).await;
    trip_alone(&one).await;
    run(&two, Outcome::Failure, 1).await;
    world.open_time_passes();
    let probe = one.start().await.expect("a probe of the fleet's");
    assert!(probe.is_probe());
    let settled = probe.end(Outcome::Success).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, false));
    run(&two, Outcome::Success, 1).await;
    let closed = information(&one).await;
    assert_eq!((closed.state, closed.votes.len()), (State::Closed, 0));
    for node in [&one, &two] {
        assert!(!node.start().await.expect("a permit").is_probe(), "its own circuit is closed");
        run(node, Outcome::Failure, 2).await;
        drop(node.start().await.expect("two failures are none too many"));
    }
}

#[tokio::test]
async fn an_outcome_of_before_the_fleets_trip_is_stale_on_the_new_own_record() {
    let world = World::new();
    let (one, two, late) = (node(&world, "a").await, node(&world, "b").await, node(&world, "c").await);
    let permit = late.start().await.expect("a permit");
    trip_alone(&one).await;
    trip_alone(&two).await;
    world.open_time_passes();
    run(&late, Outcome::Success, 2).await;
    run(&late, Outcome::Success, 1).await;
    let settled = permit.end(Outcome::Failure).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Stale, true));
}

#[tokio::test]
async fn a_start_that_is_answered_late_by_an_era_that_is_over_leaves_the_new_own_record_alone() {
    let world = World::new();
    let (one, two) = (node(&world, "a").await, node(&world, "b").await);
    let late = breaker(&factory(settings(&world, "c").store_timeout(Duration::from_secs(20))).await);
    run(&late, Outcome::Success, 1).await;
    world.store.on_next_load(Fault::HangAnswer);
    let slow = tokio::spawn({
        let late = late.clone();
        async move { late.start().await.expect("a permit of before the trip") }
    });
    world.store.until_hanging(1).await;
    trip_alone(&one).await;
    trip_alone(&two).await;
    world.open_time_passes();
    run(&late, Outcome::Success, 2).await;
    run(&late, Outcome::Failure, 2).await;
    world.store.release();
    let settled = slow.await.expect("no panic").end(Outcome::Success).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Stale, true));
    run(&late, Outcome::Failure, 1).await;
    assert_eq!(refused(&late).await.reason(), RefusalReason::NodeOpen, "the third failure in a row");
}

#[tokio::test]
async fn a_node_that_comes_back_under_its_id_replaces_its_vote() {
    let world = World::new();
    trip_alone(&node(&world, "a").await).await;
    world.clock.advance_ms(1_000);
    let restarted = node(&world, "a").await;
    trip_alone(&restarted).await;
    let votes = information(&restarted).await.votes;
    let votes: Vec<_> = votes.iter().map(|vote| (&*vote.node_id, vote.at_ms)).collect();
    assert_eq!(votes, [("a", BEGIN_MS + 1_000)]);
    trip_alone(&node(&world, "b").await).await;
    assert_eq!(restarted.state().await.expect("a state"), State::Open);
}

#[tokio::test]
async fn an_outcome_costs_no_write_to_the_store() {
    let world = World::new();
    let node = node(&world, "a").await;
    run(&node, Outcome::Success, 1).await;
    let before = (world.store.loads(), world.store.swaps());
    run(&node, Outcome::Success, 50).await;
    run(&node, Outcome::Failure, 2).await;
    assert_eq!((world.store.loads() - before.0, world.store.swaps() - before.1), (52, 0));
}

#[tokio::test]
async fn outcomes_of_many_tasks_are_all_counted_by_the_node() {
    let world = World::new();
    let node = node(&world, "a").await;
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let node = node.clone();
        tasks.push(tokio::spawn(async move { run(&node, Outcome::Success, 20).await }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    run(&node, Outcome::Failure, 2).await;
    run(&node, Outcome::Success, 1).await;
    trip_alone(&node).await;
    assert_eq!(refused(&node).await.reason(), RefusalReason::NodeOpen);
}

#[tokio::test]
async fn an_override_stands_above_the_nodes_own_record() {
    let world = World::new();
    let sick = node(&world, "a").await;
    trip_alone(&sick).await;
    sick.set_override(Some(forced(OverrideKind::ForcedClosed))).await.expect("stored");
    drop(sick.start().await.expect("forced closed"));
    sick.set_override(Some(forced(OverrideKind::Disabled))).await.expect("stored");
    drop(sick.start().await.expect("disabled"));
    sick.set_override(Some(forced(OverrideKind::MetricsOnly))).await.expect("stored");
    let permit = sick.start().await.expect("nobody is refused");
    let refusal = permit.would_have_refused().expect("it would have been refused");
    assert_eq!(refusal.reason(), RefusalReason::NodeOpen);
    let settled = permit.end(Outcome::Failure).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Uncounted);
    sick.set_override(None).await.expect("stored");
    assert_eq!(refused(&sick).await.reason(), RefusalReason::NodeOpen);
}

#[tokio::test]
async fn a_reset_frees_the_nodes_too() {
    let world = World::new();
    let (sick, well) = (node(&world, "a").await, node(&world, "b").await);
    trip_alone(&sick).await;
    well.reset().await.expect("stored");
    assert!(!sick.start().await.expect("a permit").is_probe());
    assert!(voters(&sick).await.is_empty());
}

#[tokio::test]
async fn a_vote_whose_answer_was_lost_is_counted_and_told_once() {
    let world = World::new();
    let (one, two) = (node(&world, "a").await, node(&world, "b").await);
    trip_alone(&one).await;
    run(&two, Outcome::Failure, 2).await;
    let permit = two.start().await.expect("a permit");
    world.store.on_next_swap(Fault::LostAnswer);
    permit.end(Outcome::Failure).await.expect("settled");
    assert_eq!(world.shared_changes(), [State::Open]);
    assert_eq!(information(&one).await.last_trip.expect("a trip").observed, 2);
}

#[tokio::test]
async fn a_process_without_a_quorum_of_its_own_goes_by_the_one_in_force() {
    let world = World::new();
    let named = node(&world, "a").await;
    run(&named, Outcome::Success, 1).await;
    let unnamed = breaker(&world.factory().await);
    trip_alone(&unnamed).await;
    assert_eq!(refused(&unnamed).await.reason(), RefusalReason::NodeOpen);
    let voters = voters(&named).await;
    assert!(voters.len() == 1 && voters[0].starts_with("unnamed-"), "{voters:?}");
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_nodes_own_probe_is_renewed_while_the_work_runs() {
    let settings = circuitry::Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .failure_count_threshold(0)
        .allow_after(Duration::from_secs(1))
        .probe_timeout(Duration::from_secs(3))
        .quorum(Quorum { votes: 2, window: WINDOW })
        .node_id("a");
    let node = breaker(&factory(settings).await);
    run(&node, Outcome::Failure, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let probe = node.start().await.expect("the probe");
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(refused(&node).await.reason(), RefusalReason::TooManyRequests);
    }
    let settled = probe.end(Outcome::Success).await.expect("settled");
    assert_eq!(settled.disposition, Disposition::Accepted);
    assert!(!node.start().await.expect("a permit").is_probe());
}
