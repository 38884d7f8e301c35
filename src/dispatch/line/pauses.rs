//! The pauses of a line that answers demand, and their lengths.

use std::time::Duration;

use tokio::time::Instant;

use super::actor::Line;
use crate::policy::classify::{CANNOT_SEND, PauseDemand};

/// The beginning of the reason of a pause that an answer of Graph demanded, and no operator.
pub const GRAPH_PAUSE_PREFIX: &str = "Graph: ";

/// A demanded pause of the line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demanded {
    /// The first step of its kind.
    first: Duration,
    length: Duration,
    at: Instant,
}

/// Whether a record's reason states that Graph refused the line.
pub(super) fn is_refusal(reason: &str) -> bool {
    reason.strip_prefix(GRAPH_PAUSE_PREFIX).is_some_and(|reason| reason.starts_with(CANNOT_SEND))
}

impl Line {
    /// Return the end of the line's pause; `None` if the line is not paused.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        let recorded = self.config.as_ref().and_then(|config| config.paused_until);
        recorded.max(self.local_pause).filter(|until| *until > now)
    }

    /// Return the rest of the line's pause.
    pub fn paused_for(&self, now: Instant) -> Duration {
        self.paused_until(now).map_or(Duration::ZERO, |until| until - now)
    }

    /// Return the last pause, if a call begun at `begun` was in flight when it was demanded: that call's
    /// answer is no news.
    fn demanded_since(&self, begun: Instant) -> Option<Demanded> {
        self.demanded.filter(|last| begun < last.at)
    }

    /// Record that Graph took a message whose call began at `begun`: the next pause starts at its first step
    /// again, unless the call was in flight already when the last one was demanded. During a pause no calls
    /// begin.
    pub(super) fn succeeded(&mut self, begun: Instant) {
        if self.demanded_since(begun).is_none() {
            self.backoff.reset();
        }
    }

    /// Stop sending as demanded by the answer to a call begun at `begun`, to this recipient; return the
    /// length of the pause.
    ///
    /// `None` if the call was in flight already when a pause as long was demanded: its answer is no news, and
    /// a burst of such answers would drive the pauses to their cap at once. A longer time that Graph names is
    /// news, and so is a call begun after a pause that a person ended early.
    pub fn pause(
        &mut self,
        demand: &PauseDemand,
        dest: &str,
        begun: Instant,
        now: Instant,
    ) -> Option<Duration> {
        let last = self.demanded_since(begun);
        let is_known = |last: Demanded| {
            demand.first <= last.first && demand.named.is_none_or(|named| named <= last.length)
        };
        if last.is_some_and(is_known) {
            return None;
        }
        let length = self.backoff.next(demand, dest);
        if demand.ends_with_trial {
            self.standing.begin_trial(now, false);
        }
        self.note(demand.first, length, last, now);
        Some(length)
    }

    /// Stop sending as the answer to another line's call demands of every line of the app.
    pub fn pause_with_app(&mut self, demand: &PauseDemand, length: Duration, now: Instant) {
        let in_force = self.demanded.filter(|last| now < last.at + last.length);
        self.note(demand.first, length, in_force, now);
    }

    /// Note a demanded pause and begin it; `last` still counts for calls that were in flight when it was
    /// demanded.
    fn note(&mut self, first: Duration, length: Duration, last: Option<Demanded>, now: Instant) {
        self.demanded = Some(Demanded {
            first: last.map_or(first, |last| last.first.max(first)),
            length: last.map_or(length, |last| last.length.max(length)),
            at: now,
        });
        self.pause_for(length, now);
    }

    /// Stop sending for a while, until the line's record shows the pause.
    pub(super) fn pause_for(&mut self, length: Duration, now: Instant) {
        self.local_pause = self.local_pause.max(Some(now + length));
    }
}
