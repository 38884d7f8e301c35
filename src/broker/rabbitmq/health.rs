//! Whether jobs can be published and consumed, as the connections tell it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::broker::BrokerState;

/// The health of the connections that carry jobs, for `Broker::state`: without the other connections
/// answers and submissions wait.
#[derive(Default)]
pub(super) struct ConnectionHealth {
    publishing: AtomicBool,
    consuming: AtomicBool,
    blocked: AtomicBool,
}

impl ConnectionHealth {
    pub(super) fn set_publishing(&self, up: bool) {
        self.publishing.store(up, Ordering::Relaxed);
    }

    pub(super) fn set_consuming(&self, up: bool) {
        self.consuming.store(up, Ordering::Relaxed);
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    pub(super) fn state(&self) -> BrokerState {
        let up = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        match up(&self.publishing) && up(&self.consuming) {
            true if up(&self.blocked) => BrokerState::Blocked,
            true => BrokerState::Up,
            false => BrokerState::Down,
        }
    }
}
