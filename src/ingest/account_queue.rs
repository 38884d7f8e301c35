//! Entries of several accounts that wait in one place: the accounts take turns, and each account's entries
//! keep their order. Pure.

use std::collections::{HashMap, VecDeque};

use crate::domain::AccountId;

pub struct AccountQueue<T> {
    accounts: HashMap<AccountId, VecDeque<T>>,
    /// The accounts with an entry; the next one is first.
    turns: VecDeque<AccountId>,
    len: usize,
}

impl<T> Default for AccountQueue<T> {
    fn default() -> AccountQueue<T> {
        AccountQueue { accounts: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<T> AccountQueue<T> {
    pub fn push(&mut self, account: AccountId, entry: T) {
        let waiting = self.accounts.entry(account).or_default();
        if waiting.is_empty() {
            self.turns.push_back(account);
        }
        waiting.push_back(entry);
        self.len += 1;
    }

    /// Take the first entry of the account whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let account = self.turns.pop_front()?;
        let waiting = self.accounts.get_mut(&account)?;
        let entry = waiting.pop_front()?;
        if waiting.is_empty() {
            self.accounts.remove(&account);
        } else {
            self.turns.push_back(account);
        }
        self.len -= 1;
        Some(entry)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len_of(&self, account: AccountId) -> usize {
        self.accounts.get(&account).map_or(0, VecDeque::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISY: AccountId = AccountId(1);
    const QUIET: AccountId = AccountId(2);

    #[test]
    fn accounts_take_turns_and_keep_their_order() {
        let mut queue = AccountQueue::default();
        for n in 0..4 {
            queue.push(NOISY, n);
        }
        queue.push(QUIET, 10);
        queue.push(QUIET, 11);
        assert_eq!((queue.len(), queue.len_of(NOISY), queue.len_of(QUIET)), (6, 4, 2));
        let taken: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(taken, [0, 10, 1, 11, 2, 3]);
        assert!(queue.is_empty() && queue.accounts.is_empty());
    }

    #[test]
    fn account_that_comes_back_waits_for_its_turn() {
        let mut queue = AccountQueue::default();
        queue.push(NOISY, 0);
        queue.push(NOISY, 1);
        assert_eq!(queue.pop(), Some(0));
        queue.push(QUIET, 10);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(10), None));
    }
}
