//! Folders of handlers for a test: a `handler.toml` that the test writes, and
//! beside it a component that `cargo xtask plugins` built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// Folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the repository")
}

/// The example that every language has: counts in cell `n` and emits each count.
pub const ROTATIONS: &str = "plugins/rotations";
/// The guest that does what its event tells it to.
pub const PROBE: &str = "tests/fixtures/guests/probe";
/// The guest that does what its event says with shared cells and locks.
pub const SHARER: &str = "tests/fixtures/guests/sharer";
/// The guest that says which migrations its cells went through.
pub const MIGRATING: &str = "tests/fixtures/guests/migrating";
/// The guest that only counts: cell `n`, no emits.
pub const TALLY: &str = "tests/fixtures/guests/tally";

/// The component that the `handler.toml` in a folder of the repository names.
///
/// # Errors
/// If it was not built, with what to do.
pub fn component(folder: &str) -> Result<PathBuf> {
    let folder = repository().join(folder);
    let manifest = folder.join("handler.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
    let name = text
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("component")?
                .trim_start()
                .strip_prefix('=')
        })
        .and_then(|value| value.split('"').nth(1))
        .with_context(|| format!("{} names no component", manifest.display()))?;
    let component = folder.join(name);
    ensure!(
        component.is_file(),
        "{} is missing: build the guests with `cargo xtask plugins`, then run the tests again",
        component.display()
    );
    Ok(component)
}

/// The `plugins` folder of a host, empty at first.
pub struct Plugins {
    dir: TempDir,
}

impl Plugins {
    pub fn new() -> Result<Plugins> {
        Ok(Plugins { dir: TempDir::new()? })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Adds, or replaces, a handler: `manifest` is all of its `handler.toml` but
    /// `name`, `component` and `version`; `guest` the folder of the repository
    /// whose component it runs.
    pub fn put(&self, name: &str, version: &str, guest: &str, manifest: &str) -> Result<()> {
        let bytes = fs::read(component(guest)?)?;
        self.put_bytes(name, version, &bytes, manifest)
    }

    /// Like [`Plugins::put`] with any bytes for a component.
    pub fn put_bytes(&self, name: &str, version: &str, component: &[u8], manifest: &str) -> Result<()> {
        let folder = self.dir.path().join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("guest.wasm"), component)?;
        let head = format!("name = \"{name}\"\ncomponent = \"guest.wasm\"\nversion = \"{version}\"\n");
        fs::write(folder.join("handler.toml"), head + manifest)?;
        Ok(())
    }
}
