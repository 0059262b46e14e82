//! A second reading of the rules, to compare the core with: slow, naive, and with the core's types but not its rules.
//!
//! It forgets nothing: every stay in a state, every count, every call, place, vote and token is in a list, and what a
//! circuit is, is read off the lists each time.

pub(crate) mod calls;
mod ends;
mod opening;
mod people;
mod sight;
mod starts;

use circuitry_core::record::{
    Counts, Override, OverrideKind, State, Token, Transition, TransitionReason, Trip, Vote,
};
use circuitry_core::request::{Disposition, Operation};
use circuitry_core::settings::Settings;
use circuitry_core::{Answer, Completion, Outcome};

use self::calls::Calls;
use self::opening::Cause;
use crate::agreement::explicit;

/// One stay in a state.
#[derive(Clone, Debug)]
struct Stay {
    state: State,
    era: u64,
    since: u64,
    /// Only open: when it ends.
    until: Option<u64>,
    /// Only closed: whether the load comes back in steps.
    ramps: bool,
    /// What led to it; the first stay has none.
    entered: Option<Transition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Out,
    Replaced,
    Freed,
    Succeeded,
    Failed,
}

/// A probe's place.
#[derive(Clone, Debug)]
struct Place {
    era: u64,
    id: Token,
    deadline: u64,
    fate: Fate,
}

/// A call that wrote, and how it was answered.
#[derive(Clone, Debug)]
struct Told {
    id: Token,
    dispositions: Vec<Disposition>,
    votes: u32,
    /// What it takes in the record: 17 bytes, one bit for each completion up to the last stale one, 6 for a cut.
    bytes: usize,
    revision: u64,
}

/// All that has ever happened to a circuit.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) writes: u64,
    generation: u64,
    stays: Vec<Stay>,
    heard: Vec<(u64, bool, u64)>,
    clears_at: Option<u64>,
    calls: Vec<Calls>,
    places: Vec<Place>,
    votes: Vec<(u64, Vote)>,
    forced: Option<Override>,
    told: Vec<Told>,
    pub(crate) in_force: Settings,
    last_trip: Option<Trip>,
    trips_in_a_row: u32,
}

/// What the core did, for where the oracle leaves it a choice: weights may be rounded.
pub(crate) struct Hint<'a> {
    pub(crate) answer: Option<&'a Answer>,
    pub(crate) last_trip: Option<Trip>,
}

impl Hint<'_> {
    fn settled(&self) -> Option<(&[Disposition], &[Transition])> {
        match self.answer {
            Some(Answer::Settled { dispositions, transitions, .. }) => Some((dispositions, transitions)),
            _ => None,
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Answer(Answer),
    /// A repeated call whose fate cannot be told.
    Forgotten,
    /// An argument is out of its bounds.
    BadRequest,
}

/// An answer, and what is to be stored for it: the new state and until when it matters (`None` is for ever).
pub(crate) struct Step {
    pub(crate) reply: Reply,
    /// Whether `Forgotten` would be as right: calls were dropped for want of room.
    pub(crate) may_forget: bool,
    pub(crate) write: Option<(Model, Option<u64>)>,
}

/// Answers `operation` on what is stored (`None`: nothing is) at `now`.
pub(crate) fn step(
    stored: Option<&Model>,
    settings: &Settings,
    operation: &Operation,
    now: u64,
    hint: &Hint<'_>,
) -> Step {
    let mut call = Call { settings, now, hint, writes: stored.is_none() };
    let mut model = match (stored, operation) {
        (Some(model), _) => model.clone(),
        // Unknown: closed, generation 0, nothing counted; its era has to exist before a permit goes out.
        (None, Operation::Start(_) | Operation::SetOverride(..) | Operation::Reset(_)) => {
            Model::new(settings, now)
        }
        (None, Operation::Inspect) => {
            return done(Answer::Inspected(Box::new(Model::nothing(settings).show(settings, now))));
        }
        // Nothing is known of those eras.
        (None, Operation::End(_, completions)) => {
            let stale = |completion: &Completion| Disposition { accepted: 0, stale: completion.count };
            let dispositions = completions.iter().map(stale).collect();
            return done(Answer::Settled { dispositions, already_applied: false, transitions: vec![] });
        }
        (None, Operation::Renew { probes, .. }) => return done(Answer::Renewed(vec![None; probes.len()])),
        (None, Operation::Vote { .. }) => {
            let transitions = vec![];
            return done(Answer::Voted { accepted: false, votes: 0, already_applied: false, transitions });
        }
    };
    let reply = match operation {
        Operation::Start(caller) => Reply::Answer(model.start(&mut call, caller.token)),
        Operation::End(caller, completions) => model.end(&mut call, caller, completions),
        Operation::Renew { era, probes, .. } => Reply::Answer(model.renew(&mut call, *era, probes)),
        Operation::Inspect => Reply::Answer(Answer::Inspected(Box::new(model.show(settings, now)))),
        Operation::SetOverride(caller, wanted) => model.force(&mut call, caller, wanted.as_ref()),
        Operation::Vote { caller, era, node_id } => model.vote(&mut call, caller, *era, node_id),
        Operation::Reset(caller) => model.reset(&mut call, caller),
    };
    let may_forget = model.dropped_for_room();
    if !call.writes || !matches!(reply, Reply::Answer(_)) {
        return Step { reply, may_forget, write: None };
    }
    model.writes += 1;
    if model.forced_at(now).is_none() {
        model.forced = None;
    }
    let until = model.matters_until(now);
    Step { reply, may_forget, write: Some((model, until)) }
}

fn done(answer: Answer) -> Step {
    Step { reply: Reply::Answer(answer), may_forget: false, write: None }
}

/// A call that is being answered.
struct Call<'a> {
    settings: &'a Settings,
    now: u64,
    hint: &'a Hint<'a>,
    writes: bool,
}

impl Model {
    fn new(settings: &Settings, now: u64) -> Self {
        let first = Stay {
            state: State::Closed,
            era: now.max(1),
            since: now,
            until: None,
            ramps: false,
            entered: None,
        };
        Self {
            writes: 0,
            generation: 0,
            stays: vec![first],
            heard: vec![],
            clears_at: None,
            calls: vec![],
            places: vec![],
            votes: vec![],
            forced: None,
            told: vec![],
            in_force: explicit(settings),
            last_trip: None,
            trips_in_a_row: 0,
        }
    }

    fn stay(&self) -> &Stay {
        self.stays.last().unwrap()
    }

    pub(crate) fn state(&self) -> State {
        self.stay().state
    }

    fn era(&self) -> u64 {
        self.stay().era
    }

    fn places(&self, fate: Fate) -> Vec<&Place> {
        self.places.iter().filter(|place| place.era == self.era() && place.fate == fate).collect()
    }

    /// The calls of this stay in closed.
    fn calls_here(&self) -> Vec<Calls> {
        self.calls.iter().filter(|calls| calls.era == self.era()).copied().collect()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, good, times) in self.heard.iter().filter(|(generation, ..)| *generation == self.generation) {
            counts.total += times;
            if *good {
                counts.total_successes += times;
                counts.consecutive_successes += times;
                counts.consecutive_failures = 0;
            } else {
                counts.total_failures += times;
                counts.consecutive_failures += times;
                counts.consecutive_successes = 0;
            }
        }
        counts
    }

    fn hear(&mut self, good: bool, times: u64) {
        self.heard.push((self.generation, good, times));
    }

    fn forced_at(&self, now: u64) -> Option<&Override> {
        self.forced.as_ref().filter(|forced| forced.until_ms.is_none() || forced.until_ms > Some(now))
    }

    fn forced_as(&self, now: u64) -> Option<OverrideKind> {
        self.forced_at(now).map(|forced| forced.kind)
    }

    fn changes_by(&self, id: Token) -> Vec<Transition> {
        self.last_changes().into_iter().filter(|change| change.by == id).collect()
    }

    fn last_changes(&self) -> Vec<Transition> {
        let all: Vec<_> = self.stays.iter().filter_map(|stay| stay.entered).collect();
        all[all.len().saturating_sub(8)..].to_vec()
    }

    /// Leaves the state for `state`, as of `at`. Settings that are not older come into force first.
    fn enter(&mut self, call: &Call<'_>, cause: &Cause, by: Token, at: u64) {
        let (previous, next) = (self.state(), cause.next());
        let closed_for = at.saturating_sub(self.stay().since);
        if call.settings.settings_revision >= self.in_force.settings_revision {
            self.in_force = explicit(call.settings);
        }
        let era = (self.era() + 1).max(call.now);
        // The length of an open time does not hang on who writes it down and when.
        let era_as_of = (self.era() + 1).max(at);
        let counts_go = match cause.reason() {
            TransitionReason::OpenTimeOver
            | TransitionReason::ProbeFailed
            | TransitionReason::HalfOpenOverdueOpened => false,
            TransitionReason::Tripped
            | TransitionReason::VotesReached
            | TransitionReason::ProbesSucceeded
            | TransitionReason::HalfOpenOverdueClosed
            | TransitionReason::Reset => true,
        };
        self.generation += u64::from(counts_go);
        self.clears_at = match next {
            State::Closed => self.in_force.cyclic_clear_after_ms.map(|after| at.saturating_add(after)),
            State::Open | State::HalfOpen => None,
        };
        let until = self.trip(cause, previous, closed_for, era_as_of, at);
        let ramps = next == State::Closed
            && self.in_force.ramp.is_some()
            && cause.reason() != TransitionReason::Reset;
        let (reason, generation) = (cause.reason(), self.generation);
        let entered = Some(Transition { previous, next, reason, at_ms: at, era, generation, by });
        self.stays.push(Stay { state: next, era, since: at, until, ramps, entered });
    }
}

/// A completion with the slowness that matters in half-open.
fn went_well(settings: &Settings, completion: &Completion) -> bool {
    let minds_slow_calls =
        settings.trip_rules.iter().any(|rule| matches!(rule, circuitry_core::TripRule::SlowCallRate(_)));
    completion.outcome == Outcome::Success && !(completion.slow && minds_slow_calls)
}
