//! The guards against repetition: idempotency keys, items of batches, `httpdup` windows.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::error::failed;
use super::parameters::milliseconds;
use super::rows;
use crate::domain::RowId;
use crate::store::intake::{firsts, windows};
use crate::store::{BatchItem, Inserted, NewMessage, RememberedKey, StoreError};

/// A key that has expired is free. A key in use is locked by this statement, so that no other process forgets
/// it meanwhile.
const TAKE_KEYS: &str = "
    insert into idempotency_key as k (cdcs_id, key, request_hash, cdls_id, expires_at)
    select s.cdcs_id, s.key, s.request_hash, s.cdls_id, now() + s.kept_ms * interval '1 millisecond'
    from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[])
         as s(cdcs_id, key, request_hash, cdls_id, kept_ms)
    order by s.cdcs_id, s.key
    on conflict (cdcs_id, key) do update
       set request_hash = excluded.request_hash, cdls_id = excluded.cdls_id, expires_at = excluded.expires_at
       where k.expires_at <= now()
    returning cdls_id";

const READ_KEYS: &str = "
    select s.place, k.request_hash, k.cdls_id
    from unnest($1::bigint[], $2::bigint[], $3::text[]) as s(place, cdcs_id, key)
    join idempotency_key k on k.cdcs_id = s.cdcs_id and k.key = s.key";

const TAKE_ITEMS: &str = "
    insert into batch_line (batch_no, line, cdls_id)
    select s.batch_no, s.line, s.cdls_id
    from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as s(batch_no, line, cdls_id)
    order by s.batch_no, s.line
    on conflict (batch_no, line) do nothing
    returning cdls_id";

const READ_ITEMS: &str = "
    select s.place, l.cdls_id
    from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as s(place, batch_no, line)
    join batch_line l on l.batch_no = s.batch_no and l.line = s.line";

const TAKE_WINDOWS: &str = "
    insert into http_duplicate as d (v8l_id, dest, window_ms, accepted_at)
    select s.v8l_id, s.dest, s.window_ms, now()
    from unnest($1::bigint[], $2::text[], $3::bigint[]) as s(v8l_id, dest, window_ms)
    order by s.v8l_id, s.dest
    on conflict (v8l_id, dest) do update set window_ms = excluded.window_ms, accepted_at = excluded.accepted_at
       where d.accepted_at <= excluded.accepted_at - excluded.window_ms * interval '1 millisecond'
    returning v8l_id, dest";

/// Return the verdict on each message; `None` where the message is to be logged under its id.
pub async fn decide(
    connection: &mut PgConnection,
    messages: &[NewMessage],
    ids: &[i64],
) -> Result<Vec<Option<Inserted>>, StoreError> {
    let mut verdicts = vec![None; messages.len()];
    keys(connection, messages, ids, &mut verdicts).await?;
    items(connection, messages, ids, &mut verdicts).await?;
    let refused = duplicates(connection, messages, &mut verdicts).await?;
    if !refused.is_empty() {
        give_back(connection, messages, &refused).await?;
        // A repetition of a refused message in the same commit is refused with it.
        let gone: HashSet<i64> = refused.iter().map(|place| ids[*place]).collect();
        for verdict in &mut verdicts {
            if matches!(verdict, Some(Inserted::Replay(id)) if gone.contains(&id.0)) {
                *verdict = Some(Inserted::Duplicate);
            }
        }
    }
    Ok(verdicts)
}

async fn keys(
    connection: &mut PgConnection,
    messages: &[NewMessage],
    ids: &[i64],
    verdicts: &mut [Option<Inserted>],
) -> Result<(), StoreError> {
    let first = firsts(messages, |message| message.key().map(|(account, key)| (account, key.key.as_str())));
    if first.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = first.iter().filter_map(|place| Some((*place, messages[*place].key()?))).collect();
    let taken: Vec<i64> = sqlx::query_scalar(TAKE_KEYS)
        .bind(keys.iter().map(|(_, (account, _))| account.0).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, (_, key))| key.key.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, (_, key))| key.request_hash.as_slice()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(place, _)| ids[*place]).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, (_, key))| milliseconds(key.kept)).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let taken: HashSet<i64> = taken.into_iter().collect();
    let others: Vec<_> = messages
        .iter()
        .enumerate()
        .filter(|(place, _)| !taken.contains(&ids[*place]))
        .filter_map(|(place, message)| Some((place, message.key()?)))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let found = sqlx::query(READ_KEYS)
        .bind(others.iter().map(|(place, _)| *place as i64).collect::<Vec<_>>())
        .bind(others.iter().map(|(_, (account, _))| account.0).collect::<Vec<_>>())
        .bind(others.iter().map(|(_, (_, key))| key.key.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let mut known = HashMap::new();
    for row in &found {
        let place: i64 = rows::get(row, "place")?;
        let id = RowId(rows::get(row, "cdls_id")?);
        known.insert(place as usize, RememberedKey { request_hash: rows::get(row, "request_hash")?, id });
    }
    for (place, (_, key)) in others {
        let known = known.get(&place).ok_or_else(vanished)?;
        verdicts[place] = Some(known.verdict(&key.request_hash));
    }
    Ok(())
}

async fn items(
    connection: &mut PgConnection,
    messages: &[NewMessage],
    ids: &[i64],
    verdicts: &mut [Option<Inserted>],
) -> Result<(), StoreError> {
    let first = firsts(messages, NewMessage::batch_item);
    if first.is_empty() {
        return Ok(());
    }
    let item = |place: &usize| messages[*place].batch_item().unwrap_or(BatchItem { batch: 0, number: 0 });
    let taken: Vec<i64> = sqlx::query_scalar(TAKE_ITEMS)
        .bind(first.iter().map(|place| item(place).batch).collect::<Vec<_>>())
        .bind(first.iter().map(|place| item(place).number).collect::<Vec<_>>())
        .bind(first.iter().map(|place| ids[*place]).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let taken: HashSet<i64> = taken.into_iter().collect();
    let others: Vec<usize> = (0..messages.len())
        .filter(|place| messages[*place].batch_item().is_some() && !taken.contains(&ids[*place]))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let found = sqlx::query(READ_ITEMS)
        .bind(others.iter().map(|place| *place as i64).collect::<Vec<_>>())
        .bind(others.iter().map(|place| item(place).batch).collect::<Vec<_>>())
        .bind(others.iter().map(|place| item(place).number).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    for row in &found {
        let place: i64 = rows::get(row, "place")?;
        verdicts[place as usize] = Some(Inserted::Replay(RowId(rows::get(row, "cdls_id")?)));
    }
    if others.iter().any(|place| verdicts[*place].is_none()) { Err(vanished()) } else { Ok(()) }
}

/// Return the error of a key that was forgotten between two statements: a repetition will find it free.
fn vanished() -> StoreError {
    StoreError::Unavailable("a key expired while it was looked at".into())
}

/// Return the places refused as duplicates; their verdicts are set.
async fn duplicates(
    connection: &mut PgConnection,
    messages: &[NewMessage],
    verdicts: &mut [Option<Inserted>],
) -> Result<Vec<usize>, StoreError> {
    let (first, mut refused) = windows(messages, verdicts);
    if first.is_empty() {
        return Ok(Vec::new());
    }
    let taken = sqlx::query_as::<_, (i64, String)>(TAKE_WINDOWS)
        .bind(first.iter().map(|(_, line, _, _)| line.0).collect::<Vec<_>>())
        .bind(first.iter().map(|(_, _, dest, _)| *dest).collect::<Vec<_>>())
        .bind(first.iter().map(|(_, _, _, window)| milliseconds(*window)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let taken: HashSet<(i64, String)> = taken.into_iter().collect();
    for (place, line, dest, _) in first {
        if !taken.contains(&(line.0, dest.to_owned())) {
            refused.push(place);
        }
    }
    for place in &refused {
        verdicts[*place] = Some(Inserted::Duplicate);
    }
    Ok(refused)
}

/// Give back the guards of messages that are not logged: such a message is not remembered either.
async fn give_back(
    connection: &mut PgConnection,
    messages: &[NewMessage],
    refused: &[usize],
) -> Result<(), StoreError> {
    let keys: Vec<_> = refused.iter().filter_map(|place| messages[*place].key()).collect();
    if !keys.is_empty() {
        sqlx::query(
            "delete from idempotency_key k using unnest($1::bigint[], $2::text[]) as s(cdcs_id, key)
             where k.cdcs_id = s.cdcs_id and k.key = s.key",
        )
        .bind(keys.iter().map(|(account, _)| account.0).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, key)| key.key.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    }
    let items: Vec<_> = refused.iter().filter_map(|place| messages[*place].batch_item()).collect();
    if !items.is_empty() {
        sqlx::query(
            "delete from batch_line l using unnest($1::bigint[], $2::bigint[]) as s(batch_no, line)
             where l.batch_no = s.batch_no and l.line = s.line",
        )
        .bind(items.iter().map(|item| item.batch).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.number).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map_err(failed)?;
    }
    Ok(())
}
