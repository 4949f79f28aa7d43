//! Deployments in a KV bucket: what is to run, one key per handler. The bucket's
//! history is the list that `weir rollback` goes back to.
//!
//! * [`Deployment`] is the document: a manifest's text, the digest of a component,
//!   and whether it is to run.
//! * [`Registered`] is one with its revision, which is its sequence in the bucket.
//! * [`Registry`] reads and writes them. A write expects the revision that it was
//!   decided on, so that of two deployments at the same time one is refused.
//!
//! Who may write here may deploy: that is a permission of NATS.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::manifest::{self, Manifest};
use crate::log::{self, Append, AppendError, Log, Stored};
use crate::model::position::Position;
use crate::model::subjects::{FIRST_GENERATION, handler_key, handler_keys, handlers_stream};

/// Newest format that this version reads, and the one it writes. Rises only when
/// an older host must not go on.
pub const FORMAT: u16 = 1;

/// Deployments read with one request: more than a bucket keeps of one handler.
const HISTORY_AT_ONCE: usize = 256;

/// One deployment of one handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub format: u16,
    pub name: String,
    /// As the manifest has it.
    pub version: String,
    /// SHA-256 of the component, hexadecimal: its name in the object store.
    pub digest: String,
    /// The text of `handler.toml`.
    pub manifest: String,
    /// Rises with the first deployment after a removal, so that nothing of the
    /// removed handler meets the new one (PROTOCOL rule 11).
    pub generation: u64,
    pub desired: Desired,
    /// Who deployed it, for people.
    pub by: String,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<super::signature::Signature>,
    /// What is rebuilt, or was before.
    #[serde(default, flatten)]
    pub generations: Generations,
}

/// The generations of a handler beside the one that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generations {
    /// The one that is rebuilt beside it, by `weir replay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Rebuild>,
    /// One whose place was taken, and of which there is something left to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<u64>,
}

/// A generation that is rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    pub generation: u64,
    /// Where each source begins, by its stream.
    pub starts: BTreeMap<String, Position>,
}

/// What a deployment asks of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    Running,
    /// Nothing is executed; positions and state stay.
    Paused,
    /// Gone for good; the next handler of that name is another one.
    Removed,
}

/// A deployment and its revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Registered {
    /// Sequence in the bucket's stream.
    pub revision: u64,
    #[serde(flatten)]
    pub deployment: Deployment,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error("handler {0} is not deployed; `weir handlers` lists those that are")]
    Unknown(String),
    #[error(
        "handler {0} was deployed by somebody else at the same time; look at `weir handlers --history {0}`, and try again"
    )]
    Overtaken(String),
    #[error("the deployment could not be written: {0}")]
    Append(AppendError),
    #[error("{subject} at revision {revision} cannot be read: {detail}")]
    Broken {
        subject: String,
        revision: u64,
        detail: String,
    },
    /// It would lose or double events (PROTOCOL rule 11).
    #[error("handler {name}: {what}; set it back, or deploy under a new name")]
    Shape { name: String, what: String },
    #[error(transparent)]
    Manifest(#[from] crate::toml_file::Error),
}

impl Error {
    /// Whether the same call may succeed later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Overtaken(_) => true,
            Error::Append(error) => error.is_transient(),
            Error::Log(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl Deployment {
    /// The manifest, checked again: whoever wrote it may have been another version.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        let file = PathBuf::from(format!("{} as deployed", self.name)).join(manifest::FILE_NAME);
        Ok(Manifest::parse_deployed(&file, &self.manifest)?)
    }

    /// The same deployment, written now by `by`.
    pub fn again(&self, by: &str, desired: Desired) -> Deployment {
        Deployment {
            desired,
            by: by.into(),
            time_ms: now_ms(),
            ..self.clone()
        }
    }

    /// The same deployment with other generations, written now by `by`.
    pub fn with(&self, by: &str, generation: u64, generations: Generations) -> Deployment {
        Deployment {
            generation,
            generations,
            ..self.again(by, self.desired)
        }
    }
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Who this is, for people: `<user>@<machine>`.
pub fn deployer() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    format!(
        "{}@{}",
        user.unwrap_or_else(|_| "?".into()),
        crate::os::hostname()
    )
}

/// The deployments of one ledger.
#[derive(Clone, Copy)]
pub struct Registry<'a> {
    log: &'a dyn Log,
    ledger: &'a str,
}

impl<'a> Registry<'a> {
    pub fn of(log: &'a dyn Log, ledger: &'a str) -> Registry<'a> {
        Registry { log, ledger }
    }

    /// The latest deployment of a handler, a removed one too, from the leader.
    ///
    /// # Errors
    /// Of the log; [`Error::Broken`] if it is of a newer version.
    pub async fn latest(&self, name: &str) -> Result<Option<Registered>, Error> {
        let stream = handlers_stream(self.ledger);
        let last = match self.log.last(&stream, &handler_key(self.ledger, name)).await {
            // A ledger on which no host of this version has run.
            Err(log::Error::NoStream(_)) => None,
            last => last?,
        };
        last.as_ref().map(decode).transpose()
    }

    /// The latest deployment of a handler that is not removed.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is none.
    pub async fn deployed(&self, name: &str) -> Result<Registered, Error> {
        let latest = self.latest(name).await?;
        latest
            .filter(|latest| latest.deployment.desired != Desired::Removed)
            .ok_or_else(|| Error::Unknown(name.into()))
    }

    /// All deployments of a handler that the bucket remembers, oldest first.
    ///
    /// # Errors
    /// As [`Registry::latest`].
    pub async fn history(&self, name: &str) -> Result<Vec<Registered>, Error> {
        let mut history = Vec::new();
        let mut from = 1;
        let (stream, key) = (handlers_stream(self.ledger), handler_key(self.ledger, name));
        loop {
            let some = self.log.scan(&stream, &key, from, HISTORY_AT_ONCE).await?;
            let Some(last) = some.last() else {
                return Ok(history);
            };
            from = last.sequence + 1;
            for stored in &some {
                history.push(decode(stored)?);
            }
        }
    }

    /// Digests of all components that the bucket remembers a deployment of.
    ///
    /// # Errors
    /// As [`Registry::latest`].
    pub async fn digests(&self) -> Result<BTreeSet<String>, Error> {
        let (stream, keys) = (handlers_stream(self.ledger), handler_keys(self.ledger));
        let (mut digests, mut from) = (BTreeSet::new(), 1);
        loop {
            let some = self.log.scan(&stream, &keys, from, HISTORY_AT_ONCE).await?;
            let Some(last) = some.last() else {
                return Ok(digests);
            };
            from = last.sequence + 1;
            for stored in &some {
                digests.insert(decode(stored)?.deployment.digest);
            }
        }
    }

    /// The latest deployment of each handler that is not removed, by name. May
    /// come from a replica that lags.
    ///
    /// # Errors
    /// Of the log.
    pub async fn all(&self) -> Result<Vec<Registered>, Error> {
        let stream = handlers_stream(self.ledger);
        let found = match self.log.last_many(&stream, &[handler_keys(self.ledger)]).await {
            Err(log::Error::NoStream(_)) => return Ok(Vec::new()),
            found => found?,
        };
        let mut all = Vec::with_capacity(found.messages.len());
        for stored in &found.messages {
            all.push(decode(stored)?);
        }
        all.retain(|registered: &Registered| registered.deployment.desired != Desired::Removed);
        all.sort_by(|a, b| a.deployment.name.cmp(&b.deployment.name));
        Ok(all)
    }

    /// Writes a deployment that was decided on while `before` was the latest one.
    /// Returns its revision.
    ///
    /// # Errors
    /// [`Error::Overtaken`] if it is not any more; of the log.
    pub async fn put(&self, deployment: &Deployment, before: Option<&Registered>) -> Result<u64, Error> {
        let subject = handler_key(self.ledger, &deployment.name);
        let message = Append {
            subject: subject.clone(),
            data: serde_json::to_vec(deployment)
                .expect("a deployment is plain data")
                .into(),
            expected: Some(before.map_or(0, |before| before.revision)),
            ..Append::default()
        };
        match self
            .log
            .append(&handlers_stream(self.ledger), vec![message])
            .await
        {
            Ok(appended) => Ok(appended.sequence),
            Err(AppendError::Fenced(_) | AppendError::Busy { .. }) => {
                Err(Error::Overtaken(deployment.name.clone()))
            }
            // It is one document, so whether it was written can be seen.
            Err(AppendError::Unknown(reason)) => match self.latest(&deployment.name).await? {
                Some(latest) if latest.deployment == *deployment => Ok(latest.revision),
                _ => Err(Error::Append(AppendError::Unknown(reason))),
            },
            Err(error) => Err(Error::Append(error)),
        }
    }
}

/// Reads a deployment from its message.
///
/// # Errors
/// [`Error::Broken`]: it is not one, or of a newer version.
pub fn decode(stored: &Stored) -> Result<Registered, Error> {
    let broken = |detail: String| Error::Broken {
        subject: stored.subject.to_string(),
        revision: stored.sequence,
        detail,
    };
    #[derive(Deserialize)]
    struct Format {
        format: u16,
    }
    let Format { format } = serde_json::from_slice(&stored.data).map_err(|e| broken(e.to_string()))?;
    if format > FORMAT {
        return Err(broken(format!(
            "it has format {format}, this version of Weir reads {FORMAT}: upgrade it"
        )));
    }
    Ok(Registered {
        revision: stored.sequence,
        deployment: serde_json::from_slice(&stored.data).map_err(|e| broken(e.to_string()))?,
    })
}

/// The generation of what is deployed after `before`.
pub fn generation_after(before: Option<&Registered>) -> u64 {
    match before {
        None => FIRST_GENERATION,
        Some(before) if before.deployment.desired == Desired::Removed => before.deployment.generation + 1,
        Some(before) => before.deployment.generation,
    }
}

/// PROTOCOL rule 11: what may not change while state and positions stay.
///
/// # Errors
/// [`Error::Shape`], with what was and what is.
pub fn check_successor(before: &Manifest, next: &Manifest) -> Result<(), Error> {
    let shape = |what: String| {
        Err(Error::Shape {
            name: next.name.clone(),
            what,
        })
    };
    if before.partitions != next.partitions {
        return shape(format!(
            "it has {} partitions in this ledger, and `partitions` says {}, which would send keys elsewhere",
            before.partitions, next.partitions
        ));
    }
    let (was, is) = (before.key.describe(), next.key.describe());
    if was != is {
        return shape(format!(
            "it has its key from `{was}` in this ledger, and `[key]` says `{is}`"
        ));
    }
    for source in &before.sources {
        let same = next.sources.iter().find(|next| next.stream == source.stream);
        if let Some(next) = same
            && next.subjects != source.subjects
        {
            return shape(format!(
                "it reads {} of stream {} in this ledger, and `subjects` says {}: what it passed over already would \
                 never be read",
                source.subjects.join(", "),
                source.stream,
                next.subjects.join(", ")
            ));
        }
    }
    Ok(())
}

/// While a handler is rebuilt, both generations read the same, and neither does what cannot be
/// done over again.
///
/// # Errors
/// [`Error::Shape`].
pub fn check_rebuild(before: &Deployment, next: &Manifest) -> Result<(), Error> {
    let Generations { rebuild, replaced } = &before.generations;
    if rebuild.is_none() && replaced.is_none() {
        return Ok(());
    }
    let streams = |manifest: &Manifest| {
        let sources = manifest.sources.iter().map(|source| source.stream.clone());
        sources.collect::<BTreeSet<_>>()
    };
    let what = if streams(&before.manifest()?) != streams(next) {
        "its sources cannot change"
    } else if next.http.is_some() {
        "it may not call other systems ([http]), which would be called again"
    } else if !next.outbox.is_empty() {
        "it may not have an [[outbox]], whose entries would be written again"
    } else {
        return Ok(());
    };
    let name = next.name.clone();
    let what = format!("it is being rebuilt (`weir replay {name}`): until that is over, {what}");
    Err(Error::Shape { name, what })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn manifest(partitions: u32, key: &str, subjects: &str) -> Manifest {
        let text = format!(
            "name = \"h\"\ncomponent = \"h.wasm\"\npartitions = {partitions}\n[[source]]\nstream = \"S\"\nsubjects = [\"{subjects}\"]\n[key]\n{key}\n"
        );
        Manifest::parse_deployed(Path::new("handler.toml"), &text).expect("a manifest")
    }

    #[test]
    fn what_may_not_change_in_place() {
        let before = manifest(4, "header = \"K\"", "a.>");
        assert!(check_successor(&before, &before).is_ok());
        for (next, part) in [
            (manifest(5, "header = \"K\"", "a.>"), "4 partitions"),
            (manifest(4, "header = \"L\"", "a.>"), "header K"),
            (manifest(4, "header = \"K\"", "b.>"), "reads a.> of stream S"),
        ] {
            let error = check_successor(&before, &next)
                .expect_err("another shape")
                .to_string();
            assert!(
                error.contains(part) && error.contains("under a new name"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_said() {
        let stored = Stored {
            subject: "$KV.x.h".into(),
            sequence: 7,
            time: 0,
            headers: Vec::new(),
            data: br#"{"format":2,"name":3}"#.as_slice().into(),
        };
        let error = decode(&stored).expect_err("too new").to_string();
        assert!(
            error.contains("upgrade") && error.contains("revision 7"),
            "{error}"
        );
    }
}
