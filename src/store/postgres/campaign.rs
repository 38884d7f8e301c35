//! Campaigns: how they stand, their state, and the end of cancelled ones.

use std::time::Duration;

use sqlx::Connection;

use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::rows;
use crate::message::{AccountId, CampaignState, LineId, Medium, MessageId, Status};
use crate::store::{CampaignCount, CancelledRow, StoreError};

/// By line and medium, from `campaign_logged`; by status, from the index `cdls_campaign`. Account $1, campaign $2.
///
/// What waits is mostly what was logged a moment ago, and PostgreSQL looks at each such row itself until it has been
/// vacuumed: seconds for a million. So more than $3 PENDING rows are what was logged but for all others.
/// `campaign_logged` counts rows that somebody deleted, too; with a few rows left it is not asked, so that a campaign
/// still comes to its end. The newest rows are looked at, as versions of those that were sent stand before the oldest.
const COUNTS: &str = "
    with part as materialized (
        select v8l_id, media, sum(rows)::bigint as logged from campaign_logged
        where cdcs_id = $1 and cp_id = $2
          and exists (select from pg_inherits i where i.inhparent = 'cdls'::regclass
                      and i.inhrelid = to_regclass('cdls_' || id_range))
        group by v8l_id, media),
    others as materialized (
        select part.v8l_id, part.media, s.status, (
            select count(*) from cdls c
            where c.cdcs_id = $1 and c.cp_id = $2 and c.v8l_id = part.v8l_id and c.media = part.media
              and c.status = s.status) as rows
        from part cross join unnest($4::text[]) as s(status)),
    waiting as materialized (
        select part.v8l_id, part.media, part.logged, p.seen, p.newest from part cross join lateral (
            select count(*) as seen, max(d.cdls_id) as newest from (
                select c.cdls_id from cdls c
                where c.cdcs_id = $1 and c.cp_id = $2 and c.v8l_id = part.v8l_id and c.media = part.media
                  and c.status = 'PENDING'
                order by c.cdls_id desc limit $3) as d) as p),
    counted as (
        select v8l_id, media, status, rows, null::bigint as newest from others
        union all
        select w.v8l_id, w.media, 'PENDING', case when w.seen < $3 then w.seen else greatest(w.seen, w.logged - (
                   select sum(o.rows) from others o where o.v8l_id = w.v8l_id and o.media = w.media)::bigint) end,
               w.newest
        from waiting w)
    select c.v8l_id, c.media, c.status, c.rows,
           (select n.next_at from cdls n where n.cdls_id = c.newest and n.next_at > now()) as not_before
    from counted c where c.rows > 0
    order by c.v8l_id, c.media, c.status";

/// PENDING rows of a group that are counted one by one.
const COUNTED_ONE_BY_ONE: i64 = 100;

/// No other index holds all that is asked; without this, a planner with old statistics takes one, and looks at each row.
const FROM_INDEX_ALONE: &str = "set local enable_indexscan = off";

pub async fn counts(pool: &Pool, account: AccountId, cp_id: &str) -> Result<Vec<CampaignCount>, StoreError> {
    let others: Vec<&str> = Status::ALL
        .iter()
        .filter(|status| **status != Status::Pending)
        .map(|status| status.as_str())
        .collect();
    let mut lent = pool.lend().await.map_err(failed)?;
    let counting = async {
        let mut transaction = lent.begin().await.map_err(failed)?;
        sqlx::query(FROM_INDEX_ALONE).execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query(COUNTS).bind(account.0).bind(cp_id).bind(COUNTED_ONE_BY_ONE).bind(others);
        let counted = query.fetch_all(&mut *transaction).await.map_err(failed)?;
        transaction.rollback().await.map_err(failed)?;
        Ok(counted)
    };
    let counted = pool.wait_for(counting).await?;
    lent.give_back();
    counted
        .iter()
        .map(|row| {
            let media: bool = rows::get(row, "media")?;
            Ok(CampaignCount {
                line: LineId(rows::get(row, "v8l_id")?),
                medium: if media { Medium::Media } else { Medium::Text },
                status: rows::word(row, "status")?,
                rows: rows::get(row, "rows")?,
                not_before: rows::get(row, "not_before")?,
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

pub async fn rate(pool: &Pool, account: AccountId, cp_id: &str, window: Duration) -> Result<f64, StoreError> {
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

pub async fn in_state(
    pool: &Pool,
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
    pool: &Pool,
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
