//! The changes that Meta's events make: receipts, recipients that write, blocked lines.
//!
//! No index leads to a row by Graph's id: a receipt names the recipient, and the newest rows of that are looked at. One
//! transaction writes at a time, so rows are read once, and the changes that apply are decided here.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::SqliteStore;
use super::clock::{self, Now};
use super::counts::CampaignDeltas;
use super::error::{begin, commit, failed};
use super::operator::selection::group;
use super::row::{get, readable, time, time_or_null, word};
use crate::channel::Class;
use crate::domain::{AccountId, LineId, RowId};
use crate::store::{
    BLOCKED_PAUSE, EARLY_FOR, EARLY_RESTS, Enforced, GRAPH_PAUSE, InboundEvent, LineOfPage, RECEIPT_ROWS,
    RECEIPT_SKEW, Receipt, ReceiptStore, Receipted, Received, StoreError, WINDOW,
};
use crate::text::timestamp;

/// The words of the counters of campaigns.
const DELIVERED: &str = "DELIVERED";
const READ: &str = "READ";

/// The newest rows of a recipient among which a message without an outcome is looked for.
const OPEN_ROWS: u32 = 20;

/// The rows of receipts ?1, of the newest ?2 to each recipient.
pub(super) const FOUND: &str = "
select j.key as n, c.cdls_id, c.cdcs_id, c.v8l_id, c.cp_id, c.mtype <> 'text' as media, c.delivered_at, c.read_at
from json_each(?1) j cross join cdls c
where c.cdls_id in (
          select r.cdls_id from cdls r indexed by cdls_dest
          where r.cdcs_id = j.value->>0 and r.dest = j.value->>2 order by r.cdls_id desc limit ?2)
  and c.v8l_id = j.value->>1 and c.status = 'OK' and (c.message_id = j.value->>3 or c.sent_at <= j.value->>4)";

/// Of receipts ?1 those whose recipient has a message that was logged before and has no outcome yet, among the newest ?2. Now
/// ?3.
pub(super) const OPEN: &str = "
select distinct j.key as n from json_each(?1) j cross join cdls c
where c.cdls_id in (
          select r.cdls_id from cdls r indexed by cdls_dest
          where r.cdcs_id = j.value->>0 and r.dest = j.value->>2 order by r.cdls_id desc limit ?2)
  and c.v8l_id = j.value->>1 and c.created_at <= j.value->>5
  and (c.status in ('UNKNOWN', 'RETRY') or c.status = 'PENDING' and (c.next_at is null or c.next_at <= ?3))";

const WRITE: &str = "
update cdls set delivered_at = j.value->>1, read_at = j.value->>2 from json_each(?1) j where cdls_id = j.value->>0";

/// Times ?2 and ?3: now, and the next look.
const KEEP: &str = "
insert into early_receipt (cdcs_id, v8l_id, dest, is_read, mark, at, kept_at, look_at)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, ?2, ?3 from json_each(?1) where true
on conflict do nothing";

const DUE: &str = "
select cdcs_id, v8l_id, dest, is_read, mark, at, kept_at from early_receipt where look_at <= ?1 order by look_at limit ?2";

const LOOK_LATER: &str = "
update early_receipt set look_at = j.value->>4 from json_each(?1) j
where v8l_id = j.value->>0 and dest = j.value->>1 and is_read = j.value->>2 and mark = j.value->>3";

const FORGET: &str = "
delete from early_receipt where (v8l_id, dest, is_read, mark) in (
    select value->>0, value->>1, value->>2, value->>3 from json_each(?1))";

const NOTE_INBOUND: &str = "
insert into cd_recipient (v8l_id, dest, last_inbound_at, window_until)
select value->>0, value->>1, value->>2, value->>3 from json_each(?1) where true
on conflict (v8l_id, dest) do update set
    last_inbound_at = excluded.last_inbound_at,
    window_until = max(coalesce(window_until, ''), excluded.window_until),
    unreachable_since = iif(unreachable_since > excluded.last_inbound_at, unreachable_since, null)
where last_inbound_at is null or last_inbound_at < excluded.last_inbound_at";

const NOTE_ENFORCED: &str = "
insert into line_enforcement (v8l_id, action, reason, at) values (?1, ?2, ?3, ?4)
on conflict (v8l_id) do update set action = excluded.action, reason = excluded.reason, at = excluded.at
where at < excluded.at";

#[async_trait]
impl ReceiptStore for SqliteStore {
    async fn event_lines(&self, pages: &[(Class, String)]) -> Result<Vec<LineOfPage>, StoreError> {
        let wanted: Vec<Value> = pages.iter().map(|(class, page)| json!([class, page])).collect();
        let found = sqlx::query(
            "select l.v8l_id, l.cdcs_id, l.v8l_class, j.value->>1 as page, l.v8l_meta_app
             from json_each(?1) j cross join cd_v8_line l
             where l.v8l_class = j.value->>0
               and trim(iif(l.v8l_class = 'instagram', l.v8l_ig_account_id, l.v8l_fb_page_id), ' ' || char(9, 10, 13))
                   = j.value->>1
             order by l.v8l_id",
        )
        .bind(Value::Array(wanted).to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(readable(&found, |row| {
            Ok(LineOfPage {
                line: LineId(get(row, "v8l_id")?),
                account: AccountId(get(row, "cdcs_id")?),
                class: word(row, "v8l_class")?,
                page: get(row, "page")?,
                app: get(row, "v8l_meta_app")?,
            })
        }))
    }

    async fn receive(&self, receipts: &[Receipt]) -> Result<Vec<Received>, StoreError> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let (mut transaction, now) = begin(&self.writer).await?;
        let applied = apply(&mut transaction, receipts, now).await?;
        let early: Vec<Value> = applied.early.iter().map(|receipt| kept(receipt)).collect();
        if !early.is_empty() {
            sqlx::query(KEEP)
                .bind(Value::Array(early).to_string())
                .bind(now.text())
                .bind(now.after(EARLY_RESTS.0))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        commit(transaction).await?;
        Ok(applied.received)
    }

    async fn receive_early(&self, limit: u32) -> Result<Vec<Received>, StoreError> {
        // The look is on a reading connection first: mostly there are none, and no lock is taken.
        let at = Now::read().text();
        let look = sqlx::query(DUE).bind(&at).bind(1).fetch_optional(&self.reader).await.map_err(failed)?;
        if look.is_none() {
            return Ok(Vec::new());
        }
        let (mut transaction, now) = begin(&self.writer).await?;
        let found = sqlx::query(DUE)
            .bind(now.text())
            .bind(limit)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let due = readable(&found, early_receipt);
        let receipts: Vec<Receipt> = due.iter().map(|(receipt, _)| receipt.clone()).collect();
        let applied = apply(&mut transaction, &receipts, now).await?;
        let early: HashSet<&Receipt> = applied.early.iter().copied().collect();
        let (mut later, mut settled) = (Vec::new(), Vec::new());
        for (receipt, kept_at) in &due {
            let age: Duration = (-now.until(*kept_at)).try_into().unwrap_or_default();
            if early.contains(receipt) && age < EARLY_FOR {
                later.push(key(receipt, Some(now.after(age.clamp(EARLY_RESTS.0, EARLY_RESTS.1)))));
            } else {
                settled.push(key(receipt, None));
            }
        }
        for (statement, keys) in [(LOOK_LATER, later), (FORGET, settled)] {
            if !keys.is_empty() {
                let query = sqlx::query(statement).bind(Value::Array(keys).to_string());
                query.execute(&mut *transaction).await.map_err(failed)?;
            }
        }
        commit(transaction).await?;
        Ok(applied.received)
    }

    async fn note_inbound(&self, inbound: &[InboundEvent]) -> Result<(), StoreError> {
        // Of several events for one recipient the latest counts.
        let mut latest: BTreeMap<(i64, &str), OffsetDateTime> = BTreeMap::new();
        for event in inbound {
            let at = latest.entry((event.line.0, event.dest.as_str())).or_insert(event.at);
            *at = event.at.max(*at);
        }
        let events = latest.into_iter().map(|((line, dest), at)| {
            json!([line, dest, clock::later(at, Duration::ZERO), clock::later(at, WINDOW)])
        });
        sqlx::query(NOTE_INBOUND)
            .bind(Value::from_iter(events).to_string())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn enforce(&self, enforced: &[Enforced]) -> Result<Vec<LineId>, StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
        let mut changed = Vec::new();
        for event in Enforced::newest(enforced) {
            if enforce(&mut transaction, event, now).await? {
                changed.push(event.line);
            }
        }
        commit(transaction).await?;
        Ok(changed)
    }
}

/// The rows that receipts changed, and the receipts that came too early for some of their messages.
struct Applied<'a> {
    received: Vec<Received>,
    early: Vec<&'a Receipt>,
}

/// A row and its times as receipts tell them.
struct ReceiptedRow<'a> {
    row: &'a SqliteRow,
    delivered_at: OffsetDateTime,
    read_at: Option<OffsetDateTime>,
}

async fn apply<'a>(
    connection: &mut SqliteConnection,
    receipts: &'a [Receipt],
    now: Now,
) -> Result<Applied<'a>, StoreError> {
    let told = Value::from_iter(receipts.iter().map(values)).to_string();
    let found = sqlx::query(FOUND)
        .bind(&told)
        .bind(RECEIPT_ROWS)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let open: Vec<i64> = sqlx::query_scalar(OPEN)
        .bind(&told)
        .bind(OPEN_ROWS)
        .bind(now.text())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let (rows, matched) = receipted(receipts, &found)?;
    let received = write(connection, &rows, now).await?;
    let is_early = |receipt: &Receipt, n: i64| receipt.of.message_id().is_none() || !matched.contains(&n);
    let early = open.into_iter().filter_map(|n| {
        let receipt = receipts.get(usize::try_from(n).ok()?)?;
        is_early(receipt, n).then_some(receipt)
    });
    Ok(Applied { received, early: early.collect() })
}

/// Return the rows with the earliest time of each kind, and the places of the receipts that have rows.
fn receipted<'a>(
    receipts: &[Receipt],
    found: &'a [SqliteRow],
) -> Result<(BTreeMap<i64, ReceiptedRow<'a>>, HashSet<i64>), StoreError> {
    let mut rows: BTreeMap<i64, ReceiptedRow<'a>> = BTreeMap::new();
    let mut matched = HashSet::new();
    for row in found {
        let n: i64 = get(row, "n")?;
        let Some(receipt) = usize::try_from(n).ok().and_then(|n| receipts.get(n)) else { continue };
        matched.insert(n);
        let entry = rows.entry(get(row, "cdls_id")?);
        let times = entry.or_insert(ReceiptedRow { row, delivered_at: receipt.at, read_at: None });
        times.delivered_at = times.delivered_at.min(receipt.at);
        if receipt.is_read {
            times.read_at = Some(times.read_at.map_or(receipt.at, |read_at| read_at.min(receipt.at)));
        }
    }
    Ok((rows, matched))
}

/// Write the times that are new or earlier; return the rows of which more is known now.
async fn write(
    connection: &mut SqliteConnection,
    rows: &BTreeMap<i64, ReceiptedRow<'_>>,
    now: Now,
) -> Result<Vec<Received>, StoreError> {
    let (mut updates, mut received, mut counts) = (Vec::new(), Vec::new(), CampaignDeltas::default());
    for (id, told) in rows {
        let had_delivered = time_or_null(told.row, "delivered_at")?;
        let had_read = time_or_null(told.row, "read_at")?;
        let delivered_at = Some(had_delivered.map_or(told.delivered_at, |had| had.min(told.delivered_at)));
        let read_at = earliest(had_read, told.read_at);
        if (delivered_at, read_at) == (had_delivered, had_read) {
            continue;
        }
        updates.push(json!([id, delivered_at.map(timestamp), read_at.map(timestamp)]));
        let new = Received {
            id: RowId(*id),
            delivered_at: delivered_at.filter(|_| had_delivered.is_none()),
            read_at: read_at.filter(|_| had_read.is_none()),
        };
        for (word, at) in [(DELIVERED, new.delivered_at), (READ, new.read_at)] {
            if let (Some(_), Some(group)) = (at, group(told.row)?) {
                counts.received(group, word);
            }
        }
        if new.delivered_at.or(new.read_at).is_some() {
            received.push(new);
        }
    }
    if !updates.is_empty() {
        let query = sqlx::query(WRITE).bind(Value::Array(updates).to_string());
        query.execute(&mut *connection).await.map_err(failed)?;
        counts.write(connection, now).await?;
    }
    Ok(received)
}

fn earliest(one: Option<OffsetDateTime>, other: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    one.into_iter().chain(other).min()
}

/// Return a receipt as the statements that look for rows bind it.
fn values(receipt: &Receipt) -> Value {
    json!([
        receipt.account,
        receipt.line,
        receipt.dest,
        receipt.of.message_id(),
        receipt.of.up_to().map(timestamp),
        timestamp(receipt.at + RECEIPT_SKEW),
    ])
}

fn kept(receipt: &Receipt) -> Value {
    let is_read = i32::from(receipt.is_read);
    json!([receipt.account, receipt.line, receipt.dest, is_read, receipt.of.mark(), timestamp(receipt.at)])
}

/// Return the key of a kept receipt, with the time of its next look.
fn key(receipt: &Receipt, look_at: Option<String>) -> Value {
    json!([receipt.line, receipt.dest, i32::from(receipt.is_read), receipt.of.mark(), look_at])
}

fn early_receipt(row: &SqliteRow) -> Result<(Receipt, OffsetDateTime), StoreError> {
    let mark: &str = get(row, "mark")?;
    let unreadable =
        || StoreError::Rejected("the mark of an early receipt is unknown to this version".into());
    let receipt = Receipt {
        account: AccountId(get(row, "cdcs_id")?),
        line: LineId(get(row, "v8l_id")?),
        dest: get(row, "dest")?,
        of: Receipted::of_mark(mark).ok_or_else(unreadable)?,
        at: time(row, "at")?,
        is_read: get(row, "is_read")?,
    };
    Ok((receipt, time(row, "kept_at")?))
}

/// Note the event, unless a newer one is noted, and change the line's pause; return whether that changed.
async fn enforce(connection: &mut SqliteConnection, event: &Enforced, now: Now) -> Result<bool, StoreError> {
    let noted = sqlx::query(NOTE_ENFORCED)
        .bind(event.line.0)
        .bind(event.action())
        .bind(event.reason.as_deref())
        .bind(timestamp(event.at))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    if noted.rows_affected() == 0 {
        return Ok(false);
    }
    type Text = Option<Vec<u8>>;
    let pause: Option<(Text, Text)> = sqlx::query_as(
        "select cast(v8l_paused_until as blob), cast(v8l_pause_reason as blob) from cd_v8_line where v8l_id = ?1",
    )
    .bind(event.line.0)
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    let Some((until, reason)) = pause else { return Ok(false) };
    let text = |bytes: Text| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    // Compared as times: another program may have written them in another notation.
    let is_paused = clock::parse(&text(until)).is_some_and(|until| now.is_before(until));
    let reason = text(reason);
    let applies = match event.pause {
        Some(_) => !is_paused || reason.starts_with(GRAPH_PAUSE),
        None => reason.starts_with(BLOCKED_PAUSE),
    };
    if applies {
        sqlx::query("update cd_v8_line set v8l_paused_until = ?2, v8l_pause_reason = ?3 where v8l_id = ?1")
            .bind(event.line.0)
            .bind(event.pause.as_ref().map(|_| clock::FOREVER))
            .bind(event.pause.as_deref())
            .execute(connection)
            .await
            .map_err(failed)?;
    }
    Ok(applies)
}
