//! Handlers from a folder of files: the host's `plugins` folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::{self, Manifest};

/// A handler as it was found: nothing of it is compiled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    pub manifest: Manifest,
    /// The text of `handler.toml`.
    pub text: String,
    /// The component file's bytes.
    pub wasm: Vec<u8>,
    /// SHA-256 of `wasm`, hexadecimal.
    pub digest: String,
}

/// Why a folder does not become a handler.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    #[error("{}: cannot be read: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: the name `{name}` is already that of {}; names are unique in a ledger", file.display(), first.display())]
    Duplicate {
        name: String,
        file: PathBuf,
        first: PathBuf,
    },
    #[error("{}: no {} in it or in a folder directly below", path.display(), manifest::FILE_NAME)]
    Empty { path: PathBuf },
}

/// Reads the handlers of a folder: the folder itself if it has a `handler.toml`,
/// else each folder directly below it that has one, by name. What cannot be read
/// is an error in the list, and does not keep the others from being read.
///
/// Of several with one name the first is kept, so that a stray copy cannot
/// replace a handler that was there.
pub fn load_folder(folder: &Path) -> Vec<Result<Deployed, Error>> {
    let folders = match handler_folders(folder) {
        Ok(folders) if folders.is_empty() => {
            return vec![Err(Error::Empty {
                path: folder.to_owned(),
            })];
        }
        Ok(folders) => folders,
        Err(error) => {
            return vec![Err(Error::Read {
                path: folder.to_owned(),
                error,
            })];
        }
    };
    let mut first_of: BTreeMap<String, PathBuf> = BTreeMap::new();
    folders
        .into_iter()
        .map(|folder| {
            let file = folder.join(manifest::FILE_NAME);
            let deployed = load(&file)?;
            let name = deployed.manifest.name.clone();
            if let Some(first) = first_of.get(&name) {
                return Err(Error::Duplicate {
                    name,
                    file,
                    first: first.clone(),
                });
            }
            first_of.insert(name, file);
            Ok(deployed)
        })
        .collect()
}

/// Reads one manifest and its component.
///
/// # Errors
/// Of the manifest, or of reading the component.
pub fn load(path: &Path) -> Result<Deployed, Error> {
    let (manifest, text) = Manifest::read(path)?;
    let wasm = std::fs::read(&manifest.component).map_err(|error| Error::Read {
        path: manifest.component.clone(),
        error,
    })?;
    Ok(Deployed {
        digest: digest_of(&wasm),
        manifest,
        text,
        wasm,
    })
}

/// SHA-256, hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn handler_folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    if folder.join(manifest::FILE_NAME).is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.join(manifest::FILE_NAME).is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, manifest_name: &str) {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = format!(
            "name = \"{manifest_name}\"\ncomponent = \"c.wasm\"\n[[source]]\nstream = \"S\"\nsubjects = [\">\"]\n"
        );
        std::fs::write(folder.join("handler.toml"), text).expect("a manifest");
        std::fs::write(folder.join("c.wasm"), b"abc").expect("a component");
    }

    #[test]
    fn folders_are_read_in_order_and_bad_ones_do_not_hide_good_ones() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        put(folder.path(), "b", "second");
        put(folder.path(), "a", "first");
        put(folder.path(), "c", "first");
        put(folder.path(), "d", "Not A Name");
        std::fs::create_dir(folder.path().join("target")).expect("a folder that is no handler");
        std::fs::write(folder.path().join("README"), "").expect("a file");

        let found: Vec<Result<String, String>> = load_folder(folder.path())
            .into_iter()
            .map(|one| one.map(|d| d.manifest.name).map_err(|error| error.to_string()))
            .collect();
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], Ok("first".into()));
        assert_eq!(found[1], Ok("second".into()));
        let duplicate = found[2].as_ref().expect_err("a second `first`");
        assert!(
            duplicate.contains("c/handler.toml") && duplicate.contains("a/handler.toml"),
            "{duplicate}"
        );
        assert!(found[3].is_err());
    }

    #[test]
    fn a_folder_that_is_a_handler() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        put(folder.path(), "a", "alone");
        let mut found = load_folder(&folder.path().join("a"));
        let deployed = found.pop().expect("one").expect("a handler");
        assert!(found.is_empty());
        assert_eq!(deployed.manifest.name, "alone");
        // FIPS 180-2, appendix B.1
        assert_eq!(
            deployed.digest,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn nothing_to_read_is_said() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(
            load_folder(folder.path())[..],
            [Err(Error::Empty { .. })]
        ));
        assert!(matches!(
            load_folder(&folder.path().join("gone"))[..],
            [Err(Error::Read { .. })]
        ));
    }
}
