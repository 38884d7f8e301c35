//! The recent look-ups of a batch for its account, lines and campaigns: its lines need no look-up each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::super::Ingest;
use crate::channel::Class;
use crate::domain::{AccountId, LineId, TokenScope};
use crate::edge::Refusal;

const CACHE_TTL: Duration = Duration::from_secs(1);
const MAX_CACHED: usize = 10_000;

pub struct LookupCache {
    account: Option<Result<(), Refusal>>,
    classes: HashMap<LineId, Result<Class, Refusal>>,
    lines: HashMap<(LineId, Class), Result<(), Refusal>>,
    campaigns: HashMap<String, Result<(), Refusal>>,
    since: Instant,
}

impl LookupCache {
    pub fn new() -> LookupCache {
        LookupCache {
            account: None,
            classes: HashMap::new(),
            lines: HashMap::new(),
            campaigns: HashMap::new(),
            since: Instant::now(),
        }
    }

    /// Check that the token still belongs to the account and may send, and that the account is active.
    pub async fn account(
        &mut self,
        ingest: &Ingest,
        account: AccountId,
        token: &SecretString,
        address: IpAddr,
    ) -> Result<(), Refusal> {
        self.refresh();
        if let Some(known) = self.account {
            return known;
        }
        let found = ingest.directory.account(token.expose_secret(), TokenScope::Send, Some(address)).await;
        let found = match found {
            Ok(found) if found == account => Ok(()),
            Ok(_) => Err(Refusal::UnknownToken),
            Err(refusal) => Err(refusal),
        };
        self.account = Some(found);
        found
    }

    /// Return the class of a line.
    pub async fn class(
        &mut self,
        ingest: &Ingest,
        account: AccountId,
        line: LineId,
    ) -> Result<Class, Refusal> {
        self.refresh();
        if let Some(known) = self.classes.get(&line) {
            return *known;
        }
        let found = ingest.directory.class(account, line).await;
        self.classes.insert(line, found);
        found
    }

    /// Check that the account may send from this line.
    pub async fn usable(
        &mut self,
        ingest: &Ingest,
        account: AccountId,
        line: LineId,
        class: Class,
    ) -> Result<(), Refusal> {
        self.refresh();
        if let Some(known) = self.lines.get(&(line, class)) {
            return *known;
        }
        let found = ingest.directory.usable(account, line, class).await;
        self.lines.insert((line, class), found);
        found
    }

    /// Check that a campaign takes messages.
    pub async fn campaign(
        &mut self,
        ingest: &Ingest,
        account: AccountId,
        cp_id: &str,
    ) -> Result<(), Refusal> {
        self.refresh();
        if let Some(known) = self.campaigns.get(cp_id) {
            return *known;
        }
        let found = ingest.campaign_goes_on(account, cp_id).await;
        self.campaigns.insert(cp_id.to_owned(), found);
        found
    }

    fn refresh(&mut self) {
        let most = self.classes.len().max(self.lines.len()).max(self.campaigns.len());
        if most >= MAX_CACHED || self.since.elapsed() >= CACHE_TTL {
            *self = LookupCache::new();
        }
    }
}
