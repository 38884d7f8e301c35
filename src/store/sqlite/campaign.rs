//! Campaigns: how they stand, by their counters, and their state.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::{get, medium, readable, time, word};
use crate::message::{AccountId, CampaignState, LineId, Medium, Status};
use crate::store::{CampaignCount, StoreError};

/// Campaign ?2 of account ?1.
pub(super) const COUNTS: &str = "
select v8l_id, media, status, sum(rows) as rows
from (select v8l_id, media, status, rows from campaign_total where cdcs_id = ?1 and cp_id = ?2
      union all
      select v8l_id, media, status, rows from campaign_delta where cdcs_id = ?1 and cp_id = ?2)
group by v8l_id, media, status having sum(rows) > 0";

/// Its rows with an open claim.
pub(super) const SENDING: &str = "
select c.v8l_id, c.mtype <> 'text' as media, c.status, count(*) as rows
from claim_row r cross join cdls c
where c.cdls_id = r.cdls_id and r.fence > c.fence and c.status in ('PENDING', 'RETRY') and c.cdcs_id = ?1 and c.cp_id = ?2
group by 1, 2, 3";

/// The newest scheduled row of the campaign of line ?3 and medium ?4 that is due after ?5, unless a newer one has work.
pub(super) const NOT_BEFORE: &str = "
select newest.due_at from (
    select cdls_id, due_at from cdls_open indexed by cdls_open_campaign
    where cdcs_id = ?1 and campaign = ?2 and campaign <> '' and kind <> 'unknown' and kind = 'schedule'
      and v8l_id = ?3 and media = ?4
    order by cdls_id desc limit 1) newest
where newest.due_at > ?5 and newest.cdls_id > coalesce((
    select json_extract(w.ids, '$[#-1]') from work w indexed by work_campaign
    where w.cdcs_id = ?1 and w.campaign = ?2 and w.campaign <> '' and w.v8l_id = ?3 and w.media = ?4
    order by w.work_id desc limit 1), 0)";

/// A group of counters, as the words stand in the table.
type Groups = BTreeMap<(i64, bool, String), i64>;

pub async fn counts(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<Vec<CampaignCount>, StoreError> {
    // One look: a row that changes its state meanwhile is counted once.
    let mut transaction = reader.begin().await.map_err(failed)?;
    let mut counted = groups(&mut transaction, COUNTS, account, cp_id).await?;
    for ((line, media, status), rows) in groups(&mut transaction, SENDING, account, cp_id).await? {
        *counted.entry((line, media, status)).or_default() -= rows;
        *counted.entry((line, media, Status::Sending.as_str().to_owned())).or_default() += rows;
    }
    let mut counts = Vec::with_capacity(counted.len());
    for ((line, media, status), rows) in counted.into_iter().filter(|(_, rows)| *rows > 0) {
        let status: Status = match status.parse() {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(cp_id, "skipped unreadable row: {error}");
                continue;
            }
        };
        let mut count = CampaignCount {
            line: LineId(line),
            medium: if media { Medium::Media } else { Medium::Text },
            status,
            rows,
            not_before: None,
        };
        if status == Status::Pending {
            count.not_before = not_before(&mut transaction, account, cp_id, &count).await?;
        }
        counts.push(count);
    }
    Ok(counts)
}

async fn groups(
    connection: &mut SqliteConnection,
    statement: &'static str,
    account: AccountId,
    cp_id: &str,
) -> Result<Groups, StoreError> {
    let found =
        sqlx::query(statement).bind(account.0).bind(cp_id).fetch_all(connection).await.map_err(failed)?;
    let group = |row: &SqliteRow| {
        let media = medium(row)? == Medium::Media;
        Ok(((get(row, "v8l_id")?, media, get(row, "status")?), get(row, "rows")?))
    };
    Ok(readable(&found, group).into_iter().collect())
}

async fn not_before(
    connection: &mut SqliteConnection,
    account: AccountId,
    cp_id: &str,
    count: &CampaignCount,
) -> Result<Option<time::OffsetDateTime>, StoreError> {
    let found = sqlx::query(NOT_BEFORE)
        .bind(account.0)
        .bind(cp_id)
        .bind(count.line.0)
        .bind(count.medium == Medium::Media)
        .bind(Now::read().text())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    Ok(readable(&found, |row| time(row, "due_at")).pop())
}

pub async fn rate(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
    window: Duration,
) -> Result<f64, StoreError> {
    let sent: i64 = sqlx::query_scalar(
        "select coalesce(sum(sent), 0) from campaign_delta where cdcs_id = ?1 and cp_id = ?2 and at > ?3",
    )
    .bind(account.0)
    .bind(cp_id)
    .bind(Now::read().before(window))
    .fetch_one(reader)
    .await
    .map_err(failed)?;
    Ok(sent as f64 / window.as_secs_f64().max(0.001))
}

/// The oldest ?2 counters, if they were added by ?1; in the order they were added.
const FOLDED: &str = "
delete from campaign_delta
where at <= ?1 and delta_id in (select delta_id from campaign_delta order by delta_id limit ?2)
returning cdcs_id, cp_id, v8l_id, media, status, rows";

const ADD: &str = "
insert into campaign_total (cdcs_id, cp_id, v8l_id, media, status, rows)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 from json_each(?1) where true
on conflict (cdcs_id, cp_id, v8l_id, media, status) do update set rows = rows + excluded.rows";

pub async fn fold(
    reader: &SqlitePool,
    writer: &SqlitePool,
    age: Duration,
    limit: u32,
) -> Result<u64, StoreError> {
    let oldest: Option<String> =
        sqlx::query_scalar("select at from campaign_delta order by delta_id limit 1")
            .fetch_optional(reader)
            .await
            .map_err(failed)?;
    if oldest.is_none_or(|oldest| oldest > Now::read().before(age)) {
        return Ok(0);
    }
    let (mut transaction, now) = begin(writer).await?;
    let folded = sqlx::query(FOLDED)
        .bind(now.before(age))
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    let mut sums: BTreeMap<(i64, String, i64, i64, String), i64> = BTreeMap::new();
    for row in &folded {
        let group = (
            get(row, "cdcs_id")?,
            get(row, "cp_id")?,
            get(row, "v8l_id")?,
            get(row, "media")?,
            get(row, "status")?,
        );
        *sums.entry(group).or_default() += get::<i64>(row, "rows")?;
    }
    sqlx::query(ADD)
        .bind(Value::from_iter(sums.into_iter().map(|(group, rows)| sum_values(group, rows))).to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    commit(transaction).await?;
    Ok(folded.len() as u64)
}

fn sum_values((account, cp_id, line, media, status): (i64, String, i64, i64, String), rows: i64) -> Value {
    json!([account, cp_id, line, media, status, rows])
}

/// A campaign without a row is running.
pub async fn state(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<CampaignState, StoreError> {
    sqlx::query("select state from campaign where cdcs_id = ?1 and cp_id = ?2")
        .bind(account.0)
        .bind(cp_id)
        .fetch_optional(reader)
        .await
        .map_err(failed)?
        .map_or(Ok(CampaignState::Running), |row| word(&row, "state"))
}

const SET: &str = "
insert into campaign (cdcs_id, cp_id, state, changed_at) values (?1, ?2, ?3, ?4)
on conflict (cdcs_id, cp_id) do update set
    state = iif(state = 'cancelled', state, excluded.state),
    changed_at = iif(state in ('cancelled', excluded.state), changed_at, excluded.changed_at)
returning state";

/// Claims are checked under the same lock, so that none is made from the answer on.
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
