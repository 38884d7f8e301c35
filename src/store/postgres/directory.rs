//! Accounts, broker users and lines.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::rows;
use crate::channel::Login;
use crate::domain::{AccountId, LineId};
use crate::store::{
    AccountRow, BrokerUser, BrokerUserRow, DirectoryStore, LineChange, LineRecord, LineSummary, NewLine,
    PauseScope, StoreError,
};
use crate::text::seen;

/// The end of a pause that only an operator ends. Not 'infinity', which few clients can read.
pub(super) const FOR_EVER: &str = "9999-12-31T23:59:59.999Z";

#[async_trait]
impl DirectoryStore for PostgresStore {
    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError> {
        read(&self.dispatch, LINES, Some(ids), line).await
    }

    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError> {
        read(&self.background, LINES, None, line).await
    }

    async fn line_summaries(&self, ids: &[LineId]) -> Result<Vec<LineSummary>, StoreError> {
        read(&self.ingest, SUMMARIES, Some(ids), summary).await
    }

    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError> {
        let found = sqlx::query(
            "select u.cdcs_id, a.cdcs_active from broker_user u join account a using (cdcs_id) where u.broker_user = $1",
        )
        .bind(user)
        .fetch_optional(&self.ingest)
        .await
        .map_err(failed)?;
        found
            .map(|row| {
                Ok(BrokerUser {
                    account: AccountId(rows::get(&row, "cdcs_id")?),
                    account_active: rows::get(&row, "cdcs_active")?,
                })
            })
            .transpose()
    }

    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError> {
        let only = match scope {
            PauseScope::Line(line) => Some(line.0),
            PauseScope::App => None,
        };
        sqlx::query(
            "update cd_v8_line set v8l_paused_until = now() + $2 * interval '1 millisecond', v8l_pause_reason = $3
             where ($1::bigint is null or v8l_id = $1)
               and (v8l_paused_until is null or v8l_paused_until < now() + $2 * interval '1 millisecond')",
        )
        .bind(only)
        .bind(milliseconds(length))
        .bind(reason)
        .execute(&self.dispatch)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn account_lines(&self, account: AccountId) -> Result<Vec<LineSummary>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar("select v8l_id from cd_v8_line where cdcs_id = $1")
            .bind(account.0)
            .fetch_all(&self.enquiries)
            .await
            .map_err(failed)?;
        let ids: Vec<LineId> = ids.into_iter().map(LineId).collect();
        read(&self.enquiries, SUMMARIES, Some(&ids), summary).await
    }

    async fn stopped_lines(&self) -> Result<Vec<LineSummary>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "select l.v8l_id from cd_v8_line l join account a using (cdcs_id)
             where l.v8l_active and a.cdcs_active and (l.v8l_paused_until > now() or not l.v8l_has_token)",
        )
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        let ids: Vec<LineId> = ids.into_iter().map(LineId).collect();
        let lines = read(&self.background, SUMMARIES, Some(&ids), summary).await?;
        Ok(lines.into_iter().filter(LineSummary::is_stopped).collect())
    }

    async fn update_line(&self, line: LineId, change: &LineChange) -> Result<bool, StoreError> {
        let rate = |rate: Option<Option<u32>>| rate.flatten().map(i64::from);
        changed(
            sqlx::query(
                "update cd_v8_line set
                     v8l_name = coalesce($2, v8l_name), v8l_active = coalesce($3, v8l_active),
                     v8l_rate_text = case when $4 then $5::bigint::integer else v8l_rate_text end,
                     v8l_rate_media = case when $6 then $7::bigint::integer else v8l_rate_media end,
                     v8l_fb_page_id = coalesce($8, v8l_fb_page_id),
                     v8l_ig_account_id = coalesce($9, v8l_ig_account_id),
                     v8l_graph = case when $10 then $11::text else v8l_graph end
                 where v8l_id = $1",
            )
            .bind(line.0)
            .bind(change.name.as_deref())
            .bind(change.active)
            .bind(change.rate_text.is_some())
            .bind(rate(change.rate_text))
            .bind(change.rate_media.is_some())
            .bind(rate(change.rate_media))
            .bind(change.page_id.as_deref())
            .bind(change.instagram_account_id.as_deref())
            .bind(change.login.is_some())
            .bind(change.login.flatten().map(Login::as_str))
            .execute(&self.background)
            .await,
        )
    }

    async fn remove_line(&self, line: LineId) -> Result<bool, StoreError> {
        let removed = sqlx::query("delete from cd_v8_line where v8l_id = $1").bind(line.0);
        changed(removed.execute(&self.background).await)
    }

    async fn set_account_active(&self, account: AccountId, active: bool) -> Result<bool, StoreError> {
        let set = sqlx::query("update account set cdcs_active = $2 where cdcs_id = $1").bind(account.0);
        changed(set.bind(active).execute(&self.background).await)
    }

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError> {
        let id = sqlx::query_scalar("insert into account (cdcs_name) values ($1) returning cdcs_id")
            .bind(name)
            .fetch_one(&self.background)
            .await
            .map_err(failed)?;
        Ok(AccountId(id))
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        let found = sqlx::query(
            "select a.cdcs_id, a.cdcs_name, a.cdcs_active, a.created_at,
                    array(select n.network from account_network n where n.cdcs_id = a.cdcs_id order by n.network)
                    as networks
             from account a order by a.cdcs_id",
        )
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        found
            .iter()
            .map(|row| {
                Ok(AccountRow {
                    cdcs_id: AccountId(rows::get(row, "cdcs_id")?),
                    cdcs_name: rows::get(row, "cdcs_name")?,
                    cdcs_active: rows::get(row, "cdcs_active")?,
                    networks: rows::get(row, "networks")?,
                    created_at: rows::get(row, "created_at")?,
                })
            })
            .collect()
    }

    async fn map_broker_user(
        &self,
        account: AccountId,
        user: &str,
        submit_queue: bool,
    ) -> Result<(), StoreError> {
        let mapped = format!("user {user} is mapped already (account unmap-user --user {user} ends that)");
        let changed = sqlx::query(
            "insert into broker_user (broker_user, cdcs_id, submit_queue) values ($1, $2, $3)
             on conflict (broker_user) do update set submit_queue = true
             where broker_user.cdcs_id = excluded.cdcs_id
               and excluded.submit_queue and not broker_user.submit_queue",
        )
        .bind(user)
        .bind(account.0)
        .bind(submit_queue)
        .execute(&self.background)
        .await
        .map_err(|error| violated(error, &format!("there is no account {account}"), &mapped))?;
        if changed.rows_affected() == 0 { Err(StoreError::Invalid(mapped)) } else { Ok(()) }
    }

    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError> {
        sqlx::query("delete from broker_user where broker_user = $1")
            .bind(user)
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn submit_queues(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("select broker_user from broker_user where submit_queue order by broker_user")
            .fetch_all(&self.background)
            .await
            .map_err(failed)
    }

    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError> {
        let found = sqlx::query(
            "select broker_user, cdcs_id, submit_queue, created_at from broker_user order by broker_user",
        )
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        found
            .iter()
            .map(|row| {
                Ok(BrokerUserRow {
                    broker_user: rows::get(row, "broker_user")?,
                    cdcs_id: AccountId(rows::get(row, "cdcs_id")?),
                    submit_queue: rows::get(row, "submit_queue")?,
                    created_at: rows::get(row, "created_at")?,
                })
            })
            .collect()
    }

    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError> {
        let id: i64 = sqlx::query_scalar(
            "with added as (
                 insert into cd_v8_line (v8l_id, cdcs_id, v8l_name, v8l_class, v8l_wa_api_key, v8l_fb_page_id,
                                         v8l_ig_account_id, v8l_rate_text, v8l_rate_media, v8l_graph, v8l_pat_refreshed_at)
                 values (coalesce($1, nextval(pg_get_serial_sequence('cd_v8_line', 'v8l_id'))), $2, $3, $4, $5, $6, $7, $8, $9,
                         $10, now())
                 returning v8l_id)
             select v8l_id from added,
                 lateral (select case when $1::bigint is not null then
                     setval(pg_get_serial_sequence('cd_v8_line', 'v8l_id'),
                            greatest(v8l_id, nextval(pg_get_serial_sequence('cd_v8_line', 'v8l_id')))) end) as passed",
        )
        .bind(line.id.map(|id| id.0))
        .bind(line.account.0)
        .bind(line.name.as_deref())
        .bind(line.class.as_str())
        .bind(line.page_token.expose_secret())
        .bind(line.page_id.as_deref())
        .bind(line.instagram_account_id.as_deref())
        .bind(line.rate_text.map(i64::from))
        .bind(line.rate_media.map(i64::from))
        .bind(line.login.map(Login::as_str))
        .fetch_one(&self.background)
        .await
        .map_err(|error| {
            let id = line.id.map_or_else(String::new, |id| id.to_string());
            violated(error, &format!("there is no account {}", line.account), &format!("line {id} exists already"))
        })?;
        Ok(LineId(id))
    }

    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError> {
        changed(
            sqlx::query(
                "update cd_v8_line set v8l_wa_api_key = $2, v8l_paused_until = null, v8l_pause_reason = null,
                     v8l_pat_version = v8l_pat_version + 1, v8l_pat_expires_at = null, v8l_pat_refreshed_at = now(),
                     v8l_pat_next_try_at = null, v8l_pat_error = null
                 where v8l_id = $1",
            )
            .bind(line.0)
            .bind(page_token.expose_secret())
            .execute(&self.background)
            .await,
        )
    }

    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError> {
        changed(
            sqlx::query(
                "update cd_v8_line set v8l_pause_reason = $4,
                     v8l_paused_until = coalesce(now() + $2 * interval '1 millisecond', $3::text::timestamptz)
                 where v8l_id = $1",
            )
            .bind(line.0)
            .bind(length.map(milliseconds))
            .bind(FOR_EVER)
            .bind(reason)
            .execute(&self.background)
            .await,
        )
    }

    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError> {
        changed(
            sqlx::query(
                "update cd_v8_line set v8l_paused_until = null, v8l_pause_reason = null where v8l_id = $1",
            )
            .bind(line.0)
            .execute(&self.background)
            .await,
        )
    }
}

/// Return a violated constraint in the words of an operator.
pub fn violated(error: sqlx::Error, foreign: &str, duplicate: &str) -> StoreError {
    let kind = error.as_database_error().map(|database| database.kind());
    match kind {
        Some(sqlx::error::ErrorKind::ForeignKeyViolation) => StoreError::Invalid(foreign.to_owned()),
        Some(sqlx::error::ErrorKind::UniqueViolation) => StoreError::Invalid(duplicate.to_owned()),
        _ => failed(error),
    }
}

/// Lines by id, or all of them, with further columns. A pause until 'infinity', set by SQL, is read as one that
/// only an operator ends. `v8l_has_token` may be read without the right to read the token.
macro_rules! select_lines {
    ($further:literal) => {
        concat!(
            "select l.v8l_id, l.cdcs_id, l.v8l_name, l.v8l_class, l.v8l_active, a.cdcs_active, l.v8l_has_token,
                    l.v8l_fb_page_id, l.v8l_ig_account_id, l.v8l_graph, p.pat_expires_at,
                    l.v8l_rate_text, l.v8l_rate_media, p.paused_until,
                    (extract(epoch from p.paused_until - now()) * 1000)::bigint as pause_left, l.v8l_pause_reason",
            $further,
            " from cd_v8_line l join account a using (cdcs_id), lateral (
                  select case when l.v8l_paused_until > '-infinity' then least(l.v8l_paused_until, $2::text::timestamptz) end
                  as paused_until,
                  case when l.v8l_pat_expires_at > '-infinity' then least(l.v8l_pat_expires_at, $2::text::timestamptz) end
                  as pat_expires_at) p
              where $1::bigint[] is null or l.v8l_id = any($1) order by l.v8l_id"
        )
    };
}

const SUMMARIES: &str = select_lines!("");
const LINES: &str = select_lines!(
    ", l.v8l_wa_api_key, l.v8l_pat_version, l.v8l_pat_error, l.v8l_meta_app,
       (select m.secret from meta_app m where m.meta_app_id = l.v8l_meta_app) as app_secret"
);

/// Return the lines. A line that this version cannot read is left out, so that it stops no other line.
async fn read<T>(
    pool: &Pool,
    statement: &str,
    ids: Option<&[LineId]>,
    decode: fn(&PgRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let found = sqlx::query(statement)
        .bind(ids.map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>()))
        .bind(FOR_EVER)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let readable = |row: &PgRow| {
        let unreadable = |error: StoreError| {
            let id = rows::get::<i64>(row, "v8l_id").unwrap_or_default();
            tracing::warn!(line = id, %error, "skipped unreadable row of a line: the line does not send");
        };
        decode(row).map_err(unreadable).ok()
    };
    Ok(found.iter().filter_map(readable).collect())
}

fn summary(row: &PgRow) -> Result<LineSummary, StoreError> {
    let rate = |column| Ok(rows::get::<Option<i32>>(row, column)?.and_then(|rate| u32::try_from(rate).ok()));
    Ok(LineSummary {
        id: LineId(rows::get(row, "v8l_id")?),
        account: AccountId(rows::get(row, "cdcs_id")?),
        name: rows::get(row, "v8l_name")?,
        class: rows::word(row, "v8l_class")?,
        active: rows::get(row, "v8l_active")?,
        account_active: rows::get(row, "cdcs_active")?,
        has_token: rows::get(row, "v8l_has_token")?,
        page_id: seen(rows::get(row, "v8l_fb_page_id")?),
        instagram_account_id: seen(rows::get(row, "v8l_ig_account_id")?),
        login: rows::optional_word(row, "v8l_graph")?,
        token_expires_at: rows::get(row, "pat_expires_at")?,
        rate_text: rate("v8l_rate_text")?,
        rate_media: rate("v8l_rate_media")?,
        paused_until: rows::get(row, "paused_until")?,
        pause_left: rows::get::<Option<i64>>(row, "pause_left")?
            .and_then(|left| u64::try_from(left).ok())
            .filter(|left| *left > 0)
            .map(Duration::from_millis),
        pause_reason: rows::get(row, "v8l_pause_reason")?,
    })
}

fn line(row: &PgRow) -> Result<LineRecord, StoreError> {
    let line = summary(row)?;
    Ok(LineRecord {
        id: line.id,
        account: line.account,
        name: line.name,
        class: line.class,
        active: line.active,
        account_active: line.account_active,
        page_token: seen(rows::get(row, "v8l_wa_api_key")?).map(SecretString::from),
        page_id: line.page_id,
        instagram_account_id: line.instagram_account_id,
        login: line.login,
        token_expires_at: line.token_expires_at,
        token_version: rows::get(row, "v8l_pat_version")?,
        token_error: rows::get(row, "v8l_pat_error")?,
        meta_app: seen(rows::get(row, "v8l_meta_app")?),
        app_secret: seen(rows::get(row, "app_secret")?).map(SecretString::from),
        rate_text: line.rate_text,
        rate_media: line.rate_media,
        paused_until: line.paused_until,
        pause_left: line.pause_left,
        pause_reason: line.pause_reason,
    })
}

fn changed(result: Result<sqlx::postgres::PgQueryResult, sqlx::Error>) -> Result<bool, StoreError> {
    result.map(|done| done.rows_affected() > 0).map_err(failed)
}
