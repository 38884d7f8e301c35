//! Tells producers and listeners of the rows that an operator settled.
//!
//! `log resolve` writes into the log alone: where it runs there may be no way to the broker. What it settled is noted in
//! the same transaction, and any process that sends takes the notes and tells. Taken first and told then, so that
//! nobody is told twice. Worst delay: five seconds, while broker and database answer.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::feedback::Feedback;
use crate::store::{SettledRow, SharedStore, StoreError};

/// Rows told of at once: fewer than the broker's queues hold.
const BATCH: u32 = 1_000;
const EVERY: Duration = Duration::from_secs(5);

/// Tells until `stop`.
pub async fn run(store: SharedStore, feedback: Feedback, stop: CancellationToken) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        // While the broker is away the notes are kept.
        if !feedback.is_heard() {
            continue;
        }
        if let Err(error) = tell(&store, &feedback).await {
            tracing::warn!(%error, "cannot announce settled rows: retrying");
        }
    }
}

async fn tell(store: &SharedStore, feedback: &Feedback) -> Result<(), StoreError> {
    for SettledRow { outcome, waiter } in store.take_settled(BATCH).await? {
        if outcome.status.is_final() {
            feedback.ended(outcome, waiter.as_deref());
        } else {
            feedback.became([outcome.cdls_id], outcome.status);
        }
    }
    Ok(())
}
