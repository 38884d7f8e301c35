//! The knowledge of a budget that a worker gives the others, and that a new worker begins with.

use super::budget::{Budget, Heard, LEAST_TOLD, Phase, ROUNDED, SAMPLES};
use super::history::ROOM;
use super::window::Window;

/// The window is told in so many parts; a little more than one window is told.
pub const RECENT_PARTS: usize = 40;
const PARTS_OF_A_WINDOW: f64 = 32.0;

/// The state of a budget as one worker knows it. Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learned {
    /// The use in percent as last told, and how long ago.
    pub percent: f64,
    pub heard_ago: f64,
    /// The percent that a call costs.
    pub cost: f64,
    /// `None`: not known yet.
    pub window: Option<f64>,
    /// The share by which the window's end is uncertain.
    pub slack: f64,
    /// How late the told percents are.
    pub delay: f64,
    /// The percent that others use.
    pub strangers: f64,
    /// The share of answers that tell the use.
    pub told_share: f64,
    /// The calls a second that the worker may make; `None`: not limited.
    pub limited_to: Option<f64>,
    /// The time until calls are taken again.
    pub held_for: f64,
    /// The worker's own calls in the window.
    pub calls: f64,
    /// The same by parts of the window, the newest first; empty without a known window.
    pub recent: Vec<u32>,
}

impl Budget {
    /// Return what other workers are told.
    pub fn learned(&self, now: f64) -> Option<Learned> {
        let heard = self.heard?;
        let (mut calls, mut recent) = (self.history.total(), Vec::new());
        let (mut window, mut slack, mut strangers) = (None, 0.0, 0.0);
        if let Phase::Known(known) = &self.phase {
            calls = known.inside(&self.history, now);
            (window, slack, strangers) = (Some(known.length), known.slack, known.strangers);
            let part = known.length / PARTS_OF_A_WINDOW;
            let begun_by = |parts: usize| self.history.begun_by(now - parts as f64 * part);
            recent = (0..RECENT_PARTS).map(|n| (begun_by(n) - begun_by(n + 1)).round() as u32).collect();
        }
        Some(Learned {
            percent: (heard.percent - ROUNDED).max(0.0),
            heard_ago: now - heard.at - self.delay,
            cost: self.cost,
            window,
            slack,
            delay: self.delay,
            strangers,
            told_share: self.told_share,
            limited_to: self.limited_to(now),
            held_for: (self.held_until - now).max(0.0),
            calls,
            recent,
        })
    }

    /// Begin with what a worker has learnt that is gone, and told so long ago. Of its calls, `share` count as this worker's.
    /// Without effect once this worker has learnt more.
    pub fn begin_with(&mut self, learned: &Learned, told_ago: f64, share: f64, now: f64) {
        self.hold(now, learned.held_for);
        let knows_more = matches!(self.phase, Phase::Known(_)) || self.samples.len() > SAMPLES / 4;
        if knows_more || learned.cost <= 0.0 {
            return;
        }
        let own = std::mem::take(&mut self.history);
        let begun = own.total();
        if let Some(length) = learned.window {
            let part = length / PARTS_OF_A_WINDOW;
            for (n, calls) in learned.recent.iter().enumerate().rev() {
                let at = now - told_ago - (n as f64 + 0.5) * part;
                self.history.add(at, f64::from(*calls) * share, 0.001, ROOM);
            }
            self.phase = Phase::Known(Window::learned(length, learned.slack, learned.strangers));
        }
        if begun > 0.0 {
            self.history.add(now, begun, 0.001, ROOM);
        }
        let at = now - learned.heard_ago.max(0.0) - learned.delay;
        let calls = self.history.begun_by(at);
        let inside = match &self.phase {
            Phase::Known(window) => window.inside(&self.history, at),
            Phase::Growth(_) => calls,
        };
        (self.cost, self.delay) = (learned.cost, learned.delay);
        self.told_share = learned.told_share.clamp(LEAST_TOLD, 1.0);
        self.first = self.history.first().or(self.first).or(Some(now));
        self.samples.clear();
        self.slot = now;
        // Tickets of calls that are under way were given before the calls of the other worker were added.
        self.newest = self.history.total();
        self.heard = Some(Heard { at, percent: learned.percent + ROUNDED, calls, inside });
    }
}
