//! Where an event comes from: the handler that emitted it, in which version and on
//! which host, what else that handler did at once, and the chain of causes back to
//! the first event.

use serde::Serialize;

use crate::commit::group::{BY_HEADER, CAUSE_HEADER};
use crate::commit::record::{self, Record};
use crate::deployment::registry::{self, Registered, Registry};
use crate::log::{self, Log, Stored};
use crate::model::limits::BATCH_MESSAGES_MAX;
use crate::model::subjects::HandlerNames;

/// Causes that are followed back: a loop between handlers has no end.
const CAUSES_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("there is no event {0}: it was removed, or never was")]
    Gone(String),
}

/// An event as its stream has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// `<stream>:<sequence>`.
    pub id: String,
    pub subject: String,
    /// Unix time in nanoseconds when it was stored.
    pub time: u64,
}

/// One step back: an event, and who emitted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    #[serde(flatten)]
    pub event: Event,
    /// `None` for an event that no handler emitted: where the chain begins.
    pub emitted: Option<Emitted>,
}

/// Who emitted an event, and because of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Emitted {
    pub handler: String,
    pub partition: u32,
    /// Of the deployment.
    pub revision: u64,
    /// Of the deployment, if the registry still has it.
    pub version: Option<String>,
    pub digest: Option<String>,
    /// Who committed it, if the record is still there.
    pub host: Option<String>,
    /// Sequence of the commit record.
    pub record: Option<u64>,
    /// The id of the event that was handled.
    pub cause: String,
}

/// All that is known of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The event, and its causes, the first cause last.
    pub chain: Vec<Step>,
    /// Why the chain does not go on, where it should.
    pub broken: Option<String>,
    /// What else was emitted because of the same cause, by the same handler.
    pub beside: Vec<Event>,
    /// Names of cells that its commit wrote, of the keys it had to do with, while the record is there.
    pub cells: Vec<String>,
}

/// Explains the event `id`, which is `<stream>:<sequence>`, on a ledger.
///
/// # Errors
/// There is no such event; of the log.
pub async fn explain(log: &dyn Log, ledger: &str, stream: &str, sequence: u64) -> Result<Explanation, Error> {
    let mut explanation = Explanation {
        chain: Vec::new(),
        broken: None,
        beside: Vec::new(),
        cells: Vec::new(),
    };
    let (mut stream, mut sequence) = (stream.to_owned(), sequence);
    while explanation.chain.len() < CAUSES_MAX {
        let id = format!("{stream}:{sequence}");
        let Some(stored) = log.get(&stream, sequence).await? else {
            if explanation.chain.is_empty() {
                return Err(Error::Gone(id));
            }
            explanation.broken = Some(format!("event {id} is no longer stored"));
            return Ok(explanation);
        };
        let emitted = match origin(&stored).filter(|_| stream == ledger) {
            Some(origin) => Some(emitted(log, ledger, &stored, origin).await?),
            None => None,
        };
        if let (true, Some((emitted, record))) = (explanation.chain.is_empty(), &emitted) {
            explanation.beside = beside(log, ledger, &stored, emitted).await?;
            explanation.cells = record.as_ref().map(cells).unwrap_or_default();
        }
        let emitted = emitted.map(|(emitted, _)| emitted);
        let cause = emitted.as_ref().map(|emitted| emitted.cause.clone());
        explanation.chain.push(Step {
            event: event(&stream, &stored),
            emitted,
        });
        let Some(cause) = cause else {
            return Ok(explanation);
        };
        match cause
            .rsplit_once(':')
            .map(|(stream, n)| (stream.to_owned(), n.parse()))
        {
            Some((of, Ok(n))) => (stream, sequence) = (of, n),
            _ => {
                explanation.broken = Some(format!("its cause is {cause}, which is no event"));
                return Ok(explanation);
            }
        }
    }
    explanation.broken = Some(format!("more than {CAUSES_MAX} causes"));
    Ok(explanation)
}

fn event(stream: &str, stored: &Stored) -> Event {
    Event {
        id: format!("{stream}:{}", stored.sequence),
        subject: stored.subject.to_string(),
        time: stored.time,
    }
}

/// Handler, partition, revision and cause, from a message's headers.
fn origin(stored: &Stored) -> Option<(String, u32, u64, String)> {
    let mut by = stored.last_header(BY_HEADER)?.rsplitn(3, ':');
    let revision = by.next()?.parse().ok()?;
    let partition = by.next()?.parse().ok()?;
    let handler = by.next()?.to_owned();
    Some((
        handler,
        partition,
        revision,
        stored.last_header(CAUSE_HEADER)?.to_owned(),
    ))
}

async fn emitted(
    log: &dyn Log,
    ledger: &str,
    stored: &Stored,
    (handler, partition, revision, cause): (String, u32, u64, String),
) -> Result<(Emitted, Option<Record>), Error> {
    let history = Registry::of(log, ledger).history(&handler).await?;
    let deployment = history
        .iter()
        .find(|registered| registered.revision == revision)
        .map(|Registered { deployment, .. }| deployment);
    // The record of its commit is the first one of the partition after it.
    let record = match deployment {
        None => None,
        Some(deployment) => {
            let names = HandlerNames::new(ledger, &handler, deployment.generation);
            let mut found = log
                .scan(ledger, &names.record(partition), stored.sequence + 1, 1)
                .await?;
            let found = found.pop();
            found
                .map(|found| Record::decode(&found).map(|record| (found.sequence, record)))
                .transpose()?
                // A later one, where its own was purged.
                .filter(|(_, record)| record.previous < stored.sequence)
        }
    };
    let emitted = Emitted {
        version: deployment.map(|deployment| deployment.version.clone()),
        digest: deployment.map(|deployment| deployment.digest.clone()),
        host: record.as_ref().map(|(_, record)| record.host.clone()),
        record: record.as_ref().map(|(sequence, _)| *sequence),
        handler,
        partition,
        revision,
        cause,
    };
    Ok((emitted, record.map(|(_, record)| record)))
}

/// Other messages with the same cause, by the same handler: all in the batch around it.
async fn beside(
    log: &dyn Log,
    ledger: &str,
    stored: &Stored,
    emitted: &Emitted,
) -> Result<Vec<Event>, Error> {
    let around = BATCH_MESSAGES_MAX as u64;
    let from = stored.sequence.saturating_sub(around).max(1);
    let messages = log.scan(ledger, ">", from, 2 * BATCH_MESSAGES_MAX).await?;
    let same = |other: &&Stored| {
        other.sequence != stored.sequence
            && origin(other)
                .is_some_and(|(handler, _, _, cause)| handler == emitted.handler && cause == emitted.cause)
    };
    Ok(messages
        .iter()
        .filter(same)
        .map(|other| event(ledger, other))
        .collect())
}

fn cells(record: &Record) -> Vec<String> {
    let keys = record.keys.iter();
    keys.flat_map(|delta| {
        delta
            .cells
            .iter()
            .map(|cell| format!("{}/{}", delta.key, cell.cell))
    })
    .collect()
}
