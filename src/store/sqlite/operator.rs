//! The commands of operators: settling UNKNOWN rows, sending ended rows again.

use async_trait::async_trait;
use serde_json::json;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Sqlite, SqliteConnection};

use super::SqliteStore;
use super::clock::Now;
use super::counts::{CampaignDeltas, CounterGroup};
use super::error::{begin, commit, failed};
use super::row::{flow, get, list, readable, word};
use super::{record, work};
use crate::domain::{AccountId, ErrorKind, Outcome, RowId, Status};
use crate::store::{
    IdRange, Matching, Operation, OperatorStore, Resend, Resent, Resolution, Selection, SettledRow,
    StoreError,
};

/// Range and selection, as [`select`] binds them.
macro_rules! selected {
    () => {
        "c.cdls_id > ?1 and c.cdls_id <= ?2 and (?3 is null or c.v8l_id = ?3) and (?4 is null or c.cp_id = ?4)
         and (?5 is null or c.error_code = ?5) and (?6 is null or c.created_at >= ?6)
         and (?7 is null or c.dest = ?7) and (?8 is null or c.msg_id = ?8)"
    };
}

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

/// ?9: whether the rows are to be tried again.
pub(super) const COUNT_UNKNOWN: &str = concat!(
    "select count(*) filter (where not ?9 or ",
    may_be_tried!(),
    ") as rows, max(c.cdls_id) as last, count(*) filter (where ?9 and not ",
    may_be_tried!(),
    ") as left_out ",
    unknown!(),
    selected!()
);

pub(super) const UNKNOWN: &str = concat!(
    "select c.cdls_id, c.cdcs_id, c.v8l_id, c.cp_id, c.mtype <> 'text' as media, c.error_code, c.error_subcode ",
    unknown!(),
    "(not ?9 or ",
    may_be_tried!(),
    ") and ",
    selected!(),
    " order by o.cdls_id limit ?11"
);

/// Ended rows in status ?9.
const COUNT_ENDED: &str = concat!(
    "select count(*) filter (where fits) as rows, max(cdls_id) as last, count(*) filter (where not fits) as left_out
     from (select c.cdls_id, ",
    may_be_logged_again!(),
    " as fits from cdls c where c.status = ?9 and ",
    selected!(),
    " and not exists (select 1 from resend r where r.cdls_id = c.cdls_id))"
);

pub(super) const ENDED: &str = concat!(
    "select c.cdls_id, c.cdcs_id, c.v8l_id, c.priority, c.mtype <> 'text' as media, coalesce(?10, c.cp_id) as cp_id,
            coalesce(?10, c.cp_id, '') as campaign
     from cdls c
     where c.status = ?9 and ",
    selected!(),
    " and not exists (select 1 from resend r where r.cdls_id = c.cdls_id) and ",
    may_be_logged_again!(),
    " order by c.cdls_id limit ?11"
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

pub(super) const NOTE: &str = "
insert into settled (cdls_id, status) select value, ?2 from json_each(?1) where true
on conflict (cdls_id) do update set status = excluded.status";

const SETTLED: &str = "
select s.cdls_id, s.status, iif(s.status in ('ERROR', 'CANCELLED'), 0, c.status_code) as status_code,
       coalesce(c.message_id, '') as message_id, c.waiter
from settled s left join cdls c on c.cdls_id = s.cdls_id order by s.cdls_id limit ?1";

const COPY: &str = "
insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, expires_at, created_at)
select cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, coalesce(?2, cp_id), priority, ?3, ?4
from cdls where cdls_id in (select value from json_each(?1)) order by cdls_id
returning cdls_id";

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
        .bind(selection.dest.as_deref())
        .bind(selection.msg_id.as_deref())
}

#[async_trait]
impl OperatorStore for SqliteStore {
    async fn matching(
        &self,
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
        let row = query.fetch_one(&self.reader).await.map_err(failed)?;
        let last: Option<i64> = get(&row, "last")?;
        Ok(Matching {
            rows: get(&row, "rows")?,
            last: RowId(last.unwrap_or(0)),
            left_out: get(&row, "left_out")?,
        })
    }

    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
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

    /// Hand out settled rows. The look is on a reading connection first: mostly there are none, and no lock
    /// is taken.
    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
        if sqlx::query(SETTLED).bind(1).fetch_optional(&self.reader).await.map_err(failed)?.is_none() {
            return Ok(Vec::new());
        }
        let (mut transaction, _) = begin(&self.writer).await?;
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

    /// Log copies of rows. The transaction holds the file's write lock from its start, so the second of two
    /// runs finds the copies of the first.
    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
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

    async fn copy_of(&self, id: RowId) -> Result<Option<RowId>, StoreError> {
        let copy: Option<i64> = sqlx::query_scalar("select copy_id from resend where cdls_id = ?1")
            .bind(id.0)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)?;
        Ok(copy.map(RowId))
    }
}

/// Return the group that the row is counted in, if it has a campaign.
pub(super) fn group(row: &SqliteRow) -> Result<Option<CounterGroup>, StoreError> {
    let cp_id: Option<String> = get(row, "cp_id")?;
    let (account, line, media) = (get(row, "cdcs_id")?, get(row, "v8l_id")?, get(row, "media")?);
    Ok(cp_id.map(|cp_id| CounterGroup { account, cp_id, line, media }))
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
