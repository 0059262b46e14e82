//! What the run shows while it runs: a line for each thing that happens, and one each second.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Instant;

use crate::event::Event;
use crate::options::Options;
use crate::queue::{Census, Lease};

/// Writes lines, each with the time since the first job.
pub(crate) struct Progress {
    begun: Instant,
    to_stderr: bool,
    has_colors: bool,
    /// The newest state of each circuit that changed, with its era: processes do not tell in order.
    states: BTreeMap<String, (u64, String)>,
    lines: u32,
}

impl Progress {
    pub(crate) fn new(options: &Options) -> Self {
        let is_terminal = if options.json { stderr().is_terminal() } else { stdout().is_terminal() };
        let has_colors = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self { begun: Instant::now(), to_stderr: options.json, has_colors, states: BTreeMap::new(), lines: 0 }
    }

    /// Says what the run will be.
    pub(crate) fn opening(&self, options: &Options) {
        let Options { workers, tenants, jobs, rate, failing_tenant, .. } = options;
        let place = match options.redis {
            None => "tasks of this process, with jobs and circuits in memory",
            Some(_) => "processes, with jobs and circuits on Redis",
        };
        self.write(&format!("{workers} workers: {place}"));
        self.write(&format!("{jobs} jobs of {tenants} tenants, {rate} a second"));
        if !options.fail_for.is_zero() {
            let fails = options.fails();
            let (from, until) = (fails.start.as_secs_f32(), fails.end.as_secs_f32());
            self.write(&format!("the upstream of {failing_tenant} fails from second {from} to {until}"));
        }
    }

    /// Says that the workers are ready, and begins to count the time anew.
    pub(crate) fn begin(&mut self) {
        self.write(&format!("the workers were ready after {:.1} s\n", self.begun.elapsed().as_secs_f32()));
        self.begun = Instant::now();
    }

    /// A line for what has happened, if it is worth one.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Ready { .. } | Event::Finished { .. } => {}
            Event::StateChanged { worker, tenant, change, local } => {
                let newest = self.states.entry(tenant.clone()).or_default();
                if !local && change.era > newest.0 {
                    *newest = (change.era, change.to.clone());
                }
                let (from, to) = (self.colored(&change.from), self.colored(&change.to));
                let local = if *local { ", in this worker only: the store is down" } else { "" };
                self.line(&format!("{tenant}: {from} → {to}, {}, by worker {worker}{local}", change.reason));
            }
            Event::Redelivered { worker, job, tenant } => {
                self.line(&format!(
                    "job {job} of {tenant} is delivered again, to worker {worker}: its lease had ended"
                ));
            }
            Event::Trouble { worker, problem } => self.line(&format!("worker {worker}: {problem}")),
        }
    }

    /// That a worker was killed.
    pub(crate) fn killed(&self, lease: &Lease) {
        self.line(&format!("worker {} is killed with job {} in its hands", lease.worker, lease.job));
    }

    /// That a worker ended by itself, or by somebody else's hand.
    pub(crate) fn gone(&self, worker: &str) {
        self.line(worker);
    }

    /// The line of a second.
    pub(crate) fn second(&mut self, census: Result<Census, anyhow::Error>) {
        // The heading comes back before it is out of sight.
        if self.lines.is_multiple_of(20) {
            self.write(
                "   time     done  refused  requeued  redelivered │ ready  delayed  in work │ not closed",
            );
        }
        self.lines += 1;
        match census {
            Ok(Census { ready, delayed, leased, done, refused, failed, redelivered }) => {
                let changed =
                    self.states.iter().filter(|(_, (_, state))| state != "closed" && !state.is_empty());
                let states = changed.map(|(tenant, (_, state))| format!("{tenant} {}", self.colored(state)));
                let states = states.collect::<Vec<_>>().join(", ");
                self.line(&format!(
                    "{done:>6}  {refused:>7}  {failed:>8}  {redelivered:>11} │ {ready:>5}  {delayed:>7}  {leased:>7} │ {states}"
                ));
            }
            Err(error) => self.line(&format!("the queue does not answer: {error:#}")),
        }
    }

    fn line(&self, text: &str) {
        self.write(&format!("{:>5.1} s  {text}", self.begun.elapsed().as_secs_f32()));
    }

    fn write(&self, line: &str) {
        // Whoever closed the pipe wants to read no more.
        let _ = if self.to_stderr { writeln!(stderr(), "{line}") } else { writeln!(stdout(), "{line}") };
    }

    fn colored(&self, state: &str) -> String {
        let color = match state {
            "closed" => 32,
            "open" => 31,
            _ => 33,
        };
        if self.has_colors { format!("\x1b[{color}m{state}\x1b[0m") } else { state.to_owned() }
    }
}
