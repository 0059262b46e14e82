//! Waiting, on the runtime's monotonic clock in nanoseconds.

use alloc::vec::Vec;

use wasip2::clocks::monotonic_clock;
use wasip2::io::poll::{Pollable, poll};

pub(crate) const NS_OF_MS: u64 = 1_000_000;

/// The time that is `milliseconds` after `begin_ns`.
pub(crate) fn after(begin_ns: u64, milliseconds: u64) -> u64 {
    begin_ns.saturating_add(milliseconds.saturating_mul(NS_OF_MS))
}

/// Waits until one of `pollables` is ready, at most until `deadline_ns`.
pub(crate) fn any(pollables: &[Pollable], deadline_ns: u64) {
    let timer = monotonic_clock::subscribe_instant(deadline_ns);
    let mut all: Vec<&Pollable> = pollables.iter().collect();
    all.push(&timer);
    poll(&all);
}

/// Waits `nanoseconds`.
pub(crate) fn pause(nanoseconds: u64) {
    if nanoseconds > 0 {
        monotonic_clock::subscribe_duration(nanoseconds).block();
    }
}
