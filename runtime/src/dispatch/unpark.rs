//! Reads the events that a partition's record lists as parked from their sources again.

use std::collections::BTreeMap;

use tracing::error;

use super::context::HandlerContext;
use super::tenure::Failure;
use crate::commit::record::Record;
use crate::log;
use crate::model::event::Event;
use crate::model::position::{INTERNAL_SOURCE, Position};
use crate::source::decode::{Decoded, Queued};
use crate::source::identity;

/// The events that `record` lists as parked, in its order. One that its source does not have
/// any more is refused, which makes a dead letter of it.
///
/// # Errors
/// A source cannot be read now.
pub async fn read(context: &HandlerContext, partition: u32, record: &Record) -> Result<Vec<Queued>, Failure> {
    let parked = record.parked.as_deref().unwrap_or_default();
    let decoders = context.decoders();
    let names: Vec<&str> = context.source_names().collect();
    let mut is_sound: BTreeMap<&str, bool> = BTreeMap::new();
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
        let sound = match is_sound.get(stream) {
            Some(sound) => *sound,
            None => {
                let sound = is_the_same(context, stream, record.positions[names[source]]).await?;
                is_sound.insert(stream, sound);
                sound
            }
        };
        let stored = match sound {
            true => context.log.get(stream, at.offset).await?,
            false => None,
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

/// Whether a stream is still the one that was read up to `position` (PROTOCOL rule 6): in
/// another one, something else stands where the event was.
async fn is_the_same(context: &HandlerContext, stream: &str, position: Position) -> Result<bool, Failure> {
    match identity::check(&*context.log, stream, [position]).await {
        Ok(checked) => Ok(checked.unsound.is_empty()),
        Err(log::Error::NoStream(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
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
        quiet: false,
        attempts: 0,
        bytes: event.size(),
        event,
    }
}
