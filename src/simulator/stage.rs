//! The played parts of Graph that decide more than a recipient's word does, and whether any of them is on.
//!
//! A simulator without them answers a send call without looking here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::budget::Budgets;
use super::conversations::Inbox;
use super::identities::IdentityBook;
use super::limits::RateWindows;
use super::uploads::Uploads;
use super::webhooks::Outbox;
use super::windows::Windows;

/// Each part has a lock of its own; no code holds two at a time.
pub(super) struct Stage {
    pub identities: Mutex<IdentityBook>,
    pub budgets: Mutex<Budgets>,
    pub windows: Mutex<Windows>,
    pub uploads: Mutex<Uploads>,
    pub inbox: Mutex<Inbox>,
    /// The calls about conversations in the last second, by account.
    pub conversation_calls: Mutex<RateWindows>,
    pub outbox: Outbox,
    is_on: AtomicBool,
    started: Instant,
}

impl Stage {
    pub fn new() -> Stage {
        Stage {
            identities: Mutex::default(),
            budgets: Mutex::default(),
            windows: Mutex::default(),
            uploads: Mutex::default(),
            inbox: Mutex::default(),
            conversation_calls: Mutex::default(),
            outbox: Outbox::default(),
            is_on: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Whether send calls have to look at the stage.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Let send calls look at the stage from now on.
    pub fn turn_on(&self) {
        self.is_on.store(true, Ordering::Release);
    }

    /// Return the time since the start, on the monotonic clock.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Forget what was played; the rules stay.
    pub fn reset(&self) {
        self.budgets.lock().reset();
        self.windows.lock().reset();
        self.uploads.lock().reset();
        self.inbox.lock().reset();
        self.outbox.reset();
    }
}

/// Return the time in Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Return the time in Unix seconds.
pub(super) fn now_seconds() -> i64 {
    i64::try_from(now_ms() / 1_000).unwrap_or(i64::MAX)
}
