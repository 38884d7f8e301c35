//! Ends rows that expired while their line did not get to them: paused, without a token, or behind a long backlog.
//!
//! An expired row is never sent, whether it was looked for or not: a claim refuses it. Looking costs a walk over the
//! line's waiting rows, so it may take [`SHARE`] of the time: with a million of them it takes minutes until the last
//! expired row shows as ERROR.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::feedback::Feedback;
use crate::message::{LineId, Outcome, Status};
use crate::store::{SharedStore, StoreError};

/// Rows one transaction ends.
const BATCH: u32 = 1_000;
/// One part in this many of the time.
const SHARE: u32 = 50;

/// Looks through the lines asked for, one at a time, until the dispatcher is gone or `stop`.
pub async fn run(
    store: SharedStore,
    feedback: Feedback,
    mut lines: mpsc::UnboundedReceiver<LineId>,
    stop: CancellationToken,
) {
    let mut asked = BTreeSet::new();
    let mut rest = Duration::ZERO;
    loop {
        let received = tokio::select! {
            received = lines.recv(), if asked.is_empty() => received,
            () = tokio::time::sleep(rest), if !asked.is_empty() => None,
            () = stop.cancelled() => return,
        };
        asked.extend(received);
        if lines.is_closed() {
            return;
        }
        while let Ok(line) = lines.try_recv() {
            asked.insert(line);
        }
        let Some(line) = asked.pop_first() else { continue };
        let started = Instant::now();
        if let Err(error) = expire(&store, &feedback, line).await {
            tracing::warn!(%line, %error, "expired rows cannot be looked for; trying again");
        }
        rest = started.elapsed() * (SHARE - 1);
    }
}

async fn expire(store: &SharedStore, feedback: &Feedback, line: LineId) -> Result<(), StoreError> {
    loop {
        let expired = store.expire_waiting(line, BATCH).await?;
        let count = expired.len();
        for (id, waiter) in expired {
            let outcome =
                Outcome { cdls_id: id, status: Status::Error, status_code: 0, message_id: String::new() };
            feedback.ended(outcome, waiter.as_deref());
        }
        if count < BATCH as usize {
            return Ok(());
        }
    }
}
