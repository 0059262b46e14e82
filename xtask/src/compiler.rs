//! The compiler of the components.
//!
//! The committed bytes are those of Debian's compiler (packages `rustc-web` and `rust-web-src`), which builds the
//! library for wasm32-unknown-unknown from its source: so no target has to be fetched, and everybody on Debian gets
//! the same bytes. Elsewhere the toolchain of the workspace does, where rustup has the target.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, find, output, run, workspace};

/// Packages of Debian that bring the compiler.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "binaryen"];

/// The target of a component's core module.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// The oldest compiler that takes the guest's source; the workspace's `rust-version`.
const OLDEST: (u32, u32) = (1, 95);

/// Binaryen's optimizer.
const OPTIMIZER: &str = "wasm-opt";
/// For speed; and what the compiler's code needs of the features after the first standard.
const OPTIMIZER_FLAGS: [&str; 7] = [
    "-O3",
    "--enable-bulk-memory",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-reference-types",
];

/// A compiler that can build the components here.
pub(crate) struct Compiler {
    rustc: PathBuf,
    /// Of the library, where it is built along.
    source: Option<PathBuf>,
    /// Has `rust-lld`.
    linker_folder: PathBuf,
}

impl Compiler {
    /// Debian's compiler where it is installed, else the workspace's where rustup has the target.
    pub(crate) fn find() -> Result<Self> {
        let sysroot = workspace_sysroot()?;
        let linker_folder = sysroot.join("lib/rustlib").join(host()?).join("bin");
        if let Some(source) = debian_source() {
            if find(OPTIMIZER).is_none() {
                bail!("no {OPTIMIZER}: `apt-get install binaryen` (or `cargo xtask setup` as root)");
            }
            if !linker_folder.join("rust-lld").is_file() {
                bail!(
                    "no rust-lld in {}: install the workspace's toolchain with rustup",
                    linker_folder.display()
                );
            }
            return Ok(Self { rustc: debian_rustc(), source: Some(source), linker_folder });
        }
        if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
            return Ok(Self { rustc: sysroot.join("bin/rustc"), source: None, linker_folder });
        }
        bail!(
            "no compiler for the component. On Debian: `apt-get install {}` (or `cargo xtask setup` as root); \
             elsewhere: `rustup target add {TARGET}`",
            DEBIAN_PACKAGES.join(" ")
        )
    }

    /// What decides about the bytes: compiler, linker and cargo. Recorded beside the component.
    pub(crate) fn description(&self) -> Result<String> {
        let rustc = output(self.own(&mut Command::new(&self.rustc)).arg("-vV"))?;
        let linker =
            output(Command::new(self.linker_folder.join("rust-lld")).args(["-flavor", "wasm", "--version"]));
        let linker = linker.unwrap_or_else(|_| "unknown".into());
        let cargo = output(cargo().arg("--version"))?;
        let library = if self.source.is_some() { "built from source" } else { "as shipped" };
        let optimizer = match find(OPTIMIZER) {
            Some(path) => output(Command::new(path).arg("--version"))?,
            None => "none".into(),
        };
        Ok(format!(
            "{}\nlinker: {}\ncargo: {}\nlibrary: {library}\noptimizer: {}\n",
            rustc.trim(),
            linker.trim(),
            cargo.trim(),
            optimizer.trim()
        ))
    }

    /// Rewrites a module with Binaryen, which takes a tenth off: it sees the whole module, across what LLVM takes for
    /// borders. Without it, which is possible only where bytes are not compared, the module stays as it is.
    pub(crate) fn optimize(&self, module: &Path) -> Result<PathBuf> {
        let Some(optimizer) = find(OPTIMIZER) else { return Ok(module.to_path_buf()) };
        let optimized = module.with_extension("opt.wasm");
        let mut command = Command::new(optimizer);
        command.args(OPTIMIZER_FLAGS).arg(module).arg("--output").arg(&optimized);
        run(&mut command)?;
        Ok(optimized)
    }

    /// `cargo build` for the component's target, with nothing of the caller's environment that changes the bytes.
    pub(crate) fn cargo_build(&self) -> Result<Command> {
        let mut build = cargo();
        self.own(&mut build).arg("build").arg("--target").arg(TARGET);
        if self.source.is_some() {
            // Cargo builds the library from source only for compilers that admit unstable options.
            build.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core,alloc");
        }
        build.env("RUSTC", &self.rustc);
        build.env("PATH", self.path()?);
        build.env("CARGO_ENCODED_RUSTFLAGS", self.flags()?);
        Ok(build)
    }

    /// Takes away what the caller, or the `cargo run` that started xtask, put into the environment.
    fn own<'command>(&self, command: &'command mut Command) -> &'command mut Command {
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if changes_the_bytes(&name) {
                command.env_remove(&*name);
            }
        }
        command
    }

    fn path(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.linker_folder.clone()).chain(std::env::split_paths(&path));
        std::env::join_paths(folders).context("PATH")
    }

    /// Flags that take the machine's folders out of the bytes (paths stand in the messages of panics), and one for
    /// size.
    fn flags(&self) -> Result<OsString> {
        let mut renamed = vec![(workspace().to_path_buf(), "/circuitry")];
        if let Some(source) = &self.source {
            renamed.push((source.clone(), "/rust"));
            renamed.push((source.canonicalize().context("library source")?, "/rust"));
        }
        // Last, so that it wins when the folders lie within each other. The folder below carries a hash of the
        // registry's address, which differs behind a mirror.
        let sources = cargo_home()?.join("registry/src");
        renamed.push((sources.clone(), "/crates"));
        // Absent where crates are vendored.
        for registry in std::fs::read_dir(&sources).into_iter().flatten() {
            renamed.push((registry?.path(), "/crates"));
        }
        let mut flags = OsString::new();
        for (from, to) in renamed {
            if !flags.is_empty() {
                flags.push("\u{1f}");
            }
            flags.push("--remap-path-prefix=");
            flags.push(from);
            flags.push("=");
            flags.push(to);
        }
        if self.source.is_some() {
            // The inliner before LLVM's knows nothing of the wish for small code: without it 7 % fewer bytes.
            flags.push("\u{1f}-Zinline-mir=no");
        }
        Ok(flags)
    }
}

/// Folders of this machine that must not show in the component.
pub(crate) fn private_folders() -> Result<Vec<PathBuf>> {
    Ok(vec![workspace().to_path_buf(), cargo_home()?])
}

/// Whether Debian's compiler is there, with the source of its library, and new enough.
pub(crate) fn debian_is_installed() -> bool {
    debian_source().is_some() && find(OPTIMIZER).is_some()
}

fn debian_rustc() -> PathBuf {
    // Not from PATH: rustup's own comes first there.
    PathBuf::from("/usr/bin/rustc")
}

fn debian_source() -> Option<PathBuf> {
    let rustc = debian_rustc();
    let version = output(Command::new(&rustc).arg("-vV").env_remove("LD_LIBRARY_PATH")).ok()?;
    if release(&version)? < OLDEST {
        return None;
    }
    let sysroot =
        output(Command::new(&rustc).args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH")).ok()?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    source.join("library/core").is_dir().then_some(source)
}

/// Major and minor number of what `rustc -vV` says.
fn release(version: &str) -> Option<(u32, u32)> {
    let release = version.lines().find_map(|line| line.strip_prefix("release: "))?;
    let mut numbers = release.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn workspace_sysroot() -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").current_dir(workspace()).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(sysroot.trim()))
}

fn host() -> Result<String> {
    let version = output(Command::new("rustc").current_dir(workspace()).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(std::env::home_dir().context("no home folder")?.join(".cargo"))
}

/// Whether the environment variable `name` may change what is built: flags, profiles, wrappers, library paths.
fn changes_the_bytes(name: &str) -> bool {
    const HARMLESS: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_",
        "RUST_BACKTRACE",
    ];
    let ours = name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH";
    ours && !HARMLESS.iter().any(|harmless| name.starts_with(harmless))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_profiles_and_wrappers_of_the_caller_do_not_reach_the_component() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            "CARGO_PROFILE_COMPONENT_OPT_LEVEL",
            "CARGO_INCREMENTAL",
            "RUSTC_WRAPPER",
            "LD_LIBRARY_PATH",
        ] {
            assert!(changes_the_bytes(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_TOOLCHAIN"] {
            assert!(!changes_the_bytes(name), "{name}");
        }
    }

    #[test]
    fn the_release_is_read_from_what_the_compiler_says_of_itself() {
        assert_eq!(release("rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\n"), Some((1, 96)));
        assert_eq!(release("release: 1.97.0-nightly"), Some((1, 97)));
        assert_eq!(release("no such line"), None);
    }
}
