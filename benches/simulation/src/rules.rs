//! The state machine, called: all that a simulated process decides, it decides here.

use std::fmt::Write as _;
use std::mem;

use circuitry_core::exchange::decide;
use circuitry_core::record::{Record, Token};
use circuitry_core::request::Operation;
use circuitry_core::{
    Caller, Completion, Decision, Entry, Error, Hooks, Loaded, Request, Settings, TripQuery,
};

/// What a store has for a circuit, or what a process made of it. The first version, 0, is that there is nothing.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) version: u64,
    pub(crate) loaded: Loaded,
}

impl Stored {
    pub(crate) fn nothing() -> Self {
        Self { version: 0, loaded: Loaded::default() }
    }

    pub(crate) fn new(version: u64, value: Vec<u8>) -> Self {
        let entry = Entry { value, version: Vec::new() };
        Self { version, loaded: Loaded { entry: Some(entry), now_ms: None } }
    }

    /// The record in it, if there is one.
    ///
    /// # Errors
    /// [`Broken`] where the bytes are no record.
    pub(crate) fn record(&self) -> Result<Option<Record>, Broken> {
        let record = self.loaded.entry.as_ref().map(|entry| Record::from_bytes(&entry.value));
        record.transpose().map_err(|error| Broken(format!("{error:?}")))
    }
}

/// The state machine denied an answer, which it does for bad arguments and damaged records only: the simulation is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the simulation is wrong: {0}")]
pub struct Broken(pub(crate) String);

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self(format!("{error:?}"))
    }
}

/// No rule of the simulated settings is custom.
struct NoHooks;

impl Hooks for NoHooks {
    fn will_trip(&mut self, _: &TripQuery<'_>) -> bool {
        false
    }
}

/// Simulated time begins here, in milliseconds since the Unix epoch.
const BEGINS_AT_MS: u64 = 1_800_000_000_000;

/// The core with a request that is used again and again.
pub(crate) struct Rules {
    request: Request,
}

impl Rules {
    pub(crate) fn new(settings: &Settings) -> Self {
        let operation = Operation::Inspect;
        Self { request: Request { circuit: String::new(), settings: settings.clone(), operation } }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.request.settings
    }

    /// Asks to begin work.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) fn start(
        &mut self,
        circuit: u32,
        token: Token,
        stored: &Stored,
        now_us: u64,
    ) -> Result<Decision, Broken> {
        self.request.operation = Operation::Start(Caller { token, retry_of: None });
        self.decide(circuit, stored, now_us)
    }

    /// Settles permits; `completions` are as they were afterwards.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) fn end(
        &mut self,
        circuit: u32,
        token: Token,
        completions: &mut Vec<Completion>,
        stored: &Stored,
        now_us: u64,
    ) -> Result<Decision, Broken> {
        let caller = Caller { token, retry_of: None };
        self.request.operation = Operation::End(caller, mem::take(completions));
        let decision = self.decide(circuit, stored, now_us);
        if let Operation::End(_, taken) = &mut self.request.operation {
            *completions = mem::take(taken);
        }
        decision
    }

    fn decide(&mut self, circuit: u32, stored: &Stored, now_us: u64) -> Result<Decision, Broken> {
        self.request.circuit.clear();
        // Writing to a text does not fail.
        let _ = write!(self.request.circuit, "jobs/{circuit}");
        Ok(decide(&self.request, &stored.loaded, BEGINS_AT_MS + now_us / 1_000, &mut NoHooks)?)
    }
}
