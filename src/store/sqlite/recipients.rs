//! The recipients of lines: facts, counts, and waiting messages of recipients whose windows close soon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::Now;
use super::dispatch::ready_row;
use super::error::failed;
use super::row::{get, list, read_or_skip, readable, time, time_or_null};
use crate::channel::Medium;
use crate::domain::{AccountId, LineId, WorkId};
use crate::store::recipients::{moment, window_state};
use crate::store::{
    BACKLOG_WORK, CLOSING_ROWS_EACH, ClosingCursor, ClosingLook, ClosingRow, ClosingRows, Contact,
    LineRecipient, RecipientCounts, RecipientFacts, RecipientStore, Scope, StoreError, Unreachable,
};
use crate::text::timestamp;

/// The longest time that the backlog of a line counts for: no window is longer.
const LONGEST_BACKLOG: Duration = Duration::from_secs(86_400);

/// Recipients ?1 (arrays: line, recipient).
pub(super) const CONTACTS: &str = "
select j.key as n, r.window_until, r.unreachable_since is not null as gone
from json_each(?1) j
cross join cd_recipient r
where r.v8l_id = j.value->>0 and r.dest = j.value->>1";

/// Recipients ?1 (arrays: line, recipient, the time of the call).
const MARK: &str = "
insert into cd_recipient (v8l_id, dest, unreachable_since)
select value->>0, value->>1, value->>2 from json_each(?1) where true
on conflict (v8l_id, dest) do update set unreachable_since = excluded.unreachable_since
where cd_recipient.unreachable_since is null
  and (cd_recipient.last_inbound_at is null or cd_recipient.last_inbound_at < excluded.unreachable_since)";

/// Recipient ?3 of line ?1, for account ?2 or, if null, for operators. Now ?4.
const FACTS: &str = "
select r.last_inbound_at, r.window_until, r.unreachable_since, r.window_until > ?4 as is_open
from cd_v8_line l left join cd_recipient r on r.v8l_id = l.v8l_id and r.dest = ?3
where l.v8l_id = ?1 and (?2 is null or l.cdcs_id = ?2)";

/// Recipients ?2 (arrays: line, recipient) of the lines of account ?1. Now ?3.
pub(super) const COUNTS: &str = "
select a.v8l_id, sum(a.gone) as unreachable,
       sum(a.gone = 0 and coalesce(a.is_open, 0)) as open,
       sum(a.gone = 0 and coalesce(not a.is_open, 0)) as closed,
       sum(a.gone = 0 and a.is_open is null) as unknown
from (
    select l.v8l_id, coalesce(r.unreachable_since is not null, 0) as gone, r.window_until > ?3 as is_open
    from (select distinct value->>0 as v8l_id, value->>1 as dest from json_each(?2)) j
    cross join cd_v8_line l
    left join cd_recipient r on r.v8l_id = j.v8l_id and r.dest = j.dest
    where l.v8l_id = j.v8l_id and l.cdcs_id = ?1) a
group by a.v8l_id order by a.v8l_id";

/// Lines ?1. Now ?2.
pub(super) const WITH_OPEN_WINDOWS: &str = "
select j.value as v8l_id from json_each(?1) j
where exists (
    select 1 from cd_recipient r indexed by cd_recipient_window where r.v8l_id = j.value and r.window_until > ?2)";

/// The rows of at most ?5 rows of the work of line ?2 in partition ?1, lane ?3 and medium ?4.
pub(super) const BACKLOG: &str = "
select coalesce(sum(counted.rows), 0) from (
    select json_array_length(w.ids) as rows from work w indexed by work_flow
    where w.partition_no = ?1 and w.v8l_id = ?2 and w.priority = ?3 and w.media = ?4 limit ?5) counted";

pub(super) const CLOSING: &str = include_str!("sql/closing.sql");

#[async_trait]
impl RecipientStore for SqliteStore {
    async fn contacts(&self, recipients: &[LineRecipient]) -> Result<Vec<Contact>, StoreError> {
        let mut contacts = vec![Contact::default(); recipients.len()];
        if recipients.is_empty() {
            return Ok(contacts);
        }
        let found = sqlx::query(CONTACTS)
            .bind(Value::from_iter(recipients.iter().map(values)).to_string())
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        let (now, moment_of_now) = (Now::read(), Instant::now());
        let read = readable(&found, |row| {
            let number: i64 = get(row, "n")?;
            let closes = time_or_null(row, "window_until")?
                .map(|until| moment(moment_of_now, milliseconds(now.until(until))));
            Ok((number, Contact { closes, is_unreachable: get(row, "gone")? }))
        });
        for (number, contact) in read {
            if let Some(place) = usize::try_from(number).ok().and_then(|place| contacts.get_mut(place)) {
                *place = contact;
            }
        }
        Ok(contacts)
    }

    async fn mark_unreachable(&self, recipients: &[Unreachable]) -> Result<(), StoreError> {
        let now = Now::read();
        let gone: BTreeMap<&LineRecipient, String> =
            recipients.iter().map(|gone| (&gone.recipient, now.before(gone.called.elapsed()))).collect();
        let values = gone.iter().map(|(recipient, since)| json!([recipient.line, recipient.dest, since]));
        sqlx::query(MARK)
            .bind(Value::from_iter(values).to_string())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn recipient(
        &self,
        scope: Scope,
        line: LineId,
        dest: &str,
    ) -> Result<Option<RecipientFacts>, StoreError> {
        let account = match scope {
            Scope::Account(account) => Some(account.0),
            Scope::Operator => None,
        };
        let found = sqlx::query(FACTS)
            .bind(line.0)
            .bind(account)
            .bind(dest)
            .bind(Now::read().text())
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)?;
        found.map(|row| facts(&row, line, dest)).transpose()
    }

    async fn recipient_counts(
        &self,
        account: AccountId,
        recipients: &[LineRecipient],
    ) -> Result<Vec<RecipientCounts>, StoreError> {
        let found = sqlx::query(COUNTS)
            .bind(account.0)
            .bind(Value::from_iter(recipients.iter().map(values)).to_string())
            .bind(Now::read().text())
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        found.iter().map(counts).collect()
    }

    async fn lines_with_open_windows(&self, lines: &[LineId]) -> Result<Vec<LineId>, StoreError> {
        let found: Vec<i64> = sqlx::query_scalar(WITH_OPEN_WINDOWS)
            .bind(list(lines.iter().map(|line| line.0)))
            .bind(Now::read().text())
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        Ok(found.into_iter().map(LineId).collect())
    }

    async fn closing_rows(&self, look: &ClosingLook) -> Result<ClosingRows, StoreError> {
        let mut connection = self.reader.acquire().await.map_err(failed)?;
        let within = backlog_time(&mut connection, look).await?;
        let (flow, now) = (&look.flow, Now::read());
        let (from_until, from_dest) = match &look.from {
            Some(from) => (timestamp(from.until), from.dest.as_str()),
            None => (String::new(), ""),
        };
        let found = sqlx::query(CLOSING)
            .bind(flow.line.partition().0)
            .bind(flow.line.0)
            .bind(flow.lane.as_str())
            .bind(flow.medium == Medium::Media)
            .bind(&flow.campaign)
            .bind(look.account.0)
            .bind(look.after.0)
            .bind(now.after(within))
            .bind(from_until)
            .bind(from_dest)
            .bind(look.limit)
            .bind(look.limit.saturating_mul(CLOSING_ROWS_EACH))
            .bind(now.text())
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        closing(&found, look.limit, now)
    }
}

fn values(recipient: &LineRecipient) -> Value {
    json!([recipient.line, recipient.dest])
}

fn milliseconds(length: time::Duration) -> i64 {
    i64::try_from(length.whole_milliseconds()).unwrap_or(i64::MAX)
}

/// Return the time that the line needs for the backlog of the flow's lane and medium.
async fn backlog_time(connection: &mut SqliteConnection, look: &ClosingLook) -> Result<Duration, StoreError> {
    let flow = &look.flow;
    let rows: i64 = sqlx::query_scalar(BACKLOG)
        .bind(flow.line.partition().0)
        .bind(flow.line.0)
        .bind(flow.lane.as_str())
        .bind(flow.medium == Medium::Media)
        .bind(BACKLOG_WORK)
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    let rows = u64::try_from(rows).unwrap_or_default();
    let time = Duration::from_millis(rows.saturating_mul(1_000) / u64::from(look.per_second.max(1)));
    Ok(time.min(LONGEST_BACKLOG))
}

fn facts(row: &SqliteRow, line: LineId, dest: &str) -> Result<RecipientFacts, StoreError> {
    Ok(RecipientFacts {
        app_id: line,
        dest: dest.to_owned(),
        last_inbound_at: time_or_null(row, "last_inbound_at")?,
        window_until: time_or_null(row, "window_until")?,
        window: window_state(get(row, "is_open")?),
        unreachable_since: time_or_null(row, "unreachable_since")?,
    })
}

fn counts(row: &SqliteRow) -> Result<RecipientCounts, StoreError> {
    Ok(RecipientCounts {
        app_id: LineId(get(row, "v8l_id")?),
        open: get(row, "open")?,
        closed: get(row, "closed")?,
        unknown: get(row, "unknown")?,
        unreachable: get(row, "unreachable")?,
    })
}

/// Return the rows of a look. A row of NULLs stands for a recipient without a waiting message, and a message that is in no
/// work ends the recipient's: a later one would go before it.
fn closing(found: &[SqliteRow], limit: u32, now: Now) -> Result<ClosingRows, StoreError> {
    let moment_of_now = Instant::now();
    let mut closing = ClosingRows::default();
    let (mut looked_at, mut is_shut) = (0, false);
    for row in found {
        let until = time(row, "window_until")?;
        let cursor = ClosingCursor { until, dest: get(row, "k_dest")? };
        if closing.reached.as_ref() != Some(&cursor) {
            (looked_at, is_shut) = (looked_at + 1, false);
            closing.reached = Some(cursor);
        }
        let work: Option<i64> = get(row, "work_id")?;
        let ready = work.and_then(|work| read_or_skip(row, |row| ready_row(row, WorkId(work), now)));
        match ready {
            Some(ready) if !is_shut => {
                let closes = moment(moment_of_now, milliseconds(now.until(until)));
                closing.rows.push(ClosingRow { row: ready, closes });
            }
            Some(_) => {}
            None => is_shut = true,
        }
    }
    if looked_at < limit {
        closing.reached = None;
    }
    Ok(closing)
}
