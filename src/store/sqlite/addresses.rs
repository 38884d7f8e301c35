//! Allow-lists of accounts, and banned addresses.

use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;

use super::SqliteStore;
use super::clock::Now;
use super::directory::no_account;
use super::error::{begin, commit, failed};
use super::row::{get, readable, time};
use super::tokens::texts;
use crate::domain::{AccountId, CountedAddress};
use crate::store::{AddressStore, BanInForce, BanRow, MAX_BANS, NewBan, StoreError};

#[async_trait]
impl AddressStore for SqliteStore {
    async fn add_bans(&self, bans: &[NewBan]) -> Result<Vec<CountedAddress>, StoreError> {
        let (mut transaction, now) = begin(&self.writer).await?;
        sqlx::query("delete from ban where until <= ?1")
            .bind(now.text())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let known: i64 = sqlx::query_scalar("select count(*) from ban")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let mut room = i64::from(MAX_BANS) - known;
        let mut stored = Vec::new();
        for ban in bans {
            let (address, until) = (ban.address.to_string(), now.after(ban.length));
            let again = sqlx::query("update ban set until = max(until, ?2), reason = ?3 where address = ?1")
                .bind(&address)
                .bind(&until)
                .bind(&ban.reason)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            if again.rows_affected() == 0 {
                if room <= 0 {
                    continue;
                }
                sqlx::query("insert into ban (address, reason, until, created_at) values (?1, ?2, ?3, ?4)")
                    .bind(&address)
                    .bind(&ban.reason)
                    .bind(&until)
                    .bind(now.text())
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
                room -= 1;
            }
            stored.push(ban.address);
        }
        commit(transaction).await?;
        Ok(stored)
    }

    async fn bans_in_force(&self) -> Result<Vec<BanInForce>, StoreError> {
        let found = sqlx::query("select address, until from ban where until > ?1 limit ?2")
            .bind(Now::read().text())
            .bind(MAX_BANS)
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        let now = Now::read();
        let in_force = readable(&found, |row| {
            let address: &str = get(row, "address")?;
            let left: Duration = now.until(time(row, "until")?).try_into().unwrap_or_default();
            Ok(address.parse::<CountedAddress>().ok().map(|address| BanInForce { address, left }))
        });
        Ok(in_force.into_iter().flatten().collect())
    }

    async fn bans(&self) -> Result<Vec<BanRow>, StoreError> {
        let found = sqlx::query(
            "select address, reason, created_at, until from ban where until > ?1 order by created_at, address",
        )
        .bind(Now::read().text())
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(readable(&found, |row| {
            Ok(BanRow {
                address: get(row, "address")?,
                reason: get(row, "reason")?,
                created_at: time(row, "created_at")?,
                until: time(row, "until")?,
            })
        }))
    }

    async fn lift_bans(&self, only: Option<CountedAddress>) -> Result<Vec<String>, StoreError> {
        let now = Now::read().text();
        let lifted: Vec<(String, String)> =
            sqlx::query_as("delete from ban where ?1 is null or address = ?1 returning address, until")
                .bind(only.map(|address| address.to_string()))
                .fetch_all(&self.writer)
                .await
                .map_err(failed)?;
        Ok(lifted.into_iter().filter_map(|(address, until)| (until > now).then_some(address)).collect())
    }

    async fn allow_networks(
        &self,
        account: AccountId,
        networks: &[IpNet],
        replace: bool,
    ) -> Result<Vec<String>, StoreError> {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let (mut transaction, _) = begin(&self.writer).await?;
        let known: i64 = sqlx::query_scalar("select count(*) from account where cdcs_id = ?1")
            .bind(account.0)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        if known == 0 {
            return Err(no_account(account));
        }
        if replace {
            sqlx::query("delete from account_network where cdcs_id = ?1")
                .bind(account.0)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        sqlx::query(
            "insert into account_network (cdcs_id, network) select ?1, value from json_each(?2) where true
             on conflict do nothing",
        )
        .bind(account.0)
        .bind(texts(&networks))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        let networks: Vec<String> =
            sqlx::query_scalar("select network from account_network where cdcs_id = ?1 order by network")
                .bind(account.0)
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        commit(transaction).await?;
        Ok(networks)
    }
}
