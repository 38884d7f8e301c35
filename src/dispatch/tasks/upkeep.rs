//! Writes pauses into the lines' records, and their end: pauses that Graph demanded, and those of lines whose page
//! token cannot be opened.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dispatch::event::Event;
use crate::domain::LineId;
use crate::store::{PauseScope, SharedStore, StoreError, UNOPENED_PAUSE};

/// A change of a line's record.
pub enum PauseOrder {
    Pause {
        scope: PauseScope,
        length: Duration,
        reason: String,
    },
    /// End the line's pause: it was demanded of a page token that has been replaced.
    Resume(LineId),
    /// End the line's pause if it still has this reason.
    End {
        line: LineId,
        reason: String,
    },
    /// Report the lines that are paused because their page token could not be opened.
    FindUnopened,
}

/// The pause before a failed order is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Carry out orders, one after the other, until the dispatcher is gone or `stop`. A failed order is tried
/// again: an operator can end a pause only when the line's record shows it, and its end is ordered once.
pub async fn run(
    store: SharedStore,
    mut orders: mpsc::UnboundedReceiver<PauseOrder>,
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
    order: &PauseOrder,
) -> Result<(), StoreError> {
    match order {
        PauseOrder::Pause { scope, length, reason } => pause(store, events, *scope, *length, reason).await,
        PauseOrder::Resume(line) => store.resume_line(*line).await.map(drop),
        PauseOrder::End { line, reason } => store.end_pause(*line, reason).await.map(drop),
        PauseOrder::FindUnopened => {
            let lines = store.lines_paused_for(UNOPENED_PAUSE).await?;
            // The dispatcher is gone only when the process ends.
            let _ = events.send(Event::Unopened(lines));
            Ok(())
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
