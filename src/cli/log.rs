//! `log`: one message, the newest messages, how many there are of each status, and what operators do to them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::fields::fields;
use super::output::{Output, printable};
use super::screen::Screen;
use super::table::{Column, Table};
use super::{cancel, export, help, parse, reconcile, settle, tail};
use crate::channel::Class;
use crate::domain::{LineId, RowId, Status};
use crate::settings::Settings;
use crate::store::{LogFilter, LogRow, Scope, StatusCount, Store};

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show one message with all columns
    Show {
        /// Id of the message
        #[arg(value_name = "CDLS_ID", value_parser = parse::id(RowId))]
        message: RowId,
    },
    /// Show the newest messages, oldest first
    #[command(after_help = help::LOG_TAIL)]
    Tail(TailArgs),
    /// Count messages by line and status
    Stats {
        /// Age of the oldest message to count, such as 1h (default: all messages)
        #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
        since: Option<Duration>,
    },
    /// Settle messages whose outcome is unknown (UNKNOWN)
    #[command(after_help = help::LOG_RESOLVE)]
    Resolve(settle::ResolveArgs),
    /// Ask Meta for the conversations of UNKNOWN messages; settle those that are there
    #[command(after_help = help::LOG_RECONCILE)]
    Reconcile(reconcile::ReconcileArgs),
    /// Resend messages that have ended; each copy is a new message with a new id
    #[command(after_help = help::LOG_RESEND)]
    Resend(settle::ResendArgs),
    /// Cancel messages that wait; they are not sent
    #[command(after_help = help::LOG_CANCEL)]
    Cancel(cancel::CancelArgs),
    /// Write all selected messages as CSV or NDJSON, oldest first
    #[command(after_help = help::LOG_EXPORT)]
    Export(export::ExportArgs),
}

/// Arguments of `log tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Number of messages
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub lines: u32,
    /// Keep showing new messages and changes of status, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Id of a line; show only its messages
    #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
    pub line: Option<LineId>,
    /// Status; show only messages in it
    #[arg(long, ignore_case = true, value_parser = parse::status())]
    pub status: Option<Status>,
    /// Label of a campaign; show only its messages
    #[arg(long, value_name = "C", value_parser = parse::campaign)]
    pub cp_id: Option<String>,
    /// Error code of Graph; show only messages with it
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(i32))]
    pub error_code: Option<i32>,
    /// Recipient; show only messages to it
    #[arg(long, value_name = "DEST", value_parser = parse::name)]
    pub dest: Option<String>,
    /// Caller's reference; show only messages with it
    #[arg(long, value_name = "REF", value_parser = parse::name)]
    pub msg_id: Option<String>,
    /// Age of the oldest message to show, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub since: Option<Duration>,
}

/// A message with what is known of it beside its columns.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: LogRow,
    /// The batch that brought it, as long as it is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_id: Option<String>,
}

#[derive(Serialize)]
struct Stats {
    stats: Vec<StatusCount>,
}

pub async fn run(
    command: LogCommand,
    settings: &Settings,
    store: &dyn Store,
    out: &Output,
) -> anyhow::Result<()> {
    match command {
        LogCommand::Show { message } => show(message, store, out).await,
        LogCommand::Tail(args) => {
            let (lines, is_followed) = (args.lines, args.follow);
            let filter = args.filter();
            if is_followed {
                tail::follow(&filter, lines, store, out).await
            } else {
                tail::newest(&filter, lines, store, out).await
            }
        }
        LogCommand::Stats { since } => {
            let stats = Stats { stats: store.log_stats(since).await? };
            out.answer(&stats, |stats| count_table(&stats.stats, out.screen))
        }
        LogCommand::Resolve(args) => settle::resolve(args, store, out).await,
        LogCommand::Reconcile(args) => reconcile::reconcile(args, settings, store, out).await,
        LogCommand::Resend(args) => settle::resend(args, settings.dispatch.valid_for, store, out).await,
        LogCommand::Cancel(args) => cancel::cancel(args, store, out).await,
        LogCommand::Export(args) => export::export(args, store, out).await,
    }
}

impl TailArgs {
    fn filter(self) -> LogFilter {
        LogFilter {
            line: self.line,
            status: self.status,
            cp_id: self.cp_id,
            msg_id: self.msg_id,
            dest: self.dest,
            error_code: self.error_code,
            since: self.since,
        }
    }
}

async fn show(id: RowId, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let row =
        store.log_row(Scope::Operator, id).await?.with_context(|| format!("the log has no message {id}"))?;
    let batch_id = store.batch_of(row.cdcs_id, id).await?;
    let shown = Shown { row, batch_id };
    if out.json {
        return out.json(&shown);
    }
    let columns = fields(&shown)?;
    let longest = columns.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = columns
        .iter()
        .map(|(name, value)| format!("{name:longest$}  {}", printable(value)).trim_end().to_owned())
        .collect();
    out.text(&lines.join("\n"))
}

/// Lines × statuses, with totals. A narrow table leaves out the statuses of no message.
fn count_table(counts: &[StatusCount], screen: Screen) -> String {
    let mut lines: BTreeMap<LineId, (Class, BTreeMap<&str, i64>)> = BTreeMap::new();
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    for count in counts {
        let status = count.status.as_str();
        let (_, cells) = lines.entry(count.v8l_id).or_insert((count.class, BTreeMap::new()));
        *cells.entry(status).or_default() += count.rows;
        *totals.entry(status).or_default() += count.rows;
    }
    let cells = |counts: &BTreeMap<&str, i64>| -> Vec<String> {
        let each = Status::ALL.iter().map(|status| counts.get(status.as_str()).copied().unwrap_or(0));
        each.chain([counts.values().sum::<i64>()]).map(|rows| rows.to_string()).collect()
    };
    let of_status = |status: &Status| match totals.get(status.as_str()) {
        Some(_) => Column::number(status.as_str()),
        None => Column::number(status.as_str()).spare(2),
    };
    let columns: Vec<Column> = [Column::number("V8L_ID"), Column::new("CLASS").spare(1)]
        .into_iter()
        .chain(Status::ALL.iter().map(of_status))
        .chain([Column::number("TOTAL")])
        .collect();
    let mut table = Table::new(&columns, screen);
    for (line, (class, counts)) in &lines {
        table.add([line.to_string(), class.to_string()].into_iter().chain(cells(counts)));
    }
    table.add(["all".to_owned(), String::new()].into_iter().chain(cells(&totals)));
    table.render()
}

#[cfg(test)]
mod tests {
    use super::super::table::widest;
    use super::*;

    fn count(line: i64, status: Status, rows: i64) -> StatusCount {
        StatusCount { v8l_id: LineId(line), class: Class::MESSENGER, status, rows }
    }

    fn screen(width: u16) -> Screen {
        Screen { width: Some(width), colours: false }
    }

    fn words(text: &str) -> Vec<Vec<&str>> {
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn stats_have_a_row_per_line_and_totals_both_ways() {
        let counts = [count(2, Status::Ok, 5), count(1, Status::Ok, 1), count(1, Status::Error, 3)];
        let text = count_table(&counts, screen(80));
        let rows = words(&text);
        assert_eq!(rows[1], ["1", "messenger", "0", "0", "0", "1", "3", "0", "0", "4"]);
        assert_eq!(rows[2], ["2", "messenger", "0", "0", "0", "5", "0", "0", "0", "5"]);
        assert_eq!(rows[3], ["all", "0", "0", "0", "6", "3", "0", "0", "9"]);
    }

    #[test]
    fn stats_of_many_messages_fit_80_columns() {
        let counts = Status::ALL.iter().map(|status| count(1_234_567, *status, 123_456_789));
        let mut counts: Vec<StatusCount> = counts.collect();
        counts.truncate(5);
        let text = count_table(&counts, screen(80));
        assert!(widest(&text) <= 80, "{text}");
        assert_eq!(words(&text)[0], ["V8L_ID", "PENDING", "SENDING", "RETRY", "OK", "ERROR", "TOTAL"]);
        assert!(count_table(&counts, screen(160)).contains("CANCELLED"));
    }
}
