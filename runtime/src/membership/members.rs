//! What was heard of the hosts of a ledger, and who is taken for alive. Pure: time
//! is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::beat::Beat;
use super::rendezvous::{hash, weight};

/// Silence after which a host is taken for dead: several beats.
pub const DEAD_AFTER: Duration = Duration::from_millis(1_500);

/// How long a newcomer must have been heard of before others leave partitions to it.
pub const JOIN_AFTER: Duration = Duration::from_millis(800);

/// Who is alive, and who holds what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Names and their hashes: those among which partitions are shared out.
    sharing: Vec<(Arc<str>, u64)>,
    /// Last beats of all that are alive, by name.
    alive: BTreeMap<Arc<str>, Holds>,
}

type Holds = Arc<BTreeMap<String, Vec<(u32, u32)>>>;

impl View {
    /// The host that is to own a partition; `None` if there is no host.
    pub fn owner(&self, handler: &str, partition: u32) -> Option<&Arc<str>> {
        let handler = hash(handler);
        let weights = self
            .sharing
            .iter()
            .map(|(name, host)| (weight(*host, handler, partition), name));
        weights.max().map(|(_, name)| name)
    }

    /// A host other than `me` that holds a partition.
    pub fn holder(&self, me: &str, handler: &str, partition: u32) -> Option<&Arc<str>> {
        let has = |holds: &Holds| {
            let ranges = holds.get(handler);
            ranges.is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&partition)))
        };
        let mut holders = self
            .alive
            .iter()
            .filter(|(name, holds)| &***name != me && has(holds));
        holders.next().map(|(name, _)| name)
    }

    /// Names of the hosts that share the partitions.
    pub fn sharing(&self) -> impl Iterator<Item = &str> {
        self.sharing.iter().map(|(name, _)| &**name)
    }
}

/// All hosts that were heard of.
#[derive(Debug)]
pub struct Members {
    me: Arc<str>,
    incarnation: String,
    heard: BTreeMap<Arc<str>, Heard>,
    /// When our own latest beat came back to us.
    own_at: Option<Instant>,
    leaving: bool,
}

#[derive(Debug)]
struct Heard {
    incarnation: String,
    number: u64,
    leaving: bool,
    holds: Holds,
    /// Counts for others from then on.
    counts_at: Instant,
    at: Instant,
}

impl Members {
    pub fn new(me: &str, incarnation: &str) -> Members {
        Members {
            me: me.into(),
            incarnation: incarnation.into(),
            heard: BTreeMap::new(),
            own_at: None,
            leaving: false,
        }
    }

    /// This host gives its partitions away.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// A beat that was in the bucket before we were there: of a host that may be alive,
    /// and is no newcomer.
    pub fn found(&mut self, beat: Beat, now: Instant) {
        self.note(beat, now, now);
    }

    /// A beat that came in at `now`.
    pub fn heard(&mut self, beat: Beat, now: Instant) {
        if *beat.host == *self.me {
            if beat.incarnation == self.incarnation {
                self.own_at = Some(now);
            }
            return;
        }
        self.note(beat, now, now + JOIN_AFTER);
    }

    fn note(&mut self, beat: Beat, now: Instant, counts_at: Instant) {
        if *beat.host == *self.me {
            return;
        }
        let name: Arc<str> = beat.host.as_str().into();
        let before = self.heard.get(&name);
        let same = before.filter(|heard| heard.incarnation == beat.incarnation);
        if same.is_some_and(|heard| heard.number >= beat.number) {
            return; // read again after the reader was made anew
        }
        let counts_at = same.map_or(counts_at, |heard| heard.counts_at);
        let heard = Heard {
            incarnation: beat.incarnation,
            number: beat.number,
            leaving: beat.leaving,
            holds: Arc::new(beat.holds),
            counts_at,
            at: now,
        };
        self.heard.insert(name, heard);
    }

    /// A host has said that it is gone, or was seen to have ended.
    pub fn gone(&mut self, host: &str) {
        self.heard.remove(host);
    }

    /// Who is alive now.
    pub fn view(&mut self, now: Instant) -> View {
        // Silence counts only while we hear ourselves.
        let hears = self
            .own_at
            .is_some_and(|own| now.duration_since(own) < DEAD_AFTER);
        if hears {
            self.heard
                .retain(|_, heard| now.duration_since(heard.at) < DEAD_AFTER);
        }
        let mut sharing: Vec<(Arc<str>, u64)> = self
            .heard
            .iter()
            .filter(|(_, heard)| !heard.leaving && heard.counts_at <= now)
            .map(|(name, _)| (name.clone(), hash(name)))
            .collect();
        if !self.leaving {
            sharing.push((self.me.clone(), hash(&self.me)));
        }
        sharing.sort();
        View {
            sharing,
            alive: self
                .heard
                .iter()
                .map(|(name, heard)| (name.clone(), heard.holds.clone()))
                .collect(),
        }
    }

    /// When the view may change by time alone; `None` if it may not.
    pub fn changes_at(&self, now: Instant) -> Option<Instant> {
        let deaths = self.heard.values().map(|heard| heard.at + DEAD_AFTER);
        let joins = self.heard.values().map(|heard| heard.counts_at);
        deaths.chain(joins).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(host: &str, number: u64) -> Beat {
        Beat {
            host: host.into(),
            incarnation: format!("of {host}"),
            number,
            ..Beat::default()
        }
    }

    fn names(view: &View) -> Vec<&str> {
        view.sharing().collect()
    }

    #[test]
    fn a_newcomer_counts_after_a_while_and_a_silent_host_no_more() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut members = Members::new("me", "mine");
        assert_eq!(names(&members.view(start)), ["me"]);
        let own = |number| Beat {
            incarnation: "mine".into(),
            ..beat("me", number)
        };
        members.heard(own(1), at(0));
        members.heard(beat("new", 1), at(0));
        assert_eq!(names(&members.view(at(10))), ["me"]);
        assert_eq!(members.changes_at(at(10)), Some(at(0) + JOIN_AFTER));
        members.heard(beat("new", 2), at(900));
        members.heard(own(2), at(900));
        assert_eq!(names(&members.view(at(900))), ["me", "new"]);
        members.heard(own(3), at(2_300));
        assert_eq!(names(&members.view(at(2_399))), ["me", "new"]);
        assert_eq!(names(&members.view(at(2_400))), ["me"]);
    }

    /// The bucket is away: nobody is heard, and nobody is dead.
    #[test]
    fn silence_in_which_we_do_not_hear_ourselves_is_no_death() {
        let start = Instant::now();
        let mut members = Members::new("me", "mine");
        members.found(beat("other", 1), start);
        let later = start + DEAD_AFTER * 10;
        assert_eq!(names(&members.view(later)), ["me", "other"]);
    }

    #[test]
    fn who_leaves_shares_no_more_but_holds_what_it_holds() {
        let now = Instant::now();
        let mut members = Members::new("me", "mine");
        let mut leaving = beat("other", 1);
        leaving.leaving = true;
        leaving.holds.insert("h".into(), vec![(2, 4)]);
        members.found(leaving.clone(), now);
        let view = members.view(now);
        assert_eq!(view.owner("h", 3).map(|name| &**name), Some("me"));
        assert_eq!(view.holder("me", "h", 3).map(|name| &**name), Some("other"));
        assert_eq!(view.holder("me", "h", 5), None);
        leaving.number = 2;
        leaving.holds.clear();
        members.heard(leaving, now);
        assert_eq!(members.view(now).holder("me", "h", 3), None);
        members.leave();
        assert_eq!(members.view(now).owner("h", 3), None);
    }

    #[test]
    fn beats_that_are_read_again_are_no_sign_of_life() {
        let start = Instant::now();
        let mut members = Members::new("me", "mine");
        members.found(beat("other", 7), start);
        let later = start + DEAD_AFTER;
        members.heard(beat("other", 7), later);
        let own = Beat {
            incarnation: "mine".into(),
            ..beat("me", 1)
        };
        members.heard(own, later);
        assert_eq!(names(&members.view(later)), ["me"]);
    }
}
