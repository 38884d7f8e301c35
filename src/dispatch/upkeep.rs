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

/// How long after a failure an order is carried out again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Carries out orders, one after the other, until the dispatcher is gone or `stop`. One that cannot be carried out is
/// tried again: a pause can be ended by others only when the line's record shows it, and its end is ordered once.
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
        let Some(order) = order else { return };
        while let Err(error) = carry_out(&store, &events, &order).await {
            tracing::warn!(%error, "cannot write the start or end of a pause: retrying");
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

async fn carry_out(
    store: &SharedStore,
    events: &mpsc::UnboundedSender<Event>,
    order: &Order,
) -> Result<(), StoreError> {
    match order {
        Order::Pause { scope, length, reason } => pause(store, events, *scope, *length, reason).await,
        Order::Resume(line) => store.resume_line(*line).await.map(drop),
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
