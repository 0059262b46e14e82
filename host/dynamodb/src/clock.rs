//! [`ServerClock`]: the host's clock, corrected by the `Date` header of DynamoDB's answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use circuitry_store::Clock;

/// Up to here a difference may be the header's whole second and the way that the answer took.
const TOLERATED_MS: u64 = 2_000;
/// The header tells the second that has begun: the server's time is up to so much later.
const GRAIN_MS: u64 = 999;

/// The time by which entries age: the host's, unless the server's differs from it by more than two seconds.
#[derive(Debug)]
pub(crate) struct ServerClock {
    host: Box<dyn Clock>,
    table: String,
    learned: Mutex<Learned>,
}

#[derive(Debug, Default)]
struct Learned {
    /// What to add to the host's time.
    offset_ms: i64,
    /// The table has answered, with or without a `Date`: it is there, and nothing better will be known of the time.
    is_heard: bool,
}

impl ServerClock {
    pub(crate) fn new(host: Box<dyn Clock>, table: &str) -> Self {
        Self { host, table: table.to_owned(), learned: Mutex::default() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let offset_ms = self.learned().offset_ms;
        self.host.now_ms().saturating_add_signed(offset_ms)
    }

    /// Whether the table has answered a request of ours without an error, so that the time is as good as it gets.
    pub(crate) fn is_heard(&self) -> bool {
        self.learned().is_heard
    }

    /// A holder that panicked cannot have left half a change: both fields are plain numbers.
    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear_success(&self) {
        self.learned().is_heard = true;
    }

    /// Takes note of the time of an answer to what was `sent_at_ms` and `received_at_ms` by the host's clock.
    fn hear(&self, server_at_ms: u64, sent_at_ms: u64, received_at_ms: u64) {
        let mut learned = self.learned();
        let departs = |offset_ms| {
            let sent_at_ms = sent_at_ms.saturating_add_signed(offset_ms);
            let received_at_ms = received_at_ms.saturating_add_signed(offset_ms);
            departure_ms(server_at_ms, sent_at_ms, received_at_ms) > TOLERATED_MS
        };
        if !departs(learned.offset_ms) {
            return;
        }
        let table = self.table.as_str();
        if !departs(0) {
            learned.offset_ms = 0;
            tracing::info!(table, "this process's time agrees with DynamoDB's again and is used as it is");
            return;
        }
        let host_at_ms = sent_at_ms.midpoint(received_at_ms);
        learned.offset_ms = difference_ms(server_at_ms.saturating_add(GRAIN_MS / 2), host_at_ms);
        tracing::warn!(
            table,
            offset_ms = learned.offset_ms,
            "this process's time differs from DynamoDB's by more than 2 s: the host's clock was wrong when the process began, or the \
             machine has slept. Entries age by DynamoDB's time; a restart takes over a clock that was set right"
        );
    }
}

/// How far the server's time is, at the least, from any moment at which it may have answered.
///
/// Only what cannot be explained by a slow answer counts, so a slow answer never moves the clock.
fn departure_ms(server_at_ms: u64, sent_at_ms: u64, received_at_ms: u64) -> u64 {
    let ahead_ms = server_at_ms.saturating_sub(received_at_ms);
    let behind_ms = sent_at_ms.saturating_sub(server_at_ms.saturating_add(GRAIN_MS));
    ahead_ms.max(behind_ms)
}

fn difference_ms(to_ms: u64, from_ms: u64) -> i64 {
    let magnitude = i64::try_from(to_ms.abs_diff(from_ms)).unwrap_or(i64::MAX);
    if to_ms < from_ms { -magnitude } else { magnitude }
}

/// One request: notes whether it was sent, and lets the clock hear the answer's `Date`. Clones are the same request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    clock: Option<Arc<ServerClock>>,
    sent: Arc<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    was_sent: AtomicBool,
    /// When the latest attempt began, by the host's clock.
    at_ms: AtomicU64,
}

impl Call {
    pub(crate) fn new(clock: &Arc<ServerClock>) -> Self {
        Self { clock: Some(Arc::clone(clock)), sent: Arc::default() }
    }

    /// A request whose time interests nobody.
    pub(crate) fn without_clock() -> Self {
        Self { clock: None, sent: Arc::default() }
    }

    /// Whether the request may have left: from here on only its answer tells what became of it.
    pub(crate) fn was_sent(&self) -> bool {
        self.sent.was_sent.load(Ordering::SeqCst)
    }
}

impl Intercept for Call {
    fn name(&self) -> &'static str {
        "circuitry"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(clock) = &self.clock {
            // The answer is to the last attempt, where there are several.
            self.sent.at_ms.store(clock.host.now_ms(), Ordering::SeqCst);
        }
        self.sent.was_sent.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(clock) = &self.clock else { return Ok(()) };
        let received_at_ms = clock.host.now_ms();
        let sent_at_ms =
            if self.was_sent() { self.sent.at_ms.load(Ordering::SeqCst) } else { received_at_ms };
        let response = context.response();
        let headers = response.headers();
        // With an `Age`, a cache has answered and its `Date` is of some other day.
        let date = headers.get("date").filter(|_| headers.get("age").is_none());
        if let Some(server_at_ms) = date.and_then(http_date_ms) {
            clock.hear(server_at_ms, sent_at_ms, received_at_ms);
        }
        if response.status().is_success() {
            clock.hear_success();
        }
        Ok(())
    }
}

fn http_date_ms(date: &str) -> Option<u64> {
    let date = DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?;
    u64::try_from(date.to_millis().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitry_store::ManualClock;

    const NOON_MS: u64 = 1_800_000_000_000;
    const MINUTE_MS: u64 = 60_000;

    fn clocks() -> (ManualClock, ServerClock) {
        let host = ManualClock::at_ms(NOON_MS);
        (host.clone(), ServerClock::new(Box::new(host), "circuits"))
    }

    #[test]
    fn a_difference_of_two_seconds_is_left_alone() {
        for server_at_ms in [NOON_MS - 2_000, NOON_MS, NOON_MS + 2_000] {
            let (_, clock) = clocks();
            clock.hear(server_at_ms, NOON_MS, NOON_MS);
            assert_eq!(clock.now_ms(), NOON_MS);
        }
    }

    #[test]
    fn a_greater_difference_is_corrected_in_both_directions() {
        for server_at_ms in [NOON_MS - 10 * MINUTE_MS, NOON_MS + 3_000, NOON_MS + 10 * MINUTE_MS] {
            let (_, clock) = clocks();
            clock.hear(server_at_ms, NOON_MS, NOON_MS);
            assert_eq!(clock.now_ms(), server_at_ms + 499, "the middle of the second that the header tells");
        }
    }

    #[test]
    fn a_corrected_clock_does_not_jitter() {
        let (host, clock) = clocks();
        clock.hear(NOON_MS + MINUTE_MS, NOON_MS, NOON_MS);
        let corrected_ms = clock.now_ms();
        for passed_ms in [0, 1, 499, 500, 999, 1_000] {
            host.set_ms(NOON_MS + passed_ms);
            clock.hear(
                NOON_MS + MINUTE_MS + passed_ms / 1_000 * 1_000,
                NOON_MS + passed_ms,
                NOON_MS + passed_ms,
            );
            assert_eq!(clock.now_ms(), corrected_ms + passed_ms);
        }
    }

    #[test]
    fn a_slow_answer_is_no_difference() {
        let (host, clock) = clocks();
        host.advance_ms(9_000);
        for server_at_ms in [NOON_MS, NOON_MS + 5_000, NOON_MS + 9_000] {
            clock.hear(server_at_ms, NOON_MS, NOON_MS + 9_000);
            assert_eq!(clock.now_ms(), NOON_MS + 9_000);
        }
    }

    #[test]
    fn a_host_clock_that_is_set_right_is_used_as_it_is() {
        let (host, clock) = clocks();
        clock.hear(NOON_MS + 10 * MINUTE_MS, NOON_MS, NOON_MS);
        let right_ms = NOON_MS + 10 * MINUTE_MS;
        host.set_ms(right_ms);
        clock.hear(right_ms - 1_000, right_ms, right_ms);
        assert_eq!(clock.now_ms(), right_ms);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        for (server_at_ms, host_at_ms) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (0, 0)] {
            let host = ManualClock::at_ms(host_at_ms);
            let clock = ServerClock::new(Box::new(host), "circuits");
            clock.hear(server_at_ms, host_at_ms, host_at_ms);
            clock.now_ms();
        }
    }

    #[test]
    fn only_a_date_after_1970_is_a_date() {
        assert_eq!(http_date_ms("Thu, 01 Jan 1970 00:00:01 GMT"), Some(1_000));
        for unusable in ["", "yesterday", "Wed, 31 Dec 1969 23:59:59 GMT", "1800000000"] {
            assert_eq!(http_date_ms(unusable), None, "{unusable:?}");
        }
    }
}
