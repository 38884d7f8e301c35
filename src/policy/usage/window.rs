//! A budget whose window is known: the calls that leave it next are known exactly.

use super::fit::{self, Sample};
use super::history::History;

/// The use up to which nothing is limited, and the uses that bulk and high messages go up to.
pub const FREE: f64 = 90.0;
pub const NEAR: f64 = 96.0;
/// Calls that leave are counted later than the window says, by this share of it: at first, at most, and at least.
const SLACK: f64 = 0.08;
const LEAST_SLACK: f64 = 0.005;
/// The window is fitted this often in a window.
const FITS: f64 = 20.0;
/// Samples of a fit, at least.
const SAMPLES: usize = 8;
/// Neighbours that a fit tries.
const NEIGHBOURS: [f64; 12] = [0.7, 0.8, 0.88, 0.94, 0.97, 0.985, 1.015, 1.03, 1.06, 1.12, 1.25, 1.4];

/// A known window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    pub length: f64,
    /// The share of the length by which its end is uncertain.
    pub slack: f64,
    /// The percent that others use, as last told.
    pub strangers: f64,
    next_fit: f64,
}

impl Window {
    /// Begin with a length that was just seen.
    pub fn seen(length: f64) -> Window {
        Window { length, slack: SLACK, strangers: 0.0, next_fit: 0.0 }
    }

    /// Begin with what another process learnt.
    pub fn learned(length: f64, slack: f64, strangers: f64) -> Window {
        Window { length, slack: slack.clamp(LEAST_SLACK, SLACK), strangers, next_fit: 0.0 }
    }

    /// Return the own calls that count at this time, with those that may have left.
    pub fn inside(&self, history: &History, now: f64) -> f64 {
        history.begun_by(now) - history.begun_by(now - self.length * (1.0 + self.slack))
    }

    /// Improve a length that was just seen.
    pub fn refine(&mut self, now: f64, history: &History, samples: &[Sample], cost: &mut f64) {
        let length = self.length;
        self.fit(history, samples, cost, (-12..=12).map(|step| length * 1.04_f64.powi(step)));
        self.next_fit = now + self.length / FITS;
    }

    /// Fit the length anew if that is due; return whether it was.
    pub fn improve(&mut self, now: f64, history: &History, samples: &[Sample], cost: &mut f64) -> bool {
        let is_due = now >= self.next_fit && samples.len() > SAMPLES;
        if is_due {
            let length = self.length;
            self.fit(history, samples, cost, NEIGHBOURS.iter().map(|factor| length * factor));
            self.next_fit = now + self.length / FITS;
        }
        is_due
    }

    fn fit(
        &mut self,
        history: &History,
        samples: &[Sample],
        cost: &mut f64,
        lengths: impl Iterator<Item = f64>,
    ) {
        let Some(found) = fit::window(history, samples, self.length, *cost, lengths) else { return };
        if found.is_telling {
            *cost += (found.cost - *cost) / 2.0;
            self.strangers = found.strangers;
        }
        self.slack = if found.window != self.length {
            (self.slack + 0.01).min(SLACK)
        } else if found.is_telling {
            (self.slack * 0.8).max(LEAST_SLACK)
        } else {
            (self.slack * 0.97).max(LEAST_SLACK)
        };
        self.length = found.window;
    }
}
