//! Pacing of one medium of a line: its limiter, and its rows between claim and call.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::dispatch::clock::RuntimeClock;
use crate::policy::pace::Pacer;
use crate::store::ReadyRow;

/// Pacing of one medium.
pub struct MediumPacing {
    pub pacer: Option<Pacer<RuntimeClock>>,
    /// Messages a second; 1 until the line's record has been read.
    pub limit: NonZeroU32,
    pub last_call: Option<Instant>,
    pub claiming: usize,
    pub claimed: VecDeque<PendingCall>,
    pub calling: usize,
}

/// A row on its way from claim to call.
pub struct PendingCall {
    pub row: ReadyRow,
    pub expires: Instant,
    pub asked: Instant,
}

impl MediumPacing {
    pub fn new() -> MediumPacing {
        MediumPacing {
            pacer: None,
            limit: NonZeroU32::MIN,
            last_call: None,
            claiming: 0,
            claimed: VecDeque::new(),
            calling: 0,
        }
    }

    pub fn set_limit(&mut self, limit: NonZeroU32) {
        if self.pacer.is_none() || self.limit != limit {
            self.limit = limit;
            self.pacer = Some(Pacer::new(limit, RuntimeClock));
        }
    }

    pub fn permits(&self) -> usize {
        self.claiming + self.claimed.len() + self.calling
    }

    /// Return the time at which the limit lets the call of the next claimed row begin.
    pub fn next_due(&self, now: Instant) -> Instant {
        let interval = Duration::from_secs(1) / self.limit.get();
        let ahead = (self.claiming + self.claimed.len()) as u32;
        let first = self.last_call.map_or(now, |last| now.max(last + interval));
        first + interval * ahead
    }
}
