//! A watched folder of handlers: what changes in it is deployed as `weir deploy`
//! would, and what disappears is removed.
//!
//! A file that is being written is waited for: a handler is taken once its files
//! have been the same at two looks in succession. Which of them were handled is
//! remembered, so that a broken one is reported once and not at every look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{FILE_NAME, Manifest};
use super::plugins::{self, Deployed};

/// Size and time of change of the manifest and of the component it names.
type Look = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// What is to be done about a folder of one handler.
#[derive(Debug)]
pub enum Change {
    /// It is new, or other than it was.
    Found(Box<Deployed>),
    /// It cannot be read; said once for the files as they are.
    Unreadable(plugins::Error),
    /// A handler has disappeared.
    Gone(Was),
}

/// What a folder had that has disappeared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Was {
    pub name: String,
    pub digest: String,
    /// The text of `handler.toml`.
    pub text: String,
}

impl Was {
    fn of(deployed: &Deployed) -> Was {
        Was {
            name: deployed.manifest.name.clone(),
            digest: deployed.digest.clone(),
            text: deployed.text.clone(),
        }
    }
}

/// What is known of a folder.
#[derive(Debug, Default)]
pub struct Folder {
    path: PathBuf,
    known: BTreeMap<PathBuf, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// At the last look.
    seen: Look,
    /// Of what was handled last.
    handled: Option<Look>,
    /// What it was when it was read last.
    was: Option<Was>,
    /// It could not be read the last time, which was said: mended is news.
    unreadable: bool,
    /// Looks at which it was not there.
    missing: u32,
}

/// Looks at which a handler must be missing: a tool that replaces a folder takes
/// it away for a moment.
const MISSING_LOOKS: u32 = 3;

impl Folder {
    pub fn new(path: &Path) -> Folder {
        Folder {
            path: path.to_owned(),
            known: BTreeMap::new(),
        }
    }

    /// Takes the files as they are for handled: the host has read them at its start.
    pub fn handled(&mut self, loaded: &[Deployed]) {
        for folder in plugins::handler_folders(&self.path).unwrap_or_default() {
            let look = look(&folder);
            let of_this = loaded
                .iter()
                .find(|deployed| deployed.manifest.component.starts_with(&folder));
            let known = Known {
                seen: look.clone(),
                handled: Some(look),
                was: of_this.map(Was::of),
                unreadable: of_this.is_none(),
                missing: 0,
            };
            self.known.insert(folder, known);
        }
    }

    /// Looks again. A folder that cannot be read at all changes nothing: it may be a
    /// volume that is away for a moment.
    pub fn look(&mut self) -> Vec<Change> {
        let Ok(folders) = plugins::handler_folders(&self.path) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        for folder in &folders {
            let known = self.known.entry(folder.clone()).or_default();
            known.missing = 0;
            let now = look(folder);
            let is_still = known.seen == now;
            known.seen = now;
            if !is_still || known.handled.as_ref() == Some(&known.seen) {
                continue;
            }
            match plugins::load(&folder.join(FILE_NAME)) {
                // It changed between the look and now: once more, then.
                Ok(_) if look(folder) != known.seen => {}
                Ok(deployed) => {
                    known.handled = Some(known.seen.clone());
                    // Files that were only touched are nobody's wish to deploy them.
                    let was = known.was.replace(Was::of(&deployed));
                    if std::mem::take(&mut known.unreadable) || was != known.was {
                        changes.push(Change::Found(Box::new(deployed)));
                    }
                }
                Err(error) => {
                    known.handled = Some(known.seen.clone());
                    known.unreadable = true;
                    changes.push(Change::Unreadable(error));
                }
            }
        }
        self.known.retain(|folder, known| {
            if folders.contains(folder) {
                return true;
            }
            known.missing += 1;
            if known.missing < MISSING_LOOKS {
                return true;
            }
            if let Some(was) = known.was.take() {
                changes.push(Change::Gone(was));
            }
            false
        });
        changes
    }
}

fn look(folder: &Path) -> Look {
    let manifest = folder.join(FILE_NAME);
    let component = Manifest::read(&manifest).map(|(manifest, _)| manifest.component);
    let files = [Some(manifest), component.ok()];
    let files = files.into_iter().flatten();
    files
        .map(|file| match std::fs::metadata(&file) {
            Ok(found) => (file, found.len(), found.modified().ok()),
            Err(_) => (file, 0, None),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, wasm: &[u8]) {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = format!(
            "name = \"{name}\"\ncomponent = \"c.wasm\"\n[[source]]\nstream = \"S\"\nsubjects = [\">\"]\n"
        );
        std::fs::write(folder.join(FILE_NAME), text).expect("a manifest");
        std::fs::write(folder.join("c.wasm"), wasm).expect("a component");
    }

    fn told(changes: Vec<Change>) -> Vec<String> {
        let tell = |change| match change {
            Change::Found(deployed) => format!("{} {}", deployed.manifest.name, deployed.wasm.len()),
            Change::Unreadable(error) => format!("unreadable {error}"),
            Change::Gone(was) => format!("gone {}", was.name),
        };
        changes.into_iter().map(tell).collect()
    }

    #[test]
    fn files_are_taken_once_they_are_still() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), "old", b"1");
        let mut folder = Folder::new(dir.path());
        let loaded: Vec<Deployed> = plugins::load_folder(dir.path()).into_iter().flatten().collect();
        folder.handled(&loaded);
        assert!(folder.look().is_empty());

        write(dir.path(), "new", b"12");
        assert!(folder.look().is_empty(), "seen for the first time");
        write(dir.path(), "new", b"123");
        assert!(folder.look().is_empty(), "still growing");
        assert_eq!(told(folder.look()), ["new 3"]);
        assert!(folder.look().is_empty(), "once");

        let touched = std::fs::File::options()
            .write(true)
            .open(dir.path().join("new").join("c.wasm"));
        touched
            .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH))
            .expect("a file that was there");
        let again: Vec<String> = (0..3).flat_map(|_| told(folder.look())).collect();
        assert!(again.is_empty(), "touched, and as it was: {again:?}");

        std::fs::write(dir.path().join("new").join(FILE_NAME), "name = 3").expect("a bad manifest");
        assert!(folder.look().is_empty());
        let said = told(folder.look());
        assert!(said.len() == 1 && said[0].starts_with("unreadable"), "{said:?}");
        assert!(folder.look().is_empty(), "said once");
        write(dir.path(), "new", b"123");
        assert!(folder.look().is_empty());
        assert_eq!(told(folder.look()), ["new 3"], "mended, if as it was");
    }

    #[test]
    fn what_disappears_for_good_is_gone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), "a", b"1");
        let mut folder = Folder::new(dir.path());
        assert!(folder.look().is_empty());
        assert_eq!(told(folder.look()), ["a 1"]);
        std::fs::remove_dir_all(dir.path().join("a")).expect("it was there");
        assert!(folder.look().is_empty());
        write(dir.path(), "a", b"22");
        assert!(folder.look().is_empty(), "replaced, not removed");
        assert_eq!(told(folder.look()), ["a 2"]);
        std::fs::remove_dir_all(dir.path().join("a")).expect("it was there");
        let gone: Vec<String> = (0..5).flat_map(|_| told(folder.look())).collect();
        assert_eq!(gone, ["gone a"]);
        std::fs::remove_dir_all(dir.path()).expect("it was there");
        assert!(
            folder.look().is_empty(),
            "a folder that is away says nothing of handlers"
        );
    }
}
