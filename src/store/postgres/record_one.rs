//! A lone claim, or the end of a lone call: where messages come one by one, a statement for a batch of one
//! costs half as much again, as it unfolds arrays and joins them.
//!
//! Only the ordinary case is tried: a row without a campaign, in the state that the worker knows. Where
//! nothing matches, the statement has written nothing, and the one for batches finds out the reason.

use sqlx::postgres::PgArguments;
use sqlx::query::QueryScalar;

use super::log::ranges::{range_of, unless_missing};
use super::parameters::milliseconds;
use super::pool::Pool;
use crate::store::{Claim, Record, RowChange, StoreError};

/// The part that removes batches of claims that have ended.
const CLOSED: &str = ",
closed as (delete from claim where worker = $1 and claim_no = any($2::bigint[]))";
/// The same beside the end of a call, if that takes place: the call may have ended the batch.
const CLOSED_WITH_CALL: &str = ",
closed as (delete from claim where worker = $1 and claim_no = any($22::bigint[]) and exists (select from changed))";
/// The part that removes work that has ended, if the change takes place: the work may be the row's.
const ENDED: &str = ",
ended as (delete from work where work_id = any($2::bigint[]) and exists (select from changed))";

/// Whether the claim was made.
pub async fn claim(pool: &Pool, record: Record<'_>, claim: &Claim) -> Result<bool, StoreError> {
    let (Some(range), true) = (range_of(claim.id.0), record.ended_work.is_empty()) else {
        return Ok(false);
    };
    let statement = include_str!("sql/record_one_claim.sql")
        .replace("{closed}", if record.ended_claims.is_empty() { "" } else { CLOSED })
        .replace("{range}", &range.to_string());
    let made = sqlx::query_scalar::<_, i64>(&statement)
        .bind(record.worker)
        .bind(record.ended_claims)
        .bind(record.claim_no)
        .bind(claim.id.0)
        .bind(claim.fence)
        .bind(milliseconds(claim.call_deadline))
        .bind(claim.digest)
        .fetch_all(pool)
        .await;
    Ok(!unless_missing(made)?.is_empty())
}

/// Whether the call's end was written.
pub async fn end(pool: &Pool, record: Record<'_>, change: &RowChange) -> Result<bool, StoreError> {
    let Some(range) = range_of(change.id) else { return Ok(false) };
    let mut ended = String::new();
    if !record.ended_work.is_empty() {
        ended.push_str(ENDED);
    }
    if !record.ended_claims.is_empty() {
        ended.push_str(CLOSED_WITH_CALL);
    }
    let statement = include_str!("sql/record_one_end.sql")
        .replace("{set}", include_str!("sql/record_set.sql"))
        .replace("{ended}", &ended)
        .replace("{range}", &range.to_string());
    let query = sqlx::query_scalar(&statement)
        .bind(record.worker)
        .bind(record.ended_work.iter().map(|work| work.0).collect::<Vec<_>>());
    let changed = bind_change(query, change).bind(record.ended_claims).fetch_all(pool).await;
    Ok(!unless_missing(changed)?.is_empty())
}

type Query<'q> = QueryScalar<'q, sqlx::Postgres, i64, PgArguments>;

fn bind_change<'q>(query: Query<'q>, change: &'q RowChange) -> Query<'q> {
    query
        .bind(change.id)
        .bind(change.from_fence)
        .bind(change.to_fence)
        .bind(change.to.as_str())
        .bind(change.status_code)
        .bind(change.graph_id.as_deref())
        .bind(change.writes_error)
        .bind(change.error_code)
        .bind(change.error_subcode)
        .bind(change.error_kind)
        .bind(change.error_message.as_deref())
        .bind(change.fbtrace_id.as_deref())
        .bind(change.add_attempts)
        .bind(change.add_tries)
        .bind(change.add_ambiguous)
        .bind(change.add_crashes)
        .bind(change.begun_ago_ms)
        .bind(change.next_after_ms)
        .bind(change.done)
}
