//! The compiler for guests in Rust.
//!
//! rustup's target is the ordinary way. Where it is missing and cannot be
//! fetched, Debian's `rustc-web` does it: it carries the source of the standard
//! library, which cargo then builds for Wasm (`-Z build-std`, hence
//! `RUSTC_BOOTSTRAP`). That takes most of a minute once, and is cached.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::exec;

pub const TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compiler {
    Rustup,
    Debian,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compiler::Rustup => write!(f, "the toolchain's own {TARGET}"),
            Compiler::Debian => write!(f, "{DEBIAN_CARGO} with build-std"),
        }
    }
}

impl Compiler {
    /// `cargo build` for the guests' target, to which flags are added.
    pub fn build(self) -> Command {
        let mut cargo = match self {
            Compiler::Rustup => exec::cargo(),
            Compiler::Debian => Command::new(DEBIAN_CARGO),
        };
        cargo.args(["build", "--release", "--target", TARGET]);
        if self == Compiler::Debian {
            cargo
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTC", DEBIAN_RUSTC)
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
            // Left by the cargo that runs us, for another toolchain.
            for variable in ["CARGO", "LD_LIBRARY_PATH", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
                cargo.env_remove(variable);
            }
        }
        cargo
    }
}

/// The compiler to use, installed if there was none.
pub fn compiler() -> Result<Compiler> {
    static FOUND: OnceLock<Compiler> = OnceLock::new();
    if let Some(compiler) = FOUND.get() {
        return Ok(*compiler);
    }
    let compiler = find()?;
    Ok(*FOUND.get_or_init(|| compiler))
}

fn find() -> Result<Compiler> {
    if rustup_has_target() {
        return Ok(Compiler::Rustup);
    }
    if debian_is_complete() {
        return Ok(Compiler::Debian);
    }
    if exec::on_path("rustup").is_some() {
        match exec::output(Command::new("rustup").args(["target", "add", TARGET])) {
            Ok(_) if rustup_has_target() => return Ok(Compiler::Rustup),
            Ok(_) => eprintln!("rustup added {TARGET} to another toolchain than the one in use"),
            Err(error) => eprintln!("{error:#}\nusing Debian's compiler for guests instead"),
        }
    }
    exec::apt_install(&DEBIAN_PACKAGES, "building Rust guests without rustup's target").context(format!(
        "no compiler for guests: `rustup target add {TARGET}` does not work here"
    ))?;
    anyhow::ensure!(
        debian_is_complete(),
        "{DEBIAN_RUSTC} has no source of its standard library, although rust-web-src is installed; \
         is it that of another package?"
    );
    Ok(Compiler::Debian)
}

fn rustup_has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    exec::output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
        .is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

fn debian_is_complete() -> bool {
    let sysroot = exec::output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]));
    sysroot.is_ok_and(|sysroot| {
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/std");
        library.is_dir() && Path::new(DEBIAN_CARGO).is_file() && exec::on_path("wasm-ld").is_some()
    })
}
