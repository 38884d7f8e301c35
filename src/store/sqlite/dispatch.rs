//! What may be sent: ready rows by announced range and by flow, and which flows have any.
//!
//! Every statement here repeats the condition of the index `cdls_ready` word for word: SQLite uses a partial index
//! only then (`indexed by` holds it to that also when somebody has run ANALYZE). Rows of campaigns that are paused or cancelled are left out everywhere.

use serde_json::{Value, json};
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

/// Ranges ?1 (arrays: line, lane, first id, last id), at most ?2 rows of each. `not indexed` leaves the primary key.
pub(super) const NARROW_RANGES: &str = concat!(
    "select j.key as read, ",
    ready_columns!(),
    " from json_each(?1) j cross join cdls c
    where c.cdls_id in (
        select n.cdls_id from cdls n not indexed
        where n.cdls_id between j.value->>2 and j.value->>3 and n.v8l_id = j.value->>0
          and n.priority = j.value->>1 and ",
    ready!("n"),
    " and ",
    campaign_runs!("n"),
    " order by n.cdls_id limit ?2)"
);

/// Flows ?1 (arrays: line, lane, media, campaign, the id before the first, last id), at most ?2 rows of each. The first
/// condition is asked once a flow, before its first row, so that a paused campaign of a million rows is not walked over.
pub(super) const FLOW_ROWS: &str = concat!(
    "select j.key as read, ",
    ready_columns!(),
    " from json_each(?1) j cross join cdls c
    where not exists (
        select 1 from cd_v8_line l join campaign k on k.cdcs_id = l.cdcs_id
        where l.v8l_id = j.value->>0 and k.cp_id = j.value->>3 and k.state in ('paused', 'cancelled'))
      and c.cdls_id in (
        select n.cdls_id from cdls n indexed by cdls_ready
        where n.v8l_id = j.value->>0 and n.priority = j.value->>1 and n.media = j.value->>2
          and n.campaign = j.value->>3 and n.cdls_id > j.value->>4 and n.cdls_id <= j.value->>5 and ",
    ready!("n"),
    " and ",
    campaign_runs!("n"),
    " order by n.cdls_id limit ?2)"
);

/// The first ready row of every flow from (line ?1, lane ?2) on, up to (line ?3, lane ?4), in partitions ?5: a loose
/// index scan, each step one look-up for what follows the flow before. A flow has one account, its line's, so its
/// first row says whether its campaign runs.
///
/// The plus signs take the columns' affinity away; columns compared with columns would use only the first part of the
/// index. The seek is "at or after" and then walks over equals: the NUL, which no campaign holds, leaves no equals.
/// ?6: whether the flows of campaigns that do not run are among them.
pub(super) const FLOW_HEADS: &str = concat!(
    "with recursive head(id) as (
        select (
            select n.cdls_id from cdls n indexed by cdls_ready
            where ",
    ready!("n"),
    " and (n.v8l_id, n.priority, n.media, n.campaign) > (?1, ?2, -1, '')
            order by n.v8l_id, n.priority, n.media, n.campaign, n.cdls_id limit 1)
        union all
        select (
            select n.cdls_id from cdls n indexed by cdls_ready
            where ",
    ready!("n"),
    " and (n.v8l_id, n.priority, n.media, n.campaign)
                > (+c.v8l_id, +c.priority, +c.media, c.campaign || char(0))
            order by n.v8l_id, n.priority, n.media, n.campaign, n.cdls_id limit 1)
        from head join cdls c on c.cdls_id = head.id
        where (c.v8l_id, c.priority) <= (?3, ?4)
    )
    select c.v8l_id, c.priority, c.media, c.campaign, c.cdls_id
    from head join cdls c on c.cdls_id = head.id
    where (c.v8l_id, c.priority) <= (?3, ?4)
      and c.partition_no in (select value from json_each(?5))
      and (?6 or ",
    campaign_runs!("c"),
    ")"
);

/// Ready rows inside announced ranges, those of each range together and in id order.
pub async fn read_ranges(reader: &SqlitePool, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let mut connection = reader.acquire().await.map_err(failed)?;
    let is_narrow = |range: &&RangeRead| range.last.0.saturating_sub(range.first.0) < NARROW;
    let (narrow, wide): (Vec<&RangeRead>, Vec<&RangeRead>) = ranges.iter().partition(is_narrow);
    let reads = narrow
        .into_iter()
        .map(|range| (range.limit, json!([range.line, range.lane, range.first, range.last])))
        .collect();
    let mut rows = read(&mut connection, NARROW_RANGES, reads).await?;
    for range in wide {
        rows.extend(wide_range(&mut connection, range).await?);
    }
    Ok(rows)
}

async fn wide_range(
    connection: &mut SqliteConnection,
    range: &RangeRead,
) -> Result<Vec<ReadyRow>, StoreError> {
    let lane = (range.line.0, range.lane.as_str());
    let before = MessageId(range.first.0.saturating_sub(1));
    let reads = flow_heads(connection, lane, lane, &[range.line.partition()], false)
        .await?
        .iter()
        .map(|(flow, _)| flow_read(flow, before, range.last, range.limit))
        .collect();
    let mut rows = read(connection, FLOW_ROWS, reads).await?;
    rows.sort_by_key(|row| row.id);
    rows.truncate(range.limit as usize);
    Ok(rows)
}

/// Next ready rows of flows: flow by flow, each in id order.
pub async fn read_flows(reader: &SqlitePool, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let mut connection = reader.acquire().await.map_err(failed)?;
    let last = MessageId(i64::MAX);
    let reads = reads.iter().map(|read| flow_read(&read.flow, read.after, last, read.limit)).collect();
    read(&mut connection, FLOW_ROWS, reads).await
}

/// One of many reads of one statement: its limit, and what the statement reads.
type Read = (u32, Value);

fn flow_read(flow: &Flow, after: MessageId, last: MessageId, limit: u32) -> Read {
    let media = i32::from(flow.medium == Medium::Media);
    (limit, json!([flow.line, flow.lane, media, flow.campaign, after, last]))
}

/// Runs the statement over all reads: the rows read by read, each in id order.
async fn read(
    connection: &mut SqliteConnection,
    sql: &'static str,
    reads: Vec<Read>,
) -> Result<Vec<ReadyRow>, StoreError> {
    let (limits, values): (Vec<u32>, Vec<Value>) = reads.into_iter().unzip();
    // LIMIT takes no column: all are read with the largest and cut back.
    let Some(largest) = limits.iter().max() else { return Ok(Vec::new()) };
    let found = sqlx::query(sql)
        .bind(Value::Array(values).to_string())
        .bind(largest)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let now = Now::read();
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        let read: i64 = row.try_get("read").map_err(failed)?;
        match ready_row(row, now) {
            Ok(ready) => rows.push((read as usize, ready)),
            // Such as a kind of message of a later version: it waits for that one, and the others do not wait for it.
            Err(error) => {
                let id: i64 = row.try_get("cdls_id").map_err(failed)?;
                tracing::warn!(cdls_id = id, %error, "ready row left out");
            }
        }
    }
    rows.sort_by_key(|(read, row)| (*read, row.id));
    let mut counts = vec![0; limits.len()];
    rows.retain(|(read, _)| {
        counts[*read] += 1;
        counts[*read] <= limits[*read]
    });
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Every flow of these partitions that has ready rows, with the lowest ready id.
///
/// Looks at the flows of all lines: this database has one worker process, which holds every partition but for moments.
pub async fn ready_flows(
    reader: &SqlitePool,
    partitions: &[Partition],
) -> Result<Vec<(Flow, MessageId)>, StoreError> {
    let mut connection = reader.acquire().await.map_err(failed)?;
    flow_heads(&mut connection, (0, ""), (i64::MAX, ""), partitions, false).await
}

/// The same whatever the state of their campaigns.
pub async fn waiting_flows(reader: &SqlitePool, partitions: &[Partition]) -> Result<Vec<Flow>, StoreError> {
    let mut connection = reader.acquire().await.map_err(failed)?;
    let heads = flow_heads(&mut connection, (0, ""), (i64::MAX, ""), partitions, true).await?;
    Ok(heads.into_iter().map(|(flow, _)| flow).collect())
}

async fn flow_heads(
    connection: &mut SqliteConnection,
    from: (i64, &str),
    to: (i64, &str),
    partitions: &[Partition],
    all: bool,
) -> Result<Vec<(Flow, MessageId)>, StoreError> {
    let rows = sqlx::query(FLOW_HEADS)
        .bind(from.0)
        .bind(from.1)
        .bind(to.0)
        .bind(to.1)
        .bind(list(partitions.iter().map(|partition| i64::from(partition.0))))
        .bind(all)
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
