//! Who asks, and from which line: tokens and lines, looked up in the store and remembered for a few seconds.
//!
//! Only what may send is remembered, so that a new token or line is usable at once, and one that was changed or
//! revoked is seen within the time below.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::ExposeSecret;

use super::refusal::Refusal;
use super::unavailable;
use crate::message::{AccountId, Class, LineId};
use crate::store::{LineRecord, SharedStore};
use crate::tokens;

/// Well below the ten seconds in which a change has to be seen (contract 2).
const REMEMBERED: Duration = Duration::from_secs(5);
/// Entries remembered at most; beyond, the old ones are dropped.
const MOST: usize = 50_000;
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 10..=64;

pub struct Directory {
    store: SharedStore,
    /// Accounts by the hash of a token that was found valid.
    accounts: Remembered<Vec<u8>, AccountId>,
    lines: Remembered<LineId, Usable>,
}

/// What of a line's record ingest checks.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Usable {
    account: AccountId,
    class: Class,
}

impl Directory {
    pub fn new(store: SharedStore) -> Directory {
        Directory { store, accounts: Remembered::default(), lines: Remembered::default() }
    }

    /// The account of a token, which is active.
    pub async fn account(&self, token: &str) -> Result<AccountId, Refusal> {
        if !TOKEN_LENGTHS.contains(&token.chars().count()) || token.contains(char::is_control) {
            return Err(Refusal::UnknownToken);
        }
        let Some(identifier) = tokens::identifier(token) else { return Err(Refusal::UnknownToken) };
        let hash = tokens::hash(token);
        if let Some(account) = self.accounts.get(&hash) {
            return Ok(account);
        }
        let found = self.store.token(identifier).await.map_err(unavailable)?;
        // An absent token is compared too, so that the time taken does not tell it from a wrong one.
        let known = found.as_ref().map_or(&[0; 32][..], |token| &token.hash);
        let matches = verify_slices_are_equal(known, &hash).is_ok();
        match found {
            Some(token) if matches && token.account_active => {
                self.accounts.put(hash, token.account);
                Ok(token.account)
            }
            Some(_) if matches => Err(Refusal::AccountInactive),
            _ => Err(Refusal::UnknownToken),
        }
    }

    /// The class of a line of the account; an unknown one counts as Messenger's.
    pub async fn class(&self, account: AccountId, line: LineId) -> Result<Class, Refusal> {
        let unknown = Refusal::LineNotFound(Class::Messenger);
        if let Some(usable) = self.lines.get(&line) {
            return if usable.account == account { Ok(usable.class) } else { Err(unknown) };
        }
        let record = self.store.lines(&[line]).await.map_err(unavailable)?.pop();
        record.filter(|record| record.account == account).map(|record| record.class).ok_or(unknown)
    }

    /// Whether the account may send from this line, of this class.
    pub async fn usable(&self, account: AccountId, line: LineId, class: Class) -> Result<(), Refusal> {
        let wanted = Usable { account, class };
        if self.lines.get(&line) == Some(wanted) {
            return Ok(());
        }
        let record = self.store.lines(&[line]).await.map_err(unavailable)?.pop();
        let record = record
            .filter(|record| record.account == account && record.class == class && record.active)
            .ok_or(Refusal::LineNotFound(class))?;
        if is_blank(record.page_token.as_ref().map(ExposeSecret::expose_secret)) {
            return Err(Refusal::NoPageToken);
        }
        if needs_page_id(&record) && is_blank(record.page_id.as_deref()) {
            return Err(Refusal::NoPageId);
        }
        self.lines.put(line, wanted);
        Ok(())
    }
}

fn needs_page_id(record: &LineRecord) -> bool {
    record.class == Class::Messenger
}

fn is_blank(text: Option<&str>) -> bool {
    text.is_none_or(|text| text.trim().is_empty())
}

/// Values that were found a moment ago.
struct Remembered<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Remembered<K, V> {
        Remembered(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Copy> Remembered<K, V> {
    fn entries(&self) -> MutexGuard<'_, HashMap<K, (V, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &K) -> Option<V> {
        self.entries().get(key).filter(|(_, found)| found.elapsed() < REMEMBERED).map(|(value, _)| *value)
    }

    fn put(&self, key: K, value: V) {
        let mut entries = self.entries();
        if entries.len() >= MOST {
            entries.retain(|_, (_, found)| found.elapsed() < REMEMBERED);
        }
        if entries.len() < MOST {
            entries.insert(key, (value, Instant::now()));
        }
    }
}
