//! Campaigns: their progress and their state. Rows are not counted: the statements that change them keep
//! counters.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgRow;

use super::error::failed;
use super::log::{ClaimFilter, ClaimedCount, claimed};
use super::parameters::{milliseconds, numbers};
use super::pool::Pool;
use super::rows;
use crate::channel::Medium;
use crate::domain::{AccountId, CampaignState, LineId, Partition, Status};
use crate::store::{
    CampaignCount, CampaignFilter, CampaignLabel, CampaignPlace, ErrorCount, Receipts, StoreError,
};

const COUNTERS: &str = "
    select v8l_id, media, status, sum(rows)::bigint as rows from (
        select v8l_id, media, status, rows from campaign_total where cdcs_id = $1 and cp_id = $2
        union all
        select v8l_id, media, status, rows from campaign_delta where cdcs_id = $1 and cp_id = $2) as c
    where status not in ('DELIVERED', 'READ')
    group by v8l_id, media, status having sum(rows) > 0
    order by v8l_id, media, status";

/// The newest scheduled row of each line and medium, unless a newer one waits for its turn. Only the newest
/// $3 scheduled rows of the campaign are looked at.
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

/// A line and a medium; true for media.
type LineMedium = (i64, bool);

/// Counts by line, medium and status, in the order of the answer.
type CountsByGroup = BTreeMap<(i64, Medium, &'static str), CampaignCount>;

/// Return the counters, with claimed rows as SENDING.
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
        ClaimFilter { campaign: Some((account, cp_id)), partitions: Some(numbers(&partitions)), since: None };
    let mut counts: CountsByGroup = counters.into_iter().map(|count| (key(&count), count)).collect();
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
    let scheduled: BTreeMap<LineMedium, time::OffsetDateTime> =
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

/// Move claimed rows from the state that the log shows to SENDING. A call may have ended between the two
/// looks.
fn claim(counts: &mut CountsByGroup, group: &ClaimedCount) {
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

/// Return the campaign's rate. Counters are folded when they are older than any window that a caller may
/// name.
pub async fn rate(pool: &Pool, account: AccountId, cp_id: &str, window: Duration) -> Result<f64, StoreError> {
    sqlx::query_scalar(RATE)
        .bind(account.0)
        .bind(cp_id)
        .bind(milliseconds(window))
        .fetch_one(pool)
        .await
        .map_err(failed)
}

/// Only the oldest counters are looked at. Totals are locked in the order of their key, so that two folds
/// wait for each other and do not deadlock.
const FOLD: &str = "
    with oldest as materialized (
        select d.delta_id, d.at from campaign_delta d order by d.delta_id limit $2 for update skip locked),
    gone as (
        delete from campaign_delta d using oldest o
        where d.delta_id = o.delta_id and o.at < now() - $1 * interval '1 millisecond'
        returning d.cdcs_id, d.cp_id, d.v8l_id, d.media, d.status, d.rows, d.at),
    labelled as (
        insert into campaign_label (cdcs_id, cp_id, first_at)
        select cdcs_id, cp_id, min(at) from gone group by cdcs_id, cp_id order by cdcs_id, cp_id
        on conflict do nothing),
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
    let errors: i64 = sqlx::query_scalar(FOLD_ERRORS)
        .bind(milliseconds(age))
        .bind(i64::from(limit))
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    Ok(folded.max(errors).unsigned_abs())
}

/// The same for the counters of errors.
const FOLD_ERRORS: &str = "
    with oldest as materialized (
        select d.delta_id, d.at from campaign_error_delta d order by d.delta_id limit $2 for update skip locked),
    gone as (
        delete from campaign_error_delta d using oldest o
        where d.delta_id = o.delta_id and o.at < now() - $1 * interval '1 millisecond'
        returning d.cdcs_id, d.cp_id, d.code, d.subcode, d.kind, d.rows),
    folded as (
        insert into campaign_error as t (cdcs_id, cp_id, code, subcode, kind, rows)
        select cdcs_id, cp_id, code, subcode, kind, sum(rows) from gone
        group by cdcs_id, cp_id, code, subcode, kind
        order by cdcs_id, cp_id, code, subcode, kind
        on conflict (cdcs_id, cp_id, code, subcode, kind) do update set rows = t.rows + excluded.rows)
    select count(*) from gone";

const ERRORS: &str = "
    select nullif(code, '')::integer as error_code, nullif(subcode, '')::integer as error_subcode,
           nullif(kind, '') as error_kind, sum(rows)::bigint as rows
    from (select code, subcode, kind, rows from campaign_error where cdcs_id = $1 and cp_id = $2
          union all
          select code, subcode, kind, rows from campaign_error_delta where cdcs_id = $1 and cp_id = $2) as e
    group by code, subcode, kind having sum(rows) > 0
    order by sum(rows) desc, code, subcode, kind";

pub async fn errors(pool: &Pool, account: AccountId, cp_id: &str) -> Result<Vec<ErrorCount>, StoreError> {
    let found = sqlx::query(ERRORS).bind(account.0).bind(cp_id).fetch_all(pool).await.map_err(failed)?;
    Ok(rows::readable(&found, |row| {
        Ok(ErrorCount {
            error_code: rows::get(row, "error_code")?,
            error_subcode: rows::get(row, "error_subcode")?,
            error_kind: rows::optional_word(row, "error_kind")?,
            rows: rows::get(row, "rows")?,
        })
    }))
}

const RECEIPTS: &str = "
    select coalesce(sum(rows) filter (where status = 'DELIVERED'), 0)::bigint,
           coalesce(sum(rows) filter (where status = 'READ'), 0)::bigint
    from (select status, rows from campaign_total where cdcs_id = $1 and cp_id = $2
          union all
          select status, rows from campaign_delta where cdcs_id = $1 and cp_id = $2) as c";

pub async fn receipts(pool: &Pool, account: AccountId, cp_id: &str) -> Result<Receipts, StoreError> {
    let (delivered, read): (i64, i64) =
        sqlx::query_as(RECEIPTS).bind(account.0).bind(cp_id).fetch_one(pool).await.map_err(failed)?;
    Ok(Receipts { delivered, read })
}

/// Labels whose first counters are not folded yet stand in those alone.
const LIST: &str = "
    with label as (
        select cp_id, first_at from campaign_label where cdcs_id = $1
        union all
        select d.cp_id, min(d.at) from campaign_delta d
        where d.cdcs_id = $1
          and not exists (select from campaign_label l where l.cdcs_id = d.cdcs_id and l.cp_id = d.cp_id)
        group by d.cp_id)
    select l.cp_id, l.first_at, coalesce(k.state, 'running') as state
    from label l left join campaign k on k.cdcs_id = $1 and k.cp_id = l.cp_id
    where ($2::timestamptz is null or (l.first_at, l.cp_id) < ($2, $3::text))
      and ($4::text is null or coalesce(k.state, 'running') = $4)
      and ($5::boolean is null or $5 = (
          select coalesce(sum(c.rows) filter (where c.status in ('PENDING', 'RETRY')), 0) > 0 from (
              select status, rows from campaign_total where cdcs_id = $1 and cp_id = l.cp_id
              union all
              select status, rows from campaign_delta where cdcs_id = $1 and cp_id = l.cp_id) as c))
    order by l.first_at desc, l.cp_id desc limit $6";

pub async fn list(
    pool: &Pool,
    account: AccountId,
    filter: &CampaignFilter,
    limit: u32,
) -> Result<Vec<CampaignLabel>, StoreError> {
    let found = sqlx::query(LIST)
        .bind(account.0)
        .bind(filter.before.as_ref().map(|place| place.first_at))
        .bind(filter.before.as_ref().map(|place| place.cp_id.as_str()))
        .bind(filter.state.map(CampaignState::as_str))
        .bind(filter.is_open)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    Ok(rows::readable(&found, |row| {
        let place = CampaignPlace { first_at: rows::get(row, "first_at")?, cp_id: rows::get(row, "cp_id")? };
        Ok(CampaignLabel { place, state: rows::word(row, "state")? })
    }))
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

/// A campaign that changes its state is looked at again by the tasks that end waiting rows of cancelled
/// campaigns.
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
