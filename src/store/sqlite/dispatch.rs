//! What may be sent: ready rows by announced range and by flow, and which flows have any.
//!
//! Every statement here repeats the condition of the index `cdls_ready` word for word: SQLite uses a partial index
//! only then. Rows of campaigns that are paused or cancelled are left out everywhere.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::failed;
use super::row::{list, time, word};
use crate::message::{AccountId, Lane, LineId, Medium, MessageId, Partition};
use crate::store::{Flow, FlowRead, RangeRead, ReadyRow, StoreError};

/// Up to this many ids, a range is read along the primary key; a wider one flow by flow, so that the rows of other
/// lines in between do not count.
const NARROW: i64 = 10_000;

macro_rules! ready {
    ($table:literal) => {
        concat!($table, ".status in ('PENDING', 'RETRY') and ", $table, ".next_at is null")
    };
}

macro_rules! campaign_runs {
    ($table:literal) => {
        concat!(
            "not exists (select 1 from campaign k where k.cdcs_id = ",
            $table,
            ".cdcs_id and k.cp_id = ",
            $table,
            ".cp_id and k.state in ('paused', 'cancelled'))"
        )
    };
}

macro_rules! ready_columns {
    () => {
        "c.cdls_id, c.v8l_id, c.cdcs_id, c.priority, c.mtype, c.cp_id, c.dest, c.mdata, c.fence, c.attempts, \
         c.tries, c.expires_at, c.waiter"
    };
}

/// Line, lane, first id, last id, limit. `not indexed` leaves the primary key.
pub(super) const NARROW_RANGE: &str = concat!(
    "select ",
    ready_columns!(),
    " from cdls c not indexed where c.cdls_id between ?3 and ?4 and c.v8l_id = ?1 and c.priority = ?2 and ",
    ready!("c"),
    " and ",
    campaign_runs!("c"),
    " order by c.cdls_id limit ?5"
);

/// Line, lane, medium, campaign, the id before the first, last id, limit. The last condition asks once, before the
/// first row: a paused campaign of a million rows is not walked over.
pub(super) const FLOW_ROWS: &str = concat!(
    "select ",
    ready_columns!(),
    " from cdls c where c.v8l_id = ?1 and c.priority = ?2 and c.media = ?3 and c.campaign = ?4
        and c.cdls_id > ?5 and c.cdls_id <= ?6 and ",
    ready!("c"),
    " and ",
    campaign_runs!("c"),
    " and not exists (
        select 1 from cd_v8_line l join campaign k on k.cdcs_id = l.cdcs_id
        where l.v8l_id = ?1 and k.cp_id = ?4 and k.state in ('paused', 'cancelled'))
     order by c.cdls_id limit ?7"
);

/// The first ready row of every flow from (line ?1, lane ?2) on, up to (line ?3, lane ?4), in partitions ?5: a loose
/// index scan, each step one look-up for what follows the flow before. A flow has one account, its line's, so its
/// first row says whether its campaign runs. (The plus signs take the columns' affinity away: compared with one another
/// as columns they would leave only the first part of the index.)
pub(super) const FLOW_HEADS: &str = concat!(
    "with recursive head(id) as (
        select (
            select n.cdls_id from cdls n
            where ",
    ready!("n"),
    " and (n.v8l_id, n.priority, n.media, n.campaign) > (?1, ?2, -1, '')
            order by n.v8l_id, n.priority, n.media, n.campaign, n.cdls_id limit 1)
        union all
        select (
            select n.cdls_id from cdls n
            where ",
    ready!("n"),
    " and (n.v8l_id, n.priority, n.media, n.campaign) > (+c.v8l_id, +c.priority, +c.media, +c.campaign)
            order by n.v8l_id, n.priority, n.media, n.campaign, n.cdls_id limit 1)
        from head join cdls c on c.cdls_id = head.id
        where (c.v8l_id, c.priority) <= (?3, ?4)
    )
    select c.v8l_id, c.priority, c.media, c.campaign, c.cdls_id
    from head join cdls c on c.cdls_id = head.id
    where (c.v8l_id, c.priority) <= (?3, ?4)
      and c.partition_no in (select value from json_each(?5))
      and ",
    campaign_runs!("c")
);

/// Ready rows inside announced ranges, range by range, each in id order.
pub async fn read_ranges(reader: &SqlitePool, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let mut connection = reader.acquire().await.map_err(failed)?;
    let mut rows = Vec::new();
    for range in ranges {
        if range.last.0.saturating_sub(range.first.0) < NARROW {
            rows.extend(narrow_range(&mut connection, range).await?);
        } else {
            rows.extend(wide_range(&mut connection, range).await?);
        }
    }
    Ok(rows)
}

async fn narrow_range(
    connection: &mut SqliteConnection,
    range: &RangeRead,
) -> Result<Vec<ReadyRow>, StoreError> {
    let now = Now::read();
    let rows = sqlx::query(NARROW_RANGE)
        .bind(range.line.0)
        .bind(range.lane.as_str())
        .bind(range.first.0)
        .bind(range.last.0)
        .bind(range.limit)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    rows.iter().map(|row| ready_row(row, now)).collect()
}

async fn wide_range(
    connection: &mut SqliteConnection,
    range: &RangeRead,
) -> Result<Vec<ReadyRow>, StoreError> {
    let lane = (range.line.0, range.lane.as_str());
    let mut rows = Vec::new();
    for (flow, _) in flow_heads(connection, lane, lane, &[range.line.partition()]).await? {
        let before = MessageId(range.first.0.saturating_sub(1));
        rows.extend(flow_rows(connection, &flow, before, range.last, range.limit).await?);
    }
    rows.sort_by_key(|row| row.id);
    rows.truncate(range.limit as usize);
    Ok(rows)
}

/// Next ready rows of flows, flow by flow, each in id order.
pub async fn read_flows(reader: &SqlitePool, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let mut connection = reader.acquire().await.map_err(failed)?;
    let mut rows = Vec::new();
    for read in reads {
        let last = MessageId(i64::MAX);
        rows.extend(flow_rows(&mut connection, &read.flow, read.after, last, read.limit).await?);
    }
    Ok(rows)
}

async fn flow_rows(
    connection: &mut SqliteConnection,
    flow: &Flow,
    after: MessageId,
    last: MessageId,
    limit: u32,
) -> Result<Vec<ReadyRow>, StoreError> {
    let now = Now::read();
    let rows = sqlx::query(FLOW_ROWS)
        .bind(flow.line.0)
        .bind(flow.lane.as_str())
        .bind(flow.medium == Medium::Media)
        .bind(&flow.campaign)
        .bind(after.0)
        .bind(last.0)
        .bind(limit)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    rows.iter().map(|row| ready_row(row, now)).collect()
}

/// Every flow of these partitions that has ready rows, with the lowest ready id.
///
/// Looks at the flows of all lines: this database has one worker process, which holds every partition but for moments.
pub async fn ready_flows(
    reader: &SqlitePool,
    partitions: &[Partition],
) -> Result<Vec<(Flow, MessageId)>, StoreError> {
    let mut connection = reader.acquire().await.map_err(failed)?;
    flow_heads(&mut connection, (0, ""), (i64::MAX, ""), partitions).await
}

async fn flow_heads(
    connection: &mut SqliteConnection,
    from: (i64, &str),
    to: (i64, &str),
    partitions: &[Partition],
) -> Result<Vec<(Flow, MessageId)>, StoreError> {
    let rows = sqlx::query(FLOW_HEADS)
        .bind(from.0)
        .bind(from.1)
        .bind(to.0)
        .bind(to.1)
        .bind(list(partitions.iter().map(|partition| i64::from(partition.0))))
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    rows.iter().map(flow_head).collect()
}

fn flow_head(row: &SqliteRow) -> Result<(Flow, MessageId), StoreError> {
    let media: bool = row.try_get("media").map_err(failed)?;
    let flow = Flow {
        line: LineId(row.try_get("v8l_id").map_err(failed)?),
        lane: word::<Lane>(row, "priority")?,
        medium: if media { Medium::Media } else { Medium::Text },
        campaign: row.try_get("campaign").map_err(failed)?,
    };
    Ok((flow, MessageId(row.try_get("cdls_id").map_err(failed)?)))
}

fn ready_row(row: &SqliteRow, now: Now) -> Result<ReadyRow, StoreError> {
    Ok(ReadyRow {
        id: MessageId(row.try_get("cdls_id").map_err(failed)?),
        line: LineId(row.try_get("v8l_id").map_err(failed)?),
        account: AccountId(row.try_get("cdcs_id").map_err(failed)?),
        lane: word(row, "priority")?,
        kind: word(row, "mtype")?,
        cp_id: row.try_get("cp_id").map_err(failed)?,
        dest: row.try_get("dest").map_err(failed)?,
        mdata: row.try_get("mdata").map_err(failed)?,
        fence: row.try_get("fence").map_err(failed)?,
        attempts: row.try_get("attempts").map_err(failed)?,
        tries: row.try_get("tries").map_err(failed)?,
        valid_for: now.until(time(row, "expires_at")?),
        waiter: row.try_get("waiter").map_err(failed)?,
    })
}
