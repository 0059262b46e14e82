//! Lines on standard error.

use alloc::format;
use alloc::string::String;

use wasip2::cli::stderr::get_stderr;
use wasip2::random::random::get_random_u64;

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
pub(crate) fn sample(text: &str) {
    if get_random_u64().checked_rem(ONE_OF) == Some(0) {
        line(&format!("{text} (one of about {ONE_OF} such lines)"));
    }
}
