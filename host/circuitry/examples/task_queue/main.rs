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
//! - [`watch`], [`progress`], [`report`]: what you see; [`options`]: what you can choose; [`event`]: what workers tell

mod event;
mod fleet;
mod options;
mod producer;
mod progress;
mod queue;
mod report;
mod shared;
mod upstream;
mod watch;
mod worker;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use anyhow::Result;
use circuitry::{Context, Factory};
use tokio::sync::mpsc;

use fleet::Fleet;
use options::{Options, Role};
use producer::produce;
use report::Report;
use shared::{CIRCUIT, Shared};
use watch::Watch;

#[tokio::main]
async fn main() -> ExitCode {
    match play(Options::read()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the role that the options name; says whether all is well.
async fn play(options: Options) -> Result<bool> {
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
        return Ok(true);
    }
    let report = conduct(&options, &shared, &run).await;
    shared.remove(&options.tenant_names()).await?;
    let report = report?;
    if options.json {
        println!("{}", report.to_json()?);
    } else {
        println!("\n{report}");
    }
    Ok(report.is_good())
}

/// The whole run: starts the workers, pushes the jobs, watches until all are done, stops the workers, reports.
async fn conduct(options: &Options, shared: &Shared, run: &str) -> Result<Report> {
    let (events, told) = mpsc::unbounded_channel();
    let mut watch = Watch::new(options, told);
    let mut fleet = match options.redis {
        Some(_) => Fleet::of_processes(options, run, &events).await?,
        None => Fleet::of_tasks(options, shared, &events).await?,
    };
    drop(events);
    let producer = tokio::spawn(produce(options.clone(), shared.queue.clone()));
    let killed = watch.until_done(&mut fleet, &*shared.queue).await?;
    producer.abort();
    fleet.stop().await?;
    let mut history = watch.history().await;

    // The circuits' own records, as anybody with the store can read them.
    let factory = Factory::new(worker::settings(options, shared).build()?).await?;
    for tenant in options.tenant_names() {
        let information = factory.breaker_for(CIRCUIT, &Context::tenant(&tenant)).information().await?;
        history.recorded(&tenant, &information.transitions);
    }
    let (accounts, census) = (shared.queue.accounts().await?, shared.queue.census().await?);
    Report::new(run, options, &accounts, census, &history, killed)
}
