//! `log reconcile`: settles UNKNOWN messages by what Meta shows of their conversations.
//!
//! A message that Meta shows becomes OK. One that Meta does not show stays UNKNOWN, unless the operator decides for all
//! of them: a missing message proves nothing. Never here: which message is whose; `policy::reconcile` decides that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::Serialize;
use time::OffsetDateTime;

use super::output::{Output, printable};
use super::settle::{self, Which, messages};
use super::table::{Column, Table, or_dash};
use crate::domain::{LineId, RowId, Status};
use crate::graph::GraphClient;
use crate::metrics::SettledBy;
use crate::policy::reconcile::Finding;
use crate::reconcile::{AskError, Reconciler, call_length, settle_row};
use crate::seal::KeyRing;
use crate::settings::Settings;
use crate::store::{IdRange, LineRecord, LogFilter, Resolution, Selection, Store};

/// Rows of one page.
const PAGE: u32 = 1_000;

/// Arguments of `log reconcile`.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    #[command(flatten)]
    which: Which,
    /// Treatment of messages that Meta does not show: leave (they stay UNKNOWN), error (they are not sent), retry (they
    /// are sent again now)
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = NotFound::Leave)]
    not_found: NotFound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NotFound {
    Leave,
    Error,
    Retry,
}

/// The result for one message.
#[derive(Debug, Serialize)]
struct Looked {
    cdls_id: RowId,
    v8l_id: LineId,
    /// `ok`, `not found`, `unclear`, `too early`, or `failed`.
    result: &'static str,
    /// Graph's id of a message that was found.
    message_id: Option<String>,
    /// Why Meta was not asked, or did not answer.
    error: Option<String>,
}

/// The answer of `log reconcile`.
#[derive(Debug, Serialize)]
struct Reconciled {
    messages: Vec<Looked>,
    /// Messages that became OK, or would.
    ok: usize,
    not_found: usize,
    unclear: usize,
    too_early: usize,
    failed: usize,
    /// Messages that were not found and were resolved as `--not-found` says.
    resolved: usize,
    dry_run: bool,
}

/// UNKNOWN rows of one line and recipient.
struct Conversation {
    rows: Vec<RowId>,
    oldest: OffsetDateTime,
}

type Conversations = BTreeMap<(LineId, String), Conversation>;

pub async fn reconcile(
    args: ReconcileArgs,
    settings: &Settings,
    store: &dyn Store,
    out: &Output,
) -> anyhow::Result<()> {
    let ReconcileArgs { which, not_found } = args;
    let mut reconciler = reconciler(settings)?;
    if let Some(status) = which.status() {
        ensure!(status == Status::Unknown, "only UNKNOWN messages can be reconciled, not {status} ones");
    }
    let conversations = match which.message {
        Some(id) => of_message(store, id).await?,
        None => of_filter(store, which.filter()).await?,
    };
    let looked = look(conversations, &mut reconciler, store, which.dry_run).await?;
    let resolved = resolve_missing(&looked, not_found, &which, store).await?;
    let count = |result: &str| looked.iter().filter(|looked| looked.result == result).count();
    let answer = Reconciled {
        ok: count(OK),
        not_found: count(NOT_FOUND),
        unclear: count(UNCLEAR),
        too_early: count(TOO_EARLY),
        failed: count(FAILED),
        resolved,
        dry_run: which.dry_run,
        messages: looked,
    };
    out.answer(&answer, |answer| told(answer, out))
}

/// Return the part that asks Meta for conversations.
fn reconciler(settings: &Settings) -> anyhow::Result<Reconciler> {
    let app_keys = settings.security.app_keys()?;
    let app_keys = KeyRing::new(app_keys.iter().map(|key| &**key));
    let (graph, length) = (GraphClient::new(&settings.graph)?, call_length(&settings.graph));
    Ok(Reconciler::new(graph, Arc::new(super::key_ring(settings)?), Arc::new(app_keys), length))
}

const OK: &str = "ok";
const NOT_FOUND: &str = "not found";
const UNCLEAR: &str = "unclear";
const TOO_EARLY: &str = "too early";
const FAILED: &str = "failed";

async fn of_message(store: &dyn Store, id: RowId) -> anyhow::Result<Conversations> {
    let row = settle::row(store, id).await?;
    ensure!(
        row.status == Status::Unknown,
        "message {id} is {}: only UNKNOWN messages can be reconciled",
        row.status
    );
    let conversation = Conversation { rows: vec![id], oldest: row.created_at };
    Ok(Conversations::from([((row.v8l_id, row.dest), conversation)]))
}

async fn of_filter(store: &dyn Store, filter: LogFilter) -> anyhow::Result<Conversations> {
    let filter = LogFilter { status: Some(Status::Unknown), ..filter };
    let mut conversations = Conversations::new();
    let mut after = RowId(0);
    loop {
        let page = store.log_after(&filter, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(conversations) };
        after = last.cdls_id;
        for row in page {
            let new = || Conversation { rows: Vec::new(), oldest: row.created_at };
            let conversation = conversations.entry((row.v8l_id, row.dest)).or_insert_with(new);
            conversation.rows.push(row.cdls_id);
            conversation.oldest = conversation.oldest.min(row.created_at);
        }
    }
}

/// Ask for the conversations, one after the other, and settle what is found.
async fn look(
    conversations: Conversations,
    reconciler: &mut Reconciler,
    store: &dyn Store,
    dry_run: bool,
) -> anyhow::Result<Vec<Looked>> {
    let ids: BTreeSet<LineId> = conversations.keys().map(|(line, _)| *line).collect();
    let ids: Vec<LineId> = ids.into_iter().collect();
    let lines: HashMap<LineId, LineRecord> = match ids.is_empty() {
        true => HashMap::new(),
        false => store.lines(&ids).await?.into_iter().map(|line| (line.id, line)).collect(),
    };
    let mut looked = Vec::new();
    for ((line, dest), Conversation { rows, oldest }) in conversations {
        let findings = match lines.get(&line) {
            Some(record) => reconciler.look(store, record, &dest, oldest).await,
            None => Err(AskError::Line("the line is gone".to_owned())),
        };
        let findings: HashMap<RowId, Finding> = match findings {
            Ok(findings) => findings.into_iter().collect(),
            Err(AskError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let error = Some(error.to_string());
                looked.extend(
                    rows.into_iter()
                        .map(|cdls_id| Looked { error: error.clone(), ..Looked::of(cdls_id, line, FAILED) }),
                );
                continue;
            }
        };
        // A row without a finding was settled by others meanwhile.
        for row in rows {
            let Some(finding) = findings.get(&row) else { continue };
            looked.extend(settled(store, row, line, finding, dry_run).await?);
        }
    }
    looked.sort_by_key(|looked| looked.cdls_id);
    Ok(looked)
}

impl Looked {
    fn of(cdls_id: RowId, v8l_id: LineId, result: &'static str) -> Looked {
        Looked { cdls_id, v8l_id, result, message_id: None, error: None }
    }
}

/// Settle a row that was found; return what is told of it. Nothing, if others settled it meanwhile.
async fn settled(
    store: &dyn Store,
    row: RowId,
    line: LineId,
    finding: &Finding,
    dry_run: bool,
) -> anyhow::Result<Option<Looked>> {
    let message_id = match finding {
        Finding::Found { message_id } => message_id,
        Finding::NotFound => return Ok(Some(Looked::of(row, line, NOT_FOUND))),
        Finding::Unclear => return Ok(Some(Looked::of(row, line, UNCLEAR))),
        Finding::TooEarly => return Ok(Some(Looked::of(row, line, TOO_EARLY))),
    };
    if !dry_run && !settle_row(store, row, message_id, SettledBy::Conversation).await? {
        return Ok(None);
    }
    Ok(Some(Looked { message_id: Some(message_id.clone()), ..Looked::of(row, line, OK) }))
}

/// Resolve the messages that were not found, if the operator says how; return how many were.
async fn resolve_missing(
    looked: &[Looked],
    not_found: NotFound,
    which: &Which,
    store: &dyn Store,
) -> anyhow::Result<usize> {
    let resolution = match not_found {
        NotFound::Leave => return Ok(0),
        NotFound::Error => Resolution::Error,
        NotFound::Retry => Resolution::Retry,
    };
    let missing: Vec<RowId> =
        looked.iter().filter(|looked| looked.result == NOT_FOUND).map(|looked| looked.cdls_id).collect();
    let count = i64::try_from(missing.len()).unwrap_or(i64::MAX);
    let question = format!("Resolve {} not found at Meta as {}?", messages(count), resolution.status());
    if !which.goes_on(count, &question)? {
        return Ok(0);
    }
    let mut resolved = 0;
    for id in missing {
        resolved += store.resolve(IdRange::one(id), &Selection::default(), &resolution, 1).await?.len();
    }
    Ok(resolved)
}

fn told(answer: &Reconciled, out: &Output) -> String {
    if answer.messages.is_empty() {
        return "No UNKNOWN message matches.".to_owned();
    }
    let columns = [
        Column::number("CDLS_ID"),
        Column::number("V8L_ID"),
        Column::new("RESULT"),
        Column::text("MESSAGE_ID", 12),
    ];
    let mut table = Table::new(&columns, out.screen);
    for Looked { cdls_id, v8l_id, result, message_id, error } in &answer.messages {
        let said = or_dash(message_id.as_deref().or(error.as_deref()).map(printable));
        table.add([cdls_id.to_string(), v8l_id.to_string(), (*result).to_owned(), said]);
    }
    let Reconciled { ok, not_found, unclear, too_early, failed, resolved, dry_run, .. } = answer;
    let became = if *dry_run { "would become OK" } else { "became OK" };
    let mut text = format!(
        "{}\n{ok} {became}, {not_found} not found, {unclear} unclear, {too_early} too early, {failed} failed.",
        table.render().trim_end()
    );
    if *resolved > 0 {
        text.push_str(&format!("\n{resolved} not found and resolved."));
    } else if *not_found > 0 {
        text.push_str(
            "\nMessages that Meta does not show stay UNKNOWN: they may have been sent all the same.",
        );
    }
    text
}
