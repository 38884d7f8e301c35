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

/// Scans the partitions in `owned` until `shutdown`.
pub async fn run(
    store: SharedStore,
    broker: SharedBroker,
    mut owned: watch::Receiver<Vec<Partition>>,
    events: mpsc::UnboundedSender<Event>,
    shutdown: CancellationToken,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut scan = Scan { store, broker, events, ready_at: Instant::now(), claimed_at: Instant::now() };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            // What was taken over may have waited for a while: its rows are looked for at once.
            Ok(()) = owned.changed() => scan.ready_at = Instant::now(),
            () = shutdown.cancelled() => return,
        }
        let partitions = owned.borrow_and_update().clone();
        if partitions.is_empty() {
            continue;
        }
        if let Err(error) = scan.once(&partitions).await {
            tracing::warn!(%error, "the log cannot be scanned; trying again");
            tokio::time::sleep(READY_EVERY).await;
        }
    }
}

struct Scan {
    store: SharedStore,
    broker: SharedBroker,
    events: mpsc::UnboundedSender<Event>,
    ready_at: Instant,
    claimed_at: Instant,
}

impl Scan {
    async fn once(&mut self, partitions: &[Partition]) -> Result<(), StoreError> {
        while !failpoint::defect("due_scan_off") {
            let promoted = self.store.promote_due(partitions, PROMOTE_BATCH).await?;
            let count = promoted.len();
            if count > 0 {
                failpoint::hit("in_promote");
                self.tell(Event::Promoted(promoted));
            }
            if count < PROMOTE_BATCH as usize {
                break;
            }
        }
        let now = Instant::now();
        let is_due = now >= self.ready_at || self.broker.state() != BrokerState::Up;
        if is_due && !failpoint::defect("sweep_off") {
            let ready = self.store.ready_flows(partitions).await?;
            failpoint::hit("in_scan");
            self.tell(Event::Ready(ready));
            self.ready_at = now + READY_EVERY;
        }
        if now >= self.claimed_at {
            self.tell(Event::Claimed(self.store.claimed_rows(partitions).await?));
            self.claimed_at = now + CLAIMED_EVERY;
        }
        Ok(())
    }

    fn tell(&self, event: Event) {
        // The dispatcher is gone only when the process ends.
        let _ = self.events.send(event);
    }
}
