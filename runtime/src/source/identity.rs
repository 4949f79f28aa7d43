//! Is a source still the stream that positions were taken in (PROTOCOL rule 6)?
//!
//! Each position is checked for itself: partitions commit one by one, so their
//! positions may be in different streams of one name, or on different sides of a
//! tail that was lost. For the same reason one sound position proves nothing of
//! an earlier one.
//!
//! 1. Another created time: the stream was deleted and created again.
//! 2. The stream ends before the position: its tail was lost, or it was restored
//!    from an older copy.
//! 3. Another stored time at the position's sequence: the same, and more was
//!    stored since.
//!
//! A message that is gone from its stream, and a position whose stored time is
//! not known, say nothing against each other.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use crate::log::{Error, Log, StreamState};
use crate::model::position::Position;

/// Messages that are asked for at the same time. There is one question per
/// distinct position, so at most one per partition: at a start; afterwards the
/// partitions are where the reader is.
const READS_AT_ONCE: usize = 32;

/// Why a position is not one in the stream of today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsound {
    CreatedAgain,
    Ends,
    OtherMessage,
}

impl Unsound {
    /// What is wrong with a stream that stands so, and was read up to `sequence`.
    pub fn describe(self, state: &StreamState, sequence: u64) -> String {
        let stream = &state.name;
        match self {
            Unsound::CreatedAgain => {
                format!("stream {stream} was deleted and created again since it was read")
            }
            Unsound::Ends => format!(
                "stream {stream} ends at sequence {}, but was read up to {sequence}: it was restored from an \
                 older copy or lost its tail",
                state.last
            ),
            Unsound::OtherMessage => format!(
                "stream {stream} has another message at sequence {sequence} than the one read: it was restored \
                 from an older copy or lost its tail, and has been written to since"
            ),
        }
    }
}

/// The stream, and those of the positions that are not in it.
#[derive(Debug)]
pub struct Checked {
    pub state: StreamState,
    pub unsound: BTreeMap<Position, Unsound>,
    /// Positions at which the stream has the very message that was read.
    pub seen: usize,
}

/// Checks `positions` against the stream as its leader has it now.
///
/// # Errors
/// The stream is gone, or cannot be asked now.
pub async fn check(
    log: &dyn Log,
    stream: &str,
    positions: impl IntoIterator<Item = Position>,
) -> Result<Checked, Error> {
    let state = log.stream(stream).await?;
    let mut unsound = BTreeMap::new();
    let mut to_read = BTreeSet::new();
    for position in positions {
        match without_reading(&position, &state) {
            Some(Err(why)) => drop(unsound.insert(position, why)),
            Some(Ok(())) => {}
            None => drop(to_read.insert(position)),
        }
    }
    let reads = to_read.into_iter().map(|position| async move {
        let there = log.get(stream, position.sequence).await?;
        let same = there.map(|message| message.time == position.stored);
        Ok::<_, Error>((position, same))
    });
    let read: Vec<_> = stream::iter(reads)
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let others = read.iter().filter(|(_, same)| *same == Some(false));
    unsound.extend(others.map(|(position, _)| (*position, Unsound::OtherMessage)));
    Ok(Checked {
        state,
        unsound,
        seen: read.iter().filter(|(_, same)| *same == Some(true)).count(),
    })
}

/// What can be said of a position without its message; `None` if that has to be read.
fn without_reading(position: &Position, state: &StreamState) -> Option<Result<(), Unsound>> {
    if position.created == 0 {
        return Some(Ok(())); // in no stream yet
    }
    if position.created != state.created {
        return Some(Err(Unsound::CreatedAgain));
    }
    if position.sequence > state.last {
        return Some(Err(Unsound::Ends));
    }
    (position.stored == 0 || position.sequence < state.first).then_some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::ledger::ledger_settings;
    use crate::log::Append;
    use crate::log::memory::MemoryLog;

    async fn append(log: &MemoryLog) -> Position {
        log.advance(1_000);
        let message = Append {
            subject: "s.a".into(),
            ..Append::default()
        };
        let sequence = log.append("S", vec![message]).await.expect("taken").sequence;
        Position {
            created: log.stream("S").await.expect("there").created,
            sequence,
            stored: log.now(),
        }
    }

    #[tokio::test]
    async fn each_position_is_judged_by_itself() {
        let log = MemoryLog::new();
        let settings = ledger_settings(&config::Ledger {
            name: "S".into(),
            subjects: vec!["s.>".into()],
            replicas: 1,
            event_ttl: None,
        });
        log.create_stream("S", &settings).await.expect("created");
        let (first, second, third) = (append(&log).await, append(&log).await, append(&log).await);
        log.lose_tail("S", 1);
        let refilled = append(&log).await;
        let unknown = Position { stored: 0, ..second };
        let nowhere = Position::default();
        let earlier = Position {
            created: first.created - 1,
            ..first
        };
        let positions = [first, second, third, refilled, unknown, nowhere, earlier];
        let checked = check(&log, "S", positions).await.expect("readable");
        let expected = [
            (second, Unsound::OtherMessage),
            (third, Unsound::Ends),
            (earlier, Unsound::CreatedAgain),
        ];
        assert_eq!(checked.unsound, BTreeMap::from(expected));
        assert_eq!(checked.seen, 2, "the first one, and what was stored again");

        log.purge("S", ">", 3).await.expect("purged");
        let checked = check(&log, "S", [second]).await.expect("readable");
        assert_eq!(
            checked.unsound,
            BTreeMap::new(),
            "a message that is gone says nothing"
        );
    }
}
