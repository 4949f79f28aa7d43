//! Reads the events that a partition's record lists as parked from their sources again.

use tracing::error;

use super::context::HandlerContext;
use super::tenure::Failure;
use crate::commit::record::ParkedEvent;
use crate::log;
use crate::model::event::Event;
use crate::model::position::INTERNAL_SOURCE;
use crate::source::decode::{Decoded, Queued};

/// The parked events, in the order of the record. One that its source does not have any
/// more is refused, which makes a dead letter of it.
///
/// # Errors
/// A source cannot be read now.
pub async fn read(
    context: &HandlerContext,
    partition: u32,
    parked: &[ParkedEvent],
) -> Result<Vec<Queued>, Failure> {
    let decoders = context.decoders();
    let names: Vec<&str> = context.source_names().collect();
    let mut events = Vec::with_capacity(parked.len());
    for at in parked {
        let Some(source) = names.iter().position(|name| *name == at.source) else {
            return Err(Failure::Stopped(format!(
                "event {} of source {} waits for a lock, and the deployed handler has no such source: deploy one \
                 that has",
                at.offset, at.source
            )));
        };
        let stream = match names[source] {
            INTERNAL_SOURCE => &context.names.ledger,
            stream => stream,
        };
        let stored = match context.log.get(stream, at.offset).await {
            Err(log::Error::NoStream(_)) => None,
            stored => stored?,
        };
        match stored.map(|stored| decoders[source].decode(stored)) {
            Some(Decoded::Event(of, queued)) if of == partition => events.push(queued),
            _ => {
                error!(
                    handler = context.manifest.name,
                    partition,
                    stream,
                    sequence = at.offset,
                    "an event that waited for a lock is gone from its source before it was handled"
                );
                events.push(gone(stream, source, at.offset));
            }
        }
    }
    Ok(events)
}

/// An event of which nothing is left but where it was.
fn gone(stream: &str, source: usize, offset: u64) -> Queued {
    let event = Event {
        source: source as u16,
        stream: stream.into(),
        sequence: offset,
        offset,
        subject: "".into(),
        key: "".into(),
        time: 0,
        timer: None,
        headers: Vec::new(),
        data: bytes::Bytes::new(),
    };
    Queued {
        stored: 0,
        refused: Some("it waited for a lock, and its source does not have it any more".into()),
        id: None,
        attempts: 0,
        bytes: event.size(),
        event,
    }
}
