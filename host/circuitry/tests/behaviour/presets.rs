//! The defaults of other circuit breakers, and what means something else here: each row of `circuitry::presets`.

use std::time::Duration;

use circuitry::{Breaker, Factory, Outcome, Settings, SettingsBuilder, State, TripKind};

use crate::world::{World, breaker, factory, information, run};

struct Preset {
    world: World,
    breaker: Breaker,
}

impl Preset {
    async fn new(settings: SettingsBuilder) -> Self {
        let world = World::new();
        let settings = settings.consistency(circuitry::Consistency::Strict);
        let settings = settings.store(world.store.clone()).clock(world.clock.clone());
        let factory: Factory = factory(settings).await;
        Self { breaker: breaker(&factory), world }
    }

    async fn runs(&self, outcome: Outcome, times: usize) {
        run(&self.breaker, outcome, times).await;
    }

    /// A call that takes so long.
    async fn takes(&self, time: Duration) {
        let permit = self.breaker.start().await.expect("a permit");
        self.world.clock.advance_ms(time.as_millis() as u64);
        permit.end(Outcome::Success).await.expect("settled");
    }

    async fn state(&self) -> State {
        self.breaker.state().await.expect("a state")
    }

    /// Until when the circuit is open, from now on.
    async fn open_for(&self) -> Duration {
        let until_ms = information(&self.breaker).await.expires_at_ms.expect("it is open");
        Duration::from_millis(until_ms - circuitry::Clock::now_ms(&self.world.clock))
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn like_resilience4j_half_of_a_hundred_calls_open_for_a_minute() {
    let preset = Preset::new(Settings::like_resilience4j()).await;
    preset.runs(Outcome::Success, 50).await;
    preset.runs(Outcome::Failure, 49).await;
    assert_eq!(preset.state().await, State::Closed);
    preset.runs(Outcome::Failure, 1).await;
    assert_eq!(preset.state().await, State::Open);
    assert_eq!(preset.open_for().await, 60 * SECOND);
}

#[tokio::test]
async fn unlike_resilience4j_a_success_that_completes_the_minimum_does_not_open() {
    let preset = Preset::new(Settings::like_resilience4j()).await;
    preset.runs(Outcome::Failure, 99).await;
    preset.runs(Outcome::Success, 1).await;
    assert_eq!(preset.state().await, State::Closed);
    preset.runs(Outcome::Failure, 1).await;
    assert_eq!(preset.state().await, State::Open);
}

#[tokio::test]
async fn unlike_resilience4j_half_open_is_decided_as_soon_as_it_is_certain() {
    for (outcome, certain_with, state) in
        [(Outcome::Success, 6, State::Closed), (Outcome::Failure, 5, State::Open)]
    {
        let preset = Preset::new(Settings::like_resilience4j()).await;
        preset.runs(Outcome::Failure, 100).await;
        preset.world.clock.advance_ms(60_000);
        preset.runs(outcome, certain_with - 1).await;
        assert_eq!(preset.state().await, State::HalfOpen);
        preset.runs(outcome, 1).await;
        assert_eq!(preset.state().await, state);
    }
}

#[tokio::test]
async fn like_resilience4j_a_hundred_slow_calls_open() {
    let preset = Preset::new(Settings::like_resilience4j()).await;
    for _ in 0..100 {
        preset.takes(61 * SECOND).await;
    }
    let trip = information(&preset.breaker).await.last_trip.expect("a trip");
    assert_eq!((trip.kind, trip.observed), (TripKind::SlowCallRate, 1_000));
}

#[tokio::test]
async fn unlike_resilience4j_a_slow_probe_is_a_failed_probe() {
    let preset = Preset::new(Settings::like_resilience4j()).await;
    preset.runs(Outcome::Failure, 100).await;
    preset.world.clock.advance_ms(60_000);
    preset.takes(61 * SECOND).await;
    let information = information(&preset.breaker).await;
    assert_eq!((information.probe_failures, information.probe_successes), (1, 0));
}

#[tokio::test]
async fn like_polly_a_tenth_of_a_hundred_calls_within_half_a_minute_opens_for_five_seconds() {
    let preset = Preset::new(Settings::like_polly()).await;
    preset.runs(Outcome::Success, 90).await;
    preset.runs(Outcome::Failure, 9).await;
    preset.world.clock.advance_ms(31_000);
    preset.runs(Outcome::Success, 90).await;
    preset.runs(Outcome::Failure, 9).await;
    assert_eq!(preset.state().await, State::Closed, "what was half a minute ago is over");
    preset.runs(Outcome::Failure, 1).await;
    assert_eq!(preset.open_for().await, 5 * SECOND);
    preset.world.clock.advance_ms(5_000);
    preset.runs(Outcome::Success, 1).await;
    assert_eq!(preset.state().await, State::Closed, "the first call after the break decides");
}

#[tokio::test]
async fn unlike_polly_another_probe_comes_when_the_lease_has_ended() {
    let preset = Preset::new(Settings::like_polly()).await;
    preset.runs(Outcome::Failure, 100).await;
    preset.world.clock.advance_ms(5_000);
    let probe = preset.breaker.start().await.expect("a probe");
    assert!(probe.is_probe());
    preset.world.clock.advance_ms(4_999);
    assert!(preset.breaker.start().await.is_err());
    preset.world.clock.advance_ms(1);
    assert!(preset.breaker.start().await.expect("another").is_probe());
    drop(probe);
}

#[tokio::test]
async fn unlike_polly_a_cancel_is_neutral() {
    let preset = Preset::new(Settings::like_polly()).await;
    drop(preset.breaker.start().await.expect("a permit"));
    assert_eq!(information(&preset.breaker).await.counts.total, 0);
}

#[tokio::test]
async fn like_gobreaker_the_sixth_failure_in_a_row_opens_for_a_minute() {
    let preset = Preset::new(Settings::like_gobreaker()).await;
    preset.runs(Outcome::Failure, 5).await;
    assert_eq!(preset.state().await, State::Closed);
    preset.runs(Outcome::Failure, 1).await;
    assert_eq!(preset.open_for().await, 60 * SECOND);
    preset.world.clock.advance_ms(60_000);
    preset.runs(Outcome::Success, 1).await;
    assert_eq!(preset.state().await, State::Closed);
}

#[tokio::test]
async fn unlike_gobreaker_a_panic_is_ignored() {
    let preset = Preset::new(Settings::like_gobreaker()).await;
    let breaker = preset.breaker.clone();
    let panicked = tokio::spawn(async move {
        breaker.execute(|| async { if true { panic!("the work panics") } else { Ok::<(), ()>(()) } }).await
    });
    assert!(panicked.await.is_err());
    assert_eq!(information(&preset.breaker).await.counts.total, 0);
}

#[tokio::test]
async fn unlike_gobreaker_a_failed_probe_keeps_counts_and_generation() {
    let preset = Preset::new(Settings::like_gobreaker()).await;
    preset.runs(Outcome::Failure, 6).await;
    preset.world.clock.advance_ms(60_000);
    preset.runs(Outcome::Failure, 1).await;
    let information = information(&preset.breaker).await;
    assert_eq!((information.generation, information.counts.total_failures), (1, 1));
}

#[tokio::test]
async fn unlike_gobreaker_a_call_that_spans_a_cyclic_clear_counts() {
    let settings = Settings::like_gobreaker().cyclic_clear_after(10 * SECOND);
    let preset = Preset::new(settings).await;
    preset.runs(Outcome::Failure, 1).await;
    let spanning = preset.breaker.start().await.expect("a permit");
    preset.world.clock.advance_ms(11_000);
    spanning.end(Outcome::Failure).await.expect("settled");
    assert_eq!(information(&preset.breaker).await.counts.total_failures, 1);
}

#[tokio::test]
async fn each_setting_of_a_preset_can_be_given_once_more() {
    for preset in [Settings::like_resilience4j(), Settings::like_polly(), Settings::like_gobreaker()] {
        assert!(preset.clone().close_threshold(2).build().is_ok());
        assert!(preset.close_threshold(2).close_threshold(3).build().is_err());
    }
}
