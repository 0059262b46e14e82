//! What the core said: every record it wrote and every decision it took, each once, known by a number. So a state of the world
//! is small, and a decision that many interleavings share is taken, and examined, once.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use circuitry_core::record::Record;
use circuitry_core::request::{Permit, Verdict};
use circuitry_core::{Answer, Decision, Entry, Error, Hooks, Loaded, Settings, TripQuery, decide};

use crate::calls::{BEGIN_MS, Named, Offset};
use crate::config::Config;
use crate::mixing::{Mixer, Mixing};
use crate::{recovery, rules};

/// What a search says that should not be.
pub(crate) type Broken = String;

/// There are no custom rules here.
pub(crate) struct NoHooks;

impl Hooks for NoHooks {
    fn will_trip(&mut self, _: &TripQuery<'_>) -> bool {
        unreachable!("no rule is custom")
    }
}

/// What was decided.
#[derive(Clone, Debug)]
pub(crate) enum Ruling {
    Done(Answer),
    Write { record: u32, based_on: u16, answer: Answer },
    Failed(Error),
}

impl Ruling {
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Done(answer) | Self::Write { answer, .. } => Some(answer),
            Self::Failed(_) => None,
        }
    }
}

/// All that a decision depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Case {
    named: Named,
    retry_of: Option<u16>,
    record: Option<u32>,
    now: Offset,
}

struct Kept {
    entry: Entry,
    record: Record,
    in_force: Settings,
}

pub(crate) struct Archive {
    pub(crate) config: Config,
    numbers: HashMap<Vec<u8>, u32>,
    records: Vec<Kept>,
    cases: HashMap<Case, u32, Mixing>,
    rulings: Vec<Ruling>,
    /// Of each ruling a hash of its answer.
    answers: Vec<u64>,
    /// Records at a moment from which there is a way out, without what can have no part in it.
    ways_out: HashSet<(Vec<u8>, Offset)>,
    examined: HashSet<(u32, Offset), Mixing>,
}

impl Archive {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            numbers: HashMap::new(),
            records: vec![],
            cases: HashMap::default(),
            rulings: vec![],
            answers: vec![],
            ways_out: HashSet::new(),
            examined: HashSet::default(),
        }
    }

    pub(crate) fn record(&self, number: u32) -> &Record {
        &self.records[number as usize].record
    }

    /// How many probes a half-open phase has by the settings in force, and how many of them at once.
    pub(crate) fn limits(&self, number: u32) -> (u32, u32) {
        let settings = &self.records[number as usize].in_force;
        (settings.probes(), settings.probes_at_once())
    }

    pub(crate) fn ruling(&self, number: u32) -> &Ruling {
        &self.rulings[number as usize]
    }

    /// A hash of a ruling's answer, which is the same in every search.
    pub(crate) fn answer(&self, ruling: u32) -> u64 {
        self.answers[ruling as usize]
    }

    /// How many records and decisions there are.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.records.len(), self.rulings.len())
    }

    pub(crate) fn rulings(&self) -> &[Ruling] {
        &self.rulings
    }

    /// Asks the core, or remembers what it said.
    pub(crate) fn rule(
        &mut self,
        named: Named,
        retry_of: Option<u16>,
        record: Option<u32>,
        now: Offset,
    ) -> Result<u32, Broken> {
        let case = Case { named, retry_of, record, now };
        if let Some(number) = self.cases.get(&case) {
            return Ok(*number);
        }
        let request = named.request(&self.config, retry_of);
        let entry = record.map(|record| self.records[record as usize].entry.clone());
        let decided =
            decide(&request, &Loaded { entry, now_ms: None }, BEGIN_MS + u64::from(now), &mut NoHooks);
        let ruling = match decided {
            Ok(Decision::Done(answer)) => Ruling::Done(answer),
            Ok(Decision::Write(write)) => Ruling::Write {
                record: self.keep(write.value)?,
                based_on: u16::try_from(write.based_on).unwrap(),
                answer: write.answer_if_stored,
            },
            Err(error) => Ruling::Failed(error),
        };
        let of = |number: u32| {
            let Kept { record, in_force, .. } = &self.records[number as usize];
            rules::Stood { record, in_force }
        };
        let old = record.map(of);
        let new = match &ruling {
            Ruling::Write { record, .. } => Some(of(*record)),
            Ruling::Done(_) | Ruling::Failed(_) => None,
        };
        let step =
            rules::Decided { config: &self.config, named, retry_of, now_ms: BEGIN_MS + u64::from(now) };
        step.check(old, &ruling, new).map_err(|broken| {
            format!("{broken}\n  asked: {named:?}, retry of {retry_of:?}, at +{now} ms\n  on: {old:?}\n  new: {new:?}\n  ruling: {ruling:?}")
        })?;
        let number = u32::try_from(self.rulings.len()).unwrap();
        let mut hasher = Mixer::default();
        format!("{:?}", ruling.answer().cloned().map(without_names)).hash(&mut hasher);
        self.answers.push(hasher.finish());
        self.rulings.push(ruling);
        self.cases.insert(case, number);
        Ok(number)
    }

    /// The number of a record that the core wrote. It has to read it again as it is.
    fn keep(&mut self, bytes: Vec<u8>) -> Result<u32, Broken> {
        if let Some(number) = self.numbers.get(&bytes) {
            return Ok(*number);
        }
        let record = Record::from_bytes(&bytes).map_err(|error| {
            format!("property 6: the core wrote a record that it does not read: {error:?}")
        })?;
        if record.to_bytes() != bytes {
            return Err(format!(
                "property 6: a record becomes another one when it is read and written: {record:?}"
            ));
        }
        let in_force = rules::in_force(&record)?;
        let number = u32::try_from(self.records.len()).unwrap();
        let entry = Entry { value: bytes.clone(), version: vec![] };
        self.records.push(Kept { entry, record, in_force });
        self.numbers.insert(bytes, number);
        Ok(number)
    }

    /// Looks at a record that is in the store at a moment: it can be shown, and there is a way out.
    pub(crate) fn examine(&mut self, number: u32, now: Offset) -> Result<(), Broken> {
        if !self.examined.insert((number, now)) {
            return Ok(());
        }
        let Kept { entry, record, in_force } = &self.records[number as usize];
        let now_ms = BEGIN_MS + u64::from(now);
        recovery::check_shown(in_force, entry, record, now_ms)?;
        // Who called before, and how often, has no part in a recovery; so most records are alike.
        let mut alike = record.clone();
        (alike.revision, alike.era, alike.generation) = (1, 1, 0);
        alike.transitions.clear();
        alike.applied = Default::default();
        if self.ways_out.insert((alike.to_bytes(), now)) {
            recovery::check_way_out(in_force, entry, now_ms)
                .map_err(|broken| format!("{broken}\n  from {record:?} at +{now} ms"))?;
        }
        Ok(())
    }
}

/// An answer without the number of the process that asked, which is all that it says of anybody.
fn without_names(mut answer: Answer) -> Answer {
    match &mut answer {
        Answer::Started { transitions, .. }
        | Answer::Settled { transitions, .. }
        | Answer::Voted { transitions, .. }
        | Answer::Cleared { transitions, .. } => {
            transitions.iter_mut().for_each(|transition| transition.by.node = 0);
        }
        Answer::Renewed(_) | Answer::Inspected(_) | Answer::Overridden { .. } => {}
    }
    if let Answer::Started { verdict: Verdict::Permit(Permit { probe: Some(probe), .. }), .. } = &mut answer {
        probe.id.node = 0;
    }
    answer
}
