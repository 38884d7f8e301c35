//! What was logged before: idempotency keys, lines of batches, `httpdup` windows.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::get;
use crate::message::MessageId;
use crate::store::intake::windows;
use crate::store::{BatchLine, Inserted, LONGEST_HTTPDUP, NewMessage, RememberedKey, StoreError};

const KEYS: &str = "
select j.value->>0 as place, k.request_hash, k.cdls_id
from json_each(?1) j cross join idempotency_key k on k.cdcs_id = j.value->>1 and k.key = j.value->>2
where k.expires_at > ?2";

const LINES: &str = "
select j.value->>0 as place, l.cdls_id
from json_each(?1) j cross join batch_line l on l.batch_no = j.value->>1 and l.line = j.value->>2";

const WINDOWS: &str = "
select j.value->>0 as place
from json_each(?1) j cross join http_duplicate d on d.v8l_id = j.value->>1 and d.dest = j.value->>2
where d.accepted_at > j.value->>3";

const REMEMBER_KEYS: &str = "
insert or replace into idempotency_key (cdcs_id, key, request_hash, cdls_id, expires_at)
select value->>0, value->>1, unhex(value->>2), value->>3, value->>4 from json_each(?1)";

const REMEMBER_LINES: &str = "
insert into batch_line (batch_no, line, cdls_id)
select value->>0, value->>1, value->>2 from json_each(?1)";

const REMEMBER_WINDOWS: &str = "
insert or replace into http_duplicate (v8l_id, dest, accepted_at)
select value->>0, value->>1, ?2 from json_each(?1)";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    New,
    Known(Inserted),
    /// The same as the message at this earlier place.
    As(usize),
}

/// Says of each message what it is, under the write lock.
pub async fn decide(
    connection: &mut SqliteConnection,
    now: Now,
    messages: &[NewMessage],
) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = vec![Verdict::New; messages.len()];
    if !messages.iter().any(NewMessage::is_guarded) {
        return Ok(verdicts);
    }
    keys(connection, now, messages, &mut verdicts).await?;
    lines(connection, messages, &mut verdicts).await?;
    duplicates(connection, now, messages, &mut verdicts).await?;
    Ok(verdicts)
}

async fn keys(
    connection: &mut SqliteConnection,
    now: Now,
    messages: &[NewMessage],
    verdicts: &mut [Verdict],
) -> Result<(), StoreError> {
    let wanted =
        list(messages, |place, message| message.key().map(|(account, key)| json!([place, account, key.key])));
    let Some(wanted) = wanted else { return Ok(()) };
    let mut known = HashMap::new();
    for row in sqlx::query(KEYS).bind(wanted).bind(now.text()).fetch_all(connection).await.map_err(failed)? {
        let place: i64 = get(&row, "place")?;
        let id = MessageId(get(&row, "cdls_id")?);
        let request_hash = get(&row, "request_hash")?;
        known.insert(place as usize, RememberedKey { request_hash, id });
    }
    let mut first = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        let Some((account, key)) = message.key() else { continue };
        if let Some(known) = known.get(&place) {
            verdicts[place] = Verdict::Known(known.verdict(&key.request_hash));
            continue;
        }
        let (leader, hash) = *first.entry((account, &key.key)).or_insert((place, &key.request_hash));
        if leader != place {
            let same = *hash == key.request_hash;
            verdicts[place] = if same { Verdict::As(leader) } else { Verdict::Known(Inserted::KeyReused) };
        }
    }
    Ok(())
}

async fn lines(
    connection: &mut SqliteConnection,
    messages: &[NewMessage],
    verdicts: &mut [Verdict],
) -> Result<(), StoreError> {
    let wanted = list(messages, |place, message| {
        message.batch_line().map(|line| json!([place, line.batch, line.line]))
    });
    let Some(wanted) = wanted else { return Ok(()) };
    for row in sqlx::query(LINES).bind(wanted).fetch_all(connection).await.map_err(failed)? {
        let place: i64 = get(&row, "place")?;
        let id = MessageId(get(&row, "cdls_id")?);
        verdicts[place as usize] = Verdict::Known(Inserted::Replay(id));
    }
    let mut first: HashMap<BatchLine, usize> = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        let Some(line) = message.batch_line() else { continue };
        if verdicts[place] == Verdict::New {
            let leader = *first.entry(line).or_insert(place);
            if leader != place {
                verdicts[place] = Verdict::As(leader);
            }
        }
    }
    Ok(())
}

async fn duplicates(
    connection: &mut SqliteConnection,
    now: Now,
    messages: &[NewMessage],
    verdicts: &mut [Verdict],
) -> Result<(), StoreError> {
    let decided: Vec<Option<Inserted>> =
        verdicts.iter().map(|verdict| (*verdict != Verdict::New).then_some(Inserted::Duplicate)).collect();
    let (first, mut refused) = windows(messages, &decided);
    if first.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = first
        .iter()
        .map(|(place, line, dest, window)| json!([place, line, dest, now.before(*window)]))
        .collect();
    let taken: Vec<i64> = sqlx::query_scalar(WINDOWS)
        .bind(json!(wanted).to_string())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    refused.extend(taken.into_iter().map(|place| place as usize));
    for place in refused {
        verdicts[place] = Verdict::Known(Inserted::Duplicate);
    }
    Ok(())
}

/// Writes what keeps the new ones from being logged again.
pub async fn remember(
    connection: &mut SqliteConnection,
    now: Now,
    messages: &[NewMessage],
    inserted: &[Inserted],
) -> Result<(), StoreError> {
    let new = |place: usize| match inserted[place] {
        Inserted::New(id) => Some(id),
        _ => None,
    };
    let keys = list(messages, |place, message| {
        let (account, key) = message.key()?;
        Some(json!([account, key.key, hex::encode(&key.request_hash), new(place)?, now.after(key.kept)]))
    });
    let lines = list(messages, |place, message| {
        let line = message.batch_line()?;
        Some(json!([line.batch, line.line, new(place)?]))
    });
    let windows = list(messages, |place, message| {
        let (line, dest, _) = message.window()?;
        new(place).map(|_| json!([line, dest]))
    });
    for (statement, rows) in [(REMEMBER_KEYS, keys), (REMEMBER_LINES, lines), (REMEMBER_WINDOWS, windows)] {
        if let Some(rows) = rows {
            let statement = sqlx::query(statement).bind(rows).bind(now.text());
            statement.execute(&mut *connection).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// A JSON array of what `of` says about the messages; none where it says nothing.
fn list(
    messages: &[NewMessage],
    of: impl Fn(usize, &NewMessage) -> Option<serde_json::Value>,
) -> Option<String> {
    let values: Vec<_> =
        messages.iter().enumerate().filter_map(|(place, message)| of(place, message)).collect();
    (!values.is_empty()).then(|| serde_json::Value::Array(values).to_string())
}

/// Whether anything has expired by now ?1, or is a window older than ?2.
const EXPIRED: &str = "
select exists (select 1 from idempotency_key where expires_at <= ?1)
    or exists (select 1 from http_duplicate where accepted_at <= ?2)
    or exists (select 1 from batch where expires_at <= ?1)";

pub async fn forget_expired(reader: &SqlitePool, writer: &SqlitePool, limit: u32) -> Result<u64, StoreError> {
    let now = Now::read();
    let is_any: bool = sqlx::query_scalar(EXPIRED)
        .bind(now.text())
        .bind(now.before(LONGEST_HTTPDUP))
        .fetch_one(reader)
        .await
        .map_err(failed)?;
    if !is_any {
        return Ok(0);
    }
    let (mut transaction, now) = begin(writer).await?;
    let keys = sqlx::query(
        "delete from idempotency_key where rowid in
             (select rowid from idempotency_key where expires_at <= ?1 order by expires_at limit ?2)",
    )
    .bind(now.text())
    .bind(limit)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    let windows = sqlx::query(
        "delete from http_duplicate where (v8l_id, dest) in
             (select v8l_id, dest from http_duplicate where accepted_at <= ?1 order by accepted_at limit ?2)",
    )
    .bind(now.before(LONGEST_HTTPDUP))
    .bind(limit)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    let lines = forget_batch(&mut transaction, now, limit).await?;
    commit(transaction).await?;
    Ok(keys.rows_affected().max(windows.rows_affected()).max(lines))
}

/// Forgets lines of the batch that expired first, and then the batch. Counts as full until it is gone.
async fn forget_batch(connection: &mut SqliteConnection, now: Now, limit: u32) -> Result<u64, StoreError> {
    let expired: Option<i64> = sqlx::query_scalar(
        "update batch set batch_id = null where batch_no =
             (select batch_no from batch where expires_at <= ?1 order by expires_at limit 1)
         returning batch_no",
    )
    .bind(now.text())
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    let Some(expired) = expired else { return Ok(0) };
    let lines = sqlx::query(
        "delete from batch_line where batch_no = ?1 and line in
             (select line from batch_line where batch_no = ?1 order by line limit ?2)",
    )
    .bind(expired)
    .bind(limit)
    .execute(&mut *connection)
    .await
    .map_err(failed)?
    .rows_affected();
    if lines < u64::from(limit) {
        let gone = sqlx::query("delete from batch where batch_no = ?1").bind(expired);
        gone.execute(connection).await.map_err(failed)?;
    }
    Ok(u64::from(limit))
}
