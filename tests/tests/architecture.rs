//! Who may depend on whom, as tests. ARCHITECTURE.md gives the reasons.
//!
//! Arrows are the normal and build dependencies that cargo resolves with all features on. What only tests of a crate
//! use (its dev-dependencies) is not shipped, so it has a table of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, Package, PackageId, TargetKind};

/// What each crate of the workspace may use of the workspace: in what it ships, and besides in its tests.
/// A crate that is not here fails the test: whoever adds one says where it stands.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("circuitry-core", &[], &[]),
    ("circuitry-guest", &["circuitry-core"], &[]),
    ("circuitry-hooks", &[], &[]),
    ("circuitry-gateway", &[], &[]),
    ("circuitry-store-redis", &[], &[]),
    ("circuitry-store-keyvalue", &[], &[]),
    ("circuitry-component", &[], &[]),
    ("circuitry-store", &[], &["circuitry-store"]),
    ("circuitry-redis", &["circuitry-store"], &["circuitry-redis"]),
    ("circuitry-dynamodb", &["circuitry-store"], &["circuitry-dynamodb"]),
    (
        "circuitry",
        &["circuitry-component", "circuitry-store"],
        // Its examples and doctests show it on every store.
        &["circuitry", "circuitry-dynamodb", "circuitry-redis"],
    ),
    // Its example shares circuits through Redis, and its tests let the store fail.
    ("circuitry-tower", &["circuitry"], &["circuitry-redis", "circuitry-store", "circuitry-tower"]),
    // The fleet's tests hold the simulation to real processes.
    ("circuitry-tests", PRODUCT, &["circuitry-simulation"]),
    ("circuitry-benches", PRODUCT, &[]),
    ("circuitry-simulation", &["circuitry-core"], &[]),
    ("xtask", &["circuitry-component"], &[]),
];

/// Suites that cross crates see all of them, but for the guest's glue: they use the built component.
const PRODUCT: &[&str] = &[
    "circuitry",
    "circuitry-component",
    "circuitry-core",
    "circuitry-dynamodb",
    "circuitry-redis",
    "circuitry-store",
    "circuitry-tower",
];

/// The crates of `guest/` that are bindings: each becomes a component and is used as that.
const GLUE: &[&str] = &[
    "circuitry-guest",
    "circuitry-hooks",
    "circuitry-store-keyvalue",
    "circuitry-gateway",
    "circuitry-store-redis",
];

/// What the core may link. Encoding of records is all that it does not do itself.
const CORE_MAY_LINK: &[&str] = &["circuitry-core", "minicbor"];

#[test]
fn the_host_crates_never_link_the_core() {
    for name in host_crates() {
        assert_no_path(name, |crate_name| crate_name == "circuitry-core");
    }
}

#[test]
fn the_store_knows_neither_wasmtime_nor_circuit_breakers() {
    assert_no_path("circuitry-store", |name| {
        is_runtime(name) || (name.starts_with("circuitry") && name != "circuitry-store")
    });
}

#[test]
fn adapters_depend_on_the_store_and_not_on_the_runtime() {
    for adapter in ["circuitry-redis", "circuitry-dynamodb"] {
        assert!(linked("circuitry-store", adapter), "{adapter} does not depend on circuitry-store");
        assert_no_path(adapter, |name| {
            is_runtime(name)
                || (name.starts_with("circuitry") && name != adapter && name != "circuitry-store")
        });
    }
}

#[test]
fn only_circuitry_runs_webassembly_among_the_host_crates() {
    // Whoever has it through circuitry runs nothing itself.
    let otherwise = |name: &&str| paths(name, |package| package.name.as_str() != "circuitry");
    let runners: Vec<_> = host_crates().filter(|name| otherwise(name).contains_key("wasmtime")).collect();
    assert_eq!(runners, ["circuitry"]);
}

#[test]
fn the_core_depends_on_no_io_clock_randomness_or_bindings() {
    // A macro runs in the compiler; what it makes of its input is the core's own code.
    let strangers: Vec<_> = paths("circuitry-core", |package| !is_macro(package))
        .into_keys()
        .filter(|name| !CORE_MAY_LINK.contains(&name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "circuitry-core links {strangers:?}; it may link {CORE_MAY_LINK:?}");

    // The standard library's features of a dependency would bring all of it back.
    for dependency in &member("circuitry-core").dependencies {
        if dependency.kind == DependencyKind::Normal {
            assert!(!dependency.uses_default_features, "{} with its default features", dependency.name);
            assert!(
                !dependency.features.iter().any(|feature| feature == "std"),
                "{} with std",
                dependency.name
            );
        }
    }
}

#[test]
fn the_core_is_no_std_and_forbids_unsafe_code() {
    let folder = folder_of("circuitry-core");
    let root = read(&folder.join("src/lib.rs"));
    assert!(root.lines().any(|line| line == "#![no_std]"), "guest/core/src/lib.rs has no line #![no_std]");
    assert!(root.lines().any(|line| line == "#![forbid(unsafe_code)]"), "and none that forbids unsafe code");
    for file in rust_files(&folder.join("src")) {
        let text = read(&file);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (index, line) in lines.iter().enumerate() {
            let in_tests = index > 0 && lines[index - 1] == "#[cfg(test)]";
            assert!(
                !line.contains("extern crate std") || in_tests,
                "{}:{} links std outside of tests",
                file.display(),
                index + 1
            );
        }
    }
}

#[test]
fn only_the_guest_components_and_one_host_module_see_generated_bindings() {
    for package in members() {
        let bound = package.dependencies.iter().any(|dependency| dependency.name.starts_with("wit-bindgen"));
        assert_eq!(bound, GLUE.contains(&package.name.as_str()), "wit-bindgen in {}", package.name);
    }

    let generating: Vec<_> = members()
        .filter(|package| !GLUE.contains(&package.name.as_str()))
        .flat_map(|package| rust_files(&folder_of(&package.name).join("src")))
        .filter(|file| code(file).contains("bindgen!("))
        .collect();
    let [bindings] = generating.as_slice() else { panic!("bindings are generated in {generating:?}") };
    let source = folder_of("circuitry").join("src");
    let module = bindings.parent().expect("a folder");
    assert!(
        module.starts_with(&source) && module != source,
        "{} is in no module's folder",
        bindings.display()
    );
    for file in rust_files(&source).into_iter().filter(|file| !file.starts_with(module)) {
        assert!(!code(&file).contains("bindings::"), "{} sees the generated bindings", file.display());
    }
}

#[test]
fn arrows_between_the_crates_point_one_way() {
    let names: BTreeSet<_> = members().map(|package| package.name.as_str()).collect();
    let listed: BTreeSet<_> = ARROWS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, listed, "the crates of the workspace and those of the table differ");

    for (name, shipped, tested) in ARROWS {
        for dependency in &member(name).dependencies {
            let in_tests = dependency.kind == DependencyKind::Development;
            let to = dependency.name.as_str();
            if names.contains(to) {
                let allowed = shipped.contains(&to) || (in_tests && tested.contains(&to));
                assert!(allowed, "{name} may not depend on {to} ({:?})", dependency.kind);
            }
        }
    }
}

#[test]
fn copies_of_the_contract_are_byte_equal() {
    let original = wit_files(&workspace().join("wit"));
    assert!(!original.is_empty(), "no .wit file in wit/");
    // A published crate has the files of its own folder only.
    for name in ["circuitry-component", "circuitry"] {
        let copy = wit_files(&folder_of(name).join("wit"));
        assert!(
            copy == original,
            "{}/wit differs from wit/: `cargo xtask component`",
            folder_of(name).display()
        );
    }
}

static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
});

/// A crate that runs or makes WebAssembly.
fn is_runtime(name: &str) -> bool {
    name.starts_with("wasmtime") || name.starts_with("cranelift") || name.starts_with("wit-")
}

fn is_macro(package: &Package) -> bool {
    package.targets.iter().any(|target| target.kind.contains(&TargetKind::ProcMacro))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn members() -> impl Iterator<Item = &'static Package> {
    METADATA.workspace_packages().into_iter()
}

fn member(name: &str) -> &'static Package {
    members()
        .find(|package| package.name == name)
        .unwrap_or_else(|| panic!("no crate {name} in the workspace"))
}

/// The crates below `host/`, sorted.
fn host_crates() -> impl Iterator<Item = &'static str> {
    let host = workspace().join("host");
    let names: BTreeSet<_> = members()
        .filter(|package| package.manifest_path.as_std_path().starts_with(&host))
        .map(|package| package.name.as_str())
        .collect();
    assert!(names.len() >= 5, "host crates: {names:?}");
    names.into_iter()
}

fn folder_of(name: &str) -> PathBuf {
    member(name).manifest_path.as_std_path().parent().expect("a folder").to_path_buf()
}

/// Every crate that `name` links or builds with, each with the crates on the way to it. Goes on only through packages
/// that `through` admits, and lists only those.
fn paths(name: &str, through: impl Fn(&Package) -> bool) -> BTreeMap<String, Vec<String>> {
    let resolve = METADATA.resolve.as_ref().expect("resolved dependencies");
    let start = &member(name).id;
    let mut ways: BTreeMap<&PackageId, Vec<String>> = BTreeMap::from([(start, vec![name.to_owned()])]);
    let mut queue = VecDeque::from([start]);
    while let Some(id) = queue.pop_front() {
        let way = ways[id].clone();
        let node = resolve.nodes.iter().find(|node| &node.id == id).expect("a node of the graph");
        for dependency in &node.deps {
            let shipped = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if shipped && !ways.contains_key(&dependency.pkg) && through(&METADATA[&dependency.pkg]) {
                let mut longer = way.clone();
                longer.push(METADATA[&dependency.pkg].name.to_string());
                ways.insert(&dependency.pkg, longer);
                queue.push_back(&dependency.pkg);
            }
        }
    }
    ways.into_iter().map(|(id, way)| (METADATA[id].name.to_string(), way)).collect()
}

/// Whether `name` links the crate `dependency`.
fn linked(dependency: &str, name: &str) -> bool {
    paths(name, |_| true).contains_key(dependency)
}

fn assert_no_path(name: &str, forbidden: impl Fn(&str) -> bool) {
    for (to, way) in paths(name, |_| true) {
        assert!(!forbidden(&to), "{name} must not link {to}, and does: {}", way.join(" → "));
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The text of a source file without the lines that are comments.
fn code(file: &Path) -> String {
    read(file).lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The source files in `folder` and below it.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The .wit files of `folder`, with their bytes.
fn wit_files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| entry.expect("an entry").path());
    let wit = files.filter(|file| file.extension().is_some_and(|extension| extension == "wit"));
    wit.map(|file| (PathBuf::from(file.file_name().expect("a name")), fs::read(&file).expect("a file")))
        .collect()
}
