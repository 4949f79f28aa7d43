//! From files to the registry, and out of it again: what `weir deploy`, the
//! watched folder and `weir remove` have in common.

use super::artifacts::{self, Artifacts};
use super::plugins::Deployed;
use super::registry::{
    Deployment, Desired, Error as RegistryError, FORMAT, Generations, Registered, Registry, check_rebuild,
    check_successor, generation_after, now_ms,
};
use super::signature::Signature;
use super::{generation, rebuild};
use crate::commit::tombstone::State;
use crate::log::{self, Log};
use crate::model::subjects::HandlerNames;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Artifact(#[from] artifacts::Error),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error("handler {name} has no earlier deployment{which}")]
    NoEarlier { name: String, which: String },
    #[error(
        "the outbox of handler {name} has entries that are not handed on yet, in {partitions} of its partitions: wait until they \
         are (metric weir_outbox_failing tells if they cannot be), or drop them, and its state, with --purge-state"
    )]
    OutboxWaits { name: String, partitions: usize },
    #[error(transparent)]
    Generation(#[from] generation::Error),
    #[error(
        "handler {0} was rebuilt, and not all of its partitions have gone over to the new generation yet: try again in a \
         moment, or drop its state with --purge-state"
    )]
    NotThrough(String),
    #[error(transparent)]
    Rebuild(#[from] rebuild::Error),
}

impl Error {
    /// Whether the same call may succeed later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::NotThrough(_) => true,
            Error::Registry(error) => error.is_transient(),
            Error::Artifact(artifacts::Error::Append(error)) => error.is_transient(),
            Error::Artifact(artifacts::Error::Log(error)) | Error::Log(error) => error.is_transient(),
            Error::Generation(error) => error.is_transient(),
            Error::Rebuild(error) => error.is_transient(),
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
    let mut generation = generation_after(before.as_ref());
    let is_new = before
        .as_ref()
        .is_some_and(|before| before.deployment.generation < generation);
    if is_new {
        generation = generation::unused(log, ledger, &found.manifest.name, generation).await?;
    }
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
            if since_removal(&history).any(|registered| same(&registered.deployment)) {
                return Ok(Outcome::Superseded(before.revision));
            }
        }
        check_successor(&before.deployment.manifest()?, &found.manifest)?;
        check_rebuild(&before.deployment, &found.manifest)?;
    }
    // Whatever code there is, what is rebuilt stays what it is.
    let before_it = before
        .as_ref()
        .filter(|before| before.deployment.generation == generation);
    let generations = before_it.map_or(Generations::default(), |before| {
        before.deployment.generations.clone()
    });
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
        generations,
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
    let before = latest
        .ok_or_else(|| RegistryError::Unknown(name.into()))?
        .deployment;
    if before.desired != Desired::Removed {
        if let Some(rebuilding) = rebuild::find(log, ledger, name).await? {
            rebuilding.cancel(log, by).await?;
        }
        if !rebuild::clean(log, ledger, name, by).await? && !purge_state {
            return Err(Error::NotThrough(name.into()));
        }
    }
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
    let removed = Registered { revision, ..latest };
    let state = match purge_state {
        true => State::Purged,
        false => State::Kept,
    };
    let deployment = &removed.deployment;
    generation::end(log, ledger, &removed, deployment.generation, by, state).await?;
    if let Some(replaced) = deployment.generations.replaced {
        generation::end(log, ledger, &removed, replaced, by, State::Purged).await?;
    }
    Ok(())
}

/// Deployments since the handler was removed the last time, the latest one first.
fn since_removal(history: &[Registered]) -> impl Iterator<Item = &Registered> {
    let latest_first = history.iter().rev();
    latest_first.take_while(|registered| registered.deployment.desired != Desired::Removed)
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
    let mut earlier = since_removal(&history).filter(|registered| {
        registered.revision < latest.revision
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
    check_rebuild(&latest.deployment, &found.deployment.manifest()?)?;
    let (generation, generations) = (
        latest.deployment.generation,
        latest.deployment.generations.clone(),
    );
    let deployment = Deployment {
        desired: Desired::Running,
        ..found.deployment.with(by, generation, generations)
    };
    let revision = registry.put(&deployment, Some(&latest)).await?;
    Ok(Registered { revision, deployment })
}
