//! The workers: tasks of this process, or processes that run this very program again.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::event::{Event, Events};
use crate::options::Options;
use crate::queue::{Lease, Queue};
use crate::shared::Shared;
use crate::worker::Worker;

/// A dev build compiles the circuit's component when a process starts; a busy machine takes its time for it.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
/// A job in hand is brought to its end.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// The workers of a run.
pub(crate) enum Fleet {
    /// Tasks of this process, and the word to stop.
    Tasks(JoinSet<()>, watch::Sender<bool>),
    /// Processes, by their worker's number. Each stops when its stdin is closed: also when this process is gone.
    Processes { children: BTreeMap<u32, Child> },
}

impl Fleet {
    /// Starts tasks.
    pub(crate) async fn of_tasks(options: &Options, shared: &Shared, events: &Events) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 1..=options.workers {
            let worker = Worker::new(number, options, shared, events.clone()).await?;
            tasks.spawn(worker.run(stopped.clone()));
        }
        Ok(Self::Tasks(tasks, stop))
    }

    /// Starts processes, and waits until all of them can work.
    pub(crate) async fn of_processes(options: &Options, run: &str, events: &Events) -> Result<Self> {
        let mut starting = Vec::new();
        for number in 1..=options.workers {
            starting.push((number, spawn(number, run)?));
        }
        let mut children = BTreeMap::new();
        for (number, child) in starting {
            children.insert(number, ready(number, child, events.clone()).await?);
        }
        Ok(Self::Processes { children })
    }

    /// Kills a worker that holds a job, as the system does when memory runs out, and says which job. `None` when no
    /// worker was at work just now.
    ///
    /// It is halted first: a job takes milliseconds, and one that was done in the meantime would be no loss.
    pub(crate) async fn kill_one_at_work(&mut self, queue: &dyn Queue) -> Result<Option<Lease>> {
        let Self::Processes { children } = self else { bail!("a task cannot be killed: use --redis") };
        for Lease { worker, .. } in queue.leases().await? {
            let Some(child) = children.get_mut(&worker) else { continue };
            signal(child, Signal::STOP)?;
            // What it had sent before is on its way: the server does that before it answers the second question.
            queue.leases().await?;
            let held = queue.leases().await?.into_iter().find(|lease| lease.worker == worker);
            if held.is_some() {
                child.kill().await?;
                children.remove(&worker);
                return Ok(held);
            }
            signal(child, Signal::CONT)?;
        }
        Ok(None)
    }

    /// The workers that have ended since it was last asked, though nobody told them to. The others go on without them.
    ///
    /// # Errors
    /// When no worker is left.
    pub(crate) fn gone(&mut self) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        let is_empty = match self {
            Self::Tasks(tasks, _) => {
                while let Some(Err(panicked)) = tasks.try_join_next() {
                    gone.push(format!("a worker is gone: {panicked}"));
                }
                tasks.is_empty()
            }
            Self::Processes { children } => {
                children.retain(|number, child| match child.try_wait() {
                    Ok(Some(status)) => {
                        gone.push(format!("worker {number} is gone: {status}"));
                        false
                    }
                    Ok(None) | Err(_) => true,
                });
                children.is_empty()
            }
        };
        ensure!(!is_empty, "no worker is left: {}", gone.join(", "));
        Ok(gone)
    }

    /// Lets the workers finish what they have in hand, and end.
    pub(crate) async fn stop(self) -> Result<()> {
        match self {
            Self::Tasks(mut tasks, stop) => {
                // They are gone already if nobody hears it.
                let _ = stop.send(true);
                while timeout(STOPS_WITHIN, tasks.join_next())
                    .await
                    .context("a worker does not stop")?
                    .is_some()
                {}
            }
            Self::Processes { mut children } => {
                for child in children.values_mut() {
                    drop(child.stdin.take());
                }
                for (number, child) in &mut children {
                    let ended = timeout(STOPS_WITHIN, child.wait()).await;
                    ended.with_context(|| format!("worker {number} does not stop"))??;
                }
            }
        }
        Ok(())
    }
}

/// Runs this program again, with the same options, as a worker of `run`.
fn spawn(number: u32, run: &str) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["worker", &number.to_string(), run])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("worker {number} does not start"))
}

/// Halts a worker, or lets it go on.
fn signal(child: &Child, signal: Signal) -> Result<()> {
    let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok(kill_process(process.context("the worker is gone")?, signal)?)
}

/// Waits until the worker says that it can work; from then on its events go to `events`.
async fn ready(number: u32, mut child: Child, events: Events) -> Result<Child> {
    let stdout = child.stdout.take().context("the worker's stdout is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let first = timeout(STARTS_WITHIN, lines.next_line()).await;
    match first.with_context(|| format!("worker {number} is not ready within {STARTS_WITHIN:?}"))?? {
        Some(line) if matches!(serde_json::from_str(&line), Ok(Event::Ready { .. })) => {}
        Some(line) => bail!("worker {number} does not say that it is ready, but {line:?}"),
        None => bail!("worker {number} ended before it was ready"),
    }
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            // A worker that is killed may leave half a line.
            if let Ok(event) = serde_json::from_str(&line)
                && events.send(event).is_err()
            {
                return;
            }
        }
    });
    Ok(child)
}

/// What a worker process does: works until its stdin is closed, and writes its events to stdout.
pub(crate) async fn work(number: u32, options: &Options, shared: &Shared) -> Result<()> {
    let (events, mut told) = mpsc::unbounded_channel();
    let writer = tokio::spawn(async move {
        while let Some(event) = told.recv().await {
            println!("{}", serde_json::to_string(&event)?);
        }
        anyhow::Ok(())
    });
    let (stop, stopped) = watch::channel(false);
    // A thread, because a read of stdin cannot be called off.
    std::thread::spawn(move || {
        // However it ends, nobody is there any more to work for.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        stop.send(true)
    });
    let worker = Worker::new(number, options, shared, events.clone()).await?;
    events.send(Event::Ready { worker: number })?;
    drop(events);
    worker.run(stopped).await;
    writer.await?
}
