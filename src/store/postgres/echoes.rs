//! Echoes, kept until the outcome of their call is known.
//!
//! The rows that echoes name are looked up range by range, and read without a lock: the recorder checks the row again
//! when it settles it.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::error::failed;
use super::log::ranges::{split, unless_missing};
use super::parameters::{length, milliseconds};
use super::rows;
use crate::domain::{LineId, RowId};
use crate::store::{EchoStore, HeardEcho, NamedEcho, NotedEcho, StoreError, UnnamedEcho};

/// Echoes: rows $1, fences $2, Pages $3, recipients $4, Graph's ids $5. The row is of the Page that sent the message.
const NOTE: &str = "
    insert into echo (cdls_id, fence, message_id)
    select e.cdls_id, e.fence, e.message_id
    from unnest($1::bigint[], $2::integer[], $3::text[], $4::text[], $5::text[])
        as e(cdls_id, fence, page_id, dest, message_id)
    join cdls_{range} c on c.cdls_id = e.cdls_id
    join cd_v8_line l on l.v8l_id = c.v8l_id
    where c.status in ('PENDING', 'RETRY', 'UNKNOWN') and c.class = 'messenger' and c.dest = e.dest
      and btrim(l.v8l_fb_page_id) = e.page_id
    order by e.cdls_id
    on conflict (cdls_id) do nothing";

const NOTE_UNNAMED: &str = "
    insert into echo_unnamed (message_id, v8l_ig_account_id, dest, text_digest, sent_at)
    select e.message_id, e.account, e.dest, e.text_digest, e.sent_at
    from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[])
        as e(message_id, account, dest, text_digest, sent_at)
    where exists (select from cd_v8_line l where l.v8l_class = 'instagram' and btrim(l.v8l_ig_account_id) = e.account)
    order by e.message_id
    on conflict (message_id) do nothing";

const NOTED: &str = "select cdls_id, fence, message_id from echo order by cdls_id limit $1";

const ECHOED: &str = "select c.cdls_id, c.v8l_id, c.status, c.fence, c.waiter from cdls_{range} c where c.cdls_id = any($1::bigint[])";

const UNNAMED: &str = "
    select l.v8l_id, e.dest, e.message_id, e.text_digest, e.sent_at,
           (extract(epoch from now() - e.noted_at) * 1000)::bigint as age_ms
    from (select * from echo_unnamed order by noted_at, message_id limit $1) as e
    join cd_v8_line l on l.v8l_class = 'instagram' and btrim(l.v8l_ig_account_id) = e.v8l_ig_account_id
    order by e.noted_at, e.message_id, l.v8l_id";

const FORGET: &str =
    "delete from echo where cdls_id = any($1::bigint[]) or noted_at < now() - $2 * interval '1 millisecond'";
const FORGET_UNNAMED: &str = "
    delete from echo_unnamed
    where message_id = any($1::text[]) or noted_at < now() - $2 * interval '1 millisecond'";

#[async_trait]
impl EchoStore for PostgresStore {
    async fn note_echoes(&self, echoes: &[NamedEcho]) -> Result<(), StoreError> {
        // One echo a row: a statement adds no row twice.
        let mut by_row: HashMap<i64, &NamedEcho> = HashMap::new();
        for echo in echoes {
            by_row.entry(echo.row.0).or_insert(echo);
        }
        let mut ids: Vec<i64> = by_row.keys().copied().collect();
        ids.sort_unstable();
        for (range, ids) in split(&ids) {
            let of_range: Vec<&NamedEcho> = ids.iter().filter_map(|id| by_row.get(id).copied()).collect();
            let statement = NOTE.replace("{range}", &range.to_string());
            let noted = sqlx::query(&statement)
                .bind(ids)
                .bind(of_range.iter().map(|echo| echo.fence).collect::<Vec<_>>())
                .bind(of_range.iter().map(|echo| echo.page_id.as_str()).collect::<Vec<_>>())
                .bind(of_range.iter().map(|echo| echo.dest.as_str()).collect::<Vec<_>>())
                .bind(of_range.iter().map(|echo| echo.message_id.as_str()).collect::<Vec<_>>())
                .fetch_all(&self.enquiries)
                .await;
            unless_missing(noted)?;
        }
        Ok(())
    }

    async fn note_unnamed_echoes(&self, echoes: &[UnnamedEcho]) -> Result<(), StoreError> {
        sqlx::query(NOTE_UNNAMED)
            .bind(echoes.iter().map(|echo| echo.message_id.as_str()).collect::<Vec<_>>())
            .bind(echoes.iter().map(|echo| echo.instagram_account_id.as_str()).collect::<Vec<_>>())
            .bind(echoes.iter().map(|echo| echo.dest.as_str()).collect::<Vec<_>>())
            .bind(echoes.iter().map(|echo| echo.text).collect::<Vec<_>>())
            .bind(echoes.iter().map(|echo| echo.at).collect::<Vec<_>>())
            .execute(&self.enquiries)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn noted_echoes(&self, limit: u32) -> Result<Vec<NotedEcho>, StoreError> {
        let found =
            sqlx::query(NOTED).bind(i64::from(limit)).fetch_all(&self.dispatch).await.map_err(failed)?;
        let mut noted: HashMap<i64, (i32, String)> = HashMap::new();
        let mut ids: Vec<i64> = Vec::new();
        for row in &found {
            let id = rows::get(row, "cdls_id")?;
            noted.insert(id, (rows::get(row, "fence")?, rows::get(row, "message_id")?));
            ids.push(id);
        }
        let mut echoed: Vec<NotedEcho> = Vec::new();
        for (range, ids) in split(&ids) {
            let statement = ECHOED.replace("{range}", &range.to_string());
            let found = sqlx::query(&statement).bind(ids).fetch_all(&self.dispatch).await;
            let found = unless_missing(found)?;
            echoed.extend(rows::readable(&found, |row| noted_echo(row, &noted)));
        }
        for echo in &echoed {
            noted.remove(&echo.row.0);
        }
        // Rows of ranges that were taken out of the log.
        let gone: Vec<RowId> = noted.into_keys().map(RowId).collect();
        if !gone.is_empty() {
            self.forget_echoes(&gone, &[], Duration::MAX).await?;
        }
        Ok(echoed)
    }

    async fn unnamed_echoes(&self, limit: u32) -> Result<Vec<HeardEcho>, StoreError> {
        let found =
            sqlx::query(UNNAMED).bind(i64::from(limit)).fetch_all(&self.background).await.map_err(failed)?;
        Ok(rows::readable(&found, heard_echo))
    }

    async fn forget_echoes(
        &self,
        named: &[RowId],
        message_ids: &[String],
        older_than: Duration,
    ) -> Result<(), StoreError> {
        // Far more than a calendar's worth of milliseconds is no interval.
        let older_than = milliseconds(older_than.min(LONGEST));
        sqlx::query(FORGET)
            .bind(named.iter().map(|id| id.0).collect::<Vec<_>>())
            .bind(older_than)
            .execute(&self.dispatch)
            .await
            .map_err(failed)?;
        sqlx::query(FORGET_UNNAMED)
            .bind(message_ids)
            .bind(older_than)
            .execute(&self.dispatch)
            .await
            .map(drop)
            .map_err(failed)
    }
}

/// Longer than any echo is kept.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

fn noted_echo(row: &PgRow, noted: &HashMap<i64, (i32, String)>) -> Result<NotedEcho, StoreError> {
    let id: i64 = rows::get(row, "cdls_id")?;
    let (echoed_fence, message_id) = noted.get(&id).cloned().unwrap_or_default();
    Ok(NotedEcho {
        row: RowId(id),
        line: LineId(rows::get(row, "v8l_id")?),
        echoed_fence,
        message_id,
        status: rows::word(row, "status")?,
        fence: rows::get(row, "fence")?,
        waiter: rows::get(row, "waiter")?,
    })
}

fn heard_echo(row: &PgRow) -> Result<HeardEcho, StoreError> {
    Ok(HeardEcho {
        line: LineId(rows::get(row, "v8l_id")?),
        dest: rows::get(row, "dest")?,
        message_id: rows::get(row, "message_id")?,
        text: rows::get(row, "text_digest")?,
        at: rows::get(row, "sent_at")?,
        age: length(rows::get(row, "age_ms")?),
    })
}
