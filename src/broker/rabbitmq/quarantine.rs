//! Accounts whose addresses of direct reply-to ended a connection again: they receive no direct replies for a
//! while, as each such address costs the answers of others time. Pure, but for the log.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::AccountId;

/// An account whose addresses ended this many connections within the time below receives no direct replies for
/// as long.
const MOST_ENDS: usize = 2;
const LENGTH: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Quarantine(Mutex<HashMap<AccountId, Conduct>>);

/// The connections that an account's addresses ended.
#[derive(Default)]
struct Conduct {
    ends: Vec<Instant>,
    until: Option<Instant>,
}

impl Quarantine {
    /// Note that an address of the account ended a connection.
    pub(super) fn note_end(&self, account: AccountId) {
        let now = Instant::now();
        let mut accounts = self.0.lock();
        accounts.retain(|_, conduct| conduct.counts(now));
        let conduct = accounts.entry(account).or_default();
        conduct.ends.push(now);
        if conduct.ends.len() >= MOST_ENDS && !conduct.is_held(now) {
            conduct.until = Some(now + LENGTH);
            tracing::warn!(
                %account,
                minutes = LENGTH.as_secs() / 60,
                "addresses of direct reply-to ended the answering connection again: the account receives no direct \
                 replies for a while; ask its producer which `reply_to` it sends"
            );
        }
    }

    /// Whether the account receives no direct replies now.
    pub(super) fn holds(&self, account: Option<AccountId>) -> bool {
        let now = Instant::now();
        account.is_some_and(|account| self.0.lock().get(&account).is_some_and(|conduct| conduct.is_held(now)))
    }

    /// Whether an address of the account has ended a connection lately.
    pub(super) fn watches(&self, account: Option<AccountId>) -> bool {
        let now = Instant::now();
        account
            .is_some_and(|account| self.0.lock().get_mut(&account).is_some_and(|conduct| conduct.counts(now)))
    }
}

impl Conduct {
    fn is_held(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Forget old ends; return whether any is left, or the account still receives no replies.
    fn counts(&mut self, now: Instant) -> bool {
        self.ends.retain(|end| now.duration_since(*end) < LENGTH);
        !self.ends.is_empty() || self.is_held(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn second_end_within_ten_minutes_counts() {
        let quarantine = Quarantine::default();
        let (hostile, honest) = (AccountId(1), AccountId(2));
        let state = |account| (quarantine.watches(Some(account)), quarantine.holds(Some(account)));
        assert_eq!(state(hostile), (false, false));
        quarantine.note_end(hostile);
        assert_eq!(state(hostile), (true, false));
        tokio::time::advance(LENGTH).await;
        assert_eq!(state(hostile), (false, false));
        quarantine.note_end(hostile);
        tokio::time::advance(LENGTH / 2).await;
        quarantine.note_end(hostile);
        assert_eq!((state(hostile), state(honest)), ((true, true), (false, false)));
        tokio::time::advance(LENGTH).await;
        assert_eq!(state(hostile), (false, false));
        assert!(!quarantine.holds(None) && !quarantine.watches(None));
    }
}
