//! The lanes of a feed: where each one is, and whether that is in the stream.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::decode::Queued;
use super::feed::Chunk;
use super::identity::{self, Unsound};
use crate::log::{Error, Log, StreamState};
use crate::model::position::Position;

/// Partitions that a reason names; it counts the rest.
const NAMED_PARTITIONS: usize = 8;

/// By partition.
pub(super) struct Lanes(BTreeMap<u32, Lane>);

struct Lane {
    chunks: mpsc::Sender<Chunk>,
    /// Of its last request.
    epoch: u64,
    /// It has, or was handed, everything up to here; `None` until it asks.
    at: Option<Position>,
    verdict: Verdict,
}

/// What is known of a lane's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Unchecked,
    /// In the stream that is being read.
    Sound,
    Unsound(Unsound),
}

impl Lane {
    /// Where it is, if its position is in the stream.
    fn sound(&self) -> Option<Position> {
        self.at.filter(|_| self.verdict == Verdict::Sound)
    }

    fn is_stopped(&self) -> bool {
        self.at.is_some() && matches!(self.verdict, Verdict::Unsound(_))
    }
}

impl Lanes {
    pub fn new(lanes: BTreeMap<u32, mpsc::Sender<Chunk>>) -> Lanes {
        let lane = |chunks| Lane {
            chunks,
            epoch: 0,
            at: None,
            verdict: Verdict::Unchecked,
        };
        Lanes(lanes.into_iter().map(|(p, chunks)| (p, lane(chunks))).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ask(&mut self, partition: u32, epoch: u64, position: Position) {
        if let Some(lane) = self.0.get_mut(&partition) {
            lane.epoch = epoch;
            lane.at = Some(position);
            lane.verdict = Verdict::Unchecked;
        }
    }

    pub fn leave(&mut self, partition: u32) {
        if let Some(lane) = self.0.get_mut(&partition) {
            lane.at = None;
            lane.verdict = Verdict::Unchecked;
        }
    }

    pub fn any_asks(&self) -> bool {
        self.0.values().any(|lane| lane.at.is_some())
    }

    pub fn any_is_stopped(&self) -> bool {
        self.0.values().any(Lane::is_stopped)
    }

    /// The lowest position of those that are not known to be elsewhere.
    pub fn lowest_wanted(&self) -> Option<Position> {
        lowest(
            self.0
                .values()
                .filter(|lane| !lane.is_stopped())
                .filter_map(|lane| lane.at),
        )
    }

    /// The lowest position of those in the stream.
    pub fn lowest_sound(&self) -> Option<Position> {
        lowest(self.0.values().filter_map(Lane::sound))
    }

    /// PROTOCOL rule 6, for the lanes of which `which` says so: are their positions
    /// in the stream?
    pub async fn check(
        &mut self,
        log: &dyn Log,
        stream: &str,
        which: impl Fn(Verdict) -> bool,
    ) -> Result<StreamState, Error> {
        let asked = self.0.values().filter(|lane| which(lane.verdict));
        let positions: Vec<Position> = asked.filter_map(|lane| lane.at).collect();
        let checked = identity::check(log, stream, positions).await?;
        for lane in self.0.values_mut().filter(|lane| which(lane.verdict)) {
            let Some(at) = lane.at else { continue };
            lane.verdict = match checked.unsound.get(&at) {
                Some(why) => Verdict::Unsound(*why),
                None => Verdict::Sound,
            };
        }
        Ok(checked.state)
    }

    /// Last requests of those whose positions are in the stream.
    pub fn epochs(&self) -> BTreeMap<u32, u64> {
        let sound = self.0.iter().filter(|(_, lane)| lane.sound().is_some());
        sound.map(|(partition, lane)| (*partition, lane.epoch)).collect()
    }

    /// Why lanes are stopped, a sentence for each reason.
    pub fn reasons(&self, state: &StreamState) -> Vec<String> {
        let mut stopped: BTreeMap<Unsound, (Vec<u32>, u64)> = BTreeMap::new();
        let mut asking = 0;
        for (partition, lane) in &self.0 {
            let Some(at) = lane.at else { continue };
            asking += 1;
            if let Verdict::Unsound(why) = lane.verdict {
                let (partitions, highest) = stopped.entry(why).or_default();
                partitions.push(*partition);
                *highest = at.sequence.max(*highest);
            }
        }
        let sentence = |(why, (partitions, highest)): (Unsound, (Vec<u32>, u64))| {
            let what = why.describe(state, highest);
            let whose = match partitions.len() == asking {
                true => String::new(),
                false => format!(" ({})", name(&partitions)),
            };
            let restored = match why {
                Unsound::CreatedAgain => format!(
                    "if it is that stream, restored from a backup, run: weir adopt {}; else ",
                    state.name
                ),
                _ => String::new(),
            };
            format!(
                "{what}{whose}: {restored}start the handler under a new name to read it from its beginning"
            )
        };
        stopped.into_iter().map(sentence).collect()
    }

    /// Whether the lane of `partition` is to be handed the event at `sequence`.
    pub fn needs(&self, partition: u32, sequence: u64) -> bool {
        let lane = self.0.get(&partition).and_then(Lane::sound);
        lane.is_some_and(|at| sequence > at.sequence)
    }

    /// Hands out events, and waits where a lane has no room. Lanes that have ended
    /// are forgotten.
    pub async fn send(&mut self, source: u16, events: BTreeMap<u32, Vec<Queued>>) {
        for (partition, events) in events {
            let Some(lane) = self.0.get(&partition) else {
                continue;
            };
            let chunk = Chunk {
                source,
                epoch: lane.epoch,
                events,
            };
            if lane.chunks.send(chunk).await.is_err() {
                self.0.remove(&partition);
            }
        }
    }

    /// Everything up to `at` was handed out.
    pub fn handed(&mut self, at: Position) {
        for lane in self.0.values_mut() {
            if lane.sound().is_some_and(|before| before.sequence < at.sequence) {
                lane.at = Some(at);
            }
        }
    }
}

/// The position from which a reader serves all; of equal ones, one whose stored
/// time is known.
fn lowest(positions: impl Iterator<Item = Position>) -> Option<Position> {
    positions.min_by_key(|position| (position.sequence, position.stored == 0))
}

/// Partitions as a reason names them.
fn name(partitions: &[u32]) -> String {
    let named = partitions.iter().take(NAMED_PARTITIONS).map(u32::to_string);
    let named: Vec<String> = named.collect();
    let more = match partitions.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("only partition {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_some_partitions() {
        assert_eq!(name(&[3]), "only partition 3");
        let many: Vec<u32> = (0..12).collect();
        assert_eq!(name(&many), "only partition 0, 1, 2, 3, 4, 5, 6, 7 and 4 more");
    }
}
