//! Writes down recipients that cannot be reached, and finds messages whose recipients' windows close soon.
//!
//! Neither is urgent: a mark that is written late costs a call, and a look that fails is repeated with the next. Never
//! here: what ends a message.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dispatch::event::Event;
use crate::domain::LineId;
use crate::store::{ClosingLook, ClosingRows, SharedStore, StoreError, Unreachable};

/// Orders carried out together.
const MAX_ORDERS: usize = 256;
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// An order of the dispatcher.
pub enum RecipientOrder {
    /// Note that the recipient cannot be reached.
    Unreachable(Unreachable),
    /// Look at lines, one flow of each.
    Closing(Vec<ClosingLook>),
}

/// Carry out orders until the dispatcher is gone or `stop`.
pub async fn run(
    store: SharedStore,
    mut orders: mpsc::UnboundedReceiver<RecipientOrder>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let mut received = Vec::new();
    loop {
        let count = tokio::select! {
            count = orders.recv_many(&mut received, MAX_ORDERS) => count,
            () = stop.cancelled() => return,
        };
        if count == 0 {
            return;
        }
        let (mut gone, mut looks) = (Vec::new(), Vec::new());
        for order in received.drain(..) {
            match order {
                RecipientOrder::Unreachable(recipient) => gone.push(recipient),
                RecipientOrder::Closing(asked) => looks.extend(asked),
            }
        }
        mark(&store, &gone, &stop).await;
        tokio::select! {
            () = look(&store, &looks, &events) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Write the marks, also those of calls that ended while the process stops: one try then.
async fn mark(store: &SharedStore, gone: &[Unreachable], stop: &CancellationToken) {
    if gone.is_empty() {
        return;
    }
    while let Err(error) = store.mark_unreachable(gone).await {
        tracing::warn!(%error, "cannot note unreachable recipients: retrying");
        tokio::select! {
            () = tokio::time::sleep(AFTER_FAILURE) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn look(store: &SharedStore, looks: &[ClosingLook], events: &mpsc::UnboundedSender<Event>) {
    if looks.is_empty() {
        return;
    }
    let lines: Vec<LineId> = looks.iter().map(|look| look.flow.line).collect();
    let open = store.lines_with_open_windows(&lines).await;
    let open = open.unwrap_or_else(|error| unfound(&error));
    for look in looks {
        let line = look.flow.line;
        let found = match open.contains(&line) {
            true => store.closing_rows(look).await.unwrap_or_else(|error| unfound(&error)),
            false => ClosingRows::default(),
        };
        // The dispatcher is gone only when the process ends.
        let _ = events.send(Event::Closing { line, found });
    }
}

/// Report a look that failed, and return nothing found.
fn unfound<T: Default>(error: &StoreError) -> T {
    tracing::debug!(%error, "cannot look for closing windows: looking again later");
    T::default()
}
