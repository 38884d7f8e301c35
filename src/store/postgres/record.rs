//! The recorder's transaction: changes first, then claims.

use std::borrow::Cow;
use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};

use super::{failed, milliseconds};
use crate::failpoint;
use crate::message::Status;
use crate::store::{Change, Claim, Recorded, RowChange, StoreError};

/// Each row is looked up by its primary key and locked, in order of id; the guard (`fence` and the statuses a change
/// may leave) is in that look-up, so that a row changed meanwhile matches nothing. Written as a lateral join because a
/// planner without statistics would walk a whole partial index for a plain one.
const CHANGE: &str = "
    with locked as materialized (
        select w.*, c.was from (select * from unnest(
            $1::bigint[], $2::integer[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::boolean[], $8::integer[],
            $9::integer[], $10::text[], $11::text[], $12::text[], $13::integer[], $14::integer[], $15::integer[],
            $16::bigint[], $17::boolean[], $18::integer[])
            as u(id, fence, leaves, status, status_code, message_id, writes_error, error_code, error_subcode, error_kind,
                 error_message, fbtrace_id, add_attempts, add_tries, add_ambiguous, next_ms, done, add_crashes)
            order by id) as w
        cross join lateral (
            select c.status as was from cdls c where c.cdls_id = w.id and c.fence = w.fence and strpos(w.leaves, c.status) > 0
            for update) as c)
    update cdls c set
        status = w.status,
        status_code = coalesce(w.status_code, c.status_code),
        message_id = coalesce(w.message_id, c.message_id),
        error_code = case when w.writes_error then w.error_code else c.error_code end,
        error_subcode = case when w.writes_error then w.error_subcode else c.error_subcode end,
        error_message = case when w.writes_error then w.error_message else c.error_message end,
        fbtrace_id = case when w.writes_error then w.fbtrace_id else c.fbtrace_id end,
        error_kind = coalesce(w.error_kind, c.error_kind),
        attempts = c.attempts + w.add_attempts,
        tries = c.tries + w.add_tries,
        ambiguous_attempts = c.ambiguous_attempts + w.add_ambiguous,
        crashes = c.crashes + w.add_crashes,
        next_at = now() + w.next_ms * interval '1 millisecond',
        done_at = case when w.done then now() else c.done_at end,
        call_deadline = null,
        worker = null
    from locked w
    where c.cdls_id = w.id
    returning c.cdls_id, w.status = 'OK' and w.was <> 'SENDING' as late";

/// A claim needs the lease of the row's partition at this moment, and a campaign that runs. Rows that others have
/// locked are left to them. The `coalesce` keeps the planner from the ready index, which it would walk for each row:
/// without it a claim of 200 rows beside a busy ingest took 42 ms.
const CLAIM: &str = "
    with locked as materialized (
        select w.* from (select * from unnest($2::bigint[], $3::integer[], $4::bigint[]) as u(id, fence, deadline_ms)
                         order by id) as w
        cross join lateral (
            select from cdls c
            where c.cdls_id = w.id and c.fence = w.fence and c.status in ('PENDING', 'RETRY')
              and coalesce(c.next_at, 'infinity') = 'infinity' and c.expires_at > now()
              and exists (select from partition_lease l where l.partition_no = c.partition_no and l.owner = $1
                          and l.expires_at > now())
              and (c.cp_id is null or not exists (select from campaign p where p.cdcs_id = c.cdcs_id
                   and p.cp_id = c.cp_id and p.state <> 'running'))
            for update skip locked) as c)
    update cdls c set
        status = 'SENDING', fence = c.fence + 1, attempts = c.attempts + 1, sent_at = now(), worker = $1,
        call_deadline = now() + w.deadline_ms * interval '1 millisecond'
    from locked w
    where c.cdls_id = w.id
    returning c.cdls_id";

pub async fn record(
    pool: &PgPool,
    worker: &str,
    changes: &[Change],
    claims: &[Claim],
) -> Result<Recorded, StoreError> {
    let mut recorded = Recorded::default();
    // A single statement is a transaction of its own.
    if claims.is_empty() || changes.is_empty() {
        let mut connection = pool.acquire().await.map_err(failed)?;
        (recorded.changed, recorded.late) = change(&mut connection, changes).await?;
        recorded.claimed = claim(&mut connection, worker, claims).await?;
        return Ok(recorded);
    }
    let mut transaction = pool.begin().await.map_err(failed)?;
    (recorded.changed, recorded.late) = change(&mut transaction, changes).await?;
    recorded.claimed = claim(&mut transaction, worker, claims).await?;
    transaction.commit().await.map_err(|error| StoreError::CommitUnknown(error.to_string()))?;
    Ok(recorded)
}

/// For each change whether it took place, and how many of them were late successes.
async fn change(connection: &mut PgConnection, changes: &[Change]) -> Result<(Vec<bool>, usize), StoreError> {
    if changes.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let rows: Vec<RowChange> = changes.iter().map(Change::row).collect();
    let leaves: Vec<String> = rows.iter().map(|row| leaves(row.from)).collect();
    let changed: Vec<(i64, bool)> = sqlx::query_as(CHANGE)
        .bind(rows.iter().map(|r| r.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.fence).collect::<Vec<_>>())
        .bind(leaves)
        .bind(rows.iter().map(|r| r.to.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.status_code).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.message_id.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.writes_error).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.error_code).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.error_subcode).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.error_kind).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.error_message.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.fbtrace_id.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.add_attempts).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.add_tries).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.add_ambiguous).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.next_after_ms).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.done).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.add_crashes).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let late = changed.iter().filter(|(_, late)| *late).count();
    let changed: HashSet<i64> = changed.into_iter().map(|(id, _)| id).collect();
    Ok((rows.iter().map(|row| changed.contains(&row.id)).collect(), late))
}

/// The statuses a change may leave, as a text in which a status is looked for; no status is part of another's name.
fn leaves(from: &[Status]) -> String {
    from.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(" ")
}

/// The claim; with a seeded defect, without the guards that the defect is about.
fn claim_statement() -> Cow<'static, str> {
    let without_lease =
        || CLAIM.replace("l.owner = $1", "$1 is not null").replace("l.expires_at > now()", "true");
    if failpoint::defect("no_guard_on_claim") {
        let guard = "c.fence = w.fence and c.status in ('PENDING', 'RETRY')";
        return without_lease().replace(guard, "true").into();
    }
    if failpoint::defect("lease_ignored") {
        return without_lease().into();
    }
    CLAIM.into()
}

async fn claim(
    connection: &mut PgConnection,
    worker: &str,
    claims: &[Claim],
) -> Result<Vec<bool>, StoreError> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let statement = claim_statement();
    let claimed: Vec<i64> = sqlx::query_scalar(&statement)
        .bind(worker)
        .bind(claims.iter().map(|c| c.id.0).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| c.fence).collect::<Vec<_>>())
        .bind(claims.iter().map(|c| milliseconds(c.call_deadline)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let claimed: HashSet<i64> = claimed.into_iter().collect();
    Ok(claims.iter().map(|claim| claimed.contains(&claim.id.0)).collect())
}
