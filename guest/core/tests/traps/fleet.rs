//! One circuit in a store of one entry, with callers that use it. Time stands still unless a test moves it.

use std::collections::VecDeque;

use circuitry_core::exchange::{Store, StoreError};
use circuitry_core::record::{Override, OverrideKind, Record, State, Token, Transition};
use circuitry_core::request::{Disposition, Information, Operation, Permit, RefusalReason, Verdict};
use circuitry_core::{
    Answer, Caller, Completion, Entry, Error, Failure, Hooks, Loaded, Outcome, Request, Settings, Swapped,
    TripQuery, TripRule, run,
};

/// The most rules need one second of these.
pub(crate) const BEGIN_MS: u64 = 1_800_000_000_000;

pub(crate) fn settings() -> Settings {
    Settings {
        failure_count_threshold: 0,
        close_threshold: 1,
        allow_after_ms: 60_000,
        cyclic_clear_after_ms: None,
        probe_timeout_ms: 10_000,
        idle_retention_ms: 86_400_000,
        trip_rules: vec![TripRule::CONSECUTIVE_FAILURES],
        ..Settings::default()
    }
}

/// What the store does instead of a swap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It writes, and the answer is lost.
    AnswerLost,
    /// Neither arrives.
    WriteLost,
    Unavailable,
    /// Another write of the same value comes first.
    Race,
}

/// A store of one entry.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) entry: Option<Entry>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) clock_ms: Option<u64>,
    pub(crate) down: bool,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) loads: u32,
    pub(crate) swaps: u32,
    versions: u32,
}

impl Memory {
    fn loaded(&self) -> Loaded {
        Loaded { entry: self.entry.clone(), now_ms: self.clock_ms }
    }

    fn put(&mut self, value: Vec<u8>) -> Vec<u8> {
        self.versions += 1;
        let version = self.versions.to_be_bytes().to_vec();
        self.entry = Some(Entry { value, version: version.clone() });
        version
    }
}

impl Store for Memory {
    fn load(&mut self, _: &str) -> Result<Loaded, StoreError> {
        self.loads += 1;
        if self.down { Err(StoreError::Unavailable("down".into())) } else { Ok(self.loaded()) }
    }

    fn swap(
        &mut self,
        _: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, StoreError> {
        self.swaps += 1;
        let fault = self.faults.pop_front();
        match fault {
            Some(Fault::WriteLost) => return Err(StoreError::Unknown("timeout".into())),
            Some(Fault::Unavailable) => return Err(StoreError::Unavailable("throttled".into())),
            Some(Fault::Race) => {
                let same = self.entry.take().map_or_else(|| value.to_vec(), |entry| entry.value);
                self.put(same);
            }
            Some(Fault::AnswerLost) | None => {}
        }
        if self.entry.as_ref().map(|entry| entry.version.as_slice()) != expected {
            return Ok(Swapped::Conflict(self.loaded()));
        }
        self.ttl_ms = ttl_ms;
        let version = self.put(value.to_vec());
        if matches!(fault, Some(Fault::AnswerLost)) {
            return Err(StoreError::Unknown("timeout".into()));
        }
        Ok(Swapped::Stored { version, now_ms: self.clock_ms })
    }
}

/// The custom rule: trips at so many failures in all.
#[derive(Default)]
pub(crate) struct Questions {
    pub(crate) asked: u32,
    pub(crate) trips_at: u64,
}

impl Hooks for Questions {
    fn will_trip(&mut self, query: &TripQuery<'_>) -> bool {
        self.asked += 1;
        query.counts.total_failures >= self.trips_at
    }
}

pub(crate) struct Settled {
    pub(crate) dispositions: Vec<Disposition>,
    pub(crate) already_applied: bool,
    pub(crate) transitions: Vec<Transition>,
}

pub(crate) struct Fleet {
    pub(crate) store: Memory,
    pub(crate) settings: Settings,
    pub(crate) questions: Questions,
    pub(crate) now_ms: u64,
    calls: u64,
}

impl Fleet {
    pub(crate) fn new(settings: Settings) -> Self {
        let questions = Questions { asked: 0, trips_at: u64::MAX };
        Self { store: Memory::default(), settings, questions, now_ms: BEGIN_MS, calls: 0 }
    }

    /// A fleet whose circuit has just tripped, with the permit that did it.
    pub(crate) fn tripped(settings: Settings) -> (Self, Permit) {
        let mut fleet = Self::new(settings);
        let permit = fleet.permit();
        for _ in 0..=fleet.settings.failure_count_threshold {
            fleet.end(permit, Outcome::Failure);
        }
        assert_eq!(fleet.state(), State::Open);
        (fleet, permit)
    }

    /// A fleet whose circuit was tripped and may be probed now, with the permit that tripped it.
    pub(crate) fn to_be_probed(settings: Settings) -> (Self, Permit) {
        let (mut fleet, permit) = Self::tripped(settings);
        fleet.now_ms += fleet.settings.allow_after_ms;
        (fleet, permit)
    }

    /// A call that nobody has made before.
    pub(crate) fn caller(&mut self) -> Caller {
        self.calls += 1;
        Caller { token: Token { node: 1, sequence: self.calls }, retry_of: None }
    }

    pub(crate) fn request(&self, operation: Operation) -> Request {
        Request { circuit: "upstream".into(), settings: self.settings.clone(), operation }
    }

    pub(crate) fn call(&mut self, operation: Operation) -> Result<Answer, Failure> {
        self.call_knowing(None, operation).map(|(answer, _)| answer)
    }

    pub(crate) fn call_knowing(
        &mut self,
        known: Option<Loaded>,
        operation: Operation,
    ) -> Result<(Answer, Loaded), Failure> {
        run(&self.request(operation), known, self.now_ms, &mut self.store, &mut self.questions)
    }

    pub(crate) fn seen(&self) -> Loaded {
        self.store.loaded()
    }

    pub(crate) fn record(&self) -> Record {
        Record::from_bytes(&self.store.entry.as_ref().unwrap().value).unwrap()
    }

    /// Stores what no call of these has led to.
    pub(crate) fn put(&mut self, record: &Record) {
        self.store.put(record.to_bytes());
    }

    /// Stores the record as schema 1 had it: without settings, so that those of the next caller count.
    pub(crate) fn forget_settings(&mut self) {
        let record = Record { in_force: None, ..self.record() };
        self.put(&record);
    }

    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) {
        self.store.put(bytes.to_vec());
    }

    pub(crate) fn start(&mut self) -> Verdict {
        let caller = self.caller();
        self.start_as(caller)
    }

    pub(crate) fn start_as(&mut self, caller: Caller) -> Verdict {
        let Answer::Started { verdict, .. } = self.call(Operation::Start(caller)).unwrap() else { panic!() };
        verdict
    }

    pub(crate) fn permit(&mut self) -> Permit {
        match self.start() {
            Verdict::Permit(permit) => permit,
            refusal => panic!("no permit but {refusal:?}"),
        }
    }

    /// The permit of a probe.
    pub(crate) fn probe(&mut self) -> Permit {
        let permit = self.permit();
        assert!(permit.probe.is_some(), "the permit is no probe's");
        permit
    }

    pub(crate) fn refusal(&mut self) -> (RefusalReason, u64) {
        match self.start() {
            Verdict::Refusal(refusal) => (refusal.reason, refusal.retry_after_ms),
            permit => panic!("no refusal but {permit:?}"),
        }
    }

    /// Settles `permit` and says whether it was accepted.
    pub(crate) fn end(&mut self, permit: Permit, outcome: Outcome) -> bool {
        let settled = self.settle(&[of(permit, outcome, 1)]);
        assert!(!settled.already_applied);
        settled.dispositions[0] == Disposition { accepted: 1, stale: 0 }
    }

    pub(crate) fn settle(&mut self, completions: &[Completion]) -> Settled {
        let caller = self.caller();
        self.settle_as(caller, completions).unwrap()
    }

    pub(crate) fn settle_as(
        &mut self,
        caller: Caller,
        completions: &[Completion],
    ) -> Result<Settled, Failure> {
        match self.call(Operation::End(caller, completions.to_vec()))? {
            Answer::Settled { dispositions, already_applied, transitions } => {
                Ok(Settled { dispositions, already_applied, transitions })
            }
            other => panic!("{other:?} is no answer to an end"),
        }
    }

    pub(crate) fn renew(&mut self, permit: Permit) -> Option<u64> {
        let operation = Operation::Renew {
            caller: self.caller(),
            era: permit.era,
            probes: vec![permit.probe.unwrap().id],
        };
        let Answer::Renewed(deadlines) = self.call(operation).unwrap() else { panic!() };
        assert_eq!(deadlines.len(), 1);
        deadlines[0]
    }

    pub(crate) fn force(&mut self, kind: OverrideKind, until_ms: Option<u64>) -> Result<Answer, Failure> {
        let wanted = Override { kind, author: "ops".into(), reason: "an incident".into(), until_ms };
        let caller = self.caller();
        self.call(Operation::SetOverride(caller, Some(wanted)))
    }

    pub(crate) fn reset(&mut self) {
        let caller = self.caller();
        let Answer::Cleared { .. } = self.call(Operation::Reset(caller)).unwrap() else { panic!() };
    }

    /// Casts a node's vote and says whether it counts, and how many do.
    pub(crate) fn vote(&mut self, node_id: &str) -> (bool, u32) {
        let (caller, era) = (self.caller(), self.information().era);
        match self.call(Operation::Vote { caller, era, node_id: node_id.into() }).unwrap() {
            Answer::Voted { accepted, votes, .. } => (accepted, votes),
            other => panic!("{other:?} is no answer to a vote"),
        }
    }

    pub(crate) fn information(&mut self) -> Information {
        let Answer::Inspected(information) = self.call(Operation::Inspect).unwrap() else { panic!() };
        *information
    }

    pub(crate) fn state(&mut self) -> State {
        self.information().state
    }
}

pub(crate) fn of(permit: Permit, outcome: Outcome, count: u32) -> Completion {
    let probe = permit.probe.map(|probe| probe.id);
    Completion { era: permit.era, probe, outcome, slow: false, count, retry_after_ms: None }
}

/// Why a call failed.
pub(crate) fn error<T>(result: Result<T, Failure>) -> Error {
    match result {
        Ok(_) => panic!("the call went well"),
        Err(failure) => failure.error,
    }
}

pub(crate) fn again(caller: Caller, failure: &Failure) -> Caller {
    Caller { retry_of: failure.revision, ..caller }
}
