//! Breadth first through all states of the world, each once, by a hash of it.
//!
//! Of a state that was seen only 64 bits are kept. That two states share them is a chance of one in millions for a search
//! of millions of states; one of them would not be gone on from then.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Instant;

use circuitry_core::record::{Status, TransitionReason};
use circuitry_core::request::Verdict;
use circuitry_core::{Answer, Error};

use crate::archive::{Archive, Broken, Ruling};
use crate::config::Config;
use crate::identity;
use crate::mixing::Mixing;
use crate::rules::is_already_applied;
use crate::world::{Step, World};

/// Hashes of states.
pub(crate) type Keys = HashSet<u64, Mixing>;

/// What a search found out.
pub(crate) struct Found {
    pub(crate) states: Keys,
    /// Of these the ones in which no call is under way.
    pub(crate) at_rest: Keys,
    pub(crate) reached: BTreeSet<&'static str>,
}

struct Search {
    archive: Archive,
    seen: Keys,
    at_rest: Keys,
    /// Of a search that tells all states apart: those, in every detail.
    details: Option<Keys>,
    /// How each state was come to: the state before, and what happened.
    trail: Vec<(u32, Step)>,
    waiting: VecDeque<(u32, World)>,
}

/// Goes through all states; says what is broken, and how it comes to that in as few steps as can be.
pub(crate) fn explore(name: &str, config: &Config, in_detail: bool) -> Result<Found, Broken> {
    let began = Instant::now();
    let mut archive = Archive::new(config.clone());
    let first = World::new(&mut archive)?;
    let mut search = Search {
        archive,
        seen: Keys::default(),
        at_rest: Keys::default(),
        details: in_detail.then(Keys::default),
        trail: vec![(0, Step::Tick)],
        waiting: VecDeque::from([(0, first)]),
    };
    let mut transitions = 0_u64;
    let mut next = vec![];
    while let Some((number, world)) = search.waiting.pop_front() {
        next.clear();
        if let Err((step, broken)) = world.next(&mut search.archive, &mut next) {
            return Err(search.story(number, Some(step), &broken));
        }
        transitions += next.len() as u64;
        for (step, world) in next.drain(..) {
            search.reach(number, step, world)?;
        }
    }
    let (records, rulings) = search.archive.sizes();
    let found = Found { reached: search.reached(), at_rest: search.at_rest, states: search.seen };
    println!(
        "{name}: {} states, {transitions} steps, {records} records, {rulings} decisions, {:.1} s; reached: {}",
        found.states.len(),
        began.elapsed().as_secs_f32(),
        found.reached.iter().copied().collect::<Vec<_>>().join(", "),
    );
    Ok(found)
}

impl Search {
    fn reach(&mut self, from: u32, step: Step, world: World) -> Result<(), Broken> {
        let same = identity::of(&world, &self.archive);
        if let Some(details) = &mut self.details {
            self.seen.insert(same);
            if !details.insert(identity::in_detail(&world)) {
                return Ok(());
            }
        } else if !self.seen.insert(same) {
            return Ok(());
        }
        if world.is_at_rest() {
            self.at_rest.insert(same);
        }
        let examined = match world.store {
            Some(store) => self.archive.examine(store.record, world.now()),
            None => Ok(()),
        };
        let placed =
            || if self.archive.config.behind_ms == 0 { world.check_places(&self.archive) } else { Ok(()) };
        if let Err(broken) = examined.and_then(|()| placed()) {
            return Err(self.story(from, Some(step), &broken));
        }
        let number = u32::try_from(self.trail.len()).unwrap();
        self.trail.push((from, step));
        self.waiting.push_back((number, world));
        Ok(())
    }

    fn story(&self, mut number: u32, last: Option<Step>, broken: &str) -> Broken {
        let mut steps: Vec<Step> = last.into_iter().collect();
        while number != 0 {
            let (before, step) = self.trail[number as usize];
            steps.push(step);
            number = before;
        }
        steps.reverse();
        let told: Vec<String> = steps.iter().map(|step| format!("  {step:?}")).collect();
        format!("{broken}\nafter:\n{}", told.join("\n"))
    }

    /// Kinds of what happened, so that a search cannot silently become one of nothing.
    fn reached(&self) -> BTreeSet<&'static str> {
        let mut reached = BTreeSet::new();
        for ruling in self.archive.rulings() {
            let answer = match ruling {
                Ruling::Failed(Error::Forgotten) => {
                    reached.insert("forgotten");
                    continue;
                }
                Ruling::Failed(_) => continue,
                Ruling::Done(answer) | Ruling::Write { answer, .. } => answer,
            };
            if is_already_applied(answer) {
                reached.insert("already applied");
            }
            match answer {
                Answer::Started { verdict: Verdict::Refusal(refusal), .. } => {
                    reached.insert(match refusal.reason {
                        circuitry_core::request::RefusalReason::Open => "open",
                        circuitry_core::request::RefusalReason::TooManyRequests => "too many requests",
                        circuitry_core::request::RefusalReason::ForcedOpen => "forced open",
                        circuitry_core::request::RefusalReason::Ramp => "ramp",
                    });
                }
                Answer::Settled { dispositions, .. } if dispositions.iter().any(|one| one.stale > 0) => {
                    reached.insert("stale");
                }
                Answer::Renewed(deadlines) => {
                    reached.insert(if deadlines.contains(&None) { "lease lost" } else { "lease prolonged" });
                }
                _ => {}
            }
            if let Ruling::Write { record, .. } = ruling {
                let record = self.archive.record(*record);
                if let Some(last) = record.transitions.last() {
                    reached.insert(reason(last.reason));
                }
                if matches!(&record.status, Status::HalfOpen { probes, .. } if probes.len() > 1) {
                    reached.insert("two probes out");
                }
            }
        }
        reached
    }
}

fn reason(reason: TransitionReason) -> &'static str {
    match reason {
        TransitionReason::Tripped => "tripped",
        TransitionReason::OpenTimeOver => "open time over",
        TransitionReason::ProbesSucceeded => "probes succeeded",
        TransitionReason::ProbeFailed => "probe failed",
        TransitionReason::VotesReached => "votes reached",
        TransitionReason::HalfOpenOverdueOpened => "overdue opened",
        TransitionReason::HalfOpenOverdueClosed => "overdue closed",
        TransitionReason::Reset => "reset",
    }
}
