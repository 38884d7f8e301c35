//! The log as people and dashboards read it. A claim stands beside it, and is laid over each row that is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::Now;
use super::error::failed;
use super::row::{get, list, readable, time, time_or_null, word, word_or_null};
use crate::message::{AccountId, Class, LineId, MessageId, Status};
use crate::store::{LogFilter, LogRow, LogStore, OpenRows, Scope, StatusCount, StoreError};

/// Rows `c` of the log with their open claims: SENDING, one attempt more, and the time of that call. The index, if one is
/// named, stands behind `cdls c`.
macro_rules! log_select {
    ($index:literal) => {
        concat!(
            "select c.cdls_id, c.cdcs_id, c.v8l_id, c.class, c.dest, c.mtype, c.mdata, c.mcaption, c.msg_id, c.cp_id, \
                    c.priority, iif(s.cdls_id is null, c.status, 'SENDING') as status, c.status_code, c.message_id, \
                    c.error_code, c.error_subcode, c.error_kind, c.error_message, c.fbtrace_id, \
                    c.attempts + (s.cdls_id is not null) as attempts, c.ambiguous_attempts, c.next_at, c.expires_at, \
                    c.created_at, coalesce(h.made_at, c.sent_at) as sent_at, c.done_at, c.delivered_at, c.read_at \
             from cdls c ",
            $index,
            " left join claim_row s on s.cdls_id = c.cdls_id and s.fence > c.fence and c.status in ('PENDING', 'RETRY') \
             left join claim h on h.claim_id = s.claim_id "
        )
    };
}
pub(super) use log_select;

/// Filter: line ?1, status ?2, campaign ?3; NULL is any.
macro_rules! matching {
    () => {
        "where (?1 is null or c.v8l_id = ?1) and (?2 is null or iif(s.cdls_id is null, c.status, 'SENDING') = ?2) \
         and (?3 is null or c.cp_id = ?3) "
    };
}

/// Rows that have not ended are found in the queue, however long the log is: those with status ?2.
macro_rules! queued {
    () => {
        "and c.cdls_id in (
             select cdls_id from claim_row where ?2 = 'SENDING'
             union all
             select cdls_id from cdls_open
             where (?2, kind) in (values ('PENDING', 'schedule'), ('RETRY', 'retry'), ('UNKNOWN', 'unknown'))
             union all
             select i.value from work w cross join json_each(w.ids) i where ?2 in ('PENDING', 'RETRY')) "
    };
}

const AFTER: &str = concat!(log_select!(""), matching!(), "and c.cdls_id > ?4 order by c.cdls_id limit ?5");
const NEWEST: &str =
    concat!(log_select!(""), matching!(), "and c.cdls_id < ?4 order by c.cdls_id desc limit ?5");
// The sign keeps SQLite from walking over the log between the bounds.
pub(super) const OPEN_AFTER: &str = concat!(
    log_select!("not indexed"),
    matching!(),
    queued!(),
    "and +c.cdls_id > ?4 order by c.cdls_id limit ?5"
);
pub(super) const OPEN_NEWEST: &str = concat!(
    log_select!("not indexed"),
    matching!(),
    queued!(),
    "and +c.cdls_id < ?4 order by c.cdls_id desc limit ?5"
);

/// Rows by line and status, created since ?1; claims apart.
const STATS: &str = "
select v8l_id, class, status, count(*) as rows from cdls
where ?1 is null or created_at >= ?1 group by v8l_id, class, status";

/// Of them, those with an open claim.
const STATS_SENDING: &str = "
select c.v8l_id, c.class, c.status, count(*) as rows from claim_row r cross join cdls c
where c.cdls_id = r.cdls_id and r.fence > c.fence and c.status in ('PENDING', 'RETRY')
  and (?1 is null or c.created_at >= ?1)
group by c.v8l_id, c.class, c.status";

/// Counted in the queue. A row of work may have ended a moment ago; one that a worker calls Graph for stands in both.
pub(super) const OPEN_ROWS: &str = "
select
    (select coalesce(sum(json_array_length(ids)), 0) from work)
        + (select count(*) from cdls_open where kind = 'schedule') as waiting,
    (select count(*) from claim_row r cross join cdls c
        where c.cdls_id = r.cdls_id and r.fence > c.fence and c.status in ('PENDING', 'RETRY')) as sending,
    (select count(*) from cdls_open where kind = 'retry') as retry,
    (select count(*) from cdls_open where kind = 'unknown') as unknown,
    (select min(coalesce(c.sent_at, o.since)) from cdls_open o cross join cdls c
        where o.kind = 'unknown' and c.cdls_id = o.cdls_id) as oldest";

#[async_trait]
impl LogStore for SqliteStore {
    async fn log_row(&self, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError> {
        let account = match scope {
            Scope::Account(account) => Some(account.0),
            Scope::Operator => None,
        };
        let statement = concat!(log_select!(""), "where c.cdls_id = ?1 and (?2 is null or c.cdcs_id = ?2)");
        let found = sqlx::query(statement)
            .bind(id.0)
            .bind(account)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)?;
        found.as_ref().map(log_row).transpose()
    }

    async fn log_rows(&self, ids: &[MessageId]) -> Result<Vec<LogRow>, StoreError> {
        let statement = concat!(
            log_select!(""),
            "where c.cdls_id in (select value from json_each(?1)) order by c.cdls_id"
        );
        let found = sqlx::query(statement)
            .bind(list(ids.iter().map(|id| id.0)))
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        Ok(readable(&found, log_row))
    }

    async fn log_after(
        &self,
        filter: &LogFilter,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let statement = if filter.is_open() { OPEN_AFTER } else { AFTER };
        self.log_page(statement, filter, after, limit).await
    }

    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
        let statement = if filter.is_open() { OPEN_NEWEST } else { NEWEST };
        self.log_page(statement, filter, MessageId(i64::MAX), limit).await
    }

    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
        let since = since.map(|since| Now::read().before(since));
        let mut transaction = self.reader.begin().await.map_err(failed)?;
        let mut counted = cells(&mut transaction, STATS, since.as_deref()).await?;
        for ((line, class, status), rows) in cells(&mut transaction, STATS_SENDING, since.as_deref()).await? {
            *counted.entry((line, class.clone(), status)).or_default() -= rows;
            *counted.entry((line, class, Status::Sending.as_str().to_owned())).or_default() += rows;
        }
        Ok(counted.into_iter().filter(|(_, rows)| *rows > 0).filter_map(cell).collect())
    }

    async fn open_rows(&self) -> Result<OpenRows, StoreError> {
        let row = sqlx::query(OPEN_ROWS).fetch_one(&self.reader).await.map_err(failed)?;
        let now = Now::read();
        let (waiting, sending): (i64, i64) = (get(&row, "waiting")?, get(&row, "sending")?);
        let oldest = time_or_null(&row, "oldest").unwrap_or_default();
        Ok(OpenRows {
            pending: (waiting - sending).max(0),
            sending,
            retry: get(&row, "retry")?,
            unknown: get(&row, "unknown")?,
            oldest_unknown: oldest.map(|oldest| (-now.until(oldest)).try_into().unwrap_or_default()),
        })
    }
}

impl LogFilter {
    /// Whether it asks for rows that stand in the queue.
    fn is_open(&self) -> bool {
        self.status.is_some_and(|status| !status.is_final())
    }
}

impl SqliteStore {
    async fn log_page(
        &self,
        statement: &'static str,
        filter: &LogFilter,
        bound: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let found = sqlx::query(statement)
            .bind(filter.line.map(|line| line.0))
            .bind(filter.status.map(Status::as_str))
            .bind(&filter.cp_id)
            .bind(bound.0)
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        Ok(readable(&found, log_row))
    }
}

/// Rows by line, class and status, as the words stand in the log.
type Cells = BTreeMap<(i64, String, String), i64>;

async fn cells(
    connection: &mut SqliteConnection,
    statement: &'static str,
    since: Option<&str>,
) -> Result<Cells, StoreError> {
    let found = sqlx::query(statement).bind(since).fetch_all(connection).await.map_err(failed)?;
    let cell = |row: &SqliteRow| {
        Ok(((get(row, "v8l_id")?, get(row, "class")?, get(row, "status")?), get(row, "rows")?))
    };
    Ok(readable(&found, cell).into_iter().collect())
}

fn cell(((line, class, status), rows): ((i64, String, String), i64)) -> Option<StatusCount> {
    let class: Result<Class, _> = class.parse();
    match class.and_then(|class| Ok((class, status.parse()?))) {
        Ok((class, status)) => Some(StatusCount { v8l_id: LineId(line), class, status, rows }),
        Err(error) => {
            tracing::warn!(v8l_id = line, "skipped unreadable row: {error}");
            None
        }
    }
}

pub(super) fn log_row(row: &SqliteRow) -> Result<LogRow, StoreError> {
    Ok(LogRow {
        cdls_id: MessageId(get(row, "cdls_id")?),
        cdcs_id: AccountId(get(row, "cdcs_id")?),
        v8l_id: LineId(get(row, "v8l_id")?),
        class: word(row, "class")?,
        dest: get(row, "dest")?,
        mtype: word(row, "mtype")?,
        mdata: get(row, "mdata")?,
        mcaption: get(row, "mcaption")?,
        msg_id: get(row, "msg_id")?,
        cp_id: get(row, "cp_id")?,
        priority: word(row, "priority")?,
        status: word(row, "status")?,
        status_code: get(row, "status_code")?,
        message_id: get(row, "message_id")?,
        error_code: get(row, "error_code")?,
        error_subcode: get(row, "error_subcode")?,
        error_kind: word_or_null(row, "error_kind")?,
        error_message: get(row, "error_message")?,
        fbtrace_id: get(row, "fbtrace_id")?,
        attempts: get(row, "attempts")?,
        ambiguous_attempts: get(row, "ambiguous_attempts")?,
        next_at: time_or_null(row, "next_at")?,
        expires_at: time(row, "expires_at")?,
        created_at: time(row, "created_at")?,
        sent_at: time_or_null(row, "sent_at")?,
        done_at: time_or_null(row, "done_at")?,
        delivered_at: time_or_null(row, "delivered_at")?,
        read_at: time_or_null(row, "read_at")?,
    })
}
