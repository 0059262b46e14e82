//! Strict mode: what `execute` costs beside its own two operations sent bare, and beside one bare read, on each store; and 64
//! tasks on one circuit.
//!
//! After criterion's own figures come rounds that take turns in one run, so that a machine that slows down slows all of them.

mod dynamodb;
mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

use circuitry::{Breaker, MemoryStore, Store};
use circuitry_benches::circuits::{execute, factory, own, usual};
use circuitry_benches::servers::{
    dynamodb_url, dynamodb_version, redis_connection, redis_url, redis_version,
};
use circuitry_benches::{Suite, Times, modes};
use circuitry_dynamodb::{DynamoDbStore, Table, local_client};
use circuitry_redis::RedisStore;
use circuitry_store::Swapped;
use criterion::{Criterion, Throughput};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

const TASKS: u64 = 64;
const REDIS_ROUNDS: u64 = 4_000;
const DYNAMODB_ROUNDS: u64 = 1_500;
const MEMORY_ROUNDS: u64 = 4_000;
/// As large as a record in steady use.
pub(crate) const VALUE_BYTES: usize = 512;

/// By default settings, but for the mode; and a store that hangs for a moment on a shared machine is not to end the run.
async fn breaker(store: impl Store, name: &str) -> Breaker {
    let settings = modes::strict(usual()).store(store).store_timeout(Duration::from_secs(5));
    own(&factory(settings).await, name)
}

async fn on_redis(name: &str) -> Breaker {
    breaker(RedisStore::connect(&redis_url()).await.expect("a Redis"), name).await
}

/// The table of this run.
async fn table() -> (aws_sdk_dynamodb::Client, String) {
    let client = local_client(&dynamodb_url()).expect("an endpoint");
    let name = format!("bench-{}-{:x}", std::process::id(), fastrand::u32(..));
    Table::new(client.clone(), &name).expect("a name").create().await.expect("a new table");
    (client, name)
}

/// So many executions by [`TASKS`] tasks on one circuit.
async fn execute_together(breaker: &Arc<Breaker>, executions: u64) {
    let each = executions.div_ceil(TASKS);
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let breaker = breaker.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    execute(&breaker).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

/// A swap through the adapter, as the component asks for it.
async fn load_and_swap(store: &impl Store, circuit: &str) {
    let value = [b'x'; VALUE_BYTES];
    let expected = store.load(circuit).await.expect("loaded").entry.map(|entry| entry.version);
    let ttl = Some(Duration::from_secs(86_400));
    let swapped = store.swap(circuit, expected.as_ref(), &value, ttl).await.expect("an answer");
    assert!(matches!(swapped, Swapped::Stored(_)));
}

fn criterion_figures(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("strict on Redis, one after another");
    let bare = Arc::new(Mutex::new(runtime.block_on(redis::Bare::new())));
    group.bench_function("bare GET", |bencher| {
        bencher.to_async(runtime).iter(|| async { bare.lock().await.read().await });
    });
    group.bench_function("bare HMGET and swap script", |bencher| {
        bencher.to_async(runtime).iter(|| async { bare.lock().await.load_and_swap().await });
    });
    let sequential = runtime.block_on(on_redis("sequential"));
    group.bench_function("execute", |bencher| {
        bencher.to_async(runtime).iter(|| execute(&sequential));
    });
    group.finish();

    let mut group = criterion.benchmark_group("strict on DynamoDB Local, one after another");
    let (client, table) = runtime.block_on(table());
    let bare = Arc::new(Mutex::new(runtime.block_on(dynamodb::Bare::new(client.clone(), &table))));
    group.sample_size(20);
    group.bench_function("bare GetItem", |bencher| {
        bencher.to_async(runtime).iter(|| async { bare.lock().await.read().await });
    });
    group.bench_function("bare GetItem and conditional PutItem", |bencher| {
        bencher.to_async(runtime).iter(|| async { bare.lock().await.load_and_swap().await });
    });
    let store = DynamoDbStore::new(client, &table).expect("a store");
    let sequential = runtime.block_on(breaker(store, "sequential"));
    group.bench_function("execute", |bencher| {
        bencher.to_async(runtime).iter(|| execute(&sequential));
    });
    group.finish();

    let mut group = criterion.benchmark_group("strict on the memory store, one after another");
    let sequential = runtime.block_on(breaker(MemoryStore::new(), "sequential"));
    group.bench_function("execute", |bencher| {
        bencher.to_async(runtime).iter(|| execute(&sequential));
    });
    group.finish();

    let mut group = criterion.benchmark_group("strict on Redis, 64 tasks on one circuit");
    let together = Arc::new(runtime.block_on(on_redis("together")));
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("execute", |bencher| {
        bencher.to_async(runtime).iter_custom(|executions| {
            let together = together.clone();
            async move {
                // Small counts would measure the start of the tasks.
                let run = executions.max(TASKS * 50);
                let begun = Instant::now();
                execute_together(&together, run).await;
                begun.elapsed().mul_f64(executions as f64 / run as f64)
            }
        });
    });
    group.finish();
}

async fn turns_on_redis(suite: &mut Suite) {
    let sequential = on_redis("turns").await;
    let store = RedisStore::connect(&redis_url()).await.expect("a Redis");
    let mut bare = redis::Bare::new().await;
    let circuit = format!("bench:adapter:{}", std::process::id());
    let mut read = Times::new("strict/redis read");
    let mut two = Times::new("strict/redis bare");
    let mut adapter = Times::new("strict/redis adapter");
    let mut whole = Times::new("strict/redis execute");
    execute(&sequential).await;
    for _ in 0..suite.times(REDIS_ROUNDS) {
        read.time(bare.read()).await;
        two.time(bare.load_and_swap()).await;
        adapter.time(load_and_swap(&store, &circuit)).await;
        whole.time(execute(&sequential)).await;
    }
    tell(suite, "redis", [&read, &two, &adapter, &whole]);
    suite.record("strict/redis, against its commands", whole.ratio(&two), whole.rounds() as u64);
}

async fn turns_on_dynamodb(suite: &mut Suite) {
    let (client, table) = table().await;
    let store = DynamoDbStore::connect(client.clone(), &table).await.expect("a table");
    let sequential = breaker(store.clone(), "turns").await;
    let mut bare = dynamodb::Bare::new(client, &table).await;
    let mut read = Times::new("strict/dynamodb read");
    let mut two = Times::new("strict/dynamodb bare");
    let mut adapter = Times::new("strict/dynamodb adapter");
    let mut whole = Times::new("strict/dynamodb execute");
    for round in 0..suite.times(DYNAMODB_ROUNDS + 100) {
        if round == 100 {
            // The server has compiled by now what it runs.
            (read, two) = (Times::new(read.name()), Times::new(two.name()));
            (adapter, whole) = (Times::new(adapter.name()), Times::new(whole.name()));
        }
        read.time(bare.read()).await;
        two.time(bare.load_and_swap()).await;
        adapter.time(load_and_swap(&store, "bench/adapter")).await;
        whole.time(execute(&sequential)).await;
    }
    tell(suite, "dynamodb", [&read, &two, &adapter, &whole]);
    suite.record("strict/dynamodb, against its requests", whole.ratio(&two), whole.rounds() as u64);
}

async fn turns_on_memory(suite: &mut Suite) {
    let store = MemoryStore::new();
    let sequential = breaker(store.clone(), "turns").await;
    let mut adapter = Times::new("strict/memory adapter");
    let mut whole = Times::new("strict/memory execute");
    for _ in 0..suite.times(MEMORY_ROUNDS) {
        adapter.time(load_and_swap(&store, "bench:adapter")).await;
        whole.time(execute(&sequential)).await;
    }
    for times in [&adapter, &whole] {
        suite.record_times(times.name(), times);
    }
}

fn tell(suite: &mut Suite, store: &str, times: [&Times; 4]) {
    for times in times {
        suite.record_times(times.name(), times);
    }
    let [read, .., whole] = times;
    suite.record(&format!("strict/{store}, against a read"), whole.ratio(read), whole.rounds() as u64);
}

/// Many tasks on one circuit, and whether all of them were counted.
async fn together(suite: &mut Suite) {
    let breaker = Arc::new(on_redis("exact").await);
    let executions = TASKS * suite.times(2_000);
    execute_together(&breaker, TASKS).await;
    let begun = Instant::now();
    execute_together(&breaker, executions).await;
    let per_second = executions as f64 / begun.elapsed().as_secs_f64();
    let total = breaker.information().await.expect("information").counts.total;
    assert_eq!(total, executions + TASKS, "the totals are exact");
    suite.record("strict/64 tasks", per_second, executions);
}

fn main() {
    let mut suite = Suite::begin("strict");
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    criterion_figures(&mut criterion, &runtime);
    runtime.block_on(async {
        suite.on("Redis", redis_version(&mut redis_connection().await).await);
        suite.on("DynamoDB Local", dynamodb_version());
        turns_on_memory(&mut suite).await;
        turns_on_redis(&mut suite).await;
        turns_on_dynamodb(&mut suite).await;
        together(&mut suite).await;
    });
    suite.finish();
    criterion.final_summary();
}
