//! `log tail`: the newest messages, and with `--follow` the later ones.
//!
//! A row's id is given before its commit, so that a lower id may appear after a higher one. Each poll
//! therefore reads the last [`OVERLAP`] ids again, and shows rows not shown yet; the same reading brings
//! changes of status. Rows that are not final and lie further back are read one by one, [`WATCHED`] at most.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::listing::{Listing, table};
use super::output::Output;
use crate::domain::{RowId, Status};
use crate::store::{LogFilter, LogRow, Scope, Store};

const POLL: Duration = Duration::from_secs(1);

/// Ids that are read again at each poll.
const OVERLAP: u32 = 1_000;

/// Rows of one read.
const PAGE: u32 = 1_000;

/// Older rows whose status is still followed; beyond that, the oldest are let go.
const WATCHED: usize = 200;

#[derive(Serialize)]
struct Messages {
    messages: Vec<LogRow>,
}

/// Show the newest rows, oldest first.
pub async fn newest(filter: &LogFilter, lines: u32, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let mut rows = store.log_newest(filter, lines).await?;
    rows.reverse();
    out.answer(&Messages { messages: rows }, |shown| {
        table(&shown.messages, out.screen, OffsetDateTime::now_utc()).render()
    })
}

/// Show the newest rows, then new rows and changes of status, until the reader is gone.
pub async fn follow(filter: &LogFilter, lines: u32, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let mut rows = store.log_newest(filter, lines.max(OVERLAP)).await?;
    rows.reverse();
    let mut followed = Followed::default();
    followed.news(&rows);
    let rows = rows.split_off(rows.len().saturating_sub(lines as usize));
    let mut listing = Listing::new(out.screen);
    if out.json {
        rows.iter().try_for_each(|row| out.json(row))?;
    } else {
        out.text(&listing.begin(&rows, OffsetDateTime::now_utc()))?;
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
            out.text(&listing.go_on(&news, OffsetDateTime::now_utc()))?;
        }
    }
}

/// Return the rows that are new or have changed since the last poll, by id.
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

/// The values of a row whose change shows it again: status, attempts, and whether it was delivered and read.
type Seen = (Status, i32, bool, bool);

/// The rows that have been shown.
#[derive(Default)]
struct Followed {
    /// Rows seen at or above the overlap, and older ones that are not final.
    seen: BTreeMap<RowId, Seen>,
    highest: i64,
}

impl Followed {
    /// Return the rows that have not been shown in their present state.
    fn news<'a>(&mut self, rows: &'a [LogRow]) -> Vec<&'a LogRow> {
        rows.iter()
            .filter(|row| {
                self.highest = self.highest.max(row.cdls_id.0);
                let now = (row.status, row.attempts, row.delivered_at.is_some(), row.read_at.is_some());
                self.seen.insert(row.cdls_id, now) != Some(now)
            })
            .collect()
    }

    /// Return the id above which rows are read again.
    fn overlap(&self) -> RowId {
        RowId((self.highest - i64::from(OVERLAP)).max(0))
    }

    /// Return the rows below the overlap whose status may still change.
    fn further_back(&self) -> Vec<RowId> {
        self.seen
            .range(..=self.overlap())
            .filter(|(_, (status, ..))| !status.is_final())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Forget a row that does not belong to the listing any more.
    fn drop(&mut self, id: RowId) {
        self.seen.remove(&id);
    }

    /// Forget older rows that are final, and the oldest that are not, down to the watched number.
    fn forget(&mut self) {
        let overlap = self.overlap();
        let watched = self.further_back();
        let oldest = watched[watched.len().saturating_sub(WATCHED)..].first().copied();
        self.seen.retain(|id, (status, ..)| {
            *id > overlap || (!status.is_final() && oldest.is_some_and(|oldest| *id >= oldest))
        });
    }

    /// Leave out rows that were read at the start and not shown, unless they are in the overlap.
    fn watch_only_from(&mut self, first: Option<RowId>) {
        let overlap = self.overlap();
        self.seen.retain(|id, _| *id > overlap || first.is_some_and(|first| *id >= first));
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::super::listing::sample_row as row;
    use super::*;

    fn ids(rows: Vec<&LogRow>) -> Vec<i64> {
        rows.iter().map(|row| row.cdls_id.0).collect()
    }

    #[test]
    fn news_are_new_rows_and_changes_of_status() {
        let mut followed = Followed::default();
        assert_eq!(ids(followed.news(&[row(5, Status::Pending), row(7, Status::Ok)])), [5, 7]);
        assert_eq!(ids(followed.news(&[row(5, Status::Pending), row(7, Status::Ok)])), [] as [i64; 0]);
        assert_eq!(ids(followed.news(&[row(5, Status::Ok), row(7, Status::Ok)])), [5]);
        let read_at = Some(time::OffsetDateTime::UNIX_EPOCH);
        assert_eq!(ids(followed.news(&[LogRow { read_at, ..row(5, Status::Ok) }])), [5]);
    }

    #[test]
    fn news_include_a_lower_id_that_was_committed_later() {
        let mut followed = Followed::default();
        followed.news(&[row(5000, Status::Ok)]);
        assert_eq!(followed.overlap(), RowId(4000));
        assert_eq!(ids(followed.news(&[row(4999, Status::Ok), row(5000, Status::Ok)])), [4999]);
    }

    #[test]
    fn followed_rows_stay_bounded() {
        let mut followed = Followed::default();
        let rows: Vec<LogRow> = (1..=5000).map(|id| row(id, Status::Pending)).collect();
        followed.news(&rows);
        followed.forget();
        assert_eq!(followed.seen.len(), WATCHED + OVERLAP as usize);
        assert_eq!(followed.further_back().first(), Some(&RowId(3801)));
        followed.news(&[row(3900, Status::Ok)]);
        followed.forget();
        assert!(!followed.further_back().contains(&RowId(3900)), "final rows are let go");
    }
}
