//! A partition that another host owns: when to take it back.
//!
//! Until hosts know of each other, the owner's records tell: an owner whose
//! records have not moved for some seconds while there is work is taken for gone.
//! If it is not, it is fenced, and nothing is lost but time. Pure.

use std::time::{Duration, Instant};

use crate::model::position::Position;

/// How long an owner may sit still while there is work.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Added to it at random, so that two hosts on standby do not both try.
pub const JITTER: Duration = Duration::from_secs(2);

/// What is known of the owner.
#[derive(Debug)]
pub struct Standby {
    record: u64,
    /// Since when there is work that `record` does not cover.
    idle_since: Option<Instant>,
    patience: Duration,
    /// Per source: the owner's position, and the last event seen for the partition.
    sources: Vec<(Position, u64)>,
}

impl Standby {
    pub fn new(record: u64, positions: Vec<Position>, patience: Duration) -> Standby {
        Standby {
            record,
            idle_since: None,
            patience,
            sources: positions.into_iter().map(|p| (p, 0)).collect(),
        }
    }

    /// An event of the partition exists at `offset` of a source.
    pub fn saw(&mut self, source: u16, offset: u64) {
        let seen = &mut self.sources[usize::from(source)].1;
        *seen = offset.max(*seen);
    }

    /// The owner's last record, read at `now`. Returns whether it is time to take
    /// the partition back.
    pub fn observe(&mut self, record: u64, positions: &[Position], now: Instant) -> bool {
        for (source, position) in self.sources.iter_mut().zip(positions) {
            source.0 = *position;
        }
        let moved = std::mem::replace(&mut self.record, record) != record;
        let work = self
            .sources
            .iter()
            .any(|(position, seen)| *seen > position.sequence);
        if moved || !work {
            self.idle_since = None;
            return false;
        }
        now.duration_since(*self.idle_since.get_or_insert(now)) >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> Vec<Position> {
        vec![Position {
            sequence,
            ..Position::default()
        }]
    }

    #[test]
    fn an_owner_that_moves_keeps_its_partition() {
        let start = Instant::now();
        let mut standby = Standby::new(1, at(0), PATIENCE);
        standby.saw(0, 100);
        for n in 0..20 {
            assert!(!standby.observe(2 + n, &at(n), start + PATIENCE * n as u32));
        }
    }

    #[test]
    fn an_owner_without_work_keeps_it_too() {
        let start = Instant::now();
        let mut standby = Standby::new(1, at(7), PATIENCE);
        standby.saw(0, 7);
        assert!(!standby.observe(1, &at(7), start));
        assert!(!standby.observe(1, &at(7), start + PATIENCE * 10));
    }

    #[test]
    fn an_owner_that_sits_still_with_work_loses_it() {
        let start = Instant::now();
        let mut standby = Standby::new(1, at(7), PATIENCE);
        standby.saw(0, 8);
        assert!(!standby.observe(1, &at(7), start));
        assert!(!standby.observe(1, &at(7), start + PATIENCE / 2));
        assert!(standby.observe(1, &at(7), start + PATIENCE));
    }
}
