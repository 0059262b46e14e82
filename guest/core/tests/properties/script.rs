//! One circuit, one caller after another: for tests that say each step.

use circuitry_core::record::{Override, OverrideKind, Probe, Record, State, Token, Transition};
use circuitry_core::request::{Disposition, Information, Operation, Permit, Refusal, Verdict};
use circuitry_core::{Answer, Completion, Decision, Entry, Error, Loaded, Outcome, Settings, decide};

use crate::hooks::NamedRules;
use crate::world::{caller, request};

/// A circuit in a store of its own.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) settings: Settings,
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) ttl: Option<u64>,
    pub(crate) now: u64,
    pub(crate) node: u64,
    pub(crate) sequence: u64,
}

/// What an `end` answers: what became of each completion, and what it changed.
pub(crate) type Settled = (Vec<Disposition>, Vec<Transition>);

impl Script {
    pub(crate) fn new(settings: Settings) -> Self {
        settings.check().unwrap();
        Self { settings, bytes: None, ttl: None, now: 1_800_000_000_000, node: 1, sequence: 0 }
    }

    /// One that is known, and closed.
    pub(crate) fn begun(settings: Settings) -> Self {
        let mut script = Self::new(settings);
        script.start().unwrap();
        script
    }

    pub(crate) fn try_ask(&mut self, operation: &Operation) -> Result<Answer, Error> {
        let entry = self.bytes.clone().map(|value| Entry { value, version: vec![] });
        let loaded = Loaded { entry, now_ms: None };
        match decide(&request(&self.settings, operation), &loaded, self.now, &mut NamedRules)? {
            Decision::Done(answer) => Ok(answer),
            Decision::Write(write) => {
                (self.bytes, self.ttl) = (Some(write.value), write.ttl_ms);
                Ok(write.answer_if_stored)
            }
        }
    }

    pub(crate) fn ask(&mut self, operation: &Operation) -> Answer {
        self.try_ask(operation).unwrap()
    }

    pub(crate) fn wait(&mut self, for_ms: u64) -> &mut Self {
        self.now = self.now.saturating_add(for_ms);
        self
    }

    pub(crate) fn next_call(&mut self) -> circuitry_core::Caller {
        self.sequence += 1;
        caller(self.node, self.sequence)
    }

    pub(crate) fn record(&self) -> Record {
        Record::from_bytes(self.bytes.as_ref().unwrap()).unwrap()
    }

    pub(crate) fn state(&self) -> State {
        self.record().status.state()
    }

    pub(crate) fn shown(&mut self) -> Information {
        match self.ask(&Operation::Inspect) {
            Answer::Inspected(information) => *information,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self) -> Result<Permit, Refusal> {
        let caller = self.next_call();
        match self.ask(&Operation::Start(caller)) {
            Answer::Started { verdict: Verdict::Permit(permit), .. } => Ok(permit),
            Answer::Started { verdict: Verdict::Refusal(refusal), .. } => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// A probe's place.
    pub(crate) fn probe(&mut self) -> Token {
        self.start().unwrap().probe.map(|Probe { id, .. }| id).unwrap()
    }

    pub(crate) fn end(&mut self, completions: &[Completion]) -> Settled {
        let caller = self.next_call();
        match self.ask(&Operation::End(caller, completions.to_vec())) {
            Answer::Settled { dispositions, transitions, .. } => (dispositions, transitions),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn completion(&self, probe: Option<Token>, outcome: Outcome, count: u32) -> Completion {
        let era = self.record().era;
        Completion { era, probe, outcome, slow: false, count, retry_after_ms: None }
    }

    /// Ends so many calls of a closed circuit.
    pub(crate) fn calls(&mut self, outcome: Outcome, slow: bool, count: u32) -> Settled {
        let completion = Completion { slow, ..self.completion(None, outcome, count) };
        self.end(&[completion])
    }

    pub(crate) fn failures(&mut self, count: u32) -> &mut Self {
        self.calls(Outcome::Failure, false, count);
        self
    }

    pub(crate) fn successes(&mut self, count: u32) -> &mut Self {
        self.calls(Outcome::Success, false, count);
        self
    }

    pub(crate) fn probe_ends(&mut self, probe: Token, outcome: Outcome) -> Settled {
        let completion = self.completion(Some(probe), outcome, 1);
        self.end(&[completion])
    }

    pub(crate) fn force(&mut self, kind: Option<OverrideKind>) {
        let set = |kind| Override { kind, author: "ops".into(), reason: "a drill".into(), until_ms: None };
        let caller = self.next_call();
        self.ask(&Operation::SetOverride(caller, kind.map(set)));
    }

    pub(crate) fn vote(&mut self, node_id: &str) -> Answer {
        let (caller, era) = (self.next_call(), self.record().era);
        self.ask(&Operation::Vote { caller, era, node_id: node_id.into() })
    }

    pub(crate) fn reset(&mut self) -> Answer {
        let caller = self.next_call();
        self.ask(&Operation::Reset(caller))
    }

    /// Waits as long as it takes for a probe's place.
    pub(crate) fn half_open(&mut self) -> Token {
        match self.start() {
            Ok(permit) => permit.probe.unwrap().id,
            Err(refusal) => self.wait(refusal.retry_after_ms).probe(),
        }
    }
}
