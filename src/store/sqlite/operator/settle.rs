//! Settles UNKNOWN rows, and hands them out to be announced.

use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::selection::{group, select, selected};
use crate::domain::{ErrorKind, Outcome, RowId, Status};
use crate::store::sqlite::clock::Now;
use crate::store::sqlite::counts::CampaignDeltas;
use crate::store::sqlite::error::{begin, commit, failed};
use crate::store::sqlite::row::{get, list, readable, word};
use crate::store::sqlite::{SqliteStore, record};
use crate::store::{IdRange, Resolution, Selection, SettledRow, StoreError};

/// UNKNOWN rows are in the queue.
macro_rules! unknown {
    () => {
        "from cdls_open o indexed by cdls_open_unknown cross join cdls c
         where o.kind = 'unknown' and o.cdls_id > ?1 and o.cdls_id <= ?2 and c.cdls_id = o.cdls_id
           and c.status = 'UNKNOWN' and "
    };
}

/// Whether a retried row would be sent: a row of a cancelled campaign would not, and would read CANCELLED
/// although Graph may have taken it. Now ?10.
macro_rules! may_be_tried {
    () => {
        "(c.expires_at > ?10 and (c.cp_id is null or not exists (
              select 1 from campaign k where k.cdcs_id = c.cdcs_id and k.cp_id = c.cp_id and k.state = 'cancelled')))"
    };
}

/// ?9: whether the rows are to be tried again.
pub const COUNT_UNKNOWN: &str = concat!(
    "select count(*) filter (where not ?9 or ",
    may_be_tried!(),
    ") as rows, max(c.cdls_id) as last, count(*) filter (where ?9 and not ",
    may_be_tried!(),
    ") as left_out ",
    unknown!(),
    selected!()
);

pub const UNKNOWN: &str = concat!(
    "select c.cdls_id, c.cdcs_id, c.v8l_id, c.cp_id, c.mtype <> 'text' as media, c.error_code, c.error_subcode ",
    unknown!(),
    "(not ?9 or ",
    may_be_tried!(),
    ") and ",
    selected!(),
    " order by o.cdls_id limit ?11"
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
where cdls_id in (select value from json_each(?1))";

pub const NOTE: &str = "
insert into settled (cdls_id, status) select value, ?2 from json_each(?1) where true
on conflict (cdls_id) do update set status = excluded.status";

const SETTLED: &str = "
select s.cdls_id, s.status, iif(s.status in ('ERROR', 'CANCELLED'), 0, c.status_code) as status_code,
       coalesce(c.message_id, '') as message_id, c.waiter
from settled s left join cdls c on c.cdls_id = s.cdls_id order by s.cdls_id limit ?1";

pub async fn resolve(
    writer: &SqlitePool,
    range: IdRange,
    selection: &Selection,
    resolution: &Resolution,
    limit: u32,
) -> Result<Vec<RowId>, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    let found = select(UNKNOWN, range, selection, now)
        .bind(*resolution == Resolution::Retry)
        .bind(now.text())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    let ids = found.iter().map(|row| get(row, "cdls_id")).collect::<Result<Vec<i64>, _>>()?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut counts = CampaignDeltas::default();
    for row in &found {
        if let Some(group) = group(row)? {
            if *resolution == Resolution::Error {
                let (code, subcode) = (get(row, "error_code")?, get(row, "error_subcode")?);
                counts.erred(&group, code, subcode, ErrorKind::Resolved.as_str());
            }
            let to = resolution.status().as_str();
            counts.changed(group, Status::Unknown.as_str(), to, false);
        }
    }
    settle(&mut transaction, &ids, resolution, now).await?;
    counts.write(&mut transaction, now).await?;
    commit(transaction).await?;
    Ok(ids.into_iter().map(RowId).collect())
}

/// Hand out settled rows. The look is on a reading connection first: mostly there are none, and no lock is
/// taken.
pub async fn take_settled(store: &SqliteStore, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
    if sqlx::query(SETTLED).bind(1).fetch_optional(&store.reader).await.map_err(failed)?.is_none() {
        return Ok(Vec::new());
    }
    let (mut transaction, _) = begin(&store.writer).await?;
    let found = sqlx::query(SETTLED).bind(limit).fetch_all(&mut *transaction).await.map_err(failed)?;
    let taken = found.iter().map(|row| get(row, "cdls_id")).collect::<Result<Vec<i64>, _>>()?;
    sqlx::query("delete from settled where cdls_id in (select value from json_each(?1))")
        .bind(list(taken))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    Ok(readable(&found, settled_row))
}

/// Write the rows, note them for the waiters, and take them out of the queue or have them tried at once.
async fn settle(
    connection: &mut SqliteConnection,
    ids: &[i64],
    resolution: &Resolution,
    now: Now,
) -> Result<(), StoreError> {
    let graph_id = match resolution {
        Resolution::Ok { message_id } => message_id.as_deref(),
        Resolution::Error | Resolution::Retry => None,
    };
    let status = resolution.status().as_str();
    let settled = list(ids.iter().copied());
    sqlx::query(RESOLVE)
        .bind(&settled)
        .bind(status)
        .bind(graph_id)
        .bind(now.text())
        .bind(ErrorKind::Resolved.as_str())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    sqlx::query(NOTE).bind(&settled).bind(status).execute(&mut *connection).await.map_err(failed)?;
    let moved = if *resolution == Resolution::Retry {
        let rows: Vec<_> = ids.iter().map(|id| json!([id, "retry", now.text()])).collect();
        sqlx::query(record::OPEN).bind(json!(rows).to_string()).bind(now.text())
    } else {
        sqlx::query("delete from cdls_open where cdls_id in (select value from json_each(?1))").bind(settled)
    };
    moved.execute(connection).await.map(drop).map_err(failed)
}

fn settled_row(row: &SqliteRow) -> Result<SettledRow, StoreError> {
    let outcome = Outcome::settled(
        RowId(get(row, "cdls_id")?),
        word(row, "status")?,
        get(row, "status_code")?,
        get(row, "message_id")?,
    );
    Ok(SettledRow { outcome, waiter: get(row, "waiter")? })
}
