//! Looks through the log for what no job named: ready rows, rows that are due, claims without a call.
//!
//! This is why losing a job, a queue or the whole broker loses no message: every owner scans its own partitions.
//! Worst delays: a ready row 1 s (250 ms while the broker is away), a due row 250 ms, a claim without a call 2 s.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::broker::{BrokerState, SharedBroker};
use crate::failpoint;
use crate::message::Partition;
use crate::store::{SharedStore, StoreError};

const TICK: Duration = Duration::from_millis(250);
/// Rows one statement makes ready.
const PROMOTE_BATCH: u32 = 1_000;
const READY_EVERY: Duration = Duration::from_secs(1);
const CLAIMED_EVERY: Duration = Duration::from_secs(2);

/// What scans are made from.
pub struct Scanner {
    pub store: SharedStore,
    pub broker: SharedBroker,
    /// The partitions scanned.
    pub owned: watch::Receiver<Vec<Partition>>,
    pub events: mpsc::UnboundedSender<Event>,
    /// A claim's deadline is never farther away.
    pub call_deadline: Duration,
}

/// When ready rows and claims are looked for again.
struct NextLook {
    ready: Instant,
    claimed: Instant,
}

impl Scanner {
    /// Scans until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        let mut next = NextLook { ready: now, claimed: now };
        let mut more_is_due = false;
        while !shutdown.is_cancelled() {
            if !more_is_due {
                tokio::select! {
                    _ = tick.tick() => {}
                    Ok(()) = self.owned.changed() => self.owned.mark_changed(),
                    () = shutdown.cancelled() => return,
                }
            }
            if self.owned.has_changed().unwrap_or(false) {
                // What was taken over may have waited for a while: its rows are looked for at once.
                next.ready = Instant::now();
            }
            let partitions = self.owned.borrow_and_update().clone();
            more_is_due = !partitions.is_empty()
                && match self.look(&partitions, &mut next).await {
                    Ok(more_is_due) => more_is_due,
                    Err(error) => {
                        tracing::warn!(%error, "the log cannot be scanned; trying again");
                        tokio::time::sleep(READY_EVERY).await;
                        false
                    }
                };
        }
    }

    /// One look at everything whose time has come; says whether more rows are due than were made ready.
    async fn look(&self, partitions: &[Partition], next: &mut NextLook) -> Result<bool, StoreError> {
        let mut more_is_due = false;
        if !failpoint::defect("due_scan_off") {
            let promoted = self.store.promote_due(partitions, PROMOTE_BATCH).await?;
            more_is_due = promoted.len() >= PROMOTE_BATCH as usize;
            if !promoted.is_empty() {
                failpoint::hit("in_promote");
                self.tell(Event::Promoted(promoted));
            }
        }
        let now = Instant::now();
        let is_due = now >= next.ready || self.broker.state() != BrokerState::Up;
        if is_due {
            let sweeps = !failpoint::defect("sweep_off");
            let flows = if sweeps { self.store.ready_flows(partitions).await? } else { Vec::new() };
            failpoint::hit("in_scan");
            self.tell(Event::Ready { scanned: partitions.to_vec(), flows });
            next.ready = now + READY_EVERY;
        }
        if now >= next.claimed {
            self.tell(Event::Claimed(self.store.claimed_rows(partitions, self.call_deadline).await?));
            next.claimed = now + CLAIMED_EVERY;
        }
        Ok(more_is_due)
    }

    fn tell(&self, event: Event) {
        // The dispatcher is gone only when the process ends.
        let _ = self.events.send(event);
    }
}
