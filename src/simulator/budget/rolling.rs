//! Calls of a rolling window, counted in steps.

use std::collections::VecDeque;
use std::time::Duration;

/// A window is counted in so many steps; a call counts for one window and the rest of its step.
const STEPS: u64 = 1_000;
/// The age of a late header, in steps.
pub(super) const LATE_STEPS: u64 = STEPS / 10;

/// Calls of a rolling window. Times are durations since the simulator's start, and do not go back.
#[derive(Debug)]
pub(super) struct RollingCount {
    pub step: Duration,
    /// Number of a step, and the calls in it.
    steps: VecDeque<(u64, u64)>,
}

impl RollingCount {
    pub fn new(window: Duration) -> RollingCount {
        RollingCount { step: window / STEPS as u32, steps: VecDeque::new() }
    }

    fn step_of(&self, at: Duration) -> u64 {
        (at.as_nanos() / self.step.as_nanos().max(1)) as u64
    }

    /// Return the calls that counted so many steps ago.
    pub fn used(&self, at: Duration, steps_ago: u64) -> u64 {
        let Some(then) = self.step_of(at).checked_sub(steps_ago) else { return 0 };
        let counted = |step: u64| step <= then && then <= step + STEPS;
        self.steps.iter().filter(|(step, _)| counted(*step)).map(|(_, calls)| calls).sum()
    }

    pub fn add(&mut self, at: Duration) {
        let now = self.step_of(at);
        while self.steps.front().is_some_and(|(step, _)| step + STEPS + LATE_STEPS < now) {
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            Some((step, calls)) if *step == now => *calls += 1,
            _ => self.steps.push_back((now, 1)),
        }
    }

    /// Return the time until the oldest call that counts leaves the window.
    pub fn until_the_next_leaves(&self, at: Duration) -> Duration {
        let now = self.step_of(at);
        let oldest = self.steps.iter().find(|(step, _)| now <= step + STEPS);
        let leaves = oldest.map_or(now, |(step, _)| step + STEPS + 1);
        let step = u64::try_from(self.step.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(step.saturating_mul(leaves)).saturating_sub(at)
    }
}
