//! One worker process of the fleet's tests; `circuitry_tests::fleet` says what goes in and out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use circuitry::{Breaker, Context, Disposition, Factory, Outcome, Permit, StartError};
use circuitry_redis::RedisStore;
use circuitry_tests::fleet::{Change, HOLDING, LeaseEvent, Load, PATIENT, READY, Report, Task, Work};
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<()> {
    let task = std::env::args().nth(1).context("give the task as JSON")?;
    let task: Task = serde_json::from_str(&task).context("the task is not of the form that is expected")?;
    let store = RedisStore::builder()
        .prefix(&task.prefix)
        .operation_timeout(PATIENT)
        .connect(&task.redis_url)
        .await?;
    let changes = Arc::<Mutex<Vec<Change>>>::default();
    let told = changes.clone();
    let settings = task.settings().store(store).state_change_callback(move |change| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(Change::new(&change.transition, change.local));
    });
    let factory = Factory::new(settings.build()?).await?;
    let breaker = factory.breaker_for(&task.circuit, &Context::new());

    println!("{READY}");
    let mut line = String::new();
    if BufReader::new(stdin()).read_line(&mut line).await? == 0 {
        bail!("whoever started this process is gone");
    }
    match &task.work {
        Work::HoldProbe => hold_probe(&breaker).await,
        Work::Execute(load) => {
            let begun = Instant::now();
            let mut report = execute_all(&task, load, &breaker).await?;
            factory.flush().await?;
            report.took_ms = ms(begun.elapsed());
            report.changes = std::mem::take(&mut changes.lock().unwrap_or_else(PoisonError::into_inner));
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
    }
}

/// Waits for a probe as a worker does, then works until it is killed.
async fn hold_probe(breaker: &Breaker) -> Result<()> {
    loop {
        match breaker.start().await {
            Ok(permit) if permit.is_probe() => {
                println!("{HOLDING}");
                std::future::pending::<()>().await;
                drop(permit);
            }
            Ok(permit) => bail!("the circuit is closed: {permit:?}"),
            Err(StartError::Refused(refusal)) => tokio::time::sleep(refusal.retry_after()).await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn execute_all(task: &Task, load: &Load, breaker: &Breaker) -> Result<Report> {
    let mut tasks = JoinSet::new();
    for index in 0..load.tasks {
        // What does not divide evenly goes to the first tasks.
        let share = load.executions / load.tasks + u64::from(index < load.executions % load.tasks);
        let worker = Worker {
            breaker: breaker.clone(),
            log: Log::open(task, load).await?,
            random: random(load.seed.wrapping_mul(load.tasks) + index),
            load: load.clone(),
            report: Report::default(),
        };
        tasks.spawn(worker.run(share));
    }
    let mut report = Report::default();
    while let Some(done) = tasks.join_next().await {
        report.add(done??);
    }
    Ok(report)
}

/// A generator of its own for each task. Those whose seeds follow each other would draw numbers that avoid each other: together
/// they fail in a row less often than by chance.
fn random(seed: u64) -> fastrand::Rng {
    let mut seeds = fastrand::Rng::with_seed(seed);
    seeds.u64(..);
    fastrand::Rng::with_seed(seeds.u64(..))
}

/// One of the tasks that execute.
struct Worker {
    breaker: Breaker,
    log: Option<Log>,
    random: fastrand::Rng,
    load: Load,
    report: Report,
}

impl Worker {
    async fn run(mut self, executions: u64) -> Result<Report> {
        for _ in 0..executions {
            self.report.attempts += 1;
            let begun = Instant::now();
            let started = self.breaker.start().await;
            self.took(begun);
            match started {
                Ok(permit) => self.work(permit).await?,
                Err(StartError::Refused(_)) => {
                    self.report.refused += 1;
                    // It comes back too early, but not so often that a fast machine is done before the circuit heals.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => self.report.errors.push(error.to_string()),
            }
        }
        Ok(self.report)
    }

    /// The work takes the time that the load says, and a probe's that of its two entries in the log besides.
    async fn work(&mut self, permit: Permit) -> Result<()> {
        let drawn = self.random.u32(0..1000);
        let outcome = if drawn < self.load.failures_per_mille {
            Outcome::Failure
        } else if drawn < self.load.failures_per_mille + self.load.ignored_per_mille {
            Outcome::Ignored
        } else {
            Outcome::Success
        };
        if let (true, Some(era), Some(log)) = (permit.is_probe(), permit.era(), &mut self.log) {
            log.note(era, LeaseEvent::Begun).await?;
            let event =
                if outcome == Outcome::Success { LeaseEvent::Succeeded } else { LeaseEvent::Released };
            log.note(era, event).await?;
        }
        if self.load.work_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.load.work_ms)).await;
        }
        let begun = Instant::now();
        let ended = permit.end(outcome).await;
        self.took(begun);
        let settlement = match ended {
            Ok(settlement) => settlement,
            Err(error) => {
                self.report.errors.push(error.to_string());
                return Ok(());
            }
        };
        self.report.local += u64::from(settlement.local);
        match (settlement.disposition, outcome) {
            (Disposition::Unsettled, _) => self.report.unsettled += 1,
            (_, Outcome::Ignored) => self.report.ignored += 1,
            (Disposition::Accepted, Outcome::Success) => self.report.accepted_successes += 1,
            (Disposition::Accepted, Outcome::Failure) => self.report.accepted_failures += 1,
            (Disposition::Stale, _) => self.report.stale += 1,
            (other, _) => self.report.errors.push(format!("the outcome is {}", other.as_str())),
        }
        Ok(())
    }

    fn took(&mut self, begun: Instant) {
        self.report.slowest_ms = self.report.slowest_ms.max(ms(begun.elapsed()));
    }
}

/// The log of leases, by a connection of its own: it must not wait for the store's.
struct Log {
    connection: MultiplexedConnection,
    key: String,
}

impl Log {
    async fn open(task: &Task, load: &Load) -> Result<Option<Self>> {
        let Some(key) = load.lease_log.clone() else { return Ok(None) };
        let client = redis::Client::open(task.redis_url.as_str())?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENT));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Some(Self { connection, key }))
    }

    async fn note(&mut self, era: u64, event: LeaseEvent) -> Result<()> {
        let mut add = redis::cmd("XADD");
        add.arg(&self.key).arg("*").arg("era").arg(era).arg("event").arg(event.as_str());
        add.query_async::<String>(&mut self.connection).await?;
        Ok(())
    }
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
