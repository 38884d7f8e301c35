//! The quota of an account in rows a second: each account has its own, and none takes from another's.
//!
//! Never here: a wait. The caller is told how long one would be.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::domain::AccountId;

/// Keeps one quota for every account. The rows of a second may come at once.
pub struct AccountRate<C: Clock = DefaultClock> {
    limiter: RateLimiter<AccountId, HashMapStateStore<AccountId>, C, NoOpMiddleware<C::Instant>>,
}

impl AccountRate {
    /// Keep a quota on the machine's monotonic clock.
    pub fn per_second(rows: NonZeroU32) -> AccountRate {
        AccountRate::new(rows, DefaultClock::default())
    }
}

impl<C: Clock> AccountRate<C> {
    fn new(per_second: NonZeroU32, clock: C) -> AccountRate<C> {
        AccountRate { limiter: RateLimiter::hashmap_with_clock(Quota::per_second(per_second), clock) }
    }

    /// Count a row of the account in, or return the time until it may come.
    pub fn check(&self, account: AccountId) -> Result<(), Duration> {
        self.limiter.check_key(&account).map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }

    /// Forget the accounts whose quota is whole again.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const NOISY: AccountId = AccountId(1);
    const QUIET: AccountId = AccountId(2);

    fn rate(clock: &FakeRelativeClock) -> AccountRate<FakeRelativeClock> {
        AccountRate::new(NonZeroU32::new(10).expect("not zero"), clock.clone())
    }

    #[test]
    fn account_over_its_quota_is_told_when_to_come() {
        let clock = FakeRelativeClock::default();
        let rate = rate(&clock);
        assert!((0..10).all(|_| rate.check(NOISY).is_ok()));
        let wait = rate.check(NOISY).expect_err("a second's rows were taken");
        assert_eq!(wait, Duration::from_millis(100));
        assert!(rate.check(QUIET).is_ok(), "another account has its own quota");
        clock.advance(wait);
        assert!(rate.check(NOISY).is_ok());
        assert!(rate.check(NOISY).is_err());
    }

    #[test]
    fn idle_accounts_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rate = rate(&clock);
        for account in 0..100 {
            rate.check(AccountId(account)).expect("a fresh quota");
        }
        clock.advance(Duration::from_secs(10));
        rate.check(NOISY).expect("a whole quota");
        rate.forget_idle();
        assert_eq!(rate.limiter.len(), 1);
    }
}
