//! What operators do: counting what is open, settling UNKNOWN rows, sending ended rows again.

use std::time::Duration;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Connection, PgConnection, Postgres};

use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::rows;
use crate::message::{MessageId, Outcome};
use crate::store::{
    IdRange, Matching, OpenRows, Operation, Resend, Resent, Resolution, Selection, SettledRow, StoreError,
};

/// Range and selection, as [`select`] binds them.
macro_rules! selected {
    () => {
        "c.cdls_id > $1 and c.cdls_id <= $2 and ($3::bigint is null or c.v8l_id = $3)
         and ($4::text is null or c.cp_id = $4) and ($5::integer is null or c.error_code = $5)
         and ($6::bigint is null or c.created_at >= now() - $6 * interval '1 millisecond')"
    };
}

/// Whether a row that is tried again would be sent: those of a cancelled campaign would not, and say CANCELLED although
/// Graph may have taken them.
macro_rules! may_be_tried {
    () => {
        "(c.cp_id is null or not exists (select from campaign k where k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id \
          and k.state = 'cancelled'))"
    };
}

/// Whether a row may be logged again: its line still is its account's, and its campaign ($8, or its own) goes on.
macro_rules! may_be_logged_again {
    () => {
        "exists (select from cd_v8_line l
                 where l.v8l_id = c.v8l_id and l.cdcs_id = c.cdcs_id and l.v8l_class = c.class)
         and not exists (select from campaign p
                 where p.cdcs_id = c.cdcs_id and p.cp_id = coalesce($8, c.cp_id) and p.state = 'cancelled')"
    };
}

fn select<'q>(sql: &'q str, range: IdRange, selection: &'q Selection) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .bind(range.after.0)
        .bind(range.last.0)
        .bind(selection.line.map(|line| line.0))
        .bind(selection.cp_id.as_deref())
        .bind(selection.error_code)
        .bind(selection.since.map(milliseconds))
}

/// Each part is one partial index.
const OPEN: &str = "
    select status, count(*) as rows, null::bigint as oldest_ms from cdls
    where status in ('PENDING', 'RETRY') and next_at is null group by status
    union all
    select status, count(*), null from cdls
    where status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null)
    group by status
    union all
    select 'UNKNOWN', count(*), (extract(epoch from now() - min(sent_at)) * 1000)::bigint from cdls
    where status = 'UNKNOWN'";

pub async fn open_rows(pool: &Pool) -> Result<OpenRows, StoreError> {
    let mut open = OpenRows::default();
    for row in sqlx::query(OPEN).fetch_all(pool).await.map_err(failed)? {
        open.add(rows::word(&row, "status")?, rows::get(&row, "rows")?);
        if let Some(age) = rows::get::<Option<i64>>(&row, "oldest_ms")? {
            open.oldest_unknown = Some(Duration::from_millis(age.max(0) as u64));
        }
    }
    Ok(open)
}

const COUNT_UNKNOWN: &str = concat!(
    "select count(*) filter (where not $7 or (c.expires_at > now() and ",
    may_be_tried!(),
    ")) as rows, max(c.cdls_id) as last,
            count(*) filter (where $7 and not (c.expires_at > now() and ",
    may_be_tried!(),
    ")) as left_out
     from cdls c where c.status = 'UNKNOWN' and ",
    selected!()
);

const COUNT_ENDED: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, ",
    may_be_logged_again!(),
    " as fits from cdls c where c.status = $7 and ",
    selected!(),
    " and not exists (select from resend r where r.cdls_id = c.cdls_id)) as c"
);

pub async fn matching(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    operation: Operation<'_>,
) -> Result<Matching, StoreError> {
    let query = match operation {
        Operation::Resolve(resolution) => {
            select(COUNT_UNKNOWN, range, selection).bind(*resolution == Resolution::Retry)
        }
        Operation::Resend(resend) => {
            select(COUNT_ENDED, range, selection).bind(resend.status.as_str()).bind(resend.cp_id.as_deref())
        }
    };
    let row = query.fetch_one(pool).await.map_err(failed)?;
    Ok(Matching {
        rows: rows::get(&row, "rows")?,
        last: MessageId(rows::get::<Option<i64>>(&row, "last")?.unwrap_or(0)),
        left_out: rows::get(&row, "left_out")?,
    })
}

/// Locked in order of id, as the recorder does; the guard is in that look-up, so that a row settled meanwhile matches
/// nothing.
const RESOLVE: &str = concat!(
    "with picked as materialized (
         select c.cdls_id from cdls c
         where c.status = 'UNKNOWN' and ($7 <> 'RETRY' or (c.expires_at > now() and ",
    may_be_tried!(),
    ")) and ",
    selected!(),
    "    order by c.cdls_id limit $8 for update),
     resolved as (update cdls c set
         status = $7,
         message_id = coalesce($9, c.message_id),
         error_code = case when $7 <> 'OK' then c.error_code end,
         error_subcode = case when $7 <> 'OK' then c.error_subcode end,
         error_message = case when $7 <> 'OK' then c.error_message end,
         fbtrace_id = case when $7 <> 'OK' then c.fbtrace_id end,
         error_kind = case when $7 = 'ERROR' then 'resolved' end,
         tries = case when $7 = 'RETRY' then 0 else c.tries end,
         next_at = case when $7 = 'RETRY' then now() end,
         done_at = case when $7 <> 'RETRY' then now() end
     from picked p where c.cdls_id = p.cdls_id
     returning c.cdls_id),
     noted as (
         insert into settled (cdls_id, status) select cdls_id, $7 from resolved
         on conflict (cdls_id) do update set status = excluded.status)
     select cdls_id from resolved"
);

pub async fn resolve(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    resolution: &Resolution,
    limit: u32,
) -> Result<Vec<MessageId>, StoreError> {
    let message_id = match resolution {
        Resolution::Ok { message_id } => message_id.as_deref(),
        Resolution::Error | Resolution::Retry => None,
    };
    let resolved = select(RESOLVE, range, selection)
        .bind(resolution.status().as_str())
        .bind(i64::from(limit))
        .bind(message_id)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let mut ids = resolved
        .iter()
        .map(|row| Ok(MessageId(rows::get(row, "cdls_id")?)))
        .collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Of two processes each takes what the other has not locked.
const TAKE_SETTLED: &str = "
    with picked as materialized (
        select cdls_id from settled order by cdls_id limit $1 for update skip locked),
    taken as (
        delete from settled s using picked p where s.cdls_id = p.cdls_id returning s.cdls_id, s.status)
    select t.cdls_id, t.status, case when t.status = 'ERROR' then 0 else c.status_code end as status_code, coalesce(c.message_id, '') as message_id, c.waiter
    from taken t join cdls c on c.cdls_id = t.cdls_id order by t.cdls_id";

pub async fn take_settled(pool: &Pool, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
    let taken = sqlx::query(TAKE_SETTLED).bind(i64::from(limit)).fetch_all(pool).await.map_err(failed)?;
    taken
        .iter()
        .map(|row| {
            let outcome = Outcome {
                cdls_id: MessageId(rows::get(row, "cdls_id")?),
                status: rows::word(row, "status")?,
                status_code: rows::get(row, "status_code")?,
                message_id: rows::get(row, "message_id")?,
            };
            Ok(SettledRow { outcome, waiter: rows::get(row, "waiter")? })
        })
        .collect()
}

/// The primary key of `resend` is what keeps a row from being copied twice; the lock, that of two runs the second
/// finds what the first has done instead of failing on that key. Rows are walked in order of id until there are enough:
/// without these settings the planner would join all that are left, for each batch anew (1,000 ms a batch instead of 120).
const ONE_AT_A_TIME: &str = "
    select pg_advisory_xact_lock(hashtext('cdls_resend')), set_config('enable_seqscan', 'off', true),
           set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
           set_config('enable_bitmapscan', 'off', true), set_config('enable_material', 'off', true)";

const RESEND: &str = concat!(
    "with ended as materialized (
         select c.cdls_id from cdls c
         where c.status = $7 and ",
    selected!(),
    "      and not exists (select from resend r where r.cdls_id = c.cdls_id)
           and ",
    may_be_logged_again!(),
    "    order by c.cdls_id limit $9),
     numbered as materialized (
         select e.cdls_id, nextval('cdls_id_seq') as copy_id from (select * from ended order by cdls_id) as e),
     copied as (
         insert into cdls (cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority,
                           expires_at)
         select n.copy_id, c.cdcs_id, c.v8l_id, c.class, c.dest, c.mtype, c.mdata, c.mcaption, c.msg_id,
                coalesce($8, c.cp_id), c.priority, now() + $10 * interval '1 millisecond'
         from numbered n join cdls c on c.cdls_id = n.cdls_id)
     insert into resend (cdls_id, copy_id) select cdls_id, copy_id from numbered
     returning cdls_id, copy_id"
);

pub async fn resend(
    pool: &Pool,
    range: IdRange,
    selection: &Selection,
    resend: &Resend,
    limit: u32,
) -> Result<Vec<Resent>, StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let resent = pool.wait_for(copied(&mut lent, range, selection, resend, limit)).await?;
    lent.give_back();
    Ok(resent)
}

async fn copied(
    connection: &mut PgConnection,
    range: IdRange,
    selection: &Selection,
    resend: &Resend,
    limit: u32,
) -> Result<Vec<Resent>, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query(ONE_AT_A_TIME).execute(&mut *transaction).await.map_err(failed)?;
    let copied = select(RESEND, range, selection)
        .bind(resend.status.as_str())
        .bind(resend.cp_id.as_deref())
        .bind(i64::from(limit))
        .bind(milliseconds(resend.valid_for))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(|error| StoreError::CommitUnknown(error.to_string()))?;
    let mut resent = copied
        .iter()
        .map(|row| {
            Ok(Resent {
                id: MessageId(rows::get(row, "cdls_id")?),
                copy: MessageId(rows::get(row, "copy_id")?),
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    resent.sort_unstable_by_key(|resent| resent.id);
    Ok(resent)
}

pub async fn copy_of(pool: &Pool, id: MessageId) -> Result<Option<MessageId>, StoreError> {
    let copy: Option<i64> = sqlx::query_scalar("select copy_id from resend where cdls_id = $1")
        .bind(id.0)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    Ok(copy.map(MessageId))
}
