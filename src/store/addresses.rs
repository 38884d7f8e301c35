//! The addresses from which callers may come: allow-lists of accounts, and bans that all processes share.
//!
//! Never here: when an address is banned.

use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use time::OffsetDateTime;

use super::StoreError;
use crate::domain::{AccountId, CountedAddress};

/// Bans that are kept at most; further ones are not stored until others have ended.
pub const MAX_BANS: u32 = 25_000;

/// A ban to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBan {
    pub address: CountedAddress,
    pub reason: String,
    pub length: Duration,
}

/// A ban in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanInForce {
    pub address: CountedAddress,
    /// The time left, by the database's clock.
    pub left: Duration,
}

/// A ban as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BanRow {
    pub address: String,
    pub reason: String,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
    #[serde(serialize_with = "crate::text::time")]
    pub until: OffsetDateTime,
}

/// The statements about addresses of callers.
#[async_trait]
pub trait AddressStore: Send + Sync {
    /// Store bans, unless there are [`MAX_BANS`], and delete ended ones. A ban of a banned address ends with the later of
    /// both. Return the addresses whose ban is stored.
    async fn add_bans(&self, bans: &[NewBan]) -> Result<Vec<CountedAddress>, StoreError>;

    /// Return the bans in force. A row that is no address is left out.
    async fn bans_in_force(&self) -> Result<Vec<BanInForce>, StoreError>;

    /// Return the bans in force as listed, by the time of their beginning.
    async fn bans(&self) -> Result<Vec<BanRow>, StoreError>;

    /// Lift the ban of an address, or all; return the addresses whose bans were in force.
    async fn lift_bans(&self, only: Option<CountedAddress>) -> Result<Vec<String>, StoreError>;

    /// Let an account be used from these networks; with `replace` from no other ones. Without any network it may be used
    /// from everywhere. Return its networks; `Invalid` if the account does not exist.
    async fn allow_networks(
        &self,
        account: AccountId,
        networks: &[IpNet],
        replace: bool,
    ) -> Result<Vec<String>, StoreError>;
}
