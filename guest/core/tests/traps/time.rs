//! Distributed: clocks, times to live, lost and foreign records, overrides.

use circuitry_core::record::{OverrideKind, Record, RecordError, State, Status};
use circuitry_core::request::{Operation, RefusalReason, Verdict};
use circuitry_core::{Answer, Error, Loaded, Outcome, Settings};

use crate::fleet::{BEGIN_MS, Fleet, error, of, settings};

const RETENTION_MS: u64 = 86_400_000;

#[test]
fn a_record_outlives_its_open_time() {
    let (fleet, _) = Fleet::tripped(settings());
    assert_eq!(fleet.store.ttl_ms, Some(60_000 + RETENTION_MS));
}

#[test]
fn every_write_sets_the_time_to_live_anew() {
    let mut fleet = Fleet::new(Settings {
        failure_count_threshold: 3,
        cyclic_clear_after_ms: Some(30_000),
        ..settings()
    });
    let permit = fleet.permit();
    assert_eq!(fleet.store.ttl_ms, Some(RETENTION_MS));
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.store.ttl_ms, Some(30_000 + RETENTION_MS));
    fleet.now_ms += 12_000;
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.store.ttl_ms, Some(18_000 + RETENTION_MS));
}

#[test]
fn a_record_outlives_its_leases() {
    let (mut fleet, _) = Fleet::to_be_probed(Settings { close_threshold: 3, ..settings() });
    let probe = fleet.probe();
    fleet.now_ms += 5_000;
    fleet.probe();
    assert_eq!(fleet.store.ttl_ms, Some(10_000 + RETENTION_MS));
    fleet.renew(probe);
    fleet.now_ms += 3_000;
    fleet.end(probe, Outcome::Success);
    // The other probe's lease.
    assert_eq!(fleet.store.ttl_ms, Some(7_000 + RETENTION_MS));
}

#[test]
fn an_override_without_end_never_expires() {
    let mut fleet = Fleet::new(settings());
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    assert_eq!(fleet.store.ttl_ms, None);
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Success);
    assert_eq!(fleet.store.ttl_ms, None);
}

#[test]
fn a_record_outlives_an_override_and_what_is_under_it() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.force(OverrideKind::ForcedClosed, Some(fleet.now_ms + 10_000)).unwrap();
    assert_eq!(fleet.store.ttl_ms, Some(60_000 + RETENTION_MS));
    fleet.force(OverrideKind::ForcedClosed, Some(fleet.now_ms + 70_000)).unwrap();
    assert_eq!(fleet.store.ttl_ms, Some(70_000 + RETENTION_MS));
}

#[test]
fn an_open_time_ends_to_the_millisecond() {
    let (mut fleet, _) = Fleet::tripped(Settings { allow_after_ms: 1_501, ..settings() });
    fleet.now_ms += 1_500;
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 1));
    fleet.now_ms += 1;
    fleet.probe();
}

#[test]
fn a_clock_that_is_behind_waits_longer_and_ends_nothing_early() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.now_ms -= 180_000;
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 240_000));
}

#[test]
fn the_stores_clock_replaces_one_that_is_behind() {
    let (mut fleet, _) = Fleet::tripped(settings());
    fleet.now_ms -= 180_000;
    fleet.store.clock_ms = Some(BEGIN_MS + 60_000);
    let probe = fleet.probe();
    assert_eq!(probe.probe.unwrap().deadline_ms, BEGIN_MS + 70_000);
}

#[test]
fn a_store_clock_that_is_behind_does_not_turn_time_back() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    fleet.store.clock_ms = Some(BEGIN_MS);
    fleet.probe();
}

#[test]
fn a_conflict_brings_a_later_time_too() {
    let mut fleet = Fleet::new(Settings { failure_count_threshold: 1, ..settings() });
    let permit = fleet.permit();
    let old = fleet.seen();
    fleet.end(permit, Outcome::Failure);
    fleet.store.clock_ms = Some(BEGIN_MS + 5_000);
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Failure, 1)]);
    fleet.call_knowing(Some(old), end).unwrap();
    assert_eq!(fleet.record().status, Status::Open { expires_at_ms: BEGIN_MS + 65_000 });
}

#[test]
fn a_later_time_of_an_entry_known_is_kept_through_a_conflict_that_tells_none() {
    let mut fleet = Fleet::new(Settings { failure_count_threshold: 1, ..settings() });
    let permit = fleet.permit();
    let old = Loaded { now_ms: Some(BEGIN_MS + 5_000), ..fleet.seen() };
    fleet.end(permit, Outcome::Failure);
    let end = Operation::End(fleet.caller(), vec![of(permit, Outcome::Failure, 1)]);
    fleet.call_knowing(Some(old), end).unwrap();
    assert_eq!(fleet.record().status, Status::Open { expires_at_ms: BEGIN_MS + 65_000 });
}

#[test]
fn an_era_grows_though_the_clock_goes_back() {
    let (mut fleet, permit) = Fleet::tripped(settings());
    let mut era = fleet.information().era;
    assert!(era > permit.era);
    for _ in 0..5 {
        fleet.now_ms += 60_000;
        let probe = fleet.probe();
        fleet.now_ms -= 600_000;
        fleet.end(probe, Outcome::Failure);
        assert!(fleet.information().era > probe.era && probe.era > era);
        era = fleet.information().era;
        fleet.now_ms += 600_000;
    }
}

#[test]
fn an_era_is_never_0_not_even_at_time_0() {
    let mut fleet = Fleet::new(settings());
    fleet.now_ms = 0;
    assert_eq!(fleet.permit().era, 1);
}

#[test]
fn the_end_of_time_stops_nothing() {
    let mut fleet = Fleet::new(Settings {
        allow_after_ms: u64::MAX,
        cyclic_clear_after_ms: Some(u64::MAX),
        probe_timeout_ms: u64::MAX,
        idle_retention_ms: u64::MAX,
        ..settings()
    });
    fleet.now_ms = u64::MAX - 2;
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Success);
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 2));
    fleet.now_ms = u64::MAX;
    let probe = fleet.probe();
    assert!(fleet.end(probe, Outcome::Success));
    assert_eq!((fleet.state(), fleet.store.ttl_ms), (State::Closed, Some(u64::MAX)));
}

#[test]
fn outcomes_of_before_a_loss_are_stale() {
    let mut fleet = Fleet::new(settings());
    let permit = fleet.permit();
    fleet.store.entry = None;
    assert!(!fleet.end(permit, Outcome::Failure));
    assert_eq!(fleet.store.entry, None, "an end makes no record");
    fleet.now_ms += 1;
    let later = fleet.permit();
    assert!(later.era > permit.era);
    assert!(!fleet.end(permit, Outcome::Failure));
    assert_eq!(fleet.state(), State::Closed);
}

#[test]
fn a_circuit_without_a_record_reads_as_closed_and_nothing_of_it_is_renewed() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    fleet.store.entry = None;
    assert_eq!(fleet.renew(probe), None);
    let information = fleet.information();
    assert_eq!((information.state, information.era, information.revision), (State::Closed, 0, 0));
    assert_eq!(fleet.store.entry, None);
}

#[test]
fn a_new_process_finds_the_shared_state_and_rearms_nothing() {
    let (mut fleet, _) = Fleet::tripped(settings());
    let seen = fleet.seen();
    // It has other settings, and asks for the first time.
    fleet.settings = Settings { allow_after_ms: 1_000_000, failure_count_threshold: 9, ..settings() };
    fleet.now_ms += 20_000;
    assert_eq!(fleet.refusal(), (RefusalReason::Open, 40_000));
    assert_eq!(fleet.seen(), seen);
}

#[test]
fn a_foreign_a_damaged_and_a_newer_record_are_errors_and_stay_as_they_are() {
    let (mut fleet, _) = Fleet::tripped(settings());
    let good = fleet.seen().entry.unwrap().value;
    let mut newer = good.clone();
    newer[3] = 3;
    let mut schema_0 = good.clone();
    schema_0[3] = 0;
    let foreign = [vec![], b"CKT".to_vec(), b"hello, world".to_vec(), b"CKU\x01\xa0".to_vec()];
    let damaged = [good[..good.len() - 1].to_vec(), [good.as_slice(), b"\0"].concat(), schema_0];
    for bytes in foreign.iter().chain(&damaged) {
        assert!(matches!(error_of(&mut fleet, bytes), Error::Record(RecordError::Malformed(_))));
    }
    assert_eq!(error_of(&mut fleet, &newer), Error::Record(RecordError::NewerSchema(3)));
}

fn error_of(fleet: &mut Fleet, bytes: &[u8]) -> Error {
    fleet.put_bytes(bytes);
    let seen = fleet.seen();
    let caller = fleet.caller();
    let start = error(fleet.call(Operation::Start(caller)));
    let end = Operation::End(
        caller,
        vec![circuitry_core::Completion {
            era: 1,
            probe: None,
            outcome: Outcome::Failure,
            slow: false,
            count: 1,
            retry_after_ms: None,
        }],
    );
    for operation in [end, Operation::Inspect, Operation::SetOverride(caller, None)] {
        assert_eq!(error(fleet.call(operation)), start);
    }
    assert_eq!(fleet.seen(), seen, "nothing is overwritten");
    start
}

#[test]
fn more_bytes_than_any_record_has_are_refused_unread() {
    let mut bytes = vec![0; 65_537];
    bytes[..4].copy_from_slice(b"CKT\x01");
    let Err(RecordError::Malformed(problem)) = Record::from_bytes(&bytes) else { panic!() };
    assert_eq!(problem, "65537 bytes are more than any record has");
    let Err(RecordError::Malformed(problem)) = Record::from_bytes(&bytes[..65_536]) else { panic!() };
    assert_ne!(problem, "65536 bytes are more than any record has");
}

#[test]
fn a_field_that_a_later_version_added_does_no_harm() {
    let (fleet, _) = Fleet::tripped(settings());
    let mut bytes = fleet.seen().entry.unwrap().value;
    // A CBOR map of twelve pairs becomes one of thirteen: 23 → "new".
    assert_eq!(bytes[4], 0xa0 | 12, "thirteen fields less the override that is none");
    bytes[4] += 1;
    bytes.extend([0x17, 0x63, b'n', b'e', b'w']);
    assert_eq!(Record::from_bytes(&bytes).unwrap(), fleet.record());
}

// ---- overrides ----

#[test]
fn a_forced_open_circuit_says_when_the_override_ends() {
    let mut fleet = Fleet::new(settings());
    fleet.force(OverrideKind::ForcedOpen, Some(fleet.now_ms + 7_000)).unwrap();
    assert_eq!(fleet.refusal(), (RefusalReason::ForcedOpen, 7_000));
    fleet.now_ms += 6_999;
    assert_eq!(fleet.refusal(), (RefusalReason::ForcedOpen, 1));
    fleet.now_ms += 1;
    fleet.permit();
}

#[test]
fn a_forced_open_circuit_without_end_is_asked_again_after_an_open_time() {
    let mut fleet = Fleet::new(settings());
    fleet.force(OverrideKind::ForcedOpen, None).unwrap();
    assert_eq!(fleet.refusal(), (RefusalReason::ForcedOpen, 60_000));
}

#[test]
fn an_override_is_no_new_era_and_what_is_under_it_goes_on() {
    let mut fleet = Fleet::new(Settings { failure_count_threshold: 5, ..settings() });
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Failure);
    fleet.force(OverrideKind::ForcedOpen, None).unwrap();
    // Work that was admitted before still counts.
    assert!(fleet.end(permit, Outcome::Failure));
    let caller = fleet.caller();
    fleet.call(Operation::SetOverride(caller, None)).unwrap();
    let information = fleet.information();
    assert_eq!((information.era, information.counts.consecutive_failures), (permit.era, 2));
    assert_eq!(information.override_in_force, None);
}

#[test]
fn a_forced_closed_circuit_counts_and_does_not_trip() {
    let mut fleet = Fleet::new(settings());
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    let permit = fleet.permit();
    let settled = fleet.settle(&[of(permit, Outcome::Failure, 50)]);
    assert_eq!((settled.dispositions[0].accepted, settled.transitions.len()), (50, 0));
    assert_eq!(fleet.information().counts.consecutive_failures, 50);
    let caller = fleet.caller();
    fleet.call(Operation::SetOverride(caller, None)).unwrap();
    fleet.end(permit, Outcome::Failure);
    assert_eq!(fleet.state(), State::Open);
}

#[test]
fn a_forced_closed_circuit_admits_without_probes_and_leaves_an_open_state_as_it_is() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    let before = fleet.information();
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Ignored] {
        let permit = fleet.permit();
        assert_eq!(permit.probe, None);
        assert!(fleet.end(permit, outcome));
    }
    assert_eq!(fleet.information(), before);
    assert_eq!(before.state, State::HalfOpen);
}

#[test]
fn a_forced_closed_permit_of_half_open_frees_no_place_and_counts_nothing() {
    let (mut fleet, _) = Fleet::to_be_probed(settings());
    let probe = fleet.probe();
    fleet.force(OverrideKind::ForcedClosed, None).unwrap();
    let permit = fleet.permit();
    assert_eq!(permit.era, probe.era);
    assert!(fleet.end(permit, Outcome::Success));
    assert!(fleet.end(permit, Outcome::Failure));
    let information = fleet.information();
    assert_eq!((information.state, information.probes.len()), (State::HalfOpen, 1));
    assert!(fleet.end(probe, Outcome::Success));
}

#[test]
fn the_last_override_set_replaces_the_others_and_tells_the_one_before() {
    let mut fleet = Fleet::new(settings());
    fleet.force(OverrideKind::ForcedOpen, Some(fleet.now_ms + 1_000)).unwrap();
    let Answer::Overridden { previous, already_applied } =
        fleet.force(OverrideKind::ForcedClosed, None).unwrap()
    else {
        panic!()
    };
    assert_eq!(previous.unwrap().kind, OverrideKind::ForcedOpen);
    assert!(!already_applied);
    assert!(matches!(fleet.start(), Verdict::Permit(_)));
}

#[test]
fn an_override_that_is_over_is_gone_with_the_next_write() {
    let mut fleet = Fleet::new(settings());
    fleet.force(OverrideKind::ForcedOpen, Some(fleet.now_ms + 1_000)).unwrap();
    fleet.now_ms += 1_000;
    assert_eq!(fleet.information().override_in_force, None);
    assert!(fleet.record().override_set.is_some(), "reading does not write");
    let permit = fleet.permit();
    fleet.end(permit, Outcome::Success);
    assert_eq!(fleet.record().override_set, None);
}

#[test]
fn an_override_that_is_over_already_is_refused() {
    let mut fleet = Fleet::new(settings());
    for until_ms in [0, fleet.now_ms - 1, fleet.now_ms] {
        assert!(matches!(error(fleet.force(OverrideKind::ForcedOpen, Some(until_ms))), Error::Request(_)));
    }
    fleet.force(OverrideKind::ForcedOpen, Some(fleet.now_ms + 1)).unwrap();
}
