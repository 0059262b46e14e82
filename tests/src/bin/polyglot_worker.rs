//! The Rust worker of a mixed fleet; `circuitry_tests::polyglot` says what goes in and out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use circuitry::{Breaker, Context, Disposition, Factory, Outcome, Permit, StartError};
use circuitry_redis::RedisStore;
use circuitry_tests::fleet::{Change, PATIENT, READY};
use circuitry_tests::polyglot::{Answer, Command, Counts, Information, Load, Report, Task};
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
    let settings = task.settings().store(store).name_fn(|name, _| name.to_owned()).state_change_callback(
        move |change| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.push(Change::new(&change.transition, change.local));
        },
    );
    let factory = Factory::new(settings.build()?).await?;
    let breaker = factory.breaker_for(&task.circuit, &Context::new());
    let mut worker = Worker { breaker, changes, permits: HashMap::new(), next: 1 };

    println!("{READY}");
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match worker.answer(&line).await {
            Ok(answer) => answer,
            Err(error) => Answer::Error(format!("{error:#}")),
        };
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

struct Worker {
    breaker: Breaker,
    changes: Arc<Mutex<Vec<Change>>>,
    permits: HashMap<u64, Permit>,
    next: u64,
}

impl Worker {
    async fn answer(&mut self, line: &str) -> Result<Answer> {
        Ok(match serde_json::from_str(line)? {
            Command::Start {} => match self.breaker.start().await {
                Ok(permit) => {
                    let (id, era, probe) = (self.next, permit.era().context("no era")?, permit.is_probe());
                    self.next += 1;
                    self.permits.insert(id, permit);
                    Answer::Permit { id, era, probe }
                }
                Err(StartError::Refused(refusal)) => Answer::Refused {
                    reason: refusal.reason().as_str().into(),
                    retry_after_ms: refusal.retry_after().as_millis().try_into()?,
                },
                Err(error) => return Err(error.into()),
            },
            Command::End { id, outcome } => {
                let outcome = match outcome.as_str() {
                    "success" => Outcome::Success,
                    "failure" => Outcome::Failure,
                    "ignored" => Outcome::Ignored,
                    other => bail!("no outcome is called {other:?}"),
                };
                let permit = self.permits.remove(&id).context("no such permit")?;
                let settlement = permit.end(outcome).await?;
                Answer::Settled {
                    disposition: settlement.disposition.as_str().into(),
                    local: settlement.local,
                }
            }
            Command::Inspect {} => {
                let information = self.breaker.information().await?;
                let counts = information.counts;
                Answer::Information(Information {
                    state: information.state.to_string(),
                    era: information.era,
                    generation: information.generation,
                    revision: information.revision,
                    counts: Counts {
                        total: counts.total,
                        total_successes: counts.total_successes,
                        total_failures: counts.total_failures,
                        consecutive_successes: counts.consecutive_successes,
                        consecutive_failures: counts.consecutive_failures,
                    },
                })
            }
            Command::Execute(load) => Answer::Report(self.execute(&load).await?),
        })
    }

    async fn execute(&self, load: &Load) -> Result<Report> {
        let mut tasks = JoinSet::new();
        for index in 0..load.tasks {
            let share = load.executions / load.tasks + u64::from(index < load.executions % load.tasks);
            let (breaker, failures) = (self.breaker.clone(), load.failures_per_mille);
            let mut random = fastrand::Rng::with_seed(load.seed.wrapping_mul(1_000_003).wrapping_add(index));
            tasks.spawn(async move {
                let mut report = Report::default();
                for _ in 0..share {
                    let outcome =
                        if random.u32(0..1000) < failures { Outcome::Failure } else { Outcome::Success };
                    execute_once(&breaker, outcome, &mut report).await;
                }
                report
            });
        }
        let mut report = Report::default();
        while let Some(done) = tasks.join_next().await {
            report.add(done?);
        }
        report.changes = std::mem::take(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(report)
    }
}

async fn execute_once(breaker: &Breaker, outcome: Outcome, report: &mut Report) {
    report.attempts += 1;
    let permit = match breaker.start().await {
        Ok(permit) => permit,
        Err(StartError::Refused(_)) => {
            report.refused += 1;
            return tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(error) => return report.errors.push(error.to_string()),
    };
    match permit.end(outcome).await {
        Ok(settlement) => {
            report.local += u64::from(settlement.local);
            match (settlement.disposition, outcome) {
                (Disposition::Accepted, Outcome::Success) => report.accepted_successes += 1,
                (Disposition::Accepted, _) => report.accepted_failures += 1,
                (Disposition::Stale, _) => report.stale += 1,
                (Disposition::Unsettled, _) => report.unsettled += 1,
                (other, _) => report.errors.push(format!("the outcome is {}", other.as_str())),
            }
        }
        Err(error) => report.errors.push(error.to_string()),
    }
}
