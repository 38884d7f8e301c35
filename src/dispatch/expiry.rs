//! Ends waiting rows whose time has passed, whatever keeps them waiting: their line (paused, inactive, without a token),
//! their campaign, or a long backlog.
//!
//! An expired row is never sent, whether it was looked for or not: a claim refuses it. Looking costs a walk over all
//! waiting rows of this process's partitions, so it may take [`SHARE`] of the time. A piece of each flow is walked in
//! turn, so that one long backlog does not keep the others waiting. Worst delay: [`EVERY`], and as long as the walk takes,
//! about ten seconds for each 100,000 rows that wait.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::feedback::Feedback;
use crate::message::{MessageId, Outcome, Partition, Status};
use crate::store::{Flow, SharedStore, StoreError};

/// How long the walk rests when it has been everywhere.
const EVERY: Duration = Duration::from_secs(2);
/// Flows one statement walks.
const FLOWS: usize = 32;
/// Rows one statement looks at, of all its flows.
const ROWS: u32 = 32_000;
/// Rows one transaction ends.
const BATCH: usize = 1_000;
/// Looking takes one part in this many of the time.
const SHARE: u32 = 50;

/// Looks through the partitions in `owned` until `stop`.
pub async fn run(
    store: SharedStore,
    feedback: Feedback,
    owned: watch::Receiver<Vec<Partition>>,
    stop: CancellationToken,
) {
    let mut walk = Walk { store, feedback, unfinished: BTreeMap::new() };
    let walking = async {
        loop {
            let partitions = owned.borrow().clone();
            if let Err(error) = walk.round(&partitions).await {
                tracing::warn!(%error, "expired rows cannot be looked for; trying again");
            }
            if walk.unfinished.is_empty() {
                tokio::time::sleep(EVERY).await;
            }
        }
    };
    tokio::select! {
        () = walking => {}
        () = stop.cancelled() => {}
    }
}

struct Walk {
    store: SharedStore,
    feedback: Feedback,
    /// Flows that were not walked to their end yet, with the last id looked at.
    unfinished: BTreeMap<Flow, MessageId>,
}

impl Walk {
    /// Looks at a piece of every flow. After a failure all are walked from their beginning again.
    async fn round(&mut self, partitions: &[Partition]) -> Result<(), StoreError> {
        let mut reached = std::mem::take(&mut self.unfinished);
        if partitions.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let flows: Vec<(Flow, MessageId)> = self
            .store
            .waiting_flows(partitions)
            .await?
            .into_iter()
            .map(|flow| {
                let after = reached.remove(&flow).unwrap_or(MessageId(0));
                (flow, after)
            })
            .collect();
        rest(started.elapsed()).await;
        let mut unfinished = BTreeMap::new();
        for group in flows.chunks(FLOWS) {
            self.piece(group, &mut unfinished).await?;
        }
        self.unfinished = unfinished;
        Ok(())
    }

    async fn piece(
        &self,
        flows: &[(Flow, MessageId)],
        unfinished: &mut BTreeMap<Flow, MessageId>,
    ) -> Result<(), StoreError> {
        let limit = ROWS / flows.len() as u32;
        let started = Instant::now();
        let walked = self.store.walk_waiting(flows, limit).await?;
        let took = started.elapsed();
        let mut expired = Vec::new();
        for ((flow, _), walked) in flows.iter().zip(walked) {
            if walked.rows >= limit {
                unfinished.insert(flow.clone(), walked.last);
            }
            expired.extend(walked.expired);
        }
        for ids in expired.chunks(BATCH) {
            self.end(ids).await?;
        }
        rest(took).await;
        Ok(())
    }

    async fn end(&self, ids: &[MessageId]) -> Result<(), StoreError> {
        for (id, waiter) in self.store.expire(ids).await? {
            let (status, message_id) = (Status::Error, String::new());
            let outcome = Outcome { cdls_id: id, status, status_code: 0, message_id };
            self.feedback.ended(outcome, waiter.as_deref());
        }
        Ok(())
    }
}

/// Leaves the others their share of the time after a look that took so long.
async fn rest(took: Duration) {
    tokio::time::sleep(took * (SHARE - 1)).await;
}
