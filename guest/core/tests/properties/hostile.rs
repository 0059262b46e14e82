//! What the store may hold that no call of ours has written.

use circuitry_core::applied::AppliedCall;
use circuitry_core::record::{
    Counts, Override, OverrideKind, Probe, Record, RecordError, State, Status, Token, Transition,
    TransitionReason,
};
use circuitry_core::{Decision, Entry, Error, Loaded, decide};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::translation::{NamedRules, request};
use crate::words::{Ask, Forced, Part, Plan, Rule, Went};
use crate::{cases, plan, plans};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 1_800_000_000_000..1_800_000_100_000_u64, u64::MAX - 100..=u64::MAX, any::<u64>(),]
}

fn token() -> impl Strategy<Value = Token> {
    (1..4_u64, 0..20_u64).prop_map(|(node, sequence)| Token { node, sequence })
}

fn counts() -> impl Strategy<Value = Counts> {
    [number(), number(), number(), number(), number()].prop_map(
        |[total, total_successes, total_failures, consecutive_successes, consecutive_failures]| Counts {
            total,
            total_successes,
            total_failures,
            consecutive_successes,
            consecutive_failures,
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    let probe = (token(), number()).prop_map(|(id, deadline_ms)| Probe { id, deadline_ms });
    prop_oneof![
        proptest::option::of(number()).prop_map(|counts_expire_at_ms| Status::Closed { counts_expire_at_ms }),
        number().prop_map(|expires_at_ms| Status::Open { expires_at_ms }),
        (vec(probe, 0..=64), prop_oneof![0..70_u32, any::<u32>()])
            .prop_map(|(probes, successes)| Status::HalfOpen { probes, successes }),
    ]
}

fn transition() -> impl Strategy<Value = Transition> {
    let state = || proptest::sample::select(&[State::Closed, State::Open, State::HalfOpen][..]);
    (state(), state(), number(), number(), number(), token()).prop_map(
        |(previous, next, at_ms, era, generation, by)| Transition {
            previous,
            next,
            reason: TransitionReason::Tripped,
            at_ms,
            era,
            generation,
            by,
        },
    )
}

fn applied() -> impl Strategy<Value = AppliedCall> {
    (token(), vec(any::<u8>(), 0..=32), proptest::option::of((any::<u16>(), any::<u32>())))
        .prop_map(|(token, stale, cut)| AppliedCall { token, stale, cut })
}

fn override_set() -> impl Strategy<Value = Override> {
    let kind = proptest::sample::select(&[OverrideKind::ForcedOpen, OverrideKind::ForcedClosed][..]);
    (kind, "[a-z]{0,128}", "\\PC{0,60}", proptest::option::of(number()))
        .prop_map(|(kind, author, reason, until_ms)| Override { kind, author, reason, until_ms })
}

/// Any record that can be written down, whether calls could have led to it or not.
fn record() -> impl Strategy<Value = Record> {
    let numbers = [number(), number(), number(), number()];
    let override_set = proptest::option::weighted(0.3, override_set());
    (numbers, status(), counts(), override_set, vec(transition(), 0..=8), vec(applied(), 0..=32)).prop_map(
        |([revision, era, generation, since_ms], status, counts, override_set, transitions, applied)| {
            let applied = applied.into();
            Record { revision, era, generation, since_ms, status, counts, override_set, transitions, applied }
        },
    )
}

/// Calls of every kind, of an era that may be the record's.
fn asks(era: u64) -> impl Strategy<Value = Ask> {
    let who = || (1..4_u64, 0..20_u64);
    let went = || proptest::sample::select(&[Went::Well, Went::Badly, Went::Neither][..]);
    let era = move || prop_oneof![3 => Just(era), 1 => number()];
    let part =
        (era(), proptest::option::of(who()), went(), 1..65_537_u32).prop_map(|(era, probe, went, times)| {
            Part { era, probe, went, times: if probe.is_some() { 1 } else { times } }
        });
    let forced = (any::<bool>(), "[a-z]{0,128}", proptest::option::of(number()))
        .prop_map(|(open, author, until)| Forced { open, author, reason: String::new(), until });
    prop_oneof![
        3 => who().prop_map(|who| Ask::Start { who }),
        4 => (who(), proptest::option::of(number()), vec(part, 1..20))
            .prop_map(|(who, retry_of, parts)| Ask::End { who, retry_of, parts }),
        1 => (who(), era(), vec(who(), 1..=64)).prop_map(|(who, era, probes)| Ask::Renew { who, era, probes }),
        1 => Just(Ask::Inspect),
        1 => (who(), proptest::option::of(number()), proptest::option::of(forced))
            .prop_map(|(who, retry_of, forced)| Ask::Force { who, retry_of, forced }),
    ]
}

fn loaded(value: Vec<u8>) -> Loaded {
    Loaded { entry: Some(Entry { value, version: vec![1] }), now_ms: None }
}

/// Questions about each failure of a long run would only take time here.
fn quick(plan: Plan) -> Plan {
    Plan { rule: plan.rule.filter(|rule| *rule != Rule::Never), ..plan }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn any_record_that_can_be_written_down_is_decided_on(
        plan in plan(), now in number(), (record, asks) in record()
            .prop_flat_map(|record| { let asks = vec(asks(record.era), 1..10); (Just(record), asks) }),
    ) {
        let plan = quick(plan);
        let mut bytes = record.to_bytes().unwrap();
        prop_assert_eq!(&Record::from_bytes(&bytes).unwrap(), &record);
        for ask in asks {
            match decide(&request(&plan, &ask), &loaded(bytes.clone()), now, &mut NamedRules) {
                Ok(Decision::Write(write)) => {
                    let next = Record::from_bytes(&write.value);
                    prop_assert!(next.is_ok(), "{:?} wrote what cannot be read: {:?}", ask, next);
                    bytes = write.value;
                }
                Ok(Decision::Done(_)) | Err(Error::Forgotten | Error::Request(_)) => {}
                Err(error) => prop_assert!(false, "{:?}", error),
            }
        }
    }

    #[test]
    fn damaged_bytes_of_a_record_are_an_error_or_another_record(
        plans in plans(), record in record(), now in number(), ask in asks(1),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = record.to_bytes().unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let readable = Record::from_bytes(&bytes);
        let decision = decide(&request(&quick(plans[0].clone()), &ask), &loaded(bytes), now, &mut NamedRules);
        match readable {
            Ok(_) => prop_assert!(!matches!(decision, Err(Error::Record(_)))),
            Err(error) => prop_assert_eq!(decision, Err(Error::Record(error))),
        }
    }

    #[test]
    fn foreign_bytes_are_an_error(bytes in vec(any::<u8>(), 0..400), ours in any::<bool>(), now in number(), ask in asks(1), plans in plans()) {
        let bytes = if ours { [b"CKT\x01", bytes.as_slice()].concat() } else { bytes };
        let readable = Record::from_bytes(&bytes);
        // A record has nine fields; random bytes do not make one by chance.
        prop_assert!(matches!(readable, Err(RecordError::Malformed(_) | RecordError::NewerSchema(_))));
        let decision = decide(&request(&quick(plans[0].clone()), &ask), &loaded(bytes), now, &mut NamedRules);
        prop_assert_eq!(decision, Err(Error::Record(readable.unwrap_err())));
    }

    #[test]
    fn a_part_of_a_record_is_an_error(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.to_bytes().unwrap();
        let part = &bytes[..cut.index(bytes.len())];
        prop_assert!(matches!(Record::from_bytes(part), Err(RecordError::Malformed(_))));
    }
}
