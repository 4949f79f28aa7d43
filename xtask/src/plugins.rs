//! Builds guests, and puts each component beside its `handler.toml`.
//!
//! A guest is a folder with a `handler.toml`. Those in Rust are members of a cargo
//! workspace; folder, package and component have one name. Those in another
//! language are in a folder of that language, and have a Makefile. Cargo and make
//! know what is up to date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::languages::{self, Language, rust};
use crate::{exec, root};

/// Workspaces of guests in Rust: the examples, and those that only tests use. Those in
/// another language are beside them, in a folder of that language.
pub const WORKSPACES: [&str; 2] = ["plugins", "tests/fixtures/guests"];

pub struct Guest {
    pub language: Language,
    /// As on the command line: `rotations`, `python/rotations`.
    pub name: String,
    pub folder: PathBuf,
}

/// `cargo xtask plugins`
pub fn command(names: &[String], languages: &[Language]) -> Result<()> {
    for component in build(names, languages)? {
        println!("{}", component.display());
    }
    Ok(())
}

/// Builds the guests of these names and languages, or all, and returns their
/// components.
pub fn build(names: &[String], languages: &[Language]) -> Result<Vec<PathBuf>> {
    let mut guests = all()?;
    for name in names {
        let known: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no handler {name:?} here; there are {}",
            known.join(", ")
        );
    }
    guests.retain(|guest| {
        (names.is_empty() || names.contains(&guest.name))
            && (languages.is_empty() || languages.contains(&guest.language))
    });
    let (rust, others): (Vec<_>, Vec<_>) = guests
        .into_iter()
        .partition(|guest| guest.language == Language::Rust);
    let mut components = build_rust(&rust)?;
    for language in Language::value_variants() {
        let guests: Vec<_> = others
            .iter()
            .filter(|guest| guest.language == *language)
            .collect();
        if guests.is_empty() {
            continue;
        }
        let variables = language
            .set_up()
            .with_context(|| format!("setting up {}; `--lang` builds without it", language.name()))?;
        for guest in guests {
            languages::make(&guest.folder, &variables)?;
            components.push(component(&guest.folder)?);
        }
    }
    Ok(components)
}

fn build_rust(guests: &[Guest]) -> Result<Vec<PathBuf>> {
    if guests.is_empty() {
        return Ok(Vec::new());
    }
    // One folder for both workspaces: they share the standard library and the SDK.
    let target = root().join("target/guests");
    let compiler = rust::compiler()?;
    let mut components = Vec::new();
    for workspace in WORKSPACES {
        let workspace = root().join(workspace);
        let wanted: Vec<_> = guests
            .iter()
            .filter(|guest| guest.folder.starts_with(&workspace))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        for guest in wanted {
            // Alone: built together, all would have the SDK's features that one of them asks for.
            let mut cargo = compiler.build();
            cargo.current_dir(&workspace).env("CARGO_TARGET_DIR", &target);
            exec::run(cargo.args(["--locked", "--package", &guest.name]))?;
            let file = format!("{}.wasm", guest.name.replace('-', "_"));
            let built = target.join(rust::TARGET).join("release").join(file);
            let component = guest.folder.join(format!("{}.wasm", guest.name));
            copy_if_new(&built, &component)?;
            components.push(component);
        }
    }
    Ok(components)
}

/// The example that every language has.
pub fn rotations() -> Result<Vec<Guest>> {
    let mut guests = all()?;
    guests.retain(|guest| guest.folder.ends_with("rotations"));
    Ok(guests)
}

/// Every guest of the repository.
fn all() -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for workspace in WORKSPACES {
        guests.extend(guests_in(&root().join(workspace), Language::Rust)?);
    }
    for language in Language::value_variants() {
        for workspace in WORKSPACES {
            let folder = root().join(workspace).join(language.name());
            if folder.is_dir() {
                guests.extend(guests_in(&folder, *language)?);
            }
        }
    }
    Ok(guests)
}

fn guests_in(parent: &Path, language: Language) -> Result<Vec<Guest>> {
    let entries = fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))?;
    let mut guests = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        if let (true, Some(name)) = (folder.join("handler.toml").is_file(), folder.file_name()) {
            let name = name.to_string_lossy();
            let name = match language {
                Language::Rust => name.into_owned(),
                other => format!("{}/{name}", other.name()),
            };
            guests.push(Guest {
                language,
                name,
                folder,
            });
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

/// The component that a folder's `handler.toml` names.
fn component(folder: &Path) -> Result<PathBuf> {
    let manifest = folder.join("handler.toml");
    let text = fs::read_to_string(&manifest)?;
    let named = text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("component")?.trim_start();
        value.strip_prefix('=')?.split('"').nth(1)
    });
    let component = folder.join(named.with_context(|| format!("{} names no component", manifest.display()))?);
    ensure!(
        component.is_file(),
        "make in {} has not made {}",
        folder.display(),
        component.display()
    );
    Ok(component)
}

/// A host may be watching the folder: it sees a whole file, and only a new one.
fn copy_if_new(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("{} was not built", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let folder = to.parent().context("a component is in a folder")?;
    let temporary = tempfile::tempdir_in(folder)?;
    let whole = temporary.path().join("component");
    fs::write(&whole, new)?;
    fs::rename(whole, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}
