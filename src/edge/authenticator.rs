//! The account of an API token: looked up in the store, and remembered for a few seconds.
//!
//! A token is remembered in three ways, each bounded: its record for seconds, so that a change or revocation takes effect;
//! that it was in force for an hour, so that its caller is served from an address that others have had shut out; and that
//! it is unknown for a second, so that a repeated guess costs no look-up. Never here: a token in clear, beyond a request.

use std::collections::HashSet;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use moka::sync::Cache;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use super::auth::{CACHE_TTL, MAX_CACHED};
use super::client_address::is_among;
use super::guard::Attempt;
use super::tokens::{self, TokenKeys};
use super::{Caller, Guard, Refusal, Refused, unavailable};
use crate::domain::{AccountId, TokenScope, TokenScopes};
use crate::store::{TokenRecord, TokenStore};
use crate::text::{is_blank, trimmed};

const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 10..=64;

/// How long a token counts as recently in force.
const IN_FORCE_TTL: Duration = Duration::from_secs(3_600);
/// How long a token counts as unknown: a new one may have been tried before it was stored.
const UNKNOWN_TTL: Duration = Duration::from_secs(1);
/// How often uses are written; the store leaves out those that it has noted within a minute.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// The SHA-256 of a token.
type TokenDigest = Vec<u8>;

/// The result of a look-up: a token in force.
#[derive(Clone)]
struct KnownToken {
    account: AccountId,
    scopes: TokenScopes,
    networks: Option<Arc<[IpNet]>>,
}

pub struct Authenticator {
    store: Arc<dyn TokenStore>,
    keys: TokenKeys,
    guard: Arc<Guard>,
    recent: Cache<TokenDigest, KnownToken>,
    in_force: Cache<TokenDigest, ()>,
    unknown: Cache<TokenDigest, ()>,
    /// Identifiers of the tokens that were looked up since uses were written.
    uses: Mutex<HashSet<String>>,
    missing_key_is_told: AtomicBool,
}

impl Authenticator {
    pub fn new(store: Arc<dyn TokenStore>, keys: TokenKeys, guard: Arc<Guard>) -> Authenticator {
        Authenticator {
            store,
            keys,
            guard,
            recent: remembered(CACHE_TTL),
            in_force: remembered(IN_FORCE_TTL),
            unknown: remembered(UNKNOWN_TTL),
            uses: Mutex::default(),
            missing_key_is_told: AtomicBool::new(false),
        }
    }

    /// Return the refusal of a request by its head alone: its address is shut out, and its token is not known. A request
    /// without a token there may have one in its body, if it has any; the refusal then waits for that.
    pub fn shut_out(
        &self,
        caller: &Caller,
        token: impl FnOnce() -> Option<String>,
        has_body: bool,
    ) -> Option<Refusal> {
        let refusal = self.guard.shut_out(caller)?;
        let is_served = match token() {
            Some(token) => self.was_in_force(&token),
            None => has_body,
        };
        (!is_served).then_some(refusal)
    }

    /// Return the active account of a request's token, if the token has the scope, and count a failure of its address. An
    /// address that is shut out is refused without a look-up, unless the token is known.
    pub async fn admit(
        &self,
        caller: &Caller,
        token: &Result<SecretString, Refused>,
        scope: TokenScope,
    ) -> Result<AccountId, Refused> {
        if let Some(refusal) = self.guard.shut_out(caller)
            && !token.as_ref().is_ok_and(|token| self.was_in_force(token.expose_secret()))
        {
            return Err(refusal.into());
        }
        let found = match token {
            Ok(token) => {
                let found = self.account(token.expose_secret(), scope, Some(caller.address)).await;
                found.map_err(Refused::from)
            }
            Err(refused) => Err(refused.clone()),
        };
        self.guard.note(caller, attempt(&found));
        found
    }

    /// Return the active account of a token, if the token has the scope and the account allows the address; over RabbitMQ
    /// there is no address.
    pub async fn account(
        &self,
        token: &str,
        scope: TokenScope,
        address: Option<IpAddr>,
    ) -> Result<AccountId, Refusal> {
        let token = trimmed(token);
        if !TOKEN_LENGTHS.contains(&token.chars().count()) || token.contains(char::is_control) {
            return Err(Refusal::UnknownToken);
        }
        let digest = tokens::hash(token);
        let found = match self.recent.get(&digest) {
            Some(found) => found,
            None => self.look_up(token, digest).await?,
        };
        if let (Some(networks), Some(address)) = (&found.networks, address)
            && !is_among(address, networks)
        {
            return Err(Refusal::AddressNotAllowed);
        }
        if !found.scopes.contains(scope) {
            return Err(Refusal::NoScope(scope));
        }
        Ok(found.account)
    }

    async fn look_up(&self, token: &str, digest: TokenDigest) -> Result<KnownToken, Refusal> {
        if self.unknown.contains_key(&digest) {
            return Err(Refusal::UnknownToken);
        }
        let hashes = self.keys.hashes(token);
        let ids = tokens::identifiers(token, &hashes);
        let records = self.store.tokens_by_id(&ids).await.map_err(unavailable)?;
        let Some(record) = tokens::matching(&records, &hashes) else {
            if self.lacks_key(&records) {
                return Err(Refusal::TokenKeyMissing);
            }
            self.in_force.invalidate(&digest);
            self.unknown.insert(digest, ());
            return Err(Refusal::UnknownToken);
        };
        if !record.account_active {
            return Err(Refusal::AccountInactive);
        }
        let found = KnownToken {
            account: record.account,
            scopes: record.scopes,
            networks: record.networks.as_deref().map(Arc::from),
        };
        self.note_use(&record.token_id);
        self.in_force.insert(digest.clone(), ());
        self.recent.insert(digest, found.clone());
        Ok(found)
    }

    /// Whether this process has seen a token in force within the last hour.
    fn was_in_force(&self, token: &str) -> bool {
        let token = trimmed(token);
        !is_blank(token) && self.in_force.contains_key(&tokens::hash(token))
    }

    /// Note the use of a token. A token in use is looked up every few seconds, which is often enough for the time of its
    /// last use.
    fn note_use(&self, token_id: &str) {
        let mut uses = self.uses.lock();
        if uses.len() < MAX_CACHED as usize && !uses.contains(token_id) {
            uses.insert(token_id.to_owned());
        }
    }

    /// Write the uses of tokens since the last time. Return the pause before the next time.
    pub async fn write_uses(&self) -> Duration {
        let uses: Vec<String> = mem::take(&mut *self.uses.lock()).into_iter().collect();
        if !uses.is_empty()
            && let Err(error) = self.store.note_token_uses(&uses).await
        {
            tracing::debug!(%error, "uses of tokens cannot be written: written with the next ones");
            uses.iter().for_each(|token_id| self.note_use(token_id));
        }
        NOTE_EVERY
    }

    /// Whether a token with this identifier may be right and cannot be checked: its key is not in the settings. Its caller
    /// did nothing wrong, and counts as no failure of its address.
    fn lacks_key(&self, records: &[TokenRecord]) -> bool {
        let is_missing = |id: &&str| !self.keys.has(id);
        let Some(key_id) = records.iter().filter_map(|record| record.key_id.as_deref()).find(is_missing)
        else {
            return false;
        };
        if !self.missing_key_is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                key_id,
                "key of a token missing: its callers receive 503; add the key to security.token_key"
            );
        }
        true
    }
}

/// Return the evidence of a request's outcome for or against its address.
fn attempt(outcome: &Result<AccountId, Refused>) -> Attempt {
    match outcome.as_ref().map_err(|refused| refused.refusal) {
        Ok(_) => Attempt::Good,
        Err(Refusal::AccountInactive | Refusal::AddressNotAllowed | Refusal::NoScope(_)) => Attempt::Good,
        Err(Refusal::NoToken) => Attempt::NoToken,
        Err(Refusal::UnknownToken) => Attempt::UnknownToken,
        Err(_) => Attempt::NotLookedUp,
    }
}

fn remembered<V: Clone + Send + Sync + 'static>(ttl: Duration) -> Cache<TokenDigest, V> {
    Cache::builder().max_capacity(MAX_CACHED).time_to_live(ttl).build()
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use rstest::rstest;

    use super::super::GuardOptions;
    use super::*;
    use crate::store::{NewToken, StoreError, TokenRow};

    const TOKEN: &str = "abcdefghijKLMNOPQRSTUVWXYZ0123";
    const OTHER: &str = "zyxwvutsrqKLMNOPQRSTUVWXYZ0123";

    /// A store with some tokens, which counts how often it is asked.
    #[derive(Default)]
    struct Asked {
        tokens: Vec<TokenRecord>,
        looked_up: Mutex<u32>,
        noted: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl TokenStore for Asked {
        async fn tokens_by_id(&self, ids: &[String]) -> Result<Vec<TokenRecord>, StoreError> {
            *self.looked_up.lock() += 1;
            Ok(self.tokens.iter().filter(|token| ids.contains(&token.token_id)).cloned().collect())
        }

        async fn insert_token(&self, _token: &NewToken) -> Result<(), StoreError> {
            Ok(())
        }

        async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
            Ok(Vec::new())
        }

        async fn revoke_token(&self, _token_id: &str) -> Result<bool, StoreError> {
            Ok(false)
        }

        async fn note_token_uses(&self, ids: &[String]) -> Result<(), StoreError> {
            self.noted.lock().extend_from_slice(ids);
            Ok(())
        }
    }

    fn record(token: &str, networks: Option<Vec<IpNet>>) -> TokenRecord {
        TokenRecord {
            token_id: token[..10].to_owned(),
            account: AccountId(1),
            account_active: true,
            hash: tokens::hash(token),
            key_id: None,
            scopes: TokenScopes::stored(Some("send")),
            networks,
        }
    }

    fn with_token(networks: Option<Vec<IpNet>>) -> (Arc<Asked>, Authenticator) {
        let store = Arc::new(Asked { tokens: vec![record(TOKEN, networks)], ..Asked::default() });
        let options = GuardOptions { ban: Duration::from_secs(60), bans_loopback: true };
        let guard = Arc::new(Guard::new(options));
        (store.clone(), Authenticator::new(store, TokenKeys::default(), guard))
    }

    fn caller() -> Caller {
        Caller { address: "203.0.113.9".parse().expect("an address"), is_unknown_proxy: false }
    }

    fn given(token: &str) -> Result<SecretString, Refused> {
        Ok(token.into())
    }

    async fn code(authenticator: &Authenticator, token: &Result<SecretString, Refused>) -> i32 {
        let admitted = authenticator.admit(&caller(), token, TokenScope::Send).await;
        admitted.map_or_else(|refused| refused.code(), |_| 0)
    }

    #[tokio::test]
    async fn unknown_token_is_looked_up_once_at_first() {
        let (store, authenticator) = with_token(None);
        for _ in 0..10 {
            assert_eq!(code(&authenticator, &given(OTHER)).await, 102);
        }
        assert_eq!(*store.looked_up.lock(), 1);
        assert_eq!(code(&authenticator, &given("short")).await, 102);
        assert_eq!(*store.looked_up.lock(), 1, "it cannot be a token");
    }

    #[tokio::test]
    async fn token_whose_key_is_missing_shuts_nobody_out() {
        let keyed = TokenRecord { key_id: Some("0a1b2c3d".into()), ..record(TOKEN, None) };
        let store = Arc::new(Asked { tokens: vec![keyed], ..Asked::default() });
        let guard = Arc::new(Guard::new(GuardOptions { ban: Duration::from_secs(60), bans_loopback: true }));
        let authenticator = Authenticator::new(store, TokenKeys::default(), guard);
        for _ in 0..40 {
            assert_eq!(code(&authenticator, &given(TOKEN)).await, 503);
        }
        assert_eq!(code(&authenticator, &given(OTHER)).await, 102);
    }

    #[tokio::test]
    async fn shut_out_address_is_refused_without_a_look_up() {
        let (store, authenticator) = with_token(None);
        assert_eq!(code(&authenticator, &given(TOKEN)).await, 0);
        for n in 0..15 {
            assert_eq!(code(&authenticator, &given(&format!("{n:010}KLMNOPQRSTUVWXYZ0123"))).await, 102);
        }
        let looked_up = *store.looked_up.lock();
        assert_eq!(code(&authenticator, &given(OTHER)).await, 199);
        assert_eq!(code(&authenticator, &Err(Refusal::NoToken.into())).await, 199);
        assert_eq!(code(&authenticator, &Err(Refusal::NoContentType.into())).await, 199);
        assert_eq!(*store.looked_up.lock(), looked_up);
        assert_eq!(code(&authenticator, &given(TOKEN)).await, 0, "it is known");
        for (token, has_body, is_refused) in
            [(Some(TOKEN), false, false), (Some(OTHER), true, true), (None, false, true), (None, true, false)]
        {
            let refused = authenticator.shut_out(&caller(), || token.map(str::to_owned), has_body);
            assert_eq!(refused.is_some(), is_refused, "{token:?} {has_body}");
        }
    }

    #[tokio::test]
    async fn address_and_scope_are_checked_after_the_token() {
        let networks = vec!["203.0.113.0/24".parse().expect("a network")];
        let (_, authenticator) = with_token(Some(networks));
        let account = async |scope, address: Option<&str>| {
            let address = address.map(|address| address.parse().expect("an address"));
            authenticator.account(TOKEN, scope, address).await
        };
        assert_eq!(account(TokenScope::Send, Some("203.0.113.77")).await, Ok(AccountId(1)));
        assert_eq!(account(TokenScope::Send, None).await, Ok(AccountId(1)), "over RabbitMQ");
        assert_eq!(account(TokenScope::Read, Some("198.51.100.7")).await, Err(Refusal::AddressNotAllowed));
        let refused = account(TokenScope::Read, Some("203.0.113.77")).await;
        assert_eq!(refused, Err(Refusal::NoScope(TokenScope::Read)));
    }

    #[tokio::test]
    async fn uses_are_written_together_and_once() {
        let (store, authenticator) = with_token(None);
        for _ in 0..10 {
            code(&authenticator, &given(TOKEN)).await;
        }
        assert!(store.noted.lock().is_empty(), "not while a request waits");
        authenticator.write_uses().await;
        authenticator.write_uses().await;
        assert_eq!(*store.noted.lock(), [TOKEN[..10].to_owned()]);
    }

    #[rstest]
    #[case::good(Ok(AccountId(1)), Attempt::Good)]
    #[case::disabled_account(Err(Refusal::AccountInactive), Attempt::Good)]
    #[case::other_address(Err(Refusal::AddressNotAllowed), Attempt::Good)]
    #[case::other_scope(Err(Refusal::NoScope(TokenScope::Send)), Attempt::Good)]
    #[case::no_token(Err(Refusal::NoToken), Attempt::NoToken)]
    #[case::unknown_token(Err(Refusal::UnknownToken), Attempt::UnknownToken)]
    #[case::json_without_its_type(Err(Refusal::NoContentType), Attempt::NotLookedUp)]
    #[case::key_missing(Err(Refusal::TokenKeyMissing), Attempt::NotLookedUp)]
    #[case::database_away(Err(Refusal::Unavailable), Attempt::NotLookedUp)]
    fn only_tokens_that_fail_count(#[case] outcome: Result<AccountId, Refusal>, #[case] expected: Attempt) {
        assert_eq!(attempt(&outcome.map_err(Refused::from)), expected);
    }
}
