//! `log tail`: the newest messages, and with `--follow` what comes after them.
//!
//! A row's id is given before its commit, so that a lower id may appear after a higher one. Following therefore
//! reads again the last [`OVERLAP`] ids at each poll, and shows what it has not shown yet; the same reading brings
//! changes of status. Rows that are not final and lie further back are asked for one by one, [`WATCHED`] at most.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{ColumnConstraint, Table, Width};
use serde::Serialize;

use super::output::Output;
use super::table::{GAP, add, align_right, short_time, table};
use crate::message::{MessageId, Status};
use crate::store::{LogFilter, LogRow, Scope, Store};

const POLL: Duration = Duration::from_secs(1);

/// Ids that are read again at each poll.
const OVERLAP: u32 = 1_000;

/// Rows read at a time.
const PAGE: u32 = 1_000;

/// Older rows whose status is still followed; beyond that, the oldest are let go.
const WATCHED: usize = 200;

#[derive(Serialize)]
struct Messages {
    messages: Vec<LogRow>,
}

/// Shows the newest rows, oldest first.
pub async fn newest(filter: &LogFilter, lines: u32, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let mut rows = store.log_newest(filter, lines).await?;
    rows.reverse();
    out.answer(&Messages { messages: rows }, |shown| {
        Layout::new(out.width, &shown.messages).render(&shown.messages, true)
    })
}

/// Shows the newest rows, then new rows and changes of status, until the reader is gone.
pub async fn follow(filter: &LogFilter, lines: u32, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let mut rows = store.log_newest(filter, lines.max(OVERLAP)).await?;
    rows.reverse();
    let mut followed = Followed::default();
    followed.news(&rows);
    let rows = rows.split_off(rows.len().saturating_sub(lines as usize));
    let layout = Layout::new(out.width, &rows);
    if out.json {
        rows.iter().try_for_each(|row| out.json(row))?;
    } else {
        out.text(&layout.render(&rows, true))?;
    }
    followed.watch_only_from(rows.first().map(|row| row.cdls_id));
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let news = poll(&mut followed, filter, store).await?;
        if out.json {
            news.iter().try_for_each(|row| out.json(row))?;
        } else if !news.is_empty() {
            out.text(&layout.render(&news, false))?;
        }
    }
}

/// Rows that are new or have changed since the last poll, by id.
async fn poll(followed: &mut Followed, filter: &LogFilter, store: &dyn Store) -> anyhow::Result<Vec<LogRow>> {
    let mut news = Vec::new();
    for id in followed.further_back() {
        match store.log_row(Scope::Operator, id).await? {
            Some(row) if filter.status.is_none_or(|status| status == row.status) => {
                news.extend(followed.news(std::slice::from_ref(&row)).into_iter().cloned());
            }
            _ => followed.drop(id),
        }
    }
    let mut after = followed.overlap();
    loop {
        let rows = store.log_after(filter, after, PAGE).await?;
        news.extend(followed.news(&rows).into_iter().cloned());
        match rows.last() {
            Some(last) if rows.len() == PAGE as usize => after = last.cdls_id,
            _ => break,
        }
    }
    followed.forget();
    Ok(news)
}

/// What of a row is worth showing it again.
type Seen = (Status, i32);

/// What has been shown.
#[derive(Default)]
struct Followed {
    /// Rows seen at or above the overlap, and older ones that are not final.
    seen: BTreeMap<MessageId, Seen>,
    highest: i64,
}

impl Followed {
    /// Those of these rows that have not been shown as they are now.
    fn news<'a>(&mut self, rows: &'a [LogRow]) -> Vec<&'a LogRow> {
        rows.iter()
            .filter(|row| {
                self.highest = self.highest.max(row.cdls_id.0);
                let now = (row.status, row.attempts);
                self.seen.insert(row.cdls_id, now) != Some(now)
            })
            .collect()
    }

    /// The id above which rows are read again.
    fn overlap(&self) -> MessageId {
        MessageId((self.highest - i64::from(OVERLAP)).max(0))
    }

    /// Rows below the overlap whose status may still change.
    fn further_back(&self) -> Vec<MessageId> {
        self.seen
            .range(..=self.overlap())
            .filter(|(_, (status, _))| !status.is_final())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Forgets a row that does not belong to the listing any more.
    fn drop(&mut self, id: MessageId) {
        self.seen.remove(&id);
    }

    /// Forgets older rows that are final, and the oldest that are not, down to what is watched.
    fn forget(&mut self) {
        let overlap = self.overlap();
        let watched = self.further_back();
        let oldest = watched[watched.len().saturating_sub(WATCHED)..].first().copied();
        self.seen.retain(|id, (status, _)| {
            *id > overlap || (!status.is_final() && oldest.is_some_and(|oldest| *id >= oldest))
        });
    }

    /// Leaves out rows that were read at the start and not shown, unless they are in the overlap.
    fn watch_only_from(&mut self, first: Option<MessageId>) {
        let overlap = self.overlap();
        self.seen.retain(|id, _| *id > overlap || first.is_some_and(|first| *id >= first));
        self.forget();
    }
}

/// Widths of the columns, the same for every part of a listing that goes on.
struct Layout {
    width: u16,
    columns: [u16; 8],
}

impl Layout {
    const HEADER: [&str; 8] =
        ["CDLS_ID", "CREATED (UTC)", "LINE", "DEST", "TYPE", "STATUS", "RESULT", "MDATA"];

    /// Room for the ids of these rows and of some that come after them.
    fn new(width: u16, rows: &[LogRow]) -> Layout {
        let digits = |id: i64| id.to_string().len() as u16;
        let id = rows.iter().map(|row| digits(row.cdls_id.0) + 1).max().unwrap_or(0).max(8);
        let line = rows.iter().map(|row| digits(row.v8l_id.0)).max().unwrap_or(0).max(6);
        let fixed = [id, 14, line, 17, 5, 9];
        let gaps = GAP * Layout::HEADER.len() as u16;
        let rest = width.saturating_sub(fixed.iter().sum::<u16>() + gaps).max(20);
        let [id, created, line, dest, kind, status] = fixed;
        Layout { width, columns: [id, created, line, dest, kind, status, rest / 2, rest - rest / 2] }
    }

    fn render(&self, rows: &[LogRow], header: bool) -> String {
        let mut table: Table = table(self.width, &Layout::HEADER);
        for (column, width) in table.column_iter_mut().zip(self.columns) {
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + GAP)));
        }
        align_right(&mut table, [0, 2]);
        for row in rows {
            add(
                &mut table,
                [
                    row.cdls_id.to_string(),
                    short_time(row.created_at),
                    row.v8l_id.to_string(),
                    row.dest.clone(),
                    row.mtype.to_string(),
                    row.status.to_string(),
                    result(row),
                    row.mdata.clone(),
                ],
            );
        }
        table.trim_fmt().lines().skip(usize::from(!header)).collect::<Vec<_>>().join("\n")
    }
}

/// What is known of a message's fate: Graph's id, or the error, and when it is tried next.
fn result(row: &LogRow) -> String {
    if row.status == Status::Ok {
        return row.message_id.clone().unwrap_or_default();
    }
    let code = match (row.error_code, row.error_subcode) {
        (Some(code), Some(subcode)) => Some(format!("{code}/{subcode}")),
        (Some(code), None) => Some(code.to_string()),
        (None, _) => None,
    };
    let kind = row.error_kind.map(|kind| kind.to_string());
    let next = row.next_at.filter(|_| !row.status.is_final()).map(|at| format!("at {}:", short_time(at)));
    let parts = [next, kind, code, row.error_message.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;
    use crate::message::{AccountId, Class, ErrorKind, Lane, LineId, MessageKind};

    fn row(id: i64, status: Status) -> LogRow {
        LogRow {
            cdls_id: MessageId(id),
            cdcs_id: AccountId(1),
            v8l_id: LineId(7),
            class: Class::Messenger,
            dest: "25312345678901234".into(),
            mtype: MessageKind::Text,
            mdata: "a text that is too long for the column it stands in, whatever the width ".repeat(9),
            mcaption: None,
            msg_id: None,
            cp_id: None,
            priority: Lane::High,
            status,
            status_code: 0,
            message_id: None,
            error_code: None,
            error_subcode: None,
            error_kind: None,
            error_message: None,
            fbtrace_id: None,
            attempts: 0,
            ambiguous_attempts: 0,
            next_at: None,
            expires_at: datetime!(2026-11-24 14:15:20 UTC),
            created_at: datetime!(2026-11-23 14:15:20 UTC),
            sent_at: None,
            done_at: None,
            delivered_at: None,
            read_at: None,
        }
    }

    fn ids(rows: Vec<&LogRow>) -> Vec<i64> {
        rows.iter().map(|row| row.cdls_id.0).collect()
    }

    #[test]
    fn a_row_is_news_when_it_is_new_or_its_status_has_changed() {
        let mut followed = Followed::default();
        assert_eq!(ids(followed.news(&[row(5, Status::Pending), row(7, Status::Ok)])), [5, 7]);
        assert_eq!(ids(followed.news(&[row(5, Status::Pending), row(7, Status::Ok)])), [] as [i64; 0]);
        assert_eq!(ids(followed.news(&[row(5, Status::Ok), row(7, Status::Ok)])), [5]);
    }

    #[test]
    fn a_lower_id_that_was_committed_later_is_news() {
        let mut followed = Followed::default();
        followed.news(&[row(5000, Status::Ok)]);
        assert_eq!(followed.overlap(), MessageId(4000));
        assert_eq!(ids(followed.news(&[row(4999, Status::Ok), row(5000, Status::Ok)])), [4999]);
    }

    #[test]
    fn what_is_followed_stays_bounded() {
        let mut followed = Followed::default();
        let rows: Vec<LogRow> = (1..=5000).map(|id| row(id, Status::Pending)).collect();
        followed.news(&rows);
        followed.forget();
        assert_eq!(followed.seen.len(), WATCHED + OVERLAP as usize);
        assert_eq!(followed.further_back().first(), Some(&MessageId(3801)));
        followed.news(&[row(3900, Status::Ok)]);
        followed.forget();
        assert!(!followed.further_back().contains(&MessageId(3900)), "final rows are let go");
    }

    #[rstest]
    #[case(100)]
    #[case(160)]
    #[case(200)]
    fn a_listing_is_one_line_a_row_within_its_width_and_keeps_its_columns(#[case] width: u16) {
        let rows = [row(123_456_789, Status::Unknown), row(123_456_790, Status::Ok)];
        let layout = Layout::new(width, &rows);
        let first = layout.render(&rows, true);
        assert_eq!(first.lines().count(), 3, "{first}");
        assert!(first.lines().all(|line| line.chars().count() <= usize::from(width)), "{first}");
        assert!(
            first.contains("25312345678901234") && first.contains('…') && first.contains("UNKNOWN"),
            "{first}"
        );
        let more = layout.render(&rows[..1], false);
        assert_eq!(first.lines().nth(1), Some(more.as_str()));
    }

    #[test]
    fn a_result_names_code_and_subcode_and_the_next_try() {
        let error = LogRow {
            error_kind: Some(ErrorKind::Refused),
            error_code: Some(10),
            error_subcode: Some(2018278),
            error_message: Some("outside the window".into()),
            ..row(1, Status::Error)
        };
        assert_eq!(result(&error), "refused 10/2018278 outside the window");
        let retry = LogRow {
            error_code: Some(2),
            next_at: Some(datetime!(2026-11-23 14:16 UTC)),
            ..row(1, Status::Retry)
        };
        assert_eq!(result(&retry), "at 11-23 14:16:00: 2");
        assert_eq!(result(&LogRow { message_id: Some("m_1".into()), ..row(1, Status::Ok) }), "m_1");
    }
}
