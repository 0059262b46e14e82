//! All checks, in the order in which they are likely to fail and cheap to run.
//!
//! Every cargo command has the same packages and features (`--workspace --all-features`), so that wasmtime is
//! compiled once for the lints and once for the tests, and not again for each selection.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{cargo, interrupted, output, run as run_command, run_seeing, workspace};
use crate::services::Services;
use crate::{component, deny, hosts, package, setup};

/// Runs all checks, or with `fast` those that a change of code breaks most often. Stops at the first that fails.
pub(crate) fn run(fast: bool) -> Result<()> {
    let mut checks = Checks::default();
    let outcome = run_checks(&mut checks, fast);
    checks.summarize(outcome.is_ok());
    outcome
}

fn run_checks(checks: &mut Checks, fast: bool) -> Result<()> {
    if !setup::is_complete() {
        checks.check("setup", setup::run)?;
    }
    if std::env::var_os("CI").is_some() {
        checks.check("lock file", check_lock_file)?;
    }
    checks.check("format (cargo fmt)", || run_command(cargo().args(["fmt", "--all", "--", "--check"])))?;
    checks.check("lints (cargo clippy)", || {
        run_command(cargo().args([
            "clippy",
            "--all-targets",
            "--workspace",
            "--all-features",
            "--",
            "-Dwarnings",
        ]))
    })?;
    if !fast {
        checks.check("licences, bans, sources, advisories (cargo deny)", deny::check)?;
    }
    checks.check("components from source (cargo xtask component --check)", component::check)?;

    let counts = Counts::default();
    // Tests of the whole product start the examples as processes.
    checks.check("examples", || {
        run_command(cargo().args(["build", "--examples", "--workspace", "--all-features"]))
    })?;
    let services = checks.check("servers", Services::start)?;
    checks.check("host in JavaScript, built", hosts::build_javascript)?;
    checks.check("host in JavaScript, tests", || {
        hosts::test_javascript(|command| services.tell(command), counts.reader(hosts::result_of))
    })?;
    checks.check("host in Python, built", hosts::build_python)?;
    checks.check("host in Python, tests", || {
        hosts::test_python(|command| services.tell(command), counts.reader(hosts::result_of))
    })?;
    checks.check("tests", || {
        let mut test = cargo();
        test.args(["test", "--no-fail-fast", "--lib", "--bins", "--tests", "--workspace", "--all-features"]);
        run_seeing(services.tell(&mut test), counts.reader(result_of))
    })?;
    if !fast && has_benches()? {
        // Each bench once, unoptimized: it must run, its figures mean nothing.
        checks.check("benches, a trial run", || {
            let mut test = cargo();
            test.args(["test", "--bench", "*", "--workspace", "--all-features"]);
            run_command(services.tell(&mut test))
        })?;
    }
    checks.check("examples in the documentation (doctests)", || {
        let mut test = cargo();
        test.args(["test", "--no-fail-fast", "--doc", "--workspace", "--all-features"]);
        run_seeing(services.tell(&mut test), counts.reader(result_of))
    })?;
    if !fast {
        checks.check("crates, packed and used outside (cargo package)", || {
            package::check(|command| services.tell(command))
        })?;
    }
    drop(services);
    if !fast {
        checks.check("documentation (cargo doc)", || {
            let mut doc = cargo();
            doc.args(["doc", "--no-deps", "--workspace", "--all-features"]).env("RUSTDOCFLAGS", "-Dwarnings");
            run_command(&mut doc)
        })?;
    }
    checks.counts = Some(counts);
    Ok(())
}

/// Cargo completes a lock file that lacks something without a word; then everybody builds with other versions.
fn check_lock_file() -> Result<()> {
    let changed = output(Command::new("git").current_dir(workspace()).args([
        "status",
        "--porcelain",
        "--",
        "Cargo.lock",
    ]))?;
    if !changed.is_empty() {
        bail!("Cargo.lock does not fit the manifests as they are committed: commit it as cargo completed it");
    }
    Ok(())
}

/// Whether the workspace has a bench: cargo calls it an error to ask for benches where there is none.
fn has_benches() -> Result<bool> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(metadata.contains("\"kind\":[\"bench\"]"))
}

/// The checks that were run.
#[derive(Default)]
struct Checks {
    done: Vec<(&'static str, Duration)>,
    failed: Option<(&'static str, Duration)>,
    counts: Option<Counts>,
}

impl Checks {
    fn check<T>(&mut self, name: &'static str, check: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n=== {name} ===");
        let began = Instant::now();
        match check() {
            Ok(value) if !interrupted() => {
                self.done.push((name, began.elapsed()));
                Ok(value)
            }
            Ok(_) => bail!("interrupted"),
            Err(error) => {
                self.failed = Some((name, began.elapsed()));
                Err(error.context(format!("failed: {name}")))
            }
        }
    }

    fn summarize(&self, all_well: bool) {
        println!("\n=== summary ===");
        for (name, time) in &self.done {
            println!("ok      {:>7.1} s  {name}", time.as_secs_f64());
        }
        if let Some((name, time)) = &self.failed {
            println!("FAILED  {:>7.1} s  {name}", time.as_secs_f64());
        }
        if let (true, Some(counts)) = (all_well, &self.counts) {
            let (passed, failed) =
                (counts.passed.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed));
            println!("tests: {passed} passed, {failed} failed");
        }
    }
}

/// How many tests passed and failed, by the closing lines of their runners.
#[derive(Clone, Default)]
struct Counts {
    passed: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Counts {
    fn reader(&self, result_of: fn(&str) -> Option<(u64, u64)>) -> impl FnMut(&str) + Send + 'static {
        let counts = self.clone();
        move |line| {
            if let Some((passed, failed)) = result_of(line) {
                counts.passed.fetch_add(passed, Ordering::Relaxed);
                counts.failed.fetch_add(failed, Ordering::Relaxed);
            }
        }
    }
}

/// Passed and failed of a line such as `test result: ok. 12 passed; 0 failed; 0 ignored; …`.
fn result_of(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number =
        |word: &str| counts.split("; ").find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read_from_the_result_lines_only() {
        assert_eq!(
            result_of(
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s\n"
            ),
            Some((12, 0))
        );
        assert_eq!(result_of("test result: FAILED. 3 passed; 2 failed; 0 ignored\n"), Some((3, 2)));
        assert_eq!(result_of("test a_rule ... ok\n"), None);
    }

    #[test]
    fn a_check_that_fails_is_named_and_ends_the_run() {
        let mut checks = Checks::default();
        assert!(checks.check("first", || Ok(())).is_ok());
        let error = checks.check("second", || -> Result<()> { bail!("broken") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed: second: broken");
        assert_eq!(checks.failed.map(|(name, _)| name), Some("second"));
        assert_eq!(checks.done.len(), 1);
    }
}
