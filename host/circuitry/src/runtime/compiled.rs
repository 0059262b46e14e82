//! The compiled component, kept in a folder from one process to the next.
//!
//! What is in such a file runs in this process with all its rights, so it is loaded only where nobody but this process's user
//! (or root) can have written it, and where it is what was written: its digest covers the artifact and what it was made of.
//! The file's name carries a digest of the component and of all that an artifact has to fit (wasmtime's version, its
//! configuration, the processor), so another release or machine makes a file of its own.
//!
//! Invariant: a file that cannot be used costs a warning and a compilation, never the factory; one that others can write
//! is an error, for it is a hole and not a nuisance.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// How a file of ours begins; the last byte is the version of its layout.
const MAGIC: [u8; 8] = *b"CKTCODE\x01";
/// The length of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// Why there is no component.
#[derive(Debug)]
pub(super) enum Unready {
    /// It does not compile.
    Component(wasmtime::Error),
    /// The folder or the file is not to be trusted: what is wrong and what would do.
    Cache(String),
}

/// What a look for a file found.
enum Found {
    Component(Box<Component>),
    Nothing,
    /// A file that cannot be used, and why.
    Useless(String),
}

/// Compiles `wasm`, or loads what another process made of it and kept in `folder`.
pub(super) fn component(engine: &Engine, wasm: &[u8], folder: Option<&Path>) -> Result<Component, Unready> {
    let compile = || Component::from_binary(engine, wasm).map_err(Unready::Component);
    let Some(folder) = folder else { return compile() };
    if let Err(error) = prepare(folder)? {
        tracing::warn!(folder = %folder.display(), %error, "{CANNOT_KEEP}");
        return compile();
    }
    let key = key(engine, wasm);
    let file = folder.join(file_name(&key));
    let useless = match find(engine, &file, &key)? {
        Found::Component(component) => {
            tracing::debug!(file = %file.display(), "the compiled component was loaded");
            return Ok(*component);
        }
        Found::Nothing => None,
        Found::Useless(problem) => Some(problem),
    };
    let component = compile()?;
    match (keep(&file, &key, &component), useless) {
        (Ok(()), None) => tracing::debug!(file = %file.display(), "the compiled component was kept"),
        (Ok(()), Some(problem)) => tracing::warn!(
            file = %file.display(), problem,
            "the compiled component in the folder of `component_cache` was of no use: it was compiled anew and replaced"
        ),
        (Err(error), useless) => {
            let problem = useless.unwrap_or_default();
            tracing::warn!(folder = %folder.display(), %error, problem, "{CANNOT_KEEP}");
        }
    }
    Ok(component)
}

const CANNOT_KEEP: &str =
    "the compiled component cannot be kept in the folder of `component_cache`: each process compiles it";

/// Makes the folder where there is none, and sees whether it is to be trusted.
///
/// The inner error is one to go on after: without a folder.
pub(super) fn prepare(folder: &Path) -> Result<io::Result<()>, Unready> {
    let metadata = match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(folder).and_then(|()| fs::metadata(folder))
        }
        found => found,
    };
    // Without a slash at its end, which would lead through a link.
    let link = fs::symlink_metadata(folder.components().collect::<PathBuf>());
    let (metadata, link) = match metadata.and_then(|metadata| link.map(|link| (metadata, link))) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    if !metadata.is_dir() {
        let problem = format!("`{}` is no folder: give the path of one", folder.display());
        return Err(Unready::Cache(problem));
    }
    // Who made a link could have it lead to where this process keeps what others send.
    trust(folder, &link)?;
    trust(folder, &metadata)?;
    Ok(Ok(()))
}

/// A digest of the component, and of all that makes an artifact of it unfit for another engine.
fn key(engine: &Engine, wasm: &[u8]) -> [u8; DIGEST_BYTES] {
    struct Digested(Sha256);

    impl Hasher for Digested {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        /// Nobody asks for it: the digest is taken whole.
        fn finish(&self) -> u64 {
            0
        }
    }

    let mut hasher = Digested(Sha256::new_with_prefix(Sha256::digest(wasm)));
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

fn file_name(key: &[u8; DIGEST_BYTES]) -> String {
    let digits = key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("circuitry-{digits}.compiled")
}

/// What an artifact's digest is taken of: the key too, so that a file under another's name is found out.
fn digest(key: &[u8; DIGEST_BYTES], artifact: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::new_with_prefix(key).chain_update(artifact).finalize().into()
}

fn find(engine: &Engine, path: &Path, key: &[u8; DIGEST_BYTES]) -> Result<Found, Unready> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (mut file, metadata) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Ok(Found::Useless(error.to_string())),
    };
    // Of the file that is open, so that it cannot be exchanged for another one in between.
    trust(path, &metadata)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    if let Err(error) = file.read_to_end(&mut bytes) {
        return Ok(Found::Useless(error.to_string()));
    }
    let Some(artifact) = verified(key, &bytes) else {
        return Ok(Found::Useless("it is damaged, or not of this component".into()));
    };
    Ok(match load(engine, artifact) {
        Ok(component) => Found::Component(Box::new(component)),
        Err(error) => Found::Useless(format!("{error:#}")),
    })
}

/// The artifact in the bytes of a file, if it is whole and the one that was kept under `key`.
fn verified<'a>(key: &[u8; DIGEST_BYTES], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (told, artifact) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<DIGEST_BYTES>()?;
    (*told == digest(key, artifact)).then_some(artifact)
}

/// Loads machine code, which was [`verified`] and is of a file that [`trust`] has seen.
#[allow(
    unsafe_code,
    reason = "wasmtime loads compiled code in no other way, and compiling takes 20 times as long"
)]
fn load(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` asks for unchanged bytes of `Component::serialize`. These are, unless this user or root means
    // to harm this process: only they can write the folder and the file (`trust`), `keep` is what writes there, and a
    // digest of the bytes shows damage. They are read to the end before they are looked at, so no later write reaches them.
    // That they are of this version, configuration and processor is in the digest too, and wasmtime looks again.
    unsafe { Component::deserialize(engine, artifact) }
}

/// Writes the file, whole or not at all: others may be reading it or doing the same.
fn keep(path: &Path, key: &[u8; DIGEST_BYTES], component: &Component) -> io::Result<()> {
    let artifact = component.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
    let begun = Begun(path.with_extension(format!("{:016x}.begun", fastrand::u64(..))));
    let mut file = options().write(true).create_new(true).open(&begun.0)?;
    for part in [&MAGIC[..], &digest(key, &artifact), &artifact] {
        file.write_all(part)?;
    }
    drop(file);
    fs::rename(&begun.0, path)
}

/// A file that is removed when its writing is over, if it has not become the other by then.
struct Begun(PathBuf);

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(unix)]
fn options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
fn options() -> OpenOptions {
    OpenOptions::new()
}

/// Makes the folder, and those above it, for this user alone.
fn make(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Whether nobody but this user and root can write what `metadata` is of.
#[cfg(unix)]
fn trust(path: &Path, metadata: &Metadata) -> Result<(), Unready> {
    use std::os::unix::fs::MetadataExt;

    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let shown = path.display();
    let distrusted = |problem: String| {
        Err(Unready::Cache(format!(
            "machine code is loaded from there, and {problem}, or give a folder of this user's own"
        )))
    };
    if owner != 0 && owner != user {
        return distrusted(format!(
            "`{shown}` belongs to the user {owner}, who is neither this one ({user}) nor root: `chown {user} '{shown}'`"
        ));
    }
    // The mode of a link says nothing.
    if !metadata.is_symlink() && metadata.mode() & 0o022 != 0 {
        return distrusted(format!(
            "others can write `{shown}` (its mode is {:04o}): `chmod go-w '{shown}'`",
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}

/// There is no owner to ask for here: the folder's access list is the user's to see to.
#[cfg(not(unix))]
fn trust(_: &Path, _: &Metadata) -> Result<(), Unready> {
    Ok(())
}
