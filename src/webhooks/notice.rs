//! A warning that stands in the log once in a while, whatever causes it. Never here: counting; the metrics count.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const EVERY: Duration = Duration::from_secs(60);

/// The time of the last warning of one kind.
#[derive(Debug, Default)]
pub struct Notice(Mutex<Option<Instant>>);

impl Notice {
    /// Whether the warning is due; it then counts as given.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| last.elapsed() >= EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_is_due_once_a_minute() {
        let notice = Notice::default();
        assert!(notice.is_due() && !notice.is_due());
        *notice.0.lock() = Instant::now().checked_sub(EVERY);
        assert!(notice.is_due() && !notice.is_due());
    }
}
