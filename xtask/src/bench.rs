//! The benches, with their servers.

use anyhow::Result;

use crate::command::{cargo, run as run_command};
use crate::services::Services;

/// Runs the benches; `arguments` go to `cargo bench`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let services = Services::start()?;
    let mut bench = cargo();
    bench.args(["bench", "--package", "circuitry-benches"]).args(arguments);
    run_command(services.tell(&mut bench))
}
