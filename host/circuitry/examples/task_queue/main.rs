//! A multi-tenant worker pool in which each tenant's jobs sit behind that tenant's circuit.
//!
//! ```text
//! cargo run --example task_queue
//! cargo run --example task_queue -- --redis redis://127.0.0.1:6379 --kill-a-worker
//! ```
//!
//! Several workers take jobs of many tenants from one queue. After a while the upstream of one tenant fails, slowly: each
//! try holds a worker for the whole timeout. After a few of them its circuit opens, **for all workers**: from then on its
//! jobs go back to the queue at once, with the delay that the refusal names, and the workers' time goes to the other
//! tenants. When the open time is over the circuit lets two probes through; when they succeed it closes, and the jobs
//! that have come back are done.
//!
//! Without options the workers are tasks of this process, jobs and circuits are in memory, and there is no server. With
//! `--redis` they are processes, and both are on that server; then a worker can be killed in the middle of a job, which
//! comes back when its lease ends. At the end every job was finished exactly once, or the exit code says otherwise.
//!
//! - [`worker`]: what you would write yourself: take a job, `execute` it, say what became of it
//! - [`queue`]: the queue, in memory and on Redis
//! - [`shared`]: the queue and the store of the circuits; [`fleet`]: the workers; [`producer`]: where jobs come from;
//!   [`upstream`]: where they go
//! - [`progress`], [`report`]: what you see; [`options`]: what you can choose; [`event`]: what workers tell

mod event;
mod fleet;
mod options;
mod producer;
mod progress;
mod queue;
mod report;
mod shared;
mod upstream;
mod worker;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use circuitry::{Context, Factory};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use fleet::Fleet;
use options::{Options, Role};
use producer::produce;
use progress::Progress;
use queue::Lease;
use report::{History, Report};
use shared::{CIRCUIT, Shared};

/// How long after the last job and the end of the trouble everything must be done.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the queue is asked whether all is done; a line is shown for each second.
const LOOKS_A_SECOND: u32 = 10;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::read();
    // The library's own warnings, such as a store that is down.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    let run = match &options.role {
        Some(Role::Worker { run, .. }) => run.clone(),
        None => format!("task-queue-{:016x}", fastrand::u64(..)),
    };
    let shared = match &options.redis {
        Some(url) => Shared::on_redis(url, &run).await?,
        None => Shared::in_memory(),
    };
    if let Some(Role::Worker { number, .. }) = options.role {
        fleet::work(number, &options, &shared).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = conduct(&options, &shared, &run).await;
    shared.remove(&options.tenant_names()).await?;
    let report = report?;
    if options.json {
        println!("{}", report.to_json()?);
    } else {
        println!("\n{report}");
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole run: starts the workers, pushes the jobs, watches until all are done, stops the workers, reports.
async fn conduct(options: &Options, shared: &Shared, run: &str) -> Result<Report> {
    let (events, mut told) = mpsc::unbounded_channel();
    let mut progress = Progress::new(options);
    let mut history = History::default();
    progress.opening(options);
    let mut fleet = match options.redis {
        Some(_) => Fleet::of_processes(options, run, &events).await?,
        None => Fleet::of_tasks(options, shared, &events).await?,
    };
    drop(events);

    progress.begin();
    let begun = Instant::now();
    let all_pushed_at = begun + options.jobs_come_for();
    let deadline = all_pushed_at.max(begun + options.fails().end) + options.open_for + PATIENCE;
    let producer = tokio::spawn(produce(options.clone(), shared.queue.clone()));
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut looks = interval(Duration::from_secs(1) / LOOKS_A_SECOND);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut killed: Option<Lease> = None;
    for look in 1_u32.. {
        loop {
            select! {
                Some(event) = told.recv() => {
                    progress.event(&event);
                    history.event(&event);
                }
                interrupted = &mut interrupt => { interrupted?; bail!("interrupted") }
                _ = looks.tick() => break,
            }
        }
        let census = shared.queue.census().await;
        let is_over =
            census.as_ref().is_ok_and(|census| census.done == options.jobs) || Instant::now() > deadline;
        if look.is_multiple_of(LOOKS_A_SECOND) || is_over {
            progress.second(census);
        }
        if is_over {
            break;
        }
        fleet.gone()?.iter().for_each(|worker| progress.gone(worker));
        if options.kill_a_worker && killed.is_none() && Instant::now() > begun + options.jobs_come_for() / 2 {
            let lease = fleet.kill_one_at_work(&*shared.queue).await?;
            progress.killed(lease);
            killed = Some(lease);
        }
    }
    producer.abort();
    fleet.stop().await?;
    while let Some(event) = told.recv().await {
        progress.event(&event);
        history.event(&event);
    }

    // The circuits' own records, as anybody with the store can read them.
    let factory = Factory::new(worker::settings(options, shared).build()?).await?;
    for tenant in options.tenant_names() {
        let information = factory.breaker_for(CIRCUIT, &Context::tenant(&tenant)).information().await?;
        history.recorded(&tenant, &information.transitions);
    }
    let (accounts, census) = (shared.queue.accounts().await?, shared.queue.census().await?);
    Report::new(options, &accounts, census, &history, killed)
}
