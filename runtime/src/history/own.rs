//! What the ledger itself still knows of a key's past, beside its sources.
//!
//! Timers that fired, redriven dead letters and what operators said are messages of the ledger, and are removed together
//! with old records (`dispatch/term/upkeep`). As long as the first record of the partition is there, so are they.

use std::collections::{BTreeMap, BTreeSet};

use crate::commit::record::Record;
use crate::dead_letters::DeadLetters;
use crate::log::Log;
use crate::model::subjects::HandlerNames;
use crate::source::decode::{Decoded, Decoder};

/// Messages read with one request.
const PAGE: usize = 256;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Sequence of the partition's first record; `None`: it is gone, and with it what went before.
    pub first: Option<u64>,
    /// Ids of events that are known to have failed for good when they came to their turn: those of dead
    /// letters that are there, or were redriven.
    pub failed: BTreeSet<String>,
    /// Offsets of redriven events that are known to have failed once more.
    pub failed_again: BTreeSet<u64>,
    /// When messages of the key were stored that are redriven events or what operators said.
    pub said: Vec<u64>,
}

impl Own {
    /// What there is of a key. `decoder` is that of the handler's internal source.
    ///
    /// # Errors
    /// Of the log; a record or a dead letter cannot be read.
    pub async fn read(
        log: &dyn Log,
        names: &HandlerNames,
        partition: u32,
        key: &str,
        decoder: &Decoder,
    ) -> anyhow::Result<Own> {
        let mut own = Own::default();
        let mut records = log.scan(&names.ledger, &names.record(partition), 1, 1).await?;
        if let Some(stored) = records.pop() {
            let is_first = Record::decode(&stored)?.previous == 0;
            own.first = is_first.then_some(stored.sequence);
        }
        // By id, those that are there now, and the last time that each was redriven.
        let (mut letters, mut redriven) = (BTreeMap::new(), BTreeMap::new());
        for found in DeadLetters::new(log, names).list().await? {
            if found.letter.key == key {
                letters.insert(found.letter.id.clone(), found.sequence);
                own.failed.insert(found.letter.id);
            }
        }
        let mut from = 1;
        loop {
            let page = log
                .scan(&names.ledger, &names.redriven(partition), from, PAGE)
                .await?;
            let Some(last) = page.last() else {
                let failed_once_more = redriven
                    .into_iter()
                    .filter(|(id, offset)| letters.get(id).is_some_and(|letter| letter > offset));
                own.failed_again
                    .extend(failed_once_more.map(|(_, offset)| offset));
                return Ok(own);
            };
            from = last.sequence + 1;
            for stored in page {
                let Decoded::Event(_, queued) = decoder.decode(stored) else {
                    continue;
                };
                if *queued.event.key == *key {
                    own.said.push(queued.stored);
                    let id = queued.event.id();
                    own.failed.insert(id.clone());
                    // Who is redriven once more has failed in between.
                    own.failed_again.extend(redriven.insert(id, queued.event.offset));
                }
            }
        }
    }

    /// Whether all that the ledger had of the partition's past is still there, asked of the leader.
    ///
    /// # Errors
    /// Of the log.
    pub async fn is_whole(&self, log: &dyn Log, names: &HandlerNames) -> anyhow::Result<bool> {
        Ok(match self.first {
            Some(first) => log.get(&names.ledger, first).await?.is_some(),
            None => false,
        })
    }
}
