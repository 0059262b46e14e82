//! Installs what is missing. It says what it does, and touches nothing that is there.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{find, run as run_command};
use crate::compiler::{self, Compiler};
use crate::{deny, dynamodb_local, hosts, wasmtime};

/// Installs all that is missing.
pub(crate) fn run() -> Result<()> {
    let packages = missing_packages();
    if packages.is_empty() {
        println!("programs: all there");
    } else {
        install_packages(&packages)?;
    }
    dynamodb_local::folder()?;
    println!("DynamoDB Local: there");
    if !deny::is_installed() {
        deny::install()?;
    }
    println!("cargo-deny: there");
    if !wasmtime::is_installed() {
        wasmtime::install()?;
    }
    println!("wasmtime: there");
    Ok(())
}

/// Whether there is nothing to install.
pub(crate) fn is_complete() -> bool {
    missing_packages().is_empty()
        && dynamodb_local::is_here()
        && deny::is_installed()
        && wasmtime::is_installed()
}

/// The Debian packages of the programs that are missing.
fn missing_packages() -> Vec<&'static str> {
    let mut packages = Vec::new();
    let programs =
        [("redis-server", "redis-server"), ("java", "default-jre-headless"), ("openssl", "openssl")];
    for (program, package) in programs {
        if find(program).is_none() {
            packages.push(package);
        }
    }
    packages.extend(hosts::missing_packages());
    // Another compiler does, but only Debian's gives the recorded bytes.
    if !compiler::debian_is_installed() && (is_debian() || Compiler::find().is_err()) {
        packages.extend(compiler::DEBIAN_PACKAGES);
    }
    packages
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !is_debian() {
        bail!("missing: {list} (the names of Debian's packages); install what your system has for them");
    }
    if !rustix::process::getuid().is_root() {
        bail!("missing; as root: `apt-get install {list}`");
    }
    println!("installing with apt-get: {list}");
    let _no_services = NoNewServices::begin()?;
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    run_command(apt_get().arg("update"))?;
    run_command(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").is_file() && find("apt-get").is_some()
}

/// While this lives, packages that are installed start no service: the tests start their own servers, and port 6379
/// may be somebody's.
struct NoNewServices(Option<PathBuf>);

impl NoNewServices {
    const POLICY: &str = "/usr/sbin/policy-rc.d";
    const TEXT: &str = "#!/bin/sh\n# Written by `cargo xtask setup` of circuitry for as long as it installs. May be removed.\nexit 101\n";

    fn begin() -> Result<Self> {
        let policy = PathBuf::from(Self::POLICY);
        if policy.exists() && fs::read_to_string(&policy).ok().as_deref() != Some(Self::TEXT) {
            // The machine has its own rule.
            return Ok(Self(None));
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(&policy)
            .with_context(|| format!("cannot write {}", policy.display()))?;
        std::io::Write::write_all(&mut file, Self::TEXT.as_bytes())?;
        Ok(Self(Some(policy)))
    }
}

impl Drop for NoNewServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0 {
            let _ = fs::remove_file(policy);
        }
    }
}
