//! Accounts, tokens and new lines: what operators add and list.

use secrecy::ExposeSecret;
use sqlx::error::ErrorKind;
use sqlx::{Row, SqlitePool};

use super::clock::Now;
use super::error::failed;
use super::row::{time, time_or_null};
use crate::message::{AccountId, LineId};
use crate::store::{AccountRow, NewLine, StoreError, TokenRow};

pub async fn add_account(writer: &SqlitePool, name: &str) -> Result<AccountId, StoreError> {
    let added = sqlx::query("insert into account (cdcs_name, created_at) values (?1, ?2)")
        .bind(name)
        .bind(Now::read().text())
        .execute(writer)
        .await
        .map_err(failed)?;
    Ok(AccountId(added.last_insert_rowid()))
}

/// All accounts, by id.
pub async fn accounts(reader: &SqlitePool) -> Result<Vec<AccountRow>, StoreError> {
    let rows = sqlx::query(
        "select cdcs_id, cdcs_name, cdcs_active <> 0 as active, created_at from account order by cdcs_id",
    )
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(AccountRow {
                cdcs_id: AccountId(row.try_get("cdcs_id").map_err(failed)?),
                cdcs_name: row.try_get("cdcs_name").map_err(failed)?,
                cdcs_active: row.try_get("active").map_err(failed)?,
                created_at: time(row, "created_at")?,
            })
        })
        .collect()
}

pub async fn add_token(
    writer: &SqlitePool,
    account: AccountId,
    token_id: &str,
    hash: &[u8],
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into account_token (token_id, cdcs_id, token_hash, created_at) values (?1, ?2, ?3, ?4)",
    )
    .bind(token_id)
    .bind(account.0)
    .bind(hash)
    .bind(Now::read().text())
    .execute(writer)
    .await
    .map(drop)
    .map_err(|error| match kind(&error) {
        Some(ErrorKind::ForeignKeyViolation) => no_account(account),
        Some(ErrorKind::UniqueViolation) => StoreError::Invalid(format!("token {token_id} exists already")),
        _ => failed(error),
    })
}

/// All tokens, oldest first.
pub async fn tokens(reader: &SqlitePool) -> Result<Vec<TokenRow>, StoreError> {
    let rows = sqlx::query(
        "select token_id, cdcs_id, created_at, revoked_at from account_token order by created_at, token_id",
    )
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(TokenRow {
                token_id: row.try_get("token_id").map_err(failed)?,
                cdcs_id: AccountId(row.try_get("cdcs_id").map_err(failed)?),
                created_at: time(row, "created_at")?,
                revoked_at: time_or_null(row, "revoked_at")?,
            })
        })
        .collect()
}

/// Whether there was such a token that was not revoked yet.
pub async fn revoke_token(writer: &SqlitePool, token_id: &str) -> Result<bool, StoreError> {
    sqlx::query("update account_token set revoked_at = ?2 where token_id = ?1 and revoked_at is null")
        .bind(token_id)
        .bind(Now::read().text())
        .execute(writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
}

pub async fn add_line(writer: &SqlitePool, line: &NewLine) -> Result<LineId, StoreError> {
    let added = sqlx::query(
        "insert into cd_v8_line (v8l_id, cdcs_id, v8l_name, v8l_class, v8l_wa_api_key, v8l_fb_page_id,
                                 v8l_ig_account_id, v8l_rate_text, v8l_rate_media)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(line.id.map(|id| id.0))
    .bind(line.account.0)
    .bind(&line.name)
    .bind(line.class.as_str())
    .bind(line.page_token.expose_secret())
    .bind(&line.page_id)
    .bind(&line.instagram_account_id)
    .bind(line.rate_text)
    .bind(line.rate_media)
    .execute(writer)
    .await
    .map_err(|error| match (kind(&error), line.id) {
        (Some(ErrorKind::ForeignKeyViolation), _) => no_account(line.account),
        (Some(ErrorKind::UniqueViolation), Some(id)) => {
            StoreError::Invalid(format!("line {id} exists already"))
        }
        (Some(ErrorKind::CheckViolation), _) => {
            StoreError::Invalid("a line's id and its rates must be positive".into())
        }
        _ => failed(error),
    })?;
    Ok(LineId(added.last_insert_rowid()))
}

pub(super) fn no_account(account: AccountId) -> StoreError {
    StoreError::Invalid(format!("account {account} does not exist"))
}

pub(super) fn kind(error: &sqlx::Error) -> Option<ErrorKind> {
    error.as_database_error().map(|error| error.kind())
}
