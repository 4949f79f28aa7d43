//! Rebuilding a handler's state from the beginning, in a new generation beside the one that runs
//! (`weir replay`).
//!
//! ```text
//!   begin ──> both generations run ──> take_place ──> partition by partition the new one ──> clean
//!             the new one is quiet                     ends the old one, and emits
//! ```
//!
//! What hosts do meanwhile is in [`quiet`](crate::dispatch::quiet). Each step here is one write of
//! the registry, or can be repeated: whoever is interrupted goes on by the same command.

use std::collections::BTreeMap;

use super::generation;
use super::manifest::Manifest;
use super::registry::{
    Deployment, Desired, Error as RegistryError, Generations, Rebuild, Registered, Registry,
};
use crate::commit::record::{self, Record};
use crate::commit::tombstone::State;
use crate::log::{self, Log, Start};
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::HandlerNames;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error(transparent)]
    Generation(#[from] generation::Error),
    /// What was asked for cannot be meant, or not now.
    #[error("handler {name} cannot be rebuilt: {why}")]
    Refused { name: String, why: String },
}

impl Error {
    /// Whether the same call may succeed later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Registry(error) => error.is_transient(),
            Error::Log(error) => error.is_transient(),
            Error::Generation(error) => error.is_transient(),
            Error::Record(_) | Error::Refused { .. } => false,
        }
    }
}

/// A handler that is being rebuilt.
#[derive(Debug, Clone)]
pub struct Rebuilding {
    pub registered: Registered,
    pub rebuild: Rebuild,
    manifest: Manifest,
    ledger: String,
}

/// How far the partitions of a generation are: by partition, then by source.
pub type Reached = BTreeMap<u32, BTreeMap<String, u64>>;

/// Registers that a handler is to be rebuilt, from where it began or from `from` on. Where it is
/// being rebuilt already, that goes on.
///
/// # Errors
/// [`Error::Refused`]; of the log.
pub async fn begin(
    log: &dyn Log,
    ledger: &str,
    name: &str,
    from: Option<Start>,
    by: &str,
) -> Result<Rebuilding, Error> {
    let refuse = |why: String| Error::Refused {
        name: name.into(),
        why,
    };
    let registry = Registry::of(log, ledger);
    if let Some(under_way) = find(log, ledger, name).await? {
        return match from {
            None => Ok(under_way),
            Some(_) => Err(refuse(format!(
                "it is being rebuilt already; wait for that with `weir replay {name}`, or cancel it with --cancel"
            ))),
        };
    }
    let mut latest = registry.deployed(name).await?;
    if latest.deployment.generations.replaced.is_some() {
        if !clean(log, ledger, name, by).await? {
            return Err(refuse(
                "the last replay is not through yet; try again in a moment".into(),
            ));
        }
        latest = registry.deployed(name).await?;
    }
    let deployment = &latest.deployment;
    let manifest = deployment.manifest()?;
    if deployment.desired != Desired::Running {
        return Err(refuse(format!(
            "it is paused; resume it first (`weir resume {name}`)"
        )));
    }
    if manifest.http.is_some() {
        return Err(refuse(
            "it calls other systems, which would be called again".into(),
        ));
    }
    if !manifest.outbox.is_empty() {
        return Err(refuse(
            "it has an [[outbox]], whose entries are on their way to other streams".into(),
        ));
    }
    let names = HandlerNames::new(ledger, name, deployment.generation);
    let records = records(log, &names, manifest.partitions).await?;
    let (Some(first), true) = (records.get(&0), records.len() == manifest.partitions as usize) else {
        return Err(refuse(
            "not all of its partitions have run yet; try again in a moment".into(),
        ));
    };
    if let Some(why) = unfinished(log, &names, &records).await? {
        return Err(refuse(why));
    }
    let mut starts = BTreeMap::new();
    for source in &manifest.sources {
        let stream = log.stream(&source.stream).await?;
        let start = match from {
            Some(start) => Position {
                created: stream.created,
                sequence: log.resolve(&source.stream, start).await?.saturating_sub(1),
                stored: 0,
            },
            None => *first.starts.get(&source.stream).ok_or_else(|| {
                refuse(format!(
                    "where it began to read stream {} is not known; say from where on with --from",
                    source.stream
                ))
            })?,
        };
        if start.created != stream.created {
            return Err(refuse(format!(
                "stream {} is not the one that it has read",
                source.stream
            )));
        }
        if from.is_none() && stream.has_lost(start.sequence + 1, ledger) {
            return Err(refuse(format!(
                "it began with message {} of stream {}, whose first is {} by now: state that older events have made \
                 would be missing. To rebuild it from what there is, say --from all",
                start.sequence + 1,
                source.stream,
                stream.first
            )));
        }
        starts.insert(source.stream.clone(), start);
    }
    let generation = generation::unused(log, ledger, name, deployment.generation + 1).await?;
    let generations = Generations {
        rebuild: Some(Rebuild { generation, starts }),
        replaced: None,
    };
    let deployment = deployment.with(by, deployment.generation, generations);
    registry.put(&deployment, Some(&latest)).await?;
    find(log, ledger, name)
        .await?
        .ok_or_else(|| refuse("somebody else has cancelled it".into()))
}

/// What a generation has begun and not finished, so that another cannot do it over again.
async fn unfinished(
    log: &dyn Log,
    names: &HandlerNames,
    records: &BTreeMap<u32, Record>,
) -> Result<Option<String>, Error> {
    let name = &names.handler;
    if records.values().any(|record| record.timer_generation > 0) {
        let why = "it has used timers, which would not fire again at the times at which they did";
        return Ok(Some(why.into()));
    }
    let letters = log.last_many(&names.ledger, &[names.dead_letters()]).await?;
    let letters = letters.messages.iter().filter(|letter| !letter.data.is_empty());
    let letters = letters.count();
    if letters > 0 {
        return Ok(Some(format!(
            "{letters} events are dead letters; redrive them first, or drop them: then they change cells when they are \
             handled again, and emit nothing (`weir dead-letters list {name}`)"
        )));
    }
    for (partition, record) in records {
        let handled = record.positions.get(INTERNAL_SOURCE).map_or(0, |at| at.sequence);
        let redriven = log.last(&names.ledger, &names.redriven(*partition)).await?;
        if redriven.is_some_and(|redriven| redriven.sequence > handled) {
            return Ok(Some(
                "it has redriven events to handle; try again in a moment".into(),
            ));
        }
        if log
            .last(&names.ledger, &names.outbox(*partition))
            .await?
            .is_some()
        {
            return Ok(Some("its outbox has entries that are not handed on yet".into()));
        }
    }
    Ok(None)
}

/// A handler's rebuilding, if it is being rebuilt.
///
/// # Errors
/// It is not deployed; of the log.
pub async fn find(log: &dyn Log, ledger: &str, name: &str) -> Result<Option<Rebuilding>, Error> {
    let registered = Registry::of(log, ledger).deployed(name).await?;
    let Some(rebuild) = registered.deployment.generations.rebuild.clone() else {
        return Ok(None);
    };
    Ok(Some(Rebuilding {
        manifest: registered.deployment.manifest()?,
        ledger: ledger.into(),
        registered,
        rebuild,
    }))
}

impl Rebuilding {
    fn running(&self) -> HandlerNames {
        let deployment = &self.registered.deployment;
        HandlerNames::new(&self.ledger, &deployment.name, deployment.generation)
    }

    fn rebuilt(&self) -> HandlerNames {
        let deployment = &self.registered.deployment;
        HandlerNames::new(&self.ledger, &deployment.name, self.rebuild.generation)
    }

    /// How far the running generation is.
    ///
    /// # Errors
    /// Of the log; a record that cannot be read.
    pub async fn target(&self, log: &dyn Log) -> Result<Reached, Error> {
        self.reached(log, &self.running()).await
    }

    /// How far the one that is rebuilt is. A partition that has not begun is not in it.
    ///
    /// # Errors
    /// As [`Rebuilding::target`].
    pub async fn come(&self, log: &dyn Log) -> Result<Reached, Error> {
        self.reached(log, &self.rebuilt()).await
    }

    async fn reached(&self, log: &dyn Log, names: &HandlerNames) -> Result<Reached, Error> {
        let sources = |record: Record| {
            let of = self.rebuild.starts.keys();
            of.map(|name| {
                (
                    name.clone(),
                    record.positions.get(name).map_or(0, |at| at.sequence),
                )
            })
            .collect()
        };
        let records = records(log, names, self.manifest.partitions).await?.into_iter();
        Ok(records
            .map(|(partition, record)| (partition, sources(record)))
            .collect())
    }

    /// Of the events up to `target`: how many are handled again, and how many there are, as
    /// sequences of the streams go.
    pub fn progress(&self, come: &Reached, target: &Reached) -> (u64, u64) {
        let (mut done, mut total) = (0, 0);
        for (partition, sources) in target {
            for (source, target) in sources {
                let start = self.rebuild.starts.get(source).map_or(0, |start| start.sequence);
                let here = come
                    .get(partition)
                    .and_then(|sources| sources.get(source))
                    .unwrap_or(&start);
                total += target.saturating_sub(start);
                done += (*here).min(*target).saturating_sub(start);
            }
        }
        (done, total)
    }

    /// Whether every partition has begun and come to `target`.
    pub fn is_there(&self, come: &Reached, target: &Reached) -> bool {
        let has_come = |partition: &u32, sources: &BTreeMap<String, u64>| {
            let come = come.get(partition);
            come.is_some_and(|come| {
                sources
                    .iter()
                    .all(|(source, target)| come.get(source) >= Some(target))
            })
        };
        let all = self.manifest.partitions as usize;
        come.len() == all
            && target
                .iter()
                .all(|(partition, sources)| has_come(partition, sources))
    }

    /// The generation that is rebuilt takes the place of the running one. Returns the revision.
    ///
    /// # Errors
    /// Somebody deployed meanwhile: look again. [`Error::Refused`] if the running one has begun
    /// what cannot be done over again. Of the log.
    pub async fn take_place(&self, log: &dyn Log, by: &str) -> Result<u64, Error> {
        let deployment = &self.registered.deployment;
        let running = self.running();
        let records = records(log, &running, self.manifest.partitions).await?;
        if let Some(why) = unfinished(log, &running, &records).await? {
            return Err(Error::Refused {
                name: deployment.name.clone(),
                why,
            });
        }
        let generations = Generations {
            rebuild: None,
            replaced: Some(deployment.generation),
        };
        let deployment = deployment.with(by, self.rebuild.generation, generations);
        Ok(Registry::of(log, &self.ledger)
            .put(&deployment, Some(&self.registered))
            .await?)
    }

    /// Gives the rebuilding up: hosts stop it, and nothing is left of it.
    ///
    /// # Errors
    /// As [`Rebuilding::take_place`].
    pub async fn cancel(&self, log: &dyn Log, by: &str) -> Result<(), Error> {
        let deployment = &self.registered.deployment;
        let generations = Generations {
            rebuild: None,
            replaced: Some(self.rebuild.generation),
        };
        let cancelled = deployment.with(by, deployment.generation, generations);
        Registry::of(log, &self.ledger)
            .put(&cancelled, Some(&self.registered))
            .await?;
        clean(log, &self.ledger, &deployment.name, by).await?;
        Ok(())
    }
}

/// Whether every partition of the running generation has done over again all that the one
/// before it had done: nothing is quiet any more. From the leader, since what is no longer
/// needed then is removed.
async fn is_through(log: &dyn Log, ledger: &str, latest: &Deployment) -> Result<bool, Error> {
    let names = HandlerNames::new(ledger, &latest.name, latest.generation);
    for partition in 0..latest.manifest()?.partitions {
        let last = log.last(ledger, &names.record(partition)).await?;
        let Some(record) = last.as_ref().map(Record::decode).transpose()? else {
            return Ok(false);
        };
        if record.repeats.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The generation that the running one has taken the place of, if there is something left of
/// it to remove; not one that was cancelled.
///
/// # Errors
/// It is not deployed; of the log.
pub async fn to_finish(log: &dyn Log, ledger: &str, name: &str) -> Result<Option<u64>, Error> {
    let deployment = Registry::of(log, ledger).deployed(name).await?.deployment;
    let replaced = deployment.generations.replaced;
    Ok(replaced.filter(|replaced| *replaced < deployment.generation))
}

/// Removes what is left of a generation whose place was taken, or that was cancelled. False if
/// the running one still needs it.
///
/// # Errors
/// Of the log.
pub async fn clean(log: &dyn Log, ledger: &str, name: &str, by: &str) -> Result<bool, Error> {
    let registry = Registry::of(log, ledger);
    let latest = registry.deployed(name).await?;
    let Some(replaced) = latest.deployment.generations.replaced else {
        return Ok(true);
    };
    if !is_through(log, ledger, &latest.deployment).await? {
        return Ok(false);
    }
    generation::end(log, ledger, &latest, replaced, by, State::Purged).await?;
    let generations = Generations {
        replaced: None,
        ..latest.deployment.generations.clone()
    };
    let cleaned = latest
        .deployment
        .with(&latest.deployment.by, latest.deployment.generation, generations);
    registry.put(&cleaned, Some(&latest)).await?;
    Ok(true)
}

/// The last record of each partition that has one. May lag behind the leader.
async fn records(
    log: &dyn Log,
    names: &HandlerNames,
    partitions: u32,
) -> Result<BTreeMap<u32, Record>, Error> {
    let found = log.last_many(&names.ledger, &[names.records()]).await?;
    let mut records = BTreeMap::new();
    for stored in &found.messages {
        let partition = stored
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| token.parse().ok());
        if let Some(partition) = partition.filter(|partition| *partition < partitions) {
            records.insert(partition, Record::decode(stored)?);
        }
    }
    Ok(records)
}
