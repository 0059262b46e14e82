//! The gateway under many connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, request};
use crate::process::Edge;
use crate::servers::{OwnRedis, redis_url};
use crate::upstream::{Piece, answer};

/// What one connection saw.
#[derive(Default)]
struct Seen {
    answers: Vec<(Answer, Duration)>,
    lost: Vec<String>,
}

/// So many connections that ask one request after another until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Seen>>,
}

impl Load {
    fn begin(address: SocketAddr, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..connections).map(|_| tokio::spawn(ask_on(address, stop.clone()))).collect();
        Self { stop, tasks }
    }

    async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for task in self.tasks {
            let seen = task.await.expect("a task");
            all.answers.extend(seen.answers);
            all.lost.extend(seen.lost);
        }
        assert_eq!(all.lost, Vec::<String>::new(), "every request is answered");
        for (got, _) in &all.answers {
            got.assert_own_or_upstreams();
        }
        all
    }

    async fn run_for(self, time: Duration) -> Seen {
        tokio::time::sleep(time).await;
        self.end().await
    }
}

async fn ask_on(address: SocketAddr, stop: Arc<AtomicBool>) -> Seen {
    let (mut seen, mut client) = (Seen::default(), Client::connect(address).await);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.send(&request("GET", "/", &[])).await;
        match client.answer(true).await {
            Ok(got) => seen.answers.push((got, began.elapsed())),
            Err(error) => {
                seen.lost.push(error);
                client = Client::connect(address).await;
            }
        }
    }
    seen
}

impl Seen {
    /// The times of the answers that are `label` of our own, or the upstream's with `None`; sorted.
    fn times(&self, label: Option<&str>) -> Vec<Duration> {
        let of_that_kind = self.answers.iter().filter(|(got, _)| got.own().as_deref() == label);
        let mut times: Vec<_> = of_that_kind.map(|(_, time)| *time).collect();
        times.sort();
        times
    }
}

fn quantile(times: &[Duration], per_mille: usize) -> Duration {
    times.get(times.len() * per_mille / 1_000).copied().unwrap_or(Duration::MAX)
}

const CONNECTIONS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_at_least_twenty_times_faster_than_the_timeout_of_an_upstream_that_hangs() {
    const TIMES: u32 = 20;
    let edge = Edge::start(&[
        ("CIRCUITRY_FIRST_BYTE_TIMEOUT_MS", "1500"),
        ("CIRCUITRY_CONNECT_TIMEOUT_MS", "500"),
        ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "5"),
    ])
    .await;
    edge.upstream.will(vec![Piece::Hang]);
    // Until the circuit is open all wait for the upstream; then all are refused.
    let seen = Load::begin(edge.gateway.address, CONNECTIONS).run_for(Duration::from_secs(8)).await;
    let (waited, refused) = (seen.times(Some("upstream-failed")), seen.times(Some("refused")));
    assert_eq!(waited.len() + refused.len(), seen.answers.len());
    let (timeout, refusal) = (quantile(&waited, 500), quantile(&refused, 500));
    println!(
        "{CONNECTIONS} connections: {} requests ran into the timeout, median {timeout:?}; {} were refused, median \
         {refusal:?}, 99th percentile {:?}: {:.0} times faster",
        waited.len(),
        refused.len(),
        quantile(&refused, 990),
        timeout.as_secs_f64() / refusal.as_secs_f64(),
    );
    assert!(refusal * TIMES <= timeout, "refusals take {refusal:?}, the timeout {timeout:?}");
    edge.gateway.assert_never_failed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_store_under_load_is_answered_all_the_way_through() {
    let mut redis = OwnRedis::start().await;
    let edge = Edge::on(&redis.url(), &[("CIRCUITRY_STORE_TIMEOUT_MS", "250")]).await;
    let load = Load::begin(edge.gateway.address, CONNECTIONS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    redis.stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.go_on();
    tokio::time::sleep(Duration::from_secs(1)).await;
    redis.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.start_again().await;
    let seen = load.run_for(Duration::from_secs(1)).await;
    // The upstream is well, and the policy is to admit: nothing else is answered, whatever the store does.
    let times = seen.times(None);
    assert_eq!(times.len(), seen.answers.len());
    println!(
        "{CONNECTIONS} connections through a stalled and a killed Redis: {} answers, all of the upstream; median {:?}, \
         slowest {:?}",
        times.len(),
        quantile(&times, 500),
        times.last(),
    );
    edge.gateway.assert_never_failed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_wait_for_a_slow_upstream_at_once() {
    const AT_ONCE: usize = 300;
    let edge = Edge::start(&[]).await;
    edge.upstream.will([vec![Piece::Wait(Duration::from_secs(2))], answer(200, &[], b"late")].concat());
    let mut tasks = Vec::new();
    for _ in 0..AT_ONCE {
        let address = edge.gateway.address;
        tasks.push(tokio::spawn(async move { crate::client::get(address, "/", &[]).await }));
    }
    for task in tasks {
        let got = task.await.expect("a task");
        assert_eq!(got.text(), "late", "{got:?}");
    }
    edge.gateway.assert_never_failed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_outcome_of_an_upstream_that_is_well_is_counted_once() {
    // With a connection to Redis for each request, and with one that many have one after another.
    for reuse in ["1", "100"] {
        let edge = Edge::reusing(reuse, &redis_url(), &[]).await;
        let seen = Load::begin(edge.gateway.address, CONNECTIONS).run_for(Duration::from_secs(3)).await;
        let (times, counts) = (seen.times(None), edge.counts().await);
        assert_eq!(times.len(), seen.answers.len());
        println!(
            "{CONNECTIONS} connections, {reuse} requests an instance: {} passed on in 3 s, median {:?}, 99th percentile {:?}",
            times.len(),
            quantile(&times, 500),
            quantile(&times, 990),
        );
        let passed = u64::try_from(times.len()).expect("a number");
        assert_eq!(counts, (passed, passed, 0));
        edge.gateway.assert_never_failed();
    }
}
