//! Builds guests, and puts each component beside its `handler.toml`.
//!
//! A guest is a folder with a `handler.toml`. Those in Rust are members of a cargo
//! workspace; folder, package and component have one name. Those in another
//! language are in a folder of that language, and have a Makefile; those of the shop
//! are all beside each other. Cargo and make know what is up to date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::languages::{self, Language, rust};
use crate::{exec, root};

/// A system of handlers in several languages; also a workspace of those in Rust.
pub const SHOP: &str = "examples/shop";

/// Workspaces of guests in Rust: the examples, and those that only tests use. Those in
/// another language are beside them, in a folder of that language.
pub const WORKSPACES: [&str; 3] = ["plugins", SHOP, "tests/fixtures/guests"];

pub struct Guest {
    pub language: Language,
    /// As on the command line: `rotations`, `python/rotations`, `shop/orders`.
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
    // One folder for all workspaces: they share the standard library and the SDK.
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
            let package = file_name(&guest.folder);
            // Alone: built together, all would have the SDK's features that one of them asks for.
            let mut cargo = compiler.build();
            cargo.current_dir(&workspace).env("CARGO_TARGET_DIR", &target);
            exec::run(cargo.args(["--locked", "--package", &package]))?;
            let file = format!("{}.wasm", package.replace('-', "_"));
            let built = target.join(rust::TARGET).join("release").join(file);
            let component = guest.folder.join(format!("{package}.wasm"));
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
    for workspace in WORKSPACES.into_iter().filter(|workspace| *workspace != SHOP) {
        let workspace = root().join(workspace);
        for folder in guests_in(&workspace)? {
            let name = file_name(&folder);
            guests.push(Guest {
                language: Language::Rust,
                name,
                folder,
            });
        }
        for language in Language::value_variants() {
            let parent = workspace.join(language.name());
            if !parent.is_dir() {
                continue;
            }
            for folder in guests_in(&parent)? {
                guests.push(Guest {
                    language: *language,
                    name: format!("{}/{}", language.name(), file_name(&folder)),
                    folder,
                });
            }
        }
    }
    guests.extend(shop()?);
    Ok(guests)
}

/// The handlers of the shop: also what `cargo xtask shop` builds.
pub fn shop() -> Result<Vec<Guest>> {
    let folders = guests_in(&root().join(SHOP))?.into_iter();
    let guests = folders.map(|folder| {
        Ok(Guest {
            language: language_of(&folder)?,
            name: format!("shop/{}", file_name(&folder)),
            folder,
        })
    });
    guests.collect()
}

/// What a handler is written in, where its place does not say so.
fn language_of(folder: &Path) -> Result<Language> {
    let name = file_name(folder);
    let signs = [
        ("Cargo.toml".to_owned(), Language::Rust),
        ("go.mod".to_owned(), Language::Go),
        ("handler.ts".to_owned(), Language::Typescript),
        ("handler.js".to_owned(), Language::Javascript),
        (format!("{name}.py"), Language::Python),
        (format!("{name}.c"), Language::C),
    ];
    let found = signs.into_iter().find(|(file, _)| folder.join(file).is_file());
    let (_, language) = found.with_context(|| {
        format!(
            "{} has no file that says its language, such as go.mod or handler.ts",
            folder.display()
        )
    })?;
    Ok(language)
}

/// Folders of guests in a folder, in the order of their names.
fn guests_in(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))?;
    let folders: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut folders = folders?;
    folders.retain(|folder| folder.join("handler.toml").is_file());
    folders.sort();
    Ok(folders)
}

fn file_name(folder: &Path) -> String {
    folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
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
