//! Four processes × 16 tasks on one circuit of a real Redis, 10,000 executions a process.

use std::collections::BTreeMap;

use circuitry::{Context, Information, State, TransitionReason};
use circuitry_tests::fleet::{Change, Lease, LeaseEvent, Load, Report, Task, Work};
use redis::streams::StreamRangeReply;

use crate::servers::{factory, own_name, patient, plain, redis_store, redis_url, run};
use crate::turns::alone;
use crate::workers::Worker;

const PROCESSES: u64 = 4;
const TASKS: u64 = 16;
const EXECUTIONS: u64 = 10_000;
/// Of the run that trips.
const CLOSE_THRESHOLD: u32 = 3;

fn task(work: Work) -> Task {
    Task {
        redis_url: redis_url(),
        prefix: format!("{}:", own_name()),
        circuit: "jobs".into(),
        failure_count_threshold: 4,
        close_threshold: CLOSE_THRESHOLD,
        allow_after_ms: 50,
        // Longer than the run: a lease that ran out would leave the log, and it is about those that are held.
        probe_timeout_ms: 120_000,
        bounded: false,
        work,
    }
}

/// Runs the four processes, all of them beginning when the last is ready, and gives what each of them reports.
pub(crate) async fn run_fleet(task: Task) -> Vec<Report> {
    let mut executions = 0;
    let mut workers = Vec::new();
    for seed in 0..PROCESSES {
        let mut task = task.clone();
        if let Work::Execute(load) = &mut task.work {
            load.seed = seed;
            executions = load.executions;
        }
        workers.push(Worker::start(&task).await);
    }
    for worker in &mut workers {
        worker.begin().await;
    }
    let mut reports = Vec::new();
    for worker in workers {
        let report = worker.report().await;
        assert_eq!(report.attempts, executions);
        assert_eq!(report.errors.first(), None, "and {} errors in all", report.errors.len());
        if !task.bounded {
            assert_eq!(report.local, 0, "the store was up all the time");
        }
        reports.push(report);
    }
    reports
}

pub(crate) fn sum(reports: &[Report]) -> Report {
    let mut sum = Report::default();
    for report in reports {
        sum.add(report.clone());
    }
    println!(
        "{} attempts in {} ms: {} + {} accepted, {} stale, {} ignored, {} refused; the slowest call took {} ms",
        sum.attempts,
        sum.took_ms,
        sum.accepted_successes,
        sum.accepted_failures,
        sum.stale,
        sum.ignored,
        sum.refused,
        sum.slowest_ms
    );
    sum
}

/// What is stored, as somebody sees it who was not there.
async fn stored(task: &Task) -> Information {
    let store = redis_store(&task.redis_url, &task.prefix).await;
    let breaker = factory(patient().store(store)).await.breaker_for(&task.circuit, &Context::new());
    breaker.information().await.expect("information")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_outcomes_that_never_trip_the_totals_are_exact() {
    let _turn = alone().await;
    let load = Load {
        tasks: TASKS,
        executions: EXECUTIONS,
        work_ms: 0,
        failures_per_mille: 100,
        ignored_per_mille: 0,
        lease_log: None,
        seed: 0,
    };
    // One failure in ten comes alone or nearly so; 64 in a row do not come.
    let task = Task { failure_count_threshold: 64, ..task(Work::Execute(load)) };
    let sum = sum(&run_fleet(task.clone()).await);
    assert_eq!((sum.refused, sum.stale, sum.ignored, sum.unsettled), (0, 0, 0, 0));
    assert_eq!(sum.changes, []);

    let stored = stored(&task).await;
    assert_eq!(stored.counts.total, PROCESSES * EXECUTIONS);
    assert_eq!(stored.counts.total_successes, sum.accepted_successes);
    assert_eq!(stored.counts.total_failures, sum.accepted_failures);
    assert!(sum.accepted_failures > 3_000, "{sum:?}");
    assert_eq!((stored.generation, stored.state), (0, State::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_bounded_mode_the_totals_are_exact_after_a_flush() {
    let _turn = alone().await;
    let load = Load {
        tasks: TASKS,
        executions: EXECUTIONS,
        failures_per_mille: 100,
        ignored_per_mille: 0,
        work_ms: 0,
        lease_log: None,
        seed: 0,
    };
    let task = Task { failure_count_threshold: 64, bounded: true, ..task(Work::Execute(load)) };
    let sum = sum(&run_fleet(task.clone()).await);
    assert_eq!((sum.refused, sum.stale, sum.ignored, sum.unsettled), (0, 0, 0, 0));
    assert_eq!(sum.changes, []);

    let stored = stored(&task).await;
    assert_eq!(stored.counts.total, PROCESSES * EXECUTIONS);
    assert_eq!(stored.counts.total_successes, sum.accepted_successes);
    assert_eq!(stored.counts.total_failures, sum.accepted_failures);
    assert_eq!((stored.generation, stored.state), (0, State::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_bounded_mode_each_transition_is_announced_once_and_no_probe_is_too_many() {
    let _turn = alone().await;
    let log = own_name();
    let load = Load {
        tasks: TASKS,
        executions: EXECUTIONS,
        failures_per_mille: 300,
        ignored_per_mille: 50,
        work_ms: 0,
        lease_log: Some(log.clone()),
        seed: 0,
    };
    let task = Task { bounded: true, ..task(Work::Execute(load)) };
    let sum = sum(&run_fleet(task.clone()).await);
    assert_eq!(sum.unsettled, 0);
    let accepted = sum.accepted_successes + sum.accepted_failures;
    assert_eq!(accepted + sum.stale + sum.ignored + sum.refused, sum.attempts);
    assert_each_transition_is_announced_once(sum.changes, &stored(&task).await);
    assert_leases(&leases(&task, &log).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_outcomes_that_trip_and_heal_every_attempt_lease_and_transition_is_accounted_for() {
    let _turn = alone().await;
    let log = own_name();
    let load = Load {
        tasks: TASKS,
        executions: EXECUTIONS,
        work_ms: 0,
        failures_per_mille: 300,
        ignored_per_mille: 50,
        lease_log: Some(log.clone()),
        seed: 0,
    };
    let task = task(Work::Execute(load));
    let sum = sum(&run_fleet(task.clone()).await);
    assert_eq!(sum.unsettled, 0);
    let accepted = sum.accepted_successes + sum.accepted_failures;
    assert_eq!(accepted + sum.stale + sum.ignored + sum.refused, sum.attempts);
    assert!(accepted > 0 && sum.stale > 0 && sum.ignored > 0 && sum.refused > 0, "each of them is in it");

    assert_each_transition_is_announced_once(sum.changes, &stored(&task).await);
    assert_leases(&leases(&task, &log).await);
}

/// Each has an era of its own, begins where the one before ended, and the last are the ones that are stored.
fn assert_each_transition_is_announced_once(mut changes: Vec<Change>, stored: &Information) {
    changes.sort_by_key(|change| change.era);
    let closings = changes.iter().filter(|change| change.is_by(TransitionReason::ProbesSucceeded)).count();
    let failed = changes.iter().filter(|change| change.is_by(TransitionReason::ProbeFailed)).count();
    println!("{} transitions, {closings} times closed, {failed} times open again", changes.len());
    assert!(closings >= 5 && failed >= 5, "it trips and heals, and probes fail");
    assert!(changes[0].is_from(State::Closed) && changes[0].generation == 1);
    for pair in changes.windows(2) {
        let [before, after] = pair else { panic!("two of them") };
        assert!(before.era < after.era, "announced twice: {before:?} and {after:?}");
        assert_eq!(before.to, after.from, "one is missing between {before:?} and {after:?}");
        assert!(before.at_ms <= after.at_ms, "{before:?} and {after:?}");
        let resets = after.is_by(TransitionReason::Tripped) || after.is_by(TransitionReason::ProbesSucceeded);
        assert_eq!(after.generation, before.generation + u64::from(resets), "{before:?} and {after:?}");
        if after.is_to(State::HalfOpen) {
            assert!(after.at_ms >= before.at_ms + 50, "open too short: {before:?} and {after:?}");
        }
    }
    assert!(changes.iter().all(|change| !change.local));
    let kept: Vec<_> = stored.transitions.iter().map(|transition| Change::new(transition, false)).collect();
    assert_eq!(kept, changes[changes.len() - kept.len()..], "the record has the last of them");
    assert_eq!(kept.len(), 8);
}

/// The log, in the order in which the server took it.
async fn leases(task: &Task, log: &str) -> Vec<Lease> {
    let mut connection = plain(&task.redis_url).await;
    let entries: StreamRangeReply = run(&mut connection, &["XRANGE", log, "-", "+"]).await;
    let _: i64 = run(&mut connection, &["DEL", log]).await;
    let lease = |entry: &redis::streams::StreamId| Lease {
        era: entry.get("era").expect("an era"),
        event: LeaseEvent::named(&entry.get::<String>("event").expect("an event"))
            .expect("one of the events"),
    };
    entries.ids.iter().map(lease).collect()
}

/// At most `close_threshold` probes of a half-open phase are out or have succeeded, at any moment.
fn assert_leases(leases: &[Lease]) {
    let mut taken = BTreeMap::<u64, u32>::new();
    let mut most = 0;
    for lease in leases {
        let taken = taken.entry(lease.era).or_default();
        match lease.event {
            LeaseEvent::Begun => *taken += 1,
            LeaseEvent::Released => *taken -= 1,
            LeaseEvent::Succeeded => {}
        }
        assert!(*taken <= CLOSE_THRESHOLD, "{taken} places are taken in the phase of era {}", lease.era);
        most = most.max(*taken);
    }
    println!("{} entries of {} half-open phases", leases.len(), taken.len());
    assert!(taken.len() >= 10, "there are half-open phases");
    assert_eq!(most, CLOSE_THRESHOLD, "the places are all used at some time");
}
