//! The breaker of one of Graph's hosts: limits the calls of an outage, and prevents a storm at its end.
//!
//! While it is closed, calls are unlimited. After [`TRIPS_AFTER`] failures without a sign of life it opens:
//! no call goes out for a while. Then one call is tried; each answer lets one more be in flight, and
//! [`CLOSES_AFTER`] answers in a row close the breaker. A failed trial opens it again, for twice as long. A
//! trial may take long without an answer, as Meta may be fetching a video for it: another trial goes out
//! beside it, and then one every [`LONGEST_REST`].
//!
//! Before that comes suspicion. While calls are in flight and the host has answered none for a while, closed
//! turns to stalled: one new call goes out, and then another after each such while. Any answer ends this. An
//! outage that swallows requests therefore costs the calls begun until the host was suspected, and not a call
//! for every permit.
//!
//! The breaker judges the host, not a line or a message. Any complete answer of Graph is a sign of life, an
//! error too; the page of a proxy is a failure. A failure counts only if the host has answered no call since
//! that call began, and once for each message. Failures of one line may be that line's: they open the breaker
//! only together with those of other lines, of [`LINES_TO_TRIP`] or of all that called within the last
//! minute. Failed connections count whatever their line. While the breaker is open, a line that has not
//! failed since may call at once, one such line a second, and less often while these fail too. The module
//! `line` judges the failures of one line.
//!
//! Pure: the time and the jitter are arguments. The breaker spends no attempts and knows rows by their ids
//! only.

mod line;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::classify::{CallResult, Judgement, Verdict};
use super::{Backoff, spread};
use crate::domain::{BreakerState, LineId, RowId};
pub use line::LineBreaker;

/// Failures of different messages in a row that open it.
pub const TRIPS_AFTER: usize = 5;
/// Lines that must have failed, or all that called within [`RECENTLY`] if those are fewer.
pub const LINES_TO_TRIP: usize = 3;
const RECENTLY: Duration = Duration::from_secs(60);
/// Failed messages that are remembered: a line that fails alone may have many.
const MAX_FAILED: usize = 256;
/// Answers in a row that close it.
pub const CLOSES_AFTER: usize = 5;
/// The first and the longest time for which it is open; the time doubles in between.
pub const FIRST_REST: Duration = Duration::from_secs(1);
pub const LONGEST_REST: Duration = Duration::from_secs(30);
const RESTS: Backoff = Backoff { base: FIRST_REST, cap: LONGEST_REST };
/// New calls are held back when calls in flight have waited without an answer for this many usual round
/// trips, and at least for this time. Suspicion that comes too early costs little, as the first answer ends
/// it.
const USUAL_ROUND_TRIPS: u32 = 8;
pub const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
/// Rests differ by up to this share, so that processes do not try at the same moment.
const SPREAD: f64 = 0.2;

/// The evidence of a call about the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHealth {
    /// Graph answered.
    Alive,
    /// No complete answer, or one that is not Graph's: the host's failure, or the line's.
    Failing,
    /// No connection: the host's failure, whatever the line.
    Unreachable,
}

impl HostHealth {
    /// Return the evidence of a call; `None` for a message that was never given to the connection.
    pub fn of(result: &CallResult, judgement: &Judgement) -> Option<HostHealth> {
        match result {
            CallResult::Unsendable { .. } | CallResult::NoFile { .. } => None,
            CallResult::NotSent { .. } => Some(HostHealth::Unreachable),
            CallResult::Cut { .. } => Some(HostHealth::Failing),
            CallResult::Answer(_) if judgement.by_graph => Some(HostHealth::Alive),
            CallResult::Answer(_) => Some(HostHealth::Failing),
        }
    }
}

/// Whether a call failed its line: no answer, an answer that is not Graph's, or a failure of Graph's servers.
/// `None` for a message that was never given to the connection.
pub fn is_failure(result: &CallResult, judgement: &Judgement) -> Option<bool> {
    let is_server_failure = matches!(judgement.verdict, Verdict::ServerFailed | Verdict::Ambiguous);
    HostHealth::of(result, judgement).map(|health| health != HostHealth::Alive || is_server_failure)
}

/// A call that ended.
#[derive(Debug, Clone, Copy)]
pub struct CallReport {
    pub id: RowId,
    pub line: LineId,
    pub begun: Instant,
    /// The result of [`Breaker::begun`].
    pub period: u64,
    /// `None` if the call was not made.
    pub health: Option<HostHealth>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Closed,
    /// Calls in flight have no answer. One new call may go out now, or none before `next`.
    Stalled {
        next: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    /// At most `window` calls begun in this period may be in flight, and as many more as were `unanswered`
    /// for too long; at `next` another one is counted as unanswered. `answers`: the answers in a row.
    Trial {
        window: usize,
        unanswered: usize,
        next: Option<Instant>,
        answers: usize,
    },
}

/// A message whose call failed.
#[derive(Debug, Clone, Copy)]
struct FailedCall {
    id: RowId,
    line: LineId,
    health: HostHealth,
}

/// The breaker of one host.
#[derive(Debug, Default)]
pub struct Breaker {
    phase: Phase,
    /// Grows with each phase; evidence of calls of an earlier phase is ignored.
    period: u64,
    /// Calls of this period in flight.
    in_flight: usize,
    /// Messages whose calls failed since the last sign of life.
    failed: Vec<FailedCall>,
    /// When each line last began a call.
    callers: HashMap<LineId, Instant>,
    alive_at: Option<Instant>,
    /// The time since which calls in flight have waited without a sign of life.
    waiting_since: Option<Instant>,
    /// The smoothed duration of answered calls.
    round_trip: Duration,
    /// Number of times that the breaker has opened since it was last closed.
    rests: u32,
    fresh: FreshLines,
}

/// Lines that may call although the breaker is open: the lines that have not failed since it opened.
#[derive(Debug, Default)]
struct FreshLines {
    /// The other lines, while the breaker is not closed.
    failed: HashSet<LineId>,
    /// The line that was let out last.
    last: Option<LineId>,
    /// When the next line may call; `None`: at once.
    next: Option<Instant>,
    /// Number of lines let out that have failed in a row.
    failures: u32,
}

impl Breaker {
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Stalled { .. } => BreakerState::Stalled,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Trial { .. } => BreakerState::HalfOpen,
        }
    }

    /// Return the number of calls, of any line, that may still begin while `reserved` are about to.
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

    /// Whether a call of this line may begin although the breaker is open.
    pub fn lets_out(&self, line: LineId) -> bool {
        self.lets_fresh_out() && !self.fresh.failed.contains(&line)
    }

    /// Whether [`lets_out`](Breaker::lets_out) may hold for some line.
    pub fn lets_fresh_out(&self) -> bool {
        matches!(self.phase, Phase::Open { .. }) && self.fresh.next.is_none()
    }

    /// Record that a call of the line was let out.
    pub fn let_out(&mut self, line: LineId, now: Instant) {
        self.fresh.last = Some(line);
        self.fresh.next = Some(now + RESTS.delay(self.fresh.failures));
    }

    /// Whether rows claimed for this line are given back: all rows while the breaker is open, except those of
    /// the line that was let out last.
    pub fn withholds(&self, line: LineId) -> bool {
        matches!(self.phase, Phase::Open { .. }) && self.fresh.last != Some(line)
    }

    /// Return the time at which [`tick`](Breaker::tick) is due.
    pub fn wakes_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed => self.waiting_since.map(|since| since + self.patience()),
            Phase::Stalled { next } | Phase::Trial { next, .. } => next,
            Phase::Open { until } => Some(self.fresh.next.map_or(until, |next| next.min(until))),
        }
    }

    /// Record that a call of the line begins; return its period.
    pub fn begun(&mut self, line: LineId, now: Instant) -> u64 {
        self.callers.insert(line, now);
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

    /// Take the step that is due at [`wakes_at`](Breaker::wakes_at); return whether the state changed.
    pub fn tick(&mut self, now: Instant) -> bool {
        if self.fresh.next.is_some_and(|next| next <= now) {
            self.fresh.next = None;
        }
        if self.wakes_at().is_none_or(|at| now < at) {
            return false;
        }
        match &mut self.phase {
            // The calls in flight are the awaited ones: the period goes on.
            Phase::Closed => self.phase = Phase::Stalled { next: None },
            Phase::Stalled { next } => {
                *next = None;
                return false;
            }
            Phase::Open { .. } => self.try_calls(0),
            Phase::Trial { unanswered, next, .. } => {
                *unanswered += 1;
                *next = Some(now + LONGEST_REST);
                return false;
            }
        }
        true
    }

    /// Record that a call ended; return whether the state changed. `jitter` is uniform in 0.0..1.0.
    pub fn report(&mut self, report: CallReport, now: Instant, jitter: f64) -> bool {
        if report.period != self.period {
            return false;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.waiting_since = None;
            if let Phase::Trial { unanswered, next, .. } = &mut self.phase {
                (*unanswered, *next) = (0, None);
            }
        }
        match report.health {
            None => false,
            Some(HostHealth::Alive) => self.alive(report, now),
            Some(health @ (HostHealth::Failing | HostHealth::Unreachable)) => {
                self.failing(report, health, now, jitter)
            }
        }
    }

    fn alive(&mut self, report: CallReport, now: Instant) -> bool {
        self.alive_at = Some(now);
        self.failed.clear();
        self.waiting_since = (self.in_flight > 0).then_some(now);
        self.round_trip = (self.round_trip * 7 + now.saturating_duration_since(report.begun)) / 8;
        self.fresh.failed.remove(&report.line);
        self.fresh.failures = 0;
        let patience = self.patience();
        match &mut self.phase {
            Phase::Closed => false,
            Phase::Stalled { .. } => {
                self.phase = Phase::Closed;
                true
            }
            // The answer belongs to a line that was let out.
            Phase::Open { .. } => {
                self.try_calls(1);
                true
            }
            Phase::Trial { window, next, answers, .. } => {
                *window += 1;
                *answers += 1;
                *next = (self.in_flight > 0).then_some(now + patience);
                let closes = *answers >= CLOSES_AFTER;
                if closes {
                    self.rests = 0;
                    self.fresh = FreshLines::default();
                    // The calls in flight belong to the closed breaker.
                    self.phase = Phase::Closed;
                }
                closes
            }
        }
    }

    fn failing(&mut self, report: CallReport, health: HostHealth, now: Instant, jitter: f64) -> bool {
        if matches!(self.phase, Phase::Open { .. } | Phase::Trial { .. })
            && self.fresh.failed.insert(report.line)
        {
            self.fresh.failures = self.fresh.failures.saturating_add(1);
        }
        let answered_meanwhile = self.alive_at.is_some_and(|alive_at| alive_at > report.begun);
        if answered_meanwhile || self.failed.iter().any(|failed| failed.id == report.id) {
            return false;
        }
        if self.failed.len() >= MAX_FAILED {
            self.failed.remove(0);
        }
        self.failed.push(FailedCall { id: report.id, line: report.line, health });
        let opens = match &mut self.phase {
            Phase::Trial { window, answers, .. } => {
                *answers = 0;
                self.failed.len() >= (*window).min(TRIPS_AFTER)
            }
            // The breaker is open already.
            Phase::Open { .. } => false,
            Phase::Closed | Phase::Stalled { .. } => self.is_the_hosts(now),
        };
        if opens {
            self.open(now, jitter);
        }
        opens
    }

    /// Whether the failures are too many to be the messages', and of too many lines to be the lines'.
    fn is_the_hosts(&mut self, now: Instant) -> bool {
        if self.failed.len() < TRIPS_AFTER {
            return false;
        }
        let unreachable =
            self.failed.iter().filter(|failed| failed.health == HostHealth::Unreachable).count();
        let lines: HashSet<LineId> = self.failed.iter().map(|failed| failed.line).collect();
        self.callers.retain(|_, begun| now.saturating_duration_since(*begun) < RECENTLY);
        // A failed line counts even if its call began more than a minute ago.
        let callers = self.callers.len().max(1);
        unreachable >= TRIPS_AFTER || lines.len() >= callers.min(LINES_TO_TRIP)
    }

    fn open(&mut self, now: Instant, jitter: f64) {
        let rest = spread(RESTS.delay(self.rests), 1.0 - SPREAD..=1.0 + SPREAD, jitter);
        self.rests = self.rests.saturating_add(1);
        self.fresh.failed.extend(self.failed.iter().map(|failed| failed.line));
        self.fresh.last = None;
        self.enter(Phase::Open { until: now + rest });
    }

    fn try_calls(&mut self, answers: usize) {
        self.enter(Phase::Trial { window: answers + 1, unanswered: 0, next: None, answers });
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
