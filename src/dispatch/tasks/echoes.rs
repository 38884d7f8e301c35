//! Settles rows whose calls ended without an answer, by the echoes that were noted meanwhile.
//!
//! An echo says that Meta has the message: its row becomes OK, whether it is UNKNOWN or waits for another try. The echo
//! of a call in flight waits until the call has ended, as nearly all calls end with an answer of their own. Worst delay:
//! [`LOOK_EVERY`] after the row's call has ended. Any worker settles any row: the recorder's statement checks the row's
//! fence.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::channel::MessageKind;
use crate::domain::RowId;
use crate::feedback::Feedback;
use crate::metrics::{METRICS, SettledBy};
use crate::policy::reconcile::{EchoMatch, SentRow, match_echo};
use crate::reconcile::{rows_of, settle_row};
use crate::store::{Change, ChangeKind, HeardEcho, NotedEcho, Record, SharedStore, StoreError, text_digest};
use crate::tasks::every;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Echoes of one look.
const AT_ONCE: u32 = 5_000;
/// Echoes of one look that name no row: each costs a look-up of its own.
const UNNAMED_AT_ONCE: u32 = 200;
/// Longer than any call, and any retry after an answer that may hide a success.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an echo that names no row is compared with rows that have not ended.
const UNNAMED_FOR: Duration = Duration::from_secs(15 * 60);

/// Settle until `stop`. `worker`: the name of this worker.
pub async fn run(worker: String, store: SharedStore, feedback: Feedback, stop: CancellationToken) {
    every(stop, || async {
        let looked = async {
            settle_named(&worker, &store, &feedback).await?;
            settle_unnamed(&store).await
        };
        match looked.await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(%error, "cannot settle messages by their echoes: retrying");
                AFTER_FAILURE
            }
        }
    })
    .await;
}

async fn settle_named(worker: &str, store: &SharedStore, feedback: &Feedback) -> Result<(), StoreError> {
    let noted = store.noted_echoes(AT_ONCE).await?;
    if noted.is_empty() {
        return Ok(());
    }
    let (settling, rest): (Vec<NotedEcho>, Vec<NotedEcho>) = noted.into_iter().partition(NotedEcho::settles);
    let mut over: Vec<RowId> = rest.iter().filter(|echo| echo.is_over()).map(|echo| echo.row).collect();
    over.extend(settle(worker, store, feedback, &settling).await?);
    store.forget_echoes(&over, &[], KEPT_FOR).await
}

/// Mark the rows of echoes OK; return the rows that were. A row that has changed meanwhile is looked at again.
async fn settle(
    worker: &str,
    store: &SharedStore,
    feedback: &Feedback,
    echoes: &[NotedEcho],
) -> Result<Vec<RowId>, StoreError> {
    if echoes.is_empty() {
        return Ok(Vec::new());
    }
    // Late successes of the rows' last calls: the same as an answer that the recorder writes late.
    let changes: Vec<Change> = echoes
        .iter()
        .map(|echo| {
            let kind = ChangeKind::Sent { http_status: 200, graph_id: echo.message_id.clone() };
            Change { id: echo.row, fence: echo.fence, begun: None, crashed: false, kind }
        })
        .collect();
    let record = Record {
        worker,
        changes: &changes,
        claims: &[],
        claim_no: 0,
        ended_work: &[],
        ended_claims: &[],
        repeated: false,
    };
    let recorded = store.record(record).await?;
    let mut settled = Vec::new();
    for ((echo, change), _) in echoes.iter().zip(&changes).zip(&recorded.changed).filter(|(_, made)| **made) {
        tracing::info!(cdls_id = %echo.row, line = %echo.line, "echo heard: message is OK");
        feedback.changed(change, echo.waiter.as_deref());
        settled.push(echo.row);
    }
    METRICS.codes.settled(SettledBy::Echo, settled.len());
    Ok(settled)
}

/// Match echoes that name no row with the rows of their line, recipient and text.
async fn settle_unnamed(store: &SharedStore) -> Result<(), StoreError> {
    let heard = store.unnamed_echoes(UNNAMED_AT_ONCE).await?;
    if heard.is_empty() {
        return Ok(());
    }
    let mut waiting: BTreeSet<&str> = BTreeSet::new();
    let mut matched: Vec<(RowId, &HeardEcho)> = Vec::new();
    for echo in &heard {
        let rows = rows_of(&**store, echo.line, &echo.dest, echo.at).await?;
        let is_alike = |row: &SentRow| row.kind == MessageKind::Text && text_digest(&row.mdata) == echo.text;
        let rows: Vec<SentRow> = rows.into_iter().filter(is_alike).collect();
        match match_echo(&rows, &echo.message_id, echo.at) {
            EchoMatch::Row(row) => matched.push((row, echo)),
            EchoMatch::Wait if echo.age < UNNAMED_FOR => {
                waiting.insert(&echo.message_id);
            }
            EchoMatch::Wait | EchoMatch::None => {}
        }
    }
    for (row, echo) in &matched {
        // Several lines may have the account, and an echo is about one row.
        let is_single = matched.iter().filter(|(_, other)| other.message_id == echo.message_id).count() == 1
            && matched.iter().filter(|(other, _)| other == row).count() == 1;
        if is_single
            && !waiting.contains(echo.message_id.as_str())
            && settle_row(&**store, *row, &echo.message_id, SettledBy::Echo).await?
        {
            tracing::info!(cdls_id = %row, line = %echo.line, "echo matched: message is OK");
        }
    }
    let done: Vec<String> = heard
        .iter()
        .filter(|echo| !waiting.contains(echo.message_id.as_str()))
        .map(|echo| echo.message_id.clone())
        .collect();
    store.forget_echoes(&[], &done, KEPT_FOR).await
}
