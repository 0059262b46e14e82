//! The component and the core give the same answers and the same bytes, on random sequences and on damaged records.

mod settings;

use std::collections::BTreeMap;

use circuitry_tests::component::ComponentMachine;
use circuitry_tests::contract::{
    Answer, Caller, Completion, EndRequest, Entry, Failure, Information, InspectRequest, Loaded, Outcome,
    Override, OverrideKind, OverrideRequest, RenewRequest, Request, ResetRequest, Settings, StartRequest,
    Started, Token, Transition, Verdict, VoteRequest,
};
use circuitry_tests::machine::Machine;
use circuitry_tests::memory::Fault;
use circuitry_tests::native::NativeMachine;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::settings::{length, settings};

/// So many cases, unless the environment says otherwise.
fn cases(usual: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { usual };
    ProptestConfig { cases, failure_persistence: None, ..given }
}

/// Numbers of every size, mostly ordinary ones.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..200_u64, 8 => 1_000_000..1_100_000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

/// How a call ended: its permit, the outcome, whether it was slow, how many were like it, and the wish to be left alone.
type Ended = (Index, Outcome, bool, u32, Option<u64>);

#[derive(Clone, Debug)]
enum What {
    Start,
    End(Vec<Ended>),
    Renew(Vec<Index>),
    Inspect,
    SetOverride(Option<Override>),
    /// The vote of a node, in the era of a permit or in the newest.
    Vote(String, Option<Index>),
    Reset,
    /// The same request again.
    Again(Index),
}

#[derive(Clone, Debug)]
struct Move {
    what: What,
    circuit: usize,
    settings: usize,
    node: u64,
    retry_of: Option<u64>,
    later_ms: i64,
    clock_ms: Option<i64>,
    /// An entry that was seen before.
    known: Option<Index>,
    /// Bytes of the known entry that are changed.
    damage: Vec<(Index, u8)>,
    faults: Vec<Fault>,
    down: bool,
}

fn ended() -> impl Strategy<Value = Ended> {
    let outcome = select(&[Outcome::Success, Outcome::Failure, Outcome::Failure, Outcome::Ignored][..]);
    let count = prop_oneof![80 => 1..6_u32, 1 => Just(0), 1 => 65_535..65_538_u32];
    (any::<Index>(), outcome, proptest::bool::weighted(0.3), count, option::weighted(0.2, length()))
}

const KINDS: [OverrideKind; 4] =
    [OverrideKind::ForcedOpen, OverrideKind::ForcedClosed, OverrideKind::Disabled, OverrideKind::MetricsOnly];

fn what() -> impl Strategy<Value = What> {
    let until_ms = option::weighted(0.8, 1_000_000..1_400_000_u64);
    let set = (select(&KINDS[..]), "\\PC{0,40}", "[a-z ]{0,260}", until_ms)
        .prop_map(|(kind, author, reason, until_ms)| Override { kind, author, reason, until_ms });
    let node_id = prop_oneof![40 => "[a-d]", 1 => "\\PC{0,50}"];
    prop_oneof![
        16 => Just(What::Start),
        20 => prop_oneof![12 => vec(ended(), 1..6), 1 => vec(ended(), 0..1)].prop_map(What::End),
        4 => vec(any::<Index>(), 1..4).prop_map(What::Renew),
        6 => Just(What::Inspect),
        2 => option::of(set).prop_map(What::SetOverride),
        4 => (node_id, option::weighted(0.2, any::<Index>())).prop_map(|(node, era)| What::Vote(node, era)),
        1 => Just(What::Reset),
        6 => any::<Index>().prop_map(What::Again),
    ]
}

fn a_move() -> impl Strategy<Value = Move> {
    let later_ms = prop_oneof![4 => 0..100_i64, 4 => 0..20_000_i64, 1 => -20_000..0_i64];
    let fault = select(
        &[Fault::None, Fault::None, Fault::AnswerLost, Fault::WriteLost, Fault::Unavailable, Fault::Race][..],
    );
    let faults = prop_oneof![6 => Just(vec![]), 2 => vec(fault, 0..4), 1 => Just(vec![Fault::Race; 9])];
    let damage = prop_oneof![12 => Just(vec![]), 1 => vec((any::<Index>(), any::<u8>()), 1..4)];
    let circuit = prop_oneof![6 => Just(0_usize), 1 => Just(1_usize)];
    let who = (circuit, 0..2_usize, 1..4_u64, option::weighted(0.15, 0..8_u64));
    let times = (later_ms, option::weighted(0.2, -5_000..5_000_i64));
    let seen = (option::weighted(0.4, any::<Index>()), damage);
    (what(), who, times, seen, faults, proptest::bool::weighted(0.03)).prop_map(
        |(what, (circuit, settings, node, retry_of), (later_ms, clock_ms), (known, damage), faults, down)| {
            Move { what, circuit, settings, node, retry_of, later_ms, clock_ms, known, damage, faults, down }
        },
    )
}

/// Both machines, and what a host remembers.
struct Pair {
    native: NativeMachine,
    component: ComponentMachine,
    now_ms: u64,
    sequence: u64,
    permits: Vec<(u64, Option<Token>)>,
    seen: Vec<Loaded>,
    asked: Vec<Request>,
    /// How many answers of each kind there were, refusals and errors apart, and what else was told.
    told: BTreeMap<String, u32>,
}

impl Pair {
    fn new() -> Self {
        Self {
            native: NativeMachine::default(),
            component: ComponentMachine::default(),
            now_ms: 1_000_000,
            sequence: 0,
            permits: vec![(1, None)],
            seen: vec![Loaded { entry: None, now_ms: None }],
            asked: vec![],
            told: BTreeMap::new(),
        }
    }

    fn play(&mut self, settings: &[Settings], mv: &Move) -> Result<(), TestCaseError> {
        self.now_ms = self.now_ms.saturating_add_signed(mv.later_ms);
        let request = self.request(settings, mv);
        self.asked.push(request.clone());
        let known = mv.known.map(|index| damaged(index.get(&self.seen), &mv.damage));

        // One step, on any entry …
        let entry = known.clone().unwrap_or_else(|| self.native.memory().loaded(request.circuit()));
        let steps = [
            self.native.decide(&request, &entry, self.now_ms),
            self.component.decide(&request, &entry, self.now_ms),
        ];
        prop_assert_eq!(&steps[0], &steps[1]);

        // … and the whole round, with the same store.
        for memory in [self.native.memory(), self.component.memory()] {
            memory.clock_ms = mv.clock_ms.map(|off_ms| self.now_ms.saturating_add_signed(off_ms));
            (memory.down, memory.faults) = (mv.down, mv.faults.iter().copied().collect());
        }
        let by_core = self.native.call(&request, known.as_ref(), self.now_ms);
        let by_component = self.component.call(&request, known.as_ref(), self.now_ms);
        prop_assert_eq!(&by_core, &by_component);
        // Bytes, versions, times to live, and how often the store was asked.
        prop_assert_eq!(self.native.memory(), self.component.memory());
        self.remember(&by_core);
        Ok(())
    }

    fn remember(&mut self, answered: &Result<(Answer, Loaded), Failure>) {
        if let Ok((Answer::Started(Started { verdict: Verdict::Permit(permit), .. }), _)) = answered {
            self.permits.push((permit.era, permit.probe.map(|probe| probe.id)));
        }
        for kind in kinds(answered) {
            *self.told.entry(kind).or_default() += 1;
        }
        match answered {
            Ok((_, seen)) => self.seen.push(seen.clone()),
            Err(failure) => self.seen.extend(failure.last_seen.clone()),
        }
    }

    /// One of the last permits more often than one of all.
    fn permit(&self, index: &Index) -> (u64, Option<Token>) {
        let last = self.permits.len().saturating_sub(5);
        let of_all = index.index(1_024).is_multiple_of(4);
        *index.get(&self.permits[if of_all { 0 } else { last }..])
    }

    fn request(&mut self, settings: &[Settings], mv: &Move) -> Request {
        if let (What::Again(index), false) = (&mv.what, self.asked.is_empty()) {
            return index.get(&self.asked).clone();
        }
        self.sequence += 1;
        let circuit = ["upstream", "tenant/\u{1f980}"][mv.circuit].to_owned();
        let settings = settings[mv.settings % settings.len()].clone();
        let caller = Caller { node: mv.node, sequence: self.sequence, retry_of: mv.retry_of };
        match &mv.what {
            What::Start | What::Again(_) => Request::Start(StartRequest { circuit, settings, caller }),
            What::End(picks) => {
                let completion = |(index, outcome, slow, count, retry_after_ms): &Ended| {
                    let (era, probe) = self.permit(index);
                    let count = if probe.is_some() && *count < 6 { 1 } else { *count };
                    let (outcome, slow, retry_after_ms) = (*outcome, *slow, *retry_after_ms);
                    Completion { era, probe, outcome, slow, count, retry_after_ms }
                };
                let completions = picks.iter().map(completion).collect();
                Request::End(EndRequest { circuit, settings, caller, completions })
            }
            What::Renew(picks) => {
                let permits: Vec<_> = picks.iter().map(|index| self.permit(index)).collect();
                let era = permits.first().map_or(1, |(era, _)| *era);
                let probes = permits.iter().filter_map(|(_, probe)| *probe).collect();
                Request::Renew(RenewRequest { circuit, settings, caller, era, probes })
            }
            What::Inspect => Request::Inspect(InspectRequest { circuit, settings }),
            What::SetOverride(wanted) => {
                let override_ = wanted.clone();
                Request::SetOverride(OverrideRequest { circuit, settings, caller, override_ })
            }
            What::Vote(node_id, index) => {
                let (era, _) =
                    index.map_or(self.permits[self.permits.len() - 1], |index| self.permit(&index));
                let node_id = node_id.clone();
                Request::Vote(VoteRequest { circuit, settings, caller, era, node_id })
            }
            What::Reset => Request::Reset(ResetRequest { circuit, settings, caller }),
        }
    }
}

/// What an answer is, and what is told with it.
fn kinds(answered: &Result<(Answer, Loaded), Failure>) -> Vec<String> {
    let of = |transitions: &[Transition]| -> Vec<String> {
        transitions.iter().map(|transition| format!("{:?}", transition.reason)).collect()
    };
    match answered {
        Err(failure) => vec![format!("{:?}", failure.error).split('(').next().unwrap_or_default().into()],
        Ok((Answer::Started(started), _)) => {
            let mut kinds = of(&started.transitions);
            if started.settings_in_force.is_some() {
                kinds.push("other settings in force".into());
            }
            kinds.push(match started.verdict {
                Verdict::Permit(permit) if permit.would_have_refused.is_some() => "permit instead".into(),
                Verdict::Permit(permit) if permit.probe.is_some() => "probe".into(),
                Verdict::Permit(permit) => format!("permit of the {:?}", permit.judged_by),
                Verdict::Refusal(refusal) => format!("refusal: {:?}", refusal.reason),
            });
            kinds
        }
        Ok((Answer::Settled(settled), _)) => {
            [vec![format!("settled again: {}", settled.already_applied)], of(&settled.transitions)].concat()
        }
        Ok((Answer::Inspected(information), _)) => told(information),
        Ok((Answer::Voted(voted), _)) => {
            let vote = format!("vote accepted: {}, again: {}", voted.accepted, voted.already_applied);
            [vec![vote], of(&voted.transitions)].concat()
        }
        Ok((Answer::Cleared(cleared), _)) => {
            let reset = format!("reset of an override: {}", cleared.previous.is_some());
            [vec![reset], of(&cleared.transitions)].concat()
        }
        Ok((answer, _)) => vec![format!("{answer:?}").split('(').next().unwrap_or_default().into()],
    }
}

/// What `inspect` tells.
fn told(information: &Information) -> Vec<String> {
    let rules = information.rules.iter().filter(|state| state.calls > 0);
    let rule = |rule: String| format!("sees: {}", rule.split('(').next().unwrap_or_default());
    let mut told: Vec<String> = rules.map(|state| rule(format!("{:?}", state.rule))).collect();
    told.push(format!("is {:?}", information.state));
    told.extend(information.last_trip.map(|trip| format!("by {:?}", trip.kind)));
    told.extend(information.next_change.map(|change| format!("next {:?}", change.kind)));
    told.extend(information.override_.as_ref().map(|set| format!("{:?}", set.kind)));
    told.extend(information.settings_differ.then(|| "differ".to_owned()));
    told.extend((information.trips_in_a_row > 1).then(|| "trips in a row".to_owned()));
    told
}

fn damaged(seen: &Loaded, damage: &[(Index, u8)]) -> Loaded {
    let mut seen = seen.clone();
    if let Some(Entry { value, .. }) = &mut seen.entry {
        for (at, byte) in damage.iter().filter(|_| !value.is_empty()).cloned().collect::<Vec<_>>() {
            let at = at.index(value.len());
            value[at] = byte;
        }
    }
    seen
}

fn sequence() -> impl Strategy<Value = (Vec<Settings>, Vec<Move>)> {
    (vec(settings(), 1..3), vec(a_move(), 1..250))
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_component_answers_and_writes_what_the_core_does((settings, moves) in sequence()) {
        let mut pair = Pair::new();
        for mv in &moves {
            pair.play(&settings, mv)?;
        }
    }

    #[test]
    fn the_component_checks_settings_as_the_core_does(settings in settings(), threshold in number()) {
        let settings = Settings { failure_count_threshold: threshold, ..settings };
        prop_assert_eq!(
            NativeMachine::default().check(&settings),
            ComponentMachine::default().check(&settings)
        );
    }

    #[test]
    fn no_bytes_and_no_time_make_the_component_trap(
        bytes in vec(any::<u8>(), 0..300), ours in any::<bool>(), schema in 1..3_u8, now_ms in number(), clock_ms in option::of(number()),
        settings in settings(), mv in a_move(),
    ) {
        let mut pair = Pair::new();
        let request = pair.request(&[settings], &mv);
        let value = if ours { [b"CKT", [schema].as_slice(), &bytes].concat() } else { bytes };
        let loaded = Loaded { entry: Some(Entry { value, version: vec![] }), now_ms: clock_ms };
        prop_assert_eq!(
            pair.native.decide(&request, &loaded, now_ms),
            pair.component.decide(&request, &loaded, now_ms)
        );
    }
}

/// Without this, a change of the strategies could leave the first property true of errors only.
#[test]
fn random_sequences_reach_every_kind_of_answer() {
    let mut runner = TestRunner::deterministic();
    let mut told = BTreeMap::<String, u32>::new();
    for _ in 0..100 {
        let (settings, moves) = sequence().new_tree(&mut runner).unwrap().current();
        let mut pair = Pair::new();
        for mv in &moves {
            pair.play(&settings, mv).unwrap();
        }
        for (kind, times) in pair.told {
            *told.entry(kind).or_default() += times;
        }
    }
    for kind in [
        "permit of the Fleet",
        "permit of the Node",
        "permit of the Nobody",
        "permit instead",
        "probe",
        "refusal: Open",
        "refusal: TooManyRequests",
        "refusal: ForcedOpen",
        "refusal: Ramp",
        "other settings in force",
        "settled again: false",
        "settled again: true",
        "Renewed",
        "Overridden",
        "vote accepted: true, again: false",
        "vote accepted: false, again: false",
        "vote accepted: true, again: true",
        "reset of an override: false",
        "reset of an override: true",
        "Tripped",
        "OpenTimeOver",
        "ProbesSucceeded",
        "ProbeFailed",
        "VotesReached",
        "HalfOpenOverdueOpened",
        "HalfOpenOverdueClosed",
        "Reset",
        "is Closed",
        "is Open",
        "is HalfOpen",
        "sees: ConsecutiveFailures",
        "sees: FailureCount",
        "sees: FailureRate",
        "sees: SlowCallRate",
        "sees: Custom",
        "by ConsecutiveFailures",
        "by FailureCount",
        "by FailureRate",
        "by SlowCallRate",
        "by Custom",
        "by Probe",
        "by Overdue",
        "by Votes",
        "next HalfOpen",
        "next LeaseEnd",
        "next HalfOpenOverdue",
        "next RampStep",
        "next OverrideEnd",
        "next CountsClear",
        "next VoteEnd",
        "ForcedOpen",
        "ForcedClosed",
        "Disabled",
        "MetricsOnly",
        "differ",
        "trips in a row",
        "Settings",
        "Request",
        "Store",
        "StoredRecord",
        "Contention",
        "Forgotten",
    ] {
        assert!(told.contains_key(kind), "no sequence had {kind}: {told:?}");
    }
}
