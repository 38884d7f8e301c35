//! The log for people and dashboards: rows, newest rows, statistics.
//!
//! SENDING is never stored: a row with an open claim shows it, with that call counted and its time.
//! Statements here name the range of the log they read, so that their cost does not grow with the number of
//! ranges.

pub(super) mod candidates;
pub(super) mod filter;
pub(super) mod listing;
pub(super) mod matching;
pub(super) mod ranges;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use self::filter::{ListFilter, Order};
use self::listing::listed_in_parts;
use self::ranges::{is_missing, range_of};
use super::PostgresStore;
use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::rows;
use crate::domain::{AccountId, LineId, RowId, Status};
use crate::store::{LogFilter, LogRow, LogStore, OpenRows, Scope, StatusCount, StoreError};

/// The columns of a [`LogRow`], for rows named `c` with the open claim `s` beside them, if there is one.
macro_rules! log_columns {
    () => {
        "c.cdls_id, c.cdcs_id, c.v8l_id, c.class, c.dest, c.mtype, c.mdata, c.mcaption, c.msg_id, c.cp_id, c.priority, \
         case when s.cdls_id is null then c.status else 'SENDING' end as status, c.status_code, c.message_id, \
         c.error_code, c.error_subcode, c.error_kind, c.error_message, c.fbtrace_id, \
         c.attempts + (s.cdls_id is not null)::integer as attempts, c.ambiguous_attempts, c.next_at, c.expires_at, \
         c.created_at, coalesce(s.made_at, c.sent_at) as sent_at, c.done_at, c.delivered_at, c.read_at"
    };
}
pub(super) use log_columns;

/// The claims of the rows $1, one each: a common table expression. [`with_claims`] puts them beside the rows.
macro_rules! claims {
    () => {
        "sending as materialized (
             select u.cdls_id, max(u.fence) as fence, max(u.made_at) as made_at from cdls_sending u
             where u.cdls_id = any($1::bigint[]) group by u.cdls_id)"
    };
}
pub(super) use claims;

/// A claim is open while the row's fence is below its own.
macro_rules! with_claims {
    () => {
        "left join sending s on s.cdls_id = c.cdls_id and s.fence > c.fence and c.status in ('PENDING', 'RETRY')"
    };
}
pub(super) use with_claims;

/// A queue of more rows than this is not looked up in the log each time it is counted.
const COUNTED_ONE_BY_ONE: i64 = 10_000;

#[async_trait]
impl LogStore for PostgresStore {
    async fn log_row(&self, scope: Scope, id: RowId) -> Result<Option<LogRow>, StoreError> {
        row(&self.ingest, scope, id).await
    }

    async fn log_rows(&self, ids: &[RowId]) -> Result<Vec<LogRow>, StoreError> {
        let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut found = Vec::with_capacity(ids.len());
        for part in ids.chunk_by(|one, next| range_of(*one) == range_of(*next)) {
            let all = part.len() as i64;
            let rows = listing::rows(&self.background, part, &ListFilter::default(), Order::OldestFirst, all)
                .await?;
            found.extend(rows.iter().filter_map(readable));
        }
        Ok(found)
    }

    async fn log_after(
        &self,
        filter: &LogFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let (pool, bounds) = (&self.background, (after.0, i64::MAX));
        let account = account_of(pool, filter.line.map(|line| line.0)).await?;
        listed_in_parts(pool, account, &filter.messages(), Order::OldestFirst, bounds, limit).await
    }

    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError> {
        let (pool, bounds) = (&self.background, (-1, i64::MAX));
        let account = account_of(pool, filter.line.map(|line| line.0)).await?;
        listed_in_parts(pool, account, &filter.messages(), Order::NewestFirst, bounds, limit).await
    }

    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
        stats(&self.background, since).await
    }

    async fn open_rows(&self) -> Result<OpenRows, StoreError> {
        open_rows(&self.background).await
    }
}

/// Return a row as its type. A row that this version cannot read is left out: a later version may have
/// written it.
pub(super) fn readable(row: &PgRow) -> Option<LogRow> {
    rows::log(row).map_err(|error| tracing::warn!(%error, "skipped unreadable row of the log")).ok()
}

/// The claim of this row is looked for only while the row waits.
macro_rules! one_row {
    () => {
        concat!(
            "select ",
            log_columns!(),
            " from cdls_{range} c left join lateral (
                 select u.cdls_id, k.made_at from claim k cross join lateral unnest(k.ids, k.fences) as u(cdls_id, fence)
                 where $1 = any(k.ids) and u.cdls_id = c.cdls_id and u.fence > c.fence and c.status in ('PENDING', 'RETRY')
                 order by u.fence desc limit 1) as s on true
             where c.cdls_id = $1 and ($2::bigint is null or c.cdcs_id = $2)"
        )
    };
}

async fn row(pool: &Pool, scope: Scope, id: RowId) -> Result<Option<LogRow>, StoreError> {
    let account = match scope {
        Scope::Account(account) => Some(account.0),
        Scope::Operator => None,
    };
    let Some(range) = range_of(id.0) else { return Ok(None) };
    let statement = format!(one_row!(), range = range);
    let found = sqlx::query(&statement).bind(id.0).bind(account).fetch_optional(pool).await;
    match found {
        Ok(found) => found.as_ref().map(rows::log).transpose(),
        Err(error) if is_missing(&error) => {
            // The range does not exist, or no schema at all.
            sqlx::query("select from cdls limit 0").execute(pool).await.map_err(failed)?;
            Ok(None)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Return the account of a line; for a line that does not exist every account's rows are looked at. Rows that
/// the line sent for another account before are not shown by line.
pub(super) async fn account_of(pool: &Pool, line: Option<i64>) -> Result<Option<i64>, StoreError> {
    let Some(line) = line else { return Ok(None) };
    sqlx::query_scalar("select cdcs_id from cd_v8_line where v8l_id = $1")
        .bind(line)
        .fetch_optional(pool)
        .await
        .map_err(failed)
}

/// Line, class and status, as stored.
type Cell = (i64, String, String);

async fn stats(pool: &Pool, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError> {
    let after = match since {
        Some(since) => ranges::before(pool, since).await?,
        None => -1,
    };
    let since = since.map(milliseconds);
    let mut cells: BTreeMap<Cell, i64> = BTreeMap::new();
    for range in ranges::all(pool).await?.into_iter().filter(|range| range.last() > after) {
        let statement = format!(
            "select v8l_id, class, status, count(*) from cdls_{range}
             where cdls_id > $1 and ($2::bigint is null or created_at >= now() - $2 * interval '1 millisecond')
             group by v8l_id, class, status"
        );
        let counted = sqlx::query_as::<_, (i64, String, String, i64)>(&statement).bind(after).bind(since);
        for (line, class, status, rows) in ranges::unless_missing(counted.fetch_all(pool).await)? {
            *cells.entry((line, class, status)).or_default() += rows;
        }
    }
    let of_all = ClaimFilter { since, ..ClaimFilter::default() };
    for (line, class, status, rows) in claimed(pool, &of_all).await?.into_iter().map(ClaimedCount::by_class) {
        let stored = cells.entry((line, class.clone(), status)).or_default();
        // A call may have ended between the two counts.
        let moved = rows.min(*stored);
        *stored -= moved;
        *cells.entry((line, class, Status::Sending.as_str().to_owned())).or_default() += moved;
    }
    Ok(cells.into_iter().filter(|(_, rows)| *rows > 0).filter_map(status_count).collect())
}

fn status_count(((line, class, status), rows): (Cell, i64)) -> Option<StatusCount> {
    let words = class.parse().and_then(|class| Ok((class, status.parse()?)));
    let (class, status) =
        words.map_err(|error| tracing::warn!(%error, rows, "skipped unreadable rows of the log")).ok()?;
    Some(StatusCount { v8l_id: LineId(line), class, status, rows })
}

/// Which open claims are counted.
#[derive(Default)]
pub(super) struct ClaimFilter<'a> {
    /// The account and its campaign.
    pub campaign: Option<(AccountId, &'a str)>,
    /// The partitions; `None` for all lines.
    pub partitions: Option<Vec<i16>>,
    /// Only rows created within this many milliseconds.
    pub since: Option<i64>,
}

/// A count of claimed rows that are alike.
pub(super) struct ClaimedCount {
    pub line: i64,
    pub media: bool,
    /// As in the log: PENDING or RETRY.
    pub status: String,
    pub rows: i64,
    class: String,
}

impl ClaimedCount {
    fn by_class(self) -> (i64, String, String, i64) {
        (self.line, self.class, self.status, self.rows)
    }
}

const CLAIMED_IDS: &str = "
    select distinct u.cdls_id from cdls_sending u
    where $1::smallint[] is null or u.partition_no = any($1) order by u.cdls_id";

/// Return the rows with an open claim, in their state of the log.
pub(super) async fn claimed(pool: &Pool, which: &ClaimFilter<'_>) -> Result<Vec<ClaimedCount>, StoreError> {
    let ids: Vec<i64> =
        sqlx::query_scalar(CLAIMED_IDS).bind(&which.partitions).fetch_all(pool).await.map_err(failed)?;
    let mut groups = Vec::new();
    for (range, ids) in ranges::split(&ids) {
        let statement = format!(
            concat!(
                "with ",
                claims!(),
                " select c.v8l_id, c.class, c.mtype <> 'text', c.status, count(*) from cdls_{range} c ",
                with_claims!(),
                " where c.cdls_id = any($1::bigint[]) and s.cdls_id is not null
                    and ($2::bigint is null or c.cdcs_id = $2 and c.cp_id = $3)
                    and ($4::bigint is null or c.created_at >= now() - $4 * interval '1 millisecond')
                  group by 1, 2, 3, 4"
            ),
            range = range
        );
        let counted = sqlx::query_as::<_, (i64, String, bool, String, i64)>(&statement)
            .persistent(false)
            .bind(ids)
            .bind(which.campaign.map(|(account, _)| account.0))
            .bind(which.campaign.map(|(_, cp_id)| cp_id))
            .bind(which.since)
            .fetch_all(pool)
            .await;
        groups.extend(
            ranges::unless_missing(counted)?
                .into_iter()
                .map(|(line, class, media, status, rows)| ClaimedCount { line, media, status, rows, class }),
        );
    }
    Ok(groups)
}

const QUEUE: &str = "
    select coalesce((select sum(cardinality(ids)) from work), 0)::bigint as work,
           (select count(*) from cdls_open where kind = 'schedule') as schedule,
           (select count(*) from cdls_open where kind = 'retry') as retry,
           (select count(*) from cdls_open where kind = 'unknown') as unknown,
           coalesce((select sum(cardinality(ids)) from claim), 0)::bigint as claimed,
           (select (extract(epoch from now() - min(since)) * 1000)::bigint from cdls_open where kind = 'unknown')
               as oldest_ms";

const QUEUED_IDS: &str = "
    select unnest(ids) as cdls_id from work union select cdls_id from cdls_open union select cdls_id from cdls_sending
    order by cdls_id";

/// Return counts that are exact as long as the queue is short. Beyond that, the counts of `work` include rows
/// that have ended already or wait for a retry, and the oldest UNKNOWN row is dated by the time at which it
/// became so.
async fn open_rows(pool: &Pool) -> Result<OpenRows, StoreError> {
    let queue = sqlx::query(QUEUE).fetch_one(pool).await.map_err(failed)?;
    let count = |column| rows::get::<i64>(&queue, column);
    let (work, schedule, retry) = (count("work")?, count("schedule")?, count("retry")?);
    let (unknown, claimed_rows) = (count("unknown")?, count("claimed")?);
    if work + schedule + retry + unknown + claimed_rows <= COUNTED_ONE_BY_ONE {
        let ids: Vec<i64> = sqlx::query_scalar(QUEUED_IDS).fetch_all(pool).await.map_err(failed)?;
        return counted_one_by_one(pool, &ids).await;
    }
    let sending: i64 = claimed(pool, &ClaimFilter::default()).await?.iter().map(|group| group.rows).sum();
    let oldest: Option<i64> = rows::get(&queue, "oldest_ms")?;
    Ok(OpenRows {
        pending: (work + schedule - sending).max(0),
        sending,
        retry,
        unknown,
        oldest_unknown: oldest.map(|age| Duration::from_millis(age.max(0) as u64)),
    })
}

async fn counted_one_by_one(pool: &Pool, ids: &[i64]) -> Result<OpenRows, StoreError> {
    let mut open = OpenRows::default();
    for (range, ids) in ranges::split(ids) {
        let statement = include_str!("sql/count_open.sql").replace("{range}", &range.to_string());
        let counted = sqlx::query_as::<_, (String, i64, Option<i64>)>(&statement)
            .persistent(false)
            .bind(ids)
            .fetch_all(pool)
            .await;
        for (status, rows, oldest) in ranges::unless_missing(counted)? {
            let Ok(status) = status.parse::<Status>() else { continue };
            open.add(status, rows);
            if status == Status::Unknown {
                let age = oldest.map(|age| Duration::from_millis(age.max(0) as u64));
                open.oldest_unknown = open.oldest_unknown.max(age);
            }
        }
    }
    Ok(open)
}
