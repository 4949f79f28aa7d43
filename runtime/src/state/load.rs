//! Loads keys from the state bucket, many at once, and only from a replica that
//! has everything this partition ever checkpointed (PROTOCOL rule 10).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::KeyState;
use super::dirty::DirtyKey;
use crate::commit::record::TimerEntry;
use crate::log::{self, Log, Snapshot, Stored};
use crate::model::subjects::{HandlerNames, bucket_stream};
use crate::state::LiveTimer;

/// Header of a cell in the bucket: the ledger sequence of the commit that wrote it.
pub const COMMIT_HEADER: &str = "Weir-Commit";

/// Header of a deleted key in a KV bucket, as every NATS client reads it.
pub const OPERATION_HEADER: &str = "KV-Operation";
pub const OPERATION_DELETE: &str = "DEL";

/// How long a load asks lagging replicas again before it reports trouble.
const STALE_FOR: Duration = Duration::from_secs(10);
const STALE_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error("the replicas of {stream} stayed behind sequence {at_least} for {STALE_FOR:?}")]
    Stale { stream: String, at_least: u64 },
    #[error("{subject} in the state bucket cannot be read: {detail}")]
    Broken { subject: String, detail: String },
}

/// Cells and timers of `keys` as the bucket has them. Keys without any come
/// back empty.
///
/// # Errors
/// The bucket cannot be read, or no replica has reached sequence `at_least`.
pub async fn load(
    log: &dyn Log,
    names: &HandlerNames,
    partition: u32,
    keys: &[Arc<str>],
    at_least: u64,
) -> Result<Vec<(Arc<str>, KeyState)>, Error> {
    let bucket = bucket_stream(&names.ledger);
    let mut filters: Vec<String> = keys.iter().map(|key| names.cells_of(partition, key)).collect();
    // Always there once a partition was taken over, so that the answer always
    // says how far the replica is.
    filters.push(names.meta(partition));
    let snapshot = last_many_fresh(log, &bucket, &filters, at_least, |snapshot| {
        at_least == 0 || snapshot.up_to.is_some_and(|up_to| up_to >= at_least)
    })
    .await?;
    let mut states: HashMap<String, KeyState> = HashMap::with_capacity(keys.len());
    for stored in snapshot.messages {
        let Some((_, key, cell)) = names.parse_cell(&stored.subject) else {
            continue;
        };
        apply(states.entry(key).or_default(), cell, stored)?;
    }
    Ok(keys
        .iter()
        .map(|key| (key.clone(), states.remove(&**key).unwrap_or_default()))
        .collect())
}

/// Last messages as [`Log::last_many`] has them, from a replica that has all that the stream
/// had at the call.
///
/// # Errors
/// The stream cannot be read, or no replica gets that far.
pub async fn last_many_now(log: &dyn Log, stream: &str, filters: &[String]) -> Result<Snapshot, Error> {
    let at_least = log.stream(stream).await?.last;
    // Without any result, an answer does not say how far its replica is.
    let fresh = |snapshot: &Snapshot| snapshot.up_to.is_none_or(|up_to| up_to >= at_least);
    last_many_fresh(log, stream, filters, at_least, fresh).await
}

/// Last messages as [`Log::last_many`] has them, asked for again until they are from a
/// replica that is far enough: `at_least` is how far, for the error, and `fresh` decides.
async fn last_many_fresh(
    log: &dyn Log,
    stream: &str,
    filters: &[String],
    at_least: u64,
    fresh: impl Fn(&Snapshot) -> bool,
) -> Result<Snapshot, Error> {
    let since = Instant::now();
    loop {
        let snapshot = log.last_many(stream, filters).await?;
        if fresh(&snapshot) {
            return Ok(snapshot);
        }
        if since.elapsed() > STALE_FOR {
            return Err(Error::Stale {
                stream: stream.to_owned(),
                at_least,
            });
        }
        tokio::time::sleep(STALE_PAUSE).await;
    }
}

/// Puts one bucket message into its key's state.
pub fn apply(state: &mut KeyState, cell: Option<String>, stored: Stored) -> Result<(), Error> {
    if stored.header(OPERATION_HEADER).is_some() {
        return Ok(());
    }
    match cell {
        Some(cell) => {
            state.cells.insert(cell.into(), stored.data);
        }
        None => {
            let timers: Timers = serde_json::from_slice(&stored.data).map_err(|e| Error::Broken {
                subject: stored.subject.to_string(),
                detail: e.to_string(),
            })?;
            state.timers = timers
                .0
                .into_iter()
                .map(|(name, generation, due)| (name, LiveTimer { generation, due }))
                .collect();
        }
    }
    Ok(())
}

/// Puts what was committed after the bucket's copy over it.
pub fn overlay(state: &mut KeyState, dirty: &DirtyKey) {
    for (cell, value) in &dirty.cells {
        match value {
            Some(value) => state.cells.insert(cell.clone(), value.clone()),
            None => state.cells.remove(cell),
        };
    }
    if let Some(timers) = &dirty.timers {
        state.timers = timers
            .iter()
            .map(|t| {
                (
                    t.name.clone(),
                    LiveTimer {
                        generation: t.generation,
                        due: t.due,
                    },
                )
            })
            .collect();
    }
}

/// The bucket's `=timers` value of a key: `[[name, generation, due], …]`.
#[derive(Serialize, Deserialize)]
pub struct Timers(pub Vec<(Box<str>, u64, u64)>);

impl Timers {
    pub fn new(timers: &[TimerEntry]) -> Timers {
        Timers(
            timers
                .iter()
                .map(|t| (t.name.clone(), t.generation, t.due))
                .collect(),
        )
    }
}
