//! What a host may give that it should not: a clear error, nothing overwritten, and never another tenant's circuit.

use std::sync::Arc;

use circuitry_tests::contract::{StoreError, Swapped};
use circuitry_tests::keyvalue::buckets::{Buckets, Error, MemoryBuckets};
use circuitry_tests::keyvalue::host::World;

use crate::adapter::{Adapter, BUCKET, world};
use crate::answers::Answer;

const KEY: &str = "circuitry.emails=2Facme";
const CIRCUIT: &str = "emails/acme";

/// The text of an error of the kind that no repetition helps.
fn other<T: std::fmt::Debug>(answer: Answer<T>) -> String {
    match answer {
        Err(StoreError::Other(text)) => text,
        answer => panic!("this is no error of the kind `other`: {answer:?}"),
    }
}

/// An entry of ours, as it is stored.
fn ours() -> Vec<u8> {
    let (world, buckets, _) = world();
    Adapter::start(world).write(CIRCUIT, None, b"a record");
    buckets.read(BUCKET, KEY).unwrap().value.expect("it was written")
}

#[test]
fn an_entry_is_where_the_documentation_says() {
    let (world, buckets, _) = world();
    let version = Adapter::start(world).write(CIRCUIT, None, b"a record");
    let stored = buckets.read(BUCKET, KEY).unwrap().value.expect("it was written");
    let for_ever = [0xff; 8];
    let layout =
        [b"CRKV\x01", &*version, &for_ever, b"\0\x0b", CIRCUIT.as_bytes(), b"\0\0\0\x08", b"a record"];
    assert_eq!(stored, layout.concat());
    assert_eq!(buckets.keys(BUCKET), [KEY]);
}

#[test]
fn foreign_bytes_are_an_error_that_shows_them_and_are_never_overwritten() {
    for (foreign, shown) in [
        (b"".as_slice(), "an empty value"),
        (b"hello, world", "12 bytes that are no entry of a circuit, beginning with 68656c6c6f2c2077"),
        (b"CRKV\x01 and so on", "a damaged entry: it ends early"),
        (b"CRKV\x09", "schema 9"),
        (&[0xff; 100_000], "100000 bytes"),
    ] {
        let (world, buckets, _) = world();
        buckets.put(BUCKET, KEY, foreign);
        let mut adapter = Adapter::start(world);
        for text in [
            other(adapter.load(CIRCUIT)),
            other(adapter.swap(CIRCUIT, None, b"mine", None)),
            other(adapter.swap(CIRCUIT, Some(&[7; 16]), b"mine", None)),
        ] {
            assert!(text.contains(shown) && text.contains(KEY) && text.contains(BUCKET), "{text}");
            assert!(text.contains("CIRCUITRY_KEYVALUE_PREFIX"), "no remedy: {text}");
        }
        assert_eq!(buckets.read(BUCKET, KEY).unwrap().value.as_deref(), Some(foreign));
        assert_eq!(adapter.0.world().swaps, 0);
    }
}

#[test]
fn foreign_bytes_that_come_in_between_are_no_entry_that_won() {
    let (world, buckets, _) = world();
    let mut adapter = Adapter::start(World { buckets: Arc::new(Intruder(buckets.clone())), ..world });
    let text = other(adapter.swap(CIRCUIT, None, b"mine", None));
    assert!(text.contains("7 bytes that are no entry of a circuit"), "{text}");
    assert_eq!(buckets.read(BUCKET, KEY).unwrap().value.as_deref(), Some(b"foreign".as_slice()));
}

/// Writes under each key right before a swap of it.
struct Intruder(Arc<MemoryBuckets>);

impl Buckets for Intruder {
    fn read(&self, bucket: &str, key: &str) -> Result<circuitry_tests::keyvalue::buckets::Snapshot, Error> {
        self.0.read(bucket, key)
    }

    fn swap(
        &self,
        bucket: &str,
        key: &str,
        seen: &circuitry_tests::keyvalue::buckets::Snapshot,
        value: &[u8],
    ) -> Result<bool, Error> {
        self.0.put(bucket, key, b"foreign");
        self.0.swap(bucket, key, seen, value)
    }
}

#[test]
fn an_entry_with_any_byte_changed_or_cut_is_never_a_crash_nor_another_circuit() {
    let ours = ours();
    let changed = (0..ours.len()).flat_map(|at| {
        let mut changed = ours.clone();
        changed[at] ^= 0x40;
        [changed, ours[..at].to_vec()]
    });
    for bytes in changed {
        let (world, buckets, _) = world();
        buckets.put(BUCKET, KEY, &bytes);
        match Adapter::start(world).load(CIRCUIT) {
            // The version, the deadline or the record itself: that one is the state machine's to judge.
            Ok(loaded) => assert!(loaded.entry.is_none_or(|entry| entry.value.len() == b"a record".len())),
            Err(error) => assert!(matches!(error, StoreError::Other(_)), "{error:?}"),
        }
    }
}

#[test]
fn a_bucket_that_mixes_keys_up_gives_no_tenant_the_circuit_of_another() {
    let buckets = Arc::new(MemoryBuckets::folding_case());
    let mut adapter = Adapter::start(World::new(buckets.clone(), || 0));
    let version = adapter.write("emails/acme", None, b"of acme");
    for text in [
        other(adapter.load("emails/ACME")),
        other(adapter.swap("emails/ACME", None, b"of ACME", None)),
        other(adapter.swap("emails/ACME", Some(&version), b"of ACME", None)),
    ] {
        assert!(text.contains("another circuit than \"emails/ACME\""), "{text}");
        assert!(!text.contains("of acme"), "the record of another tenant is told: {text}");
    }
    assert_eq!(adapter.entry("emails/acme").expect("its own").value, b"of acme");
}

#[test]
fn prefixes_of_two_deployments_that_run_into_each_other_share_no_entry() {
    let (world, ..) = world();
    let with_prefix = |prefix: &str| {
        let environment = vec![("CIRCUITRY_KEYVALUE_PREFIX".to_owned(), prefix.to_owned())];
        Adapter::start(World { environment, ..world.clone() })
    };
    with_prefix("blue").write("green", None, b"of blue");
    let text = other(with_prefix("bluegr").load("een"));
    assert!(text.contains("another circuit than \"een\""), "{text}");
    assert_eq!(with_prefix("").entry("bluegree"), None);
}

#[test]
fn a_bucket_that_the_host_does_not_know_is_named_with_the_variable_to_set() {
    let (world, ..) = world();
    let environment = vec![("CIRCUITRY_KEYVALUE_BUCKET".to_owned(), "circuits".to_owned())];
    let mut adapter = Adapter::start(World { environment, opening_fails: Some(Error::NoSuchStore), ..world });
    for text in [other(adapter.load(CIRCUIT)), other(adapter.swap(CIRCUIT, None, b"", None))] {
        assert!(text.contains("\"circuits\"") && text.contains("CIRCUITRY_KEYVALUE_BUCKET"), "{text}");
    }
}

#[test]
fn a_bucket_without_access_is_denied() {
    let (world, ..) = world();
    let mut adapter = Adapter::start(World { opening_fails: Some(Error::AccessDenied), ..world });
    assert!(matches!(adapter.load(CIRCUIT), Err(StoreError::Denied(text)) if text.contains("grant it")));
    assert!(matches!(adapter.swap(CIRCUIT, None, b"", None), Err(StoreError::Denied(_))));
}

#[test]
fn a_prefix_that_is_too_long_is_refused_by_its_name() {
    let (world, ..) = world();
    let environment = vec![("CIRCUITRY_KEYVALUE_PREFIX".to_owned(), "p".repeat(65))];
    let text = other(Adapter::start(World { environment, ..world }).load(CIRCUIT));
    assert!(text.contains("CIRCUITRY_KEYVALUE_PREFIX has 65 bytes"), "{text}");
}

#[test]
fn a_host_that_is_short_of_randomness_writes_nothing() {
    let (world, buckets, _) = world();
    let mut adapter = Adapter::start(World { random_bytes_at_most: 3, ..world });
    let text = other(adapter.swap(CIRCUIT, None, b"", None));
    assert!(text.contains("3 random bytes"), "{text}");
    assert_eq!(buckets.keys(BUCKET), [""; 0]);
}

#[test]
fn a_message_of_any_length_is_cut() {
    let (world, ..) = world();
    let opening_fails = Some(Error::Other("é".repeat(1_000_000)));
    let Err(StoreError::Unavailable(text)) = Adapter::start(World { opening_fails, ..world }).load(CIRCUIT)
    else {
        panic!("the host says no")
    };
    assert!(text.len() < 1_000, "{} bytes", text.len());
}

#[test]
fn a_clock_of_any_time_expires_what_is_over_and_never_crashes() {
    let (world, _, clock) = world();
    let mut adapter = Adapter::start(world);
    for now_ms in [0, 1, u64::MAX / 1_000, u64::MAX - 1, u64::MAX] {
        clock.set_ms(now_ms);
        for ttl_ms in [0, 1, u64::MAX] {
            let circuit = format!("{now_ms} {ttl_ms}");
            let swapped = adapter.swap(&circuit, None, b"", Some(ttl_ms));
            assert!(matches!(swapped, Ok(Swapped::Stored(_))), "{circuit}: {swapped:?}");
            // Where time itself ends, so short a time to live cannot.
            let lives = now_ms.checked_add(ttl_ms).is_none_or(|deadline_ms| deadline_ms > now_ms);
            assert_eq!(
                adapter.entry(&circuit).is_some(),
                lives || now_ms.saturating_add(ttl_ms) == u64::MAX,
                "{circuit}"
            );
        }
    }
}

#[test]
fn no_time_is_told_because_the_clock_is_the_hosts_own() {
    let (world, ..) = world();
    let mut adapter = Adapter::start(world);
    assert_eq!(adapter.load(CIRCUIT).unwrap().now_ms, None);
    let Ok(Swapped::Stored(receipt)) = adapter.swap(CIRCUIT, None, b"", None) else {
        panic!("nobody else writes")
    };
    assert_eq!(receipt.now_ms, None);
    let Ok(Swapped::Conflict(fresh)) = adapter.swap(CIRCUIT, None, b"", None) else { panic!("a lost race") };
    assert_eq!(fresh.now_ms, None);
}

#[test]
fn an_entry_ends_at_the_deadline_beside_its_value_and_its_key_is_used_again() {
    let (world, buckets, clock) = world();
    let mut adapter = Adapter::start(world);
    let Ok(Swapped::Stored(first)) = adapter.swap(CIRCUIT, None, b"first", Some(1_000)) else {
        panic!("no entry yet")
    };
    clock.advance_ms(999);
    assert!(adapter.entry(CIRCUIT).is_some());
    clock.advance_ms(1);
    assert_eq!(adapter.entry(CIRCUIT), None);
    let on_the_old_one = adapter.swap(CIRCUIT, Some(&first.version), b"", None);
    assert!(matches!(on_the_old_one, Ok(Swapped::Conflict(fresh)) if fresh.entry.is_none()));
    adapter.write(CIRCUIT, None, b"second");
    assert_eq!(adapter.entry(CIRCUIT).expect("the second").value, b"second");
    assert_eq!(buckets.keys(BUCKET), [KEY]);
}
