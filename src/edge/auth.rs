//! The account of a request, and the line it sends from: looked up in the store and remembered for a few seconds.
//!
//! Only lines and tokens that may send are remembered: a new one is usable at once, and a change or revocation takes
//! effect within the time below. The check of a token is the authenticator's.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use secrecy::SecretString;

use super::authenticator::Authenticator;
use super::tokens::TokenKeys;
use super::{Caller, Guard, Refusal, Refused, unavailable};
use crate::channel::Class;
use crate::domain::{AccountId, LineId, TokenScope};
use crate::store::{LineSummary, SharedStore, StoreError};
use crate::text::{Charset, form_pairs, is_blank};

/// Well below the ten seconds in which a change has to take effect (contract: "HTTP: the two send
/// endpoints").
pub(super) const CACHE_TTL: Duration = Duration::from_secs(5);
/// Entries of each cache at most; further ones displace the entries that are used least.
pub(super) const MAX_CACHED: u64 = 50_000;

pub struct Directory {
    store: SharedStore,
    authenticator: Authenticator,
    /// Accounts by the name of the broker's user that is mapped to them.
    broker_users: Cache<String, AccountId>,
    lines: Cache<LineId, SendingLine>,
    /// The reasons why lines cannot send before somebody acts.
    held_up: Cache<LineId, Arc<str>>,
}

/// The parts of a line's record that ingest checks.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SendingLine {
    account: AccountId,
    class: Class,
}

impl Directory {
    pub fn new(store: SharedStore, keys: TokenKeys, guard: Arc<Guard>) -> Directory {
        let authenticator = Authenticator::new(store.clone(), keys, guard);
        Directory { store, authenticator, broker_users: cache(), lines: cache(), held_up: cache() }
    }

    /// Return the refusal of a request by its head alone: its address is shut out, and its token is not known. The token is
    /// read only where the address is shut out: most are not.
    pub fn shut_out(
        &self,
        caller: &Caller,
        query: &str,
        bearer: impl FnOnce() -> Option<String>,
        has_body: bool,
    ) -> Option<Refusal> {
        self.authenticator.shut_out(caller, || given(query, bearer().as_deref()), has_body)
    }

    /// Return the account of a request whose token is in its query or its `Authorization` header, and count a
    /// failure of its address. `tsid` takes precedence over `sid`, and `sid` over the header; the last value of a
    /// repeated name counts. A blank token counts as none.
    pub async fn account_of_request(
        &self,
        caller: &Caller,
        query: &str,
        bearer: Option<&str>,
        scope: TokenScope,
    ) -> Result<AccountId, Refused> {
        let token = given(query, bearer).map(SecretString::from).ok_or_else(|| Refusal::NoToken.into());
        self.admit(caller, &token, scope).await
    }

    /// Return the active account of a request's token, if the token has the scope, and count a failure of its address.
    pub async fn admit(
        &self,
        caller: &Caller,
        token: &Result<SecretString, Refused>,
        scope: TokenScope,
    ) -> Result<AccountId, Refused> {
        self.authenticator.admit(caller, token, scope).await
    }

    /// Return the active account of a token, if the token has the scope and the account allows the address; nothing
    /// is counted.
    pub async fn account(
        &self,
        token: &str,
        scope: TokenScope,
        address: Option<IpAddr>,
    ) -> Result<AccountId, Refusal> {
        self.authenticator.account(token, scope, address).await
    }

    /// Write the uses of tokens. Return the pause before the next time.
    pub async fn write_token_uses(&self) -> Duration {
        self.authenticator.write_uses().await
    }

    /// Return the class of a line of the account; an unknown line counts as Messenger's.
    pub async fn class(&self, account: AccountId, line: LineId) -> Result<Class, Refusal> {
        let unknown = Refusal::LineNotFound(Class::MESSENGER);
        if let Some(usable) = self.lines.get(&line) {
            return if usable.account == account { Ok(usable.class) } else { Err(unknown) };
        }
        let record = self.store.line_summaries(&[line]).await.map_err(unavailable)?.pop();
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
        let record = self.store.line_summaries(&[line]).await.map_err(unavailable)?.pop();
        let record = record
            .filter(|record| record.account == account && record.class == class && record.active)
            .ok_or(Refusal::LineNotFound(class))?;
        if !record.has_token {
            return Err(Refusal::NoPageToken);
        }
        if class.needs_page_id && record.page_id.as_deref().is_none_or(is_blank) {
            return Err(Refusal::NoPageId);
        }
        self.note(&record);
        self.lines.insert(line, wanted);
        Ok(())
    }

    /// Return the reason why a line that was usable a moment ago cannot send before somebody acts. A known reason is
    /// asked for again, as somebody may have acted.
    pub async fn held_up(&self, line: LineId) -> Option<Arc<str>> {
        let known = self.held_up.get(&line)?;
        self.held_up_of(&[line]).await.map_or(Some(known), |mut reasons| reasons.remove(&line))
    }

    /// Return the reasons of these lines at this moment; a line that sends, or will by itself, has none.
    pub async fn held_up_of(&self, lines: &[LineId]) -> Result<HashMap<LineId, Arc<str>>, StoreError> {
        let records = self.store.line_summaries(lines).await?;
        Ok(records.iter().filter_map(|record| Some((record.id, self.note(record)?))).collect())
    }

    /// Remember whether the line is held up; return the reason.
    fn note(&self, record: &LineSummary) -> Option<Arc<str>> {
        let reason: Option<Arc<str>> = record.held_up().map(Arc::from);
        match &reason {
            Some(reason) => self.held_up.insert(record.id, reason.clone()),
            None => self.held_up.invalidate(&record.id),
        }
        reason
    }
}

/// Return the token of a request's query or header.
fn given(query: &str, bearer: Option<&str>) -> Option<String> {
    let of_query = |wanted: &str| {
        let of_name = form_pairs(query.as_bytes(), Charset::Utf8).filter(|(name, _)| name == wanted);
        of_name.last().map(|(_, value)| value.text).filter(|value| !is_blank(value))
    };
    of_query("tsid").or_else(|| of_query("sid")).or_else(|| bearer.map(str::to_owned))
}

/// Create a cache of recent values.
fn cache<K, V>() -> Cache<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(MAX_CACHED).time_to_live(CACHE_TTL).build()
}
