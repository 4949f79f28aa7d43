//! Taking over a partition: from the last commit record to an owner that may go on.
//!
//! 1. Read the partition's meta and its last record, both from their leaders,
//!    and check that they belong together (PROTOCOL rules 2 and 9).
//! 2. Of a generation that has taken the place of another: end the partition there
//!    ([`quiet`](super::quiet)).
//! 3. Commit a takeover record that expects the last one. From here on the
//!    owner before us is fenced.
//! 4. Rewrite meta. From here on its checkpoints are fenced, too (rule 8).
//! 5. Replay what was committed after the watermark.
//!
//! Cells are not restored: they are loaded when an event needs them.
//! A crash between any two steps leaves what the next takeover expects.

use std::collections::BTreeMap;

use tracing::warn;

use super::context::HandlerContext;
use super::quiet::Quiet;
use super::{start, unpark};
use crate::commit::record::{ATTEMPT_HEADER, Kind, Record, Watermark, incarnation_of};
use crate::log::{self, AppendError, Start, Stored};
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::model::subjects::bucket_stream;
use crate::source::decode::Queued;
use crate::state::dirty::Dirty;
use crate::state::meta::{Doubt, Mark, Meta};
use crate::state::replay;

/// Times that meta is written again because the owner before us checkpointed in
/// between; each of its checkpoints can get in the way once.
const META_TRIES_MAX: u32 = 20;

/// What an owner knows of its partition's durable side.
#[derive(Debug)]
pub struct Tenure {
    /// Sequence of the last record: what the next one expects.
    pub record: Mark,
    pub starts: BTreeMap<String, Position>,
    /// Committed positions, by index of the source.
    pub positions: Vec<Position>,
    pub watermark: Option<Watermark>,
    pub checkpointed: Option<Mark>,
    /// Sequence of meta in the bucket's stream, and the least that a replica
    /// must have to be believed.
    pub meta: u64,
    /// Committed, not yet in the bucket.
    pub dirty: Dirty,
    pub clock: u64,
    pub timer_generation: u64,
    /// The partition begins here: the bucket has nothing of it.
    pub blank: bool,
    /// Events that waited for locks, to be tried again.
    pub parked: Vec<Queued>,
    /// What an earlier generation has handled, and is handled over again.
    pub quiet: Option<Quiet>,
}

/// Whether a partition may be taken from another owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// From anybody: at start, and when its owner does not move.
    Any,
    /// Only if the last record is this process's own: after an unknown outcome.
    Own,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("partition is owned by host {0}")]
    Fenced(String),
    /// A later deployment than this host knows has run: it will hear of it.
    #[error("{0}")]
    Behind(String),
    /// Written by a newer version of Weir than this one.
    #[error("{0}")]
    Newer(String),
    /// Goes on by itself when NATS answers again.
    #[error("{0}")]
    Unavailable(String),
    /// Needs somebody to mend something.
    #[error("{0}")]
    Stopped(String),
}

impl From<log::Error> for Failure {
    fn from(error: log::Error) -> Self {
        match error {
            log::Error::Unavailable(_) => Failure::Unavailable(error.to_string()),
            log::Error::NoStream(name) => Failure::Stopped(format!(
                "stream {name} does not exist any more; restore it from a backup (docs/operations.md), and the partition \
                 goes on by itself"
            )),
            other => Failure::Stopped(other.to_string()),
        }
    }
}

impl From<start::Error> for Failure {
    fn from(error: start::Error) -> Self {
        match error {
            start::Error::Log(log::Error::NoStream(name)) => Failure::Stopped(format!(
                "source stream {name} does not exist; create it, for example: nats stream add {name}"
            )),
            start::Error::Log(error) => error.into(),
            start::Error::Record(error) => Failure::Stopped(error.to_string()),
            start::Error::Undecided(_) => Failure::Unavailable(error.to_string()),
        }
    }
}

impl From<replay::Error> for Failure {
    fn from(error: replay::Error) -> Self {
        match error {
            replay::Error::Log(error) => error.into(),
            other => Failure::Stopped(other.to_string()),
        }
    }
}

/// Takes over `partition`.
///
/// # Errors
/// See [`Failure`]. Nothing of the partition's state is changed then, but it may
/// have a takeover record of ours, which is as good as none.
pub async fn take_over(context: &HandlerContext, partition: u32, claim: Claim) -> Result<Tenure, Failure> {
    let (log, names) = (&*context.log, &context.names);
    let subject = names.record(partition);
    let (last, meta) = read_both(context, partition).await?;
    let last = last
        .map(|stored| Record::decode(&stored).map(|record| (stored, record)))
        .transpose()?;
    if let (Some((stored, record)), Claim::Own) = (&last, claim)
        && incarnation_of(stored) != Some(context.committer.attempts().incarnation())
    {
        return Err(Failure::Fenced(record.host.clone()));
    }
    if let Some((_, record)) = &last
        && record.manifest_revision > context.revision
    {
        // Rule 12: old code must not take over what newer code has written.
        return Err(Failure::Behind(format!(
            "the partition has run deployment {} already, and this host knows {}; waiting for it",
            record.manifest_revision, context.revision
        )));
    }
    let decoded = belong_together(context, partition, last.as_ref(), meta.as_ref()).await?;
    let before = last.as_ref().map(|(_, record)| record);
    match before {
        Some(before) => same_shape(context, before)?,
        // New is only the partition of a handler that is new: one more than there
        // were would handle from the beginning what others have handled.
        None => {
            if let Some(first) = log.last(&names.ledger, &names.record(start::DECIDES)).await? {
                let first = Record::decode(&first).map_err(|e| Failure::Stopped(e.to_string()))?;
                same_shape(context, &first)?;
            }
        }
    }

    let quiet = Quiet::resume(context, partition, before).await?;
    let watermark = believable(context, partition, before, meta.as_ref(), decoded.as_ref());
    let previous = last.as_ref().map_or(0, |(stored, _)| stored.sequence);
    let mut record = Record {
        starts: before.map(|b| b.starts.clone()).unwrap_or_default(),
        watermark,
        clock: before.map_or(0, |b| b.clock),
        timer_generation: before.map_or(0, |b| b.timer_generation),
        ..context.record(Kind::Takeover, previous)
    };
    let sources = context
        .manifest
        .sources
        .iter()
        .map(|s| (s.stream.as_str(), s.stream.as_str(), s.start));
    for (source, (name, stream, start)) in sources
        .chain([(INTERNAL_SOURCE, names.ledger.as_str(), Start::New)])
        .enumerate()
    {
        let position = match before.and_then(|b| b.positions.get(name)) {
            Some(position) => *position,
            None => {
                let beside = context.beside.as_ref();
                let rebuilt_from = beside
                    .and_then(|beside| beside.starts.get(name))
                    .zip(quiet.as_ref());
                let position = match rebuilt_from {
                    Some((start, quiet)) => quiet.begin(source, *start),
                    None => context.starts.of(partition, name, stream, start).await?,
                };
                record.starts.insert(name.into(), position);
                position
            }
        };
        record.positions.insert(name.into(), position);
    }
    let positions: Vec<Position> = context
        .source_names()
        .map(|name| record.positions[name])
        .collect();
    let repeats = quiet.as_ref().and_then(|quiet| quiet.recorded(&positions));
    let quiet = quiet.filter(|_| repeats.is_some());
    let parked = before.and_then(|b| b.parked.clone()).unwrap_or_default();
    record.unfinished(parked, repeats);

    let sequence = commit(context, partition, &record).await?;
    let mark = Mark {
        record: sequence,
        nonce: record.nonce,
    };
    let (meta, checkpointed) = fence_checkpoints(context, partition, meta, decoded, mark, &record).await?;
    let after = record.watermark.map_or(0, |w| w.record);
    let dirty = replay::deltas(log, &names.ledger, &subject, after, sequence).await?;
    let parked = unpark::read(context, partition, &record).await?;
    Ok(Tenure {
        record: mark,
        positions,
        starts: record.starts,
        watermark: record.watermark,
        checkpointed,
        meta,
        dirty,
        clock: record.clock,
        timer_generation: record.timer_generation,
        blank: last.is_none(),
        parked,
        quiet,
    })
}

/// The partition's last record and its meta.
///
/// Another host may take the partition over between the two reads. Meta is read
/// first, so that the record is at or after the one that meta names unless
/// commits were lost. Only the very first meta can be missed in this way, and is
/// found by looking again.
async fn read_both(
    context: &HandlerContext,
    partition: u32,
) -> Result<(Option<Stored>, Option<Stored>), log::Error> {
    let (log, names) = (&*context.log, &context.names);
    let (bucket, subject) = (bucket_stream(&names.ledger), names.meta(partition));
    let mut meta = log.last(&bucket, &subject).await?;
    let mut last = log.last(&names.ledger, &names.record(partition)).await?;
    if meta.is_none() && last.is_some() {
        meta = log.last(&bucket, &subject).await?;
        last = log.last(&names.ledger, &names.record(partition)).await?;
    }
    Ok((last, meta))
}

/// Rules 2 and 9: record and meta must be of one ledger, and the record not
/// older than what the bucket holds.
async fn belong_together(
    context: &HandlerContext,
    partition: u32,
    last: Option<&(Stored, Record)>,
    meta: Option<&Stored>,
) -> Result<Option<Meta>, Failure> {
    let names = &context.names;
    let stop = |what: String| {
        Failure::Stopped(format!(
            "{what}; nothing is committed until the ledger or the bucket is restored to match, or, if the state \
             may start over, both the records `{}` and the bucket keys `{}` are purged",
            names.record(partition),
            names.meta(partition).trim_end_matches("meta").to_string() + ">",
        ))
    };
    let decoded = meta
        .map(Meta::decode)
        .transpose()
        .map_err(|e| stop(format!("{} cannot be read: {e}", names.meta(partition))))?;
    let (last, meta) = match (last, decoded) {
        (None, None) => return Ok(None),
        (Some((_, record)), None) if record.watermark.is_none() => return Ok(None),
        (Some(_), None) => {
            return Err(stop(format!(
                "the state bucket has lost {}, which the last commit record rests on",
                names.meta(partition)
            )));
        }
        (None, Some(_)) => {
            return Err(stop(format!(
                "ledger {} has no commit record of partition {partition}, but the state bucket has its state",
                names.ledger
            )));
        }
        (Some(last), Some(meta)) => (last, meta),
    };
    if meta.ledger_created != context.ledger_created {
        return Err(stop(format!(
            "the state bucket belongs to an earlier ledger {ledger} (if this is that ledger, restored from a backup, stop \
             all hosts and run: weir adopt {ledger})",
            ledger = names.ledger
        )));
    }
    let (stored, record) = last;
    match meta
        .is_of(&*context.log, names, partition, (stored, record))
        .await
    {
        Ok(()) => {}
        Err(Doubt::Log(error)) => return Err(error.into()),
        Err(error @ Doubt::Record(_)) => return Err(Failure::Stopped(error.to_string())),
        Err(error @ Doubt::Gone(_)) => return Err(Failure::Unavailable(error.to_string())),
        Err(error @ (Doubt::Lost { .. } | Doubt::Other { .. })) => return Err(stop(error.to_string())),
    }
    Ok(Some(meta))
}

/// The watermark that a new owner goes by: that of the last record, unless the
/// bucket lost what it stands for (a lost tail, an older copy of the bucket). Then
/// it is as far as the bucket says it is complete, and everything after that is
/// replayed; where it is purged already, the replay finds a gap and says so.
fn believable(
    context: &HandlerContext,
    partition: u32,
    before: Option<&Record>,
    stored: Option<&Stored>,
    meta: Option<&Meta>,
) -> Option<Watermark> {
    let recorded = before.and_then(|before| before.watermark)?;
    let checkpointed = meta.and_then(|meta| meta.checkpointed);
    if checkpointed.is_some_and(|mark| mark.record >= recorded.record) {
        return Some(recorded);
    }
    warn!(
        handler = context.manifest.name,
        partition,
        recorded = recorded.record,
        checkpointed = checkpointed.map_or(0, |mark| mark.record),
        "the state bucket has lost acknowledged checkpoints; replaying their commits"
    );
    checkpointed.zip(stored).map(|(mark, stored)| Watermark {
        record: mark.record,
        nonce: mark.nonce,
        bucket: stored.sequence,
    })
}

/// What may not change in place: it would send keys to other partitions.
fn same_shape(context: &HandlerContext, before: &Record) -> Result<(), Failure> {
    let manifest = &context.manifest;
    if before.kind == Kind::Tombstone {
        return Err(Failure::Stopped(format!("handler {} was removed", manifest.name)));
    }
    if before.partitions != manifest.partitions {
        return Err(Failure::Stopped(format!(
            "handler {} has {} partitions in this ledger, its manifest says {}: set `partitions` back, or deploy \
             under a new name",
            manifest.name, before.partitions, manifest.partitions
        )));
    }
    let rule = manifest.key.describe();
    if before.key_rule != rule {
        return Err(Failure::Stopped(format!(
            "handler {} has its key from `{}` in this ledger, its manifest says `{rule}`: set `[key]` back, or \
             deploy under a new name",
            manifest.name, before.key_rule
        )));
    }
    Ok(())
}

/// Appends the takeover record. Returns its sequence.
async fn commit(context: &HandlerContext, partition: u32, record: &Record) -> Result<u64, Failure> {
    let attempt = context.committer.attempts().next();
    let mut message = record.message(context.names.record(partition));
    message.headers.push((ATTEMPT_HEADER.into(), attempt.clone()));
    let subject = message.subject.clone();
    match context.log.append(&context.names.ledger, vec![message]).await {
        Ok(appended) => Ok(appended.sequence),
        Err(AppendError::Unknown(reason)) => match context.log.last(&context.names.ledger, &subject).await? {
            Some(last) if last.header(ATTEMPT_HEADER) == Some(&attempt) => Ok(last.sequence),
            _ => Err(Failure::Unavailable(reason)),
        },
        Err(error) => Err(refused(&context.names.ledger, error)),
    }
}

/// Why nothing can be committed, and what to do about it (rule 19).
pub fn takes_nothing(stream: &str, reason: &str) -> String {
    format!(
        "{stream} takes no commit: {reason}; free space, unseal it or restore its settings (see `weir check`), and \
         the partition goes on by itself"
    )
}

fn refused(stream: &str, error: AppendError) -> Failure {
    match error {
        // Somebody committed since we looked; looking again tells who.
        AppendError::Fenced(_) | AppendError::Busy { .. } | AppendError::Unknown(_) => {
            Failure::Unavailable(error.to_string())
        }
        AppendError::TooLarge(_) | AppendError::Refused { .. } => {
            Failure::Stopped(takes_nothing(stream, &error.to_string()))
        }
    }
}

/// Rewrites meta. Returns its sequence, and what is checkpointed.
async fn fence_checkpoints(
    context: &HandlerContext,
    partition: u32,
    mut stored: Option<Stored>,
    mut meta: Option<Meta>,
    newest: Mark,
    record: &Record,
) -> Result<(u64, Option<Mark>), Failure> {
    let bucket = bucket_stream(&context.names.ledger);
    let subject = context.names.meta(partition);
    for _ in 0..META_TRIES_MAX {
        if meta.as_ref().is_some_and(|m| m.newest.record > newest.record) {
            return Err(Failure::Unavailable(
                "another host took the partition over at the same time".into(),
            ));
        }
        let checkpointed = meta.as_ref().and_then(|m| m.checkpointed);
        let next = Meta {
            ledger_created: context.ledger_created,
            checkpointed,
            newest,
            positions: meta.map_or_else(|| Meta::positions(&record.positions), |m| m.positions),
        };
        let attempt = context.committer.attempts().next();
        let message = next.append(
            subject.clone(),
            stored.as_ref().map_or(0, |s| s.sequence),
            &attempt,
        );
        match context.log.append(&bucket, vec![message]).await {
            Ok(appended) => return Ok((appended.sequence, checkpointed)),
            Err(AppendError::Fenced(_) | AppendError::Busy { .. } | AppendError::Unknown(_)) => {}
            Err(error) => return Err(refused(&bucket, error)),
        }
        stored = context.log.last(&bucket, &subject).await?;
        if let Some(there) = stored
            .as_ref()
            .filter(|s| s.header(ATTEMPT_HEADER) == Some(&attempt))
        {
            return Ok((there.sequence, checkpointed));
        }
        meta = stored
            .as_ref()
            .map(Meta::decode)
            .transpose()
            .map_err(|e| Failure::Stopped(e.to_string()))?;
    }
    Err(Failure::Unavailable(format!(
        "{subject} is being rewritten all the time"
    )))
}
