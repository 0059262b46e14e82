//! [`Settings`]: how a circuit behaves, and which settings can be used.

use alloc::format;
use alloc::string::String;
use core::ops::RangeInclusive;

/// The bounds of `close_threshold`: every probe that is out is in the record, so there is a limit to them.
pub const CLOSE_THRESHOLD_BOUNDS: RangeInclusive<u32> = 1..=64;
/// The most bytes of a custom rule's name.
pub const RULE_NAME_MAX_BYTES: usize = 64;

/// The name and version that stand for a rule of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomRule {
    /// 1 to [`RULE_NAME_MAX_BYTES`] bytes.
    pub name: String,
    /// Raised by the user whenever the rule changes.
    pub version: u32,
}

/// When a closed circuit trips; asked after each failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TripRule {
    /// When the consecutive failures are *over* the threshold (as in the reference: 15 trips on the 16th).
    ConsecutiveFailures,
    /// When the host's hook says so.
    Custom(CustomRule),
}

/// How a circuit behaves. Times are lengths in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many consecutive failures a closed circuit bears.
    pub failure_count_threshold: u64,
    /// How many consecutive successful probes close the circuit, and how many may be out at once.
    pub close_threshold: u32,
    /// How long an open circuit refuses.
    pub allow_after_ms: u64,
    /// How long the counts of a closed circuit live from their first write on.
    pub cyclic_clear_after_ms: Option<u64>,
    /// How long a probe's lease lasts.
    pub probe_timeout_ms: u64,
    /// How long a record is kept after the last thing in it that matters.
    pub idle_retention_ms: u64,
    /// When a closed circuit trips.
    pub trip_rule: TripRule,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The field's name, as it is in WIT.
    pub field: &'static str,
    /// What is wrong and what would do.
    pub problem: String,
}

impl Settings {
    /// Says whether the settings can be used.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !CLOSE_THRESHOLD_BOUNDS.contains(&self.close_threshold) {
            return Err(SettingsError {
                field: "close-threshold",
                problem: format!(
                    "{} is out of bounds: give it {} to {}",
                    self.close_threshold,
                    CLOSE_THRESHOLD_BOUNDS.start(),
                    CLOSE_THRESHOLD_BOUNDS.end()
                ),
            });
        }
        let lengths = [
            ("allow-after-ms", Some(self.allow_after_ms)),
            ("cyclic-clear-after-ms", self.cyclic_clear_after_ms),
            ("probe-timeout-ms", Some(self.probe_timeout_ms)),
            ("idle-retention-ms", Some(self.idle_retention_ms)),
        ];
        for (field, length_ms) in lengths {
            if length_ms == Some(0) {
                return Err(SettingsError { field, problem: "it is zero: give it at least 1 ms".into() });
            }
        }
        if let TripRule::Custom(rule) = &self.trip_rule
            && !(1..=RULE_NAME_MAX_BYTES).contains(&rule.name.len())
        {
            return Err(SettingsError {
                field: "trip-rule",
                problem: format!(
                    "the rule's name has {} bytes: give it 1 to {RULE_NAME_MAX_BYTES}",
                    rule.name.len()
                ),
            });
        }
        Ok(())
    }

    /// A digest by which two processes tell that they have the same settings: FNV-1a, 64 bit, over the fields in
    /// their order (Fowler, Noll, Vo; draft-eastlake-fnv).
    pub fn fingerprint(&self) -> u64 {
        let mut digest = Fnv::new();
        digest.number(self.failure_count_threshold);
        digest.number(u64::from(self.close_threshold));
        digest.number(self.allow_after_ms);
        // A length is never zero, so zero stands for none.
        digest.number(self.cyclic_clear_after_ms.unwrap_or(0));
        digest.number(self.probe_timeout_ms);
        digest.number(self.idle_retention_ms);
        match &self.trip_rule {
            TripRule::ConsecutiveFailures => digest.number(0),
            TripRule::Custom(rule) => {
                digest.number(1);
                digest.number(u64::from(rule.version));
                digest.bytes(rule.name.as_bytes());
            }
        }
        digest.0
    }
}

struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
}
