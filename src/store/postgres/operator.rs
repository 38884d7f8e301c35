//! The commands of operators: settling UNKNOWN rows, sending ended rows again.
//!
//! A statement concerns one range of the log, so that it locks no other; a run goes on from range to range.

use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Connection, PgConnection, Postgres};

use super::PostgresStore;
use super::error::failed;
use super::log::account_of;
use super::log::listing::{Candidates, ListFilter, Order};
use super::log::ranges::{self, Range, is_missing, range_of, split, unless_missing};
use super::parameters::milliseconds;
use super::pool::Pool;
use super::rows;
use crate::domain::{Outcome, RowId};
use crate::store::{
    IdRange, Matching, Operation, OperatorStore, Resend, Resent, Resolution, Selection, SettledRow,
    StoreError,
};

/// Rows looked at in one statement.
const LOOKED_AT: i64 = 10_000;

#[async_trait]
impl OperatorStore for PostgresStore {
    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError> {
        match operation {
            Operation::Resolve(resolution) => {
                unknown_matching(&self.background, range, selection, *resolution == Resolution::Retry).await
            }
            Operation::Resend(resend) => ended_matching(&self.background, range, selection, resend).await,
        }
    }

    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError> {
        resolve(&self.background, range, selection, resolution, limit).await
    }

    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
        take_settled(&self.dispatch, limit).await
    }

    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError> {
        send_again(&self.background, range, selection, resend, limit).await
    }

    async fn copy_of(&self, id: RowId) -> Result<Option<RowId>, StoreError> {
        let copy: Option<i64> = sqlx::query_scalar("select copy_id from resend where cdls_id = $1")
            .bind(id.0)
            .fetch_optional(&self.background)
            .await
            .map_err(failed)?;
        Ok(copy.map(RowId))
    }
}

/// The selected rows of $1, as [`select`] binds it.
macro_rules! selected {
    () => {
        "c.cdls_id = any($1::bigint[]) and ($2::bigint is null or c.v8l_id = $2)
         and ($3::text is null or c.cp_id = $3) and ($4::integer is null or c.error_code = $4)
         and ($5::bigint is null or c.created_at >= now() - $5 * interval '1 millisecond')"
    };
}

/// Whether a retried row would be sent: a row of a cancelled campaign would not, and would read CANCELLED
/// although Graph may have taken it.
macro_rules! may_be_tried {
    () => {
        "(c.expires_at > now() and (c.cp_id is null or not exists (
              select from campaign k where k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id and k.state = 'cancelled')))"
    };
}

/// Whether a row may be logged again: its line is still its account's, and its campaign ($7, or its own) goes
/// on.
macro_rules! may_be_logged_again {
    () => {
        "exists (select from cd_v8_line l
                 where l.v8l_id = c.v8l_id and l.cdcs_id = c.cdcs_id and l.v8l_class = c.class)
         and not exists (select from campaign p
                 where p.cdcs_id = c.cdcs_id and p.cp_id = coalesce($7, c.cp_id) and p.state = 'cancelled')"
    };
}

/// Bind a selection. Planned each time: a plan that fits one id does not fit ten thousand.
fn select<'q>(sql: &'q str, ids: &'q [i64], selection: &'q Selection) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .persistent(false)
        .bind(ids)
        .bind(selection.line.map(|line| line.0))
        .bind(selection.cp_id.as_deref())
        .bind(selection.error_code)
        .bind(selection.since.map(milliseconds))
}

const UNKNOWN_IDS: &str = "
    select cdls_id from cdls_open where kind = 'unknown' and cdls_id > $1 and cdls_id <= $2 order by cdls_id limit $3";

/// Return the lowest ids of UNKNOWN rows, of one range of the log.
async fn unknown_ids(pool: &Pool, after: i64, last: i64) -> Result<Vec<i64>, StoreError> {
    let mut ids: Vec<i64> = sqlx::query_scalar(UNKNOWN_IDS)
        .bind(after)
        .bind(last)
        .bind(LOOKED_AT)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let of_one_range = split(&ids).next().map_or(0, |(_, part)| part.len());
    ids.truncate(of_one_range);
    Ok(ids)
}

const NARROWED: &str = "
    select c.cdls_id from cdls_{range} c
    where c.cdls_id = any($1::bigint[]) and ($2::text is null or c.dest = $2) and ($3::text is null or c.msg_id = $3)
    order by c.cdls_id";

/// Return the rows of these ids, which are of one range, that have the recipient and the reference asked for: no row
/// ever changes them.
async fn narrowed(pool: &Pool, ids: Vec<i64>, selection: &Selection) -> Result<Vec<i64>, StoreError> {
    if selection.dest.is_none() && selection.msg_id.is_none() {
        return Ok(ids);
    }
    let statement = on_range(NARROWED, &ids);
    let query = sqlx::query_scalar(&statement)
        .persistent(false)
        .bind(&ids)
        .bind(selection.dest.as_deref())
        .bind(selection.msg_id.as_deref());
    unless_missing(query.fetch_all(pool).await)
}

const COUNT_UNKNOWN: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, not $6 or ",
    may_be_tried!(),
    " as fits from cdls_{range} c where c.status = 'UNKNOWN' and ",
    selected!(),
    ") as c"
);

async fn unknown_matching(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    again: bool,
) -> Result<Matching, StoreError> {
    let mut matching = Matching { rows: 0, last: RowId(0), left_out: 0 };
    let mut after = range.after.0;
    loop {
        let ids = unknown_ids(pool, after, range.last.0).await?;
        let Some(last) = ids.last() else { return Ok(matching) };
        after = *last;
        let ids = narrowed(pool, ids, selection).await?;
        if ids.is_empty() {
            continue;
        }
        let statement = on_range(COUNT_UNKNOWN, &ids);
        let query = select(&statement, &ids, selection).bind(again);
        add(&mut matching, unless_missing(query.fetch_all(pool).await)?)?;
    }
}

/// Return the statement, on the range of these ids.
fn on_range(statement: &str, ids: &[i64]) -> String {
    let number =
        ids.first().and_then(|id| range_of(*id)).map_or_else(String::new, |range: Range| range.to_string());
    statement.replace("{range}", &number)
}

fn add(matching: &mut Matching, counted: Vec<sqlx::postgres::PgRow>) -> Result<(), StoreError> {
    for row in &counted {
        matching.rows += rows::get::<i64>(row, "rows")?;
        matching.left_out += rows::get::<i64>(row, "left_out")?;
        let last = rows::get::<Option<i64>>(row, "last")?.unwrap_or(0);
        matching.last = matching.last.max(RowId(last));
    }
    Ok(())
}

const COUNT_ENDED: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, ",
    may_be_logged_again!(),
    " as fits from cdls_{range} c where c.status = $6 and ",
    selected!(),
    " and not exists (select from resend r where r.cdls_id = c.cdls_id)) as c"
);

async fn ended_matching(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    resend: &Resend,
) -> Result<Matching, StoreError> {
    let mut matching = Matching { rows: 0, last: RowId(0), left_out: 0 };
    let (wanted, bounds) = ended(pool, range, selection, resend).await?;
    let mut candidates = Candidates::find(pool, &wanted, Order::OldestFirst, bounds).await?;
    loop {
        let ids = candidates.next(LOOKED_AT).await?;
        if ids.is_empty() {
            return Ok(matching);
        }
        let ids = narrowed(pool, ids, selection).await?;
        if ids.is_empty() {
            continue;
        }
        let statement = on_range(COUNT_ENDED, &ids);
        let query =
            select(&statement, &ids, selection).bind(resend.status.as_str()).bind(resend.cp_id.as_deref());
        add(&mut matching, unless_missing(query.fetch_all(pool).await)?)?;
    }
}

/// Return the filter that finds ended rows, and the bounds of their ids.
async fn ended<'a>(
    pool: &Pool,
    range: IdRange,
    selection: &'a Selection,
    resend: &'a Resend,
) -> Result<(ListFilter<'a>, (i64, i64)), StoreError> {
    let line = selection.line.map(|line| line.0);
    let after = match selection.since {
        Some(since) => ranges::before(pool, since).await?.max(range.after.0),
        None => range.after.0,
    };
    let wanted = ListFilter {
        account: account_of(pool, line).await?,
        line,
        statuses: std::slice::from_ref(&resend.status),
        cp_id: selection.cp_id.as_deref(),
        dest: selection.dest.as_deref(),
        msg_ids: selection.msg_id.as_slice(),
        ..ListFilter::default()
    };
    Ok((wanted, (after, range.last.0)))
}

async fn resolve(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    resolution: &Resolution,
    limit: u32,
) -> Result<Vec<RowId>, StoreError> {
    let graph_id = match resolution {
        Resolution::Ok { message_id } => message_id.as_deref(),
        Resolution::Error | Resolution::Retry => None,
    };
    let mut after = range.after.0;
    loop {
        let ids = unknown_ids(pool, after, range.last.0).await?;
        let Some(last) = ids.last() else { return Ok(Vec::new()) };
        after = *last;
        let ids = narrowed(pool, ids, selection).await?;
        if ids.is_empty() {
            continue;
        }
        let statement = on_range(include_str!("sql/resolve.sql"), &ids);
        let query = select(&statement, &ids, selection)
            .bind(resolution.status().as_str())
            .bind(i64::from(limit))
            .bind(graph_id);
        let resolved = unless_missing(query.fetch_all(pool).await)?;
        if !resolved.is_empty() {
            let ids = resolved.iter().map(|row| Ok(RowId(rows::get(row, "cdls_id")?)));
            let mut ids = ids.collect::<Result<Vec<_>, StoreError>>()?;
            ids.sort_unstable();
            return Ok(ids);
        }
    }
}

/// Each of two processes takes the rows that the other has not locked.
const TAKE_SETTLED: &str = "
    with picked as materialized (
        select cdls_id from settled where cdls_id between $1 and $2 order by cdls_id limit $3 for update skip locked),
    taken as (
        delete from settled s using picked p where s.cdls_id = p.cdls_id returning s.cdls_id, s.status)
    select t.cdls_id, t.status, case when t.status in ('ERROR', 'CANCELLED') then 0 else c.status_code end as status_code,
           coalesce(c.message_id, '') as message_id, c.waiter
    from taken t join cdls_{range} c on c.cdls_id = t.cdls_id order by t.cdls_id";

/// Hand out settled rows. Most looks find nothing, and read no more than one index.
async fn take_settled(pool: &Pool, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
    let first: Option<i64> = sqlx::query_scalar("select cdls_id from settled order by cdls_id limit 1")
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    let Some(range) = first.and_then(range_of) else { return Ok(Vec::new()) };
    let statement = TAKE_SETTLED.replace("{range}", &range.to_string());
    let query = sqlx::query(&statement).bind(range.first()).bind(range.last()).bind(i64::from(limit));
    let taken = match query.fetch_all(pool).await {
        Err(error) if is_missing(&error) => return forget_settled(pool, range).await,
        taken => taken.map_err(failed)?,
    };
    Ok(taken.iter().filter_map(settled_row).collect())
}

/// Forget settled rows of a range that was taken out of the log: their outcome can no longer be read.
async fn forget_settled(pool: &Pool, range: Range) -> Result<Vec<SettledRow>, StoreError> {
    sqlx::query("delete from settled where cdls_id between $1 and $2")
        .bind(range.first())
        .bind(range.last())
        .execute(pool)
        .await
        .map_err(failed)?;
    Ok(Vec::new())
}

fn settled_row(row: &sqlx::postgres::PgRow) -> Option<SettledRow> {
    let read = || {
        let outcome = Outcome::settled(
            RowId(rows::get(row, "cdls_id")?),
            rows::word(row, "status")?,
            rows::get(row, "status_code")?,
            rows::get(row, "message_id")?,
        );
        Ok(SettledRow { outcome, waiter: rows::get(row, "waiter")? })
    };
    let unreadable = |error: StoreError| tracing::warn!(%error, "skipped unreadable settled row");
    read().map_err(unreadable).ok()
}

/// The primary key of `resend` keeps a row from being copied twice; the lock makes the second of two runs
/// find the copies of the first instead of failing on that key.
const ONE_AT_A_TIME: &str = "select pg_advisory_xact_lock(hashtext('cdls_resend'))";

async fn send_again(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    resend: &Resend,
    limit: u32,
) -> Result<Vec<Resent>, StoreError> {
    let (wanted, bounds) = ended(pool, range, selection, resend).await?;
    let mut candidates = Candidates::find(pool, &wanted, Order::OldestFirst, bounds).await?;
    let mut at_most = i64::from(limit);
    loop {
        let ids = candidates.next(at_most).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        at_most = at_most.saturating_mul(4);
        let ids = narrowed(pool, ids, selection).await?;
        if ids.is_empty() {
            continue;
        }
        let mut lent = pool.lend().await.map_err(failed)?;
        let resent = pool.wait_for(copied(&mut lent, &ids, selection, resend, limit)).await?;
        lent.give_back();
        if !resent.is_empty() {
            return Ok(resent);
        }
    }
}

async fn copied(
    connection: &mut PgConnection,
    ids: &[i64],
    selection: &Selection,
    resend: &Resend,
    limit: u32,
) -> Result<Vec<Resent>, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query(ONE_AT_A_TIME).execute(&mut *transaction).await.map_err(failed)?;
    let statement = on_range(RESEND, ids);
    let copied = select(&statement, ids, selection)
        .bind(resend.status.as_str())
        .bind(resend.cp_id.as_deref())
        .bind(i64::from(limit))
        .bind(milliseconds(resend.valid_for))
        .fetch_all(&mut *transaction)
        .await;
    let copied = unless_missing(copied)?;
    transaction.commit().await.map_err(|error| StoreError::CommitUnknown(error.to_string()))?;
    let mut resent = copied
        .iter()
        .map(|row| {
            Ok(Resent { id: RowId(rows::get(row, "cdls_id")?), copy: RowId(rows::get(row, "copy_id")?) })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    resent.sort_unstable_by_key(|resent| resent.id);
    Ok(resent)
}

/// The copies enter the queue as if they had been accepted at this moment.
const RESEND: &str = concat!(
    "with ended as materialized (
         select c.* from cdls_{range} c where c.status = $6 and ",
    selected!(),
    "      and not exists (select from resend r where r.cdls_id = c.cdls_id)
           and ",
    may_be_logged_again!(),
    "    order by c.cdls_id limit $8),",
    include_str!("sql/resend.sql")
);
