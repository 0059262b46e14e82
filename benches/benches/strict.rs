//! Strict mode on a real Redis: what `execute` costs beside its own two commands and beside one bare read.
//!
//! After criterion's own figures it prints ratios from rounds that take turns in one run, so that a machine that
//! slows down slows all of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use circuitry::{Breaker, Context, Factory, Settings};
use circuitry_benches::{Times, redis_url};
use circuitry_redis::{RedisStore, SWAP_SCRIPT};
use circuitry_store::{Store, Swapped, Version};
use criterion::{Criterion, Throughput};
use redis::aio::ConnectionManager;
use tokio::runtime::Runtime;

const TASKS: u64 = 64;
const ROUNDS: usize = 4_000;
/// As large as a record in steady use.
const VALUE_BYTES: usize = 512;

/// The commands of a call, sent bare by the same client library.
struct Bare {
    connection: ConnectionManager,
    script: String,
    key: String,
    version: Vec<u8>,
    value: Vec<u8>,
}

impl Bare {
    async fn new(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = ConnectionManager::new(client).await.expect("a connection");
        let script: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(SWAP_SCRIPT)
            .query_async(&mut connection)
            .await
            .expect("a script");
        let key = format!("bench:bare:{}", std::process::id());
        let _: i64 = redis::cmd("DEL").arg(&key).query_async(&mut connection).await.expect("an answer");
        let mut bare = Self { connection, script, key, version: vec![0; 16], value: vec![b'x'; VALUE_BYTES] };
        bare.swap(false).await;
        bare
    }

    async fn get(&mut self) {
        let value: Option<Vec<u8>> = redis::cmd("GET")
            .arg("bench:nothing")
            .query_async(&mut self.connection)
            .await
            .expect("an answer");
        assert!(value.is_none());
    }

    async fn load(&mut self) {
        let entry: (Option<Vec<u8>>, Option<Vec<u8>>) = redis::cmd("HMGET")
            .arg(&self.key)
            .arg("version")
            .arg("value")
            .query_async(&mut self.connection)
            .await
            .expect("an answer");
        assert!(entry.1.is_some());
    }

    async fn swap(&mut self, exists: bool) {
        let next = Version::mint().expect("randomness").into_bytes();
        let expected = if exists { self.version.as_slice() } else { &[] };
        let answer: (i64, i64) = redis::cmd("EVALSHA")
            .arg(&self.script)
            .arg(1)
            .arg(&self.key)
            .arg(i32::from(exists))
            .arg(expected)
            .arg(&next)
            .arg(&self.value)
            .arg(86_400_000)
            .query_async(&mut self.connection)
            .await
            .expect("stored");
        assert_eq!(answer.0, 1);
        self.version = next;
    }
}

async fn breaker(url: &str, name: &str) -> Breaker {
    let store = RedisStore::connect(url).await.expect("a Redis");
    let settings = Settings::builder()
        .consistency(circuitry::Consistency::Strict)
        .store(store)
        .failure_count_threshold(u64::MAX)
        .store_timeout(Duration::from_secs(5))
        .default_fallback_error_matcher()
        .state_change_callback(|_| {});
    let factory = Factory::new(settings.build().expect("settings")).await.expect("a factory");
    // A circuit of this run alone.
    factory.breaker_for(name, &Context::tenant(std::process::id().to_string()))
}

async fn execute(breaker: &Breaker) {
    breaker.execute(|| async { Ok::<_, std::convert::Infallible>(()) }).await.expect("admitted");
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
async fn load_and_swap(store: &RedisStore, circuit: &str, value: &[u8]) {
    let expected = store.load(circuit).await.expect("loaded").entry.map(|entry| entry.version);
    let ttl = Some(Duration::from_secs(86_400));
    let swapped = store.swap(circuit, expected.as_ref(), value, ttl).await.expect("an answer");
    assert!(matches!(swapped, Swapped::Stored(_)));
}

fn criterion_figures(criterion: &mut Criterion, runtime: &Runtime, url: &str) {
    let mut group = criterion.benchmark_group("strict on Redis, one after another");
    let breaker_one = runtime.block_on(breaker(url, "sequential"));
    let bare = Arc::new(tokio::sync::Mutex::new(runtime.block_on(Bare::new(url))));
    group.bench_function("bare GET", |bencher| {
        bencher.to_async(runtime).iter(|| async { bare.lock().await.get().await });
    });
    group.bench_function("bare HMGET and swap script", |bencher| {
        bencher.to_async(runtime).iter(|| async {
            let mut bare = bare.lock().await;
            bare.load().await;
            bare.swap(true).await;
        });
    });
    group.bench_function("execute", |bencher| {
        bencher.to_async(runtime).iter(|| execute(&breaker_one));
    });
    group.finish();

    let mut group = criterion.benchmark_group("strict on Redis, 64 tasks on one circuit");
    let together = Arc::new(runtime.block_on(breaker(url, "together")));
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

/// Rounds that take turns, and what they say of each other.
async fn ratios(url: &str) {
    let sequential = breaker(url, "turns").await;
    let store = RedisStore::connect(url).await.expect("a Redis");
    let mut bare = Bare::new(url).await;
    let value = vec![b'x'; VALUE_BYTES];
    let circuit = format!("bench:adapter:{}", std::process::id());
    let mut get = Times::new("bare GET");
    let mut two = Times::new("bare HMGET and swap script");
    let mut adapter = Times::new("load and swap through the adapter");
    let mut whole = Times::new("execute");
    for _ in 0..ROUNDS {
        get.time(bare.get()).await;
        two.time(async {
            bare.load().await;
            bare.swap(true).await;
        })
        .await;
        adapter.time(load_and_swap(&store, &circuit, &value)).await;
        whole.time(execute(&sequential)).await;
    }
    println!("\nstrict on Redis, in turns:");
    for times in [&get, &two, &adapter, &whole] {
        println!("  {times}");
    }
    println!("  execute / its two commands bare   {:.3}   (must: at most 1.2)", whole.ratio(&two));
    println!("  execute / one bare GET            {:.3}   (must: at most 2.6)", whole.ratio(&get));

    let together = Arc::new(breaker(url, "exact").await);
    let executions = TASKS * 1_000;
    execute_together(&together, TASKS).await;
    let begun = Instant::now();
    execute_together(&together, executions).await;
    let per_second = executions as f64 / begun.elapsed().as_secs_f64();
    let total = together.information().await.expect("information").counts.total;
    assert_eq!(total, executions + TASKS, "the totals are exact");
    println!(
        "  64 tasks on one circuit           {per_second:.0} executes a second (must: at least 10,000); total {total}, exact"
    );
}

fn main() {
    let url = redis_url();
    let runtime = Runtime::new().expect("a runtime");
    let mut criterion = Criterion::default().configure_from_args();
    criterion_figures(&mut criterion, &runtime, &url);
    // `cargo bench -- --test` runs each once; the turns are for figures.
    if !std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        runtime.block_on(ratios(&url));
    }
    criterion.final_summary();
}
