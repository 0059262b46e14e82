//! Redis stands still, is out of reach, or dies and comes back with nothing stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use circuitry::{
    Breaker, Context, Disposition, Factory, Outcome, RefusalReason, Settlement, StartError, State,
    StateChange,
};
use circuitry_redis::RedisStore;
use circuitry_store::conformance::LossyProxy;
use circuitry_tests::fleet::PATIENT;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

use crate::eventually;
use crate::servers::{OwnRedis, address_of, factory, own_name, patient, plain, redis_store, redis_url, run};
use crate::timeless;
use crate::turns::alone;

const STORE_TIMEOUT: Duration = Duration::from_millis(500);
/// The store's timeout, and what a busy machine adds before the task runs again.
const LONGEST_CALL: Duration = Duration::from_millis(1_500);

/// Counts the events of one thread that say that the store went down, or that it is back.
#[derive(Clone, Default)]
struct Events {
    entered: Arc<AtomicUsize>,
    left: Arc<AtomicUsize>,
}

impl Events {
    /// Watches this thread; the test's runtime has no other.
    fn watch() -> (Self, DefaultGuard) {
        let events = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(events.clone()));
        (events, guard)
    }

    fn seen(&self) -> (usize, usize) {
        (self.entered.load(Ordering::SeqCst), self.left.load(Ordering::SeqCst))
    }
}

impl<S: tracing::Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        if message.0.starts_with("the store is down") {
            self.entered.fetch_add(1, Ordering::SeqCst);
        }
        if message.0.starts_with("the store answers again") {
            self.left.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A worker with the library's default patience with its store.
async fn worker(
    redis_url: &str,
    prefix: &str,
    told: impl Fn(&StateChange<'_>) + Send + Sync + 'static,
) -> Factory {
    let store = RedisStore::builder().prefix(prefix).connect(redis_url).await.expect("a Redis that answers");
    let settings = patient_but(STORE_TIMEOUT).store(store).state_change_callback(told);
    factory(settings).await
}

fn patient_but(store_timeout: Duration) -> circuitry::SettingsBuilder {
    circuitry::Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .store_timeout(store_timeout)
        .failure_count_threshold(2)
        .allow_after(Duration::from_secs(600))
}

/// Another worker, whose store is always up when it is used.
async fn witness(redis_url: &str, prefix: &str) -> Factory {
    let settings = patient().failure_count_threshold(2).allow_after(Duration::from_secs(600));
    factory(settings.store(redis_store(redis_url, prefix).await)).await
}

fn breaker(factory: &Factory, tenant: &str) -> Breaker {
    factory.breaker_for("jobs", &Context::tenant(tenant))
}

async fn execute(breaker: &Breaker, outcome: Outcome) -> Settlement {
    breaker.start().await.expect("a permit").end(outcome).await.expect("settled")
}

/// What became of an outcome, and whether that was on the process's own record.
fn fate(settled: Settlement) -> (Disposition, bool) {
    (settled.disposition, settled.local)
}

async fn trip(breaker: &Breaker) {
    for _ in 0..3 {
        execute(breaker, Outcome::Failure).await;
    }
    assert_eq!(breaker.state().await.expect("a state"), State::Open);
}

async fn refusal_of(breaker: &Breaker) -> RefusalReason {
    match breaker.start().await {
        Err(StartError::Refused(refusal)) => refusal.reason(),
        other => panic!("not refused: {other:?}"),
    }
}

async fn until_down(factory: &Factory, wanted: bool) {
    let what = if wanted { "the store is taken as down" } else { "the store is taken as up" };
    eventually(what, PATIENT, async || (factory.is_store_down() == wanted).then_some(())).await;
}

/// What tasks that execute all the time have seen.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    longest_ms: AtomicUsize,
    counted: AtomicUsize,
    counted_locally: AtomicUsize,
    refused: AtomicUsize,
    done: AtomicBool,
}

impl Seen {
    fn took(&self, begun: Instant) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let ms = usize::try_from(begun.elapsed().as_millis()).expect("a short time");
        self.longest_ms.fetch_max(ms, Ordering::SeqCst);
    }

    /// Executes until it is done. The dependency fails while the store is down, and then only.
    async fn execute_on(self: Arc<Self>, breaker: Breaker, factory: Factory) {
        while !self.done.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let started = breaker.start().await;
            self.took(begun);
            match started {
                Ok(permit) => {
                    let outcome = if factory.is_store_down() { Outcome::Failure } else { Outcome::Success };
                    let begun = Instant::now();
                    let settled = permit.end(outcome).await.expect("settled");
                    self.took(begun);
                    if fate(settled) == (Disposition::Accepted, false) {
                        self.counted.fetch_add(1, Ordering::SeqCst);
                    } else {
                        self.counted_locally.fetch_add(1, Ordering::SeqCst);
                    }
                }
                Err(StartError::Refused(_)) => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    // Refusals of the local record cost nothing; without a pause there would be nothing else.
                    sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

// On one thread, so that its events can be told from those of other tests.
#[tokio::test]
async fn a_redis_that_stands_still_holds_nobody_up_and_the_local_record_protects() {
    let _turn = alone().await;
    let (events, _guard) = Events::watch();
    let (redis, prefix) = (OwnRedis::start().await, own_name());
    let local_changes = Arc::new(AtomicUsize::new(0));
    let told = local_changes.clone();
    let factory = worker(&redis.url(), &prefix, move |change| {
        assert!(change.local, "nothing changes on the shared record: {change:?}");
        told.fetch_add(1, Ordering::SeqCst);
    })
    .await;
    let witness = witness(&redis.url(), &prefix).await;
    let jobs = breaker(&factory, "acme");
    let seen = Arc::new(Seen::default());
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        tasks.spawn(seen.clone().execute_on(jobs.clone(), factory.clone()));
    }
    eventually("the run is well under way", PATIENT, async || {
        (seen.counted.load(Ordering::SeqCst) > 200).then_some(())
    })
    .await;
    // The last that this worker sees of another circuit is that it is closed; then somebody else trips it.
    let other_jobs = breaker(&factory, "other");
    execute(&other_jobs, Outcome::Success).await;
    trip(&breaker(&witness, "other")).await;

    redis.stop();
    until_down(&factory, true).await;
    eventually("the local record trips and refuses", PATIENT, async || {
        (seen.refused.load(Ordering::SeqCst) > 100).then_some(())
    })
    .await;
    let local = jobs.information().await.expect("information");
    assert!(local.local && local.state == State::Open, "{local:?}");
    assert_eq!(local_changes.load(Ordering::SeqCst), 1);
    let settled = execute(&other_jobs, Outcome::Success).await;
    assert!(settled.local, "of the other circuit it knows what it has seen");
    // The outage has to be longer than any call that began before it, or that call would begin another one. Only time
    // makes it so.
    sleep(2 * STORE_TIMEOUT).await;
    assert_eq!(events.seen(), (1, 0));

    redis.go_on();
    until_down(&factory, false).await;
    let shared = jobs.information().await.expect("information");
    assert_eq!((shared.local, shared.state), (false, State::Closed), "the local record is dropped");
    assert_eq!(refusal_of(&other_jobs).await, RefusalReason::Open, "what others have done is seen");
    let counted = seen.counted.load(Ordering::SeqCst);
    eventually("the run goes on", PATIENT, async || {
        (seen.counted.load(Ordering::SeqCst) > counted + 200).then_some(())
    })
    .await;
    seen.done.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }

    assert_eq!(events.seen(), (1, 1), "entered once and left once");
    let longest =
        Duration::from_millis(seen.longest_ms.load(Ordering::SeqCst).try_into().expect("a short time"));
    println!("{} calls, the longest took {longest:?}", seen.calls.load(Ordering::SeqCst));
    assert!(longest < LONGEST_CALL, "a call took {longest:?}");
    let written = breaker(&witness, "acme").information().await.expect("information");
    assert_eq!((written.generation, written.transitions.len()), (0, 0), "nothing local was written");
    assert_eq!(written.counts.total_failures, 0, "nothing local was written");
    let (counted, locally) =
        (seen.counted.load(Ordering::SeqCst), seen.counted_locally.load(Ordering::SeqCst));
    let total = usize::try_from(written.counts.total).expect("not many");
    // Those whose swap was under way when the server stopped are settled locally, and applied once it goes on.
    assert!((counted..=counted + locally).contains(&total), "{counted} + {locally}, and {total} are stored");
}

#[tokio::test]
async fn a_trip_that_others_make_while_this_worker_cannot_reach_redis_is_adopted() {
    let _turn = alone().await;
    let (events, _guard) = Events::watch();
    let prefix = own_name();
    let proxy = LossyProxy::start(address_of(&redis_url())).await.expect("a proxy");
    let cut_off = worker(&format!("redis://{}", proxy.address()), &prefix, |_| {}).await;
    let witness = witness(&redis_url(), &prefix).await;
    let (here, there) = (breaker(&cut_off, "acme"), breaker(&witness, "acme"));
    execute(&here, Outcome::Success).await;

    proxy.refuse().await;
    assert!(execute(&here, Outcome::Success).await.local);
    assert!(cut_off.is_store_down());
    trip(&there).await;
    let shared = there.information().await.expect("information");
    assert!(execute(&here, Outcome::Success).await.local, "it cannot know");

    proxy.resume().await;
    until_down(&cut_off, false).await;
    assert_eq!(refusal_of(&here).await, RefusalReason::Open);
    let adopted = here.information().await.expect("information");
    assert_eq!(timeless(adopted), timeless(shared), "nothing local was written");
    assert_eq!(events.seen(), (1, 1));
}

#[tokio::test]
async fn a_redis_that_dies_and_comes_back_empty_starts_closed_with_a_new_era() {
    let _turn = alone().await;
    let (events, _guard) = Events::watch();
    let (mut redis, prefix) = (OwnRedis::start().await, own_name());
    let factory = worker(&redis.url(), &prefix, |_| {}).await;
    let jobs = breaker(&factory, "acme");
    execute(&jobs, Outcome::Success).await;
    let (early, late) = (jobs.start().await.expect("a permit"), jobs.start().await.expect("a permit"));
    let old_era = early.era().expect("an era");

    redis.kill();
    assert!(execute(&jobs, Outcome::Success).await.local);
    assert!(factory.is_store_down());
    redis.start_again().await;
    until_down(&factory, false).await;

    // Both before there is a record and after: what it belongs to is gone.
    let settled = early.end(Outcome::Failure).await.expect("settled");
    assert_eq!(fate(settled), (Disposition::Stale, false));
    let permit = jobs.start().await.expect("a permit");
    assert!(permit.era().expect("an era") > old_era, "{permit:?} after {old_era}");
    let settled = late.end(Outcome::Failure).await.expect("settled");
    assert_eq!(fate(settled), (Disposition::Stale, false));
    let settled = permit.end(Outcome::Success).await.expect("settled");
    assert_eq!(fate(settled), (Disposition::Accepted, false));

    let fresh = jobs.information().await.expect("information");
    assert_eq!((fresh.state, fresh.generation, fresh.local), (State::Closed, 0, false));
    assert_eq!((fresh.counts.total, fresh.counts.total_successes), (1, 1), "nothing local was written");
    assert_eq!(events.seen(), (1, 1));
    let keys: Vec<String> = run(&mut plain(&redis.url()).await, &["KEYS", "*jobs*"]).await;
    assert_eq!(keys, [format!("{prefix}jobs/acme")]);
}
