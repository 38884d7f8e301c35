//! One budget: counts calls and hears percents. `admission` says when the next call may begin.

use super::admission::{FULL, LONGEST_REST};
use super::after_refusals::AfterRefusal;
use super::fit::Sample;
use super::growth::{Growth, Lesson, Point};
use super::headers::Reading;
use super::history::{History, ROOM, ROOM_UNHEARD};
use super::window::Window;

/// Told percents are whole and rounded down.
pub(super) const ROUNDED: f64 = 0.5;
/// The percent after a refusal.
const REFUSED: f64 = 100.5;
/// Told percents that are kept for fits.
pub(super) const SAMPLES: usize = 90;
/// The least share of answers that is taken to tell the use.
pub(super) const LEAST_TOLD: f64 = 0.02;
/// Calls are remembered for this many windows; without a known window for a day and an hour.
const WINDOWS: f64 = 2.5;
const DAY: f64 = 25.0 * 3_600.0;
/// The percents that each refusal adds to those left free, and their sum at most.
const CAUTION_STEP: f64 = 0.8;
const MOST_CAUTION: f64 = 2.0;
/// Calls over this time give the rate that a refusal met, in seconds.
const RATE_OVER: f64 = 5.0;

/// The last told use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub at: f64,
    pub percent: f64,
    /// Own calls at that time: all, and those that counted.
    pub calls: f64,
    pub inside: f64,
}

#[derive(Debug, Clone)]
pub(super) enum Phase {
    Growth(Growth),
    Known(Window),
}

/// One budget of Meta, as a worker knows it.
#[derive(Debug, Clone)]
pub struct Budget {
    pub(super) history: History,
    /// The first call.
    pub(super) first: Option<f64>,
    pub(super) phase: Phase,
    /// The percent that an own call costs, with the calls that other workers make meanwhile.
    pub(super) cost: f64,
    pub(super) heard: Option<Heard>,
    /// The ticket of the newest call whose answer told the use.
    pub(super) newest: f64,
    pub(super) delay: f64,
    pub(super) samples: Vec<Sample>,
    pub(super) told_share: f64,
    /// Calls taken in a row while the budget looked full.
    pub(super) gambles: i32,
    pub(super) held_until: f64,
    /// When the last admitted call was due.
    pub(super) slot: f64,
    /// Workers that share the budget.
    pub(super) workers: f64,
    pub(super) after_refusal: Option<AfterRefusal>,
    /// Percents that are left free besides: the learned use was wrong by so much.
    pub(super) caution: f64,
    /// When a refusal last added to the caution.
    cautioned: f64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            history: History::default(),
            first: None,
            phase: Phase::Growth(Growth::default()),
            cost: 0.0,
            heard: None,
            newest: 0.0,
            delay: 0.0,
            samples: Vec::new(),
            told_share: 1.0,
            gambles: 0,
            held_until: 0.0,
            slot: 0.0,
            workers: 1.0,
            after_refusal: None,
            caution: 0.0,
            cautioned: 0.0,
        }
    }
}

impl Budget {
    /// Whether Meta has ever told the use, or refused a call over it.
    pub fn is_known(&self) -> bool {
        self.heard.is_some() || self.after_refusal.is_some() || self.held_until > 0.0
    }

    /// Return the number of calls so far: the ticket of a call that begins now.
    pub fn ticket(&self) -> f64 {
        self.history.total()
    }

    /// Count a call that begins now.
    pub fn spend(&mut self, now: f64, is_high: bool) {
        let first = *self.first.get_or_insert(now);
        let interval = self.interval(now, is_high);
        let span = self.length().unwrap_or(now - first);
        self.slot = (self.slot + interval).max(now - (2.0 * interval).max(span / 300.0));
        let (grain, room) = match self.heard {
            Some(_) => ((span / 500.0).max(0.001), ROOM),
            None => (((now - first) / 40.0).max(0.001), ROOM_UNHEARD),
        };
        self.history.add(now, 1.0, grain, room);
        self.history.forget(now - self.length().map_or(DAY, |length| WINDOWS * length));
    }

    /// Note a complete answer of Graph to a call that was not refused over the budget.
    pub fn taken(&mut self, now: f64, is_told: bool) {
        let told = if is_told { 1.0 } else { 0.0 };
        self.told_share = (self.told_share + 0.02 * (told - self.told_share)).max(LEAST_TOLD);
        if is_told {
            return;
        }
        let Some(percent) = self.estimate(now) else { return };
        if percent >= FULL {
            self.gambles = (self.gambles + 1).min(16);
        }
        // The call was taken: the use was not above the budget.
        if let Some(heard) = self.heard.as_mut().filter(|_| percent > 100.0) {
            heard.percent -= percent - 100.0;
        }
    }

    /// Note that a call was refused over the budget. `regain`: the time that Meta names.
    pub fn refused(&mut self, now: f64, regain: f64) {
        self.gambles = 0;
        self.learn_caution(now);
        let calls = self.history.total();
        let rest = match &self.phase {
            Phase::Known(window) => window.length / 50.0,
            Phase::Growth(_) => (0.07 * (now - self.first.unwrap_or(now))).min(LONGEST_REST),
        };
        if let Some(heard) = &mut self.heard {
            let inside = match &self.phase {
                Phase::Known(window) => window.inside(&self.history, now),
                Phase::Growth(_) => calls,
            };
            *heard = Heard { at: now, percent: REFUSED, calls, inside };
            self.held_until = self.held_until.max(now + rest);
        } else {
            let rate = (calls - self.history.begun_by(now - RATE_OVER)) / RATE_OVER;
            self.after_refusal = Some(AfterRefusal::new(now, rate));
        }
        self.hold(now, regain);
    }

    /// Leave more of the budget free from now on. Refusals that come together are one mistake.
    fn learn_caution(&mut self, now: f64) {
        let rest = self.length().map_or(0.0, |length| length / 10.0);
        if self.caution == 0.0 || now >= self.cautioned + rest {
            self.caution = (self.caution + CAUTION_STEP).min(MOST_CAUTION);
            self.cautioned = now;
        }
    }

    /// Let no call begin for the time that Meta names.
    pub(super) fn hold(&mut self, now: f64, regain: f64) {
        if regain > 0.0 {
            self.held_until = self.held_until.max(now + regain);
        }
    }

    /// Hear the use that the answer to a call tells. `begun` and `ticket`: the call.
    pub fn hear(&mut self, reading: Reading, ticket: f64, begun: f64, now: f64) {
        self.hold(now, reading.regain.as_secs_f64());
        self.gambles = 0;
        self.after_refusal = None;
        if self.heard.is_some() && ticket < self.newest {
            return;
        }
        self.newest = ticket;
        let first = *self.first.get_or_insert(begun);
        let at = begun - self.delay;
        let calls = if self.delay > 0.0 { self.history.begun_by(at) } else { ticket };
        let percent = reading.percent + ROUNDED;
        self.keep(Sample { at, percent }, first);
        // Counted without the slack: while the window's end is uncertain, the difference keeps calls back.
        let gone = self.length().map_or(0.0, |length| self.history.begun_by(at - length));
        self.heard = Some(Heard { at, percent, calls, inside: calls - gone });
        match &mut self.phase {
            Phase::Growth(growth) => {
                let point = Point { at, percent, calls };
                match growth.learn(point, first, &self.history, &self.samples, &mut self.cost) {
                    Lesson::None => {}
                    Lesson::Late(delay) => self.note_delay(delay, percent, at - delay),
                    Lesson::Window(length) => {
                        let mut window = Window::seen(length);
                        window.refine(at, &self.history, &self.samples, &mut self.cost);
                        self.phase = Phase::Known(window);
                        self.count_anew(at, percent, calls);
                    }
                }
            }
            Phase::Known(window) => {
                if window.improve(at, &self.history, &self.samples, &mut self.cost) {
                    self.count_anew(at, percent, calls);
                }
            }
        }
    }

    /// Take all told percents as about an earlier time.
    fn note_delay(&mut self, delay: f64, percent: f64, at: f64) {
        self.delay = delay;
        self.samples.iter_mut().for_each(|sample| sample.at -= delay);
        let calls = self.history.begun_by(at);
        self.heard = Some(Heard { at, percent, calls, inside: calls });
    }

    /// Count the calls in a window that was just fitted.
    fn count_anew(&mut self, at: f64, percent: f64, calls: f64) {
        if let Phase::Known(window) = &self.phase {
            let gone = self.history.begun_by(at - window.length * (1.0 + window.slack));
            self.heard = Some(Heard { at, percent, calls, inside: calls - gone });
        }
    }

    /// Hear the use that another worker was told at this time.
    pub fn hear_elsewhere(&mut self, percent: f64, at: f64) {
        let at = at - self.delay;
        if self.heard.is_none_or(|heard| heard.at < at) && self.cost > 0.0 {
            let calls = self.history.begun_by(at);
            let gone = self.length().map_or(0.0, |length| self.history.begun_by(at - length));
            self.heard = Some(Heard { at, percent: percent + ROUNDED, calls, inside: calls - gone });
        }
    }

    /// Keep a told percent for fits, unless it is like the one before.
    fn keep(&mut self, sample: Sample, first: f64) {
        if let Some(last) = self.samples.last() {
            let (passed, changed) = (sample.at - last.at, (sample.percent - last.percent).abs());
            let elapsed = sample.at - first;
            let is_like = match &self.phase {
                Phase::Known(window) => passed < window.length / 60.0,
                Phase::Growth(growth) if growth.knows_cost() => passed < 0.03 * elapsed && changed < 2.0,
                Phase::Growth(_) => passed < 0.0 || (changed < 0.5 && passed < 0.05 * elapsed),
            };
            if is_like {
                return;
            }
        }
        self.samples.push(sample);
        if let Some(length) = self.length() {
            let since = sample.at - 1.5 * length;
            let old = self.samples.iter().filter(|kept| kept.at < since).count();
            let surplus = self.samples.len().saturating_sub(SAMPLES).max(old);
            self.samples.drain(..surplus.min(self.samples.len().saturating_sub(4)));
        } else if self.samples.len() > SAMPLES {
            let mut turn = 0;
            self.samples.retain(|_| {
                turn += 1;
                turn % 2 == 1
            });
        }
    }

    pub(super) fn length(&self) -> Option<f64> {
        match &self.phase {
            Phase::Known(window) => Some(window.length),
            Phase::Growth(_) => None,
        }
    }

    /// Share the budget with so many workers, this one included.
    pub fn share(&mut self, workers: usize) {
        self.workers = workers.max(1) as f64;
    }

    /// Whether nothing is worth remembering: no call for two windows, or for a day without a known window.
    pub fn is_idle(&self, now: f64) -> bool {
        let last = self.history.time_of(self.history.total()).or(self.first);
        let keep =
            if self.heard.is_some() { self.length().map_or(DAY, |length| 2.0 * length) } else { 600.0 };
        now >= self.held_until && last.is_none_or(|last| now - last > keep)
    }
}
