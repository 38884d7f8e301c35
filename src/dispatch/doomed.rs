//! Finds waiting rows that are to be ended without a call: those that have expired, whatever keeps them waiting, and those of
//! cancelled campaigns. The dispatcher ends them, as only the owner of a line's partition changes its waiting rows.
//!
//! None of them is sent meanwhile: a claim refuses it. Worst delay: [`EXPIRED_EVERY`] and [`CANCELLED_EVERY`], and as long as
//! the rows take to be written.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::message::Partition;
use crate::store::{ChangeKind, DispatchStore, DoomedRow, StoreError};

const EXPIRED_EVERY: Duration = Duration::from_secs(5);
const CANCELLED_EVERY: Duration = Duration::from_secs(5);
/// Rows ended before the next look.
const ROWS: u32 = 2_000;
/// Rows of `work` looked through for expired rows at once.
const WORK: u32 = 64;
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Looks through the partitions in `owned` until `stop`.
pub async fn run(
    store: Arc<dyn DispatchStore>,
    owned: watch::Receiver<Vec<Partition>>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let looks = async {
        tokio::join!(
            look(&owned, &events, EXPIRED_EVERY, ChangeKind::Expire, |partitions| {
                let store = store.clone();
                Box::pin(async move { store.expired_rows(&partitions, WORK).await })
            }),
            look(&owned, &events, CANCELLED_EVERY, ChangeKind::Cancel, |partitions| {
                let store = store.clone();
                Box::pin(async move { store.cancelled_rows(&partitions, ROWS).await })
            })
        )
    };
    tokio::select! {
        _ = looks => {}
        () = stop.cancelled() => {}
    }
}

/// Looks again and again; at once, while there are rows.
async fn look(
    owned: &watch::Receiver<Vec<Partition>>,
    events: &mpsc::UnboundedSender<Event>,
    every: Duration,
    kind: ChangeKind,
    find: impl Fn(Vec<Partition>) -> BoxFuture<'static, Result<Vec<DoomedRow>, StoreError>>,
) {
    loop {
        let partitions = owned.borrow().clone();
        let found = if partitions.is_empty() { Ok(Vec::new()) } else { find(partitions).await };
        let pause = match found {
            Ok(rows) if rows.is_empty() => every,
            Ok(rows) => {
                let (written, is_written) = oneshot::channel();
                // The dispatcher is gone only when the process ends.
                let _ = events.send(Event::Doomed { rows, kind: kind.clone(), written });
                // Rows in a call are found again: a moment's rest keeps this from turning.
                if is_written.await == Ok(true) { Duration::ZERO } else { every }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for rows to end: retrying");
                AFTER_FAILURE.max(every)
            }
        };
        tokio::time::sleep(pause).await;
    }
}
