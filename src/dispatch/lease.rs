//! Keeps this process's share of the partitions: renews, takes free ones, gives a surplus back.
//!
//! Exactness rests on three things: a claim checks the lease in the database; this process stops sending a margin
//! before its leases end, by its own monotonic clock ([`SendUntil`]); a new owner's limiters start drained. So no
//! one-second window holds the calls of two owners.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::broker::SharedBroker;
use crate::failpoint;
use crate::message::{PARTITIONS, Partition};
use crate::metrics::METRICS;
use crate::store::{SchemaState, SharedStore, StoreError};

/// Until when this process may begin calls: a margin before its leases end.
#[derive(Clone, Default)]
pub struct SendUntil(Arc<Mutex<Option<Instant>>>);

impl SendUntil {
    pub fn allows(&self, now: Instant) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| now < until || failpoint::defect("lease_ignored"))
    }

    pub(super) fn set(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// The task that keeps the leases.
pub struct LeaseKeeper {
    pub worker: String,
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub lease: Duration,
    /// Recipients are held back whose claim ends, or whose retry is due, within this long; those of a retry that Graph
    /// itself put off for longer are not.
    pub held_within: Duration,
    pub events: mpsc::UnboundedSender<Event>,
    /// The partitions owned, for scans.
    pub owned: watch::Sender<Vec<Partition>>,
    /// Their number, for health checks.
    pub held: watch::Sender<usize>,
    pub send_until: SendUntil,
}

impl LeaseKeeper {
    /// Renews every 0.3 of a lease, and looks for free partitions at least every half second, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval((self.lease * 3 / 10).min(Duration::from_millis(500)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut knows_schema = false;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let kept =
                if knows_schema { self.keep().await } else { self.look_at_schema(&mut knows_schema).await };
            if let Err(error) = kept {
                tracing::warn!(%error, "leases cannot be renewed");
            }
        }
    }

    /// On a schema older than this program's, results of calls could not be written: no partition is taken before
    /// `migrate` has run. Later versions only add to it.
    async fn look_at_schema(&self, known: &mut bool) -> Result<(), StoreError> {
        *known = self.store.schema().await? != SchemaState::Older;
        Ok(())
    }

    async fn keep(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        // In time for another connection, if this one's server has vanished.
        let renewing =
            tokio::time::timeout(self.lease / 2, self.store.renew_leases(&self.worker, self.lease));
        let report =
            renewing.await.map_err(|_| StoreError::Unavailable("no answer within half a lease".into()))??;
        self.send_until.set(asked + self.lease - self.margin());

        let held: BTreeSet<Partition> = report.held.iter().map(|lease| lease.partition).collect();
        let lost: Vec<Partition> =
            self.owned.borrow().iter().copied().filter(|partition| !held.contains(partition)).collect();
        if !lost.is_empty() && !failpoint::defect("lease_ignored") {
            tracing::warn!(partitions = lost.len(), "leases ran out and were taken over");
            self.let_go(&lost).await;
        }
        // Ours by the database, and not known here: the answer to a take-over was lost.
        let unknown: Vec<Partition> =
            held.iter().copied().filter(|partition| !self.owned.borrow().contains(partition)).collect();
        self.take(unknown).await?;

        let share = (PARTITIONS as usize).div_ceil(report.workers.max(1));
        if held.len() > share {
            let surplus: Vec<Partition> = held.iter().rev().take(held.len() - share).copied().collect();
            self.let_go(&surplus).await;
            self.store.release_leases(&self.worker, &surplus).await?;
        } else if held.len() < share {
            let taken = self.store.acquire_leases(&self.worker, self.lease, share - held.len()).await?;
            self.take(taken.iter().map(|lease| lease.partition).collect()).await?;
        }
        Ok(())
    }

    /// How long before the end of a lease the last call may begin.
    fn margin(&self) -> Duration {
        (self.lease / 5).min(Duration::from_secs(2))
    }

    async fn take(&self, partitions: Vec<Partition>) -> Result<(), StoreError> {
        if partitions.is_empty() {
            return Ok(());
        }
        let held = self.store.held_recipients(&partitions, self.held_within).await?;
        tracing::info!(partitions = partitions.len(), "took over partitions");
        let mut owned: BTreeSet<Partition> = self.owned.borrow().iter().copied().collect();
        owned.extend(&partitions);
        // The dispatcher is gone only when the process ends.
        let _ = self.events.send(Event::Gained { partitions, held });
        self.publish(owned);
        Ok(())
    }

    /// Lets partitions go once the dispatcher has stopped sending for them.
    async fn let_go(&self, partitions: &[Partition]) {
        let mut owned: BTreeSet<Partition> = self.owned.borrow().iter().copied().collect();
        owned.retain(|partition| !partitions.contains(partition));
        self.publish(owned);
        let (stopped, wait) = oneshot::channel();
        let _ = self.events.send(Event::Lost { partitions: partitions.to_vec(), stopped });
        let _ = wait.await;
    }

    fn publish(&self, owned: BTreeSet<Partition>) {
        let owned: Vec<Partition> = owned.into_iter().collect();
        self.broker.consume(&owned);
        self.held.send_replace(owned.len());
        METRICS.dispatch.leases.set(owned.len() as f64);
        self.owned.send_replace(owned);
    }
}
