//! Waiting rows whose time has passed: looked for along the ready index, and ended.

use super::error::failed;
use super::pool::Pool;
use super::rows;
use crate::message::{Medium, MessageId};
use crate::store::{Flow, StoreError, Walked};

const WALK: &str = "
    select walked.* from unnest($1::bigint[], $2::text[], $3::boolean[], $4::text[], $5::bigint[])
          with ordinality as w(line, lane, media, campaign, above, n)
    cross join lateral (
        select count(*) as rows, coalesce(max(r.cdls_id), 0) as last,
               coalesce(array_agg(r.cdls_id) filter (where r.expires_at <= now()), '{}') as expired
        from (select c.cdls_id, c.expires_at from cdls c
              where c.v8l_id = w.line and c.priority = w.lane and c.media = w.media and c.campaign = w.campaign
                and c.cdls_id > w.above and c.status in ('PENDING', 'RETRY') and c.next_at is null
              order by c.cdls_id limit $6) as r) as walked
    order by w.n";

pub async fn walk(pool: &Pool, flows: &[(Flow, MessageId)], limit: u32) -> Result<Vec<Walked>, StoreError> {
    let found = sqlx::query(WALK)
        .bind(flows.iter().map(|(flow, _)| flow.line.0).collect::<Vec<_>>())
        .bind(flows.iter().map(|(flow, _)| flow.lane.as_str()).collect::<Vec<_>>())
        .bind(flows.iter().map(|(flow, _)| flow.medium == Medium::Media).collect::<Vec<_>>())
        .bind(flows.iter().map(|(flow, _)| flow.campaign.as_str()).collect::<Vec<_>>())
        .bind(flows.iter().map(|(_, after)| after.0).collect::<Vec<_>>())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    found
        .iter()
        .map(|row| {
            let expired: Vec<i64> = rows::get(row, "expired")?;
            Ok(Walked {
                rows: rows::get::<i64>(row, "rows")? as u32,
                last: MessageId(rows::get(row, "last")?),
                expired: expired.into_iter().map(MessageId).collect(),
            })
        })
        .collect()
}

/// Locked in order of id, as the recorder does; rows that it is about to claim are left to it. The `coalesce` keeps the
/// planner from the ready index, which it would walk for each row.
const EXPIRE: &str = "
    with locked as materialized (
        select w.id from (select * from unnest($1::bigint[]) as u(id) order by id) as w
        cross join lateral (
            select from cdls c
            where c.cdls_id = w.id and c.status in ('PENDING', 'RETRY')
              and coalesce(c.next_at, 'infinity') = 'infinity' and c.expires_at <= now()
            for update skip locked) as c)
    update cdls c set status = 'ERROR', error_kind = 'expired', done_at = now()
    from locked w where c.cdls_id = w.id
    returning c.cdls_id, c.waiter";

pub async fn expire(pool: &Pool, ids: &[MessageId]) -> Result<Vec<(MessageId, Option<String>)>, StoreError> {
    let expired = sqlx::query(EXPIRE)
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    expired.iter().map(|row| Ok((MessageId(rows::get(row, "cdls_id")?), rows::get(row, "waiter")?))).collect()
}
