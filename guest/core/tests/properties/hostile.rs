//! What the store may hold that no call of ours has written.

use circuitry_core::applied::AppliedCall;
use circuitry_core::record::{
    Counts, InForce, Override, OverrideKind, Probe, Record, RecordError, State, Status, Token, Transition,
    TransitionReason, Trip, TripKind, Vote,
};
use circuitry_core::request::{Caller, Operation};
use circuitry_core::window::Windows;
use circuitry_core::{Completion, Decision, Entry, Error, Loaded, Settings, TripRule, decide};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::cases;
use crate::hooks::{NamedOrNever, NamedRules, OwnRule};
use crate::moves::outcome;
use crate::plans::plan;
use crate::script::Script;
use crate::world::request;

fn number() -> BoxedStrategy<u64> {
    prop_oneof![0..100_u64, 1_800_000_000_000..1_800_000_100_000_u64, u64::MAX - 100..=u64::MAX, any::<u64>()]
        .boxed()
}

fn token() -> BoxedStrategy<Token> {
    (1..4_u64, 0..20_u64).prop_map(|(node, sequence)| Token { node, sequence }).boxed()
}

fn counts() -> BoxedStrategy<Counts> {
    [number(), number(), number(), number(), number()]
        .prop_map(|[total, total_successes, total_failures, consecutive_successes, consecutive_failures]| {
            Counts { total, total_successes, total_failures, consecutive_successes, consecutive_failures }
        })
        .boxed()
}

/// Windows that settings really have, with bytes changed; or any bytes.
fn windows() -> BoxedStrategy<(Settings, Vec<u8>)> {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 0..20);
    let real = (plan(), damage).prop_map(|(plan, damage)| {
        let mut bytes = vec![0; Windows::size(&plan)];
        for (at, byte) in damage.into_iter().filter(|_| !plan.trip_rules.is_empty()) {
            let length = bytes.len();
            if length > 0 {
                bytes[at.index(length)] = byte;
            }
        }
        (plan, bytes)
    });
    prop_oneof![2 => real, 1 => (plan(), vec(any::<u8>(), 0..300))].boxed()
}

fn status() -> BoxedStrategy<(Settings, Status)> {
    let probe = (token(), number()).prop_map(|(id, deadline_ms)| Probe { id, deadline_ms });
    let vote = ("[a-z]{0,48}", number()).prop_map(|(node_id, at_ms)| Vote { node_id, at_ms });
    let closed = (option::of(number()), windows(), vec(vote, 0..=32), option::of(number())).prop_map(
        |(counts_expire_at_ms, (plan, bytes), votes, ramp_since_ms)| {
            let windows = Windows { bytes };
            (plan, Status::Closed { counts_expire_at_ms, windows, votes, ramp_since_ms })
        },
    );
    let ended = || prop_oneof![0..70_u32, any::<u32>()];
    prop_oneof![
        2 => closed,
        1 => (plan(), number()).prop_map(|(plan, expires_at_ms)| (plan, Status::Open { expires_at_ms })),
        2 => (plan(), vec(probe, 0..=64), ended(), ended()).prop_map(|(plan, probes, successes, failures)| {
            (plan, Status::HalfOpen { probes, successes, failures })
        }),
    ]
    .boxed()
}

fn transition() -> BoxedStrategy<Transition> {
    use TransitionReason::{OpenTimeOver, Reset, Tripped, VotesReached};
    let state = || proptest::sample::select(&[State::Closed, State::Open, State::HalfOpen][..]);
    let reason = proptest::sample::select(&[Tripped, OpenTimeOver, VotesReached, Reset][..]);
    (state(), state(), reason, [number(), number(), number()], token())
        .prop_map(|(previous, next, reason, [at_ms, era, generation], by)| Transition {
            previous,
            next,
            reason,
            at_ms,
            era,
            generation,
            by,
        })
        .boxed()
}

fn applied() -> impl Strategy<Value = AppliedCall> {
    (token(), vec(any::<u8>(), 0..=32), option::of((any::<u16>(), any::<u32>())))
        .prop_map(|(token, stale, cut)| AppliedCall { token, stale, cut })
}

/// As many calls as there is room for.
fn applied_calls() -> BoxedStrategy<Vec<AppliedCall>> {
    vec(applied(), 0..=32)
        .prop_map(|calls| {
            let mut room: usize = 768;
            let bytes = |call: &AppliedCall| 17 + call.stale.len() + if call.cut.is_some() { 6 } else { 0 };
            let fits =
                |call: &AppliedCall| room.checked_sub(bytes(call)).inspect(|left| room = *left).is_some();
            calls.into_iter().take_while(fits).collect()
        })
        .boxed()
}

fn override_set() -> BoxedStrategy<Override> {
    use OverrideKind::{Disabled, ForcedClosed, ForcedOpen, MetricsOnly};
    let kind = proptest::sample::select(&[ForcedOpen, ForcedClosed, Disabled, MetricsOnly][..]);
    (kind, "[a-z]{0,128}", "\\PC{0,60}", option::of(number()))
        .prop_map(|(kind, author, reason, until_ms)| Override { kind, author, reason, until_ms })
        .boxed()
}

fn trip() -> BoxedStrategy<Trip> {
    let kind = proptest::sample::select(&[TripKind::FailureRate, TripKind::Votes, TripKind::Overdue][..]);
    (kind, [number(), number(), number(), number(), number()])
        .prop_map(|(kind, [observed, threshold, calls, at_ms, open_for_ms])| Trip {
            kind,
            observed,
            threshold,
            calls,
            at_ms,
            open_for_ms,
        })
        .boxed()
}

/// Any record that can be written down, whether calls could have led to it or not; with the settings of its windows.
fn record() -> BoxedStrategy<(Settings, Record)> {
    let said = (option::weighted(0.3, override_set()), vec(transition(), 0..=8), applied_calls());
    // In force are those settings, the same under a wrong digest, or none, as before there were any.
    let in_force = prop_oneof![4 => Just(Some(None)), 1 => any::<u64>().prop_map(|digest| Some(Some(digest))), 1 => Just(None)];
    let trips = (option::of(trip()), any::<u32>(), number());
    ([number(), number(), number(), number()], status(), counts(), said, in_force, trips)
        .prop_map(|([revision, era, generation, since_ms], (plan, status), counts, said, in_force, trips)| {
            let (override_set, transitions, applied) = said;
            let (last_trip, trips_in_a_row, forgotten_until) = trips;
            let in_force = in_force.map(|digest| {
                let in_force = InForce::new(&plan);
                InForce { fingerprint: digest.unwrap_or(in_force.fingerprint), ..in_force }
            });
            let record = Record {
                revision,
                era,
                generation,
                since_ms,
                status,
                counts,
                override_set,
                transitions,
                applied: applied.into(),
                in_force,
                last_trip,
                trips_in_a_row,
                forgotten_until,
            };
            (plan, record)
        })
        .boxed()
}

/// Calls of every kind, of an era that may be the record's.
fn operation(era: u64) -> BoxedStrategy<Operation> {
    let caller = || (token(), option::of(number())).prop_map(|(token, retry_of)| Caller { token, retry_of });
    let era = move || prop_oneof![3 => Just(era), 1 => number()];
    let completion =
        (era(), option::of(token()), outcome(), any::<bool>(), 1..65_537_u32, option::of(number())).prop_map(
            |(era, probe, outcome, slow, count, retry_after_ms)| {
                let count = if probe.is_some() { 1 } else { count };
                Completion { era, probe, outcome, slow, count, retry_after_ms }
            },
        );
    prop_oneof![
        3 => caller().prop_map(Operation::Start),
        4 => (caller(), vec(completion, 1..20)).prop_map(|(caller, parts)| Operation::End(caller, parts)),
        1 => (caller(), era(), vec(token(), 1..=64))
            .prop_map(|(caller, era, probes)| Operation::Renew { caller, era, probes }),
        1 => Just(Operation::Inspect),
        1 => (caller(), option::of(override_set())).prop_map(|(caller, set)| Operation::SetOverride(caller, set)),
        1 => (caller(), era(), "[a-z]{1,48}")
            .prop_map(|(caller, era, node_id)| Operation::Vote { caller, era, node_id }),
        1 => caller().prop_map(Operation::Reset),
    ]
    .boxed()
}

fn loaded(value: Vec<u8>) -> Loaded {
    Loaded { entry: Some(Entry { value, version: vec![1] }), now_ms: None }
}

/// Questions about each failure of a long run would only take time here.
fn quick(plan: Settings) -> Settings {
    let slow = |rule: &TripRule| *rule == TripRule::Custom(OwnRule::Never.custom());
    let trip_rules = plan.trip_rules.into_iter().filter(|rule| !slow(rule)).collect();
    Settings { trip_rules, ..plan }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn any_record_that_can_be_written_down_is_decided_on(
        other in plan(), own in any::<bool>(), now in number(), ((plan, record), operations) in record()
            .prop_flat_map(|(plan, record)| {
                let operations = vec(operation(record.era), 1..10);
                (Just((plan, record)), operations)
            }),
    ) {
        let settings = if own { plan } else { quick(other) };
        let mut bytes = record.to_bytes();
        prop_assert_eq!(&Record::from_bytes(&bytes).unwrap(), &record);
        for operation in operations {
            match decide(&request(&settings, &operation), &loaded(bytes.clone()), now, &mut NamedRules) {
                Ok(Decision::Write(write)) => {
                    let next = Record::from_bytes(&write.value);
                    prop_assert!(next.is_ok(), "{:?} wrote what cannot be read: {:?}", operation, next);
                    bytes = write.value;
                }
                Ok(Decision::Done(_)) | Err(Error::Forgotten | Error::Request(_)) => {}
                // Windows that are not those of the settings in force.
                Err(Error::Record(_)) if matches!(record.status, Status::Closed { .. }) => {}
                Err(error) => prop_assert!(false, "{:?}", error),
            }
        }
    }

    #[test]
    fn damaged_bytes_of_a_record_are_an_error_or_another_record(
        (plan, record) in record(), now in number(), operation in operation(1),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = record.to_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let readable = Record::from_bytes(&bytes);
        let decision = decide(&request(&quick(plan), &operation), &loaded(bytes), now, &mut NamedOrNever);
        match readable {
            // What is read only where it is needed may still be damaged.
            Ok(_) => prop_assert!(!matches!(decision, Err(Error::Record(RecordError::NewerSchema(_))))),
            Err(error) => prop_assert_eq!(decision, Err(Error::Record(error))),
        }
    }

    #[test]
    fn damaged_bytes_are_answered_the_same_way_twice(
        (plan, record) in record(), now in number(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut script = Script::new(quick(plan));
        let mut bytes = record.to_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        (script.bytes, script.now) = (Some(bytes), now.min(u64::MAX - 1_000));
        let caller = script.next_call();
        let mut twin = script.clone();
        let first = script.try_ask(&Operation::Reset(caller));
        prop_assert_eq!(first, twin.try_ask(&Operation::Reset(caller)));
        prop_assert_eq!(script.bytes, twin.bytes);
    }

    #[test]
    fn foreign_bytes_are_an_error(
        bytes in vec(any::<u8>(), 0..400), ours in option::of(0..3_u8), now in number(), operation in operation(1), plan in plan(),
    ) {
        let bytes = match ours {
            Some(schema) => [b"CKT", [schema].as_slice(), bytes.as_slice()].concat(),
            None => bytes,
        };
        let readable = Record::from_bytes(&bytes);
        // A record has nine fields at least; random bytes do not make one by chance.
        prop_assert!(matches!(readable, Err(RecordError::Malformed(_) | RecordError::NewerSchema(_))));
        let decision = decide(&request(&quick(plan), &operation), &loaded(bytes), now, &mut NamedRules);
        prop_assert_eq!(decision, Err(Error::Record(readable.unwrap_err())));
    }

    #[test]
    fn a_part_of_a_record_is_an_error((_, record) in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.to_bytes();
        let part = &bytes[..cut.index(bytes.len())];
        prop_assert!(matches!(Record::from_bytes(part), Err(RecordError::Malformed(_))));
    }
}
