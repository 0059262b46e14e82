//! Starting up with a folder of compiled components: it saves time, and nothing else depends on it.
//!
//! A process compiles the built-in component once, so these give it by its path, or begin processes. Where the rule is of the
//! folder alone, the component is an empty one, which compiles in no time even unoptimized.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use circuitry::{ComponentError, Factory, Outcome, Settings, SettingsError};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::log::Log;
use crate::world::{breaker, run};

const LOADED: &str = "the compiled component was loaded";
const KEPT: &str = "the compiled component was kept";
const REPLACED: &str = "the compiled component in the folder of `component_cache` was of no use";
const NOT_KEPT: &str = "the compiled component cannot be kept in the folder of `component_cache`";

/// A component that does not fit the world.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

/// Another one: with a custom section, which says nothing.
fn another() -> Vec<u8> {
    [EMPTY, b"\x00\x05\x04more"].concat()
}

/// A folder with a component file, and one to keep it compiled in.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(component: &[u8]) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.deploy(component);
        place
    }

    fn component(&self) -> PathBuf {
        self.folder.path().join("circuitry.wasm")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("compiled")
    }

    fn deploy(&self, component: &[u8]) {
        fs::write(self.component(), component).expect("written");
    }

    /// Makes a factory with the component and the folder, and tells what was logged meanwhile.
    async fn start(&self) -> (Result<Factory, SettingsError>, Log) {
        start(Some(&self.component()), &self.cache()).await
    }

    /// The files in the folder, by their names.
    fn files(&self) -> Vec<PathBuf> {
        files(&self.cache())
    }

    /// The one file in the folder.
    fn file(&self) -> PathBuf {
        let files = self.files();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        file.clone()
    }
}

async fn start(component: Option<&Path>, cache: &Path) -> (Result<Factory, SettingsError>, Log) {
    let (log, _guard) = Log::watch();
    let mut settings = Settings::builder().component_cache(cache);
    if let Some(component) = component {
        settings = settings.component_path(component);
    }
    (Factory::new(settings.build().expect("settings")).await, log)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The circuits of a factory work.
async fn works(factory: Result<Factory, SettingsError>) {
    run(&breaker(&factory.expect("a factory")), Outcome::Success, 2).await;
}

/// A start with an empty component, which is no use: what was logged up to that.
async fn misfit(place: &Place) -> Log {
    let (factory, log) = place.start().await;
    assert!(factory.expect_err("a misfit").to_string().contains("does not fit the world"));
    log
}

#[tokio::test]
async fn a_component_that_was_compiled_once_is_loaded_from_then_on() {
    let place = Place::new(circuitry_component::WASM);
    let (factory, log) = place.start().await;
    assert_eq!((log.count(KEPT), log.len()), (1, 1));
    works(factory).await;
    let written = fs::metadata(place.file()).and_then(|file| file.modified()).expect("a time");
    for _ in 0..2 {
        let (factory, log) = place.start().await;
        assert_eq!((log.count(LOADED), log.len()), (1, 1));
        works(factory).await;
    }
    assert_eq!(fs::metadata(place.file()).and_then(|file| file.modified()).expect("a time"), written);
}

#[tokio::test]
async fn each_component_has_a_file_of_its_own() {
    let place = Place::new(EMPTY);
    let log = misfit(&place).await;
    assert_eq!((log.count(KEPT), log.len(), place.files().len()), (1, 1, 1));
    place.deploy(&another());
    let log = misfit(&place).await;
    assert_eq!((log.count(KEPT), log.len(), place.files().len()), (1, 1, 2));
    // A roll-back finds its own.
    place.deploy(EMPTY);
    let log = misfit(&place).await;
    assert_eq!((log.count(LOADED), log.len(), place.files().len()), (1, 1, 2));
}

#[tokio::test]
async fn a_file_that_is_not_what_was_written_is_compiled_anew_and_replaced() {
    let place = Place::new(EMPTY);
    misfit(&place).await;
    let (file, whole) = (place.file(), fs::read(place.file()).expect("bytes"));
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        ("empty", Vec::new()),
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("longer", [whole.as_slice(), b"more"].concat()),
        ("of another layout", flipped(7)),
        ("under another digest", flipped(8)),
        ("damaged", flipped(whole.len() / 2)),
        ("something else", b"#!/bin/sh\n".to_vec()),
    ];
    for (case, bytes) in cases {
        fs::write(&file, bytes).expect("written");
        let log = misfit(&place).await;
        assert_eq!((log.count(REPLACED), log.len()), (1, 1), "{case}");
        let log = misfit(&place).await;
        assert_eq!((log.count(LOADED), log.len()), (1, 1), "{case}");
        assert_eq!(place.file(), file);
    }
}

#[tokio::test]
async fn the_artifact_of_another_component_is_not_loaded_under_this_ones_name() {
    let place = Place::new(EMPTY);
    misfit(&place).await;
    let own = place.file();
    place.deploy(&another());
    misfit(&place).await;
    let other = place.files().into_iter().find(|file| *file != own).expect("its file");
    fs::copy(&other, &own).expect("copied");
    place.deploy(EMPTY);
    let log = misfit(&place).await;
    assert_eq!((log.count(REPLACED), log.len()), (1, 1));
}

#[tokio::test]
async fn an_artifact_that_wasmtime_does_not_know_is_compiled_anew_even_under_its_right_digest() {
    let place = Place::new(EMPTY);
    misfit(&place).await;
    let file = place.file();
    let name = file.file_stem().and_then(|name| name.to_str()).expect("a name");
    let digits = name.strip_prefix("circuitry-").expect("a digest");
    let key: Vec<u8> = (0..32)
        .map(|byte| u8::from_str_radix(&digits[2 * byte..2 * byte + 2], 16).expect("a digest"))
        .collect();
    let artifact = b"\x7fELF of another wasmtime";
    let digest = Sha256::new_with_prefix(&key).chain_update(artifact).finalize();
    let magic = &fs::read(&file).expect("bytes")[..8];
    fs::write(&file, [magic, &digest, artifact].concat()).expect("written");
    let (_, log) = place.start().await;
    assert_eq!((log.count(REPLACED), log.len()), (1, 1));
    assert!(log.fields(REPLACED).contains("ELF"), "{}", log.fields(REPLACED));
    let (_, log) = place.start().await;
    assert_eq!((log.count(LOADED), log.len()), (1, 1));
}

#[tokio::test]
async fn a_component_that_does_not_fit_the_world_is_refused_from_the_folder_too() {
    let place = Place::new(EMPTY);
    for told in [KEPT, LOADED] {
        let (factory, log) = place.start().await;
        assert_eq!((log.count(told), log.len()), (1, 1), "{told}");
        let error = factory.expect_err("a misfit");
        assert!(matches!(error, SettingsError::Component(ComponentError::Unusable { .. })), "{error}");
        assert!(error.to_string().contains("does not fit the world"), "{error}");
    }
}

/// The error for a folder or a file that is not to be trusted names the setting, the path and what to do.
async fn is_refused(place: &Place, path: &Path, told: &str) {
    let (factory, log) = place.start().await;
    let error = factory.expect_err("not to be trusted");
    assert!(
        matches!(&error, SettingsError::Invalid { setting, .. } if setting == "component_cache"),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains(told) && text.contains(&path.display().to_string()), "{text}");
    assert_eq!(log.len(), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn what_others_can_write_is_never_loaded() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new(EMPTY);
    misfit(&place).await;
    let (folder, file) = (place.cache(), place.file());
    for (path, mode, told) in [
        (&folder, 0o777, "chmod go-w"),
        (&folder, 0o770, "chmod go-w"),
        (&file, 0o606, "chmod go-w"),
        (&file, 0o660, "chmod go-w"),
    ] {
        let before = fs::metadata(path).expect("a mode").permissions();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
        is_refused(&place, path, told).await;
        fs::set_permissions(path, before).expect("a mode");
    }
    let (_, log) = place.start().await;
    assert_eq!((log.count(LOADED), log.len()), (1, 1), "it is fit again");
}

#[cfg(unix)]
#[tokio::test]
async fn what_belongs_to_another_user_is_never_loaded() {
    use std::os::unix::fs::{MetadataExt, chown};

    let place = Place::new(EMPTY);
    misfit(&place).await;
    for path in [place.cache(), place.file()] {
        let user = fs::metadata(&path).expect("an owner").uid();
        // Only root can give a file away, so for other users there is nothing to see.
        if chown(&path, Some(user + 4_321), None).is_err() {
            return;
        }
        is_refused(&place, &path, &format!("chown {user}")).await;
        chown(&path, Some(user), None).expect("its owner");
    }
    let (_, log) = place.start().await;
    assert_eq!(log.count(LOADED), 1, "it is fit again");
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_the_folder_is_followed_unless_another_user_made_it() {
    use std::os::unix::fs::{MetadataExt, lchown, symlink};

    let place = Place::new(EMPTY);
    misfit(&place).await;
    let link = place.folder.path().join("link");
    symlink(place.cache(), &link).expect("a link");
    let (_, log) = start(Some(&place.component()), &link).await;
    assert_eq!(log.count(LOADED), 1);
    let user = fs::symlink_metadata(&link).expect("an owner").uid();
    // Only root can give a link away, so for other users there is nothing to see.
    if lchown(&link, Some(user + 4_321), None).is_err() {
        return;
    }
    for path in [link.clone(), link.join("")] {
        let (factory, log) = start(Some(&place.component()), &path).await;
        let error = factory.expect_err("not to be trusted").to_string();
        assert!(error.contains("component_cache") && error.contains("belongs to"), "{error}");
        assert_eq!(log.len(), 0);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_kept_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new(EMPTY);
    misfit(&place).await;
    let mode = |path: &Path| fs::metadata(path).expect("a mode").permissions().mode() & 0o777;
    assert_eq!((mode(&place.cache()), mode(&place.file())), (0o700, 0o600));
}

#[tokio::test]
async fn the_folder_is_made_with_those_above_it() {
    let place = Place::new(EMPTY);
    let deep = place.folder.path().join("var/cache/compiled");
    let (_, log) = start(Some(&place.component()), &deep).await;
    assert_eq!((log.count(KEPT), files(&deep).len()), (1, 1));
}

#[tokio::test]
async fn a_file_in_the_folders_place_is_refused() {
    let place = Place::new(EMPTY);
    fs::write(place.cache(), "a file").expect("written");
    is_refused(&place, &place.cache(), "no folder").await;
}

/// In these nobody can write, not even root.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_that_cannot_be_made_or_written_costs_a_warning_and_nothing_else() {
    let place = Place::new(EMPTY);
    for folder in ["/proc/self", "/proc/self/compiled"] {
        let (factory, log) = start(Some(&place.component()), Path::new(folder)).await;
        assert_eq!((log.count(NOT_KEPT), log.len()), (1, 1), "{folder}");
        assert!(log.fields(NOT_KEPT).contains(folder), "{}", log.fields(NOT_KEPT));
        let error = factory.expect_err("a misfit");
        assert!(error.to_string().contains("does not fit the world"), "it was compiled: {error}");
    }
}

#[tokio::test]
async fn what_is_in_the_way_of_the_file_costs_a_warning_and_nothing_else() {
    let place = Place::new(EMPTY);
    misfit(&place).await;
    let file = place.file();
    fs::remove_file(&file).expect("removed");
    fs::create_dir_all(file.join("not empty")).expect("a folder");
    let (factory, log) = place.start().await;
    assert_eq!((log.count(NOT_KEPT), log.len()), (1, 1));
    assert!(factory.expect_err("a misfit").to_string().contains("does not fit the world"));
    assert_eq!(place.file(), file, "nothing half-written is left");
}

/// Names the place to a process that [`process`] begins.
const FOLDER: &str = "CIRCUITRY_TEST_START_UP_FOLDER";

/// Begins a process that runs the test of this name with the folder.
fn process(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", &format!("start_up::{test}")])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// In that process: says what was logged of the start.
fn say(log: &Log) {
    let told = if log.count(LOADED) == 1 { LOADED } else { KEPT };
    assert_eq!((log.count(told), log.len()), (1, 1));
    println!("{told}");
}

/// What the process said.
fn said(process: Child) -> &'static str {
    let output = process.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    [LOADED, KEPT].into_iter().find(|told| text.contains(told)).unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test]
async fn the_built_in_component_is_compiled_by_the_first_process_and_loaded_by_the_next() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (factory, log) = start(None, Path::new(&folder)).await;
        works(factory).await;
        return say(&log);
    }
    let test = "the_built_in_component_is_compiled_by_the_first_process_and_loaded_by_the_next";
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(said(process(test, folder.path())), KEPT);
    assert_eq!(said(process(test, folder.path())), LOADED);
    assert_eq!(files(folder.path()).len(), 1);
}

#[tokio::test]
async fn processes_that_start_at_once_are_all_right() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = Path::new(&folder);
        let (factory, log) = start(Some(&folder.join("circuitry.wasm")), &folder.join("compiled")).await;
        assert!(factory.expect_err("a misfit").to_string().contains("does not fit the world"));
        return say(&log);
    }
    let test = "processes_that_start_at_once_are_all_right";
    let place = Place::new(EMPTY);
    let processes: Vec<_> = (0..8).map(|_| process(test, place.folder.path())).collect();
    let said_first: Vec<_> = processes.into_iter().map(said).collect();
    assert!(said_first.contains(&KEPT), "{said_first:?}");
    assert_eq!(said(process(test, place.folder.path())), LOADED);
    assert_eq!(place.files().len(), 1, "nothing half-written is left");
}
