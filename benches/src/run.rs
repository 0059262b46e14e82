//! [`Run`]: on what a suite was measured.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use cargo_metadata::MetadataCommand;
use serde::{Deserialize, Serialize};

use crate::suite::workspace;

/// The crates whose versions say what was measured.
const CRATES: [&str; 8] = [
    "wasmtime",
    "tokio",
    "redis",
    "aws-sdk-dynamodb",
    "criterion",
    "recloser",
    "failsafe",
    "tower-resilience-circuitbreaker",
];

/// The machine, the versions and the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Short; with ` + changes` where files differ from it.
    pub commit: String,
    /// The day, in UTC.
    pub date: String,
    /// The processor's model.
    pub processor: String,
    /// How many cores there are.
    pub cores: usize,
    /// The kernel and its release.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// Versions of crates.
    pub crates: BTreeMap<String, String>,
    /// Versions of servers.
    pub servers: BTreeMap<String, String>,
}

impl Run {
    /// Looks at this machine and this checkout. What cannot be told is called unknown.
    pub(crate) fn look(servers: BTreeMap<String, String>) -> Self {
        Self {
            commit: commit(),
            date: told(Command::new("date").args(["-u", "+%F"])),
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: told(Command::new("uname").arg("-sr")),
            rustc: told(Command::new("rustc").arg("--version")),
            crates: crates(),
            servers,
        }
    }
}

fn told(command: &mut Command) -> String {
    let output = command.current_dir(workspace()).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.and_then(|text| String::from_utf8(text).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn commit() -> String {
    let commit = told(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
    // What the report writes is no change of what is measured.
    let changes = told(Command::new("git").args([
        "status",
        "--porcelain",
        "--",
        ".",
        ":!benches/README.md",
        ":!benches/plots",
    ]));
    if changes.is_empty() { commit } else { commit + " + changes" }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned())
}

/// The versions that the benches' own dependencies are resolved to.
fn crates() -> BTreeMap<String, String> {
    let metadata = MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).exec();
    let Ok(metadata) = metadata else { return BTreeMap::new() };
    let node = metadata.resolve.as_ref().and_then(|resolve| {
        let own = metadata.packages.iter().find(|package| package.name.as_str() == "circuitry-benches")?;
        resolve.nodes.iter().find(|node| node.id == own.id)
    });
    let uses = |id| node.is_some_and(|node| node.dependencies.contains(id));
    let packages = metadata.packages.iter().filter(|package| uses(&package.id));
    packages
        .filter(|package| CRATES.contains(&package.name.as_str()))
        .map(|package| (package.name.to_string(), package.version.to_string()))
        .collect()
}
