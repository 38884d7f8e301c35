//! Writes into the lines' records: pauses that Graph demanded, and their end.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::message::LineId;
use crate::store::{PauseScope, SharedStore, StoreError};

/// What is to be written.
pub enum Order {
    Pause {
        scope: PauseScope,
        length: Duration,
        reason: String,
    },
    /// End the line's pause: it was demanded of a page token that has been replaced.
    Resume(LineId),
}

/// How long after a failure a pause is written again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Carries out orders until the dispatcher is gone or `stop`. A pause that cannot be written is tried again, as it can
/// be ended by others only when its line's record shows it; the rest is ordered again anyway.
pub async fn run(
    store: SharedStore,
    mut orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = stop.cancelled() => return,
        };
        let done = match order {
            Some(Order::Pause { scope, length, reason }) => {
                while let Err(error) = pause(&store, &events, scope, length, &reason).await {
                    tracing::warn!(%error, "a pause cannot be written; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN_AFTER) => {}
                        () = stop.cancelled() => return,
                    }
                }
                Ok(())
            }
            Some(Order::Resume(line)) => store.resume_line(line).await.map(drop),
            None => return,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a line could not be resumed");
        }
    }
}

async fn pause(
    store: &SharedStore,
    events: &mpsc::UnboundedSender<Event>,
    scope: PauseScope,
    length: Duration,
    reason: &str,
) -> Result<(), StoreError> {
    store.pause(scope, length, reason).await?;
    let records = match scope {
        PauseScope::Line(line) => store.lines(&[line]).await?,
        PauseScope::App => store.all_lines().await?,
    };
    // The dispatcher is gone only when the process ends.
    let _ = events.send(Event::Lines { asked: Vec::new(), records, pause_written: true });
    Ok(())
}
