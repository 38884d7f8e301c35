//! What ingest needs: the group commit of new rows, tokens, campaigns, the backlog.

use std::time::Duration;

use sqlx::{PgPool, Row};

use super::{failed, milliseconds, rows};
use crate::failpoint;
use crate::message::{AccountId, CampaignState, MessageId, Submission};
use crate::store::{StoreError, TokenRecord};

/// How long a transaction whose commit was cut may stay in progress before its outcome counts as unknown.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// The sort makes the sequence's numbers follow the order given.
const INSERT: &str = "
    insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, next_at, expires_at, waiter)
    select s.cdcs_id, s.v8l_id, s.class, s.dest, s.mtype, s.mdata, s.mcaption, s.msg_id, s.cp_id, s.priority,
           case when s.send_at > now() then s.send_at end,
           coalesce(s.send_at, now()) + s.valid_ms * interval '1 millisecond', s.waiter
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::timestamptz[], $12::bigint[], $13::text[]) with ordinality
         as s(cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, send_at, valid_ms, waiter, place)
    order by s.place
    returning cdls_id, pg_current_xact_id()::text as xid";

pub async fn insert(pool: &PgPool, submissions: &[Submission]) -> Result<Vec<MessageId>, StoreError> {
    if submissions.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = pool.begin().await.map_err(failed)?;
    let list = |of: fn(&Submission) -> &str| submissions.iter().map(of).collect::<Vec<_>>();
    let optional = |of: fn(&Submission) -> Option<&str>| submissions.iter().map(of).collect::<Vec<_>>();
    let inserted = sqlx::query(INSERT)
        .bind(submissions.iter().map(|s| s.account.0).collect::<Vec<_>>())
        .bind(submissions.iter().map(|s| s.line.0).collect::<Vec<_>>())
        .bind(list(|s| s.class.as_str()))
        .bind(list(|s| &s.dest))
        .bind(list(|s| s.kind.as_str()))
        .bind(list(|s| &s.mdata))
        .bind(optional(|s| s.mcaption.as_deref()))
        .bind(optional(|s| s.msg_id.as_deref()))
        .bind(optional(|s| s.cp_id.as_deref()))
        .bind(list(|s| s.lane.as_str()))
        .bind(submissions.iter().map(|s| s.send_at).collect::<Vec<_>>())
        .bind(submissions.iter().map(|s| milliseconds(s.valid_for)).collect::<Vec<_>>())
        .bind(optional(|s| s.waiter.as_deref()))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    let mut ids = Vec::with_capacity(inserted.len());
    let mut xid = String::new();
    for row in &inserted {
        ids.push(MessageId(rows::get(row, "cdls_id")?));
        xid = rows::get(row, "xid")?;
    }
    ids.sort_unstable();
    failpoint::hit("after_insert");
    if failpoint::defect("answer_before_commit") {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            transaction.commit().await
        });
        return Ok(ids);
    }
    match transaction.commit().await {
        Ok(()) => Ok(ids),
        Err(error) => match commit_took_place(pool, &xid).await {
            Some(true) => Ok(ids),
            Some(false) => Err(failed(error)),
            None => Err(StoreError::CommitUnknown(error.to_string())),
        },
    }
}

/// Asks the server about a transaction whose commit was not answered (PostgreSQL, "System Information Functions":
/// `pg_xact_status`). `None`: it cannot tell.
async fn commit_took_place(pool: &PgPool, xid: &str) -> Option<bool> {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let status: Result<Option<String>, sqlx::Error> =
                sqlx::query_scalar("select pg_xact_status($1::text::xid8)").bind(xid).fetch_one(pool).await;
            match status.ok().flatten().as_deref() {
                Some("committed") => return Some(true),
                Some("aborted") => return Some(false),
                _ => {}
            }
        }
    };
    tokio::time::timeout(SETTLES_WITHIN, asking).await.ok().flatten()
}

pub async fn token(pool: &PgPool, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
    let found = sqlx::query(
        "select t.cdcs_id, t.token_hash, a.cdcs_active from account_token t join account a using (cdcs_id)
         where t.token_id = $1 and t.revoked_at is null",
    )
    .bind(token_id)
    .fetch_optional(pool)
    .await
    .map_err(failed)?;
    found
        .map(|row| {
            Ok(TokenRecord {
                account: AccountId(rows::get(&row, "cdcs_id")?),
                account_active: rows::get(&row, "cdcs_active")?,
                hash: rows::get(&row, "token_hash")?,
            })
        })
        .transpose()
}

pub async fn campaign_state(
    pool: &PgPool,
    account: AccountId,
    cp_id: &str,
) -> Result<CampaignState, StoreError> {
    let found = sqlx::query("select state from campaign where cdcs_id = $1 and cp_id = $2")
        .bind(account.0)
        .bind(cp_id)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    found.map_or(Ok(CampaignState::Running), |row| rows::word(&row, "state"))
}

/// Counted over the two partial indexes, so that the cost is bounded by what waits.
pub async fn backlog(pool: &PgPool, at_most: i64) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "select count(*) as waiting from (
             select from cdls where status in ('PENDING', 'RETRY') and next_at is null
             union all
             select from cdls where status in ('PENDING', 'RETRY') and next_at is not null
             limit $1) as w",
    )
    .bind(at_most)
    .fetch_one(pool)
    .await
    .map_err(failed)?;
    row.try_get("waiting").map_err(failed)
}
