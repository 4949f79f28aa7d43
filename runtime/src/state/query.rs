//! Committed state, read from outside its host: the bucket's copy with the
//! records after its watermark over it. What this returns was committed, and
//! nothing committed before the call is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{load, replay};
use crate::commit::record::{self, Record, Watermark};
use crate::log::{self, Log};
use crate::model::hidden::is_hidden;
use crate::model::key::partition;
use crate::model::subjects::{HandlerNames, bucket_stream};

/// Tries to read bucket and records while no checkpoint comes in between: of one
/// partition there are a few in a second at most, and a try takes milliseconds.
const TRIES_MAX: u32 = 10;

/// Keys listed per request to the bucket.
const PAGE: usize = 2_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error(transparent)]
    Replay(#[from] replay::Error),
    #[error(transparent)]
    Load(#[from] load::Error),
    #[error("handler {0} has committed nothing in this ledger: check its name with `weir handlers`")]
    NoHandler(String),
}

/// Cells of one key. With `checkpoint`, as the bucket has them, which may be
/// some seconds old.
///
/// # Errors
/// The handler is unknown, or the log cannot be read.
pub async fn get(
    log: &dyn Log,
    names: &HandlerNames,
    key: &str,
    checkpoint: bool,
) -> Result<BTreeMap<String, Bytes>, Error> {
    let partitions = last_records(log, names).await?[0].1.partitions;
    let partition = partition(key, partitions);
    let key: Arc<str> = key.into();
    let subject = names.record(partition);
    let mut tries = 0;
    let state = loop {
        let Some((sequence, record)) = last_record(log, names, &subject).await? else {
            return Ok(BTreeMap::new());
        };
        let at_least = record.watermark.map_or(0, |w| w.bucket);
        let (_, mut state) = load::load(log, names, partition, std::slice::from_ref(&key), at_least)
            .await?
            .remove(0);
        if checkpoint {
            break state;
        }
        let after = record.watermark.map_or(0, |w| w.record);
        let dirty = replay::deltas(log, &names.ledger, &subject, after, sequence).await;
        // A checkpoint meanwhile makes the base newer than the records over it, and a
        // purge takes records away: only what was read on one watermark fits together.
        let now = last_record(log, names, &subject).await?;
        let same = now.is_some_and(|(_, now)| now.watermark == record.watermark);
        tries += 1;
        if same || tries == TRIES_MAX {
            if let Some((_, changed)) = dirty?.iter().find(|(k, _)| **k == key) {
                load::overlay(&mut state, changed);
            }
            break state;
        }
    };
    Ok(state
        .visible()
        .map(|(cell, value)| (cell.to_string(), value.clone()))
        .collect())
}

/// Keys that begin with `prefix` and have at least one cell, in byte order.
///
/// # Errors
/// The handler is unknown, or the log cannot be read.
pub async fn keys(
    log: &dyn Log,
    names: &HandlerNames,
    prefix: &str,
    checkpoint: bool,
) -> Result<BTreeSet<String>, Error> {
    let all = names.cells_all();
    let cells = together(log, names, async |records| {
        let records = if checkpoint { &[] } else { records };
        let mut cells = BTreeSet::new();
        each(log, names, &all, records, |key, cell, value| {
            if key.starts_with(prefix) {
                match value {
                    Some(_) => cells.insert((key, cell)),
                    None => cells.remove(&(key, cell)),
                };
            }
        })
        .await?;
        Ok(cells)
    })
    .await?;
    Ok(cells.into_iter().map(|(key, _)| key).collect())
}

/// The values of one cell, of all keys that have it.
///
/// # Errors
/// The handler is unknown, or the log cannot be read.
pub async fn cell_of_all(
    log: &dyn Log,
    names: &HandlerNames,
    cell: &str,
) -> Result<BTreeMap<String, Bytes>, Error> {
    let all = names.cell_of_all(cell);
    together(log, names, async |records| {
        let mut values = BTreeMap::new();
        each(log, names, &all, records, |key, name, value| {
            if name == cell {
                match value {
                    Some(value) => values.insert(key, value),
                    None => values.remove(&key),
                };
            }
        })
        .await?;
        Ok(values)
    })
    .await
}

/// How many partitions the handler has.
///
/// # Errors
/// The handler is unknown, or the log cannot be read.
pub async fn partitions(log: &dyn Log, names: &HandlerNames) -> Result<u32, Error> {
    Ok(last_records(log, names).await?[0].1.partitions)
}

/// What `read` makes of the last records. As for one key, only what was read on one watermark of each
/// partition fits together.
async fn together<T>(
    log: &dyn Log,
    names: &HandlerNames,
    read: impl AsyncFn(&[(u64, Record, String)]) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut records = last_records(log, names).await?;
    let mut tries = 0;
    loop {
        let found = read(&records).await;
        let now = last_records(log, names).await?;
        tries += 1;
        if watermarks(&records) == watermarks(&now) || tries == TRIES_MAX {
            return found;
        }
        records = now;
    }
}

/// Every cell whose key in the bucket matches `filter`, and then every cell that changed after the watermark
/// of each of `records`, up to that record: key, name, and value, `None` where it is deleted.
async fn each(
    log: &dyn Log,
    names: &HandlerNames,
    filter: &str,
    records: &[(u64, Record, String)],
    mut cell: impl FnMut(String, String, Option<Bytes>),
) -> Result<(), Error> {
    let bucket = bucket_stream(&names.ledger);
    let mut from = 1;
    loop {
        let page = log.scan(&bucket, filter, from, PAGE).await?;
        let Some(last) = page.last() else { break };
        from = last.sequence + 1;
        for stored in page {
            let Some((_, key, Some(name))) = names.parse_cell(&stored.subject) else {
                continue;
            };
            if is_hidden(&key) || is_hidden(&name) {
                continue;
            }
            let deleted = stored.header(load::OPERATION_HEADER).is_some();
            cell(key, name, (!deleted).then_some(stored.data));
        }
    }
    for (sequence, record, subject) in records {
        let after = record.watermark.map_or(0, |w| w.record);
        let dirty = replay::deltas(log, &names.ledger, subject, after, *sequence).await?;
        for (key, changed) in dirty.iter().filter(|(key, _)| !is_hidden(key)) {
            for (name, value) in changed.cells.iter().filter(|(name, _)| !is_hidden(name)) {
                cell(key.to_string(), name.to_string(), value.clone());
            }
        }
    }
    Ok(())
}

/// The watermark of each partition, by the subject of its records.
fn watermarks(records: &[(u64, Record, String)]) -> BTreeMap<&str, Option<Watermark>> {
    records
        .iter()
        .map(|(_, record, subject)| (subject.as_str(), record.watermark))
        .collect()
}

/// The partition's last record, from the leader.
async fn last_record(
    log: &dyn Log,
    names: &HandlerNames,
    subject: &str,
) -> Result<Option<(u64, Record)>, Error> {
    let Some(stored) = log.last(&names.ledger, subject).await? else {
        return Ok(None);
    };
    Ok(Some((stored.sequence, Record::decode(&stored)?)))
}

/// Last record of each partition that has one: sequence, record, subject. From a
/// replica that has all that the ledger had at the call.
async fn last_records(log: &dyn Log, names: &HandlerNames) -> Result<Vec<(u64, Record, String)>, Error> {
    let snapshot = load::last_many_now(log, &names.ledger, &[names.records()]).await?;
    let mut records = Vec::with_capacity(snapshot.messages.len());
    for stored in snapshot.messages {
        records.push((
            stored.sequence,
            Record::decode(&stored)?,
            stored.subject.to_string(),
        ));
    }
    if records.is_empty() {
        return Err(Error::NoHandler(names.handler.clone()));
    }
    Ok(records)
}
