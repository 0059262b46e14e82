//! Writes the README's tables and plots from what the suites have left. `cargo xtask bench --report` runs it.

use std::process::ExitCode;

use circuitry_benches::report;
use circuitry_benches::suite::{results_folder, workspace};

fn main() -> ExitCode {
    match report::write(&results_folder(), &workspace().join("benches")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: benches/README.md is left as it was: {error}");
            ExitCode::FAILURE
        }
    }
}
