//! Where a handler began, whether that is still there, and which messages may be of a key.

use crate::commit::record::Record;
use crate::deployment::manifest::{Manifest, Source};
use crate::log::{Log, StreamState};
use crate::model::key::KeyFrom;
use crate::model::pattern;
use crate::model::position::INTERNAL_SOURCE;

/// Why what a key's state was cannot be known any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "stream {stream} holds messages from sequence {first} on, and handler {handler} began at {begin}: what the key's \
         state was cannot be folded from what is left"
    )]
    Expired {
        handler: String,
        stream: String,
        first: u64,
        begin: u64,
    },
    #[error(
        "stream {stream} was deleted and created again since handler {handler} began to read it: what the key's state was \
         cannot be folded from what is left"
    )]
    CreatedAgain { handler: String, stream: String },
    #[error(
        "stream {stream} {keeps}, so that events may be missing anywhere in it: what the key's state was cannot be folded \
         from what is left"
    )]
    Gaps { stream: String, keeps: String },
    #[error(
        "handler {handler} used to read stream {stream}, too, and does not any more: what came from there is part of its \
         state, and its manifest no longer says what that was"
    )]
    Dropped { handler: String, stream: String },
}

/// One source, from where the handler began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    pub stream: String,
    /// First sequence that the handler has had; `None`: it has not begun to read it.
    pub begin: Option<u64>,
    /// When the stream was created, in Unix nanoseconds.
    pub created: u64,
    /// Filters that take every event of the key; none where it can have none.
    pub filters: Vec<String>,
}

/// The sources of a handler for one key, whose partition's last record is `record`.
///
/// # Errors
/// An [`Error`]; of the log.
pub async fn begun(
    log: &dyn Log,
    ledger: &str,
    manifest: &Manifest,
    record: &Record,
    (partition, key): (u32, &str),
) -> anyhow::Result<Vec<Begun>> {
    let reads = |name: &str| manifest.sources.iter().any(|source| source.stream == name);
    let mut before = record.starts.keys().filter(|name| *name != INTERNAL_SOURCE);
    if let Some(stream) = before.find(|name| !reads(name)) {
        return Err(Error::Dropped {
            handler: manifest.name.clone(),
            stream: stream.clone(),
        }
        .into());
    }
    let mut all = Vec::with_capacity(manifest.sources.len());
    for source in &manifest.sources {
        let start = record.starts.get(&source.stream);
        let state = log.stream(&source.stream).await?;
        let begun = Begun {
            stream: source.stream.clone(),
            begin: start.map(|start| start.sequence + 1),
            created: state.created,
            filters: filters(manifest, source, partition, key),
        };
        if start.is_some_and(|start| start.created != 0 && start.created != state.created) {
            return Err(Error::CreatedAgain {
                handler: manifest.name.clone(),
                stream: source.stream.clone(),
            }
            .into());
        }
        begun.check(&manifest.name, ledger, &state)?;
        all.push(begun);
    }
    Ok(all)
}

impl Begun {
    /// Whether all that the handler has had of it is still in the stream.
    ///
    /// # Errors
    /// [`Error::Expired`], [`Error::Gaps`].
    pub fn check(&self, handler: &str, ledger: &str, state: &StreamState) -> Result<(), Error> {
        let Some(begin) = self.begin else { return Ok(()) };
        let settings = &state.settings;
        let gaps = |keeps: String| Error::Gaps {
            stream: self.stream.clone(),
            keeps,
        };
        if let Some(max) = settings.max_messages_per_subject {
            return Err(gaps(format!("keeps {max} messages of each subject")));
        }
        if !settings.limits_retention {
            return Err(gaps("removes messages that were read".into()));
        }
        if state.has_lost(begin, ledger) {
            return Err(Error::Expired {
                handler: handler.into(),
                stream: self.stream.clone(),
                first: state.first,
                begin,
            });
        }
        Ok(())
    }
}

/// Filters of a source that take every event of the key, and as few others as the server can tell.
fn filters(manifest: &Manifest, source: &Source, partition: u32, key: &str) -> Vec<String> {
    let of_partition = |subject: &String| match manifest.partition_token {
        Some(token) => pattern::with_token(subject, token, &partition.to_string()),
        None => vec![subject.clone()],
    };
    let subjects = source.subjects.iter().flat_map(of_partition);
    match &manifest.key {
        KeyFrom::Header(_) | KeyFrom::Json(_) => subjects.collect(),
        KeyFrom::SubjectToken(token) if pattern::is_literal_token(key) => subjects
            .flat_map(|subject| pattern::with_token(&subject, *token, key))
            .collect(),
        KeyFrom::SubjectToken(_) => Vec::new(),
        KeyFrom::Subject => {
            let is_subject = key.split('.').all(pattern::is_literal_token);
            let mut taking = subjects.filter(|subject| is_subject && pattern::matches(subject, key));
            taking.next().map(|_| key.to_owned()).into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_server_is_asked_for_as_little_as_it_can_tell() {
        let manifest = |rest: &str| {
            let text = format!(
                "name = \"h\"\ncomponent = \"h.wasm\"\npartitions = 4\n[[source]]\nstream = \"S\"\n\
                 subjects = [\"a.*.>\", \"b.*\"]\n{rest}"
            );
            Manifest::parse_deployed(Path::new("handler.toml"), &text).expect("a manifest")
        };
        let filters = |rest: &str, key: &str| {
            let manifest = manifest(rest);
            filters(&manifest, &manifest.sources[0], 3, key)
        };
        for (rest, key, expected) in [
            ("[key]\njson = \"/k\"", "x", vec!["a.*.>", "b.*"]),
            ("[key]\nsubject_token = 2", "x", vec!["a.x.>", "b.x"]),
            ("[key]\nsubject_token = 3", "x", vec!["a.*.x", "a.*.x.>"]),
            ("[key]\nsubject_token = 2", "x.y", vec![]),
            ("[key]\nsubject_token = 2", "*", vec![]),
            ("", "b.x", vec!["b.x"]),
            ("", "c.x", vec![]),
            ("", "a.>", vec![]),
            (
                "[key]\njson = \"/k\"\n[partition]\nsubject_token = 2",
                "x",
                vec!["a.3.>", "b.3"],
            ),
        ] {
            assert_eq!(filters(rest, key), expected, "{rest} {key}");
        }
    }
}
