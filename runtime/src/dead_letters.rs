//! Lists, shows, redrives and drops dead letters, over the log alone: no host
//! needs to run.
//!
//! Redriving is one atomic batch (PROTOCOL rule 16): the event on the internal
//! subject that its partition reads, and tombstones on the dead letter's two
//! subjects. The description's tombstone expects the sequence that was read, so
//! that of two people who redrive the same one, one is refused; and as it is the
//! last message of its subject that counts, a letter that failed again
//! since is never taken for the old one. Tombstones go by themselves (TTL).

use bytes::Bytes;

use crate::effects::dead_letter::{Body, DeadLetter, encode_redriven};
use crate::log::{self, Append, AppendError, Log, Stored};
use crate::model::limits::BATCH_HEADER_BYTES;
use crate::model::subjects::HandlerNames;

/// Descriptions asked for at once. A scan is used rather than one direct get of
/// all subjects, because that answers at most 1,024.
const PAGE: usize = 256;

/// Life of a tombstone in seconds: the least that the server takes.
const TOMBSTONE_TTL_S: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(
        "there is no dead letter {id} of handler {handler}; `weir dead-letters list {handler}` shows those there are"
    )]
    NotFound { id: String, handler: String },
    #[error("dead letter {id} does not read as one: {error}")]
    Malformed { id: String, error: serde_json::Error },
    #[error(
        "{id} has no key ({reason}), and the handler's key cannot be changed: it would be refused again; publish it \
         anew with a key, and drop it"
    )]
    NoKey { id: String, reason: String },
    #[error("the payload of {id} is gone from the dead letter; drop it")]
    PayloadGone { id: String },
    #[error(
        "the payload of {id} was too large to keep, and message {sequence} of stream {stream} is gone: \
         it cannot be redriven; drop it"
    )]
    SourceGone {
        id: String,
        stream: String,
        sequence: u64,
    },
    #[error(
        "{id} takes {bytes} bytes with its description, and the server takes messages of {max}: \
         raise max_payload in the server's configuration, or drop it"
    )]
    TooLarge { id: String, bytes: usize, max: usize },
    #[error("somebody else redrove or dropped {id} at this moment; list again")]
    Changed { id: String },
    #[error("{id}: whether it was done is not known ({detail}); list again")]
    Unknown { id: String, detail: String },
    #[error("{id} was not changed: {error}")]
    Append { id: String, error: AppendError },
}

/// A dead letter and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub letter: DeadLetter,
    /// Subject of its description.
    pub subject: String,
    /// Sequence of its description in the ledger.
    pub sequence: u64,
    /// When it was dead-lettered (Unix nanoseconds).
    pub stored: u64,
}

/// The dead letters of one handler.
#[derive(Clone, Copy)]
pub struct DeadLetters<'a> {
    log: &'a dyn Log,
    names: &'a HandlerNames,
}

impl<'a> DeadLetters<'a> {
    pub fn new(log: &'a dyn Log, names: &'a HandlerNames) -> Self {
        DeadLetters { log, names }
    }

    /// All of them, oldest first. May lag by a moment behind the leader.
    ///
    /// # Errors
    /// Of the log, or a letter that cannot be read.
    pub async fn list(&self) -> Result<Vec<Found>, Error> {
        let mut all: Vec<Found> = Vec::new();
        let mut from = 1;
        loop {
            let page = self
                .log
                .scan(&self.names.ledger, &self.names.dead_letters(), from, PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            from = last.sequence + 1;
            for message in page.into_iter().filter(|message| !message.data.is_empty()) {
                all.push(read(message)?);
            }
        }
        // An event may have failed again after it was redriven; the tombstone
        // of the first may have gone before the first was seen.
        let mut seen = std::collections::HashSet::new();
        all.reverse();
        all.retain(|found| seen.insert(found.subject.clone()));
        all.reverse();
        Ok(all)
    }

    /// The one with this event id, from the leader.
    ///
    /// # Errors
    /// [`Error::NotFound`], of the log, or a letter that cannot be read.
    pub async fn find(&self, id: &str) -> Result<Found, Error> {
        let not_found = || Error::NotFound {
            id: id.into(),
            handler: self.names.handler.clone(),
        };
        let filter = self.names.dead_letter_anywhere(id);
        let seen = self.log.scan(&self.names.ledger, &filter, 1, PAGE).await?;
        let subject = &seen.last().ok_or_else(not_found)?.subject;
        match self.log.last(&self.names.ledger, subject).await? {
            Some(message) if !message.data.is_empty() => read(message),
            _ => Err(not_found()),
        }
    }

    /// The original payload.
    ///
    /// # Errors
    /// It is gone, or of the log.
    pub async fn payload(&self, letter: &DeadLetter) -> Result<Bytes, Error> {
        match letter.body {
            Body::Message => {
                let subject = self.names.dead_letter_body(letter.partition, &letter.id);
                let message = self.log.last(&self.names.ledger, &subject).await?;
                let message = message.ok_or_else(|| Error::PayloadGone {
                    id: letter.id.clone(),
                })?;
                Ok(message.data)
            }
            Body::Reference => {
                let gone = || Error::SourceGone {
                    id: letter.id.clone(),
                    stream: letter.stream.clone(),
                    sequence: letter.sequence,
                };
                match self.log.get(&letter.stream, letter.sequence).await {
                    // Another time means another stream of that name.
                    Ok(Some(message)) if message.time == letter.time => Ok(message.data),
                    Ok(_) | Err(log::Error::NoStream(_)) => Err(gone()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Gives the event back to its handler, under its first id, and removes the
    /// dead letter.
    ///
    /// # Errors
    /// Nothing was changed, but for [`Error::Unknown`].
    pub async fn redrive(&self, found: &Found) -> Result<(), Error> {
        if found.letter.key.is_empty() {
            return Err(Error::NoKey {
                id: found.letter.id.clone(),
                reason: found.letter.reason.clone(),
            });
        }
        let payload = self.payload(&found.letter).await?;
        let subject = self.names.redriven(found.letter.partition);
        let data = encode_redriven(&found.letter, &payload);
        let bytes = data.len() + subject.len() + BATCH_HEADER_BYTES;
        if bytes > self.log.max_payload() {
            return Err(Error::TooLarge {
                id: found.letter.id.clone(),
                bytes,
                max: self.log.max_payload(),
            });
        }
        let event = Append {
            subject,
            data,
            ..Append::default()
        };
        self.remove(found, Some(event)).await
    }

    /// Removes the dead letter.
    ///
    /// # Errors
    /// Nothing was changed, but for [`Error::Unknown`].
    pub async fn forget(&self, found: &Found) -> Result<(), Error> {
        self.remove(found, None).await
    }

    async fn remove(&self, found: &Found, with: Option<Append>) -> Result<(), Error> {
        let tombstone = |subject: String, expected| Append {
            subject,
            expected,
            ttl_s: Some(TOMBSTONE_TTL_S),
            rollup: true,
            ..Append::default()
        };
        let letter = &found.letter;
        let mut batch: Vec<Append> = with.into_iter().collect();
        if letter.body == Body::Message {
            let subject = self.names.dead_letter_body(letter.partition, &letter.id);
            batch.push(tombstone(subject, None));
        }
        batch.push(tombstone(found.subject.clone(), Some(found.sequence)));
        let id = letter.id.clone();
        match self.log.append(&self.names.ledger, batch).await {
            Ok(_) => Ok(()),
            Err(AppendError::Fenced(_)) => Err(Error::Changed { id }),
            Err(AppendError::Unknown(detail)) => Err(Error::Unknown { id, detail }),
            Err(error) => Err(Error::Append { id, error }),
        }
    }
}

fn read(message: Stored) -> Result<Found, Error> {
    let letter = serde_json::from_slice(&message.data).map_err(|error| Error::Malformed {
        id: message.subject.to_string(),
        error,
    })?;
    Ok(Found {
        letter,
        subject: message.subject.into(),
        sequence: message.sequence,
        stored: message.time,
    })
}

#[cfg(test)]
mod tests;
