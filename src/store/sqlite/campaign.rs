//! Campaigns: their progress, by their counters, and their state.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::{get, medium, readable, time, word, word_or_null};
use crate::channel::Medium;
use crate::domain::{AccountId, CampaignState, LineId, Status};
use crate::store::{
    CampaignCount, CampaignFilter, CampaignLabel, CampaignPlace, ErrorCount, Receipts, StoreError,
};
use crate::text::timestamp;

/// Campaign ?2 of account ?1.
pub(super) const COUNTS: &str = "
select v8l_id, media, status, sum(rows) as rows
from (select v8l_id, media, status, rows from campaign_total where cdcs_id = ?1 and cp_id = ?2
      union all
      select v8l_id, media, status, rows from campaign_delta where cdcs_id = ?1 and cp_id = ?2)
where status not in ('DELIVERED', 'READ')
group by v8l_id, media, status having sum(rows) > 0";

/// Rows of that campaign with an open claim.
pub(super) const SENDING: &str = "
select c.v8l_id, c.mtype <> 'text' as media, c.status, count(*) as rows
from claim_row r cross join cdls c
where c.cdls_id = r.cdls_id and r.fence > c.fence and c.status in ('PENDING', 'RETRY') and c.cdcs_id = ?1 and c.cp_id = ?2
group by 1, 2, 3";

/// The newest scheduled row of the campaign of line ?3 and medium ?4 that is due after ?5, unless a newer one
/// has work.
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

/// A group of counters, with the words of the table.
type Groups = BTreeMap<(i64, bool, String), i64>;

pub async fn counts(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<Vec<CampaignCount>, StoreError> {
    // One transaction: a row that changes its state meanwhile is counted once.
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
returning cdcs_id, cp_id, v8l_id, media, status, rows, at";

const ADD: &str = "
insert into campaign_total (cdcs_id, cp_id, v8l_id, media, status, rows)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 from json_each(?1) where true
on conflict (cdcs_id, cp_id, v8l_id, media, status) do update set rows = rows + excluded.rows";

/// A label is entered with the time of its first counters.
const LABEL: &str = "
insert into campaign_label (cdcs_id, cp_id, first_at)
select value->>0, value->>1, value->>2 from json_each(?1) where true
on conflict do nothing";

/// Campaign ?2 of account ?1.
pub(super) const ERRORS: &str = "
select cast(nullif(code, '') as integer) as error_code, cast(nullif(subcode, '') as integer) as error_subcode,
       nullif(kind, '') as error_kind, rows
from campaign_error where cdcs_id = ?1 and cp_id = ?2 and rows > 0
order by rows desc, code, subcode, kind";

pub async fn errors(
    reader: &SqlitePool,
    account: AccountId,
    cp_id: &str,
) -> Result<Vec<ErrorCount>, StoreError> {
    let found = sqlx::query(ERRORS).bind(account.0).bind(cp_id).fetch_all(reader).await.map_err(failed)?;
    Ok(readable(&found, |row| {
        Ok(ErrorCount {
            error_code: get(row, "error_code")?,
            error_subcode: get(row, "error_subcode")?,
            error_kind: word_or_null(row, "error_kind")?,
            rows: get(row, "rows")?,
        })
    }))
}

const RECEIPTS: &str = "
select coalesce(sum(rows) filter (where status = 'DELIVERED'), 0),
       coalesce(sum(rows) filter (where status = 'READ'), 0)
from (select status, rows from campaign_total where cdcs_id = ?1 and cp_id = ?2
      union all
      select status, rows from campaign_delta where cdcs_id = ?1 and cp_id = ?2)";

pub async fn receipts(reader: &SqlitePool, account: AccountId, cp_id: &str) -> Result<Receipts, StoreError> {
    let (delivered, read): (i64, i64) =
        sqlx::query_as(RECEIPTS).bind(account.0).bind(cp_id).fetch_one(reader).await.map_err(failed)?;
    Ok(Receipts { delivered, read })
}

/// Labels of account ?1 behind the place (?2, ?3), in state ?4, with rows that wait or none (?5); at most ?6. Labels whose first
/// counters are not folded yet stand in those alone.
pub(super) const LIST: &str = "
with label as (
    select cp_id, first_at from campaign_label where cdcs_id = ?1
    union all
    select d.cp_id, min(d.at) from campaign_delta d indexed by campaign_delta_campaign
    where d.cdcs_id = ?1
      and not exists (select 1 from campaign_label l where l.cdcs_id = d.cdcs_id and l.cp_id = d.cp_id)
    group by d.cp_id)
select l.cp_id, l.first_at, coalesce(k.state, 'running') as state
from label l left join campaign k on k.cdcs_id = ?1 and k.cp_id = l.cp_id
where (?2 is null or (l.first_at, l.cp_id) < (?2, ?3)) and (?4 is null or coalesce(k.state, 'running') = ?4)
  and (?5 is null or ?5 = (
      select coalesce(sum(c.rows) filter (where c.status in ('PENDING', 'RETRY')), 0) > 0 from (
          select status, rows from campaign_total where cdcs_id = ?1 and cp_id = l.cp_id
          union all
          select status, rows from campaign_delta where cdcs_id = ?1 and cp_id = l.cp_id) c))
order by l.first_at desc, l.cp_id desc limit ?6";

pub async fn list(
    reader: &SqlitePool,
    account: AccountId,
    filter: &CampaignFilter,
    limit: u32,
) -> Result<Vec<CampaignLabel>, StoreError> {
    let found = sqlx::query(LIST)
        .bind(account.0)
        .bind(filter.before.as_ref().map(|place| timestamp(place.first_at)))
        .bind(filter.before.as_ref().map(|place| place.cp_id.as_str()))
        .bind(filter.state.map(CampaignState::as_str))
        .bind(filter.is_open)
        .bind(limit)
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    Ok(readable(&found, |row| {
        let place = CampaignPlace { first_at: time(row, "first_at")?, cp_id: get(row, "cp_id")? };
        Ok(CampaignLabel { place, state: word(row, "state")? })
    }))
}

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
    let mut first: BTreeMap<(i64, String), String> = BTreeMap::new();
    let mut sums: BTreeMap<(i64, String, i64, i64, String), i64> = BTreeMap::new();
    for row in &folded {
        let at: String = get(row, "at")?;
        let known = first.entry((get(row, "cdcs_id")?, get(row, "cp_id")?)).or_insert_with(|| at.clone());
        *known = at.min(std::mem::take(known));
        let group = (
            get(row, "cdcs_id")?,
            get(row, "cp_id")?,
            get(row, "v8l_id")?,
            get(row, "media")?,
            get(row, "status")?,
        );
        *sums.entry(group).or_default() += get::<i64>(row, "rows")?;
    }
    let labels = first.into_iter().map(|((account, cp_id), at)| json!([account, cp_id, at]));
    sqlx::query(LABEL)
        .bind(Value::from_iter(labels).to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
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

/// Return the state of the campaign; one without a row is running.
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

/// Set the state. Claims are checked under the same lock, so that none is made from the answer on.
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
