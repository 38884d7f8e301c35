//! The breakers of Graph's hosts: an outage of one of them holds back the lines that call it, and no others.

use std::time::Instant;

use crate::domain::BreakerState;
use crate::graph::Host;
use crate::policy::breaker::Breaker;

/// A breaker for each host, and the permits held for calls to it that have not begun.
#[derive(Default)]
pub struct HostBreakers {
    facebook: HostBreaker,
    instagram: HostBreaker,
}

#[derive(Default)]
struct HostBreaker {
    breaker: Breaker,
    /// Up to date only while a breaker is not closed.
    reserved: usize,
}

impl HostBreakers {
    fn at(&self, host: Host) -> &HostBreaker {
        match host {
            Host::Facebook => &self.facebook,
            Host::Instagram => &self.instagram,
        }
    }

    fn at_mut(&mut self, host: Host) -> &mut HostBreaker {
        match host {
            Host::Facebook => &mut self.facebook,
            Host::Instagram => &mut self.instagram,
        }
    }

    pub fn of(&self, host: Host) -> &Breaker {
        &self.at(host).breaker
    }

    pub fn of_mut(&mut self, host: Host) -> &mut Breaker {
        &mut self.at_mut(host).breaker
    }

    /// Whether calls to every host are unlimited.
    pub fn are_closed(&self) -> bool {
        Host::ALL.into_iter().all(|host| self.of(host).state() == BreakerState::Closed)
    }

    /// Whether calls to some host go out one by one.
    pub fn are_tried(&self) -> bool {
        let is_tried = |host| matches!(self.of(host).state(), BreakerState::Stalled | BreakerState::HalfOpen);
        Host::ALL.into_iter().any(is_tried)
    }

    /// Return the number of calls to the host that may still begin.
    pub fn room(&self, host: Host) -> usize {
        let HostBreaker { breaker, reserved } = self.at(host);
        breaker.room(*reserved)
    }

    /// Return the time at which the step of a breaker is due.
    pub fn wakes_at(&self) -> Option<Instant> {
        Host::ALL.into_iter().filter_map(|host| self.of(host).wakes_at()).min()
    }

    /// Count the reserved permits anew: the host of each line, and its permits.
    pub fn count_reserved(&mut self, lines: impl Iterator<Item = (Host, usize)>) {
        self.facebook.reserved = 0;
        self.instagram.reserved = 0;
        for (host, permits) in lines {
            self.at_mut(host).reserved += permits;
        }
    }

    /// Note that a line's reserved permits changed.
    pub fn reserved_changed(&mut self, host: Host, before: usize, after: usize) {
        let reserved = &mut self.at_mut(host).reserved;
        *reserved = reserved.saturating_sub(before) + after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LineId, RowId};
    use crate::policy::breaker::{CallReport, HostHealth, TRIPS_AFTER};

    #[test]
    fn outage_of_one_host_leaves_the_other_open_to_calls() {
        let (mut breakers, now) = (HostBreakers::default(), Instant::now());
        for id in 1..=TRIPS_AFTER as i64 {
            let (line, breaker) = (LineId(id), breakers.of_mut(Host::Instagram));
            let period = breaker.begun(line, now);
            let health = Some(HostHealth::Unreachable);
            breaker.report(CallReport { id: RowId(id), line, begun: now, period, health }, now, 0.5);
        }
        assert_eq!(breakers.of(Host::Instagram).state(), BreakerState::Open);
        assert_eq!(breakers.of(Host::Facebook).state(), BreakerState::Closed);
        assert_eq!((breakers.room(Host::Instagram), breakers.room(Host::Facebook)), (0, usize::MAX));
        assert!(!breakers.are_closed() && !breakers.are_tried() && breakers.wakes_at().is_some());
    }
}
