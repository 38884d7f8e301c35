//! Which account a user of the broker sends for.

use sqlx::{Row, SqlitePool};

use super::clock::Now;
use super::directory::{kind, no_account};
use super::error::failed;
use super::row::time;
use crate::message::AccountId;
use crate::store::{BrokerUser, BrokerUserRow, StoreError};

pub async fn find(reader: &SqlitePool, user: &str) -> Result<Option<BrokerUser>, StoreError> {
    let found = sqlx::query(
        "select u.cdcs_id, a.cdcs_active <> 0 as active from broker_user u join account a using (cdcs_id)
         where u.broker_user = ?1",
    )
    .bind(user)
    .fetch_optional(reader)
    .await
    .map_err(failed)?;
    found
        .map(|row| {
            Ok(BrokerUser {
                account: AccountId(row.try_get("cdcs_id").map_err(failed)?),
                account_active: row.try_get("active").map_err(failed)?,
            })
        })
        .transpose()
}

pub async fn map(writer: &SqlitePool, account: AccountId, user: &str) -> Result<(), StoreError> {
    use sqlx::error::ErrorKind;
    sqlx::query("insert into broker_user (broker_user, cdcs_id, created_at) values (?1, ?2, ?3)")
        .bind(user)
        .bind(account.0)
        .bind(Now::read().text())
        .execute(writer)
        .await
        .map(drop)
        .map_err(|error| match kind(&error) {
            Some(ErrorKind::ForeignKeyViolation) => no_account(account),
            Some(ErrorKind::UniqueViolation) => StoreError::Invalid(format!(
                "user {user} is mapped already (account unmap-user --user {user} ends that)"
            )),
            _ => failed(error),
        })
}

pub async fn unmap(writer: &SqlitePool, user: &str) -> Result<bool, StoreError> {
    sqlx::query("delete from broker_user where broker_user = ?1")
        .bind(user)
        .execute(writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
}

pub async fn all(reader: &SqlitePool) -> Result<Vec<BrokerUserRow>, StoreError> {
    let found = sqlx::query("select broker_user, cdcs_id, created_at from broker_user order by broker_user")
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    found
        .iter()
        .map(|row| {
            Ok(BrokerUserRow {
                broker_user: row.try_get("broker_user").map_err(failed)?,
                cdcs_id: AccountId(row.try_get("cdcs_id").map_err(failed)?),
                created_at: time(row, "created_at")?,
            })
        })
        .collect()
}
