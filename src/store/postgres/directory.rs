//! Accounts, tokens, broker users and lines.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::error::failed;
use super::parameters::milliseconds;
use super::pool::Pool;
use super::rows;
use crate::domain::{AccountId, LineId};
use crate::store::{
    AccountRow, BrokerUser, BrokerUserRow, DirectoryStore, LineChange, LineRecord, NewLine, PauseScope,
    StoreError, TokenRecord, TokenRow,
};
use crate::text::seen;

/// The end of a pause that only an operator ends. Not 'infinity', which few clients can read.
const FOR_EVER: &str = "9999-12-31T23:59:59.999Z";

#[async_trait]
impl DirectoryStore for PostgresStore {
    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError> {
        lines(&self.dispatch, Some(ids)).await
    }

    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError> {
        lines(&self.background, None).await
    }

    async fn token(&self, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
        let found = sqlx::query(
            "select t.cdcs_id, t.token_hash, a.cdcs_active from account_token t join account a using (cdcs_id)
             where t.token_id = $1 and t.revoked_at is null",
        )
        .bind(token_id)
        .fetch_optional(&self.ingest)
        .await
        .map_err(failed)?;
        found
            .map(|row| {
                Ok(TokenRecord {
                    account: AccountId(rows::get(&row, "cdcs_id")?),
                    account_active: rows::get(&row, "cdcs_active")?,
                    hash: rows::get(&row, "token_hash")?,
                })
            })
            .transpose()
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

    async fn account_lines(&self, account: AccountId) -> Result<Vec<LineRecord>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar("select v8l_id from cd_v8_line where cdcs_id = $1")
            .bind(account.0)
            .fetch_all(&self.enquiries)
            .await
            .map_err(failed)?;
        let ids: Vec<LineId> = ids.into_iter().map(LineId).collect();
        lines(&self.enquiries, Some(&ids)).await
    }

    async fn update_line(&self, line: LineId, change: &LineChange) -> Result<bool, StoreError> {
        let rate = |rate: Option<Option<u32>>| rate.flatten().map(i64::from);
        changed(
            sqlx::query(
                "update cd_v8_line set
                     v8l_name = coalesce($2, v8l_name), v8l_active = coalesce($3, v8l_active),
                     v8l_rate_text = case when $4 then $5::bigint::integer else v8l_rate_text end,
                     v8l_rate_media = case when $6 then $7::bigint::integer else v8l_rate_media end
                 where v8l_id = $1",
            )
            .bind(line.0)
            .bind(change.name.as_deref())
            .bind(change.active)
            .bind(change.rate_text.is_some())
            .bind(rate(change.rate_text))
            .bind(change.rate_media.is_some())
            .bind(rate(change.rate_media))
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
        let found =
            sqlx::query("select cdcs_id, cdcs_name, cdcs_active, created_at from account order by cdcs_id")
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
                    created_at: rows::get(row, "created_at")?,
                })
            })
            .collect()
    }

    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError> {
        sqlx::query("insert into account_token (token_id, cdcs_id, token_hash) values ($1, $2, $3)")
            .bind(token_id)
            .bind(account.0)
            .bind(hash)
            .execute(&self.background)
            .await
            .map_err(|error| {
                violated(
                    error,
                    &format!("there is no account {account}"),
                    &format!("token {token_id} exists already"),
                )
            })?;
        Ok(())
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let found = sqlx::query(
            "select token_id, cdcs_id, created_at, revoked_at from account_token order by cdcs_id, created_at, token_id",
        )
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        found
            .iter()
            .map(|row| {
                Ok(TokenRow {
                    token_id: rows::get(row, "token_id")?,
                    cdcs_id: AccountId(rows::get(row, "cdcs_id")?),
                    created_at: rows::get(row, "created_at")?,
                    revoked_at: rows::get(row, "revoked_at")?,
                })
            })
            .collect()
    }

    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError> {
        let revoked = sqlx::query(
            "update account_token set revoked_at = now() where token_id = $1 and revoked_at is null",
        )
        .bind(token_id)
        .execute(&self.background)
        .await
        .map_err(failed)?;
        Ok(revoked.rows_affected() > 0)
    }

    async fn map_broker_user(&self, account: AccountId, user: &str) -> Result<(), StoreError> {
        sqlx::query("insert into broker_user (broker_user, cdcs_id) values ($1, $2)")
            .bind(user)
            .bind(account.0)
            .execute(&self.background)
            .await
            .map(drop)
            .map_err(|error| {
                violated(
                    error,
                    &format!("there is no account {account}"),
                    &format!("user {user} is mapped already (account unmap-user --user {user} ends that)"),
                )
            })
    }

    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError> {
        sqlx::query("delete from broker_user where broker_user = $1")
            .bind(user)
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError> {
        let found =
            sqlx::query("select broker_user, cdcs_id, created_at from broker_user order by broker_user")
                .fetch_all(&self.background)
                .await
                .map_err(failed)?;
        found
            .iter()
            .map(|row| {
                Ok(BrokerUserRow {
                    broker_user: rows::get(row, "broker_user")?,
                    cdcs_id: AccountId(rows::get(row, "cdcs_id")?),
                    created_at: rows::get(row, "created_at")?,
                })
            })
            .collect()
    }

    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError> {
        let id: i64 = sqlx::query_scalar(
            "with added as (
                 insert into cd_v8_line (v8l_id, cdcs_id, v8l_name, v8l_class, v8l_wa_api_key, v8l_fb_page_id,
                                         v8l_ig_account_id, v8l_rate_text, v8l_rate_media)
                 values (coalesce($1, nextval(pg_get_serial_sequence('cd_v8_line', 'v8l_id'))), $2, $3, $4, $5, $6, $7, $8, $9)
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
                "update cd_v8_line set v8l_wa_api_key = $2, v8l_paused_until = null, v8l_pause_reason = null where v8l_id = $1",
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
fn violated(error: sqlx::Error, foreign: &str, duplicate: &str) -> StoreError {
    let kind = error.as_database_error().map(|database| database.kind());
    match kind {
        Some(sqlx::error::ErrorKind::ForeignKeyViolation) => StoreError::Invalid(foreign.to_owned()),
        Some(sqlx::error::ErrorKind::UniqueViolation) => StoreError::Invalid(duplicate.to_owned()),
        _ => failed(error),
    }
}

/// Lines by id, or all of them. A pause until 'infinity', set by SQL, is read as one that only an operator
/// ends.
const LINES: &str = "
    select l.v8l_id, l.cdcs_id, l.v8l_name, l.v8l_class, l.v8l_active, a.cdcs_active, l.v8l_wa_api_key,
           l.v8l_fb_page_id, l.v8l_ig_account_id, l.v8l_rate_text, l.v8l_rate_media,
           p.paused_until, (extract(epoch from p.paused_until - now()) * 1000)::bigint as pause_left, l.v8l_pause_reason
    from cd_v8_line l join account a using (cdcs_id), lateral (
        select case when l.v8l_paused_until > '-infinity' then least(l.v8l_paused_until, $2::text::timestamptz) end
        as paused_until) p
    where $1::bigint[] is null or l.v8l_id = any($1) order by l.v8l_id";

/// Return the lines. A line that this version cannot read is left out, so that it stops no other line.
async fn lines(pool: &Pool, ids: Option<&[LineId]>) -> Result<Vec<LineRecord>, StoreError> {
    let found = sqlx::query(LINES)
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
        line(row).map_err(unreadable).ok()
    };
    Ok(found.iter().filter_map(readable).collect())
}

fn line(row: &PgRow) -> Result<LineRecord, StoreError> {
    let rate = |column| Ok(rows::get::<Option<i32>>(row, column)?.and_then(|rate| u32::try_from(rate).ok()));
    Ok(LineRecord {
        id: LineId(rows::get(row, "v8l_id")?),
        account: AccountId(rows::get(row, "cdcs_id")?),
        name: rows::get(row, "v8l_name")?,
        class: rows::word(row, "v8l_class")?,
        active: rows::get(row, "v8l_active")?,
        account_active: rows::get(row, "cdcs_active")?,
        page_token: seen(rows::get(row, "v8l_wa_api_key")?).map(SecretString::from),
        page_id: seen(rows::get(row, "v8l_fb_page_id")?),
        instagram_account_id: seen(rows::get(row, "v8l_ig_account_id")?),
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

fn changed(result: Result<sqlx::postgres::PgQueryResult, sqlx::Error>) -> Result<bool, StoreError> {
    result.map(|done| done.rows_affected() > 0).map_err(failed)
}
