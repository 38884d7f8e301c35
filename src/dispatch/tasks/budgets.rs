//! Writes what this worker has learnt of Meta's budgets, and reads what the others have.
//!
//! A failure costs nothing: the next round writes and reads again, and answers of Graph tell the use meanwhile. Never
//! here: what follows from a use.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dispatch::event::Event;
use crate::domain::LineId;
use crate::metrics::METRICS;
use crate::store::{BudgetRow, BudgetScope, MESSAGES_AN_ENGAGED_USER, SharedStore, StoreError};

/// Lines whose persons are counted in one statement.
const COUNTED_AT_ONCE: usize = 500;
/// The pause between deletions of old rows.
const DROP_EVERY: Duration = Duration::from_secs(3_600);

/// An order of the dispatcher.
#[derive(Default)]
pub struct BudgetOrder {
    pub write: Vec<BudgetRow>,
    pub read: Vec<BudgetScope>,
    /// Lines whose persons are to be counted.
    pub count: Vec<LineId>,
}

/// Carry out orders until the dispatcher is gone or `stop`.
pub async fn run(
    worker: String,
    store: SharedStore,
    mut orders: mpsc::UnboundedReceiver<BudgetOrder>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let mut dropped_at = None;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = stop.cancelled() => return,
        };
        let Some(order) = order else { return };
        let done = tokio::select! {
            done = carry_out(&worker, &store, &events, &order) => done,
            () = stop.cancelled() => return,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "cannot share Meta's budgets with other workers: the next round does");
        }
        let is_due = dropped_at.is_none_or(|at: Instant| at.elapsed() >= DROP_EVERY);
        if is_due && !order.write.is_empty() {
            dropped_at = Some(Instant::now());
            if let Err(error) = store.drop_old_budgets().await {
                tracing::debug!(%error, "cannot drop old rows of budgets");
            }
        }
    }
}

async fn carry_out(
    worker: &str,
    store: &SharedStore,
    events: &mpsc::UnboundedSender<Event>,
    order: &BudgetOrder,
) -> Result<(), StoreError> {
    store.write_budgets(worker, &order.write).await?;
    if !order.read.is_empty() {
        let rows = store.budgets(&order.read).await?;
        // The dispatcher is gone only when the process ends.
        let _ = events.send(Event::Budgets { read: order.read.clone(), rows });
    }
    for lines in order.count.chunks(COUNTED_AT_ONCE) {
        for (line, engaged) in store.count_engaged(lines).await? {
            METRICS.budgets.day(line.0, engaged.saturating_mul(MESSAGES_AN_ENGAGED_USER));
        }
    }
    Ok(())
}
