//! In which order a partition took the events of its sources.
//!
//! Each commit record says how far the partition had read every source by then. So of two events, one that the
//! positions of an earlier record include came first, whatever the times at which they were stored: a host that
//! was down may have found a thousand of one source and a thousand of another. Within one group, and before the first
//! record that is left, nothing says more than those times.

use crate::commit::record::Record;
use crate::log::Log;
use crate::model::subjects::HandlerNames;

/// Records read with one request.
const PAGE: usize = 256;

/// How far each source was read, record by record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Of each source, its sequence after each record; never falling.
    ends: Vec<Vec<u64>>,
}

impl Turns {
    /// What the records of a partition say that are still in the ledger, for sources of these names.
    ///
    /// # Errors
    /// Of the log; a record cannot be read.
    pub async fn read(
        log: &dyn Log,
        names: &HandlerNames,
        partition: u32,
        sources: &[&str],
    ) -> anyhow::Result<Turns> {
        let mut turns = Turns {
            ends: vec![Vec::new(); sources.len()],
        };
        let (subject, mut from) = (names.record(partition), 1);
        loop {
            let page = log.scan(&names.ledger, &subject, from, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(turns);
            };
            from = last.sequence + 1;
            for stored in &page {
                turns.add(&Record::decode(stored)?, sources);
            }
        }
    }

    fn add(&mut self, record: &Record, sources: &[&str]) {
        for (ends, name) in self.ends.iter_mut().zip(sources) {
            let before = ends.last().copied().unwrap_or(0);
            let at = record
                .positions
                .get(*name)
                .map_or(0, |position| position.sequence);
            ends.push(at.max(before));
        }
    }

    /// The record with which an event of a source was committed, counted from the first that is left; after
    /// the last for one that is not yet.
    pub fn of(&self, source: usize, offset: u64) -> usize {
        let ends = self.ends.get(source);
        ends.map_or(0, |ends| ends.partition_point(|end| *end < offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_record_comes_first() {
        let turns = Turns {
            ends: vec![vec![10, 10, 30], vec![0, 5, 5]],
        };
        // Of source 0: 1 to 10 with the first record, 11 to 30 with the third. Of source 1: 1 to 5 with the second.
        for (source, offset, turn) in [
            (0, 1, 0),
            (0, 10, 0),
            (0, 11, 2),
            (0, 31, 3),
            (1, 1, 1),
            (1, 5, 1),
            (1, 6, 3),
        ] {
            assert_eq!(turns.of(source, offset), turn, "{source}:{offset}");
        }
        assert_eq!(Turns::default().of(0, 7), 0, "without records times decide");
    }
}
