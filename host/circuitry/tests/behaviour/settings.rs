//! Bad input gets one clear error that names what to change.

use std::time::Duration;

use circuitry::{
    Backoff, Context, Error, Factory, Outcome, Overdue, Quorum, Ramp, SettingsError, StartError, Store,
    TripRule, Window,
};
use circuitry_store::fault::Fault;

use crate::world::{World, breaker, factory, run};

const BACKOFF: Backoff = Backoff {
    factor_per_mille: 2_000,
    max: Duration::from_secs(600),
    healthy_after: Duration::from_secs(600),
};

fn ramp(steps_per_mille: &[u32]) -> Ramp {
    Ramp { steps_per_mille: steps_per_mille.to_vec(), step: Duration::from_secs(1) }
}

fn quorum(votes: u32) -> Quorum {
    Quorum { votes, window: Duration::from_secs(60) }
}

#[tokio::test]
async fn a_setting_given_twice_is_refused_by_name() {
    let twice = |builder: circuitry::SettingsBuilder| builder.build().expect_err("given twice").to_string();
    let builder = circuitry::Settings::builder;
    let minute = Duration::from_secs(60);
    for (error, setting) in [
        (twice(builder().failure_count_threshold(1).failure_count_threshold(1)), "failure_count_threshold"),
        (twice(builder().close_threshold(1).close_threshold(2)), "close_threshold"),
        (twice(builder().allow_after(minute).allow_after(minute)), "allow_after"),
        (twice(builder().cyclic_clear_after(minute).cyclic_clear_after(minute)), "cyclic_clear_after"),
        (twice(builder().name_fn(|name, _| name.into()).name_fn(|name, _| name.into())), "name_fn"),
        (twice(builder().trip_fn("rule", 1, |_| true).default_trip_fn()), "trip_fn"),
        (twice(builder().trip_rules([]).trip_rules([])), "trip_rules"),
        (twice(builder().slow_call_after(minute).slow_call_after(minute)), "slow_call_after"),
        (twice(builder().backoff(BACKOFF).backoff(BACKOFF)), "backoff"),
        (twice(builder().jitter_per_mille(1).jitter_per_mille(1)), "jitter_per_mille"),
        (twice(builder().retry_after_max(minute).retry_after_max(minute)), "retry_after_max"),
        (twice(builder().probes(1).probes(1)), "probes"),
        (twice(builder().probes_at_once(1).probes_at_once(1)), "probes_at_once"),
        (
            twice(builder().half_open_limit(minute, Overdue::Opens).half_open_limit(minute, Overdue::Opens)),
            "half_open_limit",
        ),
        (twice(builder().ramp(ramp(&[1])).ramp(ramp(&[1]))), "ramp"),
        (twice(builder().quorum(quorum(1)).quorum(quorum(1))), "quorum"),
        (twice(builder().node_id("a").node_id("b")), "node_id"),
        (twice(builder().settings_revision(1).settings_revision(2)), "settings_revision"),
        (
            twice(builder().default_fallback_error_matcher().fallback_error_matcher(|_| Outcome::Failure)),
            "fallback_error_matcher",
        ),
        (
            twice(
                builder()
                    .circuit_specific_error_matcher("jobs", |_| Outcome::Failure)
                    .circuit_specific_error_matcher("jobs", |_| Outcome::Ignored),
            ),
            "circuit_specific_error_matcher for `jobs`",
        ),
        (
            twice(builder().state_change_callback(|_| {}).state_change_callback(|_| {})),
            "state_change_callback",
        ),
    ] {
        assert!(error.contains(&format!("`{setting}`")), "{error}");
    }
}

#[tokio::test]
async fn two_circuits_may_each_have_a_matcher_of_their_own() {
    let settings = circuitry::Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .circuit_specific_error_matcher("jobs", |_| Outcome::Failure)
        .circuit_specific_error_matcher("mails", |_| Outcome::Ignored);
    settings.build().expect("no conflict");
}

#[tokio::test]
async fn a_setting_out_of_its_bounds_is_refused_by_name() {
    let builder = circuitry::Settings::builder;
    for (settings, setting) in [
        (builder().close_threshold(0), "close_threshold"),
        (builder().close_threshold(65), "close_threshold"),
        (builder().allow_after(Duration::ZERO), "allow_after"),
        (builder().cyclic_clear_after(Duration::ZERO), "cyclic_clear_after"),
        (builder().probe_timeout(Duration::ZERO), "probe_timeout"),
        (builder().idle_retention(Duration::ZERO), "idle_retention"),
        (builder().trip_fn("", 1, |_| true), "trip_fn"),
        (builder().trip_fn("x".repeat(65), 1, |_| true), "trip_fn"),
        (builder().trip_rules(vec![TripRule::ConsecutiveFailures { minimum_calls: 1 }; 5]), "trip_rules"),
        (builder().trip_rules([TripRule::Custom { name: "mine".into(), version: 1 }]), "trip_rules"),
        (
            builder().trip_rules([TripRule::FailureCount {
                failures: 0,
                window: Window::Calls(10),
                minimum_calls: 1,
            }]),
            "trip_rules.failure_count",
        ),
        (
            builder().trip_rules([TripRule::FailureRate {
                per_mille: 500,
                window: Window::Calls(10),
                minimum_calls: 11,
            }]),
            "trip_rules.failure_rate",
        ),
        (
            builder().slow_call_after(Duration::from_secs(1)).trip_rules([TripRule::SlowCallRate {
                per_mille: 1_001,
                window: Window::Time(Duration::from_secs(1)),
                minimum_calls: 1,
            }]),
            "trip_rules.slow_call_rate",
        ),
        (
            builder().trip_rules([TripRule::SlowCallRate {
                per_mille: 500,
                window: Window::Decaying(Duration::from_secs(1)),
                minimum_calls: 1,
            }]),
            "slow_call_after",
        ),
        (builder().slow_call_after(Duration::ZERO), "slow_call_after"),
        (builder().backoff(Backoff { factor_per_mille: 999, ..BACKOFF }), "backoff.factor_per_mille"),
        (builder().backoff(Backoff { max: Duration::from_secs(1), ..BACKOFF }), "backoff.max"),
        (builder().jitter_per_mille(1_001), "jitter_per_mille"),
        (builder().close_threshold(3).probes(2), "probes"),
        (builder().probes_at_once(2), "probes_at_once"),
        (builder().half_open_limit(Duration::ZERO, Overdue::Closes), "half_open_limit.after"),
        (builder().ramp(ramp(&[])), "ramp.steps_per_mille"),
        (builder().ramp(ramp(&[500, 400])), "ramp.steps_per_mille"),
        (builder().ramp(Ramp { step: Duration::ZERO, ..ramp(&[1]) }), "ramp.step"),
        (builder().quorum(quorum(33)).node_id("a"), "quorum.votes"),
        (builder().quorum(Quorum { window: Duration::ZERO, votes: 1 }).node_id("a"), "quorum.window"),
        (builder().quorum(quorum(2)), "node_id"),
        (builder().node_id(""), "node_id"),
        (builder().node_id("x".repeat(49)), "node_id"),
        (builder().store_timeout(Duration::ZERO), "store_timeout"),
        (builder().cpu_budget(Duration::ZERO), "cpu_budget"),
        (builder().memory_limit(1), "memory_limit"),
        (builder().max_instances(0), "max_instances"),
        (builder().max_circuits(0), "max_circuits"),
    ] {
        let error = match settings.build() {
            Err(error) => error,
            Ok(settings) => Factory::new(settings).await.expect_err("out of bounds"),
        };
        assert!(matches!(error, SettingsError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(&format!("`{setting}`")), "{error}");
    }
}

#[tokio::test]
async fn settings_at_their_bounds_can_be_used() {
    let second = Duration::from_secs(1);
    let rule = |window| TripRule::FailureRate { per_mille: 1_000, window, minimum_calls: 1 };
    let settings = circuitry::Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .trip_rules([rule(Window::Calls(1)), rule(Window::Time(second)), rule(Window::Decaying(second))])
        .trip_fn("x".repeat(64), u32::MAX, |_| false)
        .backoff(Backoff { factor_per_mille: 100_000, max: Duration::MAX, healthy_after: Duration::ZERO })
        .jitter_per_mille(1_000)
        .retry_after_max(Duration::ZERO)
        .close_threshold(64)
        .probes(64)
        .probes_at_once(64)
        .ramp(ramp(&[1, 2, 3, 4, 5, 6, 7, 999]))
        .quorum(quorum(32))
        .node_id("x".repeat(48))
        .settings_revision(u64::MAX);
    run(&breaker(&factory(settings).await), Outcome::Success, 1).await;
}

#[tokio::test]
async fn a_name_that_is_out_of_its_bounds_is_refused() {
    let world = World::new();
    let factory = factory(world.settings().name_fn(|name, _| name.to_owned())).await;
    for name in [String::new(), "x".repeat(1_025)] {
        let error = factory.breaker_for(&name, &Context::new()).start().await.expect_err("a bad name");
        assert!(matches!(error, StartError::Circuit(Error::Argument { .. })), "{error}");
        assert!(error.to_string().contains("1024"), "{error}");
    }
    assert_eq!(world.store.swaps(), 0);
    drop(factory.breaker_for(&"x".repeat(1_024), &Context::new()).start().await.expect("a permit"));
}

#[tokio::test]
async fn no_two_pairs_of_name_and_tenant_share_a_circuit() {
    let factory = World::new().factory().await;
    let name =
        |name: &str, tenant: &str| factory.breaker_for(name, &Context::tenant(tenant)).name().to_owned();
    assert_ne!(name("a/b", "c"), name("a", "b/c"));
    assert_ne!(name("a%2Fb", "c"), name("a/b", "c"));
    assert_ne!(name("a", "b"), factory.breaker_for("a/b", &Context::new()).name());
    assert_ne!(name("a", ""), factory.breaker_for("a", &Context::new()).name());
}

#[tokio::test]
async fn foreign_damaged_and_newer_records_are_told_apart_and_left_as_they_are() {
    let newer = { [b"CKT".as_slice(), &[200], b"whatever"].concat() };
    for (bytes, told) in [
        (b"{\"state\":\"open\"}".to_vec(), "no record of circuitry"),
        (Vec::new(), "no record of circuitry"),
        ([b"CKT".as_slice(), &[1, 0xff]].concat(), "no record of circuitry"),
        (newer, "schema 200"),
    ] {
        let world = World::new();
        let breaker = breaker(&world.factory().await);
        let inner = world.store.inner();
        inner.swap("jobs/acme", None, &bytes, None).await.expect("stored");
        let before = inner.load("jobs/acme").await.expect("loaded");
        let error = breaker.start().await.expect_err("no record");
        assert!(matches!(error, StartError::Circuit(Error::Record { .. })), "{error}");
        assert!(error.to_string().contains(told) && error.to_string().contains("jobs/acme"), "{error}");
        breaker.information().await.expect_err("no record");
        assert_eq!(inner.load("jobs/acme").await.expect("loaded"), before, "nothing is overwritten");
    }
}

#[tokio::test]
async fn a_store_that_answers_garbage_costs_that_call_an_error_and_nothing_else() {
    let world = World::new();
    let factory = world.factory().await;
    let breaker = breaker(&factory);
    world.store.on_next_load(Fault::Garbage(vec![0xa5; 300]));
    breaker.start().await.expect_err("garbage");
    drop(breaker.start().await.expect("a permit"));
    assert!(!factory.is_store_down());
}
