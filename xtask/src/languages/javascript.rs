//! What builds guests in JavaScript and TypeScript: componentize-qjs, esbuild and
//! tsc, at the versions and checksums of `guest-sdk/javascript/tools`.
//!
//! node and npm have to be there; on Debian they are installed. npm fetches the
//! packages by their lock file, runs none of their install scripts, and does so
//! in a temporary folder, which is renamed when it is complete. The lock file in
//! the folder says what was installed: another one is installed anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Variables;
use crate::{exec, root, tools};

/// Of the repository: the pinned packages.
const PINNED: &str = "guest-sdk/javascript/tools";
const FILES: [&str; 2] = ["package.json", LOCK];
const LOCK: &str = "package-lock.json";

/// componentize-qjs and the SDK's tests need it; Debian 12 has 18.
const NODE_MAJOR_MIN: u32 = 18;

/// Installs the tools unless they are there.
///
/// # Errors
/// Where node is missing or too old, or the packages cannot be fetched.
pub fn set_up() -> Result<Variables> {
    let node = node()?;
    let pinned = root().join(PINNED);
    let folder = tools().join("javascript");
    if !is_installed(&pinned, &folder)? {
        install(&pinned, &folder)?;
    }
    Ok(vec![("NODE", node.into()), ("JS_TOOLS", folder.into())])
}

fn node() -> Result<PathBuf> {
    if exec::on_path("node").is_none() || exec::on_path("npm").is_none() {
        exec::apt_install(&["nodejs", "npm"], "building guests in JavaScript and TypeScript")?;
    }
    let node = exec::on_path("node").context("the package nodejs has brought no `node`")?;
    let version = exec::output(Command::new(&node).arg("--version"))?;
    let major =
        major(&version).with_context(|| format!("no version in {version:?} of {}", node.display()))?;
    ensure!(
        major >= NODE_MAJOR_MIN,
        "{} is {}; building guests in JavaScript and TypeScript needs node {NODE_MAJOR_MIN} or later",
        node.display(),
        version.trim()
    );
    Ok(node)
}

/// From `v20.20.2`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn is_installed(pinned: &Path, folder: &Path) -> Result<bool> {
    let wanted = pinned.join(LOCK);
    let wanted = fs::read(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    let installed = fs::read(folder.join(LOCK)).is_ok_and(|lock| lock == wanted);
    Ok(installed && folder.join("node_modules").is_dir())
}

fn install(pinned: &Path, folder: &Path) -> Result<()> {
    eprintln!("fetching the tools for JavaScript and TypeScript");
    fs::create_dir_all(tools())?;
    let temporary = tempfile::tempdir_in(tools())?;
    let complete = temporary.path().join("complete");
    fs::create_dir(&complete)?;
    for file in FILES {
        let from = pinned.join(file);
        fs::copy(&from, complete.join(file)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&complete)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]);
    exec::output(&mut npm).with_context(|| {
        format!("cannot fetch the packages of {PINNED}/{LOCK}; does `npm ping` reach its registry?")
    })?;
    // Those of another lock file.
    if folder.exists() {
        let old = temporary.path().join("old");
        fs::rename(folder, &old).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    match fs::rename(&complete, folder) {
        // Another set-up was faster; it has installed the same.
        Err(_) if is_installed(pinned, folder)? => Ok(()),
        renamed => renamed.with_context(|| format!("cannot create {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(major("v20.20.2\n"), Some(20));
        assert_eq!(major("v18.0.0-nightly"), Some(18));
        assert_eq!(major("20.1"), None);
    }

    #[test]
    fn packages_are_pinned_by_checksum_and_name_no_registry() {
        let lock = fs::read_to_string(root().join(PINNED).join(LOCK)).unwrap();
        let packages = lock.matches("\"node_modules/").count();
        assert!(packages > 0);
        assert_eq!(lock.matches("\"integrity\": \"sha512-").count(), packages);
        assert!(!lock.contains("\"resolved\""));
    }
}
