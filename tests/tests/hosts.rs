//! What every host owes, whatever its language; and the programs in the component's README, as a reader copies them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use circuitry_tests::vector::folder as vectors;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace")
}

fn read(file: impl AsRef<Path>) -> String {
    let file = workspace().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All that the files below `folder` say whose names end as given.
fn texts(folder: &Path, ends: &[&str]) -> String {
    let mut all = String::new();
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            all += &texts(&path, ends);
        } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            all += &fs::read_to_string(&path).expect("text");
        }
    }
    all
}

/// The suites of stores in the other languages.
fn suites() -> [(&'static str, String); 2] {
    let host = |name: &str| workspace().join("host").join(name);
    [
        ("host/js/test", texts(&host("js/test"), &[".mjs", ".ts", ".js"])),
        ("host/python/tests", texts(&host("python/tests"), &[".py"])),
    ]
}

/// The rules of the conformance suite that are about entries; the others are about pushes, which a store need not have.
fn rules() -> Vec<String> {
    let suite = read("host/store/src/conformance.rs");
    let (_, list) = suite.split_once("@$what $harness;").expect("the list of rules");
    let (list, _) = list.split_once('}').expect("its end");
    let all = list.split(',').map(str::trim).filter(|rule| !rule.is_empty()).map(str::to_owned);
    all.filter(|rule| !rule.contains("push") && !rule.contains("watch")).collect()
}

#[test]
fn every_host_holds_its_stores_to_every_rule_of_the_conformance_suite() {
    let rules = rules();
    assert!(rules.len() >= 18, "{rules:?}");
    for (folder, text) in suites() {
        let missing: Vec<_> = rules.iter().filter(|rule| !text.contains(rule.as_str())).collect();
        assert!(missing.is_empty(), "{folder} has no test of {missing:?}");
    }
}

#[test]
fn every_host_runs_every_file_of_vectors() {
    assert!(vectors().join("names/circuits.json").is_file());
    for (folder, text) in suites() {
        for file in ["records.json", "hostile.json", "records-schema-1.json", "circuits.json"] {
            assert!(text.contains(file), "nothing in {folder} reads {file}");
        }
    }
}

/// The program in the part of the component's README that is about a language.
fn program(heading: &str, fence: &str) -> String {
    let readme = read("host/component/README.md");
    let (_, part) = readme.split_once(&format!("### {heading}\n")).expect("a part on each language");
    let (_, program) = part.split_once(&format!("```{fence}\n")).expect("a program");
    program.split_once("```").expect("its end").0.to_owned()
}

/// Runs what is left of a program in a folder with the component in it, and gives what it prints.
fn run(folder: &Path, program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program)
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask hosts`", program.display()));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// A folder outside of the workspace with nothing but the component in it.
fn folder_with_the_component() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("circuitry.wasm"), circuitry_component::WASM).expect("a file");
    folder
}

/// The first answer rests on a write, the second on what was written.
fn assert_it_was_asked_twice(told: &str) {
    let (first, second) = told.split_once('\n').expect("two lines at least");
    assert!(first.starts_with("once it is stored:"), "{told}");
    assert!(told.matches("permit").count() == 2 && !second.contains("once it is stored"), "{told}");
}

#[test]
fn the_javascript_program_of_the_component_s_readme_runs_as_it_is() {
    let folder = folder_with_the_component();
    fs::write(folder.path().join("program.mjs"), program("JavaScript", "js")).expect("a file");
    let jco: PathBuf = workspace().join("host/js/node_modules/.bin/jco");
    run(
        folder.path(),
        jco,
        &["transpile", "circuitry.wasm", "--instantiation", "async", "--out-dir", "circuitry"],
    );
    assert_it_was_asked_twice(&run(folder.path(), "node", &["program.mjs"]));
}

#[test]
fn the_python_program_of_the_component_s_readme_runs_as_it_is() {
    let folder = folder_with_the_component();
    fs::write(folder.path().join("program.py"), program("Python", "python")).expect("a file");
    let python = workspace().join("target/python/bin/python");
    assert_it_was_asked_twice(&run(folder.path(), python, &["program.py"]));
}

/// The programs in the project's README in a language, on the server of the tests.
fn programs_of_the_readme(fence: &str) -> Vec<String> {
    let url = std::env::var("CIRCUITRY_TEST_REDIS_URL")
        .expect("CIRCUITRY_TEST_REDIS_URL is not set: run `cargo xtask test`");
    let (readme, fence) = (read("README.md"), format!("```{fence}\n"));
    let programs = readme.split(&fence).skip(1);
    let programs: Vec<_> = programs
        .map(|rest| rest.split("```").next().expect("its end").replace("redis://127.0.0.1:6379", &url))
        .collect();
    assert!(!programs.is_empty());
    programs
}

#[test]
fn the_javascript_in_the_readme_runs_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let modules = folder.path().join("node_modules");
    fs::create_dir(&modules).expect("a folder");
    std::os::unix::fs::symlink(workspace().join("host/js"), modules.join("circuitry")).expect("a link");
    for program in programs_of_the_readme("js") {
        fs::write(folder.path().join("program.mjs"), program).expect("a file");
        run(folder.path(), "node", &["program.mjs"]);
    }
}

#[test]
fn the_python_in_the_readme_runs_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    for program in programs_of_the_readme("python") {
        fs::write(folder.path().join("program.py"), program).expect("a file");
        run(folder.path(), workspace().join("target/python/bin/python"), &["program.py"]);
    }
}
