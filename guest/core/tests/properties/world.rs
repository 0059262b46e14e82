//! A store that keeps every entry it ever had, in the core's bytes and as the model, and callers that use it.

use circuitry_core::{Decision, Entry, Loaded, decide};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::model::{Model, step};
use crate::moves::{Clock, Move, What};
use crate::translation::{NamedRules, error_reply, reply, request};
use crate::words::{Ask, Forced, Part, Plan, Reply, Went, Who};

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
    pub(crate) ask: Ask,
    pub(crate) plan: usize,
    /// The revision that its last try was based on.
    pub(crate) based_on: u64,
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
    pub(crate) permits: Vec<(u64, Option<Who>)>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) now: u64,
    sequence: u64,
}

impl World {
    pub(crate) fn new(now: u64) -> Self {
        Self { entries: vec![None], permits: vec![], asked: vec![], now, sequence: 0 }
    }

    pub(crate) fn newest(&self) -> Option<&Stored> {
        self.entries.last().unwrap().as_ref()
    }

    /// Makes a move and compares what the core and the model say at each try.
    pub(crate) fn play(&mut self, plans: &[Plan], mv: &Move) -> Result<Option<Played>, TestCaseError> {
        self.now = mv.clock.after(self.now);
        if mv.what == What::Lose {
            self.entries.push(None);
            return Ok(None);
        }
        let asked = self.ask(plans, mv);
        let seen = self.entries.len() - 1 - mv.behind % self.entries.len().min(6);
        let played = self.call(plans, asked, seen, mv.store_clock)?;
        // With a lost answer the caller has no permit; it may repeat the call.
        if let (Reply::Permit { era, probe, .. }, false) = (&played.reply, mv.answer_lost) {
            self.permits.push((*era, probe.map(|(who, _)| who)));
        }
        self.asked.push(played.asked.clone());
        Ok(Some(played))
    }

    /// The round of load, decide, swap, from the entry `seen` on.
    pub(crate) fn call(
        &mut self,
        plans: &[Plan],
        mut asked: Asked,
        mut seen: usize,
        store_clock: Option<Clock>,
    ) -> Result<Played, TestCaseError> {
        let plan = &plans[asked.plan % plans.len()];
        loop {
            let entry = self.entries[seen].as_ref();
            let loaded = Loaded {
                entry: entry.map(|stored| Entry { value: stored.bytes.clone(), version: vec![] }),
                now_ms: store_clock.map(|clock| clock.after(self.now)),
            };
            let now = loaded.now_ms.unwrap_or(0).max(self.now);
            let expected = step(entry.map(|stored| &stored.model), plan, &asked.ask, now);
            asked.based_on = entry.map_or(0, |stored| stored.model.writes);
            let told = |wrote, asked| Played { asked, reply: expected.reply.clone(), wrote };

            let decision = decide(&request(plan, &asked.ask), &loaded, self.now, &mut NamedRules);
            let write = match (&decision, &expected.write) {
                (Err(error), None) => {
                    prop_assert_eq!(error_reply(error), Some(expected.reply.clone()));
                    return Ok(told(false, asked));
                }
                (Ok(Decision::Done(answer)), None) => {
                    prop_assert_eq!(reply(answer), expected.reply.clone());
                    return Ok(told(false, asked));
                }
                (Ok(Decision::Write(write)), Some((_, ttl))) => {
                    prop_assert_eq!(reply(&write.answer_if_stored), expected.reply.clone());
                    prop_assert_eq!(write.ttl_ms, *ttl);
                    prop_assert_eq!(write.based_on, asked.based_on);
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
            let told = told(true, asked);
            let (model, ttl) = expected.write.unwrap();
            self.entries.push(Some(Stored { bytes: write.value.clone(), model, ttl, at: now }));
            return Ok(told);
        }
    }

    fn ask(&mut self, plans: &[Plan], mv: &Move) -> Asked {
        if let (What::Repeat(back), false) = (&mv.what, self.asked.is_empty()) {
            let mut asked = self.asked[self.asked.len() - 1 - back % self.asked.len()].clone();
            match &mut asked.ask {
                Ask::End { retry_of, .. } | Ask::Force { retry_of, .. } => {
                    *retry_of = Some(retry_of.map_or(asked.based_on, |lowest| lowest.min(asked.based_on)));
                }
                Ask::Start { .. } | Ask::Renew { .. } | Ask::Inspect => {}
            }
            return asked;
        }
        self.sequence += 1;
        let who = (mv.caller, self.sequence);
        let ask = match &mv.what {
            What::Start | What::Lose | What::Repeat(_) => Ask::Start { who },
            What::End(picks) => {
                let parts = picks.iter().map(|pick| self.part(pick.0, pick.1, pick.2)).collect();
                Ask::End { who, retry_of: None, parts }
            }
            What::Renew(picks) => {
                let picked: Vec<_> = picks.iter().map(|back| self.permit(*back)).collect();
                let probes = picked.iter().map(|(_, probe)| probe.unwrap_or((9, 9))).collect();
                Ask::Renew { who, era: picked[0].0, probes }
            }
            What::Inspect => Ask::Inspect,
            What::Force(None) => Ask::Force { who, retry_of: None, forced: None },
            What::Force(Some(wanted)) => {
                let until = wanted.until.map(|clock| clock.after(self.now));
                let forced =
                    Forced { open: wanted.open, author: "ops".into(), reason: "an incident".into(), until };
                Ask::Force { who, retry_of: None, forced: Some(forced) }
            }
        };
        Asked { ask, plan: mv.plan % plans.len(), based_on: 0 }
    }

    /// One of the last permits; before there is one, a permit that nobody was given.
    fn permit(&self, back: usize) -> (u64, Option<Who>) {
        match self.permits.len() {
            0 => (7, None),
            len => self.permits[len - 1 - back % len],
        }
    }

    fn part(&self, back: usize, went: Went, times: u32) -> Part {
        let (era, probe) = self.permit(back);
        Part { era, probe, went, times: if probe.is_some() { 1 } else { times } }
    }
}
