//! What goes wrong, to order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::AppendError;

/// What happens to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It is stored, if its fences hold, but nobody hears of it.
    LoseReply,
    /// It never arrives, and nobody hears of that either.
    LoseRequest,
    Busy,
    /// Refused as if a fence were stale.
    Fenced,
    Refused,
    TooLarge,
}

impl FaultKind {
    /// The error, if it strikes before anything is stored.
    pub(super) fn before(self) -> Option<AppendError> {
        let description = || "as ordered".to_owned();
        Some(match self {
            FaultKind::LoseReply => return None,
            FaultKind::LoseRequest => AppendError::Unknown("the request was lost, as ordered".into()),
            FaultKind::Busy => AppendError::Busy {
                code: 10176,
                description: description(),
            },
            FaultKind::Fenced => AppendError::Fenced(description()),
            FaultKind::Refused => AppendError::Refused {
                code: 10077,
                description: description(),
            },
            FaultKind::TooLarge => AppendError::TooLarge(description()),
        })
    }
}

/// Faults waiting to happen. Given from outside, taken by the log.
#[derive(Default)]
pub struct Faults {
    /// One entry per append to come.
    appends: Mutex<VecDeque<Option<FaultKind>>>,
    /// Reads that are still to be answered by a replica that lags, and by how many sequences.
    lagging: Mutex<(usize, u64)>,
    cut_off: AtomicBool,
    /// Appends so far.
    seen: AtomicU64,
}

impl Faults {
    /// The next append fails so, after those that were ordered already.
    pub fn fail_next_append(&self, fault: FaultKind) {
        self.appends().push_back(Some(fault));
    }

    /// Lets `appends` go through before whatever is ordered next.
    pub fn spare(&self, appends: usize) {
        self.appends().extend(std::iter::repeat_n(None, appends));
    }

    /// The next `reads` scans and [`super::super::Log::last_many`] do not see the last `behind` sequences.
    pub fn lag(&self, reads: usize, behind: u64) {
        *self.lagging.lock().unwrap_or_else(PoisonError::into_inner) = (reads, behind);
    }

    /// While cut off nothing reaches the log.
    pub fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::SeqCst);
    }

    /// Appends that reached the log, those that failed to order among them.
    pub fn appends_seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::SeqCst)
    }

    pub(super) fn next_append(&self) -> Option<FaultKind> {
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.appends().pop_front().flatten()
    }

    pub(super) fn behind(&self) -> u64 {
        let mut lagging = self.lagging.lock().unwrap_or_else(PoisonError::into_inner);
        if lagging.0 == 0 {
            return 0;
        }
        lagging.0 -= 1;
        lagging.1
    }

    fn appends(&self) -> std::sync::MutexGuard<'_, VecDeque<Option<FaultKind>>> {
        self.appends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
