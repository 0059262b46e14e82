//! What is told and kept besides decisions: settings in force, votes, times to live.

use circuitry_core::request::Operation;
use circuitry_core::settings::{HalfOpenLimit, Overdue, Quorum, Window, WindowedRule};
use circuitry_core::{Answer, Outcome, Settings, TripRule};

use crate::agreement::explicit;
use crate::script::Script;

#[test]
fn an_overdue_phase_is_shown_alike_to_everybody_whatever_settings_they_bring() {
    let half_open_limit = Some(HalfOpenLimit { after_ms: 5, then: Overdue::Opens });
    let settings =
        Settings { failure_count_threshold: 0, allow_after_ms: 10, half_open_limit, ..Settings::default() };
    let mut script = Script::begun(settings.clone());
    script.failures(1).half_open();
    let own = script.wait(6).shown();
    script.settings = Settings { allow_after_ms: 1_000, ..settings };
    let others = script.shown();
    assert!(others.settings_differ);
    assert_eq!(explicit(&own.settings_in_force), explicit(&others.settings_in_force));
    assert_eq!((own.state, own.expires_at_ms), (others.state, others.expires_at_ms));
    assert_eq!(own.last_trip, others.last_trip);
}

#[test]
fn the_settings_in_force_are_shown_with_their_own_revision() {
    let mut script = Script::begun(Settings { settings_revision: 7, ..Settings::default() });
    script.settings.settings_revision = 3;
    assert_eq!(script.shown().settings_in_force.settings_revision, 7);
    script.settings.settings_revision = 9;
    assert_eq!(script.shown().settings_in_force.settings_revision, 7);
}

#[test]
fn a_repeated_vote_is_told_nothing_of_a_later_trip() {
    let settings = Settings {
        allow_after_ms: 10,
        close_threshold: 1,
        probes: Some(4),
        quorum: Some(Quorum { votes: 1, window_ms: 1_000 }),
        ..Settings::default()
    };
    let mut script = Script::begun(settings);
    let (caller, era) = (script.next_call(), script.record().era);
    let vote = Operation::Vote { caller, era, node_id: "node".into() };
    assert!(matches!(script.ask(&vote), Answer::Voted { accepted: true, votes: 1, .. }));
    let first = script.half_open();
    for probe in [Some(first), None, None, None] {
        let probe = probe.unwrap_or_else(|| script.probe());
        script.probe_ends(probe, Outcome::Failure);
    }
    assert_eq!(script.record().last_trip.unwrap().observed, 4);
    // The vote that opened it, or none that lives: four probes failed, and nobody else has voted.
    let Answer::Voted { votes, already_applied: true, .. } = script.ask(&vote) else { panic!("not known") };
    assert!(votes <= 1, "{votes} votes");
}

fn time_window(length: u64) -> Script {
    let rule = WindowedRule { threshold: 1_000, minimum_calls: 1, window: Window::Time(length) };
    let trip_rules = vec![TripRule::FailureCount(rule)];
    Script::begun(Settings { trip_rules, idle_retention_ms: 1, ..Settings::default() })
}

#[test]
fn a_record_lives_until_the_last_bucket_has_left_its_window() {
    // Twenty buckets of twenty milliseconds: a call at the beginning of one is seen for 400.
    let mut script = time_window(381);
    script.failures(1);
    let ttl = script.ttl.unwrap();
    assert_eq!(script.wait(399).shown().rules[0].observed, 1);
    assert!(ttl > 399, "the record is gone after {ttl} ms");
}

#[test]
fn a_record_lives_until_a_call_by_a_faster_clock_has_left_its_window() {
    let mut script = time_window(1_000);
    script.failures(1);
    script.now -= 500;
    script.failures(1);
    let ttl = script.ttl.unwrap();
    assert_eq!(script.wait(1_499).shown().rules[0].observed, 2);
    assert!(ttl > 1_499, "the record is gone after {ttl} ms");
}
