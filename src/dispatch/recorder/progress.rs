//! How writing goes, as the lines see it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::message::MessageId;

/// How writing goes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Progress(Arc<State>);

#[derive(Default)]
struct State {
    /// How long a claim takes from being asked for to its answer, smoothed; in microseconds.
    latency: AtomicU64,
    stalled: AtomicBool,
    /// Entries that wait to be written.
    waiting: AtomicUsize,
    /// Rows whose results wait for a lock.
    aside: Mutex<HashSet<MessageId>>,
}

impl Progress {
    /// How long a claim takes from being asked for to its answer, smoothed.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.0.latency.load(Ordering::Relaxed)) + super::LINGER
    }

    /// Whether results wait because the log cannot be written. Entries handed in meanwhile would wait behind them.
    pub fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    /// Entries that wait to be written, when the last batch was begun.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Whether the row's result waits for somebody's lock: its claim is not without a call.
    pub fn is_aside(&self, id: MessageId) -> bool {
        self.0.aside.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    pub(super) fn put_aside(&self, rows: HashSet<MessageId>) {
        *self.0.aside.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    pub(super) fn set_waiting(&self, entries: usize) {
        self.0.waiting.store(entries, Ordering::Relaxed);
    }

    pub(super) fn observe(&self, sample: Duration) {
        let known = self.0.latency.load(Ordering::Relaxed);
        self.0.latency.store((known * 7 + sample.as_micros() as u64) / 8, Ordering::Relaxed);
    }

    /// Says whether this is a change.
    pub(super) fn set_stalled(&self, stalled: bool) -> bool {
        self.0.stalled.swap(stalled, Ordering::Relaxed) != stalled
    }
}
