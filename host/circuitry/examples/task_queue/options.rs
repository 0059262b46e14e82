//! The command line.

use std::ops::Range;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// The first tenants' names; further ones are numbered.
const NAMES: [&str; 10] =
    ["acme", "birch", "cobalt", "dune", "ember", "fjord", "grove", "harbor", "iris", "juniper"];

/// A multi-tenant worker pool behind circuits: one tenant's upstream fails for a while, the others keep their pace.
#[derive(Clone, Debug, Parser)]
#[command(name = "task_queue", override_usage = "task_queue [OPTIONS]")]
#[command(disable_help_subcommand = true)]
pub(crate) struct Options {
    /// How many workers take jobs, one job at a time each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// How many tenants there are; they take turns in random order.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) tenants: u32,
    /// How many jobs there are in all.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) jobs: u64,
    /// How many jobs come in a second.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rate: u32,
    /// The tenant whose upstream fails.
    #[arg(long, value_name = "TENANT", default_value = NAMES[0])]
    pub(crate) failing_tenant: String,
    /// When it begins to fail, after the first job.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub(crate) fail_from: Duration,
    /// For how long it fails; 0 for a day without trouble.
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = seconds)]
    pub(crate) fail_for: Duration,
    /// How long a circuit stays open before it lets a probe through.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub(crate) open_for: Duration,
    /// Keep jobs and circuits on this server, and run the workers as processes: redis://127.0.0.1:6379
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Kill -9 a worker process half-way, in the middle of a job. Only with --redis.
    #[arg(long, requires = "redis")]
    pub(crate) kill_a_worker: bool,
    /// Gives the order of the tenants and the upstreams' delays.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the report as JSON on stdout, and the progress on stderr.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// What this process is, if not the one that a person started.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Role {
    /// A worker of a run on Redis.
    #[command(hide = true)]
    Worker { number: u32, run: String },
}

impl Options {
    /// Reads the command line; ends the process with a message where it is wrong.
    pub(crate) fn read() -> Self {
        let options = Self::parse();
        let tenants = options.tenant_names();
        let problem = if !tenants.contains(&options.failing_tenant) {
            let known = tenants.iter().take(NAMES.len()).cloned().collect::<Vec<_>>().join(", ");
            format!("there is no tenant {:?} in this run; there are: {known}", options.failing_tenant)
        } else if options.open_for.is_zero() {
            "--open-for must be more than 0".to_owned()
        } else if options.kill_a_worker && options.workers < 2 {
            "--kill-a-worker leaves nobody to do the jobs: give --workers 2 or more".to_owned()
        } else {
            return options;
        };
        Self::command().error(ErrorKind::ValueValidation, problem).exit()
    }

    pub(crate) fn tenant_names(&self) -> Vec<String> {
        (0..self.tenants as usize)
            .map(|index| {
                NAMES.get(index).map_or_else(|| format!("tenant-{}", index + 1), |&name| name.into())
            })
            .collect()
    }

    /// When the failing tenant's upstream fails, after the beginning of the run.
    pub(crate) fn fails(&self) -> Range<Duration> {
        self.fail_from..self.fail_from.saturating_add(self.fail_for)
    }

    /// How long it takes until all jobs have come in.
    pub(crate) fn jobs_come_for(&self) -> Duration {
        Duration::from_secs(self.jobs) / self.rate
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds, such as 2 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(length) if length <= Duration::from_secs(24 * 3600) => Ok(length),
        _ => Err("give 0 to 86400 seconds".to_owned()),
    }
}
