//! For how long a circuit opens.

use crate::digest::Digest;
use crate::settings::{Settings, WHOLE_PER_MILLE};

/// How long the `trip`-th open time in a row lasts (from 1 on), in the circuit's era `era`.
///
/// `allow_after_ms`, longer by the backoff's factor for each trip before (rounded up to whole milliseconds each time) and at
/// most its longest; shorter by the jitter; at least what the upstream asked for, as far as that counts; at least 1 ms.
pub(crate) fn open_for_ms(
    settings: &Settings,
    circuit: &str,
    era: u64,
    trip: u32,
    retry_after_ms: Option<u64>,
) -> u64 {
    let grown_ms = grown(settings, trip);
    let shorter_per_mille = jitter(circuit, era, settings.jitter_per_mille);
    let jittered_ms = grown_ms.saturating_sub(per_mille_of(grown_ms, shorter_per_mille).0);
    jittered_ms.max(retry_after_ms.unwrap_or(0).min(settings.retry_after_max_ms)).max(1)
}

fn grown(settings: &Settings, trip: u32) -> u64 {
    let mut open_ms = settings.allow_after_ms;
    let Some(backoff) = &settings.backoff else { return open_ms };
    if backoff.factor_per_mille <= WHOLE_PER_MILLE {
        return open_ms;
    }
    for _ in 1..trip {
        open_ms = per_mille_of(open_ms, backoff.factor_per_mille.into()).1;
        if open_ms >= backoff.max_ms {
            return backoff.max_ms;
        }
    }
    open_ms
}

/// So many per mille of a length, rounded down and rounded up.
fn per_mille_of(length_ms: u64, per_mille: u64) -> (u64, u64) {
    const WHOLE: u64 = WHOLE_PER_MILLE as u64;
    let (thousands, rest) = (length_ms / WHOLE, length_ms % WHOLE);
    let (thousands, rest) = (thousands.saturating_mul(per_mille), rest.saturating_mul(per_mille));
    (thousands.saturating_add(rest / WHOLE), thousands.saturating_add(rest.div_ceil(WHOLE)))
}

/// 0 to `most`, by name and era: equal in every process, another for each circuit and each time.
fn jitter(circuit: &str, era: u64, most: u32) -> u64 {
    if most == 0 {
        return 0;
    }
    let mut digest = Digest::new();
    digest.text(circuit);
    digest.number(era);
    digest.finish().checked_rem(u64::from(most).saturating_add(1)).unwrap_or(0)
}
