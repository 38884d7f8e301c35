//! The work that may be sent: by number and by flow with its ready rows, the flows that have work, and new
//! work.
//!
//! Statements name their index: SQLite would choose by statistics that no task renews. The recorder's
//! transaction, claims, due rows, and rows to be ended are in files of their own.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::clock::Now;
use super::error::failed;
use super::row::{flow, get, list, numbers, read_or_skip, readable, time, word};
use super::{SqliteStore, claims, doomed, due, record};
use crate::channel::Medium;
use crate::domain::{AccountId, LineId, Partition, RowId, WorkId};
use crate::store::{
    ClaimedRow, Contact, DispatchStore, DoomedRow, Flow, FlowPage, FlowRead, HeldRecipient, NewWork,
    Position, Promoted, ReadyRow, Record, Recorded, StoreError, WorkHead, WorkRead,
};

pub(super) const READ_WORK: &str = include_str!("sql/read_work.sql");
pub(super) const READ_FLOWS: &str = include_str!("sql/read_flows.sql");
pub(super) const READY_FLOWS: &str = include_str!("sql/ready_flows.sql");

/// Work with numbers above ?1, at most ?2.
pub(super) const NEW_WORK: &str = "
select work_id, partition_no, v8l_id, priority, media, campaign, first_id, json_array_length(ids) as rows
from work where work_id > ?1 order by work_id limit ?2";

/// Campaigns that run again since ?1.
pub(super) const RESUMED: &str =
    "select exists (select 1 from campaign where changed_at > ?1 and state = 'running')";

/// A look some time later still reports that a campaign was resumed, also when the one between has failed.
const RESUMED_FOR: Duration = Duration::from_secs(6);

#[async_trait]
impl DispatchStore for SqliteStore {
    async fn read_work(&self, work: &[WorkId]) -> Result<Vec<WorkRead>, StoreError> {
        if work.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.reader.acquire().await.map_err(failed)?;
        Ok(work_with_rows(&mut connection, work).await?.into_values().collect())
    }

    async fn read_flows(&self, reads: &[FlowRead]) -> Result<Vec<FlowPage>, StoreError> {
        let Some(longest) = reads.iter().map(|read| read.limit.max(1)).max() else { return Ok(Vec::new()) };
        let mut connection = self.reader.acquire().await.map_err(failed)?;
        // One more row shows whether there is more; each holds at least one message.
        let found = sqlx::query(READ_FLOWS)
            .bind(Value::from_iter(reads.iter().map(flow_values)).to_string())
            .bind(i64::from(longest) + 1)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        let pages = pages(reads, &found)?;
        let wanted: Vec<WorkId> =
            pages.iter().flat_map(|(work, _)| work).map(|position| position.work).collect();
        let mut read = work_with_rows(&mut connection, &wanted).await?;
        let page = |(positions, more): (Vec<Position>, bool)| FlowPage {
            work: positions.iter().filter_map(|position| read.remove(&position.work)).collect(),
            more,
        };
        Ok(pages.into_iter().map(page).collect())
    }

    async fn ready_flows(
        &self,
        partitions: &[Partition],
        sendable: bool,
    ) -> Result<Vec<(Flow, Position)>, StoreError> {
        let found = sqlx::query(READY_FLOWS)
            .bind(numbers(partitions))
            .bind(Now::read().text())
            .bind(sendable)
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        Ok(readable(&found, |row| Ok((flow(row)?, position(row)?))))
    }

    async fn new_work(
        &self,
        partitions: &[Partition],
        after: Option<WorkId>,
        limit: u32,
    ) -> Result<NewWork, StoreError> {
        let mut connection = self.reader.acquire().await.map_err(failed)?;
        let campaign_resumed: bool = sqlx::query_scalar(RESUMED)
            .bind(Now::read().before(RESUMED_FOR))
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        let Some(after) = after else {
            let reached: Option<i64> = sqlx::query_scalar("select max(work_id) from work")
                .fetch_one(&mut *connection)
                .await
                .map_err(failed)?;
            let reached = WorkId(reached.unwrap_or(0));
            return Ok(NewWork { reached, campaign_resumed, ..NewWork::default() });
        };
        let found = sqlx::query(NEW_WORK)
            .bind(after.0)
            .bind(limit)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        let reached = found.last().map(|row| get(row, "work_id").map(WorkId)).transpose()?;
        let heads = readable(&found, |row| Ok((Partition(get(row, "partition_no")?), head(row)?)));
        let ours = heads.into_iter().filter(|(partition, _)| partitions.contains(partition));
        Ok(NewWork {
            work: ours.map(|(_, head)| head).collect(),
            reached: reached.unwrap_or(after),
            is_full: found.len() >= limit as usize,
            campaign_resumed,
        })
    }

    async fn promote_due(
        &self,
        partitions: &[Partition],
        from: Option<OffsetDateTime>,
        limit: u32,
    ) -> Result<Promoted, StoreError> {
        due::promote(&self.reader, &self.writer, partitions, from, limit).await
    }

    async fn held_recipients(
        &self,
        partitions: &[Partition],
        within: Duration,
        limit: u32,
    ) -> Result<Vec<HeldRecipient>, StoreError> {
        due::held_recipients(&self.reader, partitions, within, limit).await
    }

    async fn still_held(&self, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
        let held: Vec<i64> = sqlx::query_scalar(
            "select cdls_id from cdls
             where cdls_id in (select value from json_each(?1)) and status in ('PENDING', 'RETRY')
             order by cdls_id",
        )
        .bind(list(ids.iter().map(|id| id.0)))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(held.into_iter().map(RowId).collect())
    }

    async fn locked(&self, _ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
        // SQLite locks the file, and never a row.
        Ok(Vec::new())
    }

    async fn record(&self, record: Record<'_>) -> Result<Recorded, StoreError> {
        record::record(&self.writer, &self.leases, record).await
    }

    async fn open_claims(&self, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError> {
        claims::open(&self.reader, partitions).await
    }

    async fn open_claims_since(&self, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError> {
        claims::open(&self.reader, partitions).await
    }

    async fn forget_claims(&self) -> Result<u64, StoreError> {
        claims::forget(&self.reader, &self.writer, &self.leases).await
    }

    async fn expired_rows(&self, partitions: &[Partition], limit: u32) -> Result<Vec<DoomedRow>, StoreError> {
        doomed::expired(&self.reader, &self.writer, partitions, limit).await
    }

    async fn cancelled_rows(
        &self,
        partitions: &[Partition],
        limit: u32,
    ) -> Result<Vec<DoomedRow>, StoreError> {
        doomed::cancelled(&self.reader, &self.writer, partitions, limit).await
    }
}

fn flow_values(FlowRead { flow, after, .. }: &FlowRead) -> Value {
    let media = i32::from(flow.medium == Medium::Media);
    let (first, work) = after.map_or((0, 0), |after| (after.first.0, after.work.0));
    json!([flow.line.partition(), flow.line, flow.lane, media, flow.campaign, first, work])
}

/// Return for each read its work, as much as it asked for, and whether there is more.
fn pages(reads: &[FlowRead], found: &[SqliteRow]) -> Result<Vec<(Vec<Position>, bool)>, StoreError> {
    let mut of_reads: Vec<Vec<(Position, u32)>> = vec![Vec::new(); reads.len()];
    for row in found {
        let read: i64 = get(row, "read")?;
        if let Some(work) = usize::try_from(read).ok().and_then(|read| of_reads.get_mut(read)) {
            work.push((position(row)?, get(row, "rows")?));
        }
    }
    let page = |(read, mut work): (&FlowRead, Vec<(Position, u32)>)| {
        work.sort_unstable_by_key(|(position, _)| *position);
        let (mut taken, mut rows) = (Vec::new(), 0);
        for (position, length) in &work {
            if rows >= read.limit.max(1) {
                break;
            }
            taken.push(*position);
            rows += length;
        }
        let more = taken.len() < work.len();
        (taken, more)
    };
    Ok(reads.iter().zip(of_reads).map(page).collect())
}

/// Return the work with its ready rows, each in order of id.
async fn work_with_rows(
    connection: &mut SqliteConnection,
    work: &[WorkId],
) -> Result<BTreeMap<WorkId, WorkRead>, StoreError> {
    if work.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = sqlx::query(READ_WORK)
        .bind(list(work.iter().map(|work| work.0)))
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let now = Now::read();
    let mut read: BTreeMap<WorkId, WorkRead> = BTreeMap::new();
    let mut with_unreadable = BTreeSet::new();
    for row in &found {
        let number = WorkId(get(row, "work_id")?);
        if let Entry::Vacant(vacant) = read.entry(number) {
            let Some(empty) = read_or_skip(row, empty_work) else { continue };
            vacant.insert(empty);
        }
        let id: Option<i64> = get(row, "cdls_id")?;
        if let Some(work) = read.get_mut(&number).filter(|_| id.is_some()) {
            match read_or_skip(row, |row| ready_row(row, number, now)) {
                Some(ready) => work.rows.push(ready),
                None => drop(with_unreadable.insert(number)),
            }
        }
    }
    // Without a row the work would count as ended, while one of its rows waits for a version that can read
    // it.
    read.retain(|number, work| !work.rows.is_empty() || !with_unreadable.contains(number));
    read.values_mut().for_each(|work| work.rows.sort_unstable_by_key(|row| row.id));
    Ok(read)
}

fn empty_work(row: &SqliteRow) -> Result<WorkRead, StoreError> {
    let media: bool = get(row, "w_media")?;
    let flow = Flow {
        line: LineId(get(row, "w_v8l_id")?),
        lane: word(row, "w_priority")?,
        medium: if media { Medium::Media } else { Medium::Text },
        campaign: get(row, "w_campaign")?,
    };
    Ok(WorkRead { position: position(row)?, flow, rows: Vec::new() })
}

pub(super) fn ready_row(row: &SqliteRow, work: WorkId, now: Now) -> Result<ReadyRow, StoreError> {
    Ok(ReadyRow {
        id: RowId(get(row, "cdls_id")?),
        work,
        line: LineId(get(row, "v8l_id")?),
        account: AccountId(get(row, "cdcs_id")?),
        lane: word(row, "priority")?,
        kind: word(row, "mtype")?,
        cp_id: get(row, "cp_id")?,
        dest: get(row, "dest")?,
        mdata: get(row, "mdata")?,
        fence: get(row, "fence")?,
        attempts: get(row, "attempts")?,
        tries: get(row, "tries")?,
        valid_for: now.until(time(row, "expires_at")?),
        waiter: get(row, "waiter")?,
        contact: Contact::default(),
    })
}

fn position(row: &SqliteRow) -> Result<Position, StoreError> {
    Ok(Position { first: RowId(get(row, "first_id")?), work: WorkId(get(row, "work_id")?) })
}

fn head(row: &SqliteRow) -> Result<WorkHead, StoreError> {
    Ok(WorkHead { position: position(row)?, flow: flow(row)?, rows: get(row, "rows")? })
}
