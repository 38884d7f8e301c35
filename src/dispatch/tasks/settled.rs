//! Informs producers and listeners of rows that an operator settled, or that were cancelled one by one.
//!
//! `log resolve` and a cancelling call write into the log alone: the process may have no way to the broker.
//! They note the settled rows in the same transaction, and any process that sends takes the notes and
//! publishes. The notes are taken before publishing, so that no event is sent twice. Worst delay: five
//! seconds, while broker and database answer.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::feedback::Feedback;
use crate::store::{SettledRow, SharedStore, StoreError};
use crate::tasks::every;

/// Rows published at once: fewer than the broker's queues hold.
const MAX_BATCH_ROWS: u32 = 1_000;
const POLL_EVERY: Duration = Duration::from_secs(5);
/// The pause while more notes are left than one batch holds.
const POLL_AGAIN: Duration = Duration::from_millis(200);

/// Publish until `stop`.
pub async fn run(store: SharedStore, feedback: Feedback, stop: CancellationToken) {
    every(stop, || async {
        // While the broker is away the notes are kept.
        if !feedback.can_publish() {
            return POLL_EVERY;
        }
        match announce(&store, &feedback).await {
            Ok(told) if told >= MAX_BATCH_ROWS as usize => POLL_AGAIN,
            Ok(_) => POLL_EVERY,
            Err(error) => {
                tracing::warn!(%error, "cannot announce settled rows: retrying");
                POLL_EVERY
            }
        }
    })
    .await;
}

/// Publish a batch, and return its size.
async fn announce(store: &SharedStore, feedback: &Feedback) -> Result<usize, StoreError> {
    let settled = store.take_settled(MAX_BATCH_ROWS).await?;
    let told = settled.len();
    for SettledRow { outcome, waiter } in settled {
        if outcome.status.is_final() {
            feedback.ended(outcome, waiter.as_deref());
        } else {
            feedback.became([outcome.cdls_id], outcome.status);
        }
    }
    Ok(told)
}
