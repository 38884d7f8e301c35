//! The group commit of new rows, together with what keeps them from being logged again.
//!
//! Transactions of several processes that meet wait for each other's keys in one order (keys, then lines of batches,
//! then windows, each sorted), so that they cannot deadlock.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::{once, rows};
use crate::failpoint;
use crate::message::{MessageId, Submission};
use crate::store::{Inserted, NewMessage, StoreError};

/// How long a transaction whose commit was cut may stay in progress before its outcome counts as unknown.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// The sort makes the sequence's numbers follow the order given.
const INSERT: &str = "
    insert into cdls (cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, next_at, expires_at, waiter)
    select coalesce(s.cdls_id, nextval('cdls_id_seq')),
           s.cdcs_id, s.v8l_id, s.class, s.dest, s.mtype, s.mdata, s.mcaption, s.msg_id, s.cp_id, s.priority,
           case when s.send_at > now() then s.send_at end,
           coalesce(s.send_at, now()) + s.valid_ms * interval '1 millisecond', s.waiter
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::timestamptz[], $12::bigint[], $13::text[], $14::bigint[]) with ordinality
         as s(cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority, send_at, valid_ms, waiter, cdls_id, place)
    order by s.place
    returning cdls_id, created_at, pg_current_xact_id()::text as xid";

pub async fn accept(pool: &Pool, messages: &[NewMessage]) -> Result<Vec<Inserted>, StoreError> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let mut lent = pool.lend().await.map_err(failed)?;
    let (verdicts, stamp) = pool.wait_for(logged(&mut lent, messages)).await?;
    failpoint::hit("after_insert");
    if failpoint::defect("answer_before_commit") {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            committed(&mut lent).await.map(|()| lent.give_back())
        });
        return Ok(verdicts);
    }
    let Err(error) = pool.wait_for(committed(&mut lent)).await else {
        lent.give_back();
        return Ok(verdicts);
    };
    // The pool may have no other connection to ask on.
    drop(lent);
    // Whatever was found out without writing was committed before.
    let Some(stamp) = stamp else { return Ok(verdicts) };
    match commit_took_place(pool, &stamp).await {
        Some(true) => Ok(verdicts),
        Some(false) => Err(error),
        None => Err(StoreError::CommitUnknown(error.to_string())),
    }
}

/// The transaction, but for its commit: what became of each message, and how to know the transaction again if rows were
/// inserted.
async fn logged(
    connection: &mut PgConnection,
    messages: &[NewMessage],
) -> Result<(Vec<Inserted>, Option<Stamp>), StoreError> {
    sqlx::query("begin").execute(&mut *connection).await.map_err(failed)?;
    let mut verdicts = vec![None; messages.len()];
    let mut allotted = vec![None; messages.len()];
    if messages.iter().any(NewMessage::is_guarded) {
        let ids = allot(connection, messages.len()).await?;
        verdicts = once::decide(connection, messages, &ids).await?;
        allotted = ids.into_iter().map(Some).collect();
    }
    let left: Vec<usize> = (0..messages.len()).filter(|place| verdicts[*place].is_none()).collect();
    let submissions: Vec<&Submission> = left.iter().map(|place| &messages[*place].submission).collect();
    let allotted: Vec<Option<i64>> = left.iter().map(|place| allotted[*place]).collect();
    let (ids, stamp) = insert(connection, &submissions, allotted).await?;
    for (place, id) in left.into_iter().zip(ids) {
        verdicts[place] = Some(Inserted::New(id));
    }
    let verdicts: Option<Vec<Inserted>> = verdicts.into_iter().collect();
    let verdicts = verdicts.ok_or_else(|| StoreError::Unavailable("a row was not inserted".into()))?;
    Ok((verdicts, stamp))
}

async fn committed(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("commit").execute(connection).await.map(drop).map_err(failed)
}

/// Takes ids for rows whose keys are written before they are.
async fn allot(connection: &mut PgConnection, rows: usize) -> Result<Vec<i64>, StoreError> {
    let mut ids: Vec<i64> = sqlx::query_scalar("select nextval('cdls_id_seq') from generate_series(1, $1)")
        .bind(rows as i64)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    ids.sort_unstable();
    Ok(ids)
}

async fn insert(
    connection: &mut PgConnection,
    submissions: &[&Submission],
    ids: Vec<Option<i64>>,
) -> Result<(Vec<MessageId>, Option<Stamp>), StoreError> {
    if submissions.is_empty() {
        return Ok((Vec::new(), None));
    }
    let list = |of: fn(&Submission) -> &str| submissions.iter().map(|s| of(s)).collect::<Vec<_>>();
    let optional =
        |of: fn(&Submission) -> Option<&str>| submissions.iter().map(|s| of(s)).collect::<Vec<_>>();
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
        .bind(ids)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let mut ids = Vec::with_capacity(inserted.len());
    for row in &inserted {
        ids.push(MessageId(rows::get(row, "cdls_id")?));
    }
    ids.sort_unstable();
    let stamp = inserted.first().map(Stamp::of).transpose()?;
    Ok((ids, stamp))
}

/// By what a transaction is known again after its connection was lost.
struct Stamp {
    xid: String,
    /// One of its rows, and when that was logged.
    row: i64,
    created_at: OffsetDateTime,
}

impl Stamp {
    fn of(row: &PgRow) -> Result<Stamp, StoreError> {
        Ok(Stamp {
            xid: rows::get(row, "xid")?,
            row: rows::get(row, "cdls_id")?,
            created_at: rows::get(row, "created_at")?,
        })
    }
}

/// Asks the server about a transaction whose commit was not answered (PostgreSQL, "System Information Functions":
/// `pg_xact_status`). `None`: it cannot tell.
async fn commit_took_place(pool: &Pool, stamp: &Stamp) -> Option<bool> {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut was_denied = false;
        loop {
            tick.tick().await;
            let found: Result<(Option<String>, bool), sqlx::Error> = sqlx::query_as(
                "select pg_xact_status($1::text::xid8), exists (select from cdls where cdls_id = $2 and created_at = $3)",
            )
            .bind(&stamp.xid)
            .bind(stamp.row)
            .bind(stamp.created_at)
            .fetch_one(pool)
            .await;
            let Ok((status, is_logged)) = found else { continue };
            match took_place(status.as_deref(), is_logged) {
                // The row is looked for as of the statement's begin, its transaction as of now: one that ended between
                // the two is asked about once more.
                Some(Some(false)) if !was_denied => was_denied = true,
                Some(answer) => return answer,
                None => {}
            }
        }
    };
    tokio::time::timeout(SETTLES_WITHIN, asking).await.unwrap_or(None)
}

/// What status and row say of the commit; nothing yet while the transaction goes on.
///
/// The row alone proves a commit. A server that crashed before the transaction reached its disk forgets that its number
/// was given out, and the same for the row's id: both may belong to another transaction by now, which was committed.
fn took_place(status: Option<&str>, is_logged: bool) -> Option<Option<bool>> {
    match status {
        _ if is_logged => Some(Some(true)),
        Some("in progress") => None,
        Some("committed" | "aborted") => Some(Some(false)),
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::committed(Some("committed"), true, Some(Some(true)))]
    #[case::aborted(Some("aborted"), false, Some(Some(false)))]
    #[case::still_going_on(Some("in progress"), false, None)]
    #[case::too_old_to_tell(None, false, Some(None))]
    #[case::a_number_given_out_again_after_a_crash_does_not_vouch_for_rows_that_are_gone(
        Some("committed"),
        false,
        Some(Some(false))
    )]
    fn a_commit_without_an_answer(
        #[case] status: Option<&str>,
        #[case] is_logged: bool,
        #[case] answer: Option<Option<bool>>,
    ) {
        assert_eq!(took_place(status, is_logged), answer);
    }
}
