//! What operators do: counting what is open, settling UNKNOWN rows, sending ended rows again.

use std::time::Duration;

use serde_json::json;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row, Sqlite, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::{list, time_or_null, word};
use crate::message::{ErrorKind, MessageId, Outcome};
use crate::store::{
    IdRange, Matching, OpenRows, Operation, Resend, Resent, Resolution, Selection, SettledRow, StoreError,
};

/// Range and selection, as [`select`] binds them.
macro_rules! selected {
    () => {
        "c.cdls_id > ?1 and c.cdls_id <= ?2 and (?3 is null or c.v8l_id = ?3) and (?4 is null or c.cp_id = ?4)
         and (?5 is null or c.error_code = ?5) and (?6 is null or c.created_at >= ?6)"
    };
}

/// Whether a row that is tried again would be sent: those of a cancelled campaign would not, and say CANCELLED although
/// Graph may have taken them.
macro_rules! may_be_tried {
    () => {
        "(c.cp_id is null or not exists (select 1 from campaign k where k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id \
          and k.state = 'cancelled'))"
    };
}

/// Whether a row may be logged again: its line still is its account's, and its campaign (?8, or its own) goes on.
macro_rules! may_be_logged_again {
    () => {
        "(exists (select 1 from cd_v8_line l
                  where l.v8l_id = c.v8l_id and l.cdcs_id = c.cdcs_id and l.v8l_class = c.class)
          and not exists (select 1 from campaign p
                  where p.cdcs_id = c.cdcs_id and p.cp_id = coalesce(?8, c.cp_id) and p.state = 'cancelled'))"
    };
}

fn select<'q>(
    sql: &'q str,
    range: IdRange,
    selection: &'q Selection,
    now: Now,
) -> Query<'q, Sqlite, SqliteArguments<'q>> {
    sqlx::query(sql)
        .bind(range.after.0)
        .bind(range.last.0)
        .bind(selection.line.map(|line| line.0))
        .bind(selection.cp_id.as_deref())
        .bind(selection.error_code)
        .bind(selection.since.map(|since| now.before(since)))
}

/// Each part is one partial index, whose condition has to stand here word for word.
pub(super) const OPEN: &str = "
select status, count(*) as rows, null as oldest from cdls indexed by cdls_ready
where status in ('PENDING', 'RETRY') and next_at is null group by status
union all
select status, count(*), null from cdls indexed by cdls_due
where status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null)
group by status
union all
select 'UNKNOWN', count(*), min(sent_at) from cdls indexed by cdls_unknown where status = 'UNKNOWN'";

pub async fn open_rows(reader: &SqlitePool) -> Result<OpenRows, StoreError> {
    let mut open = OpenRows::default();
    let now = Now::read();
    for row in sqlx::query(OPEN).fetch_all(reader).await.map_err(failed)? {
        open.add(word(&row, "status")?, row.try_get("rows").map_err(failed)?);
        if let Some(oldest) = time_or_null(&row, "oldest")? {
            open.oldest_unknown = Some((-now.until(oldest)).try_into().unwrap_or(Duration::ZERO));
        }
    }
    Ok(open)
}

const COUNT_UNKNOWN: &str = concat!(
    "select count(*) filter (where not ?7 or (c.expires_at > ?8 and ",
    may_be_tried!(),
    ")) as rows, max(c.cdls_id) as last,
            count(*) filter (where ?7 and not (c.expires_at > ?8 and ",
    may_be_tried!(),
    ")) as left_out
     from cdls c where c.status = 'UNKNOWN' and ",
    selected!()
);

const COUNT_ENDED: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, ",
    may_be_logged_again!(),
    " as fits from cdls c where c.status = ?7 and ",
    selected!(),
    " and not exists (select 1 from resend r where r.cdls_id = c.cdls_id))"
);

pub async fn matching(
    reader: &SqlitePool,
    range: IdRange,
    selection: &Selection,
    operation: Operation<'_>,
) -> Result<Matching, StoreError> {
    let now = Now::read();
    let query = match operation {
        Operation::Resolve(resolution) => select(COUNT_UNKNOWN, range, selection, now)
            .bind(*resolution == Resolution::Retry)
            .bind(now.text()),
        Operation::Resend(resend) => select(COUNT_ENDED, range, selection, now)
            .bind(resend.status.as_str())
            .bind(resend.cp_id.as_deref()),
    };
    let row = query.fetch_one(reader).await.map_err(failed)?;
    let last: Option<i64> = row.try_get("last").map_err(failed)?;
    Ok(Matching {
        rows: row.try_get("rows").map_err(failed)?,
        last: MessageId(last.unwrap_or(0)),
        left_out: row.try_get("left_out").map_err(failed)?,
    })
}

pub(super) const UNKNOWN: &str = concat!(
    "select c.cdls_id from cdls c
     where c.status = 'UNKNOWN' and (?7 <> 'RETRY' or (c.expires_at > ?8 and ",
    may_be_tried!(),
    ")) and ",
    selected!(),
    " order by c.cdls_id limit ?9"
);

const RESOLVE: &str = "
update cdls set
    status = ?2,
    message_id = coalesce(?3, message_id),
    error_code = iif(?2 = 'OK', null, error_code),
    error_subcode = iif(?2 = 'OK', null, error_subcode),
    error_message = iif(?2 = 'OK', null, error_message),
    fbtrace_id = iif(?2 = 'OK', null, fbtrace_id),
    error_kind = iif(?2 = 'ERROR', ?5, null),
    tries = iif(?2 = 'RETRY', 0, tries),
    next_at = iif(?2 = 'RETRY', ?4, null),
    done_at = iif(?2 = 'RETRY', null, ?4)
where cdls_id in (select value from json_each(?1)) and status = 'UNKNOWN'";

const NOTE: &str = "
insert into settled (cdls_id, status) select value, ?2 from json_each(?1) where true
on conflict (cdls_id) do update set status = excluded.status";

pub async fn resolve(
    writer: &SqlitePool,
    range: IdRange,
    selection: &Selection,
    resolution: &Resolution,
    limit: u32,
) -> Result<Vec<MessageId>, StoreError> {
    let message_id = match resolution {
        Resolution::Ok { message_id } => message_id.as_deref(),
        Resolution::Error | Resolution::Retry => None,
    };
    let status = resolution.status().as_str();
    let (mut transaction, now) = begin(writer).await?;
    let ids = select(UNKNOWN, range, selection, now)
        .bind(status)
        .bind(now.text())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?
        .iter()
        .map(|row| row.try_get("cdls_id").map_err(failed))
        .collect::<Result<Vec<i64>, _>>()?;
    sqlx::query(RESOLVE)
        .bind(list(ids.iter().copied()))
        .bind(status)
        .bind(message_id)
        .bind(now.text())
        .bind(ErrorKind::Resolved.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query(NOTE)
        .bind(list(ids.iter().copied()))
        .bind(status)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    Ok(ids.into_iter().map(MessageId).collect())
}

const SETTLED: &str = "
select s.cdls_id, s.status, iif(s.status = 'ERROR', 0, c.status_code) as status_code, coalesce(c.message_id, '') as message_id, c.waiter
from settled s cross join cdls c on c.cdls_id = s.cdls_id order by s.cdls_id limit ?1";

/// Looked for on a reading connection first: mostly there is none, and no lock is taken.
pub async fn take_settled(
    reader: &SqlitePool,
    writer: &SqlitePool,
    limit: u32,
) -> Result<Vec<SettledRow>, StoreError> {
    if sqlx::query(SETTLED).bind(1).fetch_optional(reader).await.map_err(failed)?.is_none() {
        return Ok(Vec::new());
    }
    let (mut transaction, _) = begin(writer).await?;
    let found = sqlx::query(SETTLED).bind(limit).fetch_all(&mut *transaction).await.map_err(failed)?;
    let settled = found.iter().map(settled_row).collect::<Result<Vec<_>, _>>()?;
    sqlx::query("delete from settled where cdls_id in (select value from json_each(?1))")
        .bind(list(settled.iter().map(|row| row.outcome.cdls_id.0)))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    Ok(settled)
}

fn settled_row(row: &SqliteRow) -> Result<SettledRow, StoreError> {
    let outcome = Outcome {
        cdls_id: MessageId(row.try_get("cdls_id").map_err(failed)?),
        status: word(row, "status")?,
        status_code: row.try_get("status_code").map_err(failed)?,
        message_id: row.try_get("message_id").map_err(failed)?,
    };
    Ok(SettledRow { outcome, waiter: row.try_get("waiter").map_err(failed)? })
}

const ENDED: &str = concat!(
    "select c.cdls_id from cdls c
     where c.status = ?7 and ",
    selected!(),
    " and not exists (select 1 from resend r where r.cdls_id = c.cdls_id) and ",
    may_be_logged_again!(),
    " order by c.cdls_id limit ?9"
);

const COPY: &str = "
insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, expires_at, created_at)
select cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, coalesce(?2, cp_id), priority, ?3, ?4
from cdls where cdls_id in (select value from json_each(?1)) order by cdls_id
returning cdls_id";

/// The transaction holds the file's write lock from its start, so that of two runs the second finds what the first has
/// done.
pub async fn resend(
    writer: &SqlitePool,
    range: IdRange,
    selection: &Selection,
    resend: &Resend,
    limit: u32,
) -> Result<Vec<Resent>, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    let ids = select(ENDED, range, selection, now)
        .bind(resend.status.as_str())
        .bind(resend.cp_id.as_deref())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?
        .iter()
        .map(|row| row.try_get("cdls_id").map_err(failed))
        .collect::<Result<Vec<i64>, _>>()?;
    let mut copies: Vec<i64> = sqlx::query_scalar(COPY)
        .bind(list(ids.iter().copied()))
        .bind(resend.cp_id.as_deref())
        .bind(now.after(resend.valid_for))
        .bind(now.text())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    // Inserted in order of id, each with an id above every id there ever was; RETURNING promises no order.
    copies.sort_unstable();
    let pairs: Vec<(i64, i64)> = ids.into_iter().zip(copies).collect();
    sqlx::query("insert into resend (cdls_id, copy_id) select value->>0, value->>1 from json_each(?1)")
        .bind(json!(pairs).to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    Ok(pairs.into_iter().map(|(id, copy)| Resent { id: MessageId(id), copy: MessageId(copy) }).collect())
}

pub async fn copy_of(reader: &SqlitePool, id: MessageId) -> Result<Option<MessageId>, StoreError> {
    let copy: Option<i64> = sqlx::query_scalar("select copy_id from resend where cdls_id = ?1")
        .bind(id.0)
        .fetch_optional(reader)
        .await
        .map_err(failed)?;
    Ok(copy.map(MessageId))
}
