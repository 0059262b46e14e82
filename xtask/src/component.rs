//! The components: built from `guest/`, wrapped, composed, judged, and written to `host/component` or compared with what is
//! there.
//!
//! The files are committed, so that nobody needs a WebAssembly toolchain to use them, and rebuilt by the test command, so
//! that nobody has to trust them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use wasmparser::BinaryReader;
use wit_component::ComponentEncoder;

use crate::command::{run, workspace};
use crate::compiler::{Compiler, TARGET, private_folders};
use crate::{composition, contract};

/// A component that is shipped.
struct Product {
    /// Its name in `host/component`; beside it lies its digest.
    file: &'static str,
    source: Source,
    /// Components are loaded by every process and fetched by browsers and edge runtimes.
    most_bytes: usize,
    /// What it may import functions of: interfaces as `package:name/interface`, or all of a namespace as `name:*`.
    functions_from: &'static [&'static str],
}

/// What a component is made of.
enum Source {
    /// A crate of `guest/`.
    Crate(&'static str),
    /// Products that stand before it in [`PRODUCTS`]: the first one's imports are met by the exports of the others, theirs
    /// as well.
    Composition(&'static [&'static str]),
}

/// Whatever is composed comes after its parts.
const PRODUCTS: &[Product] = &[
    Product {
        file: "circuitry.wasm",
        source: Source::Crate("circuitry-guest"),
        most_bytes: 192_000,
        functions_from: &["circuitry:breaker/store", "circuitry:breaker/hooks"],
    },
    Product {
        file: "hooks.wasm",
        source: Source::Crate("circuitry-hooks"),
        most_bytes: 10_000,
        functions_from: &[],
    },
    Product {
        file: "store-keyvalue.wasm",
        source: Source::Crate("circuitry-store-keyvalue"),
        most_bytes: 60_000,
        functions_from: &["wasi:*"],
    },
    Product {
        file: "breaker-keyvalue.wasm",
        source: Source::Composition(&["circuitry.wasm", "hooks.wasm", "store-keyvalue.wasm"]),
        most_bytes: 260_000,
        functions_from: &["wasi:*"],
    },
    Product {
        file: "store-redis.wasm",
        source: Source::Crate("circuitry-store-redis"),
        most_bytes: 80_000,
        functions_from: &["wasi:*"],
    },
    Product {
        file: "gateway.wasm",
        source: Source::Crate("circuitry-gateway"),
        most_bytes: 140_000,
        functions_from: &[
            "circuitry:breaker/breaker",
            "circuitry:breaker/exchange",
            "circuitry:breaker/store",
            "wasi:*",
        ],
    },
    Product {
        file: "gateway-redis.wasm",
        source: Source::Composition(&["gateway.wasm", "circuitry.wasm", "hooks.wasm", "store-redis.wasm"]),
        most_bytes: 430_000,
        functions_from: &["wasi:*"],
    },
];

/// Says what built all of [`PRODUCTS`].
const BUILDER: &str = "circuitry.wasm.builder";
const FOLDER: &str = "host/component";
const PROFILE: &str = "component";
const REMEDY: &str = "run `cargo xtask component` and commit what it writes";

/// Crates that carry a copy of the WIT, because a published crate has the files of its own folder only.
const CRATES_WITH_WIT: [&str; 2] = ["host/component", "host/circuitry"];

/// Builds the components and writes them, their digests, their builder and the copies of the WIT.
pub(crate) fn write() -> Result<()> {
    let compiler = Compiler::find()?;
    // All are built before one is written: the builder is recorded for all of them.
    let built = build_all(&compiler)?;
    for (product, component) in PRODUCTS.iter().zip(&built) {
        write_if_changed(&product.path(), component)?;
        write_if_changed(&product.digest_path(), digest_line(component).as_bytes())?;
        println!("{}: {} bytes, sha256 {}", product.file, component.len(), sha256(component));
    }
    write_if_changed(&workspace().join(FOLDER).join(BUILDER), compiler.description()?.as_bytes())?;
    for name in CRATES_WITH_WIT {
        copy_wit(&workspace().join(name).join("wit"))?;
    }
    Ok(())
}

/// Builds the components again and fails where the committed files are not what the source gives.
pub(crate) fn check() -> Result<()> {
    for name in CRATES_WITH_WIT {
        check_wit(&workspace().join(name).join("wit")).context(REMEDY)?;
    }
    let compiler = Compiler::find()?;
    let builders = Builders {
        recorded: String::from_utf8(read(&workspace().join(FOLDER).join(BUILDER)).context(REMEDY)?)?,
        here: compiler.description()?,
    };
    // Before anything is built: what is wrong with a committed file shows at once.
    PRODUCTS.iter().try_for_each(Product::check_committed)?;
    let built = build_all(&compiler)?;
    PRODUCTS.iter().zip(&built).try_for_each(|(product, built)| product.compare(built, &builders))
}

/// All [`PRODUCTS`] from their sources, in their order.
fn build_all(compiler: &Compiler) -> Result<Vec<Vec<u8>>> {
    let mut built = Vec::new();
    for product in PRODUCTS {
        let component = product.build(compiler, &built)?;
        built.push(component);
    }
    Ok(built)
}

/// What the committed files were built with, and what there is to build them again.
struct Builders {
    recorded: String,
    here: String,
}

impl Product {
    fn path(&self) -> PathBuf {
        workspace().join(FOLDER).join(self.file)
    }

    fn digest_path(&self) -> PathBuf {
        workspace().join(FOLDER).join(format!("{}.sha256", self.file))
    }

    fn check_committed(&self) -> Result<()> {
        let file = self.file;
        let committed = read(&self.path()).context(REMEDY)?;
        self.judge(&committed)?;
        if read(&self.digest_path()).context(REMEDY)? != digest_line(&committed).as_bytes() {
            bail!("{file}.sha256 is not the digest of {file}: {REMEDY}");
        }
        Ok(())
    }

    /// Fails where the committed file is not `built`.
    fn compare(&self, built: &[u8], builders: &Builders) -> Result<()> {
        let file = self.file;
        let committed = read(&self.path())?;
        let digest = sha256(built);
        if built == committed {
            println!(
                "{file}: rebuilt from source, byte for byte the committed one ({} bytes, {digest})",
                built.len()
            );
            return Ok(());
        }
        let Builders { recorded, here } = builders;
        if recorded == here {
            bail!(
                "{file} is not what the source gives: committed {}, rebuilt {digest} with the recorded builder; {REMEDY}",
                sha256(&committed)
            );
        }
        println!(
            "{file}: the builder here is not the recorded one, so bytes are not compared, but imports, exports and types \
             (the behaviour is compared by the tests)\n\
             recorded:\n{recorded}\nhere:\n{here}"
        );
        if contract::wit_text(built)? != contract::wit_text(&committed)? {
            bail!("{file} has another world than the source gives: {REMEDY}");
        }
        Ok(())
    }

    /// The component from its source; `built` are the products before it.
    fn build(&self, compiler: &Compiler, built: &[Vec<u8>]) -> Result<Vec<u8>> {
        let component = match self.source {
            Source::Crate(package) => build_crate(compiler, package)?,
            Source::Composition(parts) => {
                compose(parts, built).with_context(|| format!("cannot compose {}", self.file))?
            }
        };
        // For a look at it when it is refused.
        write_if_changed(&build_folder().join(self.file), &component)?;
        self.judge(&component)?;
        Ok(component)
    }

    /// Fails when the component is larger, asks for more or tells more than it may.
    fn judge(&self, component: &[u8]) -> Result<()> {
        let Self { file, most_bytes, .. } = self;
        if component.len() > *most_bytes {
            bail!("{file} has {} bytes; {most_bytes} are allowed", component.len());
        }
        contract::check_imports(component, self.functions_from).context(*file)?;
        for folder in private_folders()? {
            let folder = folder.as_os_str().as_encoded_bytes();
            if component.windows(folder.len()).any(|bytes| bytes == folder) {
                bail!("{file} names the folder {}", String::from_utf8_lossy(folder));
            }
        }
        Ok(())
    }
}

/// Its own folder: with the library built along, it would else wait for, and invalidate, the host's builds.
fn build_folder() -> PathBuf {
    workspace().join("target/component")
}

/// The component that the crate `package` of `guest/` is.
fn build_crate(compiler: &Compiler, package: &str) -> Result<Vec<u8>> {
    let folder = build_folder();
    let mut build = compiler.cargo_build()?;
    build
        .args(["--locked", "--quiet", "--package", package, "--profile", PROFILE, "--target-dir"])
        .arg(&folder);
    run(&mut build)?;
    let module = format!("{}.wasm", package.replace('-', "_"));
    let module = read(&compiler.optimize(&folder.join(TARGET).join(PROFILE).join(module))?)?;
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .and_then(|component| without_names(&component))
        .with_context(|| format!("cannot make a component of the module of {package}"))
}

/// The products `parts` as one component; `built` are those of the first [`PRODUCTS`].
fn compose(parts: &[&str], built: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut components = Vec::new();
    for part in parts {
        let product = PRODUCTS.iter().zip(built).find(|(product, _)| product.file == *part);
        let (_, component) = product.with_context(|| format!("no {part} stands before it"))?;
        components.push((*part, component.as_slice()));
    }
    without_names(&composition::compose(&components)?)
}

/// The component without the names of its inner parts, which only a debugger of components would show.
fn without_names(component: &[u8]) -> Result<Vec<u8>> {
    const HEADER: usize = 8;
    const CUSTOM: u8 = 0;
    let mut reader = BinaryReader::new(component, 0);
    let mut kept = reader.read_bytes(HEADER)?.to_vec();
    while !reader.eof() {
        let begin = reader.current_position();
        let section = reader.read_u8()?;
        let length = reader.read_var_u32()?;
        let content = reader.read_bytes(usize::try_from(length)?)?;
        if section != CUSTOM || BinaryReader::new(content, 0).read_string()? != "component-name" {
            kept.extend_from_slice(&component[begin..reader.current_position()]);
        }
    }
    Ok(kept)
}

/// The digest as the text of its file.
fn digest_line(component: &[u8]) -> String {
    format!("{}\n", sha256(component))
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn copy_wit(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let names = wit_files(&workspace().join("wit"))?;
    for name in &names {
        write_if_changed(&folder.join(name), &read(&workspace().join("wit").join(name))?)?;
    }
    for name in wit_files(folder)? {
        if !names.contains(&name) {
            fs::remove_file(folder.join(&name)).with_context(|| folder.join(&name).display().to_string())?;
        }
    }
    Ok(())
}

fn check_wit(folder: &Path) -> Result<()> {
    let original = workspace().join("wit");
    let names = wit_files(&original)?;
    if names.is_empty() {
        bail!("no .wit file in {}", original.display());
    }
    if wit_files(folder)? != names {
        bail!("{} has other files than {}", folder.display(), original.display());
    }
    for name in names {
        if read(&folder.join(&name))? != read(&original.join(&name))? {
            bail!("{} differs from {}", folder.join(&name).display(), original.join(&name).display());
        }
    }
    Ok(())
}

/// The names of the .wit files in `folder`, sorted.
fn wit_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "wit") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A file that keeps its time when it keeps its bytes makes cargo rebuild nothing.
fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
