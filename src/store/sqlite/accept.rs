//! The group commit of new rows, together with the guards that keep them from being logged again and the work
//! that announces them.
//!
//! There is one writer at a time, so earlier messages are read under the write lock and the verdicts are then
//! decided here.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::{self, Now};
use super::counts::{CampaignDeltas, CounterGroup};
use super::error::{begin, commit, failed};
use super::{idempotency, work};
use crate::channel::Medium;
use crate::domain::{RowId, Submission};
use crate::failpoint;
use crate::store::{Accepted, Flow, Inserted, NewMessage, StoreError};

/// One statement for the whole batch, an array for each row: a statement of its own for each row would cost
/// three times as much, most of it on the way to the connection's thread and back.
const INSERT: &str = "
insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, mcaption, msg_id, cp_id, priority,
                  next_at, expires_at, waiter, created_at)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9,
       value->>10, value->>11, value->>12, ?2
from json_each(?1) order by key
returning cdls_id";

/// Rows ?1, now ?2.
const SCHEDULE: &str = "
insert into cdls_open (cdls_id, kind, partition_no, cdcs_id, v8l_id, priority, media, campaign, dest, due_at, since)
select value->>0, 'schedule', value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, ?2
from json_each(?1)";

/// Log all new messages, or none.
pub async fn accept(writer: &SqlitePool, messages: &[NewMessage]) -> Result<Accepted, StoreError> {
    if messages.is_empty() {
        return Ok(Accepted::default());
    }
    let (mut transaction, now) = begin(writer).await?;
    let repeats = idempotency::decide(&mut transaction, now, messages).await?;
    let new: Vec<NewRow<'_>> = repeats
        .iter()
        .zip(messages)
        .filter(|(repeat, _)| **repeat == idempotency::Repeat::New)
        .map(|(_, message)| NewRow::at(now, &message.submission))
        .collect();
    let ids = insert(&mut transaction, &new, now).await?;
    let work = enqueue(&mut transaction, &new, &ids, now).await?;
    let inserted = resolved(repeats, ids)?;
    idempotency::remember(&mut transaction, now, messages, &inserted).await?;
    failpoint::hit("after_insert");
    commit(transaction).await?;
    Ok(Accepted { inserted, work })
}

/// Return the verdict on each message.
fn resolved(repeats: Vec<idempotency::Repeat>, ids: Vec<RowId>) -> Result<Vec<Inserted>, StoreError> {
    let mut ids = ids.into_iter();
    let mut inserted = Vec::with_capacity(repeats.len());
    for repeat in repeats {
        inserted.push(match repeat {
            idempotency::Repeat::New => Inserted::New(ids.next().ok_or_else(not_inserted)?),
            idempotency::Repeat::Known(known) => known,
            idempotency::Repeat::As(place) => match inserted[place] {
                Inserted::New(id) => Inserted::Replay(id),
                other => other,
            },
        });
    }
    Ok(inserted)
}

fn not_inserted() -> StoreError {
    StoreError::Unavailable("a row was not inserted".into())
}

/// A row to be logged, with its times as the log holds them.
struct NewRow<'a> {
    submission: &'a Submission,
    scheduled: Option<String>,
    expires_at: String,
}

impl NewRow<'_> {
    fn at(now: Now, submission: &Submission) -> NewRow<'_> {
        let scheduled = submission.send_at.filter(|at| now.is_before(*at));
        let expires_at = match submission.send_at {
            Some(at) => clock::later(at, submission.valid_for),
            None => now.after(submission.valid_for),
        };
        NewRow { submission, scheduled: scheduled.map(|at| clock::later(at, Duration::ZERO)), expires_at }
    }

    fn flow(&self) -> Flow {
        Flow {
            line: self.submission.line,
            lane: self.submission.lane,
            medium: self.submission.kind.medium(),
            campaign: self.submission.cp_id.clone().unwrap_or_default(),
        }
    }

    fn is_media(&self) -> bool {
        self.submission.kind.medium() == Medium::Media
    }

    fn group(&self) -> Option<CounterGroup> {
        let cp_id = self.submission.cp_id.clone()?;
        let (account, line) = (self.submission.account.0, self.submission.line.0);
        Some(CounterGroup { account, cp_id, line, media: self.is_media() })
    }

    fn values(&self) -> Value {
        let Submission {
            account, line, class, dest, kind, mdata, mcaption, msg_id, cp_id, lane, waiter, ..
        } = self.submission;
        json!([
            account,
            line,
            class,
            dest,
            kind,
            mdata,
            mcaption,
            msg_id,
            cp_id,
            lane,
            self.scheduled,
            self.expires_at,
            waiter,
        ])
    }

    /// Return the values of a scheduled row.
    fn open_values(&self, id: RowId) -> Value {
        let Submission { account, line, dest, lane, .. } = self.submission;
        let (media, campaign) = (i32::from(self.is_media()), self.submission.cp_id.as_deref().unwrap_or(""));
        json!([id, line.partition(), account, line, lane, media, campaign, dest, self.scheduled])
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    new: &[NewRow<'_>],
    now: Now,
) -> Result<Vec<RowId>, StoreError> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids: Vec<i64> = sqlx::query_scalar(INSERT)
        .bind(Value::from_iter(new.iter().map(NewRow::values)).to_string())
        .bind(now.text())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    // Rows are inserted in the order given, each with an id above every earlier id (AUTOINCREMENT); only the
    // order of RETURNING is not promised.
    ids.sort_unstable();
    if ids.len() != new.len() {
        return Err(not_inserted());
    }
    Ok(ids.into_iter().map(RowId).collect())
}

/// Put the new rows into the queue and count them; return the work that was added.
async fn enqueue(
    connection: &mut SqliteConnection,
    new: &[NewRow<'_>],
    ids: &[RowId],
    now: Now,
) -> Result<Vec<crate::store::Work>, StoreError> {
    let mut counts = CampaignDeltas::default();
    let (mut scheduled, mut ready) = (Vec::new(), Vec::with_capacity(new.len()));
    for (row, id) in new.iter().zip(ids) {
        if let Some(group) = row.group() {
            counts.logged(group);
        }
        if row.scheduled.is_some() {
            scheduled.push(row.open_values(*id));
        } else {
            let (account, expires_at) = (row.submission.account, row.expires_at.clone());
            ready.push(work::QueuedRow { id: *id, account, flow: row.flow(), expires_at });
        }
    }
    if !scheduled.is_empty() {
        let statement = sqlx::query(SCHEDULE).bind(Value::Array(scheduled).to_string()).bind(now.text());
        statement.execute(&mut *connection).await.map_err(failed)?;
    }
    counts.write(connection, now).await?;
    work::add(connection, ready, false).await
}
