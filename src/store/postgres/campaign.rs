//! Campaigns: how they stand, and their state. Rows are not counted: the statements that change them keep counters.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgRow;

use super::error::failed;
use super::log::{Claimed, Claims, claimed};
use super::parameters::{milliseconds, numbers};
use super::pool::Pool;
use super::rows;
use crate::message::{AccountId, CampaignState, LineId, Medium, Partition, Status};
use crate::store::{CampaignCount, StoreError};

const COUNTERS: &str = "
    select v8l_id, media, status, sum(rows)::bigint as rows from (
        select v8l_id, media, status, rows from campaign_total where cdcs_id = $1 and cp_id = $2
        union all
        select v8l_id, media, status, rows from campaign_delta where cdcs_id = $1 and cp_id = $2) as c
    group by v8l_id, media, status having sum(rows) > 0
    order by v8l_id, media, status";

/// The newest scheduled row of each line and medium, unless a newer one waits for its turn. Of the campaign's rows that are
/// scheduled the newest $3 are looked at.
const NOT_BEFORE: &str = "
    with newest as materialized (
        select o.cdls_id, o.v8l_id, o.media, o.due_at from cdls_open o
        where o.cdcs_id = $1 and (o.campaign, o.cdls_id) >= ($2, 0)
          and (o.campaign, o.cdls_id) <= ($2, 9223372036854775807) and o.campaign <> '' and o.kind = 'schedule'
        order by o.campaign desc, o.cdls_id desc limit $3),
    scheduled as (
        select distinct on (v8l_id, media) v8l_id, media, cdls_id, due_at from newest
        order by v8l_id, media, cdls_id desc)
    select s.v8l_id, s.media, s.due_at from scheduled s
    where s.due_at > now() and not exists (
        select from (values ('high'), ('bulk')) as p(priority) cross join lateral (
            select w.ids[cardinality(w.ids)] as last_id from work w
            where w.partition_no = (s.v8l_id % 64)::smallint and w.v8l_id = s.v8l_id and w.priority = p.priority
              and w.media = s.media and w.campaign = $2
            order by w.first_id desc limit 1) as w
        where w.last_id > s.cdls_id)";

const SCHEDULED_LOOKED_AT: i64 = 10_000;

/// A line, and whether its media are meant.
type Group = (i64, bool);

/// By line, medium and status, in the order they are told in.
type Counts = BTreeMap<(i64, Medium, &'static str), CampaignCount>;

/// The counters, with claimed rows as SENDING.
pub async fn counts(pool: &Pool, account: AccountId, cp_id: &str) -> Result<Vec<CampaignCount>, StoreError> {
    let counters = sqlx::query(COUNTERS).bind(account.0).bind(cp_id).fetch_all(pool).await.map_err(failed)?;
    let counters: Vec<CampaignCount> = counters.iter().filter_map(counter).collect();
    let waits = |count: &&CampaignCount| matches!(count.status, Status::Pending | Status::Retry);
    if !counters.iter().any(|count| waits(&count)) {
        return Ok(counters);
    }
    let mut partitions: Vec<Partition> =
        counters.iter().filter(waits).map(|count| count.line.partition()).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let of_campaign =
        Claims { campaign: Some((account, cp_id)), partitions: Some(numbers(&partitions)), since: None };
    let mut counts: Counts = counters.into_iter().map(|count| (key(&count), count)).collect();
    for group in claimed(pool, &of_campaign).await? {
        claim(&mut counts, &group);
    }
    let scheduled: Vec<(i64, bool, time::OffsetDateTime)> = sqlx::query_as(NOT_BEFORE)
        .bind(account.0)
        .bind(cp_id)
        .bind(SCHEDULED_LOOKED_AT)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let scheduled: BTreeMap<Group, time::OffsetDateTime> =
        scheduled.into_iter().map(|(line, media, due_at)| ((line, media), due_at)).collect();
    for count in counts.values_mut().filter(|count| count.status == Status::Pending) {
        count.not_before = scheduled.get(&(count.line.0, count.medium == Medium::Media)).copied();
    }
    Ok(counts.into_values().filter(|count| count.rows > 0).collect())
}

fn key(count: &CampaignCount) -> (i64, Medium, &'static str) {
    (count.line.0, count.medium, count.status.as_str())
}

fn medium(media: bool) -> Medium {
    if media { Medium::Media } else { Medium::Text }
}

/// Moves claimed rows from the state that the log shows to SENDING. A call may have ended between the two looks.
fn claim(counts: &mut Counts, group: &Claimed) {
    let Ok(status) = group.status.parse::<Status>() else { return };
    let (line, medium) = (LineId(group.line), medium(group.media));
    let Some(stored) = counts.get_mut(&(line.0, medium, status.as_str())) else { return };
    let moved = group.rows.min(stored.rows);
    stored.rows -= moved;
    let sending = CampaignCount { line, medium, status: Status::Sending, rows: 0, not_before: None };
    counts.entry(key(&sending)).or_insert(sending).rows += moved;
}

fn counter(row: &PgRow) -> Option<CampaignCount> {
    let read = || {
        Ok(CampaignCount {
            line: LineId(rows::get(row, "v8l_id")?),
            medium: medium(rows::get(row, "media")?),
            status: rows::word(row, "status")?,
            rows: rows::get(row, "rows")?,
            not_before: None,
        })
    };
    read()
        .map_err(
            |error: StoreError| tracing::warn!(%error, "skipped unreadable row of a campaign's counters"),
        )
        .ok()
}

const RATE: &str = "
    select coalesce(sum(sent), 0) * 1000.0::double precision / greatest($3, 1) from campaign_delta
    where cdcs_id = $1 and cp_id = $2 and at > now() - $3 * interval '1 millisecond'";

/// Counters are folded when they are older than any window that is asked for.
pub async fn rate(pool: &Pool, account: AccountId, cp_id: &str, window: Duration) -> Result<f64, StoreError> {
    sqlx::query_scalar(RATE)
        .bind(account.0)
        .bind(cp_id)
        .bind(milliseconds(window))
        .fetch_one(pool)
        .await
        .map_err(failed)
}

/// Looks at the oldest counters only. Totals are locked in the order of their key, so that two that fold wait for each
/// other and do not deadlock.
const FOLD: &str = "
    with oldest as materialized (
        select d.delta_id, d.at from campaign_delta d order by d.delta_id limit $2 for update skip locked),
    gone as (
        delete from campaign_delta d using oldest o
        where d.delta_id = o.delta_id and o.at < now() - $1 * interval '1 millisecond'
        returning d.cdcs_id, d.cp_id, d.v8l_id, d.media, d.status, d.rows),
    folded as (
        insert into campaign_total as t (cdcs_id, cp_id, v8l_id, media, status, rows)
        select cdcs_id, cp_id, v8l_id, media, status, sum(rows) from gone
        group by cdcs_id, cp_id, v8l_id, media, status
        order by cdcs_id, cp_id, v8l_id, media, status
        on conflict (cdcs_id, cp_id, v8l_id, media, status) do update set rows = t.rows + excluded.rows)
    select count(*) from gone";

pub async fn fold(pool: &Pool, age: Duration, limit: u32) -> Result<u64, StoreError> {
    let folded: i64 = sqlx::query_scalar(FOLD)
        .bind(milliseconds(age))
        .bind(i64::from(limit))
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    Ok(folded.unsigned_abs())
}

pub async fn state(pool: &Pool, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError> {
    let found = sqlx::query("select state from campaign where cdcs_id = $1 and cp_id = $2")
        .bind(account.0)
        .bind(cp_id)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    found.map_or(Ok(CampaignState::Running), |row| rows::word(&row, "state"))
}

/// A campaign that changes its state is looked at again by those who end what waits of cancelled ones.
const SET: &str = "
    insert into campaign as k (cdcs_id, cp_id, state) values ($1, $2, $3)
    on conflict (cdcs_id, cp_id) do update set
        state = case when k.state = 'cancelled' then k.state else excluded.state end,
        changed_at = case when k.state in ('cancelled', excluded.state) then k.changed_at else now() end,
        swept = case when k.state in ('cancelled', excluded.state) then k.swept else false end
    returning state";

pub async fn set(
    pool: &Pool,
    account: AccountId,
    cp_id: &str,
    state: CampaignState,
) -> Result<CampaignState, StoreError> {
    let row = sqlx::query(SET)
        .bind(account.0)
        .bind(cp_id)
        .bind(state.as_str())
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    rows::word(&row, "state")
}
