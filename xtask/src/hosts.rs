//! The hosts in other languages, `host/js` and `host/python`: built and tested with their own tools.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{find, output, run, run_seeing, workspace};

/// The oldest Node.js that `host/js` supports.
const OLDEST_NODE: u32 = 20;

/// Builds both, so that the tests of fleets in several languages can start their workers.
pub(crate) fn build() -> Result<()> {
    build_javascript()?;
    build_python()
}

/// Installs what `host/js` builds with, as its lock file says, and builds it.
pub(crate) fn build_javascript() -> Result<()> {
    check_node()?;
    run(npm().args(["ci", "--no-audit", "--no-fund"]))?;
    run(npm().args(["run", "build"]))
}

/// Makes `target/python`, an environment of its own, with `host/python` in it as it lies in the work tree.
pub(crate) fn build_python() -> Result<()> {
    if !python().is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(environment()))?;
    }
    let constraints = folder("python").join("constraints.txt");
    run(Command::new(python())
        .current_dir(folder("python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"])
        .arg(constraints)
        .args(["--editable", ".[test]"]))
}

/// Runs linter and tests of `host/js`; `tell` names the servers, `see` gets each line.
pub(crate) fn test_javascript(
    tell: impl FnOnce(&mut Command) -> &mut Command,
    see: impl FnMut(&str) + Send + 'static,
) -> Result<()> {
    run(npm().args(["run", "lint"]))?;
    run_seeing(tell(npm().arg("test")), see)
}

/// Runs linters and tests of `host/python`; `tell` names the servers, `see` gets each line.
pub(crate) fn test_python(
    tell: impl FnOnce(&mut Command) -> &mut Command,
    see: impl FnMut(&str) + Send + 'static,
) -> Result<()> {
    let module = |arguments: &[&str]| {
        let mut command = Command::new(python());
        command.current_dir(folder("python")).arg("-m").args(arguments);
        command
    };
    run(&mut module(&["ruff", "check"]))?;
    run(&mut module(&["ruff", "format", "--check"]))?;
    run(&mut module(&["mypy"]))?;
    run_seeing(tell(&mut module(&["pytest", "--quiet", "-p", "no:cacheprovider"])), see)
}

/// Passed and failed of the closing lines of Node's test runner and of pytest.
pub(crate) fn result_of(line: &str) -> Option<(u64, u64)> {
    let line = line.trim();
    for mark in ["# ", "ℹ "] {
        if let Some(rest) = line.strip_prefix(mark) {
            let count = |word: &str| rest.strip_prefix(word)?.trim().parse().ok();
            return count("pass ").map(|passed| (passed, 0)).or_else(|| Some((0, count("fail ")?)));
        }
    }
    // `12 passed, 1 failed in 3.21s`, in either order, perhaps between signs of equality.
    let (counts, _) = line.trim_matches('=').trim().split_once(" in ")?;
    let mut result = None;
    for part in counts.split(", ") {
        let (number, word) = part.split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        let (passed, failed) = result.unwrap_or_default();
        match word {
            "passed" => result = Some((passed + number, failed)),
            "failed" | "error" | "errors" => result = Some((passed, failed + number)),
            _ => {}
        }
    }
    result
}

/// What setup has to install for them.
pub(crate) fn missing_packages() -> Vec<&'static str> {
    let mut packages = Vec::new();
    if find("node").is_none() {
        packages.push("nodejs");
    }
    if find("npm").is_none() {
        packages.push("npm");
    }
    if find("chromium").is_none() {
        packages.push("chromium");
    }
    if !has_venv() {
        packages.extend(["python3", "python3-venv", "python3-pip"]);
    }
    packages
}

/// Whether `python3 -m venv` gives an environment with pip in it.
fn has_venv() -> bool {
    output(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}

fn check_node() -> Result<()> {
    let version = output(Command::new("node").arg("--version"))?;
    let major: Option<u32> =
        version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    match major {
        Some(major) if major >= OLDEST_NODE => Ok(()),
        _ => bail!("Node.js is {}; install {OLDEST_NODE} or newer", version.trim()),
    }
}

fn folder(name: &str) -> PathBuf {
    workspace().join("host").join(name)
}

fn environment() -> PathBuf {
    workspace().join("target/python")
}

/// Python of the environment.
pub(crate) fn python() -> PathBuf {
    environment().join("bin/python")
}

fn npm() -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder("js"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read_from_the_closing_lines_of_both_runners() {
        assert_eq!(result_of("# pass 12\n"), Some((12, 0)));
        assert_eq!(result_of("ℹ fail 1\n"), Some((0, 1)));
        assert_eq!(result_of("# tests 13\n"), None);
        assert_eq!(result_of("12 passed in 3.21s"), Some((12, 0)));
        assert_eq!(result_of("==== 1 failed, 12 passed, 2 skipped in 3.21s ====\n"), Some((12, 1)));
        assert_eq!(result_of("2 passed, 1 error in 0.02s"), Some((2, 1)));
        assert_eq!(result_of("a line in between"), None);
    }
}
