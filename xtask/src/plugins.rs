//! Builds guests, and puts each component beside its `handler.toml`.
//!
//! A guest is a folder with a `Cargo.toml` and a `handler.toml`; folder, package
//! and component have one name. Cargo knows what is up to date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{exec, root, wasm};

/// Workspaces of guests: the examples, and those that only tests use.
pub const WORKSPACES: [&str; 2] = ["plugins", "tests/fixtures/guests"];

struct Guest {
    name: String,
    folder: PathBuf,
}

/// `cargo xtask plugins`
pub fn command(names: &[String]) -> Result<()> {
    for component in build(names)? {
        println!("{}", component.display());
    }
    Ok(())
}

/// Builds the guests of these names, or all, and returns their components.
pub fn build(names: &[String]) -> Result<Vec<PathBuf>> {
    let workspaces: Vec<_> = WORKSPACES
        .iter()
        .map(|workspace| root().join(workspace))
        .collect();
    let all: Vec<_> = workspaces
        .iter()
        .map(|workspace| guests(workspace))
        .collect::<Result<_>>()?;
    for name in names {
        let known: Vec<_> = all.iter().flatten().map(|guest| guest.name.as_str()).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no handler {name:?} here; there are {}",
            known.join(", ")
        );
    }

    // One folder for both workspaces: they share the standard library and the SDK.
    let target = root().join("target/guests");
    let compiler = wasm::compiler()?;
    let mut components = Vec::new();
    for (workspace, guests) in workspaces.iter().zip(all) {
        let wanted = guests
            .into_iter()
            .filter(|guest| names.is_empty() || names.contains(&guest.name));
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            continue;
        }
        let mut cargo = compiler.build();
        cargo
            .current_dir(workspace)
            .env("CARGO_TARGET_DIR", &target)
            .arg("--locked");
        for guest in &wanted {
            cargo.args(["--package", &guest.name]);
        }
        exec::run(&mut cargo)?;
        for guest in wanted {
            let file = format!("{}.wasm", guest.name.replace('-', "_"));
            let built = target.join(wasm::TARGET).join("release").join(file);
            let component = guest.folder.join(format!("{}.wasm", guest.name));
            copy_if_new(&built, &component)?;
            components.push(component);
        }
    }
    Ok(components)
}

fn guests(workspace: &Path) -> Result<Vec<Guest>> {
    let entries = fs::read_dir(workspace).with_context(|| format!("cannot read {}", workspace.display()))?;
    let mut guests = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        let is_guest = ["Cargo.toml", "handler.toml"]
            .iter()
            .all(|file| folder.join(file).is_file());
        if let (true, Some(name)) = (is_guest, folder.file_name()) {
            let name = name.to_string_lossy().into_owned();
            guests.push(Guest { name, folder });
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
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
