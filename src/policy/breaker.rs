//! The breaker of Graph's host: turns an outage into few calls, and its end into no storm.
//!
//! Closed, calls are unlimited. After [`TRIPS_AFTER`] failures without a sign of life it opens: no call goes out for a
//! while. Then one call is tried; each answer lets one more be in flight, so that their number doubles with each round
//! trip until nothing is held back any more. A failed trial opens it again, for twice as long. A trial that has no answer
//! after a while, as Meta may be fetching a video for it, is not waited for alone: another goes out beside it, and then one
//! every [`LONGEST_REST`].
//!
//! Before that comes suspicion. While calls are in flight and the host has answered none for a while, closed turns to
//! stalled: of the new calls one goes out at a time, and then again one after each such while. Any answer ends it. So an
//! outage that swallows requests costs what went out until the host was suspected, and not a call for every permit.
//!
//! The host is judged, not a line or a message: any complete answer of Graph that is no server error is a sign of
//! life, refusals included; the page of a proxy is a failure. A failure counts only if the host has not answered
//! anybody since that call began, and once a message. So neither a hanging line among good ones nor one message that fails again and again opens it.
//!
//! Pure: the time and the jitter are arguments. It spends no attempts and knows no rows but by their ids.

use std::time::{Duration, Instant};

use super::classify::{CallResult, Judgement, Verdict};
use crate::message::{BreakerState, MessageId};

/// Failures of different messages in a row that open it.
pub const TRIPS_AFTER: usize = 5;
/// How long it is open at first, and at most; it doubles in between.
pub const FIRST_REST: Duration = Duration::from_secs(1);
pub const LONGEST_REST: Duration = Duration::from_secs(30);
/// How long calls in flight may wait without any answer before new ones are held back: this many usual round trips,
/// and not less than this. Too early a suspicion costs little, as the first answer ends it.
const USUAL_ROUND_TRIPS: u32 = 8;
pub const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
/// Rests differ by up to this share, so that processes do not try at the same moment.
const SPREAD: f64 = 0.2;

/// What a call says about the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered.
    Alive,
    /// Not reached, no complete answer, a server error, or an answer that is not Graph's.
    Failing,
}

impl Health {
    /// Nothing for a message that was never given to the connection.
    pub fn of(result: &CallResult, judgement: &Judgement) -> Option<Health> {
        match (result, &judgement.verdict) {
            (CallResult::Unsendable { .. }, _) => None,
            (CallResult::NotSent { .. } | CallResult::Cut { .. }, _) => Some(Health::Failing),
            (CallResult::Answer(_), Verdict::ServerFailed | Verdict::Ambiguous) => Some(Health::Failing),
            (CallResult::Answer(_), _) if !judgement.by_graph => Some(Health::Failing),
            (CallResult::Answer(_), _) => Some(Health::Alive),
        }
    }
}

/// A call that ended.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub id: MessageId,
    pub begun: Instant,
    /// What [`Breaker::begun`] returned.
    pub period: u64,
    /// Nothing if the call was not made.
    pub health: Option<Health>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Calls in flight wait for any answer. One new call may go out now, or none before `next`.
    Stalled {
        next: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    /// At most `window` calls begun in this period may be in flight, and as many more as were `unanswered` for too long;
    /// at `next` another one is.
    Trial {
        window: usize,
        unanswered: usize,
        next: Option<Instant>,
    },
}

/// The breaker of one host.
#[derive(Debug)]
pub struct Breaker {
    phase: Phase,
    /// Grows with each phase; what calls of an earlier one say about the host is old.
    period: u64,
    /// Calls of this period in flight.
    in_flight: usize,
    /// Messages whose calls failed since the last sign of life.
    failed: Vec<MessageId>,
    alive_at: Option<Instant>,
    /// Since when calls in flight have waited without a sign of life.
    waiting_since: Option<Instant>,
    /// How long calls take that are answered, smoothed.
    round_trip: Duration,
    rest: Duration,
    /// Calls in flight at which nothing is held back any more.
    full: usize,
}

impl Breaker {
    /// Closed. `full`: calls that may be in flight without a breaker.
    pub fn new(full: usize) -> Breaker {
        Breaker {
            phase: Phase::Closed,
            period: 0,
            in_flight: 0,
            failed: Vec::new(),
            alive_at: None,
            waiting_since: None,
            round_trip: Duration::ZERO,
            rest: FIRST_REST,
            full,
        }
    }

    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Stalled { .. } => BreakerState::Stalled,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Trial { .. } => BreakerState::HalfOpen,
        }
    }

    /// How many more calls may begin while `reserved` are about to.
    pub fn room(&self, reserved: usize) -> usize {
        match self.phase {
            Phase::Closed => usize::MAX,
            Phase::Stalled { next: None } => 1usize.saturating_sub(reserved),
            Phase::Stalled { next: Some(_) } | Phase::Open { .. } => 0,
            Phase::Trial { window, unanswered, .. } => {
                (window + unanswered).saturating_sub(self.in_flight + reserved)
            }
        }
    }

    /// When [`tick`](Breaker::tick) has something to do.
    pub fn wakes_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed => self.waiting_since.map(|since| since + self.patience()),
            Phase::Stalled { next } | Phase::Trial { next, .. } => next,
            Phase::Open { until } => Some(until),
        }
    }

    /// A call begins; returns its period.
    pub fn begun(&mut self, now: Instant) -> u64 {
        self.in_flight += 1;
        self.waiting_since.get_or_insert(now);
        let patience = self.patience();
        match &mut self.phase {
            Phase::Stalled { next } => *next = Some(now + patience),
            Phase::Trial { next, .. } => {
                next.get_or_insert(now + patience);
            }
            Phase::Closed | Phase::Open { .. } => {}
        }
        self.period
    }

    /// Does what is due at [`wakes_at`](Breaker::wakes_at); says whether the state changed.
    pub fn tick(&mut self, now: Instant) -> bool {
        if self.wakes_at().is_none_or(|at| now < at) {
            return false;
        }
        match &mut self.phase {
            // Calls in flight are the ones that are waited for: the period goes on.
            Phase::Closed => self.phase = Phase::Stalled { next: None },
            Phase::Stalled { next } => {
                *next = None;
                return false;
            }
            Phase::Open { .. } => self.enter(Phase::Trial { window: 1, unanswered: 0, next: None }),
            Phase::Trial { unanswered, next, .. } => {
                *unanswered += 1;
                *next = Some(now + LONGEST_REST);
                return false;
            }
        }
        true
    }

    /// A call ended; says whether the state changed. `jitter` is uniform in 0.0..1.0.
    pub fn heard(&mut self, heard: Heard, now: Instant, jitter: f64) -> bool {
        if heard.period != self.period {
            return false;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.waiting_since = None;
            if let Phase::Trial { unanswered, next, .. } = &mut self.phase {
                (*unanswered, *next) = (0, None);
            }
        }
        match heard.health {
            None => false,
            Some(Health::Alive) => self.alive(heard, now),
            Some(Health::Failing) => self.failing(heard, now, jitter),
        }
    }

    fn alive(&mut self, heard: Heard, now: Instant) -> bool {
        self.alive_at = Some(now);
        self.failed.clear();
        self.waiting_since = (self.in_flight > 0).then_some(now);
        self.round_trip = (self.round_trip * 7 + now.saturating_duration_since(heard.begun)) / 8;
        if matches!(self.phase, Phase::Stalled { .. }) {
            self.phase = Phase::Closed;
            return true;
        }
        let patience = self.patience();
        let Phase::Trial { window, next, .. } = &mut self.phase else { return false };
        *window += 1;
        *next = (self.in_flight > 0).then_some(now + patience);
        let closes = *window >= self.full;
        if closes {
            self.rest = FIRST_REST;
            // The calls in flight belong to the closed breaker.
            self.phase = Phase::Closed;
        }
        closes
    }

    fn failing(&mut self, heard: Heard, now: Instant, jitter: f64) -> bool {
        let answered_meanwhile = self.alive_at.is_some_and(|alive_at| alive_at > heard.begun);
        if answered_meanwhile || self.failed.contains(&heard.id) {
            return false;
        }
        self.failed.push(heard.id);
        let patience = match self.phase {
            Phase::Trial { window, .. } => window.min(TRIPS_AFTER),
            Phase::Closed | Phase::Stalled { .. } | Phase::Open { .. } => TRIPS_AFTER,
        };
        let opens = self.failed.len() >= patience;
        if opens {
            let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
            let rest = self.rest.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * jitter);
            self.rest = (self.rest * 2).min(LONGEST_REST);
            self.enter(Phase::Open { until: now + rest });
        }
        opens
    }

    fn patience(&self) -> Duration {
        (self.round_trip * USUAL_ROUND_TRIPS).max(SHORTEST_PATIENCE)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.period += 1;
        self.in_flight = 0;
        self.waiting_since = None;
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests;
