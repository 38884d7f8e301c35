//! The account of a request, and the line it sends from: tokens and lines, looked up in the store and
//! remembered for a few seconds.
//!
//! Only tokens and lines that may send are remembered: a new one is usable at once, and a change or
//! revocation takes effect within the time below.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::{Refusal, tokens, unavailable};
use crate::channel::Class;
use crate::domain::{AccountId, LineId};
use crate::store::SharedStore;
use crate::text::{Charset, form_pairs, is_blank, trimmed};

/// Well below the ten seconds in which a change has to take effect (contract: "HTTP: the two send
/// endpoints").
const CACHE_TTL: Duration = Duration::from_secs(5);
/// Entries of each cache at most; further ones displace the entries that are used least.
const MAX_CACHED: u64 = 50_000;
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 10..=64;

pub struct Directory {
    store: SharedStore,
    /// Accounts by the hash of a valid token.
    accounts: Cache<Vec<u8>, AccountId>,
    /// Accounts by the name of the broker's user that is mapped to them.
    broker_users: Cache<String, AccountId>,
    lines: Cache<LineId, SendingLine>,
    /// The reasons why lines cannot send before an operator acts.
    held_up: Cache<LineId, Arc<str>>,
}

/// The parts of a line's record that ingest checks.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SendingLine {
    account: AccountId,
    class: Class,
}

impl Directory {
    pub fn new(store: SharedStore) -> Directory {
        Directory { store, accounts: cache(), broker_users: cache(), lines: cache(), held_up: cache() }
    }

    /// Return the account of a request whose token is in its query or its `Authorization` header. `tsid`
    /// takes precedence over `sid`, and `sid` over the header; the last value of a repeated name counts. A
    /// blank token counts as none.
    pub async fn account_of_request(&self, query: &str, bearer: Option<&str>) -> Result<AccountId, Refusal> {
        let given = |wanted: &str| {
            let of_name = form_pairs(query.as_bytes(), Charset::Utf8).filter(|(name, _)| name == wanted);
            of_name.last().map(|(_, value)| value.text).filter(|value| !is_blank(value))
        };
        let token = given("tsid").or_else(|| given("sid"));
        let token = token.as_deref().or(bearer).ok_or(Refusal::NoToken)?;
        self.account(token).await
    }

    /// Return the active account of a token.
    pub async fn account(&self, token: &str) -> Result<AccountId, Refusal> {
        let token = trimmed(token);
        if !TOKEN_LENGTHS.contains(&token.chars().count()) || token.contains(char::is_control) {
            return Err(Refusal::UnknownToken);
        }
        let Some(identifier) = tokens::identifier(token) else { return Err(Refusal::UnknownToken) };
        let hash = tokens::hash(token);
        if let Some(account) = self.accounts.get(&hash) {
            return Ok(account);
        }
        let found = self.store.token(identifier).await.map_err(unavailable)?;
        // An absent token is compared too: the time taken does not distinguish it from a wrong one.
        let known = found.as_ref().map_or(&[0; 32][..], |token| &token.hash);
        let matches = bool::from(known.ct_eq(&hash));
        match found {
            Some(token) if matches && token.account_active => {
                self.accounts.insert(hash, token.account);
                Ok(token.account)
            }
            Some(_) if matches => Err(Refusal::AccountInactive),
            _ => Err(Refusal::UnknownToken),
        }
    }

    /// Return the class of a line of the account; an unknown line counts as Messenger's.
    pub async fn class(&self, account: AccountId, line: LineId) -> Result<Class, Refusal> {
        let unknown = Refusal::LineNotFound(Class::MESSENGER);
        if let Some(usable) = self.lines.get(&line) {
            return if usable.account == account { Ok(usable.class) } else { Err(unknown) };
        }
        let record = self.store.lines(&[line]).await.map_err(unavailable)?.pop();
        record.filter(|record| record.account == account).map(|record| record.class).ok_or(unknown)
    }

    /// Return the active account that a user of the broker sends for. The broker has checked the name.
    pub async fn account_of_broker_user(&self, user: &str) -> Result<AccountId, Refusal> {
        if let Some(account) = self.broker_users.get(user) {
            return Ok(account);
        }
        match self.store.broker_user(user).await.map_err(unavailable)? {
            Some(mapped) if mapped.account_active => {
                self.broker_users.insert(user.to_owned(), mapped.account);
                Ok(mapped.account)
            }
            Some(_) => Err(Refusal::AccountInactive),
            None => Err(Refusal::NoToken),
        }
    }

    /// Check that the account may send from this line, of this class.
    pub async fn usable(&self, account: AccountId, line: LineId, class: Class) -> Result<(), Refusal> {
        let wanted = SendingLine { account, class };
        if self.lines.get(&line) == Some(wanted) {
            return Ok(());
        }
        let record = self.store.lines(&[line]).await.map_err(unavailable)?.pop();
        let record = record
            .filter(|record| record.account == account && record.class == class && record.active)
            .ok_or(Refusal::LineNotFound(class))?;
        if record.page_token.as_ref().is_none_or(|token| is_blank(token.expose_secret())) {
            return Err(Refusal::NoPageToken);
        }
        if class.needs_page_id && record.page_id.as_deref().is_none_or(is_blank) {
            return Err(Refusal::NoPageId);
        }
        match record.held_up() {
            Some(reason) => self.held_up.insert(line, reason.into()),
            None => self.held_up.invalidate(&line),
        }
        self.lines.insert(line, wanted);
        Ok(())
    }

    /// Return the reason why a line that was usable a moment ago cannot send before an operator acts.
    pub fn held_up(&self, line: LineId) -> Option<Arc<str>> {
        self.held_up.get(&line)
    }
}

/// Create a cache of recent values.
fn cache<K, V>() -> Cache<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(MAX_CACHED).time_to_live(CACHE_TTL).build()
}
