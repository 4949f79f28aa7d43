//! From files to the registry, and out of it again: what `weir deploy`, the
//! watched folder and `weir remove` have in common.

use std::time::{Duration, Instant};

use super::artifacts::{self, Artifacts};
use super::plugins::Deployed;
use super::registry::{
    Deployment, Desired, Error as RegistryError, FORMAT, Registered, Registry, check_successor,
    generation_after, now_ms,
};
use super::signature::Signature;
use crate::commit::record::{self, Author, Kind, Record, Watermark};
use crate::log::{self, AppendError, Log};
use crate::model::subjects::{HandlerNames, bucket_stream};

/// How long owners may go on committing after their handler was removed, before
/// the removal gives up: it can be repeated.
const REMOVE_FOR: Duration = Duration::from_secs(30);

/// Pause before a tombstone is tried again.
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Artifact(#[from] artifacts::Error),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("handler {name} has no earlier deployment{which}")]
    NoEarlier { name: String, which: String },
    #[error(
        "the outbox of handler {name} has entries that are not handed on yet, in {partitions} of its partitions: wait until they \
         are (metric weir_outbox_failing tells if they cannot be), or drop them, and its state, with --purge-state"
    )]
    OutboxWaits { name: String, partitions: usize },
    #[error("partition {partition} could not be ended: {reason}; repeat the command")]
    Ending { partition: u32, reason: String },
}

impl Error {
    /// Whether the same call may succeed later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        let append =
            |error: &AppendError| matches!(error, AppendError::Unknown(_) | AppendError::Busy { .. });
        let log = |error: &log::Error| matches!(error, log::Error::Unavailable(_));
        match self {
            Error::Registry(RegistryError::Overtaken(_)) => true,
            Error::Registry(RegistryError::Append(error))
            | Error::Artifact(artifacts::Error::Append(error)) => append(error),
            Error::Registry(RegistryError::Log(error))
            | Error::Artifact(artifacts::Error::Log(error))
            | Error::Log(error) => log(error),
            Error::Ending { .. } => true,
            _ => false,
        }
    }
}

/// What came of deploying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is the latest deployment, of this revision.
    Deployed(u64),
    /// It was that already.
    Unchanged(u64),
    /// It was deployed once and replaced since, by this revision.
    Superseded(u64),
}

/// Whether what was deployed once is deployed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Somebody wants it now.
    Always,
    /// Only if it never was: a host that starts finds files that may be old.
    New,
}

/// Stores a component and registers its deployment. It must have been compiled
/// for this ledger before: nobody checks it after this but the hosts.
///
/// # Errors
/// It changes what may not change in place; of the log.
pub async fn deploy(
    log: &dyn Log,
    ledger: &str,
    found: &Deployed,
    by: &str,
    signature: Option<Signature>,
    when: When,
) -> Result<Outcome, Error> {
    let registry = Registry::of(log, ledger);
    let before = registry.latest(&found.manifest.name).await?;
    let generation = generation_after(before.as_ref());
    if let Some(before) = &before
        && before.deployment.generation == generation
    {
        let same =
            |deployment: &Deployment| deployment.digest == found.digest && deployment.manifest == found.text;
        let resigned = signature.is_some() && signature != before.deployment.signature;
        if same(&before.deployment) && before.deployment.desired == Desired::Running && !resigned {
            let artifacts = Artifacts::of(log, ledger);
            // Its component may have been lost with the object store. A host that starts
            // does not read all of it to see that it is whole.
            if when == When::Always || !artifacts.has(&found.digest).await? {
                artifacts.put(&found.digest, &found.wasm).await?;
            }
            return Ok(Outcome::Unchanged(before.revision));
        }
        if when == When::New {
            let history = registry.history(&found.manifest.name).await?;
            let mut of_this = history.iter().map(|registered| &registered.deployment);
            if of_this.any(|deployment| deployment.generation == generation && same(deployment)) {
                return Ok(Outcome::Superseded(before.revision));
            }
        }
        check_successor(&before.deployment.manifest()?, &found.manifest)?;
    }
    Artifacts::of(log, ledger).put(&found.digest, &found.wasm).await?;
    let deployment = Deployment {
        format: FORMAT,
        name: found.manifest.name.clone(),
        version: found.manifest.version.clone(),
        digest: found.digest.clone(),
        manifest: found.text.clone(),
        generation,
        desired: Desired::Running,
        by: by.into(),
        time_ms: now_ms(),
        signature,
    };
    let revision = registry.put(&deployment, before.as_ref()).await?;
    Ok(Outcome::Deployed(revision))
}

/// Removes components that no deployment in any handler's history refers to.
///
/// # Errors
/// Of the log; nothing depends on this.
pub async fn collect(log: &dyn Log, ledger: &str) -> Result<usize, Error> {
    let registry = Registry::of(log, ledger);
    let referenced = registry.digests().await?;
    Ok(Artifacts::of(log, ledger).collect(&referenced).await?)
}

/// Removes a handler: hosts stop it, its partitions are ended with tombstones that
/// fence whoever does not know yet, and timers are purged. Its cells and dead letters
/// stay to be read, unless `purge_state`; so do the records that the bucket does not
/// cover. While its outbox has entries that are not handed on, only with `purge_state`, which
/// drops them. Can be repeated where it was interrupted, and to purge state later.
///
/// # Errors
/// [`RegistryError::Unknown`] if it never was; [`Error::OutboxWaits`]; of the log.
pub async fn remove(
    log: &dyn Log,
    ledger: &str,
    name: &str,
    by: &str,
    purge_state: bool,
) -> Result<(), Error> {
    let registry = Registry::of(log, ledger);
    let latest = registry.latest(name).await?;
    let latest = latest.ok_or_else(|| RegistryError::Unknown(name.into()))?;
    let names = HandlerNames::new(ledger, name, latest.deployment.generation);
    let manifest = latest.deployment.manifest()?;
    let partitions = manifest.partitions;
    if !purge_state {
        let mut waiting = 0;
        for partition in 0..partitions {
            // From the leader: a replica that lags would have nobody wait for them.
            let entry = log.last(ledger, &names.outbox(partition)).await?;
            waiting += usize::from(entry.is_some());
        }
        if waiting > 0 {
            return Err(Error::OutboxWaits {
                name: name.into(),
                partitions: waiting,
            });
        }
    }
    let revision = match latest.deployment.desired {
        Desired::Removed => latest.revision,
        _ => {
            let removed = latest.deployment.again(by, Desired::Removed);
            registry.put(&removed, Some(&latest)).await?
        }
    };
    let author = Author {
        partitions,
        key_rule: manifest.key.describe(),
        digest: latest.deployment.digest.clone(),
        manifest_revision: revision,
        host: by.into(),
    };
    for partition in 0..partitions {
        let below = end(log, &names, &author, partition, purge_state).await?;
        log.purge(ledger, &names.record(partition), below).await?;
    }
    for rest in [names.timers_all(), names.fired_all(), names.redriven_all()] {
        log.purge(ledger, &rest, u64::MAX).await?;
    }
    if purge_state {
        log.purge(ledger, &names.dead_letters_all(), u64::MAX).await?;
        log.purge(ledger, &names.outbox_all(), u64::MAX).await?;
        log.purge(&bucket_stream(ledger), &names.bucket_all(), u64::MAX)
            .await?;
    }
    Ok(())
}

/// Commits the tombstone of a partition, also of one that never began: a host that has not
/// heard of the removal could begin it. Returns the sequence below which no record is
/// of use any more: the tombstone's, if its state is purged, which it then says by a
/// watermark that covers everything.
async fn end(
    log: &dyn Log,
    names: &HandlerNames,
    author: &Author,
    partition: u32,
    purge_state: bool,
) -> Result<u64, Error> {
    let begin = Instant::now();
    let subject = names.record(partition);
    loop {
        let last = log.last(&names.ledger, &subject).await?;
        let sequence = last.as_ref().map_or(0, |last| last.sequence);
        let record = match &last {
            Some(last) => Record::decode(last)?,
            None => Record::new(Kind::Tombstone, 0, author.clone()),
        };
        let covered = record.watermark.map_or(0, |watermark| watermark.record);
        let ended = last.is_some() && record.kind == Kind::Tombstone;
        if ended && !purge_state {
            return Ok(covered);
        }
        if ended && covered == record.previous {
            return Ok(sequence);
        }
        let everything = Watermark {
            record: sequence,
            nonce: record.nonce,
            bucket: record.watermark.map_or(0, |watermark| watermark.bucket),
        };
        let tombstone = Record {
            watermark: match purge_state && last.is_some() {
                true => Some(everything),
                false => record.watermark,
            },
            positions: record.positions,
            starts: record.starts,
            clock: record.clock,
            timer_generation: record.timer_generation,
            parked: record.parked,
            format: record.format,
            ..Record::new(Kind::Tombstone, sequence, author.clone())
        };
        let message = tombstone.message(subject.clone());
        // Its owner may commit once more; whatever happened, the next look tells.
        let reason = match log.append(&names.ledger, vec![message]).await {
            Ok(_) if !purge_state => return Ok(covered),
            Ok(appended) => return Ok(appended.sequence),
            Err(AppendError::Fenced(_) | AppendError::Busy { .. } | AppendError::Unknown(_))
                if begin.elapsed() < REMOVE_FOR =>
            {
                tokio::time::sleep(REMOVE_PAUSE).await;
                continue;
            }
            Err(error) => error.to_string(),
        };
        return Err(Error::Ending { partition, reason });
    }
}

/// Registers an earlier deployment again: the one of `digest`, or the one before
/// the latest that had another component or manifest. Returns it, as registered.
///
/// # Errors
/// [`Error::NoEarlier`]; of the log.
pub async fn roll_back(
    log: &dyn Log,
    ledger: &str,
    name: &str,
    to: Option<&str>,
    by: &str,
) -> Result<Registered, Error> {
    let registry = Registry::of(log, ledger);
    let latest = registry.deployed(name).await?;
    let history = registry.history(name).await?;
    let mut earlier = history.into_iter().rev().filter(|registered| {
        registered.revision < latest.revision
            && registered.deployment.generation == latest.deployment.generation
            && (registered.deployment.digest != latest.deployment.digest
                || registered.deployment.manifest != latest.deployment.manifest)
    });
    let found = match to {
        None => earlier.next(),
        Some(digest) => earlier.find(|registered| registered.deployment.digest.starts_with(digest)),
    };
    let found = found.ok_or_else(|| Error::NoEarlier {
        name: name.into(),
        which: to.map_or(String::new(), |digest| {
            format!(" whose digest begins with {digest}; see `weir handlers --history {name}`")
        }),
    })?;
    check_successor(&latest.deployment.manifest()?, &found.deployment.manifest()?)?;
    let deployment = found.deployment.again(by, Desired::Running);
    let revision = registry.put(&deployment, Some(&latest)).await?;
    Ok(Registered { revision, deployment })
}
