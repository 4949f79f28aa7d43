//! Components in a NATS Object Store, each under its SHA-256: any client reads
//! them (`nats object get weir_<ledger>_artifacts <digest>`).
//!
//! The layout is that of ADR-20: chunks on `$O.<bucket>.C.<nuid>`, and on
//! `$O.<bucket>.M.<base64url(name)>` a description that is written last, so that
//! an object is there whole or not at all.

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

    /// Stores a component under its digest; does nothing if it is there.
    ///
    /// # Errors
    /// Of the log. A store that was interrupted leaves chunks that nobody refers to.
    pub async fn put(&self, digest: &str, wasm: &[u8]) -> Result<(), Error> {
        if self
            .info(digest)
            .await?
            .is_some_and(|info| info.size == wasm.len())
        {
            return Ok(());
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
