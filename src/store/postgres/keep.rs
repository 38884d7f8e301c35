//! Old ranges of the log: taken out of it, and dropped. Never a range with a row that has not ended, nor the
//! range that receives new rows.

use std::time::Duration;

use sqlx::PgConnection;

use super::error::failed;
use super::log::ranges::{self, Range};
use super::parameters::milliseconds;
use super::pool::Pool;
use crate::store::StoreError;

/// One process at a time drops ranges.
const ONE_AT_A_TIME: &str = "select pg_try_advisory_lock(hashtext('cdls_drop_ranges'))";

/// Rows that have not ended are in the queue. The last row of a range gives roughly the age of the range.
const IS_OLD: &str = "
    select $1 < (select last_value from cdls_id_seq)
           and not exists (select from cdls_open o where o.cdls_id between $2 and $1)
           and not exists (select from work w where w.first_id <= $1 and w.ids[cardinality(w.ids)] >= $2)
           and not exists (select from claim c where c.ids[1] <= $1 and c.ids[cardinality(c.ids)] >= $2
                           and exists (select from worker_lease l where l.worker = c.worker and l.expires_at > now()))
           and coalesce((select c.created_at from cdls_{range} c order by c.cdls_id desc limit 1)
                        < now() - $3 * interval '1 millisecond', true)";

/// Whether detaching was begun and not ended, because another session read the log for too long.
const IS_PENDING: &str =
    "select coalesce(bool_or(inhdetachpending), false) from pg_inherits where inhrelid = to_regclass($1)";

/// Whether the session may change the table, as its owner or a member of it.
const IS_OWNER: &str = "select pg_has_role(relowner, 'usage') from pg_class where oid = 'cdls'::regclass";

/// A session without that right calls this function, which looks at the same.
const DROP: &str = "select cdls_drop_range($1, $2)";
/// The function waits for a moment only, as everybody waits behind it; how often it is tried, and the rest between.
const TRIES: u32 = 10;
const REST: Duration = Duration::from_secs(1);

/// Drop the ranges older than `keep`; return their number.
pub async fn drop_old(pool: &Pool, keep: Duration) -> Result<u64, StoreError> {
    let mut ranges = ranges::all(pool).await?;
    ranges.reverse();
    let is_owner: bool = sqlx::query_scalar(IS_OWNER).fetch_one(pool).await.map_err(failed)?;
    if !is_owner {
        return dropped_by_function(pool, &ranges, keep).await;
    }
    let mut lent = pool.lend().await.map_err(failed)?;
    // The connection is dropped, as the lock is the session's.
    pool.wait_for(dropped(&mut lent, &ranges, keep)).await
}

async fn dropped_by_function(pool: &Pool, ranges: &[Range], keep: Duration) -> Result<u64, StoreError> {
    let mut count = 0;
    for range in ranges {
        if is_dropped(pool, *range, keep).await? {
            tell(*range);
            count += 1;
        }
    }
    Ok(count)
}

async fn is_dropped(pool: &Pool, range: Range, keep: Duration) -> Result<bool, StoreError> {
    let mut tries = 1;
    loop {
        let call = sqlx::query_scalar(DROP).bind(range.number()).bind(milliseconds(keep)).fetch_one(pool);
        match call.await.map_err(failed) {
            Err(StoreError::Locked(_)) if tries < TRIES => tries += 1,
            done => return done,
        }
        tokio::time::sleep(REST).await;
    }
}

fn tell(range: Range) {
    tracing::info!(%range, "range dropped: all its rows are older than log.keep");
}

async fn dropped(connection: &mut PgConnection, ranges: &[Range], keep: Duration) -> Result<u64, StoreError> {
    let is_ours: bool =
        sqlx::query_scalar(ONE_AT_A_TIME).fetch_one(&mut *connection).await.map_err(failed)?;
    if !is_ours {
        return Ok(0);
    }
    // A walk over a range's index finds its last row; detaching waits for readers of the log, and blocks no
    // one.
    sqlx::query("set lock_timeout = '2s'").execute(&mut *connection).await.map_err(failed)?;
    let mut count = 0;
    for range in ranges {
        let is_old: bool = sqlx::query_scalar(&IS_OLD.replace("{range}", &range.to_string()))
            .bind(range.last())
            .bind(range.first())
            .bind(milliseconds(keep))
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        if !is_old {
            continue;
        }
        let is_half_detached: bool = sqlx::query_scalar(IS_PENDING)
            .bind(format!("cdls_{range}"))
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        let how = if is_half_detached { "finalize" } else { "concurrently" };
        for statement in [
            format!("alter table cdls detach partition cdls_{range} {how}"),
            format!("drop table cdls_{range}"),
        ] {
            sqlx::query(&statement).execute(&mut *connection).await.map_err(failed)?;
        }
        tell(*range);
        count += 1;
    }
    Ok(count)
}
