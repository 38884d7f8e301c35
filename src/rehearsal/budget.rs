//! A rolling budget in virtual time.

use std::collections::VecDeque;

use super::profile::RollingBudget;

/// The share of a budget that the program uses: it stays below Graph's limit (`policy::usage`).
const USED_SHARE: f64 = 0.97;

/// The calls that count, by second.
#[derive(Debug)]
pub(super) struct Budget {
    /// Calls that the program makes in any window.
    room: u64,
    window: u64,
    seconds: VecDeque<(u64, u64)>,
    used: u64,
}

impl Budget {
    pub fn new(budget: RollingBudget) -> Budget {
        let own = budget.calls as f64 * (USED_SHARE - budget.stranger).max(0.0);
        // Less than one call would be a campaign without an end.
        let room = (own as u64).max(1);
        let window = budget.window.as_secs_f64().ceil() as u64;
        Budget { room, window, seconds: VecDeque::new(), used: 0 }
    }

    /// Return the calls that may be made in this second.
    pub fn left(&mut self, now: u64) -> u64 {
        while let Some((second, calls)) = self.seconds.front().copied() {
            if second + self.window > now {
                break;
            }
            self.seconds.pop_front();
            self.used -= calls;
        }
        self.room.saturating_sub(self.used)
    }

    /// Count calls of this second.
    pub fn take(&mut self, now: u64, calls: u64) {
        if calls == 0 {
            return;
        }
        self.used += calls;
        match self.seconds.back_mut() {
            Some((second, counted)) if *second == now => *counted += calls,
            _ => self.seconds.push_back((now, calls)),
        }
    }

    /// Return the second in which the oldest call that counts leaves the window.
    pub fn next_leaves(&self) -> Option<u64> {
        self.seconds.front().map(|(second, _)| second + self.window)
    }

    /// Return the calls a second that the budget allows in the long run.
    pub fn rate(&self) -> f64 {
        self.room as f64 / self.window as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn calls_leave_after_a_window() {
        let window = Duration::from_secs(10);
        let mut budget = Budget::new(RollingBudget { calls: 100, window, stranger: 0.2 });
        assert_eq!(budget.left(0), 77);
        budget.take(0, 50);
        budget.take(3, 27);
        assert_eq!((budget.left(9), budget.next_leaves()), (0, Some(10)));
        assert_eq!((budget.left(10), budget.next_leaves()), (50, Some(13)));
        assert_eq!(budget.left(13), 77);
    }
}
