//! Turns: a bounded number of things under way at a time, of which one account holds a share at most.
//!
//! An account that asks for more waits for its own turns, in order; the rest is left to the others.
//! Never here: the purpose of a turn.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::AccountId;

/// Accounts that are remembered at most while they hold no turn.
const MAX_IDLE_ACCOUNTS: usize = 1_024;

/// The turns of one kind.
pub struct Turns {
    all: Arc<Semaphore>,
    /// Turns of one account at most.
    share: usize,
    accounts: Mutex<HashMap<AccountId, Arc<Semaphore>>>,
}

/// A turn; given back when dropped.
#[must_use]
pub struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_account: OwnedSemaphorePermit,
}

impl Turns {
    /// Create `all` turns; one account may hold half of them, and at least one.
    pub fn new(all: usize) -> Turns {
        Turns::shared(all, all / 2)
    }

    /// Create `all` turns, each of them long; one account may hold a quarter of them, and at least one.
    pub fn long(all: usize) -> Turns {
        Turns::shared(all, all / 4)
    }

    fn shared(all: usize, share: usize) -> Turns {
        Turns { all: Arc::new(Semaphore::new(all)), share: share.max(1), accounts: Mutex::default() }
    }

    /// Wait for a turn of the account.
    pub async fn take(&self, account: AccountId) -> Turn {
        // A request that waits for a turn of its account stands in nobody else's way.
        let of_account = acquired(self.of_account(account)).await;
        Turn { _of_all: acquired(self.all.clone()).await, _of_account: of_account }
    }

    /// Take a turn of the account, if one is free.
    pub fn try_take(&self, account: AccountId) -> Option<Turn> {
        let of_account = self.of_account(account).try_acquire_owned().ok()?;
        Some(Turn { _of_all: self.all.clone().try_acquire_owned().ok()?, _of_account: of_account })
    }

    fn of_account(&self, account: AccountId) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock();
        if accounts.len() > MAX_IDLE_ACCOUNTS {
            // A turn, and a request that waits for one, hold a reference each.
            accounts.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        accounts.entry(account).or_insert_with(|| Arc::new(Semaphore::new(self.share))).clone()
    }
}

async fn acquired(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("turns are never closed")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const NOISY: AccountId = AccountId(1);
    const QUIET: AccountId = AccountId(2);

    #[test]
    fn account_holds_half_at_most() {
        let turns = Turns::new(4);
        let first = turns.try_take(NOISY).expect("a free turn");
        let _second = turns.try_take(NOISY).expect("a free turn");
        assert!(turns.try_take(NOISY).is_none());
        let _others =
            [turns.try_take(QUIET).expect("its own half"), turns.try_take(QUIET).expect("its own half")];
        drop(first);
        assert!(turns.try_take(NOISY).is_some());
    }

    #[test]
    fn two_accounts_leave_half_of_the_long_turns() {
        let turns = Turns::long(8);
        let take = |account| (0..8).map_while(|_| turns.try_take(account)).collect::<Vec<_>>();
        let (first, second) = (take(NOISY), take(QUIET));
        assert_eq!((first.len(), second.len()), (2, 2));
        assert_eq!(take(AccountId(3)).len(), 2);
        assert!(Turns::long(1).try_take(NOISY).is_some(), "one at least");
    }

    #[test]
    fn single_turn_serves_every_account() {
        let turns = Turns::new(1);
        let held = turns.try_take(NOISY).expect("a free turn");
        assert!(turns.try_take(QUIET).is_none());
        drop(held);
        assert!(turns.try_take(QUIET).is_some());
    }

    #[test]
    fn crowd_of_one_account_delays_no_other() {
        let turns = Turns::new(2);
        let held = turns.take(NOISY).now_or_never().expect("a free turn");
        let mut crowd: Vec<_> = (0..60).map(|_| Box::pin(turns.take(NOISY))).collect();
        assert!(crowd.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        assert!(turns.take(QUIET).now_or_never().is_some());
        drop(held);
        assert!(crowd[0].as_mut().now_or_never().is_some(), "the first of them is next");
    }

    #[test]
    fn idle_accounts_are_forgotten() {
        let turns = Turns::new(4);
        let _held = turns.try_take(NOISY).expect("a free turn");
        for account in 10..10 + 2 * MAX_IDLE_ACCOUNTS as i64 {
            drop(turns.try_take(AccountId(account)));
        }
        assert!(turns.accounts.lock().len() <= MAX_IDLE_ACCOUNTS + 1);
        let _second = turns.try_take(NOISY).expect("its second turn");
        assert!(turns.try_take(NOISY).is_none(), "its turns are remembered");
    }
}
