//! `log cancel`: ends messages that wait, one message or by a filter.
//!
//! Works through batches, a transaction each: a run that is cut has done what it has done, and when it is repeated the
//! rest follows. A message that is in a call, or has ended, is left alone.

use anyhow::{bail, ensure};
use clap::Args;
use serde::Serialize;

use super::output::Output;
use super::parse;
use super::settle::{Which, messages, row};
use crate::domain::{RowId, Status};
use crate::store::{CANCELLED_AT_ONCE, LogRow, MessageFilter, Scope, Store};

/// Ids looked up at a time.
const PAGE: u32 = 10_000;

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
    let ids = match which.message {
        Some(id) => {
            may_be_cancelled(&row(store, id).await?)?;
            vec![id]
        }
        None => waiting(&args.filter()?, store).await?,
    };
    let question = format!("Cancel {}?", messages(ids.len() as i64));
    let mut cancelled = 0;
    if which.goes_on(ids.len() as i64, &question)? {
        for some in ids.chunks(CANCELLED_AT_ONCE) {
            cancelled += store.cancel(Scope::Operator, some).await?.len() as u64;
        }
        ensure!(
            which.message.is_none() || cancelled == 1,
            "the message was sent or ended at this moment: `log show` has its state"
        );
    }
    let answer =
        Cancelled { cdls_id: which.message, matching: ids.len() as u64, cancelled, dry_run: which.dry_run };
    out.answer(&answer, |answer| {
        let (rows, done) = match answer.dry_run {
            true => (answer.matching, "would be cancelled"),
            false => (answer.cancelled, "cancelled"),
        };
        let left = answer.matching - rows;
        let note = match left {
            0 => String::new(),
            left => format!("\n{} left alone: in a call, or ended meanwhile.", messages(left as i64)),
        };
        format!("{} {done}.{note}", messages(rows as i64))
    })
}

/// All waiting messages that match at this moment.
async fn waiting(filter: &MessageFilter, store: &dyn Store) -> anyhow::Result<Vec<RowId>> {
    let mut ids: Vec<RowId> = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or_default();
        let page = store.waiting(Scope::Operator, filter, after, PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        ids.extend(page);
        if is_last {
            return Ok(ids);
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
