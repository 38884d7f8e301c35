//! `log cancel`: ends messages that wait, one message or by a filter.
//!
//! A run works through batches, a transaction each, until nothing more can be cancelled: a message that was in a call may wait
//! again. A database that is away for a moment does not end the run. A run that is cut off keeps the messages it has
//! cancelled, and the same command cancels the rest. A message that is in a call, or has ended, is left alone.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;

use super::output::Output;
use super::parse;
use super::settle::{Which, messages, row};
use crate::domain::{RowId, Status};
use crate::policy::Backoff;
use crate::store::{CANCELLED_AT_ONCE, CancelStore, LogRow, MessageFilter, Scope, Store, StoreError};

/// Ids looked up at a time.
const PAGE: u32 = 10_000;
/// Tries of a statement before the command gives up, with pauses that double from the first to the longest.
const TRIES: u32 = 8;
const PAUSES: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// Arguments of `log cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    #[command(flatten)]
    which: Which,
    /// Name of a batch, as its answer's header Batch-Id; select only its messages
    #[arg(long, value_name = "NAME", conflicts_with = "message", value_parser = parse::name)]
    batch_id: Option<String>,
}

/// The answer of `log cancel`.
#[derive(Debug, Serialize)]
struct Cancelled {
    #[serde(skip_serializing_if = "Option::is_none")]
    cdls_id: Option<RowId>,
    /// Messages found.
    matching: u64,
    /// Messages cancelled; none with `--dry-run`.
    cancelled: u64,
    dry_run: bool,
}

pub async fn cancel(args: CancelArgs, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let which = &args.which;
    let (matching, cancelled) = match which.message {
        Some(id) => (1, one(which, id, store).await?),
        None => many(&args, store).await?,
    };
    let answer = Cancelled { cdls_id: which.message, matching, cancelled, dry_run: which.dry_run };
    out.answer(&answer, |answer| {
        let (rows, done) = match answer.dry_run {
            true => (answer.matching, "would be cancelled"),
            false => (answer.cancelled, "cancelled"),
        };
        let left = answer.matching.saturating_sub(rows);
        let note = match left {
            0 => String::new(),
            left => format!("\n{} left alone: in a call, or ended meanwhile.", messages(left as i64)),
        };
        format!("{} {done}.{note}", messages(rows as i64))
    })
}

/// Cancel one message; return how many.
async fn one(which: &Which, id: RowId, store: &dyn Store) -> anyhow::Result<u64> {
    may_be_cancelled(&row(store, id).await?)?;
    if !which.goes_on(1, "Cancel 1 message?")? {
        return Ok(0);
    }
    let cancelled = store.cancel(Scope::Operator, &[id]).await?.len() as u64;
    ensure!(cancelled == 1, "the message was sent or ended at this moment: `log show` has its state");
    Ok(cancelled)
}

/// Cancel all messages that wait and match at this moment; return how many match, and how many were cancelled.
async fn many(args: &CancelArgs, store: &dyn Store) -> anyhow::Result<(u64, u64)> {
    let filter = args.filter()?;
    let (matching, last) = count(store, &filter).await?;
    if !args.which.goes_on(matching as i64, &format!("Cancel {}?", messages(matching as i64)))? {
        return Ok((matching, 0));
    }
    Ok((matching, cancel_waiting(store, Scope::Operator, &filter, last).await?))
}

/// Return the number of waiting messages that match, and the id of the last.
async fn count(store: &dyn CancelStore, filter: &MessageFilter) -> Result<(u64, RowId), StoreError> {
    let (mut rows, mut last) = (0, RowId(0));
    loop {
        let page = patiently(move || store.waiting(Scope::Operator, filter, last, PAGE)).await?;
        rows += page.len() as u64;
        last = page.last().copied().unwrap_or(last);
        if page.len() < PAGE as usize {
            return Ok((rows, last));
        }
    }
}

/// Cancel the waiting messages that match, up to this id, until a round over them finds none that it can cancel. Return how
/// many were cancelled.
pub async fn cancel_waiting(
    store: &dyn CancelStore,
    scope: Scope,
    filter: &MessageFilter,
    last: RowId,
) -> anyhow::Result<u64> {
    let mut cancelled = 0;
    loop {
        let before = cancelled;
        cancel_round(store, scope, filter, last, &mut cancelled).await.with_context(|| {
            format!("{} cancelled; run the same command again to go on", messages(cancelled as i64))
        })?;
        if cancelled == before {
            return Ok(cancelled);
        }
    }
}

async fn cancel_round(
    store: &dyn CancelStore,
    scope: Scope,
    filter: &MessageFilter,
    last: RowId,
    cancelled: &mut u64,
) -> Result<(), StoreError> {
    let mut after = RowId(0);
    while after < last {
        let page = patiently(move || store.waiting(scope, filter, after, PAGE)).await?;
        let meant = page.partition_point(|id| *id <= last);
        for ids in page[..meant].chunks(CANCELLED_AT_ONCE) {
            *cancelled += patiently(move || store.cancel(scope, ids)).await?.len() as u64;
        }
        if page.len() < PAGE as usize {
            break;
        }
        after = page.last().copied().unwrap_or(last);
    }
    Ok(())
}

/// Run a statement again while the database is away for a moment, or others have locked the rows: repeating it is safe.
async fn patiently<T, F>(mut statement: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut failures = 0;
    loop {
        match statement().await {
            Err(
                StoreError::Unavailable(_)
                | StoreError::Locked(_)
                | StoreError::Undone(_)
                | StoreError::CommitUnknown(_),
            ) if failures + 1 < TRIES => {
                tokio::time::sleep(PAUSES.delay(failures)).await;
                failures += 1;
            }
            done => return done,
        }
    }
}

fn may_be_cancelled(row: &LogRow) -> anyhow::Result<()> {
    let id = row.cdls_id;
    match row.status {
        Status::Pending | Status::Retry => Ok(()),
        Status::Sending => bail!("message {id} is SENDING: its call is under way"),
        Status::Unknown => {
            bail!(
                "message {id} is UNKNOWN: it is not sent again by itself; `log resolve {id} --as error` ends it"
            )
        }
        status @ (Status::Ok | Status::Error | Status::Cancelled) => {
            bail!("message {id} is {status}: it has ended")
        }
    }
}

impl CancelArgs {
    fn filter(&self) -> anyhow::Result<MessageFilter> {
        if let Some(status) = self.which.status() {
            let waits = matches!(status, Status::Pending | Status::Retry);
            ensure!(waits, "{status} messages do not wait: only PENDING and RETRY messages can be cancelled");
        }
        let filter = MessageFilter { batch_id: self.batch_id.clone(), ..self.which.filter().messages() };
        ensure!(
            filter != MessageFilter::default(),
            "name a message, or select some with --line, --cp-id, --status, --error-code, --dest, --msg-id, --since or --batch-id"
        );
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound::{Excluded, Unbounded};

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::domain::AccountId;

    /// A store in which these rows wait. It cancels the first half of each group, as the others are in a call, and its
    /// first statements fail.
    struct Waiting {
        rows: Mutex<BTreeSet<RowId>>,
        failures: Mutex<u32>,
    }

    impl Waiting {
        fn new(rows: i64, failures: u32) -> Waiting {
            Waiting { rows: Mutex::new((1..=rows).map(RowId).collect()), failures: Mutex::new(failures) }
        }

        fn fails(&self) -> bool {
            let mut failures = self.failures.lock();
            let fails = *failures > 0;
            *failures -= u32::from(fails);
            fails
        }
    }

    #[async_trait]
    impl CancelStore for Waiting {
        async fn waiting(
            &self,
            _scope: Scope,
            _filter: &MessageFilter,
            after: RowId,
            limit: u32,
        ) -> Result<Vec<RowId>, StoreError> {
            if self.fails() {
                return Err(StoreError::Unavailable("it is started again".into()));
            }
            let rows = self.rows.lock();
            Ok(rows.range((Excluded(after), Unbounded)).copied().take(limit as usize).collect())
        }

        async fn cancel(&self, _scope: Scope, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
            if self.fails() {
                return Err(StoreError::Locked("by another transaction".into()));
            }
            let free = &ids[..ids.len().div_ceil(2)];
            let mut rows = self.rows.lock();
            rows.retain(|id| free.binary_search(id).is_err());
            Ok(free.to_vec())
        }

        async fn batch_of(&self, _account: AccountId, _id: RowId) -> Result<Option<String>, StoreError> {
            Ok(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn goes_on_until_nothing_is_left() {
        let store = Waiting::new(25_000, 0);
        let filter = MessageFilter::default();
        let (rows, last) = count(&store, &filter).await.expect("the store answers");
        assert_eq!((rows, last), (25_000, RowId(25_000)));
        store.rows.lock().insert(RowId(25_001));
        let cancelled = cancel_waiting(&store, Scope::Operator, &filter, last).await;
        assert_eq!(cancelled.expect("the store answers"), 25_000, "rows in a call came back");
        assert_eq!(*store.rows.lock(), BTreeSet::from([RowId(25_001)]), "it came later");
    }

    #[tokio::test(start_paused = true)]
    async fn goes_on_after_a_failure() {
        let store = Waiting::new(500, TRIES - 1);
        let filter = MessageFilter::default();
        let cancelled = cancel_waiting(&store, Scope::Operator, &filter, RowId(500)).await;
        assert_eq!(cancelled.expect("the store answers again"), 500);
        let store = Waiting::new(500, TRIES);
        let gave_up = cancel_waiting(&store, Scope::Operator, &filter, RowId(500)).await;
        assert!(
            gave_up.expect_err("the database is away").to_string().contains("run the same command again")
        );
    }
}
