//! What a call costs: round trips to the store, by Redis' own statistics and by a store that counts.

use std::collections::BTreeMap;

use circuitry::{Breaker, Context, Disposition, MemoryStore, Outcome, StartError};
use circuitry_store::fault::FaultStore;
use redis::aio::MultiplexedConnection;

use crate::servers::{OwnRedis, factory, own_name, patient, plain, redis_store, run};
use crate::turns::together;

/// How often the server has run each command.
#[derive(Debug)]
pub(crate) struct Commands(BTreeMap<String, u64>);

impl Commands {
    pub(crate) async fn since_reset(connection: &mut MultiplexedConnection) -> Self {
        let info: String = run(connection, &["INFO", "commandstats"]).await;
        let counted = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let (calls, _) = figures.split_once(',')?;
            Some((name.to_owned(), calls.parse().expect("a number")))
        };
        Self(info.lines().filter_map(counted).collect())
    }

    pub(crate) async fn reset(connection: &mut MultiplexedConnection) {
        let done: String = run(connection, &["CONFIG", "RESETSTAT"]).await;
        assert_eq!(done, "OK");
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Those that a client has sent: the statistics also count what a script calls, and the script of a swap calls
    /// each of these once.
    pub(crate) fn sent(&self, name: &str) -> u64 {
        self.of(name) - self.of("evalsha") - self.of("eval")
    }

    /// Everything that clients have sent, but for this test's own questions.
    fn all_sent(&self) -> u64 {
        let own = ["info", "config|resetstat"];
        let in_the_script = ["hset", "pexpire"];
        let others = self.0.iter().filter(|(name, _)| {
            !own.contains(&name.as_str())
                && !in_the_script.contains(&name.as_str())
                && !["hmget", "time"].contains(&name.as_str())
        });
        others.map(|(_, calls)| calls).sum::<u64>() + self.sent("hmget") + self.sent("time")
    }
}

async fn execute(breaker: &Breaker) {
    let settled = breaker.start().await.expect("a permit").end(Outcome::Success).await.expect("settled");
    assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, false));
}

async fn trip(breaker: &Breaker) {
    while let Ok(permit) = breaker.start().await {
        permit.end(Outcome::Failure).await.expect("settled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_a_start_is_one_command_and_an_end_is_one() {
    let _turn = together().await;
    const EXECUTIONS: u64 = 200;
    let redis = OwnRedis::start().await;
    let mut server = plain(&redis.url()).await;
    let worker = factory(patient().store(redis_store(&redis.url(), &own_name()).await)).await;
    let jobs = worker.breaker_for("jobs", &Context::new());
    execute(&jobs).await;

    Commands::reset(&mut server).await;
    for _ in 0..EXECUTIONS {
        execute(&jobs).await;
    }
    let commands = Commands::since_reset(&mut server).await;
    assert_eq!(commands.sent("hmget"), EXECUTIONS, "a start is one HMGET: {commands:?}");
    assert_eq!(commands.of("evalsha"), EXECUTIONS, "an end is one EVALSHA: {commands:?}");
    // The swaps tell the time too, so a load has to ask for it only after ten seconds without one.
    assert_eq!(commands.sent("time"), 0, "{commands:?}");
    assert_eq!(commands.all_sent(), 2 * EXECUTIONS, "and nothing else is sent: {commands:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_a_refusal_is_one_command() {
    let _turn = together().await;
    let redis = OwnRedis::start().await;
    let mut server = plain(&redis.url()).await;
    let worker = factory(patient().store(redis_store(&redis.url(), &own_name()).await)).await;
    let jobs = worker.breaker_for("jobs", &Context::new());
    trip(&jobs).await;

    Commands::reset(&mut server).await;
    for _ in 0..100 {
        assert!(matches!(jobs.start().await, Err(StartError::Refused(_))));
    }
    let commands = Commands::since_reset(&mut server).await;
    assert_eq!((commands.sent("hmget"), commands.all_sent()), (100, 100), "{commands:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_a_lost_race_costs_no_read() {
    let _turn = together().await;
    const RACES: u64 = 100;
    let redis = OwnRedis::start().await;
    let mut server = plain(&redis.url()).await;
    let prefix = own_name();
    let mut workers = Vec::new();
    for _ in 0..2 {
        let worker = factory(patient().store(redis_store(&redis.url(), &prefix).await)).await;
        workers.push(worker.breaker_for("jobs", &Context::new()));
    }
    let [winner, loser] = &workers[..] else { panic!("two of them") };
    execute(winner).await;
    execute(loser).await;

    Commands::reset(&mut server).await;
    for _ in 0..RACES {
        let late = loser.start().await.expect("a permit");
        execute(winner).await;
        // What the loser has seen is not the newest any more.
        let settled = late.end(Outcome::Success).await.expect("settled");
        assert_eq!((settled.disposition, settled.local), (Disposition::Accepted, false));
    }
    let commands = Commands::since_reset(&mut server).await;
    assert_eq!(commands.sent("hmget"), 2 * RACES, "the starts, and nothing for the races: {commands:?}");
    assert_eq!(commands.of("evalsha"), 3 * RACES, "a lost race is one swap more: {commands:?}");
    assert_eq!(commands.all_sent(), 5 * RACES, "{commands:?}");
    let counts = winner.information().await.expect("information").counts;
    assert_eq!(counts.total, 2 * RACES + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_the_time_is_asked_for_by_the_first_load_only() {
    let _turn = together().await;
    let redis = OwnRedis::start().await;
    let mut server = plain(&redis.url()).await;
    let prefix = own_name();
    let writer = factory(patient().store(redis_store(&redis.url(), &prefix).await)).await;
    execute(&writer.breaker_for("jobs", &Context::new())).await;
    let reader = factory(patient().store(redis_store(&redis.url(), &prefix).await)).await;
    let reader = reader.breaker_for("jobs", &Context::new());

    Commands::reset(&mut server).await;
    for _ in 0..50 {
        drop(reader.start().await.expect("a permit"));
    }
    let commands = Commands::since_reset(&mut server).await;
    assert_eq!((commands.sent("hmget"), commands.sent("time")), (50, 1), "{commands:?}");
}

#[tokio::test]
async fn a_start_is_one_load_and_an_end_is_one_swap() {
    let _turn = together().await;
    let store = FaultStore::new(MemoryStore::new());
    let worker = factory(patient().store(store.clone())).await;
    let jobs = worker.breaker_for("jobs", &Context::new());
    let counted = || (store.loads(), store.swaps());

    // The first start on a circuit stores its era before a permit goes out.
    let first = jobs.start().await.expect("a permit");
    assert_eq!(counted(), (1, 1));
    first.end(Outcome::Success).await.expect("settled");
    assert_eq!(counted(), (1, 2));
    for executed in 1..=100 {
        execute(&jobs).await;
        assert_eq!(counted(), (1 + executed, 2 + executed));
    }
    let (loads, swaps) = counted();
    jobs.information().await.expect("information");
    assert_eq!(counted(), (loads + 1, swaps), "reading does not write");
    drop(jobs.start().await.expect("a permit"));
    assert_eq!(counted(), (loads + 2, swaps), "what is ignored on a closed circuit is settled by nobody");
    trip(&jobs).await;
    let (loads, swaps) = counted();
    assert!(matches!(jobs.start().await, Err(StartError::Refused(_))));
    assert_eq!(counted(), (loads + 1, swaps), "a refusal does not write");
}

#[tokio::test]
async fn a_lost_race_is_one_swap_more_and_no_load() {
    let _turn = together().await;
    let store = FaultStore::new(MemoryStore::new());
    let (winner, loser) =
        (factory(patient().store(store.clone())).await, factory(patient().store(store.clone())).await);
    let (winner, loser) =
        (winner.breaker_for("jobs", &Context::new()), loser.breaker_for("jobs", &Context::new()));
    execute(&winner).await;
    let late = loser.start().await.expect("a permit");
    execute(&winner).await;
    let (loads, swaps) = (store.loads(), store.swaps());
    late.end(Outcome::Success).await.expect("settled");
    assert_eq!((store.loads(), store.swaps()), (loads, swaps + 2));
}
