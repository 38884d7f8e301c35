//! Waiting rows that are to be ended without a call: expired ones, and those of cancelled campaigns.
//!
//! Rows are only found here; the owner of their partition ends them. Work in which no row waits any more is
//! removed, and work that has not expired is postponed, in a transaction of its own that begins only when
//! there is such work.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::{get, list, medium, numbers, read_or_skip, readable, word};
use crate::domain::{LineId, Partition, RowId};
use crate::store::{DoomedRow, StoreError};

pub(super) const WAITING: &str = include_str!("sql/waiting.sql");

/// Work of partitions ?1 that may hold a row expired by ?2, at most ?3 of each.
pub(super) const EXPIRED_WORK: &str = "
select w.work_id from json_each(?1) p cross join work w
where w.work_id in (
    select n.work_id from work n indexed by work_expiry
    where n.partition_no = p.value and n.expires_at <= ?2 order by n.expires_at limit ?3)
order by w.expires_at limit ?3";

/// Cancelled campaigns that may have waiting rows.
pub(super) const CANCELLED: &str = "
select cdcs_id, cp_id, changed_at <= ?1 as is_old from campaign indexed by campaign_unswept
where state = 'cancelled' and not swept order by cdcs_id, cp_id";

/// Work of campaign ?2 of account ?1 in partitions ?3, at most ?4.
pub(super) const CANCELLED_WORK: &str = "
select w.work_id from work w indexed by work_campaign
where w.cdcs_id = ?1 and w.campaign = ?2 and w.campaign <> '' and w.partition_no in (select value from json_each(?3))
order by w.work_id limit ?4";

/// Rows of that campaign that wait for a time.
pub(super) const CANCELLED_OPEN: &str = "
select o.cdls_id, o.v8l_id, o.priority, o.media, o.dest, c.fence, c.waiter
from cdls_open o indexed by cdls_open_campaign cross join cdls c
where o.cdcs_id = ?1 and o.campaign = ?2 and o.campaign <> '' and o.kind <> 'unknown'
  and o.partition_no in (select value from json_each(?3)) and c.cdls_id = o.cdls_id and c.status in ('PENDING', 'RETRY')
  and not exists (select 1 from claim_row r where r.cdls_id = c.cdls_id and r.fence > c.fence)
limit ?4";

/// A campaign without rows in the queue is not looked at again.
const SWEEP: &str = "
update campaign set swept = 1
where state = 'cancelled' and cdcs_id = ?1 and cp_id = ?2
  and not exists (select 1 from work w where w.cdcs_id = ?1 and w.campaign = ?2 and w.campaign <> '')
  and not exists (
      select 1 from cdls_open o
      where o.cdcs_id = ?1 and o.campaign = ?2 and o.campaign <> '' and o.kind <> 'unknown')";

/// Messages still on their way when a campaign was cancelled have arrived after this time.
const OLD: Duration = Duration::from_secs(600);

/// The number of rows of `work` read at once.
const PAGE: usize = 64;

/// The waiting rows of one `work`.
#[derive(Default)]
struct WaitingWork {
    rows: Vec<WaitingRow>,
}

/// A waiting row.
struct WaitingRow {
    doomed: Option<DoomedRow>,
    expires_at: String,
    is_claimed: bool,
}

/// Work that is postponed to a time, or removed.
#[derive(Default)]
struct WorkCleanup {
    put_off: Vec<Value>,
    ended: Vec<i64>,
}

pub async fn expired(
    reader: &SqlitePool,
    writer: &SqlitePool,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<DoomedRow>, StoreError> {
    // Work that is postponed or removed here may come before work with expired rows: the look goes on behind it.
    loop {
        let mut connection = reader.acquire().await.map_err(failed)?;
        let now = Now::read();
        let work: Vec<i64> = sqlx::query_scalar(EXPIRED_WORK)
            .bind(numbers(partitions))
            .bind(now.text())
            .bind(limit)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        let mut doomed = Vec::new();
        let mut tidy = WorkCleanup::default();
        for (number, waiting) in waiting(&mut connection, &work).await? {
            let earliest = waiting.rows.iter().map(|row| &row.expires_at).min();
            match earliest {
                None => tidy.ended.push(number),
                Some(earliest) if *earliest > now.text() => tidy.put_off.push(json!([number, earliest])),
                Some(_) => {
                    let expired = waiting.rows.into_iter().filter(|row| row.expires_at <= now.text());
                    doomed.extend(expired.filter_map(WaitingRow::unless_claimed));
                }
            }
        }
        drop(connection);
        if !tidy.write(writer).await? || !doomed.is_empty() {
            return Ok(doomed);
        }
    }
}

pub async fn cancelled(
    reader: &SqlitePool,
    writer: &SqlitePool,
    partitions: &[Partition],
    limit: u32,
) -> Result<Vec<DoomedRow>, StoreError> {
    // Work whose rows have ended may come before work with waiting rows: the look goes on behind it.
    loop {
        let campaigns: Vec<(i64, String, bool)> = sqlx::query_as(CANCELLED)
            .bind(Now::read().before(OLD))
            .fetch_all(reader)
            .await
            .map_err(failed)?;
        let mut doomed = Vec::new();
        let mut tidy = WorkCleanup::default();
        let mut swept = Vec::new();
        for (account, cp_id, is_old) in campaigns {
            if doomed.len() >= limit as usize {
                break;
            }
            let mut connection = reader.acquire().await.map_err(failed)?;
            let campaign = CancelledCampaign { account, cp_id, partitions: numbers(partitions), limit };
            let before = doomed.len();
            let is_empty = campaign.look(&mut connection, &mut doomed, &mut tidy).await?;
            if is_old && is_empty && doomed.len() == before {
                swept.push((campaign.account, campaign.cp_id));
            }
        }
        let has_changed = tidy.write(writer).await?;
        sweep(writer, swept).await?;
        if !has_changed || !doomed.is_empty() {
            return Ok(doomed);
        }
    }
}

struct CancelledCampaign {
    account: i64,
    cp_id: String,
    partitions: String,
    limit: u32,
}

impl CancelledCampaign {
    /// Find waiting rows, about as many as are wanted, and whether no row of the campaign is in the queue of
    /// these partitions.
    async fn look(
        &self,
        connection: &mut SqliteConnection,
        doomed: &mut Vec<DoomedRow>,
        tidy: &mut WorkCleanup,
    ) -> Result<bool, StoreError> {
        let work: Vec<i64> = sqlx::query_scalar(CANCELLED_WORK)
            .bind(self.account)
            .bind(&self.cp_id)
            .bind(&self.partitions)
            // Work whose rows have all ended may come first.
            .bind(i64::from(self.limit).max(PAGE as i64))
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        for page in work.chunks(PAGE) {
            if doomed.len() >= self.limit as usize {
                return Ok(false);
            }
            for (number, waiting) in waiting(connection, page).await? {
                if waiting.rows.is_empty() {
                    tidy.ended.push(number);
                }
                doomed.extend(waiting.rows.into_iter().filter_map(WaitingRow::unless_claimed));
            }
        }
        let open = sqlx::query(CANCELLED_OPEN)
            .bind(self.account)
            .bind(&self.cp_id)
            .bind(&self.partitions)
            .bind(self.limit)
            .fetch_all(connection)
            .await
            .map_err(failed)?;
        doomed.extend(readable(&open, doomed_row));
        Ok(work.is_empty())
    }
}

impl WaitingRow {
    /// Return the row unless it is claimed: a row that a worker calls Graph for is ended by that call.
    fn unless_claimed(self) -> Option<DoomedRow> {
        self.doomed.filter(|_| !self.is_claimed)
    }
}

/// Return the work with its waiting rows.
async fn waiting(
    connection: &mut SqliteConnection,
    work: &[i64],
) -> Result<BTreeMap<i64, WaitingWork>, StoreError> {
    if work.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found =
        sqlx::query(WAITING).bind(list(work.iter().copied())).fetch_all(connection).await.map_err(failed)?;
    let mut waiting: BTreeMap<i64, WaitingWork> = BTreeMap::new();
    for row in &found {
        let work = waiting.entry(get(row, "work_id")?).or_default();
        if get::<Option<i64>>(row, "cdls_id")?.is_some() {
            work.rows.push(WaitingRow {
                doomed: read_or_skip(row, doomed_row),
                expires_at: get(row, "expires_at")?,
                is_claimed: get(row, "claimed")?,
            });
        }
    }
    Ok(waiting)
}

fn doomed_row(row: &SqliteRow) -> Result<DoomedRow, StoreError> {
    Ok(DoomedRow {
        id: RowId(get(row, "cdls_id")?),
        line: LineId(get(row, "v8l_id")?),
        lane: word(row, "priority")?,
        medium: medium(row)?,
        dest: get(row, "dest")?,
        fence: get(row, "fence")?,
        waiter: get(row, "waiter")?,
    })
}

impl WorkCleanup {
    /// Postpone and remove work. A row that has left `work` is elsewhere in the queue, or has ended, so the
    /// facts read before the lock was taken still hold. Return whether there was work to change.
    async fn write(self, writer: &SqlitePool) -> Result<bool, StoreError> {
        if self.put_off.is_empty() && self.ended.is_empty() {
            return Ok(false);
        }
        let (mut transaction, _) = begin(writer).await?;
        sqlx::query(
            "update work set expires_at = j.value->>1 from json_each(?1) j where work_id = j.value->>0",
        )
        .bind(Value::Array(self.put_off).to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        sqlx::query("delete from work where work_id in (select value from json_each(?1))")
            .bind(list(self.ended))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        commit(transaction).await?;
        Ok(true)
    }
}

async fn sweep(writer: &SqlitePool, campaigns: Vec<(i64, String)>) -> Result<(), StoreError> {
    if campaigns.is_empty() {
        return Ok(());
    }
    let (mut transaction, _) = begin(writer).await?;
    for (account, cp_id) in campaigns {
        let statement = sqlx::query(SWEEP).bind(account).bind(cp_id);
        statement.execute(&mut *transaction).await.map_err(failed)?;
    }
    commit(transaction).await
}
