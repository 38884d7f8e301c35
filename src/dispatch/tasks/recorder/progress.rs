//! The progress of writing, for the lines. Never here: writing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::run::LINGER;
use crate::domain::RowId;

/// The progress of writing. Cheap to clone.
#[derive(Clone, Default)]
pub struct WriteProgress(Arc<ProgressState>);

#[derive(Default)]
struct ProgressState {
    /// The smoothed time from the request of a claim to its answer, in microseconds.
    latency: AtomicU64,
    stalled: AtomicBool,
    /// Entries that wait to be written.
    waiting: AtomicUsize,
    /// Rows whose results wait for a lock.
    aside: Mutex<HashSet<RowId>>,
}

impl WriteProgress {
    /// Return the smoothed time from the request of a claim to its answer.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.0.latency.load(Ordering::Relaxed)) + LINGER
    }

    /// Whether results wait because the log cannot be written. Entries of the meantime would wait behind
    /// them.
    pub fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    /// Return the number of entries that waited to be written when the last batch was begun.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Whether the row's result waits for a lock: its claim does have a call.
    pub fn is_aside(&self, id: RowId) -> bool {
        self.0.aside.lock().contains(&id)
    }

    pub(super) fn put_aside(&self, rows: HashSet<RowId>) {
        *self.0.aside.lock() = rows;
    }

    pub(super) fn set_waiting(&self, entries: usize) {
        self.0.waiting.store(entries, Ordering::Relaxed);
    }

    pub(super) fn observe(&self, sample: Duration) {
        let known = self.0.latency.load(Ordering::Relaxed);
        self.0.latency.store((known * 7 + sample.as_micros() as u64) / 8, Ordering::Relaxed);
    }

    /// Set the state; return whether it has changed.
    pub(super) fn set_stalled(&self, stalled: bool) -> bool {
        self.0.stalled.swap(stalled, Ordering::Relaxed) != stalled
    }
}
