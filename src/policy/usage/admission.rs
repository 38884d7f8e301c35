//! When the next call may begin: the estimate of the use now, and the time between calls that follows from it.

use super::budget::{Budget, Phase};
use super::growth::{self, Growth};
use super::window::{self, Window};

/// The percent up to which bulk messages go, and high ones. The difference is always free for the first high messages,
/// and while it is used up every place that becomes free is theirs.
const BULK: f64 = 97.5;
const HIGH: f64 = 98.6;
/// The longest time between two calls, and after a refusal, while the window is not known; in seconds.
pub(super) const LONGEST_REST: f64 = 60.0;
/// Above this percent a call may be refused.
pub(super) const FULL: f64 = 99.2;
/// Calls that one look admits at most.
const AT_ONCE: f64 = 64.0;

/// Calls that may begin now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Admission {
    pub calls: u32,
    /// The time until the next look, if none may; in seconds.
    pub wait: f64,
    /// Whether the budget is short: high messages go first.
    pub is_short: bool,
}

impl Admission {
    /// No limit but that of one look.
    pub const FREE: Admission = Admission { calls: AT_ONCE as u32, wait: 0.0, is_short: false };
}

impl Budget {
    /// Return the percent up to which bulk messages go.
    fn bulk(&self) -> f64 {
        BULK - self.margin()
    }

    fn high(&self) -> f64 {
        HIGH - self.margin()
    }

    fn margin(&self) -> f64 {
        self.caution
    }

    /// Return the use in percent at this time, as far as it is known.
    pub(super) fn estimate(&self, now: f64) -> Option<f64> {
        let heard = self.heard?;
        Some(match &self.phase {
            Phase::Growth(growth) => {
                let since = self.history.total() - heard.calls;
                let percent = heard.percent + self.cost * since + growth.drift * (now - heard.at);
                // Percents may be late: before that is known, each call so far counts.
                if growth.knows_cost() {
                    percent
                } else {
                    percent.max(growth.spent(self.cost, self.history.total()))
                }
            }
            Phase::Known(window) => {
                let more = window.inside(&self.history, now) - heard.inside;
                heard.percent + self.cost * if more > 0.0 { more * self.workers } else { more }
            }
        })
    }

    /// Return the time between two calls; zero: no limit.
    pub(super) fn interval(&self, now: f64, is_high: bool) -> f64 {
        let Some(percent) = self.estimate(now) else {
            let rate = self.after_refusal.and_then(|limit| limit.rate(now));
            return rate.map_or(0.0, |rate| 1.0 / rate);
        };
        match &self.phase {
            Phase::Growth(growth) => self.growth_interval(growth, percent, now, is_high),
            Phase::Known(window) => self.window_interval(window, percent, now, is_high),
        }
    }

    fn growth_interval(&self, growth: &Growth, percent: f64, now: f64, is_high: bool) -> f64 {
        if percent < growth::FREE || (is_high && percent < self.high()) {
            return 0.0;
        }
        let elapsed = (now - growth.since().or(self.first).unwrap_or(now)).max(0.001);
        // The rarer the use is told, the earlier the calls slow down: each news costs many calls.
        let rest = self.bulk() - 8.0 * (1.0 - self.told_share) - percent - 0.8 * growth.drift * elapsed;
        let probe = 0.1 * elapsed * self.told_share.max(0.2);
        if rest > 0.0 {
            (0.75 * elapsed * self.cost / rest).min(probe)
        } else if percent < FULL {
            probe
        } else {
            (0.15 * elapsed / 2.0_f64.powi(self.gambles)).min(LONGEST_REST)
        }
    }

    fn window_interval(&self, window: &Window, percent: f64, now: f64, is_high: bool) -> f64 {
        if percent < window::FREE || (is_high && percent < self.high()) {
            return 0.0;
        }
        let length = window.length;
        if percent < self.bulk() {
            let even = length / (1.06 * self.capacity(window, percent, now).max(1.0));
            return if percent < window::NEAR { even / 4.0 } else { even };
        }
        let rare = if percent < FULL { length / 50.0 } else { length / 10.0 / 2.0_f64.powi(self.gambles) };
        // A worker that came late gets its share: the others see a fuller budget, and send less.
        let fair = 100.0 / self.cost.max(f64::MIN_POSITIVE) / self.workers;
        let is_poor = self.workers > 1.0 && window.inside(&self.history, now) < 0.5 * fair;
        if is_poor && percent < FULL { rare.min(length / (0.2 * fair)) } else { rare }
    }

    /// Return the own calls that fit into the window.
    fn capacity(&self, window: &Window, percent: f64, now: f64) -> f64 {
        let more = (self.bulk() - percent) / self.cost.max(f64::MIN_POSITIVE) / self.workers;
        (window.inside(&self.history, now) + more).max(0.0)
    }

    /// Return the calls of a lane that may begin now.
    pub fn admits(&self, now: f64, is_high: bool) -> Admission {
        let short = |calls: u32, wait: f64| Admission { calls, wait, is_short: true };
        if now < self.held_until {
            return short(0, self.held_until - now);
        }
        if self.heard.is_none() && self.after_refusal.is_none() {
            return Admission::FREE;
        }
        let interval = self.interval(now, is_high);
        let percent = self.estimate(now);
        if interval <= 0.0 {
            let free_up_to = match &self.phase {
                _ if is_high => self.high(),
                Phase::Growth(_) => growth::FREE,
                Phase::Known(_) => window::FREE,
            };
            let calls = percent.map_or(AT_ONCE, |percent| self.room(free_up_to - percent));
            return Admission {
                calls: calls as u32,
                wait: 0.0,
                is_short: is_high && self.interval(now, false) > 0.0,
            };
        }
        let due = self.slot + interval;
        if due > now {
            // Calls leave the window, and others' answers come, without notice.
            let look = (self.length().unwrap_or(now - self.first.unwrap_or(now)) / 400.0).clamp(0.005, 1.0);
            return short(0, (due - now).min(look).max(0.001));
        }
        let overdue = ((now - due) / interval + 1.0).min(AT_ONCE);
        let room = percent.map_or(AT_ONCE, |percent| self.room(self.bulk() - percent));
        short(overdue.min(room).max(1.0) as u32, 0.0)
    }

    /// Return the calls that cost so many percents, at least one.
    fn room(&self, percents: f64) -> f64 {
        (percents / self.cost.max(f64::MIN_POSITIVE) / self.workers).clamp(1.0, AT_ONCE)
    }

    /// Return the use in percent, if it was told.
    pub fn percent(&self, now: f64) -> Option<f64> {
        self.estimate(now).map(|percent| percent.clamp(0.0, 999.0))
    }

    /// Return the calls a second to which bulk messages are limited now; `None`: they are not.
    pub fn limited_to(&self, now: f64) -> Option<f64> {
        if now < self.held_until {
            return Some(0.0);
        }
        let interval = self.interval(now, false);
        if interval <= 0.0 {
            return None;
        }
        match (&self.phase, self.estimate(now)) {
            (Phase::Known(window), Some(percent)) => {
                Some(self.capacity(window, percent, now) / window.length)
            }
            _ => Some(1.0 / interval),
        }
    }
}
