//! Requests that wait for their outcome.
//!
//! Each has a ticket, stored with its row after this process's reply address; the worker that records the
//! outcome answers there. A ticket is registered before its row is committed: no answer can come too early. A
//! ticket is random: a program that may write to the reply queue cannot guess it, and forge an outcome.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::domain::{Outcome, Reply};

/// The tickets of this process.
#[derive(Clone, Default)]
pub struct Waiters(Arc<Tickets>);

#[derive(Default)]
struct Tickets {
    open: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
}

impl Tickets {
    fn open(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Outcome>>> {
        self.open.lock()
    }
}

/// A registered ticket; forgotten when dropped.
pub struct Ticket {
    name: String,
    outcome: oneshot::Receiver<Outcome>,
    waiters: Waiters,
}

impl Waiters {
    pub fn register(&self) -> Ticket {
        let name = format!("{:032x}", rand::random::<u128>());
        let (answer, outcome) = oneshot::channel();
        self.0.open().insert(name.clone(), answer);
        Ticket { name, outcome, waiters: self.clone() }
    }

    /// Hand an outcome to the request that waits for it, if one still does.
    pub fn answer(&self, reply: Reply) {
        if let Some(waiting) = self.0.open().remove(&reply.ticket) {
            // The request may have gone away meanwhile.
            let _ = waiting.send(reply.outcome);
        }
    }
}

impl Ticket {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Wait for the outcome; for ever if none comes.
    pub async fn outcome(&mut self) -> Outcome {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiters.0.open().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_cannot_be_guessed() {
        let waiters = Waiters::default();
        let tickets: Vec<Ticket> = (0..100).map(|_| waiters.register()).collect();
        let first: u128 = u128::from_str_radix(tickets[0].name(), 16).expect("a number");
        for ticket in &tickets[1..] {
            let name = u128::from_str_radix(ticket.name(), 16).expect("a number");
            assert!(ticket.name().len() == 32 && name.abs_diff(first) > 1_000, "{name} after {first}");
        }
    }
}
