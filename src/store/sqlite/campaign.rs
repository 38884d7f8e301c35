//! Campaigns: how they stand, their state, and the end of cancelled ones.

use std::time::Duration;

use sqlx::{Row, SqlitePool};

use super::clock::Now;
use super::enquiry::groups;
use super::error::{begin, commit, failed};
use super::row::{list, time, time_or_null, word};
use crate::message::{AccountId, CampaignState, LineId, Medium, MessageId};
use crate::store::{CampaignCount, CancelledRow, StoreError};

/// From the index `cdls_campaign` alone, but for the newest PENDING row of each group. Account ?1, campaign ?2, now ?3.
pub(super) const COUNTS: &str = "
with counted as materialized (
    select v8l_id, media, status, count(*) as rows, max(cdls_id) as newest from cdls indexed by cdls_campaign
    where cdcs_id = ?1 and cp_id = ?2
    group by v8l_id, media, status)
select c.v8l_id, c.media, c.status, c.rows,
       (select n.next_at from cdls n where n.cdls_id = c.newest and c.status = 'PENDING' and n.next_at > ?3) as not_before
from counted c
order by c.v8l_id, c.media, c.status";

pub async fn counts(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<Vec<CampaignCount>, StoreError> {
    let counted = sqlx::query(COUNTS)
        .bind(account.0)
        .bind(cp_id)
        .bind(Now::read().text())
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    counted
        .iter()
        .map(|row| {
            let media: bool = row.try_get("media").map_err(failed)?;
            Ok(CampaignCount {
                line: LineId(row.try_get("v8l_id").map_err(failed)?),
                medium: if media { Medium::Media } else { Medium::Text },
                status: word(row, "status")?,
                rows: row.try_get("rows").map_err(failed)?,
                not_before: time_or_null(row, "not_before")?,
            })
        })
        .collect()
}

/// The newest ?6 rows of one group of the campaign (line ?3, media ?4) that ended: how many ended since ?5, how many
/// there are, and the earliest end. A flow ends its rows about in the order of their ids.
pub(super) const ENDED: &str = "
select count(*) as of_all, count(iif(d.done_at >= ?5, 1, null)) as within, min(d.done_at) as earliest
from (select iif(coalesce(n.error_kind, '') in ('expired', 'line'), null, n.done_at) as done_at from cdls n indexed by cdls_campaign
      where n.cdcs_id = ?1 and n.cp_id = ?2 and n.v8l_id = ?3 and n.media = ?4 and n.status = ?7
      order by n.cdls_id desc limit ?6) d";

/// Rows of each group that are looked at: three seconds' worth at Meta's ceiling.
const SAMPLE: i64 = 1_000;

/// A sample that lies wholly inside the window is as long as it reaches back.
pub async fn rate(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
    window: Duration,
) -> Result<f64, StoreError> {
    let mut transaction = reader.begin().await.map_err(failed)?;
    let now = Now::read();
    let mut rate = 0.0;
    for group in groups(&mut transaction, account, Some(cp_id)).await? {
        if !["OK", "ERROR"].contains(&group.status.as_str()) {
            continue;
        }
        let row = sqlx::query(ENDED)
            .bind(account.0)
            .bind(cp_id)
            .bind(group.line)
            .bind(group.media)
            .bind(now.before(window))
            .bind(SAMPLE)
            .bind(group.status)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let of_all: i64 = row.try_get("of_all").map_err(failed)?;
        let within: i64 = row.try_get("within").map_err(failed)?;
        let mut length = window.as_secs_f64();
        if of_all == SAMPLE && within == SAMPLE {
            let earliest = time(&row, "earliest")?;
            length = (-now.until(earliest)).as_seconds_f64().max(0.1);
        }
        rate += within as f64 / length;
    }
    Ok(rate)
}

const SET: &str = "
insert into campaign (cdcs_id, cp_id, state, changed_at) values (?1, ?2, ?3, ?4)
on conflict (cdcs_id, cp_id) do update set
    state = iif(state = 'cancelled', state, excluded.state),
    changed_at = iif(state in ('cancelled', excluded.state), changed_at, excluded.changed_at)
returning state";

pub async fn set(
    writer: &SqlitePool,
    account: AccountId,
    cp_id: &str,
    state: CampaignState,
) -> Result<CampaignState, StoreError> {
    let (mut transaction, now) = begin(writer).await?;
    let row = sqlx::query(SET)
        .bind(account.0)
        .bind(cp_id)
        .bind(state.as_str())
        .bind(now.text())
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    let state = word(&row, "state")?;
    drop(row);
    commit(transaction).await?;
    Ok(state)
}

pub async fn in_state(
    reader: &SqlitePool,
    state: CampaignState,
    within: Option<Duration>,
) -> Result<Vec<(AccountId, String)>, StoreError> {
    let found: Vec<(i64, String)> = sqlx::query_as(
        "select cdcs_id, cp_id from campaign where state = ?1 and (?2 is null or changed_at > ?2)
         order by cdcs_id, cp_id",
    )
    .bind(state.as_str())
    .bind(within.map(|within| Now::read().before(within)))
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    Ok(found.into_iter().map(|(account, cp_id)| (AccountId(account), cp_id)).collect())
}

/// The lowest ?7 rows above id ?6 of one group of campaign ?2 of account ?1: line ?3, medium ?4, status ?5.
pub(super) const WAITING: &str = "
select n.cdls_id from cdls n indexed by cdls_campaign
where n.cdcs_id = ?1 and n.cp_id = ?2 and n.v8l_id = ?3 and n.media = ?4 and n.status = ?5 and n.cdls_id > ?6
order by n.cdls_id limit ?7";

pub async fn cancel_waiting(
    reader: &SqlitePool,
    writer: &SqlitePool,
    account: AccountId,
    cp_id: &str,
    after: MessageId,
    limit: u32,
) -> Result<Vec<CancelledRow>, StoreError> {
    let waiting = waiting(reader, account, cp_id, after, limit).await?;
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let (mut transaction, now) = begin(writer).await?;
    let mut ended: Vec<CancelledRow> = sqlx::query_as(
        "update cdls set status = 'CANCELLED', done_at = ?2, next_at = null
         where cdls_id in (select value from json_each(?1)) and status in ('PENDING', 'RETRY')
           and exists (select 1 from campaign k where k.cdcs_id = ?3 and k.cp_id = ?4 and k.state = 'cancelled')
         returning cdls_id, waiter",
    )
    .bind(list(waiting))
    .bind(now.text())
    .bind(account.0)
    .bind(cp_id)
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?
    .into_iter()
    .map(|(id, waiter): (i64, Option<String>)| (MessageId(id), waiter))
    .collect();
    commit(transaction).await?;
    ended.sort_unstable();
    Ok(ended)
}

/// The lowest waiting rows of the campaign above `after`.
async fn waiting(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
    after: MessageId,
    limit: u32,
) -> Result<Vec<i64>, StoreError> {
    let mut transaction = reader.begin().await.map_err(failed)?;
    let mut waiting: Vec<i64> = Vec::new();
    for group in groups(&mut transaction, account, Some(cp_id)).await? {
        if !["PENDING", "RETRY"].contains(&group.status.as_str()) {
            continue;
        }
        let rows: Vec<i64> = sqlx::query_scalar(WAITING)
            .bind(account.0)
            .bind(cp_id)
            .bind(group.line)
            .bind(group.media)
            .bind(group.status)
            .bind(after.0)
            .bind(limit)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        waiting.extend(rows);
    }
    waiting.sort_unstable();
    waiting.truncate(limit as usize);
    Ok(waiting)
}
