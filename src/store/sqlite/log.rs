//! The log for people and dashboards. A claim is kept beside the log, and changes the view of its row.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::clock::Now;
use super::error::failed;
use super::row::{get, list, readable, time, time_or_null, word, word_or_null};
use super::{SqliteStore, span};
use crate::channel::Class;
use crate::domain::{AccountId, LineId, RowId, Status};
use crate::store::{LogFilter, LogRow, LogStore, OpenRows, Scope, StatusCount, StoreError};

/// Rows `c` of the log with their open claims: SENDING, one attempt more, and the time of that call. An
/// index, if named, follows `cdls c`.
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

/// Filter: line ?1, status ?2, campaign ?3, recipient ?6, reference ?7, code ?8, ids above ?9, created from ?10; NULL is any.
macro_rules! matching {
    () => {
        "where (?1 is null or c.v8l_id = ?1) and (?2 is null or iif(s.cdls_id is null, c.status, 'SENDING') = ?2) \
         and (?3 is null or c.cp_id = ?3) and (?6 is null or c.dest = ?6) and (?7 is null or c.msg_id = ?7) \
         and (?8 is null or c.error_code = ?8) and (?10 is null or c.created_at >= ?10) "
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

const AFTER: &str =
    concat!(log_select!(""), matching!(), "and c.cdls_id > max(?4, ?9) order by c.cdls_id limit ?5");
const NEWEST: &str = concat!(
    log_select!(""),
    matching!(),
    "and c.cdls_id < ?4 and c.cdls_id > ?9 order by c.cdls_id desc limit ?5"
);
// The sign keeps SQLite from walking over the log between the bounds.
pub(super) const OPEN_AFTER: &str = concat!(
    log_select!("not indexed"),
    matching!(),
    queued!(),
    "and +c.cdls_id > max(?4, ?9) order by c.cdls_id limit ?5"
);
pub(super) const OPEN_NEWEST: &str = concat!(
    log_select!("not indexed"),
    matching!(),
    queued!(),
    "and +c.cdls_id < ?4 and +c.cdls_id > ?9 order by c.cdls_id desc limit ?5"
);

/// The indexes begin with the account.
macro_rules! of_dest {
    ($rest:literal) => {
        concat!(
            log_select!("indexed by cdls_dest"),
            matching!(),
            "and c.cdcs_id in (select cdcs_id from account) and c.dest = ?6 ",
            $rest
        )
    };
}
macro_rules! of_msg_id {
    ($rest:literal) => {
        concat!(
            log_select!("indexed by cdls_msg_id"),
            matching!(),
            "and c.cdcs_id in (select cdcs_id from account) and c.msg_id is not null and c.msg_id = ?7 ",
            $rest
        )
    };
}
pub(super) const DEST_AFTER: &str = of_dest!("and c.cdls_id > max(?4, ?9) order by c.cdls_id limit ?5");
pub(super) const DEST_NEWEST: &str =
    of_dest!("and c.cdls_id < ?4 and c.cdls_id > ?9 order by c.cdls_id desc limit ?5");
pub(super) const MSG_ID_AFTER: &str = of_msg_id!("and c.cdls_id > max(?4, ?9) order by c.cdls_id limit ?5");
pub(super) const MSG_ID_NEWEST: &str =
    of_msg_id!("and c.cdls_id < ?4 and c.cdls_id > ?9 order by c.cdls_id desc limit ?5");

/// Rows by line and status, created since ?1; claims are counted apart.
const STATS: &str = "
select v8l_id, class, status, count(*) as rows from cdls
where ?1 is null or created_at >= ?1 group by v8l_id, class, status";

/// The rows of the same count with an open claim.
const STATS_SENDING: &str = "
select c.v8l_id, c.class, c.status, count(*) as rows from claim_row r cross join cdls c
where c.cdls_id = r.cdls_id and r.fence > c.fence and c.status in ('PENDING', 'RETRY')
  and (?1 is null or c.created_at >= ?1)
group by c.v8l_id, c.class, c.status";

/// Counts of the queue. A row of work may have ended a moment ago; a row that a worker calls Graph for is in
/// both.
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
    async fn log_row(&self, scope: Scope, id: RowId) -> Result<Option<LogRow>, StoreError> {
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

    async fn log_rows(&self, ids: &[RowId]) -> Result<Vec<LogRow>, StoreError> {
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
        after: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let statement = match filter {
            LogFilter { msg_id: Some(_), .. } => MSG_ID_AFTER,
            LogFilter { dest: Some(_), .. } => DEST_AFTER,
            _ if filter.is_open() => OPEN_AFTER,
            _ => AFTER,
        };
        self.log_page(statement, filter, after, limit).await
    }

    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
        let statement = match filter {
            LogFilter { msg_id: Some(_), .. } => MSG_ID_NEWEST,
            LogFilter { dest: Some(_), .. } => DEST_NEWEST,
            _ if filter.is_open() => OPEN_NEWEST,
            _ => NEWEST,
        };
        self.log_page(statement, filter, RowId(i64::MAX), limit).await
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
    /// Whether the filter asks for rows that are in the queue.
    fn is_open(&self) -> bool {
        self.status.is_some_and(|status| !status.is_final())
    }
}

impl SqliteStore {
    async fn log_page(
        &self,
        statement: &'static str,
        filter: &LogFilter,
        bound: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let since = filter.messages().since;
        let mut connection = self.reader.acquire().await.map_err(failed)?;
        let (after, _) = span::ids(&mut connection, since, None).await?;
        let found = sqlx::query(statement)
            .bind(filter.line.map(|line| line.0))
            .bind(filter.status.map(Status::as_str))
            .bind(&filter.cp_id)
            .bind(bound.0)
            .bind(limit)
            .bind(&filter.dest)
            .bind(&filter.msg_id)
            .bind(filter.error_code)
            .bind(after)
            .bind(since.map(crate::text::timestamp))
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        Ok(readable(&found, log_row))
    }
}

/// Rows by line, class and status, with the words of the log.
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
        cdls_id: RowId(get(row, "cdls_id")?),
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
