//! Writes that are not about a call: pauses into the lines' records, and the end of rows that expired while their
//! line did not send.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::broker::SharedBroker;
use crate::message::{LineId, MessageId, Outcome, Reply, Status};
use crate::store::{PauseScope, SharedStore, StoreError};

/// Rows one transaction ends.
const EXPIRE_BATCH: u32 = 1_000;

/// What is to be written.
pub enum Order {
    Pause {
        scope: PauseScope,
        length: Duration,
        reason: String,
    },
    /// End the line's pause: it was demanded of a page token that has been replaced.
    Resume(LineId),
    /// End the expired rows of a line that does not send.
    Expire(LineId),
}

/// How long after a failure a pause is written again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Carries out orders until the dispatcher is gone or `stop`. A pause that cannot be written is tried again, as it can
/// be ended by others only when its line's record shows it; the rest is ordered again anyway.
pub async fn run(
    store: SharedStore,
    broker: SharedBroker,
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
            Some(Order::Expire(line)) => expire(&store, &broker, line).await,
            None => return,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a line could not be resumed, or its expired rows ended");
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

async fn expire(store: &SharedStore, broker: &SharedBroker, line: LineId) -> Result<(), StoreError> {
    loop {
        let expired = store.expire_waiting(line, EXPIRE_BATCH).await?;
        let count = expired.len();
        for (id, waiter) in expired {
            tell_waiter(broker, id, waiter);
        }
        if count < EXPIRE_BATCH as usize {
            return Ok(());
        }
    }
}

fn tell_waiter(broker: &SharedBroker, id: MessageId, waiter: Option<String>) {
    if let Some((address, ticket)) = waiter.as_deref().and_then(|waiter| waiter.rsplit_once('/')) {
        let outcome =
            Outcome { cdls_id: id, status: Status::Error, status_code: 0, message_id: String::new() };
        broker.reply(address, Reply { ticket: ticket.to_owned(), outcome });
    }
}
