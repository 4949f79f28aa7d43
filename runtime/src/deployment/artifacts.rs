//! Components in a NATS Object Store, each under its SHA-256: any client reads
//! them (`nats object get weir_<ledger>_artifacts <digest>`).
//!
//! The layout is that of ADR-20: chunks on `$O.<bucket>.C.<nuid>`, and on
//! `$O.<bucket>.M.<base64url(name)>` a description that is written last, so that
//! an object is there whole or not at all.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::plugins::digest_of;
use crate::handler::ARTIFACT_BYTES_MAX;
use crate::log::{self, Append, AppendError, Log};
use crate::model::subjects::{artifacts_bucket, artifacts_stream};

/// Bytes of one message: what clients of Object Store use.
const CHUNK_BYTES: usize = 128 * 1024;

/// How long a component stays that no deployment refers to.
const KEPT_AT_LEAST_NS: u64 = 3_600 * 1_000_000_000;

/// Chunks read with one request.
const CHUNKS_AT_ONCE: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error("the component could not be stored: {0}")]
    Append(#[from] AppendError),
    #[error("component {0} is not in object store {1}: deploy it again")]
    Missing(String, String),
    /// What was read is not what was stored.
    #[error("component {digest} in object store {bucket} is damaged: {detail}; deploy it again")]
    Damaged {
        digest: String,
        bucket: String,
        detail: String,
    },
}

/// An object's description (ADR-20).
#[derive(Debug, Serialize, Deserialize)]
struct Info {
    name: String,
    bucket: String,
    nuid: String,
    size: usize,
    chunks: usize,
    digest: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Options {
    max_chunk_size: usize,
}

/// The object store of one ledger.
pub struct Artifacts<'a> {
    log: &'a dyn Log,
    bucket: String,
    stream: String,
}

impl<'a> Artifacts<'a> {
    pub fn of(log: &'a dyn Log, ledger: &str) -> Artifacts<'a> {
        Artifacts {
            log,
            bucket: artifacts_bucket(ledger),
            stream: artifacts_stream(ledger),
        }
    }

    /// Stores a component under its digest; does nothing if it is there, whole.
    ///
    /// # Errors
    /// Of the log. A store that was interrupted leaves chunks that nobody refers to.
    pub async fn put(&self, digest: &str, wasm: &[u8]) -> Result<(), Error> {
        match self.get(digest).await {
            Ok(_) => return Ok(()),
            Err(Error::Missing(..) | Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let nuid = format!("{:022x}", rand::random::<u128>() >> 40);
        let subject = format!("$O.{}.C.{nuid}", self.bucket);
        // An object is its chunks in the order in which they are stored.
        for chunk in wasm.chunks(CHUNK_BYTES) {
            self.append(&subject, Bytes::copy_from_slice(chunk), false)
                .await?;
        }
        let info = Info {
            name: digest.into(),
            bucket: self.bucket.clone(),
            nuid,
            size: wasm.len(),
            chunks: wasm.len().div_ceil(CHUNK_BYTES),
            digest: content_digest(wasm),
            deleted: false,
            options: Options {
                max_chunk_size: CHUNK_BYTES,
            },
        };
        let info = serde_json::to_vec(&info).expect("a description is plain data");
        self.append(&self.meta(digest), info.into(), true).await
    }

    /// Whether a component was stored and not removed since. It may be damaged.
    ///
    /// # Errors
    /// Of the log.
    pub async fn has(&self, digest: &str) -> Result<bool, Error> {
        Ok(self.info(digest).await?.is_some())
    }

    /// Reads a component, and checks that it is the one of that digest.
    ///
    /// # Errors
    /// It is missing or damaged, or the log does not answer.
    pub async fn get(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let damaged = |detail: String| Error::Damaged {
            digest: digest.into(),
            bucket: self.bucket.clone(),
            detail,
        };
        let Some(info) = self.info(digest).await? else {
            return Err(Error::Missing(digest.into(), self.bucket.clone()));
        };
        if info.size > ARTIFACT_BYTES_MAX {
            return Err(damaged(format!("{} bytes", info.size)));
        }
        let subject = format!("$O.{}.C.{}", self.bucket, info.nuid);
        let mut wasm = Vec::with_capacity(info.size);
        let mut from = 1;
        loop {
            let chunks = self
                .log
                .scan(&self.stream, &subject, from, CHUNKS_AT_ONCE)
                .await?;
            let Some(last) = chunks.last() else { break };
            from = last.sequence + 1;
            chunks
                .iter()
                .for_each(|chunk| wasm.extend_from_slice(&chunk.data));
            if wasm.len() >= info.size {
                break;
            }
        }
        let found = digest_of(&wasm);
        match found == digest {
            true => Ok(wasm),
            false => Err(damaged(format!(
                "{} of {} bytes, whose digest is {found}",
                wasm.len(),
                info.size
            ))),
        }
    }

    /// Removes components that none of `referenced` names. Those that are younger than
    /// an hour stay: somebody may be about to register them. Returns how many went.
    ///
    /// # Errors
    /// Of the log.
    pub async fn collect(&self, referenced: &BTreeSet<String>) -> Result<usize, Error> {
        let all = format!("$O.{}.M.*", self.bucket);
        let found = self.log.last_many(&self.stream, &[all]).await?;
        // By the server's clock, as far as the store knows it.
        let newest = found.messages.iter().map(|stored| stored.time).max().unwrap_or(0);
        let mut removed = 0;
        for stored in &found.messages {
            let Ok(info) = serde_json::from_slice::<Info>(&stored.data) else {
                continue; // somebody else's object
            };
            if referenced.contains(&info.name) || stored.time + KEPT_AT_LEAST_NS > newest {
                continue;
            }
            // The description first: without it nobody looks for the chunks.
            let after = stored.sequence + 1;
            self.log.purge(&self.stream, &stored.subject, after).await?;
            let chunks = format!("$O.{}.C.{}", self.bucket, info.nuid);
            self.log.purge(&self.stream, &chunks, after).await?;
            removed += 1;
        }
        Ok(removed)
    }

    async fn info(&self, digest: &str) -> Result<Option<Info>, Error> {
        let Some(stored) = self.log.last(&self.stream, &self.meta(digest)).await? else {
            return Ok(None);
        };
        let info: Info = serde_json::from_slice(&stored.data).map_err(|error| Error::Damaged {
            digest: digest.into(),
            bucket: self.bucket.clone(),
            detail: format!("its description cannot be read: {error}"),
        })?;
        Ok(Some(info).filter(|info| !info.deleted))
    }

    fn meta(&self, digest: &str) -> String {
        format!("$O.{}.M.{}", self.bucket, URL_SAFE.encode(digest))
    }

    async fn append(&self, subject: &str, data: Bytes, rollup: bool) -> Result<(), Error> {
        let message = Append {
            subject: subject.into(),
            data,
            rollup,
            ..Append::default()
        };
        self.log.append(&self.stream, vec![message]).await?;
        Ok(())
    }
}

/// The digest as Object Store writes it.
fn content_digest(bytes: &[u8]) -> String {
    format!("SHA-256={}", URL_SAFE.encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::ledger;
    use crate::log::memory::MemoryLog;

    async fn store() -> MemoryLog {
        let log = MemoryLog::new();
        let config = config::Ledger {
            name: "L".into(),
            subjects: Vec::new(),
            replicas: 1,
            event_ttl: None,
        };
        ledger::ensure(&log, &config).await.expect("a ledger");
        log
    }

    fn component(byte: u8) -> (Vec<u8>, String) {
        let wasm = vec![byte; 3 * CHUNK_BYTES + 7];
        let digest = digest_of(&wasm);
        (wasm, digest)
    }

    #[tokio::test]
    async fn what_is_stored_is_read_or_said_to_be_damaged() {
        let log = store().await;
        let artifacts = Artifacts::of(&log, "L");
        let (wasm, digest) = component(1);
        assert!(matches!(artifacts.get(&digest).await, Err(Error::Missing(..))));
        artifacts.put(&digest, &wasm).await.expect("stored");
        assert_eq!(artifacts.get(&digest).await.expect("read"), wasm);

        // Without one of its chunks it is no component, and can be stored again.
        let chunks = format!("$O.{}.C.>", artifacts.bucket);
        log.purge(&artifacts.stream, &chunks, 2).await.expect("a purge");
        assert!(matches!(artifacts.get(&digest).await, Err(Error::Damaged { .. })));
        artifacts.put(&digest, &wasm).await.expect("stored again");
        assert_eq!(artifacts.get(&digest).await.expect("read"), wasm);
    }

    #[tokio::test]
    async fn what_nobody_refers_to_goes_after_a_while() {
        let log = store().await;
        let artifacts = Artifacts::of(&log, "L");
        let ((old, old_digest), (used, used_digest)) = (component(1), component(2));
        artifacts.put(&old_digest, &old).await.expect("stored");
        artifacts.put(&used_digest, &used).await.expect("stored");
        let referenced = BTreeSet::from([used_digest.clone()]);
        assert_eq!(artifacts.collect(&referenced).await.expect("collected"), 0);
        log.advance(KEPT_AT_LEAST_NS + 1);
        let (new, new_digest) = component(3);
        artifacts.put(&new_digest, &new).await.expect("stored");
        assert_eq!(artifacts.collect(&referenced).await.expect("collected"), 1);
        assert!(matches!(
            artifacts.get(&old_digest).await,
            Err(Error::Missing(..))
        ));
        for (digest, wasm) in [(&used_digest, &used), (&new_digest, &new)] {
            assert_eq!(&artifacts.get(digest).await.expect("read"), wasm);
        }
    }
}
