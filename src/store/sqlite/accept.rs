//! The group commit of new rows, together with what keeps them from being logged again.
//!
//! There is one writer at a time, so what was logged before is read under the write lock and then decided here.

use std::time::Duration;

use serde_json::json;
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::{self, Now};
use super::error::{begin, commit, failed};
use super::once;
use crate::failpoint;
use crate::message::{MessageId, Submission};
use crate::store::{Inserted, NewMessage, StoreError};

/// One statement for the whole batch, an array for each row: a statement of its own for each row would cost three times
/// as much, most of it on the way to the connection's thread and back.
const INSERT: &str = "
insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority,
                  next_at, expires_at, waiter, created_at)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9,
       value->>10, value->>11, value->>12, ?2
from json_each(?1) order by key
returning cdls_id";

/// Logs all that are new, or none.
pub async fn accept(writer: &SqlitePool, messages: &[NewMessage]) -> Result<Vec<Inserted>, StoreError> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let (mut transaction, now) = begin(writer).await?;
    let verdicts = once::decide(&mut transaction, now, messages).await?;
    let new = verdicts.iter().zip(messages).filter(|(verdict, _)| **verdict == once::Verdict::New);
    let rows = new.map(|(_, message)| values(&message.submission, now)).collect();
    let mut ids = insert(&mut transaction, rows, now).await?.into_iter();
    let mut inserted = Vec::with_capacity(messages.len());
    for verdict in verdicts {
        inserted.push(match verdict {
            once::Verdict::New => Inserted::New(ids.next().ok_or_else(not_inserted)?),
            once::Verdict::Known(known) => known,
            once::Verdict::As(place) => match inserted[place] {
                Inserted::New(id) => Inserted::Replay(id),
                other => other,
            },
        });
    }
    once::remember(&mut transaction, now, messages, &inserted).await?;
    failpoint::hit("after_insert");
    commit(transaction).await?;
    Ok(inserted)
}

fn not_inserted() -> StoreError {
    StoreError::Unavailable("a row was not inserted".into())
}

async fn insert(
    connection: &mut SqliteConnection,
    rows: Vec<serde_json::Value>,
    now: Now,
) -> Result<Vec<MessageId>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids: Vec<i64> = sqlx::query_scalar(INSERT)
        .bind(serde_json::Value::Array(rows).to_string())
        .bind(now.text())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    // Rows are inserted in the order given, each with an id above every id there ever was (AUTOINCREMENT); only the
    // order in which RETURNING names them is not promised.
    ids.sort_unstable();
    Ok(ids.into_iter().map(MessageId).collect())
}

fn values(submission: &Submission, now: Now) -> serde_json::Value {
    let scheduled = submission.send_at.filter(|at| now.is_before(*at));
    let expires_at = match submission.send_at {
        Some(at) => clock::later(at, submission.valid_for),
        None => now.after(submission.valid_for),
    };
    json!([
        submission.account,
        submission.line,
        submission.class,
        submission.dest,
        submission.kind,
        submission.mdata,
        submission.mcaption,
        submission.msg_id,
        submission.cp_id,
        submission.lane,
        scheduled.map(|at| clock::later(at, Duration::ZERO)),
        expires_at,
        submission.waiter,
    ])
}
