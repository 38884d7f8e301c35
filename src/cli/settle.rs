//! `log resolve` and `log resend`: what an operator does to messages whose outcome is not known, or that have ended.
//!
//! Both take one message or a filter. A filter works through batches, a transaction each: a run that is cut has done
//! what it has done, and when it is repeated the rest follows. Never here: a change of a message that has ended.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::output::{Output, confirmed};
use super::parse;
use crate::domain::{LineId, RowId, Status};
use crate::store::{
    IdRange, LogFilter, LogRow, Matching, MessageFilter, Operation, Resend, Resolution, Scope, Selection,
    Store,
};

/// The filters, as clap knows them: what goes with one message only goes with none of them.
const FILTERS: [&str; 7] = ["line", "cp_id", "status", "error_code", "dest", "msg_id", "since"];

/// Rows of one transaction.
const BATCH: u32 = 1_000;

/// The filters: messages that match all that are given.
#[derive(Debug, Args)]
pub struct Selected {
    /// Id of a line; select only its messages
    #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
    line: Option<LineId>,
    /// Label of a campaign; select only its messages
    #[arg(long, value_name = "C", value_parser = parse::campaign)]
    cp_id: Option<String>,
    /// Status; select only messages in it
    #[arg(long, ignore_case = true, value_parser = parse::status())]
    status: Option<Status>,
    /// Error code of Graph; select only messages with it
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(i32))]
    error_code: Option<i32>,
    /// Recipient; select only messages to it
    #[arg(long, value_name = "DEST", value_parser = parse::name)]
    dest: Option<String>,
    /// Caller's reference; select only messages with it
    #[arg(long, value_name = "REF", value_parser = parse::name)]
    msg_id: Option<String>,
    /// Age of the oldest message to select, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    since: Option<Duration>,
}

impl Selected {
    pub fn filter(&self) -> LogFilter {
        LogFilter {
            line: self.line,
            status: self.status,
            cp_id: self.cp_id.clone(),
            msg_id: self.msg_id.clone(),
            dest: self.dest.clone(),
            error_code: self.error_code,
            since: self.since,
        }
    }
}

/// The selected messages: one message, or all messages that match every given filter.
#[derive(Debug, Args)]
pub struct Which {
    /// Id of one message
    #[arg(value_name = "CDLS_ID", value_parser = parse::id(RowId),
          conflicts_with_all = FILTERS)]
    pub message: Option<RowId>,
    #[command(flatten)]
    selected: Selected,
    /// Show the number of selected messages, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `log resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    #[command(flatten)]
    which: Which,
    /// Outcome to record: ok (Graph took the message), error (do not send it), retry (send it again now)
    #[arg(long = "as", value_name = "OUTCOME")]
    outcome: Outcome,
    /// Graph's id of the message, if known; only for one message and `--as ok`
    #[arg(long, value_name = "MID", requires = "message", conflicts_with_all = FILTERS, value_parser = parse::name)]
    message_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Outcome {
    Ok,
    Error,
    Retry,
}

/// Arguments of `log resend`.
#[derive(Debug, Args)]
pub struct ResendArgs {
    #[command(flatten)]
    which: Which,
    /// Time in which the copies may be sent (default: dispatch.valid_for)
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    valid_for: Option<Duration>,
    /// Campaign label for the copies (default: the label of the original)
    #[arg(long, value_name = "C", value_parser = parse::campaign)]
    into_cp_id: Option<String>,
    /// Resend one message even if it is OK; the recipient gets the message twice
    #[arg(long, requires = "message", conflicts_with_all = FILTERS)]
    force: bool,
}

/// The answer of `log resolve`.
#[derive(Debug, Serialize)]
struct Resolved {
    #[serde(skip_serializing_if = "Option::is_none")]
    cdls_id: Option<RowId>,
    status: Status,
    /// Messages found.
    matching: i64,
    /// Messages settled; none with `--dry-run`.
    resolved: u64,
    /// Found and left alone, as they may not be tried again.
    expired: i64,
    dry_run: bool,
}

/// The answer of `log resend`.
#[derive(Debug, Serialize)]
struct Copied {
    #[serde(skip_serializing_if = "Option::is_none")]
    cdls_id: Option<RowId>,
    /// The copy of the one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    resent_as: Option<RowId>,
    /// Messages found.
    matching: i64,
    /// Messages sent again; none with `--dry-run`.
    resent: u64,
    /// Found and left alone: their campaign is cancelled, or their line is gone.
    left_out: i64,
    dry_run: bool,
}

pub async fn resolve(args: ResolveArgs, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    ensure!(
        args.message_id.is_none() || args.outcome == Outcome::Ok,
        "--message-id is the id of a message that Graph took: it goes with --as ok"
    );
    let resolution = match args.outcome {
        Outcome::Ok => Resolution::Ok { message_id: args.message_id },
        Outcome::Error => Resolution::Error,
        Outcome::Retry => Resolution::Retry,
    };
    let which = args.which;
    if let Some(status) = which.status() {
        ensure!(status == Status::Unknown, "only UNKNOWN messages can be resolved, not {status} ones");
    }
    let (range, selection) = which.rows()?;
    let found = store.matching(range, &selection, Operation::Resolve(&resolution)).await?;
    if let Some(id) = which.message {
        may_be_resolved(&row(store, id).await?, found)?;
    }
    let status = resolution.status();
    let mut resolved = 0;
    if which.goes_on(found.rows, &format!("Resolve {} as {status}?", messages(found.rows)))? {
        let mut range = IdRange { last: found.last, ..range };
        loop {
            let ids = store.resolve(range, &selection, &resolution, BATCH).await?;
            let Some(last) = ids.last() else { break };
            range.after = *last;
            resolved += ids.len() as u64;
        }
        ensure!(which.message.is_none() || resolved == 1, "the message was settled by others at this moment");
    }
    let answer = Resolved {
        cdls_id: which.message,
        status,
        matching: found.rows,
        resolved,
        expired: found.left_out,
        dry_run: which.dry_run,
    };
    out.answer(&answer, |answer| {
        let done = if answer.dry_run {
            format!("{} would be resolved as {status}.", messages(answer.matching))
        } else {
            format!("{} resolved as {status}.", messages(answer.resolved as i64))
        };
        match answer.expired {
            0 => done,
            expired => format!(
                "{done}\n{} not tried again, as they have expired or their campaign is cancelled: resolve them as error, then `log resend`.",
                messages(expired)
            ),
        }
    })
}

/// Why one message cannot be resolved.
fn may_be_resolved(row: &LogRow, found: Matching) -> anyhow::Result<()> {
    let LogRow { cdls_id: id, status, expires_at, .. } = row;
    ensure!(*status == Status::Unknown, "message {id} is {status}: only UNKNOWN messages can be resolved");
    ensure!(
        found.left_out == 0,
        "message {id} was valid until {}, or its campaign is cancelled: it can be resolved as ok or error, and then be sent again with `log resend {id}`",
        crate::text::timestamp(*expires_at)
    );
    Ok(())
}

pub async fn resend(
    args: ResendArgs,
    valid_for: Duration,
    store: &dyn Store,
    out: &Output,
) -> anyhow::Result<()> {
    let which = args.which;
    let one = match which.message {
        Some(id) => Some(row(store, id).await?),
        None => None,
    };
    let status = match &one {
        Some(row) => ended(row, args.force)?,
        None => which.ended_status()?,
    };
    let (range, selection) = which.rows()?;
    let resend = Resend { status, valid_for: args.valid_for.unwrap_or(valid_for), cp_id: args.into_cp_id };
    let found = store.matching(range, &selection, Operation::Resend(&resend)).await?;
    if let Some(row) = &one {
        may_be_resent(row, found, store).await?;
    }
    let question = format!("Send {} again that {} {status}?", messages(found.rows), are(found.rows));
    let mut resent = 0;
    let mut resent_as = None;
    if which.goes_on(found.rows, &question)? {
        let mut range = IdRange { last: found.last, ..range };
        loop {
            let copies = store.resend(range, &selection, &resend, BATCH).await?;
            let Some(last) = copies.last() else { break };
            range.after = last.id;
            resent += copies.len() as u64;
            resent_as = one.as_ref().map(|_| last.copy);
        }
        ensure!(one.is_none() || resent == 1, "the message was sent again by others at this moment");
    }
    let answer = Copied {
        cdls_id: which.message,
        resent_as,
        matching: found.rows,
        resent,
        left_out: found.left_out,
        dry_run: which.dry_run,
    };
    out.answer(&answer, |answer| {
        let done = match answer.resent_as {
            Some(copy) => format!("Sent again as message {copy}."),
            None if answer.dry_run => format!("{} would be sent again.", messages(answer.matching)),
            None => format!("{} sent again.", messages(answer.resent as i64)),
        };
        match answer.left_out {
            0 => done,
            rows => format!(
                "{done}\n{} left alone: their campaign is cancelled (--into-cp-id names another), or their line is gone.",
                messages(rows)
            ),
        }
    })
}

/// The state of one message that may be sent again.
fn ended(row: &LogRow, force: bool) -> anyhow::Result<Status> {
    let id = row.cdls_id;
    match row.status {
        Status::Error | Status::Cancelled => Ok(row.status),
        Status::Ok if force => Ok(Status::Ok),
        Status::Ok => bail!("message {id} is OK: its recipient has it; --force sends it a second time"),
        Status::Unknown => bail!(
            "message {id} is UNKNOWN: Graph may have taken it; `log resolve {id} --as retry` tries it again"
        ),
        Status::Pending | Status::Sending | Status::Retry => {
            bail!("message {id} is {}: it has not ended yet", row.status)
        }
    }
}

/// Why one message that has ended cannot be sent again.
async fn may_be_resent(row: &LogRow, found: Matching, store: &dyn Store) -> anyhow::Result<()> {
    let id = row.cdls_id;
    if found.rows == 1 {
        return Ok(());
    }
    if let Some(copy) = store.copy_of(id).await? {
        bail!("message {id} was sent again already, as {copy}; if that one has failed too, resend {copy}");
    }
    bail!(
        "message {id} cannot be sent again: its campaign is cancelled (--into-cp-id names another), or its line is gone"
    )
}

pub async fn row(store: &dyn Store, id: RowId) -> anyhow::Result<LogRow> {
    store.log_row(Scope::Operator, id).await?.with_context(|| format!("the log has no message {id}"))
}

impl Which {
    pub fn filter(&self) -> LogFilter {
        self.selected.filter()
    }

    pub fn status(&self) -> Option<Status> {
        self.selected.status
    }

    /// The rows meant. An error if nothing is given: all messages are never meant.
    fn rows(&self) -> anyhow::Result<(IdRange, Selection)> {
        let LogFilter { line, cp_id, msg_id, dest, error_code, since, .. } = self.filter();
        let is_any = self.filter().messages() != MessageFilter::default();
        let selection = Selection { line, cp_id, dest, msg_id, error_code, since };
        if let Some(id) = self.message {
            return Ok((IdRange::one(id), selection));
        }
        ensure!(
            is_any,
            "name a message, or select some with --line, --cp-id, --status, --error-code, --dest, --msg-id or --since"
        );
        Ok((IdRange::ALL, selection))
    }

    /// The state of the messages to be sent again: those in ERROR unless another is named.
    fn ended_status(&self) -> anyhow::Result<Status> {
        let status = self.status().unwrap_or(Status::Error);
        ensure!(
            status != Status::Unknown,
            "Graph may have taken UNKNOWN messages: `log resolve --status UNKNOWN --as retry` tries them again"
        );
        ensure!(status.is_final(), "{status} messages have not ended yet: they are not sent again");
        Ok(status)
    }

    /// Whether rows are to be touched. Asks where somebody can answer, and many rows may be meant.
    pub fn goes_on(&self, rows: i64, question: &str) -> anyhow::Result<bool> {
        if self.dry_run || rows == 0 {
            return Ok(false);
        }
        ensure!(self.message.is_some() || self.yes || confirmed(question)?, "nothing was done");
        Ok(true)
    }
}

pub fn messages(count: i64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn are(count: i64) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
