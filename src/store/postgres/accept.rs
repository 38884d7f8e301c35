//! The group commit of new rows with their work, together with the guards that keep them from being logged
//! again.
//!
//! Messages without a guard are one statement, which is its own commit. For others a transaction looks first:
//! transactions of several processes that meet wait for each other's keys in one order (keys, then lines of
//! batches, then windows, each sorted), so that they cannot deadlock.

use sqlx::PgConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use super::error::{failed, was_refused};
use super::lost::{self, Stamp};
use super::parameters::milliseconds;
use super::pool::Pool;
use super::{idempotency, rows};
use crate::domain::{RowId, Submission, WorkId};
use crate::failpoint;
use crate::store::{Accepted, Inserted, NewMessage, StoreError, Work};

/// The parts of a commit depend on its messages: a part that writes no row would cost a tenth of a lone
/// message.
const STATEMENTS: [&str; 4] = [
    concat!(include_str!("sql/accept.sql"), include_str!("sql/accept_answer.sql")),
    concat!(
        include_str!("sql/accept.sql"),
        include_str!("sql/accept_scheduled.sql"),
        include_str!("sql/accept_answer.sql")
    ),
    concat!(
        include_str!("sql/accept.sql"),
        include_str!("sql/accept_counted.sql"),
        include_str!("sql/accept_answer.sql")
    ),
    concat!(
        include_str!("sql/accept.sql"),
        include_str!("sql/accept_scheduled.sql"),
        include_str!("sql/accept_counted.sql"),
        include_str!("sql/accept_answer.sql")
    ),
];

fn statement(submissions: &[&Submission]) -> &'static str {
    let scheduled = submissions.iter().any(|s| s.send_at.is_some());
    let counted = submissions.iter().any(|s| s.cp_id.is_some());
    STATEMENTS[usize::from(scheduled) + 2 * usize::from(counted)]
}

/// How often a transaction is tried that the database undoes for another's sake.
const TRIES: u32 = 3;

pub async fn accept(pool: &Pool, messages: &[NewMessage]) -> Result<Accepted, StoreError> {
    for _ in 1..TRIES {
        match accept_once(pool, messages).await {
            Err(StoreError::Undone(reason)) => tracing::debug!(reason, "commit was undone: the same again"),
            done => return done,
        }
    }
    accept_once(pool, messages).await
}

async fn accept_once(pool: &Pool, messages: &[NewMessage]) -> Result<Accepted, StoreError> {
    if messages.is_empty() {
        return Ok(Accepted::default());
    }
    if messages.iter().any(NewMessage::is_guarded) {
        return accept_guarded(pool, messages).await;
    }
    let submissions: Vec<&Submission> = messages.iter().map(|message| &message.submission).collect();
    let mark: i64 = rand::random();
    let mut lent = pool.lend().await.map_err(failed)?;
    // Insert and commit are one step here: before it nothing is committed.
    failpoint::hit("after_insert");
    let insert = match submissions[..] {
        [one] if one.cp_id.is_none() && one.send_at.is_none() => insert_one(one, mark),
        _ => insert(&submissions, None, mark),
    };
    let answer = pool.answer(insert.fetch_all(&mut *lent)).await;
    if let Err(error) = &answer
        && !was_refused(error)
    {
        // The pool may have no other connection to ask on.
        drop(lent);
        let found = lost::logged(pool, &submissions, mark).await;
        let ids = found.ok_or_else(|| StoreError::CommitUnknown(error.to_string()))?;
        // The next scan finds the work of these rows.
        return Ok(Accepted { inserted: ids.into_iter().map(Inserted::New).collect(), work: Vec::new() });
    }
    lent.give_back_after(&answer);
    let logged = InsertResult::of(&answer.map_err(failed)?)?;
    let inserted = logged.ids.iter().copied().map(Inserted::New).collect();
    Ok(Accepted { inserted, work: logged.work })
}

async fn accept_guarded(pool: &Pool, messages: &[NewMessage]) -> Result<Accepted, StoreError> {
    let mut lent = pool.lend().await.map_err(failed)?;
    let (accepted, stamp) = pool.wait_for(decided(&mut lent, messages)).await?;
    failpoint::hit("after_insert");
    let Err(error) = pool.wait_for(committed(&mut lent)).await else {
        lent.give_back();
        return Ok(accepted);
    };
    // The pool may have no other connection to ask on.
    drop(lent);
    // Every answer found without writing was committed before.
    let Some(stamp) = stamp else { return Ok(accepted) };
    match lost::took_place(pool, &stamp).await {
        Some(true) => Ok(accepted),
        Some(false) => Err(error),
        None => Err(StoreError::CommitUnknown(error.to_string())),
    }
}

/// Run the transaction up to its commit. Return the verdict on each message, and the stamp that identifies
/// the transaction if rows were inserted.
async fn decided(
    connection: &mut PgConnection,
    messages: &[NewMessage],
) -> Result<(Accepted, Option<Stamp>), StoreError> {
    sqlx::query("begin").execute(&mut *connection).await.map_err(failed)?;
    let ids = allot(connection, messages.len()).await?;
    let mut verdicts = idempotency::decide(connection, messages, &ids).await?;
    let left: Vec<usize> = (0..messages.len()).filter(|place| verdicts[*place].is_none()).collect();
    let mut work = Vec::new();
    let mut stamp = None;
    if let Some(first) = left.first() {
        let submissions: Vec<&Submission> = left.iter().map(|place| &messages[*place].submission).collect();
        let allotted: Vec<i64> = left.iter().map(|place| ids[*place]).collect();
        let mark: i64 = rand::random();
        let inserted =
            insert(&submissions, Some(&allotted), mark).fetch_all(connection).await.map_err(failed)?;
        let logged = InsertResult::of(&inserted)?;
        stamp = Some(Stamp { xid: logged.xid, row: ids[*first], mark });
        work = logged.work;
    }
    for place in left {
        verdicts[place] = Some(Inserted::New(RowId(ids[place])));
    }
    let inserted: Option<Vec<Inserted>> = verdicts.into_iter().collect();
    let inserted = inserted.ok_or_else(|| StoreError::Unavailable("a row was not inserted".into()))?;
    Ok((Accepted { inserted, work }, stamp))
}

async fn committed(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("commit").execute(connection).await.map(drop).map_err(failed)
}

/// Take ids for rows whose keys are written before the rows.
async fn allot(connection: &mut PgConnection, rows: usize) -> Result<Vec<i64>, StoreError> {
    let mut ids: Vec<i64> = sqlx::query_scalar("select nextval('cdls_id_seq') from generate_series(1, $1)")
        .bind(rows as i64)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    ids.sort_unstable();
    Ok(ids)
}

/// Build the insert; `ids`: the allotted ids, if there are any.
fn insert<'q>(
    submissions: &[&'q Submission],
    ids: Option<&'q [i64]>,
    mark: i64,
) -> Query<'q, sqlx::Postgres, PgArguments> {
    let list = |of: fn(&'q Submission) -> &'q str| submissions.iter().map(|s| of(s)).collect::<Vec<_>>();
    let optional =
        |of: fn(&'q Submission) -> Option<&'q str>| submissions.iter().map(|s| of(s)).collect::<Vec<_>>();
    sqlx::query(statement(submissions))
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
        .bind(mark)
}

/// Build the insert of a lone message: half the cost of a batch of one.
fn insert_one(submission: &Submission, mark: i64) -> Query<'_, sqlx::Postgres, PgArguments> {
    sqlx::query(include_str!("sql/accept_one.sql"))
        .bind(submission.account.0)
        .bind(submission.line.0)
        .bind(submission.class.as_str())
        .bind(&submission.dest)
        .bind(submission.kind.as_str())
        .bind(&submission.mdata)
        .bind(submission.mcaption.as_deref())
        .bind(submission.msg_id.as_deref())
        .bind(submission.lane.as_str())
        .bind(milliseconds(submission.valid_for))
        .bind(submission.waiter.as_deref())
        .bind(mark)
}

/// The answer of an insert.
struct InsertResult {
    /// Ascending, and so in the order given.
    ids: Vec<RowId>,
    work: Vec<Work>,
    xid: String,
}

impl InsertResult {
    fn of(inserted: &[PgRow]) -> Result<InsertResult, StoreError> {
        let mut logged = InsertResult { ids: Vec::new(), work: Vec::new(), xid: String::new() };
        for row in inserted {
            let ids: Vec<i64> = rows::get(row, "ids")?;
            let ids: Vec<RowId> = ids.into_iter().map(RowId).collect();
            logged.ids.extend_from_slice(&ids);
            logged.xid = rows::get(row, "xid")?;
            if let Some(id) = rows::get::<Option<i64>>(row, "work_id")? {
                logged.work.push(Work { id: WorkId(id), flow: rows::flow(row)?, ids });
            }
        }
        logged.ids.sort_unstable();
        logged.work.sort_unstable_by_key(|work| work.id);
        Ok(logged)
    }
}
