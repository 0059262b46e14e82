//! The composed breaker as the program of a user calls it: it repeats what the contract says to repeat.

#![allow(clippy::result_large_err, reason = "the shape of the error is the one of wit/")]

use std::time::Duration;

use serde_json::json;

use super::host::Running;
use crate::contract::{
    Caller, Completion, Disposition, Error, Failure, Information, Loaded, Outcome, Permit, Settings, Settled,
    Started, StoreError, Verdict,
};

const BREAKER: &str = "circuitry:breaker/breaker@0.1.0";

/// Races that one call may lose in a row; more is a store that never lets anybody win.
const TRIES: u32 = 10_000;

/// A handle on one circuit.
pub struct Breaker {
    running: Running,
    circuit: String,
    settings: Settings,
    node: u64,
    sequence: u64,
}

impl Breaker {
    /// One of the node `node` that closes a circuit with one probe, and opens it for a minute with the failure that comes
    /// after `failures` in a row.
    ///
    /// # Panics
    /// Never: the settings are of the contract.
    pub fn new(running: Running, circuit: &str, node: u64, failures: u64) -> Self {
        let settings = serde_json::from_value(json!({
            "failure-count-threshold": failures,
            "close-threshold": 1,
            "allow-after-ms": 60_000,
            "probe-timeout-ms": 30_000,
            "idle-retention-ms": 86_400_000,
        }));
        let settings = settings.expect("settings");
        Self { running, circuit: circuit.into(), settings, node, sequence: 0 }
    }

    /// The instance.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Another instance in the place of the one before.
    pub fn replace(&mut self, running: Running) {
        self.running = running;
    }

    /// Asks to begin work.
    ///
    /// # Errors
    /// What cannot be repeated.
    pub fn start(&mut self) -> Result<Verdict, Failure> {
        let (circuit, settings) = (self.circuit.clone(), self.settings.clone());
        let started: Started = self.call("start", |caller, now_ms| {
            (circuit.clone(), settings.clone(), caller, None::<Loaded>, now_ms)
        })?;
        Ok(started.verdict)
    }

    /// Settles a permit.
    ///
    /// # Errors
    /// What cannot be repeated.
    ///
    /// # Panics
    /// Where the answer is not one disposition.
    pub fn end(&mut self, permit: &Permit, outcome: Outcome) -> Result<Disposition, Failure> {
        let probe = permit.probe.map(|probe| probe.id);
        let completion =
            Completion { era: permit.era, probe, outcome, slow: false, count: 1, retry_after_ms: None };
        let (circuit, settings) = (self.circuit.clone(), self.settings.clone());
        let settled: Settled = self.call("end", |caller, now_ms| {
            (circuit.clone(), settings.clone(), caller, None::<Loaded>, vec![completion], now_ms)
        })?;
        let [disposition] = settled.dispositions[..] else { panic!("one completion, and {settled:?}") };
        Ok(disposition)
    }

    /// Looks at the circuit.
    ///
    /// # Errors
    /// Where there is no answer.
    pub fn inspect(&mut self) -> Result<Information, Failure> {
        let now_ms = self.now_ms();
        let parameters = (&*self.circuit, &self.settings, None::<Loaded>, now_ms);
        let (answer,): (Result<(Information, Loaded), Failure>,) =
            self.running.call(BREAKER, "inspect", parameters);
        answer.map(|(information, _)| information)
    }

    fn now_ms(&mut self) -> u64 {
        (self.running.world().now_ms)()
    }

    /// One call, with a token of its own: again after a lost race, and after a swap of which nobody knows.
    fn call<P, R>(&mut self, name: &str, parameters: impl Fn(Caller, u64) -> P) -> Result<R, Failure>
    where
        P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower,
        R: wasmtime::component::Lift + wasmtime::component::ComponentType + 'static,
    {
        self.sequence += 1;
        let mut caller = Caller { node: self.node, sequence: self.sequence, retry_of: None };
        for _ in 0..TRIES {
            let now_ms = self.now_ms();
            let (answer,): (Result<(R, Loaded), Failure>,) =
                self.running.call(BREAKER, name, parameters(caller, now_ms));
            match answer {
                Ok((answer, _)) => return Ok(answer),
                Err(Failure {
                    error: Error::Contention | Error::Store(StoreError::Unavailable(_)), ..
                }) => {}
                Err(Failure { error: Error::Store(StoreError::Unknown(_)), revision, .. }) => {
                    caller.retry_of = caller.retry_of.into_iter().chain(revision).min();
                }
                Err(failure) => return Err(failure),
            }
            std::thread::sleep(Duration::from_micros(fastrand::u64(..500)));
        }
        panic!("{name} has lost {TRIES} races in a row")
    }
}
