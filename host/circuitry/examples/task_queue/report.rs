//! The end of a run: was every job finished once, and how did each tenant fare? As a table, or as JSON.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::event::{Change, Event};
use crate::options::Options;
use crate::queue::{Account, Census, Lease};

/// What the workers told.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By tenant, then by era: each change begins one.
    changes: BTreeMap<String, BTreeMap<u64, Change>>,
    announced_twice: Vec<String>,
    /// How many workers were told that they finished a job, by the job's id.
    finishers: BTreeMap<u64, u32>,
}

/// The report of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The run's name, as it is in the keys on Redis.
    run: String,
    jobs: u64,
    done: u64,
    /// The worker that was killed, with the job that it held.
    killed: Option<Killed>,
    tenants: Vec<Tenant>,
    /// What must not be. Empty: every job was finished exactly once.
    violations: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Killed {
    worker: u32,
    job: u64,
}

#[derive(Debug, Serialize)]
struct Tenant {
    tenant: String,
    jobs: u64,
    done: u64,
    /// Given back because the circuit refused.
    refused: u64,
    /// Given back because they failed.
    requeued: u64,
    /// Delivered again because their worker was gone.
    redelivered: u64,
    /// From the push until the attempt that did the job.
    wait_p50_ms: u64,
    wait_p99_ms: u64,
    transitions: Vec<Change>,
}

impl History {
    /// Notes what counts at the end.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            // A worker that lost the store keeps a record of its own; it is not the shared circuit's history.
            Event::StateChanged { tenant, change, local: false, .. } => {
                let changes = self.changes.entry(tenant.clone()).or_default();
                if changes.insert(change.era, change.clone()).is_some() {
                    let Change { from, to, .. } = change;
                    self.announced_twice.push(format!("{tenant}: {from} → {to} was announced twice"));
                }
            }
            Event::Finished { job, .. } => *self.finishers.entry(*job).or_default() += 1,
            Event::StateChanged { .. }
            | Event::Ready { .. }
            | Event::Redelivered { .. }
            | Event::Trouble { .. } => {}
        }
    }

    /// Adds what the circuit's record tells: a worker that was killed may have taken the news along.
    pub(crate) fn recorded(&mut self, tenant: &str, transitions: &[circuitry::Transition]) {
        let changes = self.changes.entry(tenant.to_owned()).or_default();
        for &transition in transitions {
            changes.entry(transition.era).or_insert_with(|| transition.into());
        }
    }
}

impl Report {
    /// Judges a run.
    pub(crate) fn new(
        run: &str,
        options: &Options,
        accounts: &[Account],
        census: Census,
        history: &History,
        killed: Option<Lease>,
    ) -> Result<Self> {
        let jobs = options.jobs;
        let tenants = options.tenant_names();
        let tenants: Result<Vec<_>> =
            tenants.iter().map(|name| Tenant::new(name, accounts, history)).collect();
        Ok(Self {
            run: run.to_owned(),
            jobs,
            done: accounts.iter().filter(|account| account.receipt.is_some()).count() as u64,
            killed: killed.map(|lease| Killed { worker: lease.worker, job: lease.job }),
            tenants: tenants?,
            violations: violations(jobs, accounts, census, history),
        })
    }

    /// Whether every job was finished exactly once.
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// The report for programs.
    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

/// What must not be. The queue's books are held against what was pushed and against what the workers were told.
fn violations(jobs: u64, accounts: &[Account], census: Census, history: &History) -> Vec<String> {
    let mut violations = Vec::new();
    let books: BTreeMap<u64, &Account> = accounts.iter().map(|account| (account.job.id, account)).collect();
    for id in 1..=jobs {
        match books.get(&id).map(|account| account.receipt) {
            None => violations.push(format!("job {id} is lost")),
            Some(None) => violations.push(format!("job {id} is not finished")),
            Some(Some(_)) => {}
        }
        let finishers = history.finishers.get(&id).copied().unwrap_or(0);
        if finishers > 1 {
            violations.push(format!("job {id} was finished {finishers} times"));
        }
    }
    for id in books.keys().filter(|id| !(1..=jobs).contains(*id)) {
        violations.push(format!("job {id} was never pushed"));
    }
    let left = census.ready + census.delayed + census.leased;
    if left > 0 && census.done == jobs {
        violations.push(format!("{left} jobs are finished and still in the queue"));
    }
    violations.extend(history.announced_twice.iter().cloned());
    violations
}

impl Tenant {
    fn new(name: &str, accounts: &[Account], history: &History) -> Result<Self> {
        let own = || accounts.iter().filter(|account| account.job.tenant == name);
        let mut waits = Histogram::<u64>::new(3)?;
        for receipt in own().filter_map(|account| account.receipt) {
            waits.record(receipt.waited_ms)?;
        }
        Ok(Self {
            tenant: name.to_owned(),
            jobs: own().count() as u64,
            done: waits.len(),
            refused: own().map(|account| account.refused).sum(),
            requeued: own().map(|account| account.failed).sum(),
            redelivered: own().map(|account| account.redelivered).sum(),
            wait_p50_ms: waits.value_at_quantile(0.5),
            wait_p99_ms: waits.value_at_quantile(0.99),
            transitions: history
                .changes
                .get(name)
                .map(|changes| changes.values().cloned().collect())
                .unwrap_or_default(),
        })
    }

    /// The states that the circuit went through.
    fn path(&self) -> String {
        let states = self.transitions.iter().map(|change| change.to.as_str());
        match self.transitions.first() {
            Some(first) => std::iter::once(first.from.as_str()).chain(states).collect::<Vec<_>>().join(" → "),
            None => "–".to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.tenants.iter().map(|tenant| tenant.tenant.len()).max().unwrap_or(0).max(6);
        writeln!(
            formatter,
            "{:<width$}  jobs  done  refused  requeued  redelivered  wait p50  wait p99  transitions",
            "tenant"
        )?;
        for tenant in &self.tenants {
            let Tenant { tenant: name, jobs, done, refused, requeued, redelivered, .. } = tenant;
            let (p50, p99) = (span(tenant.wait_p50_ms), span(tenant.wait_p99_ms));
            let path = tenant.path();
            writeln!(
                formatter,
                "{name:<width$}  {jobs:>4}  {done:>4}  {refused:>7}  {requeued:>8}  {redelivered:>11}  {p50:>8}  {p99:>8}  {path}"
            )?;
        }
        writeln!(formatter)?;
        if self.is_good() {
            return write!(formatter, "every one of the {} jobs was finished exactly once", self.jobs);
        }
        const SHOWN: usize = 10;
        writeln!(formatter, "this must not be:")?;
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(formatter, "  {violation}")?;
        }
        write!(formatter, "{} in all; {} of {} jobs are done", self.violations.len(), self.done, self.jobs)
    }
}

fn span(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}
