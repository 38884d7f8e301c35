//! Applies events: groups a batch by what it changes, and has the store write each group.
//!
//! A batch may be applied twice, and after a later one. When one group cannot be written, the whole batch is applied again.
//! Never here: the reading of Meta's JSON, and SQL.

mod changes;

use std::collections::HashSet;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::echoes::{EchoReader, note_echoes};
use super::event::{Event, EventKind};
use crate::channel::Class;
use crate::feedback::Feedback;
use crate::metrics::METRICS;
use crate::store::{Enforced, Received, SharedStore, StoreError};
use crate::tasks::every;

use changes::{Changes, Warning};

/// Changes that one statement writes.
const AT_ONCE: usize = 500;

/// How often receipts are looked at that came before the outcome of their message.
const EARLY_EVERY: Duration = Duration::from_secs(2);
/// Such receipts that are applied at once.
const MAX_EARLY: u32 = 500;

/// Apply the events of a batch. After an error the same batch may be applied again.
pub async fn apply(
    store: &SharedStore,
    feedback: &Feedback,
    echoes: &EchoReader,
    batch: Vec<Event>,
) -> Result<(), StoreError> {
    let pages = pages(&batch);
    let lines = if pages.is_empty() { Vec::new() } else { store.event_lines(&pages).await? };
    let changes = Changes::of(&batch, &lines, OffsetDateTime::now_utc());
    // Recipients first: a message that waits for a window may go on.
    for inbound in changes.inbound.chunks(AT_ONCE) {
        store.note_inbound(inbound).await?;
    }
    for heard in changes.echoes.chunks(AT_ONCE) {
        note_echoes(store.as_ref(), echoes, heard).await?;
    }
    for receipts in changes.receipts.chunks(AT_ONCE) {
        tell(feedback, &store.receive(receipts).await?);
    }
    if !changes.enforced.is_empty() {
        enforce(store, &changes.enforced).await?;
    }
    changes.warnings.iter().for_each(warn);
    count(&batch, &changes);
    Ok(())
}

/// Apply receipts that came before the outcome of their message, until `stop`.
pub async fn apply_early(store: SharedStore, feedback: Feedback, stop: CancellationToken) {
    every(stop, || async {
        match store.receive_early(MAX_EARLY).await {
            Ok(received) => tell(&feedback, &received),
            Err(error) => tracing::warn!(%error, "cannot apply early receipts: retrying"),
        }
        EARLY_EVERY
    })
    .await;
}

/// Return the Pages and Instagram accounts whose lines the events concern.
fn pages(batch: &[Event]) -> Vec<(Class, String)> {
    let concerned = batch.iter().filter(|event| !matches!(event.kind, EventKind::Unknown(_)));
    let pages: HashSet<(Class, &str)> =
        concerned.map(|event| (event.object.class(), event.account.as_str())).collect();
    let named = pages.into_iter().filter(|(_, account)| !account.is_empty());
    named.map(|(class, account)| (class, account.to_owned())).collect()
}

fn tell(feedback: &Feedback, received: &[Received]) {
    let count = |is_new: fn(&Received) -> bool| received.iter().filter(|row| is_new(row)).count() as u64;
    METRICS.meta_events.delivered.increment(count(|row| row.delivered_at.is_some()));
    METRICS.meta_events.read.increment(count(|row| row.read_at.is_some()));
    feedback.received(received);
}

async fn enforce(store: &SharedStore, enforced: &[Enforced]) -> Result<(), StoreError> {
    for line in store.enforce(enforced).await? {
        let newest = enforced.iter().filter(|event| event.line == line).max_by_key(|event| event.at);
        match newest.and_then(|event| event.pause.as_deref()) {
            Some(reason) => tracing::error!(line = line.0, reason, "account blocked by Meta: line paused"),
            None => tracing::info!(line = line.0, "block of the account lifted by Meta: line resumed"),
        }
    }
    Ok(())
}

fn warn(warning: &Warning) {
    tracing::warn!(
        line = warning.line.0,
        reason = warning.reason,
        "account warned by Meta: it may be blocked; see the Page's support inbox"
    );
}

/// Count what is counted once the whole batch is applied.
fn count(batch: &[Event], changes: &Changes<'_>) {
    let metrics = &METRICS.meta_events;
    for event in batch {
        if let EventKind::Unknown(name) = &event.kind {
            metrics.unknown(name);
            tracing::debug!(name, object = ?event.object, "event without an effect: skipped");
        }
    }
    metrics.without_line.increment(changes.without_line);
    metrics.warnings.increment(changes.warnings.len() as u64);
    let blocks = changes.enforced.iter().filter(|event| event.pause.is_some()).count();
    metrics.blocks.increment(blocks as u64);
    metrics.unblocks.increment((changes.enforced.len() - blocks) as u64);
}
