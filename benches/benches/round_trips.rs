//! Round trips of a call, by the servers' own counters: Redis counts commands and messages itself; DynamoDB Local does not, so
//! there the SDK's client counts what it transmits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use circuitry::{Breaker, Outcome, SettingsBuilder, Store};
use circuitry_benches::circuits::{execute, factory, own, usual};
use circuitry_benches::servers::{
    RedisCounters, dynamodb_url, dynamodb_version, redis_connection, redis_url, redis_version,
};
use circuitry_benches::{Suite, modes};
use circuitry_dynamodb::{DynamoDbStore, Table, local_client};
use circuitry_redis::RedisStore;
use redis::aio::ConnectionManager;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const CALLS: u64 = 200;
const PROBES: u64 = 50;
const OPEN_FOR: Duration = Duration::from_millis(20);
const MILLION: u64 = 1_000_000;
const IN: Duration = Duration::from_secs(10);
/// How often a part of the million is called.
const TICK: Duration = Duration::from_millis(10);

/// Counts what a client sends, each attempt for itself.
#[derive(Clone, Debug, Default)]
struct Sent(Arc<AtomicU64>);

impl Intercept for Sent {
    fn name(&self) -> &'static str {
        "sent"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Who counts.
enum Counter {
    Redis(ConnectionManager),
    DynamoDb(Sent),
}

/// What had been counted at some time.
enum Counted {
    Redis(RedisCounters),
    DynamoDb(u64),
}

impl Counter {
    async fn look(&mut self) -> Counted {
        match self {
            Self::Redis(server) => Counted::Redis(RedisCounters::look(server).await),
            Self::DynamoDb(sent) => Counted::DynamoDb(sent.0.load(Ordering::SeqCst)),
        }
    }

    /// Records what was counted since `before`, by each of so many calls.
    async fn record(&mut self, suite: &mut Suite, what: &str, before: &Counted, calls: u64) {
        let each = |count: u64| count as f64 / calls as f64;
        match (before, self.look().await) {
            (Counted::Redis(before), Counted::Redis(now)) => {
                suite.record(&format!("round_trips/redis {what}"), each(now.commands_since(before)), calls);
                let reads = each(now.reads_since(before));
                suite.record(&format!("round_trips/redis {what}, reads"), reads, calls);
            }
            (Counted::DynamoDb(before), Counted::DynamoDb(now)) => {
                suite.record(&format!("round_trips/dynamodb {what}"), each(now - before), calls);
            }
            _ => unreachable!("a counter counts one thing"),
        }
    }
}

fn opens_at_once() -> SettingsBuilder {
    modes::strict(usual()).failure_count_threshold(0)
}

/// Opens the circuit.
async fn trip(breaker: &Breaker) {
    let permit = breaker.start().await.expect("a permit");
    permit.end(Outcome::Failure).await.expect("settled");
}

async fn strict(suite: &mut Suite, store: impl Store + Clone, counter: &mut Counter) {
    let closed = own(&factory(modes::strict(usual()).store(store.clone())).await, "closed");
    // The first start of a circuit stores its record.
    execute(&closed).await;
    let calls = suite.times(CALLS);
    let before = counter.look().await;
    for _ in 0..calls {
        execute(&closed).await;
    }
    counter.record(suite, "closed", &before, calls).await;

    let open = own(&factory(opens_at_once().store(store.clone())).await, "open");
    trip(&open).await;
    let before = counter.look().await;
    for _ in 0..calls {
        assert!(open.start().await.is_err(), "it is open");
    }
    counter.record(suite, "open", &before, calls).await;

    let settings = opens_at_once().allow_after(OPEN_FOR).store(store);
    let factory = factory(settings).await;
    let probes = suite.times(PROBES);
    let mut breakers = Vec::new();
    for number in 0..probes {
        let breaker = own(&factory, &format!("probe {number}"));
        trip(&breaker).await;
        breakers.push(breaker);
    }
    sleep(2 * OPEN_FOR).await;
    let before = counter.look().await;
    for breaker in &breakers {
        execute(breaker).await;
    }
    counter.record(suite, "probe", &before, probes).await;
}

async fn on_dynamodb() -> (DynamoDbStore, Sent) {
    let client = local_client(&dynamodb_url()).expect("an endpoint");
    let name = format!("bench-trips-{}-{:x}", std::process::id(), fastrand::u32(..));
    Table::new(client.clone(), &name).expect("a name").create().await.expect("a new table");
    let sent = Sent::default();
    let counted = Client::from_conf(client.config().to_builder().interceptor(sent.clone()).build());
    (DynamoDbStore::connect(counted, &name).await.expect("a table"), sent)
}

/// Calls that are spread evenly over some time, and what the store was asked meanwhile and until all is settled.
async fn a_million(suite: &mut Suite, server: &mut ConnectionManager) {
    const ID: &str = "round_trips/a million bounded calls";
    let Some(settings) = modes::bounded(usual()) else {
        return suite.leave_out(ID, "this build has no bounded mode");
    };
    let (calls, length) = if suite.is_trial() { (1_000, Duration::from_millis(300)) } else { (MILLION, IN) };
    let store = RedisStore::connect(&redis_url()).await.expect("a Redis");
    let factory = factory(settings.store(store)).await;
    let breaker = own(&factory, "a million");
    execute(&breaker).await;
    modes::flush(&factory).await;
    let before = RedisCounters::look(server).await;
    let begun = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut called = 0;
    while called < calls {
        ticks.tick().await;
        let share = (begun.elapsed().as_secs_f64() / length.as_secs_f64()).min(1.0);
        let due = (calls as f64 * share) as u64;
        for _ in called..due {
            execute(&breaker).await;
        }
        called = due;
    }
    let took = begun.elapsed();
    modes::flush(&factory).await;
    let now = RedisCounters::look(server).await;
    println!("{calls} bounded calls took {took:?}");
    let total = breaker.information().await.expect("information").counts.total;
    assert_eq!(total, calls + 1, "all of them are counted");
    suite.record(ID, now.commands_since(&before) as f64, calls);
}

#[tokio::main]
async fn main() {
    let mut suite = Suite::begin("round_trips");
    let mut server = redis_connection().await;
    suite.on("Redis", redis_version(&mut server).await);
    suite.on("DynamoDB Local", dynamodb_version());
    let store = RedisStore::connect(&redis_url()).await.expect("a Redis");
    strict(&mut suite, store, &mut Counter::Redis(server.clone())).await;
    let (store, sent) = on_dynamodb().await;
    strict(&mut suite, store, &mut Counter::DynamoDb(sent)).await;
    a_million(&mut suite, &mut server).await;
    suite.finish();
}
