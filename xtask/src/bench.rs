//! The benches, with their servers, and the report of what they measured.

use std::fs;

use anyhow::{Context, Result};

use crate::command::{cargo, run as run_command, workspace};
use crate::dynamodb_local;
use crate::hosts;
use crate::services::Services;

/// How DynamoDB Local's version is told, because the server does not tell it.
const DYNAMODB_VERSION: &str = "CIRCUITRY_TEST_DYNAMODB_VERSION";

/// Runs the benches, then writes what they measured into their README; `arguments` go to `cargo bench`.
///
/// Without arguments all are measured anew: a suite that fails leaves its figures unmeasured, and not as they were.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let measured = {
        let services = Services::start()?;
        if arguments.is_empty() {
            forget()?;
        }
        hosts::build()?;
        let mut bench = cargo();
        bench.args(["bench", "--package", "circuitry-benches", "--no-fail-fast"]).args(arguments);
        bench.env(DYNAMODB_VERSION, dynamodb_local::version()?);
        run_command(services.tell(&mut bench))
    };
    if is_measuring(arguments) {
        report()?;
    }
    measured
}

/// Writes the tables and the plots of the benches' README from what the suites have left.
pub(crate) fn report() -> Result<()> {
    let program =
        ["run", "--profile", "bench", "--package", "circuitry-benches", "--bin", "circuitry-bench-report"];
    run_command(cargo().args(program))
}

/// Removes what the suites have left.
fn forget() -> Result<()> {
    let folder = workspace().join("target/circuitry-bench");
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Whether `cargo bench` measures with these arguments, or only tries, builds or lists.
fn is_measuring(arguments: &[String]) -> bool {
    let only = ["--test", "--no-run", "--list"];
    !arguments.iter().any(|argument| only.contains(&argument.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_run_writes_no_report() {
        let given =
            |arguments: &[&str]| arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>();
        assert!(is_measuring(&[]));
        assert!(is_measuring(&given(&["--bench", "strict"])));
        assert!(!is_measuring(&given(&["--", "--test"])));
        assert!(!is_measuring(&given(&["--no-run"])));
    }
}
