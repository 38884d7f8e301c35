//! Campaigns: how they stand, their state, and the end of cancelled ones.

use std::time::Duration;

use sqlx::PgPool;

use super::{failed, milliseconds, rows};
use crate::message::{AccountId, CampaignState, LineId, Medium, MessageId};
use crate::store::{CampaignCount, CancelledRow, StoreError};

/// From the index `cdls_campaign` alone: its groups are found by probing, and the entries of each are only counted.
/// Grouping them instead compares three columns of each entry, and takes 1.6 times as long for a million rows.
const COUNTS: &str = "
    with recursive part as (
        (select c.v8l_id, c.media, c.status from cdls c where c.cdcs_id = $1 and c.cp_id = $2
         order by c.cdcs_id, c.cp_id, c.v8l_id, c.media, c.status limit 1)
        union all
        select next.* from part cross join lateral (
            select c.v8l_id, c.media, c.status from cdls c
            where c.cdcs_id = $1 and c.cp_id = $2 and (c.v8l_id, c.media, c.status) > (part.v8l_id, part.media, part.status)
            order by c.cdcs_id, c.cp_id, c.v8l_id, c.media, c.status limit 1) as next)
    select part.*, (select count(*) from cdls c
                    where c.cdcs_id = $1 and c.cp_id = $2 and c.v8l_id = part.v8l_id and c.media = part.media
                      and c.status = part.status) as rows
    from part";

pub async fn counts(
    pool: &PgPool,
    account: AccountId,
    cp_id: &str,
) -> Result<Vec<CampaignCount>, StoreError> {
    let counted = sqlx::query(COUNTS).bind(account.0).bind(cp_id).fetch_all(pool).await.map_err(failed)?;
    counted
        .iter()
        .map(|row| {
            let media: bool = rows::get(row, "media")?;
            Ok(CampaignCount {
                line: LineId(rows::get(row, "v8l_id")?),
                medium: if media { Medium::Media } else { Medium::Text },
                status: rows::word(row, "status")?,
                rows: rows::get(row, "rows")?,
            })
        })
        .collect()
}

/// The groups of a campaign by line and medium: one probe each. Account $1, campaign $2.
macro_rules! groups {
    () => {
        "recursive part as (
            (select c.v8l_id, c.media from cdls c where c.cdcs_id = $1 and c.cp_id = $2
             order by c.cdcs_id, c.cp_id, c.v8l_id, c.media limit 1)
            union all
            select next.* from part cross join lateral (
                select c.v8l_id, c.media from cdls c
                where c.cdcs_id = $1 and c.cp_id = $2 and (c.v8l_id, c.media) > (part.v8l_id, part.media)
                order by c.cdcs_id, c.cp_id, c.v8l_id, c.media limit 1) as next)"
    };
}

/// A flow ends its rows about in the order of their ids, so those that ended last stand at the end of their group. A
/// sample that lies wholly inside the window is as long as it reaches back. Rows that expired were not sent, nor were
/// those of another account's line.
///
/// The status is compared twice, here and below, because a planner that is told that it is constant takes the order of
/// the primary key, and walks over the rows of all other groups: five seconds with a million of them.
const RATE: &str = concat!(
    "with ",
    groups!(),
    "select coalesce(sum(case when ended.of_all = $4 and ended.within = $4
                              then ended.within / greatest(ended.reaches, 0.1)
                              else ended.within * 1000.0 / $3 end), 0)::double precision as rate
     from part cross join unnest(array['OK', 'ERROR']) as s(status) cross join lateral (
         select count(*) as of_all, count(*) filter (where d.age_s * 1000 <= $3) as within, max(d.age_s) as reaches
         from (select case when coalesce(c.error_kind, '') not in ('expired', 'line')
                           then extract(epoch from now() - coalesce(c.done_at, c.created_at)) end as age_s from cdls c
               where c.cdcs_id = $1 and c.cp_id = $2 and c.v8l_id = part.v8l_id and c.media = part.media
                 and c.status >= s.status and c.status <= s.status
               order by c.cdcs_id desc, c.cp_id desc, c.v8l_id desc, c.media desc, c.status desc, c.cdls_id desc
               limit $4) as d) as ended"
);

/// Rows of each group that are looked at for the rate: three seconds' worth at Meta's ceiling.
const SAMPLE: i64 = 1_000;

pub async fn rate(
    pool: &PgPool,
    account: AccountId,
    cp_id: &str,
    window: Duration,
) -> Result<f64, StoreError> {
    sqlx::query_scalar(RATE)
        .bind(account.0)
        .bind(cp_id)
        .bind(milliseconds(window))
        .bind(SAMPLE)
        .fetch_one(pool)
        .await
        .map_err(failed)
}

const SET: &str = "
    insert into campaign as k (cdcs_id, cp_id, state) values ($1, $2, $3)
    on conflict (cdcs_id, cp_id) do update set
        state = case when k.state = 'cancelled' then k.state else excluded.state end,
        changed_at = case when k.state in ('cancelled', excluded.state) then k.changed_at else now() end
    returning state";

pub async fn set(
    pool: &PgPool,
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

pub async fn in_state(
    pool: &PgPool,
    state: CampaignState,
    within: Option<Duration>,
) -> Result<Vec<(AccountId, String)>, StoreError> {
    let found: Vec<(i64, String)> = sqlx::query_as(
        "select cdcs_id, cp_id from campaign
         where state = $1 and ($2::bigint is null or changed_at > now() - $2 * interval '1 millisecond')
         order by cdcs_id, cp_id",
    )
    .bind(state.as_str())
    .bind(within.map(milliseconds))
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    Ok(found.into_iter().map(|(account, cp_id)| (AccountId(account), cp_id)).collect())
}

const CANCEL_WAITING: &str = concat!(
    "with ",
    groups!(),
    ", waiting as materialized (
         select w.cdls_id from part cross join unnest(array['PENDING', 'RETRY']) as s(status) cross join lateral (
             select c.cdls_id from cdls c
             where c.cdcs_id = $1 and c.cp_id = $2 and c.v8l_id = part.v8l_id and c.media = part.media
               and (c.status, c.cdls_id) > (s.status, $3) and c.status <= s.status
             order by c.cdcs_id, c.cp_id, c.v8l_id, c.media, c.status, c.cdls_id limit $4) as w
         where exists (select from campaign k where k.cdcs_id = $1 and k.cp_id = $2 and k.state = 'cancelled')
         order by w.cdls_id limit $4),
     locked as materialized (
         select c.cdls_id from waiting cross join lateral (
             select c.cdls_id from cdls c where c.cdls_id = waiting.cdls_id and strpos('PENDING RETRY', c.status) > 0
             for update skip locked) as c)
     update cdls c set status = 'CANCELLED', done_at = now(), next_at = null
     from locked where c.cdls_id = locked.cdls_id
     returning c.cdls_id, c.waiter"
);

pub async fn cancel_waiting(
    pool: &PgPool,
    account: AccountId,
    cp_id: &str,
    after: MessageId,
    limit: u32,
) -> Result<Vec<CancelledRow>, StoreError> {
    let mut ended: Vec<(i64, Option<String>)> = sqlx::query_as(CANCEL_WAITING)
        .bind(account.0)
        .bind(cp_id)
        .bind(after.0)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    ended.sort_unstable();
    Ok(ended.into_iter().map(|(id, waiter)| (MessageId(id), waiter)).collect())
}
