//! The crates as they would be published: packed, unpacked, and used by a program outside the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, output, run, workspace};

/// What is published, in the order in which it has to be.
const CRATES: [&str; 7] = [
    "circuitry-core",
    "circuitry-component",
    "circuitry-store",
    "circuitry-redis",
    "circuitry-dynamodb",
    "circuitry",
    "circuitry-tower",
];

/// What the program depends on: what it uses, and what has to compile beside it. All else comes with these.
const DEPENDENCIES: &str = r#"
circuitry = "VERSION"
circuitry-component = "VERSION"
circuitry-dynamodb = "VERSION"
circuitry-redis = "VERSION"
circuitry-tower = "VERSION"
tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
"#;

/// Packs the crates and runs `tests/packed/main.rs` on what was packed; `tell` names the servers.
pub(crate) fn check(tell: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let version = version()?;
    let packed = pack()?;
    let folder = tempfile::Builder::new().prefix("circuitry-packed-").tempdir()?;
    let unpacked = folder.path().join("crates");
    fs::create_dir(&unpacked)?;
    for name in CRATES {
        let archive = packed.join(format!("{name}-{version}.crate"));
        run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked))?;
    }
    let program = folder.path().join("program");
    write_program(&program, &unpacked, &version)?;
    let mut test = cargo();
    // The compiled dependencies are those of the workspace, where features are the same.
    test.current_dir(&program).env("CARGO_TARGET_DIR", workspace().join("target")).args(["run", "--quiet"]);
    run(tell(&mut test))
}

/// Makes the archives and gives their folder.
fn pack() -> Result<PathBuf> {
    let mut package = cargo();
    // They are compiled by the program that uses them.
    package.args(["package", "--no-verify", "--quiet", "--target-dir"]).arg(workspace().join("target"));
    if std::env::var_os("CI").is_none() {
        package.arg("--allow-dirty");
    }
    for name in CRATES {
        package.args(["--package", name]);
    }
    run(&mut package)?;
    Ok(workspace().join("target/package"))
}

fn write_program(program: &Path, unpacked: &Path, version: &str) -> Result<()> {
    fs::create_dir_all(program.join("src"))?;
    let source = workspace().join("tests/packed/main.rs");
    fs::copy(&source, program.join("src/main.rs")).with_context(|| source.display().to_string())?;
    fs::copy(workspace().join("Cargo.lock"), program.join("Cargo.lock"))?;
    let mut manifest = String::from(
        "[package]\nname = \"packed\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n",
    );
    manifest += "\n[dependencies]";
    manifest += &DEPENDENCIES.replace("VERSION", version);
    // They are not in the registry yet, or another version is.
    manifest += "\n[patch.crates-io]\n";
    for name in CRATES {
        manifest += &format!("{name} = {{ path = {:?} }}\n", unpacked.join(format!("{name}-{version}")));
    }
    manifest +=
        "\n[profile.dev]\ndebug = \"line-tables-only\"\n\n[profile.dev.package.\"*\"]\ndebug = false\n";
    fs::write(program.join("Cargo.toml"), manifest)?;
    Ok(())
}

/// The version of the workspace's crates.
fn version() -> Result<String> {
    let id = output(cargo().args(["pkgid", "--package", CRATES[0]]))?;
    match id.trim().rsplit_once(['#', '@']) {
        Some((_, version)) => Ok(version.to_owned()),
        None => bail!("cargo names no version in {id:?}"),
    }
}
