//! Chooses which submissions travel in one atomic batch. Pure.
//!
//! A batch costs the server about 2.8 ms on R1 file storage whatever its size,
//! so as many partitions as fit share one. First come, first served: a large
//! submission in front is never passed by for ever.

use std::collections::VecDeque;

use crate::model::limits::BATCH_MESSAGES_MAX;

/// Bytes of one batch: the server holds a whole batch in memory while it is
/// staged, for every host at once.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What packing needs to know of a submission.
pub trait Sized {
    /// Messages, the record included.
    fn messages(&self) -> usize;
    fn bytes(&self) -> usize;
    /// Has to travel by itself, after a batch with others was not taken.
    fn alone(&self) -> bool;
}

/// Takes from the front of `waiting` what one batch holds: at least one
/// submission if there is any.
pub fn next_batch<T: Sized>(waiting: &mut VecDeque<T>) -> Vec<T> {
    let mut batch: Vec<T> = Vec::new();
    let (mut messages, mut bytes) = (0, 0);
    while let Some(next) = waiting.front() {
        let fits =
            messages + next.messages() <= BATCH_MESSAGES_MAX && bytes + next.bytes() <= BATCH_BYTES_MAX;
        if !batch.is_empty() && (!fits || next.alone()) {
            break;
        }
        messages += next.messages();
        bytes += next.bytes();
        let last = next.alone();
        batch.extend(waiting.pop_front());
        if last {
            break;
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(usize, usize, bool);
    impl Sized for Item {
        fn messages(&self) -> usize {
            self.0
        }
        fn bytes(&self) -> usize {
            self.1
        }
        fn alone(&self) -> bool {
            self.2
        }
    }

    fn packed(items: &[(usize, usize, bool)]) -> Vec<usize> {
        let mut waiting: VecDeque<Item> = items.iter().map(|i| Item(i.0, i.1, i.2)).collect();
        std::iter::from_fn(|| Some(next_batch(&mut waiting).len()).filter(|n| *n > 0)).collect()
    }

    #[test]
    fn batches_are_full_but_never_over() {
        assert_eq!(packed(&[]), Vec::<usize>::new());
        assert_eq!(packed(&[(500, 1, false), (500, 1, false), (1, 1, false)]), [2, 1]);
        assert_eq!(packed(&[(999, 1, false), (2, 1, false)]), [1, 1]);
        assert_eq!(packed(&[(1, BATCH_BYTES_MAX, false), (1, 1, false)]), [1, 1]);
    }

    #[test]
    fn what_is_over_every_limit_still_goes_by_itself() {
        assert_eq!(
            packed(&[(5_000, BATCH_BYTES_MAX * 2, false), (1, 1, false)]),
            [1, 1]
        );
    }

    #[test]
    fn one_that_must_travel_alone_does() {
        assert_eq!(
            packed(&[(1, 1, false), (1, 1, true), (1, 1, false), (1, 1, false)]),
            [1, 1, 2]
        );
    }
}
