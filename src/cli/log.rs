//! `log`: one message, the newest messages, how many there are of each status, and what operators do to them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::fields::fields;
use super::output::{Output, printable};
use super::table::{add, align_right, table};
use super::{parse, settle, tail};
use crate::message::{Class, LineId, MessageId, Status};
use crate::store::{LogFilter, Scope, StatusCount, Store};

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show one message with all columns
    Show {
        /// Id of the message
        #[arg(value_name = "CDLS_ID", value_parser = parse::id(MessageId))]
        message: MessageId,
    },
    /// Show the newest messages, oldest first
    #[command(
        after_help = "With --json and --follow, the output is NDJSON: one line for each message, and a new line \
                            for each change of its status."
    )]
    Tail(TailArgs),
    /// Count messages by line and status
    Stats {
        /// Age of the oldest message to count, such as 1h (default: all messages)
        #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
        since: Option<Duration>,
    },
    /// Settle messages whose outcome is unknown (UNKNOWN)
    #[command(after_help = RESOLVE_HELP)]
    Resolve(settle::ResolveArgs),
    /// Resend messages that have ended; each copy is a new message with a new id
    #[command(after_help = RESEND_HELP)]
    Resend(settle::ResendArgs),
}

const RESOLVE_HELP: &str = "\
A message is UNKNOWN when its call ended without a complete answer: Graph may have taken the message. `--as retry` may
deliver the message twice. An expired message is not retried.

Examples:
  meta-dispatch log resolve 4711 --as ok --message-id m_abc
  meta-dispatch log resolve --line 3 --since 2h --as retry --dry-run";

const RESEND_HELP: &str = "\
A filter selects messages in ERROR, unless --status names CANCELLED or OK. The command copies each message only once,
also when it runs again; resend the copy if the copy fails too. Settle UNKNOWN messages with `log resolve`.

Examples:
  meta-dispatch log resend 4711
  meta-dispatch log resend --line 3 --error-code 190 --since 24h";

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
    #[arg(long, value_name = "C")]
    pub cp_id: Option<String>,
}

#[derive(Serialize)]
struct Stats {
    stats: Vec<StatusCount>,
}

/// `valid_for`: how long copies are valid, unless said otherwise.
pub async fn run(
    command: LogCommand,
    valid_for: Duration,
    store: &dyn Store,
    out: &Output,
) -> anyhow::Result<()> {
    match command {
        LogCommand::Show { message } => show(message, store, out).await,
        LogCommand::Tail(args) => {
            let filter = LogFilter { line: args.line, status: args.status, cp_id: args.cp_id };
            if args.follow {
                tail::follow(&filter, args.lines, store, out).await
            } else {
                tail::newest(&filter, args.lines, store, out).await
            }
        }
        LogCommand::Stats { since } => {
            let stats = Stats { stats: store.log_stats(since).await? };
            out.answer(&stats, |stats| count_table(&stats.stats, out.width))
        }
        LogCommand::Resolve(args) => settle::resolve(args, store, out).await,
        LogCommand::Resend(args) => settle::resend(args, valid_for, store, out).await,
    }
}

async fn show(id: MessageId, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let row =
        store.log_row(Scope::Operator, id).await?.with_context(|| format!("the log has no message {id}"))?;
    if out.json {
        return out.json(&row);
    }
    let columns = fields(&row)?;
    let longest = columns.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = columns
        .iter()
        .map(|(name, value)| format!("{name:longest$}  {}", printable(value)).trim_end().to_owned())
        .collect();
    out.text(&lines.join("\n"))
}

/// Lines × statuses, with totals.
fn count_table(counts: &[StatusCount], width: u16) -> String {
    let mut lines: BTreeMap<LineId, (Class, BTreeMap<&str, i64>)> = BTreeMap::new();
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    for count in counts {
        let status = count.status.as_str();
        let (_, cells) = lines.entry(count.v8l_id).or_insert((count.class, BTreeMap::new()));
        *cells.entry(status).or_default() += count.rows;
        *totals.entry(status).or_default() += count.rows;
    }
    let statuses: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
    let cells = |counts: &BTreeMap<&str, i64>| -> Vec<String> {
        let each = statuses.iter().map(|status| counts.get(status).copied().unwrap_or(0).to_string());
        each.chain([counts.values().sum::<i64>().to_string()]).collect()
    };
    let header: Vec<&str> =
        ["LINE", "CLASS"].into_iter().chain(statuses.iter().copied()).chain(["TOTAL"]).collect();
    let mut table = table(width, &header);
    align_right(&mut table, (0..header.len()).filter(|column| *column != 1));
    for (line, (class, counts)) in &lines {
        add(&mut table, [line.to_string(), class.to_string()].into_iter().chain(cells(counts)));
    }
    add(&mut table, ["all".to_owned(), String::new()].into_iter().chain(cells(&totals)));
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_have_a_row_per_line_and_totals_both_ways() {
        let count =
            |line, status, rows| StatusCount { v8l_id: LineId(line), class: Class::Messenger, status, rows };
        let counts = [count(2, Status::Ok, 5), count(1, Status::Ok, 1), count(1, Status::Error, 3)];
        let text = count_table(&counts, 160);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["1", "messenger", "0", "0", "0", "1", "3", "0", "0", "4"]);
        assert_eq!(rows[2], ["2", "messenger", "0", "0", "0", "5", "0", "0", "0", "5"]);
        assert_eq!(rows[3], ["all", "0", "0", "0", "6", "3", "0", "0", "9"]);
    }
}
