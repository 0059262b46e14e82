//! Swaps whose answer is lost: the write may have happened, the client does not know. Nothing is counted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use circuitry::{
    Breaker, Context, Disposition, Factory, MemoryStore, Outcome, SettingsBuilder, StartError, Store,
    StoreError,
};
use circuitry_core::record::{Record, Token};
use circuitry_redis::RedisStore;
use circuitry_store::conformance::LossyProxy;
use circuitry_store::fault::{FaultStore, Odds};
use circuitry_store::{Loaded, Swapped, Version};
use circuitry_tests::fleet::{Change, PATIENT};
use tokio::task::JoinSet;

use crate::eventually;
use crate::servers::{address_of, factory, own_name, patient, redis_store, redis_url};
use crate::turns::together;

/// What became of the outcomes of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Accepted by the shared record.
    accepted: u64,
    /// Given up for known, or settled by the process's own record: whether the shared one has it is not told.
    in_doubt: u64,
    /// Not accepted: it is in no count.
    stale: u64,
}

impl Tally {
    /// Executes on a circuit that never trips.
    async fn execute(&mut self, breaker: &Breaker, outcome: Outcome) {
        let permit = breaker.start().await.expect("a permit");
        let settled = permit.end(outcome).await.expect("settled");
        match (settled.disposition, settled.local) {
            (Disposition::Accepted, false) => self.accepted += 1,
            (Disposition::Accepted, true) | (Disposition::Unsettled, _) => self.in_doubt += 1,
            // A permit of a record that this process kept for itself, or one that this record knows nothing of.
            (Disposition::Stale, _) => self.stale += 1,
            other => panic!("on a circuit that never trips an outcome is {other:?}"),
        }
    }

    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.in_doubt += other.in_doubt;
        self.stale += other.stale;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_whose_answer_redis_sends_in_vain_is_counted_once() {
    let _turn = together().await;
    const RUNS: usize = 100;
    let prefix = format!("{}:", own_name());
    let mut fleet = Vec::new();
    for _ in 0..2 {
        let proxy = LossyProxy::start(address_of(&redis_url())).await.expect("a proxy");
        let store = RedisStore::builder().prefix(&prefix).operation_timeout(PATIENT);
        let store =
            store.connect(&format!("redis://{}", proxy.address())).await.expect("a Redis that answers");
        let never = patient().failure_count_threshold(u64::MAX).store(store);
        fleet.push((Arc::new(proxy), factory(never).await));
    }
    let witness = factory(patient().store(redis_store(&redis_url(), &prefix).await)).await;
    for run in 0..RUNS {
        let circuit = format!("run-{run}");
        let mut tasks = JoinSet::new();
        for (proxy, factory) in &fleet {
            let breaker = factory.breaker_for(&circuit, &Context::new());
            tasks.spawn(run_with_losses(proxy.clone(), breaker));
        }
        let mut tally = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            tally.add(ended.expect("no panic"));
        }
        assert_eq!(
            (tally.in_doubt, tally.stale),
            (0, 0),
            "run {run}: a single loss is made good within the call's time"
        );
        let breaker = witness.breaker_for(&circuit, &Context::new());
        let counts = breaker.information().await.expect("information").counts;
        assert_eq!(counts.total, tally.accepted, "run {run}");
    }
    let lost: usize = fleet.iter().map(|(proxy, _)| proxy.lost()).sum();
    println!("{lost} answers and requests were lost in {RUNS} runs");
    assert!(lost >= RUNS / 2, "only {lost} were lost");
}

/// One node's part of a run: four tasks execute, and at some moment something is lost.
async fn run_with_losses(proxy: Arc<LossyProxy>, breaker: Breaker) -> Tally {
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let breaker = breaker.clone();
        tasks.spawn(async move {
            let mut tally = Tally::default();
            for index in 0..6 {
                let outcome = if index % 2 == 0 { Outcome::Success } else { Outcome::Failure };
                tally.execute(&breaker, outcome).await;
            }
            tally
        });
    }
    // One loss in a run: a swap is tried three times, and is not to meet with as many losses. Which request it strikes
    // is up to the scheduler and this pause; nothing waits for it.
    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..8_000))).await;
    match fastrand::u8(0..8) {
        0 => proxy.lose_request_with("EVALSHA"),
        1 => proxy.lose_request_with("HMGET"),
        2 => proxy.lose_answer_to("HMGET"),
        3 => proxy.cut(),
        _ => proxy.lose_answer_to("EVALSHA"),
    }
    let mut tally = Tally::default();
    while let Some(ended) = tasks.join_next().await {
        tally.add(ended.expect("no panic"));
    }
    proxy.lose_nothing();
    tally
}

/// A store that keeps a history: the calls that were applied, write by write.
#[derive(Clone, Debug, Default)]
struct Recorded {
    store: MemoryStore,
    applied: Arc<Mutex<BTreeMap<String, Vec<Token>>>>,
}

impl Recorded {
    /// Of each circuit, how many writes applied a call; panics if one applied a call that had been applied.
    fn assert_that_no_call_was_applied_twice(&self) -> usize {
        let applied = self.applied.lock().expect("no panic before");
        for (circuit, tokens) in &*applied {
            let mut seen = BTreeSet::new();
            for token in tokens {
                assert!(seen.insert((token.node, token.sequence)), "{circuit}: {token:?} was applied twice");
            }
        }
        applied.values().map(Vec::len).sum()
    }
}

fn record_in(value: &[u8]) -> Record {
    Record::from_bytes(value).unwrap_or_else(|error| panic!("no record was stored: {error:?}"))
}

#[async_trait::async_trait]
impl Store for Recorded {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        self.store.load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        if !circuit.starts_with("run-") {
            // What a node writes after an outage to see whether the store writes.
            return self.store.swap(circuit, expected, value, ttl).await;
        }
        // The memory store answers without waiting, so no other task comes between the two.
        let before = self.store.load(circuit).await?.entry.map(|entry| record_in(&entry.value));
        let swapped = self.store.swap(circuit, expected, value, ttl).await?;
        if matches!(swapped, Swapped::Stored(_)) {
            let last = |record: &Record| record.applied.to_vec().pop().map(|call| call.token);
            let (before, after) = (before.as_ref().and_then(last), last(&record_in(value)));
            if let Some(token) = after.filter(|_| after != before) {
                let mut applied = self.applied.lock().expect("no panic before");
                applied.entry(circuit.to_owned()).or_default().push(token);
            }
        }
        Ok(swapped)
    }
}

/// Several nodes on one memory, each with a way to it that loses answers.
struct Fleet {
    recorded: Recorded,
    ways: Vec<FaultStore<Recorded>>,
    nodes: Vec<Factory>,
    changes: Arc<Mutex<Vec<(String, Change)>>>,
}

impl Fleet {
    async fn new(nodes: usize, settings: impl Fn() -> SettingsBuilder) -> Self {
        let recorded = Recorded::default();
        let changes = Arc::<Mutex<Vec<(String, Change)>>>::default();
        let mut fleet = Self { recorded, ways: Vec::new(), nodes: Vec::new(), changes };
        for _ in 0..nodes {
            let way = FaultStore::new(fleet.recorded.clone());
            let told = fleet.changes.clone();
            let settings = settings().store(way.clone()).state_change_callback(move |change| {
                let change = (change.circuit.to_owned(), Change::new(&change.transition, change.local));
                told.lock().expect("no panic before").push(change);
            });
            fleet.ways.push(way);
            fleet.nodes.push(factory(settings).await);
        }
        fleet
    }

    /// Lets answers get lost and come late from now on, in a way that `seed` stands for.
    fn begin_to_lose(&self, seed: u64) {
        for (index, way) in (0..).zip(&self.ways) {
            let late = Odds { delay: 300, delay_at_most: Duration::from_millis(5), ..Odds::default() };
            way.set_odds(Odds { lost_answer: 100, unavailable: 20, ..late }, seed * 16 + index);
        }
    }

    /// Ends it, and waits until nobody takes the store as down and nothing is left to be settled.
    async fn heal(&self) {
        for way in &self.ways {
            way.clear();
        }
        for node in &self.nodes {
            eventually("the store is taken as up", PATIENT, async || (!node.is_store_down()).then_some(()))
                .await;
        }
        // Time is paused, so this ends when every task of the fleet has come to rest.
        tokio::time::sleep(Duration::from_secs(10)).await;
    }

    fn breakers(&self, circuit: &str) -> Vec<Breaker> {
        self.nodes.iter().map(|node| node.breaker_for(circuit, &Context::new())).collect()
    }
}

const RUNS: u64 = 1_000;

#[tokio::test(start_paused = true)]
async fn in_1000_random_runs_no_outcome_is_counted_twice_or_lost() {
    let _turn = together().await;
    let fleet = Fleet::new(3, || patient().failure_count_threshold(u64::MAX)).await;
    let (mut exact, mut outcomes) = (0, 0);
    for seed in 0..RUNS {
        fleet.begin_to_lose(seed);
        let mut tasks = JoinSet::new();
        for breaker in fleet.breakers(&format!("run-{seed}")) {
            for task in 0..2 {
                let breaker = breaker.clone();
                tasks.spawn(async move {
                    let mut tally = Tally::default();
                    for index in 0..4 {
                        let outcome =
                            if (index + task) % 2 == 0 { Outcome::Success } else { Outcome::Failure };
                        tally.execute(&breaker, outcome).await;
                    }
                    tally
                });
            }
        }
        let mut tally = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            tally.add(ended.expect("no panic"));
        }
        fleet.heal().await;
        let breaker = &fleet.breakers(&format!("run-{seed}"))[0];
        let total = breaker.information().await.expect("information").counts.total;
        // An outcome is in doubt when its answer was lost as often as the call was tried.
        let possible = tally.accepted..=tally.accepted + tally.in_doubt;
        assert!(possible.contains(&total), "seed {seed}: {total} are stored of {tally:?}");
        exact += u64::from(tally.in_doubt == 0);
        outcomes += tally.accepted;
    }
    let writes = fleet.recorded.assert_that_no_call_was_applied_twice();
    println!("{exact} of {RUNS} runs without a doubt; {outcomes} outcomes in {writes} writes");
    assert!(exact >= RUNS * 3 / 4, "only {exact} runs show an exact total");
}

#[tokio::test(start_paused = true)]
async fn in_1000_random_runs_no_transition_is_announced_twice() {
    let _turn = together().await;
    let settings = || {
        let settings = patient().failure_count_threshold(1).close_threshold(2);
        settings.allow_after(Duration::from_millis(100)).probe_timeout(Duration::from_secs(1))
    };
    let fleet = Fleet::new(3, settings).await;
    let mut announced = 0;
    for seed in 0..RUNS {
        let circuit = format!("run-{seed}");
        fleet.begin_to_lose(seed);
        let mut tasks = JoinSet::new();
        for (node, breaker) in (0..).zip(fleet.breakers(&circuit)) {
            tasks.spawn(execute_until_the_end(breaker, fastrand::Rng::with_seed(seed * 16 + node)));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no panic");
        }
        fleet.heal().await;
        let mut changes = std::mem::take(&mut *fleet.changes.lock().expect("no panic before"));
        changes.retain(|(_, change)| !change.local);
        assert!(changes.iter().all(|(of, _)| *of == circuit), "seed {seed}");
        let eras: BTreeSet<u64> = changes.iter().map(|(_, change)| change.era).collect();
        assert_eq!(eras.len(), changes.len(), "seed {seed}: announced twice: {changes:?}");
        announced += changes.len();
        // What was announced has happened: the record has the last ones, or they are older than those that it has.
        let stored = fleet.breakers(&circuit)[0].information().await.expect("information").transitions;
        let oldest = if stored.len() == 8 { stored[0].era } else { 0 };
        for (_, change) in changes.iter().filter(|(_, change)| change.era >= oldest) {
            let kept = stored.iter().any(|kept| Change::new(kept, false) == *change);
            assert!(kept, "seed {seed}: {change:?} was announced and is not in {stored:?}");
        }
    }
    let writes = fleet.recorded.assert_that_no_call_was_applied_twice();
    println!("{announced} transitions were announced; {writes} writes applied a call");
    assert!(announced > RUNS as usize * 3, "only {announced} transitions");
}

/// Twelve attempts, half of which fail; a refused one comes back when it is told to.
async fn execute_until_the_end(breaker: Breaker, mut random: fastrand::Rng) {
    for _ in 0..12 {
        match breaker.start().await {
            Ok(permit) => {
                let outcome = if random.bool() { Outcome::Success } else { Outcome::Failure };
                permit.end(outcome).await.expect("settled");
            }
            Err(StartError::Refused(refusal)) => tokio::time::sleep(refusal.retry_after()).await,
            Err(error) => panic!("{error}"),
        }
    }
}
