//! Outages of Graph: what the breaker hears, and what its states mean for the lines.
//!
//! An open breaker is part of pacing, for all lines at once: rows are not claimed, those claimed are given back, and no
//! attempts are spent. The decision is `policy::breaker`'s.

use rand::Rng;
use tokio::time::Instant;

use super::Dispatcher;
use crate::dispatch::send::Ticket;
use crate::message::BreakerState;
use crate::policy::breaker::{Health, Heard};

impl Dispatcher {
    /// A call ended.
    pub(super) fn hear(&mut self, ticket: &Ticket, health: Option<Health>, now: Instant) {
        let heard = Heard { id: ticket.id(), begun: ticket.begun.into_std(), period: ticket.period, health };
        if self.breaker.heard(heard, now.into_std(), rand::rng().random()) {
            self.breaker_changed(now);
        }
    }

    /// Suspects a host that answers nothing, and tries a call again when the breaker has been open for long enough.
    pub(super) fn tick_breaker(&mut self, now: Instant) {
        if self.breaker.tick(now.into_std()) {
            self.breaker_changed(now);
        }
    }

    fn breaker_changed(&mut self, now: Instant) {
        let state = self.breaker.state();
        match state {
            BreakerState::Open => {
                let rest = self.breaker.wakes_at().map(|until| until.duration_since(now.into_std()));
                tracing::warn!(?rest, "Graph fails call after call: the breaker is open, nothing is sent");
            }
            BreakerState::Stalled => {
                tracing::info!("Graph answers none of the calls in flight: new ones are tried one at a time");
            }
            BreakerState::HalfOpen => tracing::info!("the breaker is half-open: a call is tried"),
            BreakerState::Closed => tracing::info!("Graph answers again: the breaker is closed"),
        }
        self.breaker_state.send_replace(state);
        self.dirty.extend(self.lines.keys());
    }
}
