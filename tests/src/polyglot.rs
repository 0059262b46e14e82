//! What a worker of a mixed fleet is told and what it answers, as JSON: the same for the worker in each language.
//!
//! A worker gets its [`Task`] as its only argument. It prints `ready` when it has a breaker, then answers each
//! [`Command`] on its standard input, one a line and in their order, with one [`Answer`], and ends with its input.

use serde::{Deserialize, Serialize};

use crate::fleet::{Change, PATIENT};

/// Which circuit a worker shares, on what Redis. It decides strictly; what is not said here is by default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The server.
    pub redis_url: String,
    /// Of the store's keys.
    pub prefix: String,
    /// The circuit's name, as it is.
    pub circuit: String,
    /// The setting of that name.
    pub failure_count_threshold: u64,
    /// The setting of that name.
    pub close_threshold: u32,
    /// The setting of that name, in milliseconds.
    pub allow_after_ms: u64,
    /// The setting of that name, in milliseconds.
    pub probe_timeout_ms: u64,
}

impl Task {
    /// The settings that it asks for, without a store.
    pub fn settings(&self) -> circuitry::SettingsBuilder {
        let ms = std::time::Duration::from_millis;
        circuitry::Settings::builder()
            .consistency(circuitry::Consistency::Strict)
            .failure_count_threshold(self.failure_count_threshold)
            .close_threshold(self.close_threshold)
            .allow_after(ms(self.allow_after_ms))
            .probe_timeout(ms(self.probe_timeout_ms))
            .store_timeout(PATIENT)
    }
}

/// What a worker is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Ask for a permit and keep it.
    Start {},
    /// Settle a permit that was kept.
    End {
        /// Its number, as it was answered.
        id: u64,
        /// `success`, `failure` or `ignored`.
        outcome: String,
    },
    /// Show the circuit.
    Inspect {},
    /// Start and end many times.
    Execute(Load),
}

/// How much to execute. A start that is refused waits for 5 ms and is one execution too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// How many tasks, or threads, execute at once.
    pub tasks: u64,
    /// How many executions they try together.
    pub executions: u64,
    /// How many of a thousand permits end with a failure.
    pub failures_per_mille: u32,
    /// Of the outcomes.
    pub seed: u64,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To a start that was admitted.
    Permit {
        /// The number to end it by.
        id: u64,
        /// Its era.
        era: u64,
        /// Whether it is a probe.
        probe: bool,
    },
    /// To a start that was refused.
    Refused {
        /// Why, by its name.
        reason: String,
        /// When to come back, in milliseconds.
        retry_after_ms: u64,
    },
    /// To an end.
    Settled {
        /// What became of it, by its name.
        disposition: String,
        /// Whether it was the process's own record.
        local: bool,
    },
    /// To a look.
    Information(Information),
    /// To a load.
    Report(Report),
    /// It failed.
    Error(String),
}

/// The circuit as a worker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "what each is, is said in wit/types.wit")]
pub struct Information {
    pub state: String,
    pub era: u64,
    pub generation: u64,
    pub revision: u64,
    pub counts: Counts,
}

/// The counts of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "what each is, is said in wit/types.wit")]
pub struct Counts {
    pub total: u64,
    pub total_successes: u64,
    pub total_failures: u64,
    pub consecutive_successes: u64,
    pub consecutive_failures: u64,
}

/// What became of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How often a start was asked for.
    pub attempts: u64,
    /// Of these, starts that were refused.
    pub refused: u64,
    /// Permits whose success was accepted.
    pub accepted_successes: u64,
    /// Permits whose failure was accepted.
    pub accepted_failures: u64,
    /// Permits whose outcome was stale.
    pub stale: u64,
    /// Permits whose outcome was not settled in time.
    pub unsettled: u64,
    /// Permits that were settled by the process's own record.
    pub local: u64,
    /// Calls that failed, with the error.
    pub errors: Vec<String>,
    /// What the state-change callback was told since the last report.
    pub changes: Vec<Change>,
}

impl Report {
    /// Adds what another task or worker has to say.
    pub fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.refused += other.refused;
        self.accepted_successes += other.accepted_successes;
        self.accepted_failures += other.accepted_failures;
        self.stale += other.stale;
        self.unsettled += other.unsettled;
        self.local += other.local;
        self.errors.extend(other.errors);
        self.changes.extend(other.changes);
    }
}
