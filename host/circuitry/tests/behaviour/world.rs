//! The world of a test: a store that fails on demand, a clock, and breakers on them.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use circuitry::{
    Breaker, Consistency, Context, Factory, Information, ManualClock, MemoryStore, Outcome, Override,
    OverrideKind, Refusal, Settings, SettingsBuilder, StartError, State, StateChange,
};
use circuitry_store::fault::FaultStore;

/// When every test begins, in milliseconds since the Unix epoch.
pub(crate) const BEGIN_MS: u64 = 1_000_000;
/// The open time of the tests' circuits.
pub(crate) const ALLOW_AFTER: Duration = Duration::from_secs(60);

/// A change of state as the callback was told: circuit, from, to, local.
pub(crate) type Change = (String, State, State, bool);

/// A store that several factories share, a clock that stands still, and what the callbacks were told.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<FaultStore<MemoryStore>>,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::at_ms(BEGIN_MS);
        let store = Arc::new(FaultStore::new(MemoryStore::with_clock(clock.clone())));
        Self { clock, store, changes: Arc::default() }
    }

    /// Settings on this world: trips on the third failure in a row, closes after two probes.
    pub(crate) fn settings(&self) -> SettingsBuilder {
        self.settings_to_close_after(2)
    }

    /// The same with so many probes.
    pub(crate) fn settings_to_close_after(&self, probes: u32) -> SettingsBuilder {
        self.settings_with(Consistency::Strict, probes)
    }

    /// The settings of the world in another mode than the strict one.
    pub(crate) fn settings_in(&self, consistency: Consistency) -> SettingsBuilder {
        self.settings_with(consistency, 2)
    }

    fn settings_with(&self, consistency: Consistency, probes: u32) -> SettingsBuilder {
        let changes = self.changes.clone();
        Settings::builder()
            .consistency(consistency)
            .store(self.store.clone())
            .clock(self.clock.clone())
            .failure_count_threshold(2)
            .close_threshold(probes)
            .allow_after(ALLOW_AFTER)
            .state_change_callback(move |change: &StateChange<'_>| {
                let change = (change.circuit.to_owned(), change.from, change.to, change.local);
                changes.lock().unwrap().push(change);
            })
    }

    pub(crate) async fn factory(&self) -> Factory {
        factory(self.settings()).await
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap().clone()
    }

    /// The changes of the shared record, by the state that followed.
    pub(crate) fn shared_changes(&self) -> Vec<State> {
        self.changes().into_iter().filter(|change| !change.3).map(|change| change.2).collect()
    }

    /// Lets the open time pass.
    pub(crate) fn open_time_passes(&self) {
        self.clock.advance_ms(ALLOW_AFTER.as_millis() as u64);
    }
}

pub(crate) async fn factory(settings: SettingsBuilder) -> Factory {
    Factory::new(settings.build().expect("usable settings")).await.expect("a factory")
}

pub(crate) fn breaker(factory: &Factory) -> Breaker {
    factory.breaker_for("jobs", &Context::tenant("acme"))
}

/// Starts and ends with `outcome`, `times` times.
pub(crate) async fn run(breaker: &Breaker, outcome: Outcome, times: usize) {
    for _ in 0..times {
        let permit = breaker.start().await.expect("a permit");
        permit.end(outcome).await.expect("a settlement");
    }
}

/// Fails until the circuit trips.
pub(crate) async fn trip(breaker: &Breaker) {
    run(breaker, Outcome::Failure, 3).await;
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

/// The information of a circuit that can be asked.
pub(crate) async fn information(breaker: &Breaker) -> Information {
    breaker.information().await.expect("information")
}

/// The refusal that a start must have been answered.
pub(crate) fn refusal(error: StartError) -> Refusal {
    match error {
        StartError::Refused(refusal) => refusal,
        other => panic!("not a refusal: {other}"),
    }
}

/// Asks to start and is refused.
pub(crate) async fn refused(breaker: &Breaker) -> Refusal {
    refusal(breaker.start().await.expect_err("a refusal"))
}

/// An override without end.
pub(crate) fn forced(kind: OverrideKind) -> Override {
    Override { kind, author: "ann".into(), reason: "the provider asked".into(), until_ms: None }
}

/// Lets the tasks that were begun by a drop do their work.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..10_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("did not come about: {what}");
}
