//! What is refused before anything is decided, by the name of what to change; and how large a record can become.

use circuitry_core::applied::{AppliedCall, AppliedCalls};
use circuitry_core::record::{
    Counts, InForce, Override, OverrideKind, Probe, Record, RecordError, State, Status, Token, Transition,
    TransitionReason, Trip, TripKind, Vote,
};
use circuitry_core::request::Operation;
use circuitry_core::settings::{
    Backoff, CustomRule, HalfOpenLimit, Overdue, Quorum, Ramp, Window, WindowedRule,
};
use circuitry_core::window::{Counted, Windows};
use circuitry_core::{
    Completion, Error, Loaded, Outcome, Request, Settings, SettingsError, TripRule, decide,
};

use crate::fleet::{Fleet, Questions, settings};

fn field(settings: &Settings) -> Result<(), &'static str> {
    settings.check().map_err(|SettingsError { field, problem }| {
        assert!(problem.contains(": "), "{problem} names no remedy");
        field
    })
}

fn named(name: &str) -> Settings {
    Settings {
        trip_rules: vec![TripRule::Custom(CustomRule { name: name.into(), version: 0 })],
        ..settings()
    }
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
    assert_eq!(field(&named("")), Err("trip-rules"));
    assert_eq!(field(&named(&"r".repeat(64))), Ok(()));
    assert_eq!(field(&named(&"r".repeat(65))), Err("trip-rules"));
}

#[test]
fn policies_out_of_their_bounds_are_refused_with_the_fields_name() {
    assert_eq!(field(&policies()), Ok(()));
    let policy = |change: &dyn Fn(&mut Settings)| {
        let mut settings = policies();
        change(&mut settings);
        field(&settings)
    };
    let rules = |rules: Vec<TripRule>| policy(&|settings| settings.trip_rules = rules.clone());
    assert_eq!(rules(vec![]), Ok(()));
    assert_eq!(rules(vec![TripRule::CONSECUTIVE_FAILURES; 4]), Ok(()));
    assert_eq!(rules(vec![TripRule::CONSECUTIVE_FAILURES; 5]), Err("trip-rules"));
    let own = TripRule::Custom(CustomRule { name: "own".into(), version: 1 });
    assert_eq!(rules(vec![own.clone(), own]), Err("trip-rules"));

    let rate = |threshold, minimum_calls, window| {
        rules(vec![TripRule::FailureRate(windowed(threshold, minimum_calls, window))])
    };
    let wrong = Err("trip-rules.failure-rate");
    for (threshold, answer) in [(0, wrong), (1, Ok(())), (1_000, Ok(())), (1_001, wrong)] {
        assert_eq!(rate(threshold, 1, Window::Calls(10)), answer);
    }
    for (calls, answer) in [(0, wrong), (1, Ok(())), (1_024, Ok(())), (1_025, wrong)] {
        assert_eq!(rate(500, 1, Window::Calls(calls)), answer);
    }
    for (minimum_calls, answer) in [(0, wrong), (1, Ok(())), (10, Ok(())), (11, wrong)] {
        assert_eq!(rate(500, minimum_calls, Window::Calls(10)), answer);
    }
    assert_eq!(rate(500, 11, Window::Time(1)), Ok(()));
    assert_eq!(rate(500, 1, Window::Time(0)), wrong);
    assert_eq!(rate(500, 1, Window::Decaying(0)), wrong);
    let count = |threshold, window| rules(vec![TripRule::FailureCount(windowed(threshold, 1, window))]);
    assert_eq!(count(10, Window::Calls(10)), Ok(()));
    assert_eq!(count(11, Window::Calls(10)), Err("trip-rules.failure-count"));
    assert_eq!(count(u32::MAX, Window::Time(1)), Ok(()));
    assert_eq!(policy(&|settings| settings.slow_call_after_ms = None), Err("slow-call-after-ms"));
    assert_eq!(policy(&|settings| settings.slow_call_after_ms = Some(0)), Err("slow-call-after-ms"));

    let backoff = |factor_per_mille, max_ms| {
        policy(&|settings| settings.backoff = Some(Backoff { factor_per_mille, max_ms, healthy_after_ms: 0 }))
    };
    assert_eq!(backoff(999, 60_000), Err("backoff.factor-per-mille"));
    assert_eq!(backoff(1_000, 60_000), Ok(()));
    assert_eq!(backoff(100_000, 60_000), Ok(()));
    assert_eq!(backoff(100_001, 60_000), Err("backoff.factor-per-mille"));
    assert_eq!(backoff(2_000, 59_999), Err("backoff.max-ms"));
    assert_eq!(policy(&|settings| settings.jitter_per_mille = 1_000), Ok(()));
    assert_eq!(policy(&|settings| settings.jitter_per_mille = 1_001), Err("jitter-per-mille"));

    let probes = |close_threshold, probes, probes_at_once| {
        policy(&|settings| {
            (settings.close_threshold, settings.probes, settings.probes_at_once) =
                (close_threshold, probes, probes_at_once);
        })
    };
    assert_eq!(probes(3, Some(2), Some(1)), Err("probes"));
    assert_eq!(probes(3, Some(3), Some(1)), Ok(()));
    assert_eq!(probes(3, Some(64), Some(64)), Ok(()));
    assert_eq!(probes(3, Some(65), Some(1)), Err("probes"));
    assert_eq!(probes(3, None, Some(0)), Err("probes-at-once"));
    assert_eq!(probes(3, None, Some(4)), Err("probes-at-once"));

    let limit = |after_ms| {
        policy(&|settings| settings.half_open_limit = Some(HalfOpenLimit { after_ms, then: Overdue::Opens }))
    };
    assert_eq!((limit(0), limit(1)), (Err("half-open-limit.after-ms"), Ok(())));
    let ramp = |steps: &[u32], step_ms| {
        policy(&|settings| settings.ramp = Some(Ramp { steps_per_mille: steps.to_vec(), step_ms }))
    };
    for steps in [&[][..], &[0], &[1_000], &[100, 100], &[200, 100], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        assert_eq!(ramp(steps, 1), Err("ramp.steps-per-mille"));
    }
    assert_eq!(ramp(&[1, 2, 3, 4, 5, 6, 7, 999], 1), Ok(()));
    assert_eq!(ramp(&[500], 0), Err("ramp.step-ms"));
    let quorum = |votes, window_ms| policy(&|settings| settings.quorum = Some(Quorum { votes, window_ms }));
    assert_eq!((quorum(0, 1), quorum(33, 1)), (Err("quorum.votes"), Err("quorum.votes")));
    assert_eq!((quorum(1, 1), quorum(32, 1)), (Ok(()), Ok(())));
    assert_eq!(quorum(1, 0), Err("quorum.window-ms"));
}

#[test]
fn settings_that_cannot_be_used_decide_nothing() {
    let mut fleet = Fleet::new(Settings { close_threshold: 0, ..settings() });
    let caller = fleet.caller();
    let failure = fleet.call(Operation::Start(caller)).unwrap_err();
    assert!(matches!(failure.error, Error::Settings(SettingsError { field: "close-threshold", .. })));
    assert_eq!(fleet.store.loads, 0);
}

fn windowed(threshold: u32, minimum_calls: u32, window: Window) -> WindowedRule {
    WindowedRule { threshold, minimum_calls, window }
}

/// Settings in which nothing is as by default.
fn policies() -> Settings {
    Settings {
        cyclic_clear_after_ms: Some(43_200_000),
        trip_rules: vec![
            TripRule::FailureCount(windowed(3, 5, Window::Calls(10))),
            TripRule::FailureRate(windowed(500, 10, Window::Time(60_000))),
            TripRule::SlowCallRate(windowed(800, 20, Window::Decaying(30_000))),
            TripRule::Custom(CustomRule { name: "own rule".into(), version: 7 }),
        ],
        slow_call_after_ms: Some(2_000),
        backoff: Some(Backoff { factor_per_mille: 2_000, max_ms: 600_000, healthy_after_ms: 900_000 }),
        jitter_per_mille: 100,
        retry_after_max_ms: 600_000,
        probes: Some(5),
        probes_at_once: Some(2),
        half_open_limit: Some(HalfOpenLimit { after_ms: 30_000, then: Overdue::Closes }),
        ramp: Some(Ramp { steps_per_mille: vec![100, 250, 500], step_ms: 60_000 }),
        quorum: Some(Quorum { votes: 3, window_ms: 120_000 }),
        ..settings()
    }
}

#[test]
fn each_field_of_the_settings_changes_their_fingerprint() {
    let rule = |rule| Settings { trip_rules: vec![rule], slow_call_after_ms: Some(1), ..settings() };
    let rate = |threshold, minimum_calls, window| {
        rule(TripRule::FailureRate(windowed(threshold, minimum_calls, window)))
    };
    let base = policies();
    let backoff = base.backoff.unwrap();
    let all = [
        settings(),
        base.clone(),
        Settings { failure_count_threshold: 1, ..base.clone() },
        Settings { close_threshold: 2, ..base.clone() },
        Settings { allow_after_ms: 1, ..base.clone() },
        Settings { cyclic_clear_after_ms: Some(1), ..base.clone() },
        Settings { cyclic_clear_after_ms: None, ..base.clone() },
        Settings { probe_timeout_ms: 1, ..base.clone() },
        Settings { slow_call_after_ms: Some(1), ..base.clone() },
        Settings { backoff: None, ..base.clone() },
        Settings { backoff: Some(Backoff { factor_per_mille: 1_500, ..backoff }), ..base.clone() },
        Settings { backoff: Some(Backoff { max_ms: 600_001, ..backoff }), ..base.clone() },
        Settings { backoff: Some(Backoff { healthy_after_ms: 1, ..backoff }), ..base.clone() },
        Settings { jitter_per_mille: 0, ..base.clone() },
        Settings { retry_after_max_ms: 0, ..base.clone() },
        Settings { probes: Some(6), ..base.clone() },
        Settings { probes_at_once: Some(3), ..base.clone() },
        Settings { half_open_limit: None, ..base.clone() },
        Settings {
            half_open_limit: Some(HalfOpenLimit { after_ms: 30_000, then: Overdue::Opens }),
            ..base.clone()
        },
        Settings {
            half_open_limit: Some(HalfOpenLimit { after_ms: 1, then: Overdue::Closes }),
            ..base.clone()
        },
        Settings { ramp: None, ..base.clone() },
        Settings { ramp: Some(Ramp { steps_per_mille: vec![100, 250], step_ms: 60_000 }), ..base.clone() },
        Settings { ramp: Some(Ramp { steps_per_mille: vec![100, 250, 500], step_ms: 1 }), ..base.clone() },
        Settings { quorum: None, ..base.clone() },
        Settings { quorum: Some(Quorum { votes: 2, window_ms: 120_000 }), ..base.clone() },
        Settings { quorum: Some(Quorum { votes: 3, window_ms: 1 }), ..base },
        named("a"),
        named("b"),
        rule(TripRule::Custom(CustomRule { name: "a".into(), version: 1 })),
        rule(TripRule::ConsecutiveFailures { minimum_calls: 1 }),
        rate(500, 10, Window::Calls(10)),
        rate(501, 10, Window::Calls(10)),
        rate(500, 9, Window::Calls(10)),
        rate(500, 10, Window::Calls(11)),
        rate(500, 10, Window::Time(10)),
        rate(500, 10, Window::Decaying(10)),
        rule(TripRule::FailureCount(windowed(500, 10, Window::Time(10)))),
        rule(TripRule::SlowCallRate(windowed(500, 10, Window::Time(10)))),
    ];
    let mut fingerprints: Vec<u64> = all.iter().map(Settings::fingerprint).collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), all.len());
}

#[test]
fn what_each_process_says_for_itself_is_not_in_the_fingerprint() {
    let fingerprint = policies().fingerprint();
    assert_eq!(Settings { idle_retention_ms: 1, ..policies() }.fingerprint(), fingerprint);
    assert_eq!(Settings { settings_revision: 1, ..policies() }.fingerprint(), fingerprint);
}

#[test]
fn a_fingerprint_is_the_same_in_every_version() {
    // Worked out apart from the code.
    assert_eq!(settings().fingerprint(), 0x15cd_acd3_4542_2eb5);
    assert_eq!(named("a").fingerprint(), 0xc300_24e0_5402_abdb);
    assert_eq!(policies().fingerprint(), 0x92db_c19a_b0b8_6235);
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
    let one = |probe, count| Completion {
        era: 5,
        probe,
        outcome: Outcome::Success,
        slow: false,
        count,
        retry_after_ms: None,
    };
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

/// Settings that take as much room as any.
fn largest_settings() -> Settings {
    let window = |number: u32| Window::Calls(1_021 + number);
    let windowed = |number| windowed(1_000, 1_000, window(number));
    Settings {
        failure_count_threshold: u64::MAX,
        close_threshold: 64,
        allow_after_ms: u64::MAX,
        cyclic_clear_after_ms: Some(u64::MAX),
        probe_timeout_ms: u64::MAX,
        trip_rules: vec![
            TripRule::Custom(CustomRule { name: "r".repeat(64), version: u32::MAX }),
            TripRule::SlowCallRate(windowed(1)),
            TripRule::FailureRate(windowed(2)),
            TripRule::FailureRate(windowed(3)),
        ],
        slow_call_after_ms: Some(u64::MAX),
        backoff: Some(Backoff { factor_per_mille: 100_000, max_ms: u64::MAX, healthy_after_ms: u64::MAX }),
        jitter_per_mille: 1_000,
        retry_after_max_ms: u64::MAX,
        probes: Some(64),
        probes_at_once: Some(64),
        half_open_limit: Some(HalfOpenLimit { after_ms: u64::MAX, then: Overdue::Closes }),
        ramp: Some(Ramp { steps_per_mille: vec![901, 902, 903, 904, 905, 906, 907, 908], step_ms: u64::MAX }),
        settings_revision: u64::MAX,
        ..settings()
    }
}

/// A record of which everything that every state has is as large as calls can make it.
fn largest(settings: &Settings, status: Status) -> Record {
    let large = u64::MAX - 1;
    let id = Token { node: large, sequence: large };
    let counts = Counts {
        total: large,
        total_successes: large,
        total_failures: large,
        consecutive_successes: large,
        consecutive_failures: large,
    };
    let transition = Transition {
        previous: State::HalfOpen,
        next: State::Open,
        reason: TransitionReason::Reset,
        at_ms: large,
        era: large,
        generation: large,
        by: id,
    };
    let mut applied = AppliedCalls::default();
    for _ in 0..100 {
        // Every second of 256 outcomes was stale, and a transition cut another.
        applied.push(&AppliedCall { token: id, stale: vec![0x55; 32], cut: Some((255, 65_535)) });
        applied.push(&AppliedCall { token: id, stale: vec![0x55; 1], cut: Some((255, 65_535)) });
        applied.push(&AppliedCall { token: id, stale: vec![], cut: None });
    }
    Record {
        revision: large,
        era: large,
        generation: large,
        since_ms: large,
        status,
        counts,
        override_set: Some(Override {
            kind: OverrideKind::MetricsOnly,
            author: "a".repeat(128),
            reason: "r".repeat(256),
            until_ms: Some(large),
        }),
        transitions: vec![transition; 8],
        applied,
        in_force: Some(InForce::new(settings)),
        last_trip: Some(Trip {
            kind: TripKind::Votes,
            observed: large,
            threshold: large,
            calls: large,
            at_ms: large,
            open_for_ms: large,
        }),
        trips_in_a_row: u32::MAX,
        forgotten_until: large,
    }
}

fn full_of_probes() -> Record {
    let large = u64::MAX - 1;
    let probe = Probe { id: Token { node: large, sequence: large }, deadline_ms: large };
    let status = Status::HalfOpen { probes: vec![probe; 64], successes: 63, failures: 63 };
    let settings = Settings { quorum: Some(Quorum { votes: 32, window_ms: u64::MAX }), ..largest_settings() };
    largest(&settings, status)
}

fn full_of_windows() -> Record {
    let settings = largest_settings();
    let mut windows = Windows::default();
    windows.count(&settings, Counted { count: 2_000, failed: true, slow: true }, u64::MAX);
    let status = Status::Closed {
        counts_expire_at_ms: Some(u64::MAX),
        windows,
        votes: vec![],
        ramp_since_ms: Some(u64::MAX),
    };
    largest(&settings, status)
}

fn full_of_votes() -> Record {
    let vote = Vote { node_id: "n".repeat(48), at_ms: u64::MAX };
    let status = Status::Closed {
        counts_expire_at_ms: Some(u64::MAX),
        windows: Windows::default(),
        votes: vec![vote; 32],
        ramp_since_ms: Some(u64::MAX),
    };
    let settings = Settings { quorum: Some(Quorum { votes: 32, window_ms: u64::MAX }), ..largest_settings() };
    largest(&settings, status)
}

#[test]
fn a_record_has_at_most_4_096_bytes_whatever_the_settings_and_the_calls() {
    for record in [full_of_probes(), full_of_windows(), full_of_votes()] {
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
        assert!(bytes.len() <= 4_096, "{} bytes of {:?}", bytes.len(), record.status.state());
        println!("{:?}: {} bytes", record.status.state(), bytes.len());
    }
}

#[test]
fn a_record_with_more_of_anything_than_calls_can_make_is_malformed() {
    let says = |change: &dyn Fn(&mut Record)| {
        let mut record = full_of_probes();
        change(&mut record);
        match Record::from_bytes(&record.to_bytes()) {
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
    let call = |stale: usize| AppliedCall {
        token: Token { node: 1, sequence: 2 },
        stale: vec![0x55; stale],
        cut: None,
    };
    let applied = says(&|record| record.applied = vec![call(0); 33].into());
    assert_eq!(applied, "33 applied calls are over the bound of 32");
    let bytes = says(&|record| record.applied = vec![call(32); 16].into());
    assert_eq!(bytes, "784 bytes of applied calls are over the bound of 768");
    let stale = says(&|record| record.applied = vec![call(33)].into());
    assert_eq!(stale, "the applied calls are damaged");
    let settings = says(&|record| record.in_force.as_mut().unwrap().bytes = vec![0; 449]);
    assert_eq!(settings, "449 bytes of settings are over the bound of 448");
    let votes = says(&|record| {
        *record = full_of_votes();
        let Status::Closed { votes, .. } = &mut record.status else { panic!() };
        votes.push(votes[0].clone());
    });
    assert_eq!(votes, "33 votes are over the bound of 32");
    let node_id = says(&|record| {
        *record = full_of_votes();
        let Status::Closed { votes, .. } = &mut record.status else { panic!() };
        votes[3].node_id.push('n');
    });
    assert_eq!(node_id, "49 bytes of a node's id are over the bound of 48");
    let author = says(&|record| record.override_set.as_mut().unwrap().author.push('a'));
    assert_eq!(author, "129 bytes of an override's author are over the bound of 128");
    let reason = says(&|record| record.override_set.as_mut().unwrap().reason.push('r'));
    assert_eq!(reason, "257 bytes of an override's reason are over the bound of 256");
}
