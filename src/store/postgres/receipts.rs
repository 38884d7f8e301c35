//! The changes that Meta's events make: receipts, recipients that write, blocked lines.
//!
//! No index leads to a row by Graph's id. A receipt names the recipient, and the newest rows of that are looked at, in the
//! newest ranges of the log. One statement a range writes the receipts of a batch, whatever their kinds.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use super::directory::FOR_EVER;
use super::error::failed;
use super::log::ranges::{self, Range, unless_missing};
use super::parameters::milliseconds;
use super::pool::Pool;
use super::{PostgresStore, rows};
use crate::channel::Class;
use crate::domain::{AccountId, LineId, RowId};
use crate::store::{
    BLOCKED_PAUSE, EARLY_FOR, EARLY_RESTS, Enforced, GRAPH_PAUSE, InboundEvent, LineOfPage, RECEIPT_ROWS,
    RECEIPT_SKEW, Receipt, ReceiptStore, Receipted, Received, StoreError, WINDOW,
};

/// Ranges in which the rows of receipts are looked for: the newest, each of ten million messages.
const MAX_RANGES: usize = 4;
/// The newest rows of a recipient among which a message without an outcome is looked for.
const OPEN_ROWS: i64 = 20;

/// A receipt and its place in the batch.
type Numbered<'a> = (usize, &'a Receipt);

#[async_trait]
impl ReceiptStore for PostgresStore {
    async fn event_lines(&self, pages: &[(Class, String)]) -> Result<Vec<LineOfPage>, StoreError> {
        event_lines(&self.dispatch, pages).await
    }

    async fn receive(&self, receipts: &[Receipt]) -> Result<Vec<Received>, StoreError> {
        let numbered: Vec<Numbered<'_>> = receipts.iter().enumerate().collect();
        let ranges = newest_ranges(&self.dispatch).await?;
        let (received, left) = receive(&self.dispatch, &ranges, numbered).await?;
        let early = waiting(&self.dispatch, &ranges, &left).await?;
        let early: Vec<&Receipt> =
            left.into_iter().filter(|(n, _)| early.contains(n)).map(|(_, receipt)| receipt).collect();
        if !early.is_empty() {
            keep(&self.dispatch, &early).await?;
        }
        Ok(received)
    }

    async fn receive_early(&self, limit: u32) -> Result<Vec<Received>, StoreError> {
        let kept = due_receipts(&self.dispatch, limit).await?;
        if kept.is_empty() {
            return Ok(Vec::new());
        }
        let numbered: Vec<Numbered<'_>> = kept.iter().enumerate().collect();
        let ranges = newest_ranges(&self.dispatch).await?;
        let (received, left) = receive(&self.dispatch, &ranges, numbered).await?;
        let early = waiting(&self.dispatch, &ranges, &left).await?;
        let settled: Vec<&Receipt> =
            kept.iter().enumerate().filter(|(n, _)| !early.contains(n)).map(|(_, receipt)| receipt).collect();
        forget(&self.dispatch, &settled).await?;
        Ok(received)
    }

    async fn note_inbound(&self, inbound: &[InboundEvent]) -> Result<(), StoreError> {
        sqlx::query(NOTE_INBOUND)
            .bind(inbound.iter().map(|event| event.line.0).collect::<Vec<_>>())
            .bind(inbound.iter().map(|event| event.dest.as_str()).collect::<Vec<_>>())
            .bind(inbound.iter().map(|event| event.at).collect::<Vec<_>>())
            .bind(milliseconds(WINDOW))
            .execute(&self.dispatch)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn enforce(&self, enforced: &[Enforced]) -> Result<Vec<LineId>, StoreError> {
        enforce(&self.dispatch, &Enforced::newest(enforced)).await
    }
}

/// A line that this version cannot read has no class that it knows.
const EVENT_LINES: &str = r"
    select l.v8l_id, l.cdcs_id, l.v8l_class, btrim(l.v8l_fb_page_id, E' \t\r\n') as page, l.v8l_meta_app
    from cd_v8_line l where btrim(l.v8l_fb_page_id, E' \t\r\n') = any($1::text[])
      and l.v8l_fb_page_id is not null and l.v8l_class = $3
    union all
    select l.v8l_id, l.cdcs_id, l.v8l_class, btrim(l.v8l_ig_account_id, E' \t\r\n'), l.v8l_meta_app
    from cd_v8_line l where btrim(l.v8l_ig_account_id, E' \t\r\n') = any($2::text[])
      and l.v8l_ig_account_id is not null and l.v8l_class = $4
    order by 1";

async fn event_lines(pool: &Pool, pages: &[(Class, String)]) -> Result<Vec<LineOfPage>, StoreError> {
    let of = |class: Class| -> Vec<&str> {
        pages.iter().filter(|(of, _)| *of == class).map(|(_, page)| page.as_str()).collect()
    };
    let found = sqlx::query(EVENT_LINES)
        .bind(of(Class::MESSENGER))
        .bind(of(Class::INSTAGRAM))
        .bind(Class::MESSENGER.as_str())
        .bind(Class::INSTAGRAM.as_str())
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    Ok(rows::readable(&found, |row| {
        Ok(LineOfPage {
            line: LineId(rows::get(row, "v8l_id")?),
            account: AccountId(rows::get(row, "cdcs_id")?),
            class: rows::word(row, "v8l_class")?,
            page: rows::get(row, "page")?,
            app: rows::get(row, "v8l_meta_app")?,
        })
    }))
}

async fn newest_ranges(pool: &Pool) -> Result<Vec<Range>, StoreError> {
    let mut ranges = ranges::all(pool).await?;
    ranges.truncate(MAX_RANGES);
    Ok(ranges)
}

/// Write receipts, range by range, the newest first. Return the rows of which more is known now, and the receipts that
/// may concern more rows: those for an id that was not found, and all watermarks.
async fn receive<'a>(
    pool: &Pool,
    ranges: &[Range],
    mut left: Vec<Numbered<'a>>,
) -> Result<(Vec<Received>, Vec<Numbered<'a>>), StoreError> {
    let mut received = Vec::new();
    for range in ranges {
        if left.is_empty() {
            break;
        }
        let statement = include_str!("sql/receipts.sql").replace("{range}", &range.to_string());
        let answer = unless_missing(written(&statement, &left).fetch_all(pool).await)?;
        let mut found = HashSet::new();
        for row in &answer {
            match rows::get::<Option<i64>>(row, "n")? {
                Some(n) => drop(found.insert(n)),
                None => received.push(received_row(row)?),
            }
        }
        left.retain(|(n, receipt)| receipt.of.message_id().is_none() || !found.contains(&(*n as i64)));
    }
    Ok((received, left))
}

fn written<'q>(statement: &'q str, receipts: &[Numbered<'q>]) -> Query<'q, sqlx::Postgres, PgArguments> {
    with_numbers(sqlx::query(statement), receipts)
        .bind(receipts.iter().map(|(_, receipt)| receipt.of.message_id()).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(_, receipt)| receipt.of.up_to()).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(_, receipt)| receipt.at).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(_, receipt)| receipt.is_read).collect::<Vec<_>>())
        .bind(i64::from(RECEIPT_ROWS))
}

fn with_numbers<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    receipts: &[Numbered<'q>],
) -> Query<'q, sqlx::Postgres, PgArguments> {
    query
        .bind(receipts.iter().map(|(n, _)| *n as i64).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(_, receipt)| receipt.account.0).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(_, receipt)| receipt.line.0).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(_, receipt)| receipt.dest.as_str()).collect::<Vec<_>>())
}

fn received_row(row: &PgRow) -> Result<Received, StoreError> {
    Ok(Received {
        id: RowId(rows::get(row, "cdls_id")?),
        delivered_at: rows::get(row, "delivered_at")?,
        read_at: rows::get(row, "read_at")?,
    })
}

/// Return the numbers of the receipts whose message may have no outcome yet. Such messages are young: the two newest
/// ranges hold them.
async fn waiting(
    pool: &Pool,
    ranges: &[Range],
    receipts: &[Numbered<'_>],
) -> Result<HashSet<usize>, StoreError> {
    let mut waiting = HashSet::new();
    if receipts.is_empty() {
        return Ok(waiting);
    }
    for range in ranges.iter().take(2) {
        let statement = include_str!("sql/receipts_open.sql").replace("{range}", &range.to_string());
        let query = with_numbers(sqlx::query(&statement), receipts)
            .bind(receipts.iter().map(|(_, receipt)| receipt.at + RECEIPT_SKEW).collect::<Vec<_>>())
            .bind(OPEN_ROWS);
        for row in unless_missing(query.fetch_all(pool).await)? {
            waiting.extend(usize::try_from(rows::get::<i64>(&row, "n")?));
        }
    }
    Ok(waiting)
}

const KEEP: &str = "
    insert into early_receipt (v8l_id, dest, is_read, mark, cdcs_id, at, look_at)
    select *, now() + $7 * interval '1 millisecond'
    from unnest($1::bigint[], $2::text[], $3::boolean[], $4::text[], $5::bigint[], $6::timestamptz[])
    on conflict do nothing";

async fn keep(pool: &Pool, early: &[&Receipt]) -> Result<(), StoreError> {
    with_keys(sqlx::query(KEEP), early)
        .bind(early.iter().map(|receipt| receipt.account.0).collect::<Vec<_>>())
        .bind(early.iter().map(|receipt| receipt.at).collect::<Vec<_>>())
        .bind(milliseconds(EARLY_RESTS.0))
        .execute(pool)
        .await
        .map(drop)
        .map_err(failed)
}

fn with_keys<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    receipts: &[&Receipt],
) -> Query<'q, sqlx::Postgres, PgArguments> {
    query
        .bind(receipts.iter().map(|receipt| receipt.line.0).collect::<Vec<_>>())
        .bind(receipts.iter().map(|receipt| receipt.dest.clone()).collect::<Vec<_>>())
        .bind(receipts.iter().map(|receipt| receipt.is_read).collect::<Vec<_>>())
        .bind(receipts.iter().map(|receipt| receipt.of.mark()).collect::<Vec<_>>())
}

/// Each of two processes takes the receipts that the other has not locked. A look that fails is repeated later.
const DUE: &str = "
    with picked as materialized (
        select v8l_id, dest, is_read, mark from early_receipt where look_at <= now()
        order by look_at limit $1 for update skip locked)
    update early_receipt e
    set look_at = now() + least($3 * interval '1 millisecond', greatest($2 * interval '1 millisecond', now() - e.kept_at))
    from picked p where (e.v8l_id, e.dest, e.is_read, e.mark) = (p.v8l_id, p.dest, p.is_read, p.mark)
    returning e.v8l_id, e.dest, e.is_read, e.mark, e.cdcs_id, e.at";

async fn due_receipts(pool: &Pool, limit: u32) -> Result<Vec<Receipt>, StoreError> {
    // Mostly there are none, and nothing is locked.
    let is_due: bool = sqlx::query_scalar("select exists (select from early_receipt where look_at <= now())")
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    if !is_due {
        return Ok(Vec::new());
    }
    let found = sqlx::query(DUE)
        .bind(i64::from(limit))
        .bind(milliseconds(EARLY_RESTS.0))
        .bind(milliseconds(EARLY_RESTS.1))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    Ok(rows::readable(&found, early_receipt))
}

fn early_receipt(row: &PgRow) -> Result<Receipt, StoreError> {
    let mark: &str = rows::get(row, "mark")?;
    let unreadable =
        || StoreError::Rejected("the mark of an early receipt is unknown to this version".into());
    Ok(Receipt {
        account: AccountId(rows::get(row, "cdcs_id")?),
        line: LineId(rows::get(row, "v8l_id")?),
        dest: rows::get(row, "dest")?,
        of: Receipted::of_mark(mark).ok_or_else(unreadable)?,
        at: rows::get(row, "at")?,
        is_read: rows::get(row, "is_read")?,
    })
}

const FORGET: &str = "
    delete from early_receipt e
    using unnest($1::bigint[], $2::text[], $3::boolean[], $4::text[]) as u(v8l_id, dest, is_read, mark)
    where (e.v8l_id, e.dest, e.is_read, e.mark) = (u.v8l_id, u.dest, u.is_read, u.mark)";

const FORGET_OLD: &str = "delete from early_receipt where kept_at < now() - $1 * interval '1 millisecond'";

/// Forget these receipts, and those that are too old.
async fn forget(pool: &Pool, settled: &[&Receipt]) -> Result<(), StoreError> {
    if !settled.is_empty() {
        with_keys(sqlx::query(FORGET), settled).execute(pool).await.map_err(failed)?;
    }
    sqlx::query(FORGET_OLD).bind(milliseconds(EARLY_FOR)).execute(pool).await.map(drop).map_err(failed)
}

/// Of several events for one recipient the latest counts. One that is no later than the last changes nothing.
const NOTE_INBOUND: &str = "
    insert into cd_recipient as r (v8l_id, dest, last_inbound_at, window_until)
    select u.line, u.dest, max(u.at), max(u.at) + $4 * interval '1 millisecond'
    from unnest($1::bigint[], $2::text[], $3::timestamptz[]) as u(line, dest, at)
    group by u.line, u.dest order by u.line, u.dest
    on conflict (v8l_id, dest) do update set
        last_inbound_at = excluded.last_inbound_at,
        window_until = greatest(r.window_until, excluded.window_until),
        unreachable_since = case when r.unreachable_since > excluded.last_inbound_at then r.unreachable_since end
    where r.last_inbound_at is null or r.last_inbound_at < excluded.last_inbound_at";

/// Events $1 … $5: line, action, Meta's words, reason of the pause, time. The end of a pause $6; pauses that begin with $7 are
/// Graph's, and with $8 a block's.
const ENFORCE: &str = "
    with told as materialized (
        select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
            as u(line, action, reason, pause, at)),
    noted as (
        insert into line_enforcement as e (v8l_id, action, reason, at) select line, action, reason, at from told order by line
        on conflict (v8l_id) do update set action = excluded.action, reason = excluded.reason, at = excluded.at
        where e.at < excluded.at
        returning v8l_id)
    update cd_v8_line l set
        v8l_paused_until = case when t.pause is not null then $6::text::timestamptz end,
        v8l_pause_reason = t.pause
    from told t join noted n on n.v8l_id = t.line
    where l.v8l_id = t.line and case when t.pause is null
        then starts_with(coalesce(l.v8l_pause_reason, ''), $8)
        else coalesce(l.v8l_paused_until <= now(), true) or starts_with(coalesce(l.v8l_pause_reason, ''), $7) end
    returning l.v8l_id";

async fn enforce(pool: &Pool, enforced: &[&Enforced]) -> Result<Vec<LineId>, StoreError> {
    let mut changed: Vec<i64> = sqlx::query_scalar(ENFORCE)
        .bind(enforced.iter().map(|event| event.line.0).collect::<Vec<_>>())
        .bind(enforced.iter().map(|event| event.action()).collect::<Vec<_>>())
        .bind(enforced.iter().map(|event| event.reason.as_deref()).collect::<Vec<_>>())
        .bind(enforced.iter().map(|event| event.pause.as_deref()).collect::<Vec<_>>())
        .bind(enforced.iter().map(|event| event.at).collect::<Vec<_>>())
        .bind(FOR_EVER)
        .bind(GRAPH_PAUSE)
        .bind(BLOCKED_PAUSE)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    changed.sort_unstable();
    Ok(changed.into_iter().map(LineId).collect())
}
