//! The whole product on real servers and in real processes: what a fleet of workers can rely on.
//!
//! - [`defects`]: the seven defects of the breaker that this one re-creates, each as the rule that it broke
//! - [`processes`]: four processes on one circuit; [`killed_workers`]: one that dies while it holds the probe
//! - [`outages`]: Redis stands still, is out of reach, or dies and comes back empty
//! - [`lost_answers`]: swaps whose answer is lost; [`round_trips`]: what a call costs; [`clocks`]: whose clock counts
//! - [`simulated`]: what the simulated fleet of `benches/simulation` says of four processes, held to four real ones
//! - [`bad_input`]: what is stored under our name and is not ours, tables and addresses that do not fit
//! - `servers`, `workers`: the servers and the processes; `turns`: who runs beside whom
//!
//! A missing server is a failure. `cargo xtask test` starts those that all tests share; tests that disturb a server
//! start their own.

mod bad_input;
mod clocks;
mod defects;
mod killed_workers;
mod lost_answers;
mod outages;
mod processes;
mod round_trips;
mod servers;
mod simulated;
mod turns;
mod workers;

use std::time::Duration;

use tokio::time::Instant;

/// Asks again and again until the answer is there.
async fn eventually<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "after {within:?} it is still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What does not depend on when it was asked: the explanation tells how long ago things were.
fn timeless(information: circuitry::Information) -> circuitry::Information {
    let mut information = information;
    information.explanation.clear();
    information
}
