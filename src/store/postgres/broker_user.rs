//! Which account a user of the broker sends for.

use super::error::failed;
use super::lines::violated;
use super::pool::Pool;
use super::rows;
use crate::message::AccountId;
use crate::store::{BrokerUser, BrokerUserRow, StoreError};

pub async fn find(pool: &Pool, user: &str) -> Result<Option<BrokerUser>, StoreError> {
    let found = sqlx::query(
        "select u.cdcs_id, a.cdcs_active from broker_user u join account a using (cdcs_id) where u.broker_user = $1",
    )
    .bind(user)
    .fetch_optional(pool)
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

pub async fn map(pool: &Pool, account: AccountId, user: &str) -> Result<(), StoreError> {
    sqlx::query("insert into broker_user (broker_user, cdcs_id) values ($1, $2)")
        .bind(user)
        .bind(account.0)
        .execute(pool)
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

pub async fn unmap(pool: &Pool, user: &str) -> Result<bool, StoreError> {
    sqlx::query("delete from broker_user where broker_user = $1")
        .bind(user)
        .execute(pool)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
}

pub async fn all(pool: &Pool) -> Result<Vec<BrokerUserRow>, StoreError> {
    let found = sqlx::query("select broker_user, cdcs_id, created_at from broker_user order by broker_user")
        .fetch_all(pool)
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
