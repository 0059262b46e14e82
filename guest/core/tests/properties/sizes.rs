//! How large a record can become.

use circuitry_core::applied::AppliedCall;
use circuitry_core::record::{
    Counts, InForce, Override, OverrideKind, Probe, Record, Status, Token, Transition, Trip, TripKind, Vote,
};
use circuitry_core::request::{Operation, PROBES_MAX};
use circuitry_core::settings::{
    Backoff, CustomRule, HalfOpenLimit, Overdue, Quorum, Ramp, Window, WindowedRule,
};
use circuitry_core::{Answer, Completion, Outcome, Settings, TripRule};
use proptest::prelude::*;

use crate::hooks::OwnRule;
use crate::moves::{beginning, moves};
use crate::plans::plans;
use crate::script::Script;
use crate::{cases, played};

const MOST: usize = 4_096;

/// The numbers that take the most room, and still are in bounds.
fn fattest(rules: Vec<TripRule>, quorum: Option<Quorum>) -> Settings {
    Settings {
        failure_count_threshold: u64::MAX,
        close_threshold: 64,
        allow_after_ms: u64::MAX / 2,
        cyclic_clear_after_ms: Some(u64::MAX),
        probe_timeout_ms: u64::MAX,
        idle_retention_ms: u64::MAX,
        trip_rules: rules,
        slow_call_after_ms: Some(u64::MAX),
        backoff: Some(Backoff { factor_per_mille: 100_000, max_ms: u64::MAX, healthy_after_ms: u64::MAX }),
        jitter_per_mille: 1_000,
        retry_after_max_ms: u64::MAX,
        probes: Some(64),
        probes_at_once: Some(64),
        half_open_limit: Some(HalfOpenLimit { after_ms: u64::MAX, then: Overdue::Closes }),
        ramp: Some(Ramp { steps_per_mille: (992..=999).collect(), step_ms: u64::MAX }),
        quorum,
        settings_revision: u64::MAX,
    }
}

/// Four rules over windows of which no two are the same.
fn four(windows: [Window; 4]) -> Vec<TripRule> {
    let rule = |window| {
        let threshold = if let Window::Calls(size) = window { size } else { u32::MAX };
        WindowedRule { threshold, minimum_calls: threshold, window }
    };
    windows.map(|window| TripRule::FailureCount(rule(window))).to_vec()
}

fn windows() -> Vec<[Window; 4]> {
    let calls = |less: u32| Window::Calls(1_024 - less);
    let time = |less: u64| Window::Time(u64::MAX - less);
    let decaying = |less: u64| Window::Decaying(u64::MAX - less);
    vec![
        [calls(0), calls(1), calls(2), calls(3)],
        [time(0), time(1), time(2), time(3)],
        [decaying(0), decaying(1), decaying(2), decaying(3)],
        [calls(0), time(0), decaying(0), calls(1)],
    ]
}

fn own_rule() -> TripRule {
    let custom = CustomRule { version: u32::MAX, ..OwnRule::Never.custom() };
    assert_eq!(custom.name.len(), 64);
    TripRule::Custom(custom)
}

/// An override that takes all the room it may.
fn spoken() -> Override {
    Override {
        kind: OverrideKind::MetricsOnly,
        author: "a".repeat(128),
        reason: "r".repeat(256),
        until_ms: Some(u64::MAX),
    }
}

/// By a node and with numbers that are as long as they can be, at a time when a lifetime reaches the end of time.
fn late(settings: Settings) -> Script {
    let mut script = Script::new(settings);
    script.node = u64::MAX;
    script.sequence = u64::MAX - 100_000;
    script.now = u64::MAX - 1_000_000;
    script.start().unwrap();
    script
}

fn set_override(script: &mut Script) {
    let caller = script.next_call();
    script.ask(&Operation::SetOverride(caller, Some(spoken())));
}

/// So many calls that the record has to remember with all their stale completions, and all transitions that it keeps.
fn remembering(script: &mut Script) {
    for _ in 0..9 {
        script.reset();
    }
    let fine = script.completion(None, Outcome::Success, 65_536);
    let stale = Completion { era: 1, ..fine };
    let alternating: Vec<Completion> = [fine, stale].into_iter().cycle().take(256).collect();
    for _ in 0..32 {
        script.end(&alternating);
    }
}

fn fits(script: &Script, what: &str) {
    let length = script.bytes.as_ref().unwrap().len();
    assert!(length <= MOST, "{what}: {length} bytes");
    println!("{what}: {length} bytes");
}

#[test]
fn a_record_has_at_most_4096_bytes_whatever_the_settings() {
    for windows in windows() {
        for rules in [four(windows), [&four(windows)[..3], &[own_rule()]].concat()] {
            let settings = fattest(rules, None);
            let mut script = late(settings.clone());
            remembering(&mut script);
            // Successes that are slow, and failures, in every bucket that there is.
            for _ in 0..40 {
                script.calls(Outcome::Success, true, 65_536);
                script.calls(Outcome::Failure, true, 500);
                script.wait(1_000);
            }
            set_override(&mut script);
            fits(&script, "windows");
            fits(&swollen(&script), "windows, swollen");
        }
    }
}

#[test]
fn a_record_with_all_votes_has_at_most_4096_bytes() {
    let quorum = Some(Quorum { votes: 32, window_ms: u64::MAX });
    let mut script = late(fattest([&four(windows()[0])[..3], &[own_rule()]].concat(), quorum));
    remembering(&mut script);
    for node in 0..31 {
        let vote = script.vote(&format!("{node:048}"));
        assert!(matches!(vote, Answer::Voted { accepted: true, .. }));
    }
    set_override(&mut script);
    assert_eq!(script.shown().votes.len(), 31);
    fits(&script, "votes");
    fits(&swollen(&script), "votes, swollen");
    // Under an override that lets nothing trip, more may vote than it takes.
    let caller = script.next_call();
    let closed = Override { kind: OverrideKind::ForcedClosed, ..spoken() };
    script.ask(&Operation::SetOverride(caller, Some(closed)));
    for node in 100..200 {
        let vote = script.vote(&format!("{node:048}"));
        assert!(matches!(vote, Answer::Voted { accepted: true, .. }));
        fits(&swollen(&script), "more votes, swollen");
    }
}

#[test]
fn a_record_with_all_probes_out_has_at_most_4096_bytes() {
    let rules = [four(windows()[0])[..3].to_vec(), vec![own_rule()]].concat();
    let mut script =
        late(Settings { allow_after_ms: 1_000, jitter_per_mille: 0, backoff: None, ..fattest(rules, None) });
    remembering(&mut script);
    // A transition cuts a run in two; half of what it is told with is stale.
    let fails = script.completion(None, Outcome::Failure, 65_536);
    script.end(&[fails; 256]);
    script.half_open();
    for _ in 1..64 {
        script.probe();
    }
    set_override(&mut script);
    assert_eq!(script.shown().probes.len(), PROBES_MAX);
    fits(&script, "probes");
    fits(&swollen(&script), "probes, swollen");
}

/// The same record with every number as large as it can be.
fn swollen(script: &Script) -> Script {
    let most = u64::MAX;
    let token = Token { node: most, sequence: most };
    let was = script.record();
    let status = match was.status {
        Status::Closed { windows, votes, .. } => Status::Closed {
            counts_expire_at_ms: Some(most),
            windows,
            votes: votes.into_iter().map(|vote| Vote { at_ms: most, ..vote }).collect(),
            ramp_since_ms: Some(most),
        },
        Status::Open { .. } => Status::Open { expires_at_ms: most },
        Status::HalfOpen { probes, .. } => Status::HalfOpen {
            probes: probes.iter().map(|_| Probe { id: token, deadline_ms: most }).collect(),
            successes: u32::MAX,
            failures: u32::MAX,
        },
    };
    let swell =
        |change: Transition| Transition { at_ms: most, era: most, generation: most, by: token, ..change };
    let counts = Counts {
        total: most,
        total_successes: most,
        total_failures: most,
        consecutive_successes: most,
        consecutive_failures: most,
    };
    let kind = TripKind::SlowCallRate;
    let trip = Trip { kind, observed: most, threshold: most, calls: most, at_ms: most, open_for_ms: most };
    // As many as the record has room for, each with a cut.
    let call = AppliedCall { token, stale: vec![1], cut: Some((255, u32::MAX)) };
    let record = Record {
        revision: most,
        era: most,
        generation: most,
        since_ms: most,
        status,
        counts,
        override_set: Some(spoken()),
        transitions: was.transitions.into_iter().map(swell).collect(),
        applied: vec![call; 32].into(),
        in_force: Some(InForce::new(&script.settings)),
        last_trip: Some(trip),
        trips_in_a_row: u32::MAX,
        forgotten_until: most,
    };
    let bytes = record.to_bytes();
    assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
    Script { bytes: Some(bytes), ..script.clone() }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_record_of_any_sequence_has_at_most_4096_bytes(plans in plans(), now in beginning(), moves in moves()) {
        for stored in played(&plans, now, &moves)?.entries.iter().flatten() {
            prop_assert!(stored.bytes.len() <= MOST, "{} bytes", stored.bytes.len());
        }
    }
}
