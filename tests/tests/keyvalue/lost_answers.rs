//! Swaps of which a host does not tell the truth, or nothing. Each is sent once.

use circuitry_tests::contract::{StoreError, Swapped};
use circuitry_tests::keyvalue::host::{Fault, World};

use crate::adapter::{Adapter, world};
use crate::answers::Answer;

const CIRCUIT: &str = "payments";

/// A swap over `old` to which `fault` happens, and what the next instance reads after it.
fn swap_with(fault: Fault) -> (Answer<Swapped>, Vec<u8>) {
    let (world, ..) = world();
    let old = Adapter::start(world.clone()).write(CIRCUIT, None, b"old");
    let mut adapter = Adapter::start(World { faults: [fault].into(), ..world.clone() });
    let answer = adapter.swap(CIRCUIT, Some(&old), b"new", None);
    assert_eq!(adapter.0.world().swaps, 1, "a swap is sent once");
    let read = Adapter::start(world).entry(CIRCUIT).expect("one of the two");
    if let Ok(Swapped::Stored(receipt)) = &answer {
        assert_eq!(receipt.version, read.version);
    }
    (answer, read.value)
}

#[test]
fn a_swap_whose_answer_is_lost_is_stored_where_the_entry_shows_it() {
    let (answer, read) = swap_with(Fault::AnswerLost { reads_fail: 0 });
    assert!(matches!(answer, Ok(Swapped::Stored(_))), "{answer:?}");
    assert_eq!(read, b"new");
}

#[test]
fn a_swap_whose_answer_is_lost_with_the_connection_is_unknown() {
    let (answer, read) = swap_with(Fault::AnswerLost { reads_fail: 1 });
    assert!(
        matches!(&answer, Err(StoreError::Unknown(text)) if text.contains("the answer is lost")),
        "{answer:?}"
    );
    assert_eq!(read, b"new");
}

#[test]
fn a_swap_of_which_nothing_shows_is_unknown_for_it_may_be_on_its_way() {
    for reads_fail in [0, 1] {
        let (answer, read) = swap_with(Fault::WriteLost { reads_fail });
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        assert_eq!(read, b"old");
    }
}

#[test]
fn a_lost_race_that_shows_our_own_write_is_stored() {
    let (answer, read) = swap_with(Fault::SaidToBeLost);
    assert!(matches!(answer, Ok(Swapped::Stored(_))), "{answer:?}");
    assert_eq!(read, b"new");
}

#[test]
fn a_lost_race_that_nobody_has_won_is_unknown() {
    let (answer, read) = swap_with(Fault::Spurious);
    assert!(matches!(&answer, Err(StoreError::Unknown(text)) if text.contains("none did")), "{answer:?}");
    assert_eq!(read, b"old");
}

#[test]
fn a_lost_race_for_a_key_that_nobody_has_made_is_unknown() {
    let (world, ..) = world();
    let mut adapter = Adapter::start(World { faults: [Fault::Spurious].into(), ..world });
    let answer = adapter.swap(CIRCUIT, None, b"new", None);
    assert!(matches!(&answer, Err(StoreError::Unknown(text)) if text.contains("none did")), "{answer:?}");
    assert_eq!(adapter.entry(CIRCUIT), None);
}

#[test]
fn a_lost_race_for_an_entry_that_is_over_and_stays_so_is_unknown() {
    let (world, _, clock) = world();
    let written = Adapter::start(world.clone()).swap(CIRCUIT, None, b"old", Some(1));
    assert!(matches!(written, Ok(Swapped::Stored(_))), "{written:?}");
    clock.advance_ms(1);
    let mut adapter = Adapter::start(World { faults: [Fault::Spurious].into(), ..world });
    let answer = adapter.swap(CIRCUIT, None, b"new", None);
    assert!(matches!(&answer, Err(StoreError::Unknown(text)) if text.contains("none did")), "{answer:?}");
    assert_eq!(adapter.entry(CIRCUIT), None);
}

#[test]
fn a_swap_that_is_denied_is_not_unknown() {
    let (answer, read) = swap_with(Fault::Denied);
    assert!(matches!(answer, Err(StoreError::Denied(_))), "{answer:?}");
    assert_eq!(read, b"old");
}

#[test]
fn a_swap_that_cannot_read_what_it_replaces_is_unavailable_and_not_sent() {
    let (world, ..) = world();
    let mut adapter = Adapter::start(World { reads_fail: 1, ..world });
    let answer = adapter.swap(CIRCUIT, None, b"new", None);
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(adapter.0.world().swaps, 0);
}

#[test]
fn a_load_that_fails_is_unavailable_and_never_absence() {
    let (world, ..) = world();
    let mut adapter = Adapter::start(World { reads_fail: 1, ..world });
    let answer = adapter.load(CIRCUIT);
    assert!(
        matches!(&answer, Err(StoreError::Unavailable(text)) if text.contains("connection reset")),
        "{answer:?}"
    );
    assert_eq!(adapter.entry(CIRCUIT), None);
}
