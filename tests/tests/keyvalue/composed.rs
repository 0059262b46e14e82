//! `breaker-keyvalue.wasm`: the adapter composed with the state machine and the default rule. It needs `wasi:*` alone.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use circuitry_store::{Clock, SystemClock};
use circuitry_tests::contract::{Counts, Error, Outcome, Permit, RecordError, State, StoreError, Verdict};
use circuitry_tests::keyvalue::breaker::Breaker;
use circuitry_tests::keyvalue::buckets::{MemoryBuckets, RedisBuckets};
use circuitry_tests::keyvalue::host::{Fault, Runnable, World};
use circuitry_tests::keyvalue::{Report, Task};

use crate::adapter::{BUCKET, NOW_MS, world};

const CIRCUIT: &str = "emails/acme";

fn file() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    folder.join("host/component/breaker-keyvalue.wasm").to_str().expect("UTF-8").to_owned()
}

/// It takes seconds to compile, so once for the test process. That it links is the proof that it needs `wasi:*` alone.
fn component() -> &'static Runnable {
    static COMPONENT: LazyLock<Runnable> = LazyLock::new(|| {
        let component = std::fs::read(file()).expect("a file");
        Runnable::new(&component).expect("a component that needs nothing but wasi:*")
    });
    &COMPONENT
}

fn breaker(world: &World, node: u64, failures: u64) -> Breaker {
    Breaker::new(component().start(world.clone()).expect("an instance"), CIRCUIT, node, failures)
}

fn permitted(verdict: Verdict) -> Permit {
    match verdict {
        Verdict::Permit(permit) => permit,
        Verdict::Refusal(refusal) => panic!("the circuit refuses: {refusal:?}"),
    }
}

#[test]
fn a_circuit_trips_in_one_instance_and_is_open_in_all_others_until_a_probe_closes_it() {
    let (world, _, clock) = world();
    let mut one = breaker(&world, 1, 2);
    for _ in 0..3 {
        let permit = permitted(one.start().expect("an answer"));
        one.end(&permit, Outcome::Failure).expect("an answer");
    }
    let mut other = breaker(&world, 2, 2);
    assert!(matches!(other.start(), Ok(Verdict::Refusal(refusal)) if refusal.retry_after_ms == 60_000));
    clock.advance_ms(60_000);
    let probe = permitted(other.start().expect("an answer"));
    assert!(probe.probe.is_some());
    assert!(matches!(one.start(), Ok(Verdict::Refusal(_))), "one probe at a time in all instances");
    other.end(&probe, Outcome::Success).expect("an answer");
    assert_eq!(one.inspect().expect("an answer").state, State::Closed);
}

#[test]
fn a_circuit_that_nobody_used_for_its_whole_life_begins_anew() {
    let (world, _, clock) = world();
    let mut one = breaker(&world, 1, 5);
    let permit = permitted(one.start().expect("an answer"));
    one.end(&permit, Outcome::Failure).expect("an answer");
    clock.advance_ms(10 * 86_400_000);
    assert_eq!(one.inspect().expect("an answer").revision, 0);
    permitted(one.start().expect("an answer"));
}

#[test]
fn instances_on_several_threads_count_every_outcome_once() {
    let (world, ..) = world();
    let [successes, failures] = count_on_threads(&world, |_| VecDeque::new());
    assert_eq!(counted(&world), [successes, failures]);
    assert_eq!([successes, failures], [4 * 180, 4 * 20]);
}

#[test]
fn instances_whose_host_loses_answers_count_every_outcome_once() {
    let (world, ..) = world();
    let [successes, failures] = count_on_threads(&world, |random| {
        let faults = [
            Fault::AnswerLost { reads_fail: 0 },
            Fault::AnswerLost { reads_fail: 1 },
            Fault::WriteLost { reads_fail: 0 },
            Fault::WriteLost { reads_fail: 1 },
            Fault::SaidToBeLost,
            Fault::Spurious,
        ];
        (0..4)
            .map(|_| if random.bool() { faults[random.usize(..faults.len())] } else { Fault::None })
            .collect()
    });
    assert_eq!(counted(&world), [successes, failures]);
    assert_eq!([successes, failures], [4 * 180, 4 * 20]);
}

/// Works on four threads, each call on a new instance, and gives what was accepted of successes and failures.
fn count_on_threads(
    world: &World,
    faults: impl Fn(&mut fastrand::Rng) -> VecDeque<Fault> + Sync,
) -> [u64; 2] {
    const THREADS: u64 = 4;
    const EXECUTIONS: u64 = 200;
    let run = |node: u64| {
        let mut random = fastrand::Rng::with_seed(node);
        let mut breaker = breaker(world, node, u64::MAX);
        let mut accepted = [0, 0];
        for execution in 0..EXECUTIONS {
            let world = World { faults: faults(&mut random), ..world.clone() };
            breaker.replace(component().start(world).expect("an instance"));
            let permit = permitted(breaker.start().expect("an answer"));
            let (index, outcome) =
                if execution % 10 == 0 { (1, Outcome::Failure) } else { (0, Outcome::Success) };
            accepted[index] += u64::from(breaker.end(&permit, outcome).expect("an answer").accepted);
        }
        accepted
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS).map(|node| scope.spawn(move || run(node))).collect();
        let all = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        all.fold([0, 0], |[successes, failures], [more, more_failures]| {
            [successes + more, failures + more_failures]
        })
    })
}

/// The totals in the record.
fn counted(world: &World) -> [u64; 2] {
    let Counts { total_successes, total_failures, .. } =
        breaker(world, 9, u64::MAX).inspect().expect("an answer").counts;
    [total_successes, total_failures]
}

#[test]
fn processes_that_share_a_bucket_count_together_and_open_together() {
    let redis_url = std::env::var("CIRCUITRY_TEST_REDIS_URL")
        .expect("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts the servers");
    let bucket = format!("keyvalue-{:016x}", fastrand::u64(..));
    let task = |node, failures, circuit: &str| Task {
        component: file(),
        redis_url: redis_url.clone(),
        bucket: bucket.clone(),
        circuit: circuit.into(),
        node,
        failures,
        executions: 100,
    };

    let counting: Vec<_> = (1..=2).map(|node| spawn(&task(node, u64::MAX, CIRCUIT))).collect();
    let reports: Vec<Report> = counting.into_iter().map(report).collect();
    assert_eq!(reports, vec![Report { successes: 90, failures: 10, refused: 0 }; 2]);
    let clock = SystemClock::new();
    let buckets = RedisBuckets::connect(&redis_url).expect("a Redis that answers");
    let world = World {
        environment: vec![("CIRCUITRY_KEYVALUE_BUCKET".into(), bucket.clone())],
        ..World::new(Arc::new(buckets), move || clock.now_ms())
    };
    assert_eq!(counted(&world), [2 * 90, 2 * 10]);

    // A process trips another circuit, and this one finds it open.
    let tripping = report(spawn(&task(3, 0, "payments")));
    assert_eq!(tripping, Report { successes: 0, failures: 1, refused: 99 });
    let instance = component().start(world).expect("an instance");
    let verdict = Breaker::new(instance, "payments", 4, 0).start().expect("an answer");
    assert!(matches!(verdict, Verdict::Refusal(_)), "{verdict:?}");
}

fn spawn(task: &Task) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_keyvalue_worker"))
        .arg(serde_json::to_string(task).expect("JSON"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the worker's program")
}

fn report(worker: std::process::Child) -> Report {
    let output = worker.wait_with_output().expect("an end");
    assert!(output.status.success(), "the worker ended with {}", output.status);
    serde_json::from_slice(&output.stdout).expect("a report")
}

#[test]
fn foreign_bytes_reach_the_caller_as_an_error_that_shows_them() {
    let (world, buckets, _) = world();
    buckets.put(BUCKET, "circuitry.emails=2Facme", b"hello");
    let failure = breaker(&world, 1, 5).start().expect_err("these are no record");
    assert!(
        matches!(&failure.error, Error::Store(StoreError::Other(text)) if text.contains("5 bytes that are no entry")),
        "{failure:?}"
    );
}

#[test]
fn a_damaged_record_in_a_whole_entry_is_refused_by_the_state_machine() {
    let (world, buckets, _) = world();
    let mut damaging = crate::adapter::Adapter::start(world.clone());
    damaging.write(CIRCUIT, None, b"no record");
    let failure = breaker(&world, 1, 5).start().expect_err("this is no record");
    assert!(matches!(failure.error, Error::StoredRecord(RecordError::Malformed(_))), "{failure:?}");
    assert_eq!(buckets.keys(BUCKET).len(), 1);
}

#[test]
fn tenants_of_a_bucket_that_mixes_keys_up_do_not_share_a_circuit() {
    let buckets = Arc::new(MemoryBuckets::folding_case());
    let world = World::new(buckets, || NOW_MS);
    let mut acme = breaker(&world, 1, 0);
    let permit = permitted(acme.start().expect("an answer"));
    acme.end(&permit, Outcome::Failure).expect("an answer");
    let instance = component().start(world).expect("an instance");
    let failure = Breaker::new(instance, "emails/ACME", 2, 0).start().expect_err("another tenant's circuit");
    assert!(matches!(failure.error, Error::Store(StoreError::Other(_))), "{failure:?}");
}
