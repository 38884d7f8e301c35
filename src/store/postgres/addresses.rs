//! Allow-lists of accounts, and banned addresses.

use async_trait::async_trait;
use ipnet::IpNet;

use super::PostgresStore;
use super::error::failed;
use super::parameters::{length, milliseconds};
use super::rows;
use crate::domain::{AccountId, CountedAddress};
use crate::store::{AddressStore, BanInForce, BanRow, MAX_BANS, NewBan, StoreError};

/// Bans $1 with reasons $2 and lengths $3, up to $4 rows. In one order, so that two processes never wait for each other.
const ADD: &str = "
    insert into ban (address, reason, until)
    select b.address, b.reason, now() + b.length_ms * interval '1 millisecond'
    from unnest($1::text[], $2::text[], $3::bigint[]) as b (address, reason, length_ms)
    order by b.address
    limit greatest($4::bigint - (select count(*) from ban), 0)
    on conflict (address) do update
    set until = greatest(ban.until, excluded.until), reason = excluded.reason
    returning address";

#[async_trait]
impl AddressStore for PostgresStore {
    async fn add_bans(&self, bans: &[NewBan]) -> Result<Vec<CountedAddress>, StoreError> {
        sqlx::query("delete from ban where until <= now()")
            .execute(&self.background)
            .await
            .map_err(failed)?;
        let stored: Vec<String> = sqlx::query_scalar(ADD)
            .bind(bans.iter().map(|ban| ban.address.to_string()).collect::<Vec<_>>())
            .bind(bans.iter().map(|ban| ban.reason.clone()).collect::<Vec<_>>())
            .bind(bans.iter().map(|ban| milliseconds(ban.length)).collect::<Vec<_>>())
            .bind(i64::from(MAX_BANS))
            .fetch_all(&self.background)
            .await
            .map_err(failed)?;
        Ok(stored.iter().filter_map(|address| address.parse::<CountedAddress>().ok()).collect())
    }

    async fn bans_in_force(&self) -> Result<Vec<BanInForce>, StoreError> {
        let found: Vec<(String, i64)> = sqlx::query_as(
            "select address, (extract(epoch from least(until, now() + interval '3650 days') - now()) * 1000)::bigint
             from ban where until > now() limit $1",
        )
        .bind(i64::from(MAX_BANS))
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        let in_force = |(address, left): (String, i64)| {
            Some(BanInForce { address: address.parse().ok()?, left: length(left) })
        };
        Ok(found.into_iter().filter_map(in_force).collect())
    }

    async fn bans(&self) -> Result<Vec<BanRow>, StoreError> {
        let found = sqlx::query(
            "select address, reason, created_at, least(until, '9999-12-31T23:59:59.999Z'::timestamptz) as until
             from ban where until > now() order by created_at, address",
        )
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        found
            .iter()
            .map(|row| {
                Ok(BanRow {
                    address: rows::get(row, "address")?,
                    reason: rows::get(row, "reason")?,
                    created_at: rows::get(row, "created_at")?,
                    until: rows::get(row, "until")?,
                })
            })
            .collect()
    }

    async fn lift_bans(&self, only: Option<CountedAddress>) -> Result<Vec<String>, StoreError> {
        let lifted: Vec<(String, bool)> = sqlx::query_as(
            "delete from ban where $1::text is null or address = $1 returning address, until > now()",
        )
        .bind(only.map(|address| address.to_string()))
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        Ok(lifted.into_iter().filter_map(|(address, was_in_force)| was_in_force.then_some(address)).collect())
    }

    async fn allow_networks(
        &self,
        account: AccountId,
        networks: &[IpNet],
        replace: bool,
    ) -> Result<Vec<String>, StoreError> {
        let exists: bool = sqlx::query_scalar("select exists (select from account where cdcs_id = $1)")
            .bind(account.0)
            .fetch_one(&self.background)
            .await
            .map_err(failed)?;
        if !exists {
            return Err(StoreError::Invalid(format!("there is no account {account}")));
        }
        sqlx::query(
            "with gone as (
                 delete from account_network where cdcs_id = $1 and $3 and network <> all ($2::text[]))
             insert into account_network (cdcs_id, network) select $1, unnest($2::text[]) on conflict do nothing",
        )
        .bind(account.0)
        .bind(networks.iter().map(ToString::to_string).collect::<Vec<_>>())
        .bind(replace)
        .execute(&self.background)
        .await
        .map_err(failed)?;
        sqlx::query_scalar("select network from account_network where cdcs_id = $1 order by network")
            .bind(account.0)
            .fetch_all(&self.background)
            .await
            .map_err(failed)
    }
}
