//! The recipients of lines: facts, counts, and waiting messages of recipients whose windows close soon.

use std::time::Instant;

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::error::failed;
use super::parameters::{milliseconds, partition_of};
use super::rows::{self, ready_columns};
use crate::channel::Medium;
use crate::domain::{AccountId, LineId, WorkId};
use crate::store::recipients::{moment, window_state};
use crate::store::{
    BACKLOG_WORK, CLOSING_ROWS_EACH, ClosingCursor, ClosingLook, ClosingRow, ClosingRows, Contact,
    LineRecipient, RecipientCounts, RecipientFacts, RecipientStore, Scope, StoreError, Unreachable,
};

/// Recipients $1 (lines) and $2. The limit keeps each look-up on the primary key, whatever the planner knows of the table.
const CONTACTS: &str = "
    select w.n, (extract(epoch from r.window_until - now()) * 1000)::bigint as closes_ms, r.unreachable_since is not null as gone
    from unnest($1::bigint[], $2::text[]) with ordinality as w(v8l_id, dest, n)
    cross join lateral (
        select r.window_until, r.unreachable_since from cd_recipient r
        where r.v8l_id = w.v8l_id and r.dest = w.dest limit 1) as r
    where r.window_until is not null or r.unreachable_since is not null";

/// Recipients $1 (lines) and $2, and how long ago each was called ($3). In one order, so that two processes never wait for
/// each other.
const MARK: &str = "
    insert into cd_recipient as r (v8l_id, dest, unreachable_since)
    select u.v8l_id, u.dest, now() - min(u.ago_ms) * interval '1 millisecond'
    from unnest($1::bigint[], $2::text[], $3::bigint[]) as u(v8l_id, dest, ago_ms)
    group by u.v8l_id, u.dest
    order by u.v8l_id, u.dest
    on conflict (v8l_id, dest) do update set unreachable_since = excluded.unreachable_since
    where r.unreachable_since is null
      and (r.last_inbound_at is null or r.last_inbound_at < excluded.unreachable_since)";

/// Recipient $3 of line $1, for account $2 or, if null, for operators.
const FACTS: &str = "
    select r.last_inbound_at, r.window_until, r.unreachable_since, r.window_until > now() as is_open
    from cd_v8_line l left join cd_recipient r on r.v8l_id = l.v8l_id and r.dest = $3
    where l.v8l_id = $1 and ($2::bigint is null or l.cdcs_id = $2)";

/// Recipients $2 (lines) and $3 of the lines of account $1.
const COUNTS: &str = "
    select l.v8l_id, count(*) filter (where r.gone) as unreachable,
           count(*) filter (where r.gone is not true and r.is_open) as open,
           count(*) filter (where r.gone is not true and not r.is_open) as closed,
           count(*) filter (where r.gone is not true and r.is_open is null) as unknown
    from (select distinct u.v8l_id, u.dest from unnest($2::bigint[], $3::text[]) as u(v8l_id, dest)) as a
    join cd_v8_line l on l.v8l_id = a.v8l_id and l.cdcs_id = $1
    left join lateral (
        select r.unreachable_since is not null as gone, r.window_until > now() as is_open from cd_recipient r
        where r.v8l_id = a.v8l_id and r.dest = a.dest limit 1) as r on true
    group by l.v8l_id order by l.v8l_id";

const WITH_OPEN_WINDOWS: &str = "
    select l.v8l_id from unnest($1::bigint[]) as l(v8l_id)
    where exists (select from cd_recipient r where r.v8l_id = l.v8l_id and r.window_until > now())";

const CLOSING: &str = concat!(
    include_str!("sql/closing.sql"),
    "select c.dest as k_dest, c.window_until, (extract(epoch from c.window_until - now()) * 1000)::bigint as closes_ms,
            c.work_id, ",
    ready_columns!(),
    " from found c order by c.window_until, c.k_no, c.cdls_id"
);

#[async_trait]
impl RecipientStore for PostgresStore {
    async fn contacts(&self, recipients: &[LineRecipient]) -> Result<Vec<Contact>, StoreError> {
        let mut contacts = vec![Contact::default(); recipients.len()];
        if recipients.is_empty() {
            return Ok(contacts);
        }
        let found: Vec<(i64, Option<i64>, bool)> = sqlx::query_as(CONTACTS)
            .bind(recipients.iter().map(|recipient| recipient.line.0).collect::<Vec<_>>())
            .bind(recipients.iter().map(|recipient| recipient.dest.as_str()).collect::<Vec<_>>())
            .fetch_all(&self.dispatch)
            .await
            .map_err(failed)?;
        let now = Instant::now();
        for (number, closes_ms, is_unreachable) in found {
            let place = usize::try_from(number - 1).ok().and_then(|place| contacts.get_mut(place));
            if let Some(contact) = place {
                *contact = Contact { closes: closes_ms.map(|ms| moment(now, ms)), is_unreachable };
            }
        }
        Ok(contacts)
    }

    async fn mark_unreachable(&self, recipients: &[Unreachable]) -> Result<(), StoreError> {
        sqlx::query(MARK)
            .bind(recipients.iter().map(|gone| gone.recipient.line.0).collect::<Vec<_>>())
            .bind(recipients.iter().map(|gone| gone.recipient.dest.as_str()).collect::<Vec<_>>())
            .bind(recipients.iter().map(|gone| milliseconds(gone.called.elapsed())).collect::<Vec<_>>())
            .execute(&self.scans)
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
            .fetch_optional(&self.enquiries)
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
            .bind(recipients.iter().map(|recipient| recipient.line.0).collect::<Vec<_>>())
            .bind(recipients.iter().map(|recipient| recipient.dest.as_str()).collect::<Vec<_>>())
            .fetch_all(&self.enquiries)
            .await
            .map_err(failed)?;
        found.iter().map(counts).collect()
    }

    async fn lines_with_open_windows(&self, lines: &[LineId]) -> Result<Vec<LineId>, StoreError> {
        let found: Vec<i64> = sqlx::query_scalar(WITH_OPEN_WINDOWS)
            .bind(lines.iter().map(|line| line.0).collect::<Vec<_>>())
            .fetch_all(&self.scans)
            .await
            .map_err(failed)?;
        Ok(found.into_iter().map(LineId).collect())
    }

    async fn closing_rows(&self, look: &ClosingLook) -> Result<ClosingRows, StoreError> {
        let flow = &look.flow;
        let (from_until, from_dest) = match &look.from {
            Some(from) => (Some(from.until), from.dest.as_str()),
            None => (None, ""),
        };
        let found = sqlx::query(CLOSING)
            .bind(partition_of(flow.line))
            .bind(flow.line.0)
            .bind(flow.lane.as_str())
            .bind(flow.medium == Medium::Media)
            .bind(flow.campaign.as_str())
            .bind(look.account.0)
            .bind(look.after.0)
            .bind(f64::from(look.per_second.max(1)))
            .bind(from_until)
            .bind(from_dest)
            .bind(i64::from(look.limit))
            .bind(i64::from(CLOSING_ROWS_EACH))
            .bind(i64::from(BACKLOG_WORK))
            .fetch_all(&self.scans)
            .await
            .map_err(failed)?;
        closing(&found, look.limit)
    }
}

fn facts(row: &PgRow, line: LineId, dest: &str) -> Result<RecipientFacts, StoreError> {
    Ok(RecipientFacts {
        app_id: line,
        dest: dest.to_owned(),
        last_inbound_at: rows::get(row, "last_inbound_at")?,
        window_until: rows::get(row, "window_until")?,
        window: window_state(rows::get(row, "is_open")?),
        unreachable_since: rows::get(row, "unreachable_since")?,
    })
}

fn counts(row: &PgRow) -> Result<RecipientCounts, StoreError> {
    Ok(RecipientCounts {
        app_id: LineId(rows::get(row, "v8l_id")?),
        open: rows::get(row, "open")?,
        closed: rows::get(row, "closed")?,
        unknown: rows::get(row, "unknown")?,
        unreachable: rows::get(row, "unreachable")?,
    })
}

/// Return the rows of a look. A row of NULLs stands for a recipient without a waiting message, and a message that is in no
/// work ends the recipient's: a later one would go before it.
fn closing(found: &[PgRow], limit: u32) -> Result<ClosingRows, StoreError> {
    let now = Instant::now();
    let mut closing = ClosingRows::default();
    let (mut looked_at, mut is_shut) = (0, false);
    for row in found {
        let cursor =
            ClosingCursor { until: rows::get(row, "window_until")?, dest: rows::get(row, "k_dest")? };
        if closing.reached.as_ref() != Some(&cursor) {
            (looked_at, is_shut) = (looked_at + 1, false);
            closing.reached = Some(cursor);
        }
        let Some(work) = rows::get::<Option<i64>>(row, "work_id")? else {
            is_shut = true;
            continue;
        };
        match rows::ready(row, WorkId(work)) {
            Ok(ready) if !is_shut => {
                let closes = moment(now, rows::get(row, "closes_ms")?);
                closing.rows.push(ClosingRow { row: ready, closes });
            }
            Ok(_) => {}
            Err(error) => {
                is_shut = true;
                rows::skipped(&error);
            }
        }
    }
    if looked_at < limit {
        closing.reached = None;
    }
    Ok(closing)
}
