//! Compiled code on disk, so that a component is compiled once per machine and
//! version of the engine: an interpreter takes seconds to compile and
//! milliseconds to load.
//!
//! One file per component and engine:
//!
//! ```text
//! <data>/code/<SHA-256 of the component>-<engine>-<SHA-256 of the code>.cwasm
//! ```
//!
//! The name says what the file must contain. One that contains something else (a
//! crash, a full disk) is deleted and compiled anew. Files appear whole,
//! by rename, so that several hosts can share a folder. Beyond
//! [`CACHE_BYTES_MAX`] those that were not used for longest go.
//!
//! The cache is a convenience: whatever is wrong with it, the component is
//! compiled as if there were none, and the log says why.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

/// Bytes of all compiled code that is kept: some dozen of the largest components.
const CACHE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

const EXTENSION: &str = "cwasm";

/// A folder of compiled code.
#[derive(Debug, Clone)]
pub struct CodeCache {
    folder: PathBuf,
}

impl CodeCache {
    /// The cache in a host's data folder. Nothing is created before it is needed.
    pub fn new(data: &Path) -> CodeCache {
        CodeCache {
            folder: data.join("code"),
        }
    }

    /// The component, from the cache or else by `compile`, whose result is kept.
    ///
    /// # Errors
    /// Only those of `compile`.
    pub(super) fn component<E>(
        &self,
        engine: &wasmtime::Engine,
        bytes: &[u8],
        compile: impl FnOnce() -> Result<Component, E>,
    ) -> Result<Component, E> {
        let prefix = format!("{}-{:016x}-", hex(&Sha256::digest(bytes)), compatibility(engine));
        match self.load(engine, &prefix) {
            Ok(Some(component)) => return Ok(component),
            Ok(None) => {}
            Err(error) => tracing::warn!("compiled code not used: {error:#}"),
        }
        let component = compile()?;
        if let Err(error) = self.store(&prefix, &component) {
            tracing::warn!("compiled code not kept: {error:#}");
        }
        Ok(component)
    }

    fn load(&self, engine: &wasmtime::Engine, prefix: &str) -> Result<Option<Component>> {
        let Some(file) = self.find(prefix)? else {
            return Ok(None);
        };
        let shown = file.display();
        let code = fs::read(&file).with_context(|| format!("cannot read {shown}"))?;
        let expected = format!("{prefix}{}.{EXTENSION}", hex(&Sha256::digest(&code)));
        if file.file_name().is_none_or(|name| name != expected.as_str()) {
            fs::remove_file(&file).with_context(|| format!("cannot remove {shown}"))?;
            anyhow::bail!("{shown} was damaged; it is removed and made anew");
        }
        drop(code);
        // SAFETY: the file is what `Component::serialize` of a compatible engine
        // returned: its name says which engine, and the checksum of its bytes, which
        // was compared just now. A file is never changed once it has its name.
        // The folder belongs to the host's user alone (`store`), and whoever can
        // write as that user can replace the host itself.
        let component = unsafe { Component::deserialize_file(engine, &file) }
            .map_err(anyhow::Error::from)
            .with_context(|| format!("cannot load {shown}"))?;
        // When it was used last; for `make_room` only.
        if let Ok(opened) = fs::File::open(&file) {
            let _ = opened.set_modified(SystemTime::now());
        }
        Ok(Some(component))
    }

    fn find(&self, prefix: &str) -> Result<Option<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(format!("cannot read {}", self.folder.display())),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    fn store(&self, prefix: &str, component: &Component) -> Result<()> {
        let code = component.serialize().map_err(anyhow::Error::from)?;
        create_private(&self.folder)?;
        self.make_room(code.len() as u64)?;
        let name = format!("{prefix}{}.{EXTENSION}", hex(&Sha256::digest(&code)));
        let mut temporary = tempfile::NamedTempFile::new_in(&self.folder)?;
        temporary.write_all(&code)?;
        temporary.persist(self.folder.join(name))?;
        Ok(())
    }

    /// Removes what was not used for longest until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another host may have removed it since.
            if let Ok(metadata) = entry.metadata() {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total + bytes <= CACHE_BYTES_MAX {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => total -= len,
            }
        }
        Ok(())
    }
}

/// Creates the folder for its user alone.
fn create_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let metadata = fs::metadata(folder)?;
    ensure!(
        metadata.permissions().mode() & 0o022 == 0,
        "{} can be written by others than user {}: chmod go-w it",
        folder.display(),
        metadata.uid()
    );
    Ok(())
}

/// What code must agree in with the engine that runs it: version of wasmtime,
/// processor features, and every setting that changes code.
fn compatibility(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn engine() -> wasmtime::Engine {
        wasmtime::Engine::default()
    }

    /// Whether it had to be compiled.
    fn compiled(cache: &CodeCache) -> bool {
        let engine = engine();
        let mut compiled = false;
        let component = cache.component(&engine, EMPTY, || {
            compiled = true;
            Component::from_binary(&engine, EMPTY)
        });
        component.expect("the empty component compiles");
        compiled
    }

    fn files(cache: &CodeCache) -> Vec<PathBuf> {
        let entries = fs::read_dir(&cache.folder).expect("the cache's folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    #[test]
    fn a_component_is_compiled_once() {
        let data = tempfile::tempdir().expect("a folder");
        let cache = CodeCache::new(data.path());
        assert!(compiled(&cache));
        assert!(!compiled(&cache));
        assert_eq!(files(&cache).len(), 1);
    }

    #[test]
    fn damaged_code_is_never_loaded() {
        let data = tempfile::tempdir().expect("a folder");
        let cache = CodeCache::new(data.path());
        assert!(compiled(&cache));
        let file = files(&cache).remove(0);
        let mut code = fs::read(&file).expect("the code");
        let middle = code.len() / 2;
        code[middle] ^= 1;
        fs::write(&file, code).expect("damage");
        assert!(compiled(&cache));
        assert!(!compiled(&cache));
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().expect("a folder");
        let cache = CodeCache::new(data.path());
        fs::create_dir(&cache.folder).expect("a folder");
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o777)).expect("permissions");
        assert!(compiled(&cache));
        assert!(compiled(&cache));
        assert_eq!(files(&cache), Vec::<PathBuf>::new());
    }
}
