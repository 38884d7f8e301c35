//! What dispatch reads: ready rows by announcement and by flow, rows that are due, and who holds a recipient.

use std::time::Duration;

use sqlx::postgres::PgRow;

use super::error::failed;
use super::parameters::{milliseconds, numbers};
use super::pool::Pool;
use super::rows::{self, ready_columns};
use crate::message::{Lane, LineId, Medium, MessageId, Partition};
use crate::store::{ClaimedRow, Flow, FlowRead, HeldRecipient, RangeRead, ReadyRow, StoreError};

/// By the primary key: ranges are short. The `coalesce` keeps the planner from the ready index, in which it would walk
/// over the line's whole backlog. Rows of paused and cancelled campaigns wait; most rows have no campaign and cost no
/// look-up.
const READ_RANGES: &str = concat!(
    "select ",
    ready_columns!(),
    " from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) as w(line, lane, first, last, rows)
     cross join lateral (
         select * from cdls c
         where c.cdls_id between w.first and w.last and c.v8l_id = w.line and c.priority = w.lane
           and c.status in ('PENDING', 'RETRY') and coalesce(c.next_at, 'infinity') = 'infinity'
           and (c.cp_id is null or not exists (select from campaign p where p.cdcs_id = c.cdcs_id
                and p.cp_id = c.cp_id and p.state <> 'running'))
         order by c.cdls_id limit w.rows) as c"
);

pub async fn read_ranges(pool: &Pool, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let rows = sqlx::query(READ_RANGES)
        .bind(ranges.iter().map(|r| r.line.0).collect::<Vec<_>>())
        .bind(ranges.iter().map(|r| r.lane.as_str()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|r| r.first.0).collect::<Vec<_>>())
        .bind(ranges.iter().map(|r| r.last.0).collect::<Vec<_>>())
        .bind(ranges.iter().map(|r| i64::from(r.limit)).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    Ok(readable(&rows))
}

/// The rows this version can read. Others, such as a kind of message of a later version, wait for that one, and nobody
/// waits for them.
fn readable(rows: &[PgRow]) -> Vec<ReadyRow> {
    let ready = rows.iter().filter_map(|row| {
        rows::ready(row)
            .inspect_err(|error| {
                let id = rows::get::<i64>(row, "cdls_id").unwrap_or_default();
                tracing::warn!(cdls_id = id, %error, "ready row left out");
            })
            .ok()
    });
    ready.collect()
}

/// Whether a flow's campaign runs is asked once for each flow: asked of each row, a paused campaign of a million rows took
/// two seconds.
const READ_FLOWS: &str = concat!(
    "select ",
    ready_columns!(),
    " from unnest($1::bigint[], $2::text[], $3::boolean[], $4::text[], $5::bigint[], $6::bigint[])
          as w(line, lane, media, campaign, above, rows)
     join cd_v8_line l on l.v8l_id = w.line
     cross join lateral (
         select * from cdls c
         where c.v8l_id = w.line and c.priority = w.lane and c.media = w.media and c.campaign = w.campaign
           and c.cdls_id > w.above and c.status in ('PENDING', 'RETRY') and c.next_at is null
         order by c.cdls_id limit w.rows) as c
     where w.campaign = '' or not exists (select from campaign p where p.cdcs_id = l.cdcs_id and p.cp_id = w.campaign
           and p.state <> 'running')
     order by c.cdls_id"
);

pub async fn read_flows(pool: &Pool, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError> {
    let rows = sqlx::query(READ_FLOWS)
        .bind(reads.iter().map(|r| r.flow.line.0).collect::<Vec<_>>())
        .bind(reads.iter().map(|r| r.flow.lane.as_str()).collect::<Vec<_>>())
        .bind(reads.iter().map(|r| r.flow.medium == Medium::Media).collect::<Vec<_>>())
        .bind(reads.iter().map(|r| r.flow.campaign.as_str()).collect::<Vec<_>>())
        .bind(reads.iter().map(|r| r.after.0).collect::<Vec<_>>())
        .bind(reads.iter().map(|r| i64::from(r.limit)).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    Ok(readable(&rows))
}

/// A loose scan of the ready index: one probe a flow, however many rows it has.
const READY_FLOWS: &str = "
    with recursive flow as (
        (select v8l_id, priority, media, campaign, cdls_id, cdcs_id from cdls
         where status in ('PENDING', 'RETRY') and next_at is null
         order by v8l_id, priority, media, campaign, cdls_id limit 1)
        union all
        select next.* from flow
        cross join lateral (
            select v8l_id, priority, media, campaign, cdls_id, cdcs_id from cdls c
            where c.status in ('PENDING', 'RETRY') and c.next_at is null
              and (c.v8l_id, c.priority, c.media, c.campaign) > (flow.v8l_id, flow.priority, flow.media, flow.campaign)
            order by v8l_id, priority, media, campaign, cdls_id limit 1) as next)
    select v8l_id, priority, media, campaign, cdls_id from flow
    where v8l_id % 64 = any($1::smallint[])
      and ($2 or campaign = '' or not exists (select from campaign p where p.cdcs_id = flow.cdcs_id
           and p.cp_id = flow.campaign and p.state <> 'running'))";

pub async fn ready_flows(
    pool: &Pool,
    partitions: &[Partition],
) -> Result<Vec<(Flow, MessageId)>, StoreError> {
    flows(pool, partitions, false).await
}

pub async fn waiting_flows(pool: &Pool, partitions: &[Partition]) -> Result<Vec<Flow>, StoreError> {
    Ok(flows(pool, partitions, true).await?.into_iter().map(|(flow, _)| flow).collect())
}

/// `all`: those of campaigns that do not run, too.
async fn flows(
    pool: &Pool,
    partitions: &[Partition],
    all: bool,
) -> Result<Vec<(Flow, MessageId)>, StoreError> {
    let found =
        sqlx::query(READY_FLOWS).bind(numbers(partitions)).bind(all).fetch_all(pool).await.map_err(failed)?;
    found
        .iter()
        .map(|row| {
            let media: bool = rows::get(row, "media")?;
            let flow = Flow {
                line: LineId(rows::get(row, "v8l_id")?),
                lane: rows::word(row, "priority")?,
                medium: if media { Medium::Media } else { Medium::Text },
                campaign: rows::get(row, "campaign")?,
            };
            Ok((flow, MessageId(rows::get(row, "cdls_id")?)))
        })
        .collect()
}

/// One probe of the due index a partition. Partitions take turns: a million rows that are due at once hold up their own
/// line's only.
const PROMOTE_DUE: &str = "
    with due as materialized (
        select c.cdls_id from unnest($1::smallint[]) as w(partition_no)
        cross join lateral (
            select cdls_id, due, row_number() over (order by due, cdls_id) as place from (
                select cdls_id, coalesce(call_deadline, next_at) as due from cdls
                where partition_no = w.partition_no and coalesce(call_deadline, next_at) <= now()
                  and status in ('PENDING', 'RETRY', 'SENDING') and (next_at is not null or call_deadline is not null)
                  and status in ('PENDING', 'RETRY')
                order by coalesce(call_deadline, next_at), cdls_id limit $2) as first) as c
        order by c.place, c.due, c.cdls_id limit $2),
    locked as materialized (
        select cdls_id from cdls where cdls_id in (select cdls_id from due)
          and status in ('PENDING', 'RETRY') and next_at <= now()
        order by cdls_id for update skip locked)
    update cdls set status = 'PENDING', next_at = null where cdls_id in (select cdls_id from locked)
    returning v8l_id, priority, cdls_id";

pub async fn promote_due(
    pool: &Pool,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError> {
    let promoted = sqlx::query(PROMOTE_DUE)
        .bind(numbers(partitions))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    promoted
        .iter()
        .map(|row| {
            Ok((
                LineId(rows::get(row, "v8l_id")?),
                rows::word(row, "priority")?,
                MessageId(rows::get(row, "cdls_id")?),
            ))
        })
        .collect()
}

/// The due index holds schedules too, a campaign of millions perhaps: only what its time makes a retry or a claim is read.
const HELD: &str = "
    select v8l_id, priority, dest, cdls_id, status,
           greatest(0, (extract(epoch from coalesce(call_deadline, next_at) - now()) * 1000)::bigint) as wait_ms
    from cdls
    where partition_no = any($1::smallint[]) and status in ('PENDING', 'RETRY', 'SENDING')
      and (next_at is not null or call_deadline is not null) and status in ('RETRY', 'SENDING')
      and coalesce(call_deadline, next_at) <= now() + $2::bigint * interval '1 millisecond'";

pub async fn held_recipients(
    pool: &Pool,
    partitions: &[Partition],
    within: Duration,
) -> Result<Vec<HeldRecipient>, StoreError> {
    let held = timed(HELD, pool, partitions, within).await?;
    held.iter()
        .map(|row| {
            let wait_ms: i64 = rows::get(row, "wait_ms")?;
            Ok(HeldRecipient {
                line: LineId(rows::get(row, "v8l_id")?),
                lane: rows::word(row, "priority")?,
                dest: rows::get(row, "dest")?,
                by: MessageId(rows::get(row, "cdls_id")?),
                status: rows::word(row, "status")?,
                wait: Duration::from_millis(wait_ms as u64),
            })
        })
        .collect()
}

/// Rows of the due index whose time comes `within` so long.
async fn timed(
    statement: &'static str,
    pool: &Pool,
    partitions: &[Partition],
    within: Duration,
) -> Result<Vec<PgRow>, StoreError> {
    let query = sqlx::query(statement).bind(numbers(partitions)).bind(milliseconds(within));
    query.fetch_all(pool).await.map_err(failed)
}

pub async fn still_held(pool: &Pool, ids: &[MessageId]) -> Result<Vec<MessageId>, StoreError> {
    let held: Vec<i64> = sqlx::query_scalar(
        "select cdls_id from cdls where cdls_id = any($1::bigint[])
         and (status = 'SENDING' or (status = 'RETRY' and next_at is not null))",
    )
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    Ok(held.into_iter().map(MessageId).collect())
}

const CLAIMED: &str = "
    select cdls_id, v8l_id, fence, worker, waiter, call_deadline < now() as overdue, attempts, tries, crashes::integer,
           (extract(epoch from expires_at - now()) * 1000)::bigint as valid_ms
    from cdls
    where partition_no = any($1::smallint[]) and status in ('PENDING', 'RETRY', 'SENDING')
      and (next_at is not null or call_deadline is not null) and status = 'SENDING'
      and coalesce(call_deadline, next_at) <= now() + $2::bigint * interval '1 millisecond'";

pub async fn claimed_rows(
    pool: &Pool,
    partitions: &[Partition],
    within: Duration,
) -> Result<Vec<ClaimedRow>, StoreError> {
    let claimed = timed(CLAIMED, pool, partitions, within).await?;
    claimed
        .iter()
        .map(|row| {
            Ok(ClaimedRow {
                id: MessageId(rows::get(row, "cdls_id")?),
                line: LineId(rows::get(row, "v8l_id")?),
                fence: rows::get(row, "fence")?,
                worker: rows::get::<Option<String>>(row, "worker")?.unwrap_or_default(),
                overdue: rows::get::<Option<bool>>(row, "overdue")?.unwrap_or(true),
                attempts: rows::get(row, "attempts")?,
                tries: rows::get(row, "tries")?,
                crashes: rows::get(row, "crashes")?,
                valid_for: time::Duration::milliseconds(rows::get(row, "valid_ms")?),
                waiter: rows::get(row, "waiter")?,
            })
        })
        .collect()
}
