//! `weir new`, in a folder of its own: what it makes builds and passes its test as it stands.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use weir_tests::host::weir_binary;
use weir_tests::plugins::repository;

const TARGET: &str = "wasm32-unknown-unknown";

fn run(command: &mut Command) -> Result<Output> {
    command.env("NO_COLOR", "1").env_remove("WEIR_SDK");
    command.output().with_context(|| format!("{command:?}"))
}

fn weir(folder: &Path, args: &[&str]) -> Result<Output> {
    run(Command::new(weir_binary()?).args(args).current_dir(folder))
}

fn exits(output: Output, code: i32) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(code), "not {code}: {shown}{said}");
    Ok(said)
}

/// `make` with the compiler that `cargo xtask plugins` uses, too: rustup's, or Debian's where
/// the target cannot be fetched.
fn make(folder: &Path) -> Result<Output> {
    let mut make = Command::new("make");
    make.current_dir(folder);
    // Of the cargo that runs this test: another build, maybe of another toolchain.
    let inherited = [
        "CARGO",
        "RUSTC",
        "CARGO_TARGET_DIR",
        "LD_LIBRARY_PATH",
        "RUSTUP_TOOLCHAIN",
        "MAKEFLAGS",
    ];
    for variable in inherited {
        make.env_remove(variable);
    }
    let rustc = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()?;
    let has_target = Path::new(String::from_utf8_lossy(&rustc.stdout).trim()).is_dir();
    if has_target {
        make.env(
            "CARGO",
            std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        );
    } else {
        make.args(["CARGO=/usr/bin/cargo", "CARGO_FLAGS=-Z build-std=std,panic_abort"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", "/usr/bin/rustc")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
    }
    run(&mut make)
}

#[test]
fn a_rust_project_builds_and_passes_its_test_as_created() -> Result<()> {
    let folder = TempDir::new()?;
    let made = weir(folder.path(), &["new", "my-counter", "--lang", "rust"])?;
    ensure!(made.stdout == b"my-counter\n", "{made:?}");
    exits(made, 0)?;
    let project = folder.path().join("my-counter");

    // Not built yet.
    let said = exits(weir(&project, &["test", "."])?, 2)?;
    ensure!(said.contains("build it with: make -C ."), "{said}");

    // Kept from run to run: crates.io and the macros of wit-bindgen are most of a build.
    let target = repository().join("target/tmp/weir-new-rust");
    fs::create_dir_all(&target)?;
    std::os::unix::fs::symlink(&target, project.join("target"))?;
    exits(make(&project)?, 0)?;
    let said = exits(weir(&project, &["test", "."])?, 0)?;
    ensure!(said.contains("as ./expected.jsonl expects"), "{said}");
    exits(
        weir(
            &project,
            &["inspect", "target/wasm32-unknown-unknown/release/handler.wasm"],
        )?,
        0,
    )?;

    // No placeholder is left over, in no file of its own.
    for file in [
        "Cargo.toml",
        "Makefile",
        "README.md",
        "handler.toml",
        "src/lib.rs",
    ] {
        let text = fs::read_to_string(project.join(file))?;
        ensure!(!text.contains("{{"), "{file} has a placeholder left");
    }
    Ok(())
}

#[test]
fn it_replaces_nothing_and_leaves_nothing_half_made() -> Result<()> {
    let folder = TempDir::new()?;
    fs::create_dir(folder.path().join("there"))?;
    let said = exits(weir(folder.path(), &["new", "there", "--lang", "rust"])?, 2)?;
    ensure!(said.contains("there exists already"), "{said}");
    let said = exits(weir(folder.path(), &["new", "Bad_Name", "--lang", "rust"])?, 2)?;
    ensure!(said.contains("`Bad_Name` is no name"), "{said}");

    let sdk = repository().join("guest-sdk/rust");
    let sdk = sdk.to_str().context("a path that is text")?;
    exits(
        weir(folder.path(), &["new", "linked", "--lang", "rust", "--sdk", sdk])?,
        0,
    )?;
    let manifest = fs::read_to_string(folder.path().join("linked/Cargo.toml"))?;
    ensure!(manifest.contains(&format!("path = \"{sdk}\"")), "{manifest}");
    ensure!(!folder.path().join("linked/sdk").exists());
    Ok(())
}

/// The other languages, with the tools that `cargo xtask test` sets up and names in the
/// environment.
#[test]
fn a_project_in_every_language_builds_and_passes_its_test_as_created() -> Result<()> {
    let folder = TempDir::new()?;
    // Kept from run to run: an interpreter takes seconds to compile.
    let data = repository().join("target/tmp/weir");
    let data = data.to_str().context("a path that is text")?;
    for language in ["python", "javascript", "typescript", "c", "go"] {
        exits(weir(folder.path(), &["new", language, "--lang", language])?, 0)?;
        let project = folder.path().join(language);
        let manifest = fs::read_to_string(project.join("handler.toml"))?;
        ensure!(manifest.contains(&format!("name = \"{language}\"")), "{manifest}");

        let mut make = Command::new("make");
        make.current_dir(&project).env_remove("MAKEFLAGS");
        exits(run(&mut make)?, 0).with_context(|| {
            format!("make in a new project in {language} (with the tools that `cargo xtask test` sets up)")
        })?;
        let said = exits(weir(&project, &["test", ".", "--data", data])?, 0)
            .with_context(|| format!("weir test in a new project in {language}"))?;
        ensure!(said.contains("as ./expected.jsonl expects"), "{said}");
        ensure!(project.join("sdk/wit/world.wit").is_file());
        for entry in fs::read_dir(&project)? {
            let file = entry?.path();
            if let Ok(text) = fs::read_to_string(&file) {
                ensure!(!text.contains("{{"), "{} has a placeholder left", file.display());
            }
        }
    }
    Ok(())
}
