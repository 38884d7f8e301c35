//! The quotas of an account (`security.quota_rows_per_second`, `security.quota_backlog`): an account that is
//! over one of them waits, or is refused, alone.
//!
//! Each process keeps the rate for itself. The waiting rows of an account that submits are counted in the
//! database every few seconds, and the rows that this process accepts meanwhile are added. Never here: the
//! choice between a wait and a refusal.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::AccountId;
use crate::edge::Refusal;
use crate::policy::AccountRate;
use crate::settings::SecuritySettings;
use crate::store::SharedStore;

/// The shortest time between two counts of an account's waiting rows; shorter while it is over its quota.
const COUNT_EVERY: Duration = Duration::from_secs(2);
const COUNT_AGAIN: Duration = Duration::from_millis(500);
/// Counting may take this share of the time: many rows are counted less often.
const COUNT_SHARE: u32 = 20;
/// A count that takes longer was given up with its request.
const LONGEST_COUNT: Duration = Duration::from_secs(15);
/// An account that submits nothing for this long is forgotten. Also the time between two log lines about an
/// account.
const IDLE: Duration = Duration::from_secs(60);

/// The quota that an account is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverQuota {
    /// A row may come after this time.
    Rate {
        wait: Duration,
    },
    Backlog,
}

impl From<OverQuota> for Refusal {
    fn from(over: OverQuota) -> Refusal {
        match over {
            OverQuota::Rate { .. } => Refusal::OverRate,
            OverQuota::Backlog => Refusal::OverBacklog,
        }
    }
}

/// The quotas, and how much of them each account has used.
pub struct Quotas {
    rate: Option<AccountRate>,
    /// Waiting rows of an account at most.
    backlog: Option<i64>,
    waiting: Mutex<HashMap<AccountId, WaitingRows>>,
    /// When the log was last told of an account.
    told: Mutex<HashMap<AccountId, Instant>>,
    store: SharedStore,
}

impl Quotas {
    pub fn new(settings: &SecuritySettings, store: SharedStore) -> Quotas {
        Quotas {
            rate: NonZeroU32::new(settings.quota_rows_per_second).map(AccountRate::per_second),
            backlog: Some(settings.quota_backlog).filter(|rows| *rows > 0),
            waiting: Mutex::default(),
            told: Mutex::default(),
            store,
        }
    }

    /// Count a row of the account in, or return the quota that it is over.
    pub async fn admit(&self, account: AccountId) -> Result<(), OverQuota> {
        let admitted = self.check(account).await;
        if let Err(over) = admitted {
            self.tell(account, over);
        }
        admitted
    }

    /// Whether the account's backlog has a place. Counts no row in.
    pub async fn has_place(&self, account: AccountId) -> bool {
        match self.backlog {
            Some(most) => self.waiting_rows(account, most).await < most,
            None => true,
        }
    }

    async fn check(&self, account: AccountId) -> Result<(), OverQuota> {
        if let Some(most) = self.backlog
            && self.waiting_rows(account, most).await >= most
        {
            return Err(OverQuota::Backlog);
        }
        if let Some(rate) = &self.rate {
            rate.check(account).map_err(|wait| OverQuota::Rate { wait })?;
        }
        if self.backlog.is_some() {
            self.waiting.lock().entry(account).or_default().added += 1;
        }
        Ok(())
    }

    /// Return how many rows of the account wait, as far as it is known. A count that is due is taken by the
    /// request that finds it due; the account's other requests go on with the last one.
    async fn waiting_rows(&self, account: AccountId, most: i64) -> i64 {
        let due = self.waiting.lock().entry(account).or_default().begin_count(most, Instant::now());
        if let Some(added) = due {
            let began = Instant::now();
            let counted = self.store.account_backlog(account, most).await;
            let counted = counted
                .inspect_err(|error| tracing::debug!(%error, "waiting rows of an account not counted: last count holds"))
                .ok();
            let mut waiting = self.waiting.lock();
            waiting.entry(account).or_default().end_count(counted, added, began, Instant::now());
        }
        self.waiting.lock().get(&account).map_or(0, WaitingRows::rows)
    }

    fn tell(&self, account: AccountId, over: OverQuota) {
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.get(&account).is_some_and(|at| now.duration_since(*at) < IDLE) {
            return;
        }
        told.insert(account, now);
        let setting = match over {
            OverQuota::Rate { .. } => "security.quota_rows_per_second",
            OverQuota::Backlog => "security.quota_backlog",
        };
        tracing::warn!(%account, setting, "account over its quota: it is slowed down, or receives 503; raise the setting if it is too low");
    }

    /// Forget the accounts that submit nothing.
    pub fn forget_idle(&self) {
        if let Some(rate) = &self.rate {
            rate.forget_idle();
        }
        let now = Instant::now();
        self.waiting.lock().retain(|_, waiting| !waiting.is_idle(now));
        self.told.lock().retain(|_, at| now.duration_since(*at) < IDLE);
    }
}

/// The known number of an account's waiting rows.
#[derive(Debug, Default)]
struct WaitingRows {
    counted: i64,
    /// Rows admitted since the last count began.
    added: i64,
    /// The end of the last count, and its length.
    counted_at: Option<Instant>,
    took: Duration,
    /// The beginning of the count that is under way.
    counting_since: Option<Instant>,
}

impl WaitingRows {
    fn rows(&self) -> i64 {
        self.counted + self.added
    }

    /// Begin a count if one is due; return the rows that were added before.
    fn begin_count(&mut self, most: i64, now: Instant) -> Option<i64> {
        let is_due = match (self.counting_since, self.counted_at) {
            (Some(since), _) => now.duration_since(since) > LONGEST_COUNT,
            (None, None) => true,
            (None, Some(at)) => {
                let pause = if self.rows() >= most { COUNT_AGAIN } else { COUNT_EVERY };
                now.duration_since(at) >= pause.max(self.took * COUNT_SHARE)
            }
        };
        is_due.then(|| {
            self.counting_since = Some(now);
            self.added
        })
    }

    /// End a count. Without a result the last one holds.
    fn end_count(&mut self, counted: Option<i64>, added_before: i64, began: Instant, now: Instant) {
        if let Some(rows) = counted {
            self.counted = rows;
            self.added = (self.added - added_before).max(0);
        }
        self.took = now.duration_since(began);
        self.counted_at = Some(now);
        self.counting_since = None;
    }

    fn is_idle(&self, now: Instant) -> bool {
        let last = self.counting_since.max(self.counted_at);
        last.is_none_or(|at| now.duration_since(at) >= IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: i64 = 100;
    const MOMENT: Duration = Duration::from_millis(10);

    #[test]
    fn rows_are_counted_at_intervals_and_added_meanwhile() {
        let start = Instant::now();
        let mut waiting = WaitingRows::default();
        assert_eq!(waiting.begin_count(MOST, start), Some(0), "nothing is known yet");
        waiting.added += 3;
        assert_eq!(waiting.begin_count(MOST, start + MOMENT), None, "one counts");
        waiting.end_count(Some(40), 0, start, start + MOMENT);
        assert_eq!(waiting.rows(), 43);
        assert_eq!(waiting.begin_count(MOST, start + COUNT_EVERY), None);
        let next = start + MOMENT + COUNT_EVERY;
        assert_eq!(waiting.begin_count(MOST, next), Some(3));
        waiting.added += 1;
        waiting.end_count(Some(20), 3, next, next + MOMENT);
        assert_eq!(waiting.rows(), 21, "what was added during the count is kept");
    }

    #[test]
    fn full_backlog_is_counted_again_soon() {
        let start = Instant::now();
        let mut waiting = WaitingRows::default();
        waiting.begin_count(MOST, start);
        waiting.end_count(Some(90), 0, start, start);
        waiting.added += 10;
        assert!(waiting.rows() >= MOST);
        assert_eq!(waiting.begin_count(MOST, start + MOMENT), None);
        assert_eq!(waiting.begin_count(MOST, start + COUNT_AGAIN), Some(10));
    }

    #[test]
    fn long_and_failed_counts_are_not_repeated_at_once() {
        let start = Instant::now();
        let mut waiting = WaitingRows::default();
        waiting.begin_count(MOST, start);
        let ended = start + Duration::from_secs(1);
        waiting.end_count(None, 0, start, ended);
        assert_eq!(waiting.begin_count(MOST, ended + Duration::from_secs(19)), None);
        assert_eq!(waiting.begin_count(MOST, ended + Duration::from_secs(20)), Some(0));
        let later = ended + Duration::from_secs(20) + LONGEST_COUNT + MOMENT;
        assert_eq!(waiting.begin_count(MOST, later), Some(0), "its request has gone away");
    }

    #[test]
    fn idle_account_is_forgotten() {
        let start = Instant::now();
        let mut waiting = WaitingRows::default();
        waiting.begin_count(MOST, start);
        waiting.end_count(Some(1), 0, start, start);
        assert!(!waiting.is_idle(start + MOMENT) && waiting.is_idle(start + IDLE));
    }
}
