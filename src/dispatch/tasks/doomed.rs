//! Finds waiting rows to end without a call: expired rows, whatever keeps them waiting, and rows of cancelled
//! campaigns. The dispatcher ends them, as only the owner of a line's partition changes its waiting rows.
//!
//! None of these rows is sent meanwhile: a claim refuses it. Worst delay: [`EXPIRED_EVERY`] and
//! [`CANCELLED_EVERY`], plus the time for writing the rows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::dispatch::event::Event;
use crate::domain::Partition;
use crate::store::{ChangeKind, DispatchStore, DoomedRow, StoreError};
use crate::tasks::every;

const EXPIRED_EVERY: Duration = Duration::from_secs(5);
const CANCELLED_EVERY: Duration = Duration::from_secs(5);
/// Rows to end before the next look.
const MAX_ROWS: u32 = 2_000;
/// Rows of `work` looked through for expired rows at once.
const MAX_WORK: u32 = 64;
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Look through the partitions in `owned` until `stop`.
pub async fn run(
    store: Arc<dyn DispatchStore>,
    owned: watch::Receiver<Vec<Partition>>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let expired = || async {
        let partitions = owned.borrow().clone();
        let found = match partitions.is_empty() {
            true => Ok(Vec::new()),
            false => store.expired_rows(&partitions, MAX_WORK).await,
        };
        end(&events, ChangeKind::Expire, found, EXPIRED_EVERY).await
    };
    let cancelled = || async {
        let partitions = owned.borrow().clone();
        let found = match partitions.is_empty() {
            true => Ok(Vec::new()),
            false => store.cancelled_rows(&partitions, MAX_ROWS).await,
        };
        end(&events, ChangeKind::Cancel, found, CANCELLED_EVERY).await
    };
    tokio::join!(every(stop.clone(), expired), every(stop, cancelled));
}

/// Have the found rows ended. Return the pause before the next look: none while there are rows.
async fn end(
    events: &mpsc::UnboundedSender<Event>,
    kind: ChangeKind,
    found: Result<Vec<DoomedRow>, StoreError>,
    period: Duration,
) -> Duration {
    match found {
        Ok(rows) if rows.is_empty() => period,
        Ok(rows) => {
            let (written, is_written) = oneshot::channel();
            // The dispatcher is gone only when the process ends.
            let _ = events.send(Event::Doomed { rows, kind, written });
            // Rows in a call are found again: the pause prevents a busy loop.
            if is_written.await == Ok(true) { Duration::ZERO } else { period }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot look for rows to end: retrying");
            AFTER_FAILURE.max(period)
        }
    }
}
