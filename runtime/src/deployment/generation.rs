//! The generations of a handler: what each is called by in NATS, and how one ends (PROTOCOL
//! rule 11).

use super::registry::{Error as RegistryError, Registered};
use crate::commit::record::Author;
use crate::commit::tombstone::{self, State};
use crate::log::{self, Log};
use crate::model::subjects::{HandlerNames, bucket_stream};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Tombstone(#[from] tombstone::Error),
}

impl Error {
    /// Whether the same call may succeed later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Registry(error) => error.is_transient(),
            Error::Log(error) => error.is_transient(),
            Error::Tombstone(error) => error.is_transient(),
        }
    }
}

/// Ends all partitions of a generation, with tombstones that say that `latest` has ended them,
/// and removes its timers and redriven events. Its cells, its dead letters and its outbox go only
/// where its state does. Can be repeated.
///
/// # Errors
/// Of the log; an owner is always faster.
pub async fn end(
    log: &dyn Log,
    ledger: &str,
    latest: &Registered,
    generation: u64,
    by: &str,
    state: State,
) -> Result<(), Error> {
    let manifest = latest.deployment.manifest()?;
    let names = HandlerNames::new(ledger, &latest.deployment.name, generation);
    let author = Author {
        partitions: manifest.partitions,
        key_rule: manifest.key.describe(),
        digest: latest.deployment.digest.clone(),
        manifest_revision: latest.revision,
        host: by.into(),
    };
    for partition in 0..manifest.partitions {
        let (_, below) = tombstone::end(log, &names, &author, partition, state).await?;
        log.purge(ledger, &names.record(partition), below).await?;
    }
    for rest in [names.timers_all(), names.fired_all(), names.redriven_all()] {
        log.purge(ledger, &rest, u64::MAX).await?;
    }
    if state == State::Purged {
        log.purge(ledger, &names.dead_letters_all(), u64::MAX).await?;
        log.purge(ledger, &names.outbox_all(), u64::MAX).await?;
        log.purge(&bucket_stream(ledger), &names.bucket_all(), u64::MAX)
            .await?;
    }
    Ok(())
}

/// The first number from `generation` on that no generation of this handler ever had.
///
/// # Errors
/// Of the log.
pub async fn unused(log: &dyn Log, ledger: &str, name: &str, mut generation: u64) -> Result<u64, log::Error> {
    // Each that has ever been leaves its tombstones.
    loop {
        let records = HandlerNames::new(ledger, name, generation).records();
        if log.last_many(ledger, &[records]).await?.messages.is_empty() {
            return Ok(generation);
        }
        generation += 1;
    }
}
