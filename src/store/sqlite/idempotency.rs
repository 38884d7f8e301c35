//! The guards against repetition: idempotency keys, items of batches, `httpdup` windows.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{SqliteConnection, SqlitePool};

use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::get;
use crate::domain::RowId;
use crate::store::intake::windows;
use crate::store::{BatchItem, Inserted, LONGEST_HTTPDUP, NewMessage, RememberedKey, StoreError};

const KEYS: &str = "
select j.value->>0 as place, k.request_hash, k.cdls_id
from json_each(?1) j cross join idempotency_key k on k.cdcs_id = j.value->>1 and k.key = j.value->>2
where k.expires_at > ?2";

const ITEMS: &str = "
select j.value->>0 as place, l.cdls_id
from json_each(?1) j cross join batch_line l on l.batch_no = j.value->>1 and l.line = j.value->>2";

const WINDOWS: &str = "
select j.value->>0 as place
from json_each(?1) j cross join http_duplicate d on d.v8l_id = j.value->>1 and d.dest = j.value->>2
where d.accepted_at > j.value->>3";

const REMEMBER_KEYS: &str = "
insert or replace into idempotency_key (cdcs_id, key, request_hash, cdls_id, expires_at)
select value->>0, value->>1, unhex(value->>2), value->>3, value->>4 from json_each(?1)";

const REMEMBER_ITEMS: &str = "
insert into batch_line (batch_no, line, cdls_id)
select value->>0, value->>1, value->>2 from json_each(?1)";

const REMEMBER_WINDOWS: &str = "
insert or replace into http_duplicate (v8l_id, dest, accepted_at)
select value->>0, value->>1, ?2 from json_each(?1)";

/// The kind of a message: new, or a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    New,
    Known(Inserted),
    /// The same as the message at this earlier place.
    As(usize),
}

/// Decide for each message whether it is new, under the write lock.
pub async fn decide(
    connection: &mut SqliteConnection,
    now: Now,
    messages: &[NewMessage],
) -> Result<Vec<Repeat>, StoreError> {
    let mut repeats = vec![Repeat::New; messages.len()];
    if !messages.iter().any(NewMessage::is_guarded) {
        return Ok(repeats);
    }
    keys(connection, now, messages, &mut repeats).await?;
    items(connection, messages, &mut repeats).await?;
    duplicates(connection, now, messages, &mut repeats).await?;
    Ok(repeats)
}

async fn keys(
    connection: &mut SqliteConnection,
    now: Now,
    messages: &[NewMessage],
    repeats: &mut [Repeat],
) -> Result<(), StoreError> {
    let wanted =
        list(messages, |place, message| message.key().map(|(account, key)| json!([place, account, key.key])));
    let Some(wanted) = wanted else { return Ok(()) };
    let mut known = HashMap::new();
    for row in sqlx::query(KEYS).bind(wanted).bind(now.text()).fetch_all(connection).await.map_err(failed)? {
        let place: i64 = get(&row, "place")?;
        let id = RowId(get(&row, "cdls_id")?);
        let request_hash = get(&row, "request_hash")?;
        known.insert(place as usize, RememberedKey { request_hash, id });
    }
    let mut first = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        let Some((account, key)) = message.key() else { continue };
        if let Some(known) = known.get(&place) {
            repeats[place] = Repeat::Known(known.verdict(&key.request_hash));
            continue;
        }
        let (leader, hash) = *first.entry((account, &key.key)).or_insert((place, &key.request_hash));
        if leader != place {
            let same = *hash == key.request_hash;
            repeats[place] = if same { Repeat::As(leader) } else { Repeat::Known(Inserted::KeyReused) };
        }
    }
    Ok(())
}

async fn items(
    connection: &mut SqliteConnection,
    messages: &[NewMessage],
    repeats: &mut [Repeat],
) -> Result<(), StoreError> {
    let wanted = list(messages, |place, message| {
        message.batch_item().map(|item| json!([place, item.batch, item.number]))
    });
    let Some(wanted) = wanted else { return Ok(()) };
    for row in sqlx::query(ITEMS).bind(wanted).fetch_all(connection).await.map_err(failed)? {
        let place: i64 = get(&row, "place")?;
        let id = RowId(get(&row, "cdls_id")?);
        repeats[place as usize] = Repeat::Known(Inserted::Replay(id));
    }
    let mut first: HashMap<BatchItem, usize> = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        let Some(item) = message.batch_item() else { continue };
        if repeats[place] == Repeat::New {
            let leader = *first.entry(item).or_insert(place);
            if leader != place {
                repeats[place] = Repeat::As(leader);
            }
        }
    }
    Ok(())
}

async fn duplicates(
    connection: &mut SqliteConnection,
    now: Now,
    messages: &[NewMessage],
    repeats: &mut [Repeat],
) -> Result<(), StoreError> {
    let decided: Vec<Option<Inserted>> =
        repeats.iter().map(|repeat| (*repeat != Repeat::New).then_some(Inserted::Duplicate)).collect();
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
        repeats[place] = Repeat::Known(Inserted::Duplicate);
    }
    Ok(())
}

/// Write the guards that keep the new messages from being logged again.
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
    let items = list(messages, |place, message| {
        let item = message.batch_item()?;
        Some(json!([item.batch, item.number, new(place)?]))
    });
    let windows = list(messages, |place, message| {
        let (line, dest, _) = message.window()?;
        new(place).map(|_| json!([line, dest]))
    });
    for (statement, rows) in [(REMEMBER_KEYS, keys), (REMEMBER_ITEMS, items), (REMEMBER_WINDOWS, windows)] {
        if let Some(rows) = rows {
            let statement = sqlx::query(statement).bind(rows).bind(now.text());
            statement.execute(&mut *connection).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Return a JSON array of the values that `of` returns for the messages; `None` where there are none.
fn list(
    messages: &[NewMessage],
    of: impl Fn(usize, &NewMessage) -> Option<serde_json::Value>,
) -> Option<String> {
    let values: Vec<_> =
        messages.iter().enumerate().filter_map(|(place, message)| of(place, message)).collect();
    (!values.is_empty()).then(|| serde_json::Value::Array(values).to_string())
}

/// Whether a key or batch has expired by now ?1, or a window is older than ?2.
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
    let items = forget_batch(&mut transaction, now, limit).await?;
    commit(transaction).await?;
    Ok(keys.rows_affected().max(windows.rows_affected()).max(items))
}

/// Forget items of the batch that expired first, and then the batch. The result counts as full until the
/// batch is gone.
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
    let items = sqlx::query(
        "delete from batch_line where batch_no = ?1 and line in
             (select line from batch_line where batch_no = ?1 order by line limit ?2)",
    )
    .bind(expired)
    .bind(limit)
    .execute(&mut *connection)
    .await
    .map_err(failed)?
    .rows_affected();
    if items < u64::from(limit) {
        let gone = sqlx::query("delete from batch where batch_no = ?1").bind(expired);
        gone.execute(connection).await.map_err(failed)?;
    }
    Ok(u64::from(limit))
}
