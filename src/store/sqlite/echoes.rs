//! Echoes, kept until the outcome of their call is known.
//!
//! Candidates are looked for on a reading connection first: mostly there are none, and the writing one is not taken.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::Now;
use super::error::failed;
use super::row::{get, list, readable, time, word};
use crate::domain::{LineId, RowId};
use crate::store::{EchoStore, HeardEcho, NamedEcho, NotedEcho, StoreError, UnnamedEcho};
use crate::text::timestamp;

/// Echoes ?1, arrays: row, fence, Page, recipient, Graph's id. The row is of the Page that sent the message.
macro_rules! notable {
    () => {
        "from json_each(?1) j cross join cdls c cross join cd_v8_line l
         where c.cdls_id = j.value->>0 and l.v8l_id = c.v8l_id
           and c.status in ('PENDING', 'RETRY', 'UNKNOWN') and c.class = 'messenger' and c.dest = j.value->>3
           and trim(cast(l.v8l_fb_page_id as text)) = j.value->>2"
    };
}

pub(super) const NOTABLE: &str = concat!("select 1 ", notable!(), " limit 1");
const NOTE: &str = concat!(
    "insert into echo (cdls_id, fence, message_id, noted_at) select c.cdls_id, j.value->>1, j.value->>4, ?2 ",
    notable!(),
    " on conflict (cdls_id) do nothing"
);

/// Echoes ?1, arrays: Graph's id, account, recipient, digest of the text, time.
const NOTE_UNNAMED: &str = "
insert into echo_unnamed (message_id, v8l_ig_account_id, dest, text_digest, sent_at, noted_at)
select j.value->>0, j.value->>1, j.value->>2, cast(j.value->>3 as integer), j.value->>4, ?2
from json_each(?1) j
where exists (
    select 1 from cd_v8_line l
    where l.v8l_class = 'instagram' and trim(cast(l.v8l_ig_account_id as text)) = j.value->>1)
on conflict (message_id) do nothing";

const NOTED: &str = "
select e.cdls_id, e.fence as echoed_fence, e.message_id, c.v8l_id, c.status, c.fence, c.waiter
from (select * from echo order by cdls_id limit ?1) e cross join cdls c where c.cdls_id = e.cdls_id
order by e.cdls_id";

/// Echoes of rows that are no longer in the log.
const GONE: &str =
    "select e.cdls_id from echo e where not exists (select 1 from cdls c where c.cdls_id = e.cdls_id)";

const UNNAMED: &str = "
select l.v8l_id, e.dest, e.message_id, e.text_digest, e.sent_at, e.noted_at
from (select * from echo_unnamed order by noted_at, message_id limit ?1) e cross join cd_v8_line l
where l.v8l_class = 'instagram' and trim(cast(l.v8l_ig_account_id as text)) = e.v8l_ig_account_id
order by e.noted_at, e.message_id, l.v8l_id";

#[async_trait]
impl EchoStore for SqliteStore {
    async fn note_echoes(&self, echoes: &[NamedEcho]) -> Result<(), StoreError> {
        let echoes: Vec<Value> = echoes
            .iter()
            .map(|echo| json!([echo.row.0, echo.fence, echo.page_id, echo.dest, echo.message_id]))
            .collect();
        let echoes = Value::Array(echoes).to_string();
        let is_any = sqlx::query(NOTABLE).bind(&echoes).fetch_optional(&self.reader).await.map_err(failed)?;
        if is_any.is_none() {
            return Ok(());
        }
        sqlx::query(NOTE)
            .bind(echoes)
            .bind(Now::read().text())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn note_unnamed_echoes(&self, echoes: &[UnnamedEcho]) -> Result<(), StoreError> {
        // The digest as text: JSON's numbers do not hold 64 bits for every reader.
        let echoes: Vec<Value> = echoes
            .iter()
            .map(|echo| {
                json!([
                    echo.message_id,
                    echo.instagram_account_id,
                    echo.dest,
                    echo.text.to_string(),
                    timestamp(echo.at)
                ])
            })
            .collect();
        sqlx::query(NOTE_UNNAMED)
            .bind(Value::Array(echoes).to_string())
            .bind(Now::read().text())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn noted_echoes(&self, limit: u32) -> Result<Vec<NotedEcho>, StoreError> {
        let gone: Vec<i64> = sqlx::query_scalar(GONE).fetch_all(&self.reader).await.map_err(failed)?;
        if !gone.is_empty() {
            let gone: Vec<RowId> = gone.into_iter().map(RowId).collect();
            self.forget_echoes(&gone, &[], Duration::MAX).await?;
        }
        let found = sqlx::query(NOTED).bind(limit).fetch_all(&self.reader).await.map_err(failed)?;
        Ok(readable(&found, noted_echo))
    }

    async fn unnamed_echoes(&self, limit: u32) -> Result<Vec<HeardEcho>, StoreError> {
        let now = Now::read();
        let found = sqlx::query(UNNAMED).bind(limit).fetch_all(&self.reader).await.map_err(failed)?;
        Ok(readable(&found, |row| heard_echo(row, now)))
    }

    async fn forget_echoes(
        &self,
        rows: &[RowId],
        message_ids: &[String],
        older_than: Duration,
    ) -> Result<(), StoreError> {
        let before = Now::read().before(older_than);
        sqlx::query("delete from echo where cdls_id in (select value from json_each(?1)) or noted_at < ?2")
            .bind(list(rows.iter().map(|id| id.0)))
            .bind(&before)
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        sqlx::query(
            "delete from echo_unnamed where message_id in (select value from json_each(?1)) or noted_at < ?2",
        )
        .bind(json!(message_ids).to_string())
        .bind(&before)
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(failed)
    }
}

fn noted_echo(row: &SqliteRow) -> Result<NotedEcho, StoreError> {
    Ok(NotedEcho {
        row: RowId(get(row, "cdls_id")?),
        line: LineId(get(row, "v8l_id")?),
        echoed_fence: get(row, "echoed_fence")?,
        message_id: get(row, "message_id")?,
        status: word(row, "status")?,
        fence: get(row, "fence")?,
        waiter: get(row, "waiter")?,
    })
}

fn heard_echo(row: &SqliteRow, now: Now) -> Result<HeardEcho, StoreError> {
    let age = -now.until(time(row, "noted_at")?);
    Ok(HeardEcho {
        line: LineId(get(row, "v8l_id")?),
        dest: get(row, "dest")?,
        message_id: get(row, "message_id")?,
        text: get(row, "text_digest")?,
        at: time(row, "sent_at")?,
        age: age.try_into().unwrap_or_default(),
    })
}
