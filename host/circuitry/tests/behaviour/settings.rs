//! Bad input gets one clear error that names what to change.

use std::time::Duration;

use circuitry::{Context, Error, Factory, Outcome, SettingsError, StartError, Store};
use circuitry_store::fault::Fault;

use crate::world::{World, breaker, factory};

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
