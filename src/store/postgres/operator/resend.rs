//! Sends ended rows again, as copies of them.

use sqlx::{Connection, PgConnection};

use super::selection::{LOOKED_AT, add, narrowed, on_range, select, selected};
use crate::domain::RowId;
use crate::store::postgres::error::failed;
use crate::store::postgres::log::account_of;
use crate::store::postgres::log::candidates::Candidates;
use crate::store::postgres::log::filter::{ListFilter, Order};
use crate::store::postgres::log::ranges::{self, unless_missing};
use crate::store::postgres::parameters::milliseconds;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::rows;
use crate::store::{IdRange, Matching, Resend, Resent, Selection, StoreError};

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

const COUNT_ENDED: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, ",
    may_be_logged_again!(),
    " as fits from cdls_{range} c where c.status = $6 and ",
    selected!(),
    " and not exists (select from resend r where r.cdls_id = c.cdls_id)) as c"
);

pub async fn ended_matching(
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

/// The primary key of `resend` keeps a row from being copied twice; the lock makes the second of two runs
/// find the copies of the first instead of failing on that key.
const ONE_AT_A_TIME: &str = "select pg_advisory_xact_lock(hashtext('cdls_resend'))";

pub async fn send_again(
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
    include_str!("../sql/resend.sql")
);
