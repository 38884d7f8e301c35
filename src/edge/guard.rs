//! Addresses that guess tokens: who is refused, for how long, and what all processes know of it (contract: 131 and 199 in
//! "HTTP: the two send endpoints").
//!
//! Never here: the check of a token, and a failure of a producer on RabbitMQ, who has no address.

mod attempts;
mod bans;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::Notify;

use self::attempts::{Attempts, Failures};
use self::bans::Bans;
use super::{Caller, Refusal};
use crate::domain::CountedAddress;
use crate::metrics::METRICS;
use crate::store::{AddressStore, StoreError};
use crate::text::timestamp;

/// Failures of ten minutes after which an address is refused.
const MOST_RECENT: u32 = 20;
/// Unknown tokens of ten minutes, and failures of sixty, after which an address is banned.
const MOST_UNKNOWN: u32 = 15;
const MOST_IN_AN_HOUR: u32 = 100;

/// How often the bans of all processes are read: a ban, and its end, are known everywhere within ten seconds.
const FOLLOW_EVERY: Duration = Duration::from_secs(4);
/// The least rest between two reads: an attack from many addresses must not make the process read the table of bans
/// without pause, and new bans are stored together.
const REST: Duration = Duration::from_secs(2);

/// The settings of a guard.
#[derive(Debug, Clone, Copy)]
pub struct GuardOptions {
    /// The length of a ban; zero: none.
    pub ban: Duration,
    /// Whether loopback is treated as other addresses.
    pub bans_loopback: bool,
}

/// The guard of one process.
pub struct Guard {
    options: GuardOptions,
    /// Times are counted from here.
    started: Instant,
    known: Mutex<Known>,
    /// Notified of each new ban.
    banned: Notify,
    proxy_is_told: AtomicBool,
}

struct Known {
    attempts: Attempts,
    bans: Bans,
}

/// The evidence of a request for or against its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The token is in force.
    Good,
    NoToken,
    UnknownToken,
    /// The token was not looked up: the request is no evidence.
    NotLookedUp,
}

impl Guard {
    pub fn new(options: GuardOptions) -> Guard {
        let known = Known { attempts: Attempts::new(), bans: Bans::default() };
        Guard {
            options,
            started: Instant::now(),
            known: Mutex::new(known),
            banned: Notify::new(),
            proxy_is_told: AtomicBool::new(false),
        }
    }

    /// Return the refusal of an address that is shut out; a token that is known is served all the same.
    pub fn shut_out(&self, caller: &Caller) -> Option<Refusal> {
        let (address, now) = (self.counted(caller)?, self.now());
        let known = self.known.lock();
        // A ban of an unnamed proxy, from before it sent the header, would shut out all callers behind it.
        if !caller.is_unknown_proxy && known.bans.holds(address, now) {
            return Some(Refusal::AddressBanned);
        }
        let failures = known.attempts.of(address, now);
        let is_over = failures.recent >= MOST_RECENT && !is_spared(caller, &failures);
        is_over.then_some(Refusal::TooManyAttempts)
    }

    /// Count a request.
    pub fn note(&self, caller: &Caller, attempt: Attempt) {
        let is_failure = matches!(attempt, Attempt::NoToken | Attempt::UnknownToken);
        if is_failure && caller.is_unknown_proxy {
            self.tell_of_proxy(caller);
        }
        let (Some(address), now) = (self.counted(caller), self.now()) else { return };
        match attempt {
            Attempt::NotLookedUp => {}
            // Counted where it may spare a proxy: most requests are good.
            Attempt::Good if caller.is_unknown_proxy => self.known.lock().attempts.succeeded(address, now),
            Attempt::Good => {}
            Attempt::NoToken | Attempt::UnknownToken => {
                let mut known = self.known.lock();
                let failures = known.attempts.failed(address, attempt == Attempt::UnknownToken, now);
                if let Some(reason) = reason_of_ban(&failures)
                    && !caller.is_unknown_proxy
                    && !self.options.ban.is_zero()
                    && known.bans.add(address, reason, self.options.ban, now)
                {
                    METRICS.http.banned.set(known.bans.count(now) as f64);
                    drop(known);
                    self.tell_of_ban(address, reason);
                    self.banned.notify_one();
                }
            }
        }
    }

    /// Store the bans of this process and follow those of all, again and again.
    pub async fn follow_bans(&self, store: &(impl AddressStore + ?Sized)) -> Duration {
        if let Err(error) = self.exchange_bans(store).await {
            tracing::debug!(%error, "bans of other processes cannot be read: the known ones hold");
        }
        // A new ban is stored at once.
        let _ = tokio::time::timeout(FOLLOW_EVERY, self.banned.notified()).await;
        REST
    }

    async fn exchange_bans(&self, store: &(impl AddressStore + ?Sized)) -> Result<(), StoreError> {
        let new = self.known.lock().bans.take_unstored(self.now());
        if !new.is_empty() {
            let stored = store.add_bans(&new).await?;
            self.known.lock().bans.stored(&stored);
        }
        let in_force = store.bans_in_force().await?;
        let now = self.now();
        let mut known = self.known.lock();
        for address in known.bans.follow(&in_force, now) {
            known.attempts.forget(address);
            tracing::info!(%address, "ban lifted: its requests are served again");
        }
        METRICS.http.banned.set(known.bans.count(now) as f64);
        Ok(())
    }

    /// Return the address that is counted, if it may be shut out.
    fn counted(&self, caller: &Caller) -> Option<CountedAddress> {
        let is_exempt = caller.address.is_loopback() && !self.options.bans_loopback;
        (!is_exempt).then(|| CountedAddress::of(caller.address))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn tell_of_ban(&self, address: CountedAddress, reason: &str) {
        let until =
            OffsetDateTime::now_utc().checked_add(self.options.ban.try_into().unwrap_or(time::Duration::MAX));
        let until = until.map_or_else(|| "the end of time".to_owned(), timestamp);
        tracing::warn!(
            %address,
            reason,
            until,
            "address banned: its requests are answered 199, except with a token that is known; `ban lift` ends it"
        );
    }

    /// Tell, once, of a proxy that has to be named in the settings.
    fn tell_of_proxy(&self, caller: &Caller) {
        if !self.proxy_is_told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                address = %caller.address,
                "failed request from an untrusted proxy: all callers behind it count as one address; name it in \
                 http.trusted_proxies"
            );
        }
    }
}

/// Whether an address is served in spite of its failures: it is a proxy outside `http.trusted_proxies`, and more than
/// a fifth of its callers' requests are good.
fn is_spared(caller: &Caller, failures: &Failures) -> bool {
    caller.is_unknown_proxy && failures.is_often_good
}

fn reason_of_ban(failures: &Failures) -> Option<&'static str> {
    if failures.recent_unknown >= MOST_UNKNOWN {
        return Some("15 unknown tokens in 10 minutes");
    }
    (failures.hour >= MOST_IN_AN_HOUR).then_some("100 failures in 60 minutes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const OPTIONS: GuardOptions = GuardOptions { ban: DAY, bans_loopback: false };

    fn caller(address: &str) -> Caller {
        Caller { address: address.parse().expect("an address"), is_unknown_proxy: false }
    }

    fn fail(guard: &Guard, caller: &Caller, times: u32, attempt: Attempt) {
        (0..times).for_each(|_| guard.note(caller, attempt));
    }

    #[test]
    fn twenty_failures_are_too_many() {
        let (guard, caller) = (Guard::new(OPTIONS), caller("203.0.113.9"));
        fail(&guard, &caller, 19, Attempt::NoToken);
        assert_eq!(guard.shut_out(&caller), None);
        fail(&guard, &caller, 1, Attempt::NoToken);
        assert_eq!(guard.shut_out(&caller), Some(Refusal::TooManyAttempts));
    }

    #[test]
    fn fifteen_unknown_tokens_or_a_hundred_failures_ban() {
        let (guard, caller, other) = (Guard::new(OPTIONS), caller("203.0.113.9"), caller("203.0.113.10"));
        fail(&guard, &caller, 14, Attempt::UnknownToken);
        assert_eq!(guard.shut_out(&caller), None);
        fail(&guard, &caller, 1, Attempt::UnknownToken);
        assert_eq!(guard.shut_out(&caller), Some(Refusal::AddressBanned));
        fail(&guard, &other, 99, Attempt::NoToken);
        assert_eq!(guard.shut_out(&other), Some(Refusal::TooManyAttempts));
        fail(&guard, &other, 1, Attempt::NoToken);
        assert_eq!(guard.shut_out(&other), Some(Refusal::AddressBanned));
    }

    #[test]
    fn ban_without_a_length_is_none() {
        let guard = Guard::new(GuardOptions { ban: Duration::ZERO, ..OPTIONS });
        let caller = caller("203.0.113.9");
        fail(&guard, &caller, 120, Attempt::UnknownToken);
        assert_eq!(guard.shut_out(&caller), Some(Refusal::TooManyAttempts));
    }

    #[test]
    fn neighbours_in_a_network_of_ipv6_count_together() {
        let guard = Guard::new(OPTIONS);
        for n in 0..15 {
            guard.note(&caller(&format!("2001:db8:1:2::{n}")), Attempt::UnknownToken);
        }
        assert_eq!(guard.shut_out(&caller("2001:db8:1:2:ffff::1")), Some(Refusal::AddressBanned));
        assert_eq!(guard.shut_out(&caller("2001:db8:1:3::1")), None);
    }

    #[test]
    fn loopback_is_shut_out_on_request_alone() {
        let requested = Guard::new(GuardOptions { bans_loopback: true, ..OPTIONS });
        for address in ["127.0.0.1", "127.0.0.9", "::1"] {
            let guard = Guard::new(OPTIONS);
            fail(&guard, &caller(address), 200, Attempt::UnknownToken);
            assert_eq!(guard.shut_out(&caller(address)), None, "{address}");
            fail(&requested, &caller(address), 15, Attempt::UnknownToken);
            assert_eq!(requested.shut_out(&caller(address)), Some(Refusal::AddressBanned), "{address}");
        }
    }

    #[test]
    fn other_refusals_do_not_count() {
        let (guard, caller) = (Guard::new(OPTIONS), caller("203.0.113.9"));
        fail(&guard, &caller, 1_000, Attempt::NotLookedUp);
        fail(&guard, &caller, 1_000, Attempt::Good);
        assert_eq!(guard.shut_out(&caller), None);
    }

    #[test]
    fn unnamed_proxy_is_spared_while_a_fifth_of_its_requests_are_good() {
        let guard = Guard::new(OPTIONS);
        let proxy = Caller { is_unknown_proxy: true, ..caller("203.0.113.9") };
        fail(&guard, &proxy, 1, Attempt::NoToken);
        for _ in 0..100 {
            fail(&guard, &proxy, 2, Attempt::UnknownToken);
            fail(&guard, &proxy, 1, Attempt::Good);
        }
        assert_eq!(guard.shut_out(&proxy), None);
        assert_eq!(
            guard.shut_out(&caller("203.0.113.9")),
            Some(Refusal::TooManyAttempts),
            "without the header"
        );
        fail(&guard, &proxy, 1_000, Attempt::UnknownToken);
        assert_eq!(guard.shut_out(&proxy), Some(Refusal::TooManyAttempts));
    }

    #[test]
    fn unnamed_proxy_is_never_banned() {
        let guard = Guard::new(OPTIONS);
        let proxy = Caller { is_unknown_proxy: true, ..caller("203.0.113.9") };
        fail(&guard, &proxy, 1_000, Attempt::UnknownToken);
        assert_eq!(guard.shut_out(&proxy), Some(Refusal::TooManyAttempts));
        fail(&guard, &caller("203.0.113.9"), 1, Attempt::UnknownToken);
        assert_eq!(
            guard.shut_out(&caller("203.0.113.9")),
            Some(Refusal::AddressBanned),
            "without the header"
        );
        assert_eq!(
            guard.shut_out(&proxy),
            Some(Refusal::TooManyAttempts),
            "a ban from before counts for nothing"
        );
    }

    #[test]
    fn good_requests_before_the_first_failure_spare_an_unnamed_proxy() {
        let guard = Guard::new(OPTIONS);
        let proxy = Caller { is_unknown_proxy: true, ..caller("203.0.113.9") };
        fail(&guard, &proxy, 100, Attempt::Good);
        fail(&guard, &proxy, 50, Attempt::UnknownToken);
        assert_eq!(guard.shut_out(&proxy), None);
    }

    #[test]
    fn table_of_bans_is_read_every_two_seconds_at_most() {
        const { assert!(REST.as_secs() >= 2) };
        const { assert!(2 * REST.as_secs() + FOLLOW_EVERY.as_secs() < 10) };
    }

    #[test]
    fn memory_is_bounded() {
        const { assert!(attempts::ENTRIES + bans::ENTRIES <= 64 * 1024) };
        const { assert!(attempts::BYTES + bans::BYTES <= 4_000_000) };
    }
}
