//! Counts of the rows that are not final, and of the lines that do not send, for metrics, with a log line when messages
//! become UNKNOWN.
//!
//! Every process counts the same rows; counting may take a fiftieth of its time. Never here: settling a row.

use std::time::{Duration, Instant};

use crate::domain::Status;
use crate::metrics::METRICS;
use crate::store::{LineSummary, OpenRows, SharedStore};

/// How often rows are counted, at most.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// Counting may take this share of the time: many rows are counted less often.
const COUNT_SHARE: u32 = 50;

/// Count for ever. `warns`: whether this process logs an increase of UNKNOWN rows.
pub async fn watch_rows(store: SharedStore, warns: bool) {
    let mut known = 0;
    let mut warns_of = None;
    loop {
        let started = Instant::now();
        match store.open_rows().await {
            Ok(open) => {
                show(&open);
                if warns && open.unknown > known {
                    tracing::warn!(
                        rows = open.unknown,
                        more = open.unknown - known,
                        oldest_seconds = open.oldest_unknown.unwrap_or_default().as_secs(),
                        "messages are UNKNOWN: Graph may have taken them; settle them with `log resolve`"
                    );
                }
                known = open.unknown;
            }
            Err(error) => {
                METRICS.rows.database_up.set(0.0);
                tracing::debug!(%error, "rows cannot be counted");
            }
        }
        match store.stopped_lines().await {
            Ok(lines) => show_stopped(&lines),
            Err(error) => tracing::debug!(%error, "lines cannot be counted"),
        }
        let reason = store.not_writable().await.unwrap_or_else(|error| Some(error.to_string()));
        METRICS.rows.database_writable.set(f64::from(u8::from(reason.is_none())));
        match reason {
            Some(reason) if warns_of != Some(reason.clone()) => {
                tracing::error!(reason, "database not writable: messages are not logged or sent");
                warns_of = Some(reason);
            }
            Some(_) => {}
            None => warns_of = None,
        }
        METRICS.fold();
        tokio::time::sleep((started.elapsed() * COUNT_SHARE).max(COUNT_EVERY)).await;
    }
}

fn show(open: &OpenRows) {
    let rows = &METRICS.rows;
    rows.open(Status::Pending, open.pending);
    rows.open(Status::Sending, open.sending);
    rows.open(Status::Retry, open.retry);
    rows.open(Status::Unknown, open.unknown);
    rows.unknown.set(open.unknown as f64);
    rows.oldest_unknown_seconds.set(open.oldest_unknown.unwrap_or_default().as_secs_f64());
    rows.database_up.set(1.0);
}

fn show_stopped(lines: &[LineSummary]) {
    let held_up = lines.iter().filter(|line| line.held_up().is_some()).count();
    METRICS.rows.lines_held_up.set(held_up as f64);
    METRICS.rows.lines_stopped.set((lines.len() - held_up) as f64);
}
