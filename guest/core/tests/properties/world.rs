//! A store that keeps every entry it ever had, in the core's bytes and as the model, and callers that use it.

use circuitry_core::record::{Override, Record, Token};
use circuitry_core::request::{Caller, Operation, Verdict};
use circuitry_core::settings::Settings;
use circuitry_core::{Answer, Completion, Decision, Entry, Loaded, Request, decide};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::agreement::{answers, information, refused};
use crate::hooks::{CIRCUIT, NamedRules};
use crate::model::{Hint, Model, Reply, step};
use crate::moves::{Clock, Ended, Move, What};

/// What a write left behind.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) model: Model,
    pub(crate) ttl: Option<u64>,
    pub(crate) at: u64,
}

/// A call as it was made, to be repeated.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    pub(crate) plan: usize,
    /// The revision that its last try was based on.
    pub(crate) based_on: u64,
}

impl Asked {
    pub(crate) fn new(operation: Operation) -> Self {
        Self { operation, plan: 0, based_on: 0 }
    }
}

/// What became of a move.
pub(crate) struct Played {
    pub(crate) asked: Asked,
    pub(crate) reply: Reply,
    pub(crate) wrote: bool,
}

pub(crate) struct World {
    /// Every entry that the store had; the last one is the present.
    pub(crate) entries: Vec<Option<Stored>>,
    pub(crate) permits: Vec<(u64, Option<Token>)>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) now: u64,
    /// How many starts each caller has made.
    starts: [u64; 8],
    others: u64,
}

/// A caller's starts have consecutive numbers, from any number on.
const FIRST_STARTS: [u64; 8] = [0, 1, 999_999_000, 1 << 62, u64::MAX - 1_000, 2, 3, 4];
/// All other calls have numbers apart from those.
const FIRST_OTHERS: u64 = 1 << 40;

pub(crate) fn request(settings: &Settings, operation: &Operation) -> Request {
    Request { circuit: CIRCUIT.into(), settings: settings.clone(), operation: operation.clone() }
}

pub(crate) fn caller(node: u64, sequence: u64) -> Caller {
    Caller { token: Token { node, sequence }, retry_of: None }
}

impl World {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            entries: vec![None],
            permits: vec![],
            asked: vec![],
            now,
            starts: [0; 8],
            others: FIRST_OTHERS,
        }
    }

    pub(crate) fn newest(&self) -> Option<&Stored> {
        self.entries.last().unwrap().as_ref()
    }

    /// Makes a move and compares what the core and the model say at each try.
    pub(crate) fn play(&mut self, plans: &[Settings], mv: &Move) -> Result<Option<Played>, TestCaseError> {
        self.now = mv.clock.after(self.now);
        if mv.what == What::Lose {
            self.entries.push(None);
            return Ok(None);
        }
        let asked = self.ask(plans, mv);
        let seen = self.entries.len() - 1 - mv.behind % self.entries.len().min(6);
        let played = self.call(plans, asked, seen, mv.store_clock)?;
        // With a lost answer the caller has no permit; it may repeat the call.
        if let Reply::Answer(Answer::Started { verdict: Verdict::Permit(permit), .. }) = &played.reply
            && !mv.answer_lost
        {
            self.permits.push((permit.era, permit.probe.map(|probe| probe.id)));
        }
        self.asked.push(played.asked.clone());
        Ok(Some(played))
    }

    /// Asks with the first plan, of the newest entry.
    pub(crate) fn call_now(
        &mut self,
        plans: &[Settings],
        operation: Operation,
    ) -> Result<Played, TestCaseError> {
        let newest = self.entries.len() - 1;
        self.call(plans, Asked::new(operation), newest, None)
    }

    /// The round of load, decide, swap, from the entry `seen` on.
    pub(crate) fn call(
        &mut self,
        plans: &[Settings],
        mut asked: Asked,
        mut seen: usize,
        store_clock: Option<Clock>,
    ) -> Result<Played, TestCaseError> {
        let settings = &plans[asked.plan % plans.len()];
        loop {
            let entry = self.entries[seen].as_ref();
            let loaded = Loaded {
                entry: entry.map(|stored| Entry { value: stored.bytes.clone(), version: vec![] }),
                now_ms: store_clock.map(|clock| clock.after(self.now)),
            };
            let now = loaded.now_ms.unwrap_or(0).max(self.now);
            asked.based_on = entry.map_or(0, |stored| stored.model.writes);
            let decision = decide(&request(settings, &asked.operation), &loaded, self.now, &mut NamedRules);
            let hint = hint(&decision);
            let before = entry.map(|stored| &stored.model);
            let expected = step(before, settings, &asked.operation, now, &hint);
            let told = |wrote, reply| Played { asked: asked.clone(), reply, wrote };

            let write = match (&decision, &expected.write) {
                (Err(circuitry_core::Error::Forgotten), _) if expected.may_forget && retries(&asked) => {
                    return Ok(told(false, Reply::Forgotten));
                }
                (Err(error), None) => {
                    prop_assert_eq!(refused(error), Some(expected.reply.clone()));
                    return Ok(told(false, expected.reply));
                }
                (Ok(Decision::Done(answer)), None) => {
                    answers(answer, &expected.reply, before, now)?;
                    return Ok(told(false, expected.reply));
                }
                (Ok(Decision::Write(write)), Some((model, until))) => {
                    answers(&write.answer_if_stored, &expected.reply, Some(model), now)?;
                    prop_assert_eq!(write.based_on, asked.based_on);
                    lives(write.ttl_ms, *until, now, settings)?;
                    write
                }
                (decision, _) => {
                    return Err(TestCaseError::fail(format!(
                        "{decision:?}, but the model answers {:?} and writes: {}",
                        expected.reply,
                        expected.write.is_some()
                    )));
                }
            };
            let newest = self.entries.len() - 1;
            if seen != newest {
                // The race is lost; the conflict brings the newest.
                seen = newest;
                continue;
            }
            let told = told(true, expected.reply);
            let (model, _) = expected.write.unwrap();
            let stored = Stored { bytes: write.value.clone(), model, ttl: write.ttl_ms, at: now };
            stored.look(settings)?;
            self.entries.push(Some(stored));
            return Ok(told);
        }
    }

    fn ask(&mut self, plans: &[Settings], mv: &Move) -> Asked {
        if let (What::Repeat(back), false) = (&mv.what, self.asked.is_empty()) {
            let mut asked = self.asked[self.asked.len() - 1 - back % self.asked.len()].clone();
            match &mut asked.operation {
                Operation::End(caller, _)
                | Operation::SetOverride(caller, _)
                | Operation::Reset(caller)
                | Operation::Vote { caller, .. } => {
                    let lowest = caller.retry_of.unwrap_or(asked.based_on).min(asked.based_on);
                    caller.retry_of = Some(lowest);
                }
                Operation::Start(_) | Operation::Renew { .. } | Operation::Inspect => {}
            }
            return asked;
        }
        self.others += 1;
        let node = mv.caller;
        let other = caller(node, self.others);
        let operation = match &mv.what {
            What::Start | What::Lose | What::Repeat(_) => {
                let index = (node % 8) as usize;
                self.starts[index] += 1;
                Operation::Start(caller(node, FIRST_STARTS[index].wrapping_add(self.starts[index])))
            }
            What::End(endings) => {
                Operation::End(other, endings.iter().map(|ended| self.completion(ended)).collect())
            }
            What::Renew(picks) => {
                let picked: Vec<_> = picks.iter().map(|back| self.permit(*back)).collect();
                let nobody = Token { node: 9, sequence: 9 };
                let probes = picked.iter().map(|(_, probe)| probe.unwrap_or(nobody)).collect();
                Operation::Renew { caller: other, era: picked[0].0, probes }
            }
            What::Inspect => Operation::Inspect,
            What::Force(wanted) => {
                let wanted = wanted.map(|wanted| Override {
                    kind: wanted.kind,
                    author: "ops".into(),
                    reason: "an incident".into(),
                    until_ms: wanted.until.map(|clock| clock.after(self.now)),
                });
                Operation::SetOverride(other, wanted)
            }
            What::Vote(back, node_id) => {
                let (era, _) = self.permit(*back);
                Operation::Vote { caller: other, era, node_id: format!("node-{node_id}") }
            }
            What::Reset => Operation::Reset(other),
        };
        Asked { operation, plan: mv.plan % plans.len(), based_on: 0 }
    }

    /// One of the last permits; before there is one, a permit that nobody was given.
    fn permit(&self, back: usize) -> (u64, Option<Token>) {
        match self.permits.len() {
            0 => (7, None),
            len => self.permits[len - 1 - back % len],
        }
    }

    fn completion(&self, ended: &Ended) -> Completion {
        let (era, probe) = self.permit(ended.back);
        Completion {
            era,
            probe,
            outcome: ended.outcome,
            slow: ended.slow,
            count: if probe.is_some() { 1 } else { ended.times },
            retry_after_ms: ended.retry_after,
        }
    }
}

impl Stored {
    /// What was counted and not asked about shows here at the latest; to the caller, and to somebody with other settings.
    fn look(&self, settings: &Settings) -> Result<(), TestCaseError> {
        let stranger = Settings {
            settings_revision: 0,
            close_threshold: 64,
            probes: None,
            probes_at_once: Some(63),
            ..settings.clone()
        };
        for settings in [settings, &stranger] {
            let loaded =
                Loaded { entry: Some(Entry { value: self.bytes.clone(), version: vec![] }), now_ms: None };
            let decision = decide(&request(settings, &Operation::Inspect), &loaded, self.at, &mut NamedRules);
            let Ok(Decision::Done(Answer::Inspected(shown))) = decision else {
                return Err(TestCaseError::fail(format!("{decision:?}")));
            };
            information(&shown, &self.model.show(settings, self.at), Some(&self.model), self.at)?;
        }
        Ok(())
    }
}

fn retries(asked: &Asked) -> bool {
    match &asked.operation {
        Operation::End(caller, _)
        | Operation::SetOverride(caller, _)
        | Operation::Reset(caller)
        | Operation::Vote { caller, .. } => caller.retry_of.is_some(),
        Operation::Start(_) | Operation::Renew { .. } | Operation::Inspect => false,
    }
}

fn hint(decision: &Result<Decision, circuitry_core::Error>) -> Hint<'_> {
    match decision {
        Ok(Decision::Done(answer)) => Hint { answer: Some(answer), last_trip: None },
        Ok(Decision::Write(write)) => Hint {
            answer: Some(&write.answer_if_stored),
            last_trip: Record::from_bytes(&write.value).ok().and_then(|record| record.last_trip),
        },
        Err(_) => Hint { answer: None, last_trip: None },
    }
}

/// A record lives longer than what matters in it, by the caller's idle retention.
fn lives(ttl: Option<u64>, until: Option<u64>, now: u64, settings: &Settings) -> Result<(), TestCaseError> {
    prop_assert_eq!(ttl.is_none(), until.is_none());
    if let (Some(ttl), Some(until)) = (ttl, until) {
        let least = until.saturating_sub(now).saturating_add(settings.idle_retention_ms);
        prop_assert!(ttl >= least, "the record lives for {} of at least {}", ttl, least);
    }
    Ok(())
}
