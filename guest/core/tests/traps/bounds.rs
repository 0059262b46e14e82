//! What is refused before anything is decided, by the name of what to change; and how large a record can become.

use circuitry_core::record::{Override, OverrideKind, Probe, Record, RecordError, Status, Token};
use circuitry_core::request::Operation;
use circuitry_core::settings::CustomRule;
use circuitry_core::{
    Completion, Error, Loaded, Outcome, Request, Settings, SettingsError, TripRule, decide,
};

use crate::fleet::{Fleet, Questions, of, settings};

fn field(settings: &Settings) -> Result<(), &'static str> {
    settings.check().map_err(|SettingsError { field, problem }| {
        assert!(problem.contains("give it"), "{problem} names no remedy");
        field
    })
}

fn named(name: &str) -> Settings {
    Settings { trip_rule: TripRule::Custom(CustomRule { name: name.into(), version: 0 }), ..settings() }
}

#[test]
fn settings_out_of_their_bounds_are_refused_with_the_fields_name() {
    assert_eq!(field(&settings()), Ok(()));
    for (close_threshold, answer) in
        [(0, Err("close-threshold")), (1, Ok(())), (64, Ok(())), (65, Err("close-threshold"))]
    {
        assert_eq!(field(&Settings { close_threshold, ..settings() }), answer);
    }
    assert_eq!(field(&Settings { allow_after_ms: 0, ..settings() }), Err("allow-after-ms"));
    assert_eq!(
        field(&Settings { cyclic_clear_after_ms: Some(0), ..settings() }),
        Err("cyclic-clear-after-ms")
    );
    assert_eq!(field(&Settings { probe_timeout_ms: 0, ..settings() }), Err("probe-timeout-ms"));
    assert_eq!(field(&Settings { idle_retention_ms: 0, ..settings() }), Err("idle-retention-ms"));
    assert_eq!(field(&named("")), Err("trip-rule"));
    assert_eq!(field(&named(&"r".repeat(64))), Ok(()));
    assert_eq!(field(&named(&"r".repeat(65))), Err("trip-rule"));
}

#[test]
fn settings_that_cannot_be_used_decide_nothing() {
    let mut fleet = Fleet::new(Settings { close_threshold: 0, ..settings() });
    let caller = fleet.caller();
    let failure = fleet.call(Operation::Start(caller)).unwrap_err();
    assert!(matches!(failure.error, Error::Settings(SettingsError { field: "close-threshold", .. })));
    assert_eq!(fleet.store.loads, 0);
}

#[test]
fn each_field_of_the_settings_changes_their_fingerprint_and_nothing_else_does() {
    let base = settings();
    let others = [
        Settings { failure_count_threshold: 1, ..settings() },
        Settings { close_threshold: 2, ..settings() },
        Settings { allow_after_ms: 1, ..settings() },
        Settings { cyclic_clear_after_ms: Some(1), ..settings() },
        Settings { probe_timeout_ms: 1, ..settings() },
        Settings { idle_retention_ms: 1, ..settings() },
        named("a"),
        named("b"),
        Settings { trip_rule: TripRule::Custom(CustomRule { name: "a".into(), version: 1 }), ..settings() },
    ];
    let mut fingerprints: Vec<u64> = others.iter().map(Settings::fingerprint).collect();
    fingerprints.push(base.fingerprint());
    assert_eq!(base.fingerprint(), settings().fingerprint());
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), others.len() + 1);
}

#[test]
fn a_fingerprint_is_the_same_in_every_version() {
    // FNV-1a over the fields, worked out apart from the code.
    assert_eq!(settings().fingerprint(), 0xc6df_7a88_0337_5172);
    assert_eq!(named("a").fingerprint(), 0xe131_08ee_b8ca_2916);
}

fn refused(operation: Operation) -> bool {
    let request = Request { circuit: "upstream".into(), settings: settings(), operation };
    match decide(&request, &Loaded::default(), 5, &mut Questions::default()) {
        Err(Error::Request(problem)) => {
            assert!(problem.contains("give"), "{problem} names no remedy");
            true
        }
        Ok(_) => false,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_circuits_name_has_1_to_1024_bytes() {
    let mut fleet = Fleet::new(settings());
    let caller = fleet.caller();
    for (name, good) in [
        (String::new(), false),
        ("n".into(), true),
        ("n".repeat(1_024), true),
        ("n".repeat(1_025), false),
        ("é".repeat(513), false),
        ("a\0{}:*/../\u{1f980}".into(), true),
    ] {
        let operation = Operation::Start(caller);
        let request = Request { circuit: name, settings: settings(), operation };
        let decision = decide(&request, &Loaded::default(), 5, &mut Questions::default());
        assert_eq!(decision.is_ok(), good);
        assert_eq!(matches!(decision, Err(Error::CircuitName(_))), !good);
    }
}

#[test]
fn an_end_has_1_to_256_completions_with_counts_in_their_bounds() {
    let mut fleet = Fleet::new(settings());
    let caller = fleet.caller();
    let one = |probe, count| Completion { era: 5, probe, outcome: Outcome::Success, count };
    let end = |completions: Vec<Completion>| refused(Operation::End(caller, completions));
    assert!(end(vec![]));
    assert!(!end(vec![one(None, 1)]));
    assert!(!end(vec![one(None, 1); 256]));
    assert!(end(vec![one(None, 1); 257]));
    assert!(end(vec![one(None, 1), one(None, 0)]));
    assert!(!end(vec![one(None, 65_536)]));
    assert!(end(vec![one(None, 65_537)]));
    assert!(!end(vec![one(Some(caller.token), 1)]));
    assert!(end(vec![one(Some(caller.token), 2)]));
    assert!(end(vec![one(Some(caller.token), 0)]));
}

#[test]
fn a_renewal_has_1_to_64_probes() {
    let mut fleet = Fleet::new(settings());
    let caller = fleet.caller();
    let renew = |count| refused(Operation::Renew { caller, era: 5, probes: vec![caller.token; count] });
    assert!(renew(0));
    assert!(!renew(1));
    assert!(!renew(64));
    assert!(renew(65));
}

#[test]
fn the_texts_of_an_override_are_bounded() {
    let mut fleet = Fleet::new(settings());
    let caller = fleet.caller();
    let set = |author: usize, reason: usize| {
        let (author, reason) = ("a".repeat(author), "r".repeat(reason));
        let wanted = Override { kind: OverrideKind::ForcedOpen, author, reason, until_ms: None };
        refused(Operation::SetOverride(caller, Some(wanted)))
    };
    assert!(!set(0, 0));
    assert!(!set(128, 256));
    assert!(set(129, 0));
    assert!(set(0, 257));
}

/// A record as large as calls can make it: every place taken, every token kept with scattered stale outcomes, an
/// override with the longest texts, the largest numbers.
fn largest() -> Record {
    let (mut fleet, permit) = Fleet::to_be_probed(Settings { close_threshold: 64, ..settings() });
    let mut probe = fleet.probe();
    while !fleet.end(probe, Outcome::Failure) || fleet.information().transitions.len() < 8 {
        fleet.now_ms += 60_000;
        probe = fleet.probe();
    }
    fleet.now_ms += 60_000;
    for _ in 0..64 {
        fleet.probe();
    }
    let wanted = Override {
        kind: OverrideKind::ForcedOpen,
        author: "a".repeat(128),
        reason: "r".repeat(256),
        until_ms: Some(u64::MAX),
    };
    let caller = fleet.caller();
    fleet.call(Operation::SetOverride(caller, Some(wanted))).unwrap();
    for _ in 0..32 {
        // One probe that frees its place makes it a write; the rest is stale.
        let Status::HalfOpen { probes, .. } = fleet.record().status else { panic!() };
        let own = Completion {
            era: fleet.record().era,
            probe: Some(probes[0].id),
            outcome: Outcome::Ignored,
            count: 1,
        };
        let mut completions = vec![of(permit, Outcome::Failure, 1); 256];
        completions[0] = own;
        fleet.settle(&completions);
    }
    let mut record = fleet.record();
    let large = u64::MAX - 1;
    let id = Token { node: large, sequence: large };
    let Status::HalfOpen { probes, .. } = &mut record.status else { panic!() };
    *probes = vec![Probe { id, deadline_ms: large }; 64];
    assert_eq!((record.applied.len(), record.transitions.len()), (32, 8));
    let mut calls = record.applied.to_vec();
    for call in &mut calls {
        (call.token, call.cut) = (id, Some((255, 65_535)));
    }
    record.applied = calls.into();
    for transition in &mut record.transitions {
        (transition.at_ms, transition.era, transition.generation) = (large, large, large);
        transition.by = id;
    }
    (record.revision, record.era, record.generation, record.since_ms) = (large, large, large, large);
    let counts = &mut record.counts;
    (counts.total, counts.total_successes, counts.total_failures) = (large, large, large);
    (counts.consecutive_successes, counts.consecutive_failures) = (large, large);
    record
}

#[test]
fn the_largest_record_has_less_than_5_kilobytes_and_4_where_calls_have_64_completions() {
    let mut record = largest();
    let bytes = record.to_bytes().unwrap();
    assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
    assert!(bytes.len() < 5_000, "{} bytes", bytes.len());
    let mut calls = record.applied.to_vec();
    for call in &mut calls {
        call.stale.truncate(64 / 8);
    }
    record.applied = calls.into();
    let bytes = record.to_bytes().unwrap();
    assert!(bytes.len() <= 4_096, "{} bytes", bytes.len());
}

#[test]
fn a_record_with_more_of_anything_than_calls_can_make_is_malformed() {
    let says = |change: &dyn Fn(&mut Record)| {
        let mut record = largest();
        change(&mut record);
        match Record::from_bytes(&record.to_bytes().unwrap()) {
            Err(RecordError::Malformed(problem)) => problem,
            other => panic!("{other:?}"),
        }
    };
    let probes = says(&|record| {
        let Status::HalfOpen { probes, .. } = &mut record.status else { panic!() };
        probes.push(probes[0]);
    });
    assert_eq!(probes, "65 probes are over the bound of 64");
    let transitions = says(&|record| record.transitions.push(record.transitions[0]));
    assert_eq!(transitions, "9 transitions are over the bound of 8");
    let applied = says(&|record| {
        let mut calls = record.applied.to_vec();
        calls.push(calls[0].clone());
        record.applied = calls.into();
    });
    assert_eq!(applied, "33 applied calls are over the bound of 32");
    let stale = says(&|record| {
        let mut calls = record.applied.to_vec();
        calls[7].stale.push(1);
        record.applied = calls.into();
    });
    assert_eq!(stale, "33 bytes of stale bits are over the bound of 32");
    let author = says(&|record| record.override_set.as_mut().unwrap().author.push('a'));
    assert_eq!(author, "129 bytes of an override's author are over the bound of 128");
    let reason = says(&|record| record.override_set.as_mut().unwrap().reason.push('r'));
    assert_eq!(reason, "257 bytes of an override's reason are over the bound of 256");
}
