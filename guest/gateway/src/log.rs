//! Lines on standard error.

use alloc::format;
use alloc::string::String;

use wasip2::cli::stderr::get_stderr;
use wasip2::random::random::get_random_u64;

use crate::bindings::circuitry::breaker::types::{Error, StoreError};

/// The longest line; runtimes take 4 kB at once.
const LINE_MAX: usize = 1_000;

/// Of what may happen with each request, so many are one line.
const ONE_OF: u64 = 100;

/// Writes a line.
pub(crate) fn line(text: &str) {
    let plain = text.chars().take(LINE_MAX).map(|shown| if shown.is_control() { ' ' } else { shown });
    let line = format!("circuitry-gateway: {}\n", plain.collect::<String>());
    let mut rest = line.as_bytes();
    let stream = get_stderr();
    while !rest.is_empty() {
        let (part, more) = rest.split_at_checked(4_096).unwrap_or((rest, &[]));
        if stream.blocking_write_and_flush(part).is_err() {
            return;
        }
        rest = more;
    }
}

/// Writes one in a hundred of such lines: an instance does not know what the others wrote.
fn sample(text: &str) {
    if get_random_u64().checked_rem(ONE_OF) == Some(0) {
        line(&format!("{text} (one of about {ONE_OF} such lines)"));
    }
}

/// Says what happened: each time where somebody has to do something about it, and now and then where it passes by itself.
pub(crate) fn failed(circuit: &str, what: &str, error: &Error) {
    let about = |kind: &str, text: &str| format!("{what} of {circuit:?}: {kind}: {text}");
    match error {
        Error::Store(StoreError::Denied(text)) => line(&about("the store denies it", text)),
        Error::Store(StoreError::Other(text)) => line(&about("the store refuses it", text)),
        Error::StoredRecord(error) => line(&about("the stored record cannot be used", &format!("{error:?}"))),
        Error::Store(StoreError::Unavailable(text)) => sample(&about("the store is down", text)),
        Error::Store(StoreError::Unknown(text)) => sample(&about("an answer of the store is lost", text)),
        other => sample(&about("no answer", &format!("{other:?}"))),
    }
}
