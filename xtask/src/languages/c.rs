//! The compiler for guests in C.
//!
//! Any clang that links for `wasm32-wasi` will do: Debian's with its linker,
//! wasi-libc and compiler-rt, or that of a wasi-sdk. Which pieces a clang has
//! beside it differs from system to system, so it is asked: a compiler is taken if a
//! small program comes out of it. `WEIR_CC` names one; else `clang-19` and
//! `clang` of PATH are tried; else Debian's packages are installed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Variables;
use crate::{exec, root};

const DEBIAN_PACKAGES: [&str; 4] = ["clang-19", "lld-19", "wasi-libc", "libclang-rt-19-dev-wasm32"];

/// The variable that names the compiler, here and in the Makefiles (`guest-sdk/c/weir.mk`).
const COMPILER_VARIABLE: &str = "WEIR_CC";

/// Tried in this order: what the packages install first.
const COMPILERS: [&str; 2] = ["clang-19", "clang"];

/// Needs what handlers do: headers, libc, and, for 128-bit division, compiler-rt.
const PROBE: &str = r#"
#include <stdlib.h>
__attribute__((export_name("probe"))) unsigned long long probe(const char *text, unsigned __int128 number) {
  void *block = malloc(1);
  free(block);
  return (unsigned long long)(number / (unsigned)strtod(text, NULL));
}
"#;

/// Finds or installs the compiler.
///
/// # Errors
/// There is none that links for Wasm and none can be installed, or `WEIR_CC`
/// names one that does not: it is not replaced by another in silence.
pub fn set_up() -> Result<Variables> {
    Ok(vec![
        (COMPILER_VARIABLE, compiler()?),
        ("WEIR_C_SDK", root().join("guest-sdk/c").into()),
    ])
}

fn compiler() -> Result<OsString> {
    if let Some(named) = std::env::var_os(COMPILER_VARIABLE) {
        probe(&named).with_context(|| format!("{COMPILER_VARIABLE} names a compiler that will not do"))?;
        return Ok(named);
    }
    if let Ok(found) = find() {
        return Ok(found);
    }
    exec::apt_install(&DEBIAN_PACKAGES, "building C guests")
        .with_context(|| format!("or name a clang of a wasi-sdk with {COMPILER_VARIABLE}"))?;
    find()
}

/// The first of PATH that works, or what was wrong with each.
fn find() -> Result<OsString> {
    let mut troubles = Vec::new();
    for name in COMPILERS {
        match exec::on_path(name) {
            None => troubles.push(format!("{name} is not in PATH")),
            Some(file) => match probe(file.as_os_str()) {
                Ok(()) => return Ok(file.into()),
                Err(error) => troubles.push(format!("{error:#}")),
            },
        }
    }
    bail!("no clang that links for Wasm: {}", troubles.join("; "))
}

/// Compiles and links a small program.
fn probe(compiler: &OsStr) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let source = folder.path().join("probe.c");
    fs::write(&source, PROBE)?;
    let mut command = Command::new(compiler);
    command.args(["--target=wasm32-wasi", "-mexec-model=reactor", "-o"]);
    command.arg(folder.path().join("probe.wasm")).arg(&source);
    exec::output(&mut command).map(drop)
}
