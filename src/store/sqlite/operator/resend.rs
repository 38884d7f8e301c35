//! Sends ended rows again, as copies of them.

use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::selection::{group, select, selected};
use crate::domain::{AccountId, RowId};
use crate::store::sqlite::clock::Now;
use crate::store::sqlite::counts::{CampaignDeltas, CounterGroup};
use crate::store::sqlite::error::{begin, commit, failed};
use crate::store::sqlite::row::{flow, get, list, readable};
use crate::store::sqlite::work;
use crate::store::{IdRange, Resend, Resent, Selection, StoreError};

/// Whether a row may be logged again: its line is still its account's, and its campaign (?10, or its own) goes
/// on.
macro_rules! may_be_logged_again {
    () => {
        "(exists (select 1 from cd_v8_line l
                  where l.v8l_id = c.v8l_id and l.cdcs_id = c.cdcs_id and l.v8l_class = c.class)
          and not exists (select 1 from campaign p
                  where p.cdcs_id = c.cdcs_id and p.cp_id = coalesce(?10, c.cp_id) and p.state = 'cancelled'))"
    };
}

/// Ended rows in status ?9.
pub const COUNT_ENDED: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, ",
    may_be_logged_again!(),
    " as fits from cdls c where c.status = ?9 and ",
    selected!(),
    " and not exists (select 1 from resend r where r.cdls_id = c.cdls_id))"
);

const ENDED: &str = concat!(
    "select c.cdls_id, c.cdcs_id, c.v8l_id, c.priority, c.mtype <> 'text' as media, coalesce(?10, c.cp_id) as cp_id,
            coalesce(?10, c.cp_id, '') as campaign
     from cdls c
     where c.status = ?9 and ",
    selected!(),
    " and not exists (select 1 from resend r where r.cdls_id = c.cdls_id) and ",
    may_be_logged_again!(),
    " order by c.cdls_id limit ?11"
);

const COPY: &str = "
insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, expires_at, created_at)
select cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, coalesce(?2, cp_id), priority, ?3, ?4
from cdls where cdls_id in (select value from json_each(?1)) order by cdls_id
returning cdls_id";

/// Log copies of rows. The transaction holds the file's write lock from its start, so the second of two runs
/// finds the copies of the first.
pub async fn send_again(
    writer: &SqlitePool,
    range: IdRange,
    selection: &Selection,
    resend: &Resend,
    limit: u32,
) -> Result<Vec<Resent>, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    let found = select(ENDED, range, selection, now)
        .bind(resend.status.as_str())
        .bind(resend.cp_id.as_deref())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    // A row that this version cannot read is not copied: its copy would be no more readable.
    let rows = readable(&found, |row| Ok((get(row, "cdls_id")?, group(row)?, ready(row)?)));
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let resent = copy(&mut transaction, rows, resend, now).await?;
    commit(transaction).await?;
    Ok(resent)
}

/// Return the copy's place in the queue; its id and its time are not known yet.
fn ready(row: &SqliteRow) -> Result<work::QueuedRow, StoreError> {
    Ok(work::QueuedRow {
        id: RowId::default(),
        account: AccountId(get(row, "cdcs_id")?),
        flow: flow(row)?,
        expires_at: String::new(),
    })
}

/// Log copies of the rows; they enter the queue as if they had been accepted at this moment.
async fn copy(
    connection: &mut SqliteConnection,
    rows: Vec<(i64, Option<CounterGroup>, work::QueuedRow)>,
    resend: &Resend,
    now: Now,
) -> Result<Vec<Resent>, StoreError> {
    let expires_at = now.after(resend.valid_for);
    let mut copies: Vec<i64> = sqlx::query_scalar(COPY)
        .bind(list(rows.iter().map(|(id, ..)| *id)))
        .bind(resend.cp_id.as_deref())
        .bind(&expires_at)
        .bind(now.text())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    // Inserted in order of id, each with an id above every earlier id; RETURNING promises no order.
    copies.sort_unstable();
    let mut counts = CampaignDeltas::default();
    let (mut resent, mut waiting) = (Vec::new(), Vec::new());
    for ((id, group, ready), copy) in rows.into_iter().zip(copies.into_iter().map(RowId)) {
        if let Some(group) = group {
            counts.logged(group);
        }
        resent.push(Resent { id: RowId(id), copy });
        waiting.push(work::QueuedRow { id: copy, expires_at: expires_at.clone(), ..ready });
    }
    let pairs: Vec<(i64, i64)> = resent.iter().map(|pair| (pair.id.0, pair.copy.0)).collect();
    sqlx::query("insert into resend (cdls_id, copy_id) select value->>0, value->>1 from json_each(?1)")
        .bind(json!(pairs).to_string())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    work::add(connection, waiting, false).await?;
    counts.write(connection, now).await?;
    Ok(resent)
}
