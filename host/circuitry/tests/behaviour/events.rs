//! What is told: changes of state, the meaning of errors, metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use circuitry::{
    Context, ExecuteError, Expected, Outcome, OverrideKind, Quorum, Ramp, Refusal, RefusalReason, Settings,
    State, WorkError, default_error_matcher,
};
use metrics::{SharedString, Unit};
use metrics_util::CompositeKey;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::world::{World, breaker, factory, forced, run, trip};

#[derive(Debug)]
struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("unreachable")
    }
}

impl std::error::Error for Unreachable {}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::test]
async fn each_transition_is_announced_once_in_the_fleet_by_the_winner() {
    let world = World::new();
    let (one, other) = (breaker(&world.factory().await), breaker(&world.factory().await));
    trip(&one).await;
    other.start().await.expect_err("open");
    world.open_time_passes();
    run(&other, Outcome::Success, 2).await;
    drop(one.start().await.expect("closed again"));
    let name = || "jobs/acme".to_owned();
    assert_eq!(
        world.changes(),
        [
            (name(), State::Closed, State::Open, false),
            (name(), State::Open, State::HalfOpen, false),
            (name(), State::HalfOpen, State::Closed, false),
        ]
    );
}

#[tokio::test]
async fn a_failed_probe_counts_as_a_transition_and_opens_for_a_full_open_time() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    trip(&breaker).await;
    for _ in 0..120 {
        world.open_time_passes();
        run(&breaker, Outcome::Failure, 1).await;
        breaker.start().await.expect_err("open again");
    }
    let half_opened = world.changes().iter().filter(|change| change.2 == State::HalfOpen).count();
    assert_eq!(half_opened, 120, "half-open forgets the probes of before");
}

#[tokio::test]
async fn a_callback_that_panics_does_not_break_the_call() {
    let world = World::new();
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .store(world.store.clone())
        .failure_count_threshold(0)
        .state_change_callback(|_| panic!("a listener panics"));
    let breaker = breaker(&factory(settings).await);
    run(&breaker, Outcome::Failure, 1).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

#[tokio::test]
async fn the_callback_is_told_name_context_and_states() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = told.clone();
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .failure_count_threshold(0)
        .state_change_callback(move |change| {
            let tenant = change.context.value("tenant").map(str::to_owned);
            telling.lock().unwrap().push((change.name.to_owned(), tenant, change.from, change.to));
        });
    run(&breaker(&factory(settings).await), Outcome::Failure, 1).await;
    let expected = ("jobs".to_owned(), Some("acme".to_owned()), State::Closed, State::Open);
    assert_eq!(*told.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn a_custom_trip_function_decides_and_sees_the_failure_in_the_counts() {
    let asked = Arc::new(AtomicUsize::new(0));
    let asking = asked.clone();
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .failure_count_threshold(3)
        .trip_fn("total", 1, move |information| {
            asking.fetch_add(1, Ordering::SeqCst);
            assert_eq!(information.circuit, "jobs/acme");
            information.counts.total_failures >= information.failure_count_threshold
        });
    let breaker = breaker(&factory(settings).await);
    for outcome in [Outcome::Failure, Outcome::Success, Outcome::Failure, Outcome::Success] {
        run(&breaker, outcome, 1).await;
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
    run(&breaker, Outcome::Failure, 1).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
    assert_eq!(asked.load(Ordering::SeqCst), 3, "asked after failures only");
}

#[tokio::test]
async fn a_trip_function_that_panics_leaves_the_decision_to_the_default_rule() {
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .failure_count_threshold(1)
        .trip_fn("broken", 1, |_| panic!("a rule panics"));
    let breaker = breaker(&factory(settings).await);
    run(&breaker, Outcome::Failure, 1).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Closed);
    run(&breaker, Outcome::Failure, 1).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

#[tokio::test]
async fn an_expected_error_counts_as_a_success() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let expected = breaker.execute(|| async { Err::<(), _>(Expected::new(Unreachable)) }).await;
    expected.expect_err("the work's error comes back all the same");
    let boxed = breaker.execute(|| async { Err::<(), Boxed>(Expected::new(Unreachable).into()) }).await;
    boxed.expect_err("the work's error");
    let counts = breaker.information().await.expect("information").counts;
    assert_eq!((counts.total_successes, counts.total_failures), (2, 0));
}

#[tokio::test]
async fn a_breakers_own_refusal_is_no_failure_of_the_dependency() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let inner = || Refusal::new(RefusalReason::Open, std::time::Duration::from_secs(1));
    breaker.execute(|| async { Err::<(), _>(inner()) }).await.expect_err("the inner refusal");
    breaker.execute(|| async { Err::<(), Boxed>(inner().into()) }).await.expect_err("the inner refusal");
    let start = || circuitry::StartError::from(inner());
    breaker.execute(|| async { Err::<(), _>(start()) }).await.expect_err("the inner refusal");
    breaker.execute(|| async { Err::<(), Boxed>(start().into()) }).await.expect_err("the inner refusal");
    let nested = || ExecuteError::<Unreachable>::Refused(inner());
    breaker.execute(|| async { Err::<(), Boxed>(nested().into()) }).await.expect_err("the inner refusal");
    assert_eq!(breaker.information().await.expect("information").counts.total, 0);
}

#[tokio::test]
async fn a_matcher_goes_by_the_breakers_name_whoever_named_the_circuit_first() {
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .name_fn(|_, _| "one for all".into())
        .circuit_specific_error_matcher("jobs", |_| Outcome::Ignored);
    let factory = factory(settings).await;
    let jobs = factory.breaker_for("jobs", &Context::new());
    let mails = factory.breaker_for("mails", &Context::new());
    jobs.execute(|| async { Err::<(), _>(Unreachable) }).await.expect_err("ignored");
    mails.execute(|| async { Err::<(), _>(Unreachable) }).await.expect_err("counted");
    assert_eq!(jobs.information().await.expect("information").counts.total_failures, 1);
}

#[tokio::test]
async fn a_deadline_is_a_failure() {
    let elapsed = tokio::time::timeout(std::time::Duration::ZERO, std::future::pending::<()>())
        .await
        .expect_err("elapsed");
    assert_eq!(default_error_matcher(WorkError::new(&elapsed)), Outcome::Failure);
    let inside = std::io::Error::other(Expected::new(Unreachable));
    assert_eq!(default_error_matcher(WorkError::new(&inside)), Outcome::Success, "in an io::Error");
    let deeper: Boxed = Box::new(std::io::Error::other(inside));
    assert_eq!(default_error_matcher(WorkError::new(&deeper)), Outcome::Success, "in two");
    let plain = std::io::Error::other("broken");
    assert_eq!(default_error_matcher(WorkError::new(&plain)), Outcome::Failure);
}

#[tokio::test]
async fn a_circuits_own_matcher_goes_before_the_fallback() {
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .fallback_error_matcher(|_| Outcome::Ignored)
        .circuit_specific_error_matcher("jobs", |error| match error.downcast_ref::<Unreachable>() {
            Some(Unreachable) => Outcome::Failure,
            None => Outcome::Success,
        });
    let factory = factory(settings).await;
    let (jobs, others) = (breaker(&factory), factory.breaker_for("mails", &Context::tenant("acme")));
    for breaker in [&jobs, &others] {
        breaker.execute(|| async { Err::<(), _>(Unreachable) }).await.expect_err("unreachable");
    }
    assert_eq!(jobs.information().await.expect("information").counts.total_failures, 1);
    assert_eq!(others.information().await.expect("information").counts.total, 0);
}

#[tokio::test]
async fn success_with_a_bad_result_can_be_classified_as_failure() {
    let world = World::new();
    let breaker = breaker(&world.factory().await);
    let classify = |result: &Result<u16, Unreachable>| match result {
        Ok(status) if *status < 500 => Outcome::Success,
        _ => Outcome::Failure,
    };
    let executed = breaker.execute_classified(|| async { Ok(503) }, classify).await.expect("it ran");
    assert_eq!(executed.result.expect("a result"), 503);
    assert_eq!(breaker.information().await.expect("information").counts.total_failures, 1);
}

type Row = (CompositeKey, Option<Unit>, Option<SharedString>, DebugValue);

/// The value of the metric whose labels contain all of `labels`.
fn value(snapshot: &[Row], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    snapshot.iter().find_map(|(key, _, _, value)| {
        let key = key.key();
        let has = |(label, wanted): &(&str, &str)| {
            key.labels().any(|found| found.key() == *label && found.value() == *wanted)
        };
        (key.name() == name && labels.iter().all(has)).then(|| match value {
            DebugValue::Counter(count) => *count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(_) => f64::NAN,
        })
    })
}

#[test]
fn metrics_count_calls_outcomes_transitions_and_store_operations_with_bounded_labels() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let snapshot = metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new();
            let factory = world.factory().await;
            let breaker = breaker(&factory);
            let late = breaker.start().await.expect("a permit");
            run(&breaker, Outcome::Success, 2).await;
            trip(&breaker).await;
            breaker.start().await.expect_err("open");
            late.end(Outcome::Failure).await.expect("settled");
            world.open_time_passes();
            breaker.start().await.expect("a probe").end(Outcome::Failure).await.expect("settled");
            world.store.go_down();
            breaker.start().await.expect_err("open");
            snapshotter.snapshot().into_vec()
        })
    });
    let rows = [
        ("circuitry_calls_total", &[("circuit", "jobs"), ("verdict", "permit")] as &[_], 6.0),
        ("circuitry_calls_total", &[("verdict", "probe")] as &[_], 1.0),
        ("circuitry_calls_total", &[("verdict", "open")] as &[_], 2.0),
        ("circuitry_outcomes_total", &[("outcome", "success"), ("disposition", "accepted")] as &[_], 2.0),
        ("circuitry_outcomes_total", &[("outcome", "failure"), ("disposition", "accepted")] as &[_], 4.0),
        ("circuitry_outcomes_total", &[("disposition", "stale"), ("local", "false")] as &[_], 1.0),
        (
            "circuitry_transitions_total",
            &[("from", "closed"), ("to", "open"), ("reason", "tripped")] as &[_],
            1.0,
        ),
        ("circuitry_transitions_total", &[("from", "half-open"), ("reason", "probe-failed")] as &[_], 1.0),
        ("circuitry_fallback", &[] as &[_], 1.0),
        ("circuitry_store_operations_total", &[("operation", "swap"), ("result", "stored")] as &[_], 8.0),
    ];
    for (name, labels, expected) in rows {
        assert_eq!(value(&snapshot, name, labels), Some(expected), "{name} {labels:?}");
    }
    for (key, ..) in &snapshot {
        assert!(key.key().labels().all(|label| !label.value().contains("acme")), "no tenant in {key:?}");
    }
}

/// What `work` counts.
fn counted<F: Future<Output = ()>>(work: impl FnOnce() -> F) -> Vec<Row> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work());
    });
    snapshotter.snapshot().into_vec()
}

#[test]
fn metrics_tell_what_would_have_been_refused_and_what_was_not_counted() {
    let snapshot = counted(|| async {
        let world = World::new();
        let breaker = breaker(&world.factory().await);
        breaker.set_override(Some(forced(OverrideKind::MetricsOnly))).await.expect("stored");
        trip(&breaker).await;
        run(&breaker, Outcome::Success, 5).await;
        drop(breaker.start().await.expect("nobody is refused"));
    });
    for (labels, expected) in [
        (&[("verdict", "would-have-refused")] as &[_], Some(6.0)),
        (&[("verdict", "permit")] as &[_], Some(3.0)),
        (&[("verdict", "open")] as &[_], None),
    ] {
        assert_eq!(value(&snapshot, "circuitry_calls_total", labels), expected, "{labels:?}");
    }
    for (outcome, expected) in [("success", 5.0), ("ignored", 1.0)] {
        let labels = [("outcome", outcome), ("disposition", "uncounted"), ("local", "false")];
        assert_eq!(value(&snapshot, "circuitry_outcomes_total", &labels), Some(expected), "{outcome}");
    }
    assert_eq!(
        value(&snapshot, "circuitry_circuits", &[("state", "open")]),
        Some(0.0),
        "the breaker is gone"
    );
}

#[test]
fn metrics_tell_of_a_nodes_own_circuit_and_of_a_ramp() {
    let snapshot = counted(|| async {
        let world = World::new();
        let ramp = Ramp { steps_per_mille: vec![1], step: std::time::Duration::from_secs(10) };
        let quorum = Quorum { votes: 2, window: std::time::Duration::from_secs(60) };
        let breaker = breaker(&factory(world.settings().ramp(ramp).quorum(quorum).node_id("a")).await);
        run(&breaker, Outcome::Failure, 3).await;
        for _ in 0..4 {
            breaker.start().await.expect_err("this node's circuit is open");
        }
        world.open_time_passes();
        run(&breaker, Outcome::Success, 2).await;
        let mut refused = 0;
        while refused < 5 {
            refused += usize::from(breaker.start().await.is_err());
        }
    });
    for (verdict, expected) in [("node-open", 4.0), ("probe", 2.0), ("ramp", 5.0)] {
        let found = value(&snapshot, "circuitry_calls_total", &[("verdict", verdict)]);
        assert_eq!(found, Some(expected), "{verdict}");
    }
    let opened = [("from", "closed"), ("to", "open"), ("local", "true")];
    assert_eq!(value(&snapshot, "circuitry_transitions_total", &opened), Some(1.0));
}

#[test]
fn a_gauge_tells_for_how_many_circuits_others_settings_are_in_force() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // This recorder forgets what it has shown: these are the changes since.
            let change = || value(&snapshotter.snapshot().into_vec(), "circuitry_settings_differ", &[]);
            let world = World::new();
            run(&breaker(&factory(world.settings_to_close_after(1)).await), Outcome::Success, 1).await;
            let factory = world.factory().await;
            let other = breaker(&factory);
            run(&other, Outcome::Success, 3).await;
            assert_eq!(change(), Some(1.0));
            other.reset().await.expect("stored");
            run(&other, Outcome::Success, 3).await;
            assert_eq!(change(), Some(-1.0));
            breaker(&self::factory(world.settings_to_close_after(1)).await).reset().await.expect("stored");
            run(&other, Outcome::Success, 1).await;
            assert_eq!(change(), Some(1.0));
            drop((other, factory));
            assert_eq!(change(), Some(-1.0), "a circuit that is forgotten differs no more");
        });
    });
}

#[test]
fn the_gauge_of_the_old_state_is_cleared() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new();
            let factory = world.factory().await;
            let breaker = breaker(&factory);
            run(&breaker, Outcome::Success, 1).await;
            trip(&breaker).await;
            let gauges = || {
                let snapshot = snapshotter.snapshot().into_vec();
                let gauge =
                    |state| value(&snapshot, "circuitry_circuits", &[("circuit", "jobs"), ("state", state)]);
                State::ALL.map(|state| gauge(state.as_str()))
            };
            assert_eq!(gauges(), [Some(0.0), Some(1.0), None]);
            world.open_time_passes();
            run(&breaker, Outcome::Success, 2).await;
            // This recorder forgets what it has shown: these are the changes since.
            assert_eq!(gauges(), [Some(1.0), Some(-1.0), Some(0.0)]);
        });
    });
}
