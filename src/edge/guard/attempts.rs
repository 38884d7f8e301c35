//! The failed attempts of addresses: a table of fixed size, in which a new address takes the slot of the one that has
//! done nothing for the longest time.
//!
//! Times are counted in whole minutes: a failure counts for ten minutes and up to one more, or for sixty and up to five
//! more. The slot of an address depends on a secret of the process: no caller can choose whom it displaces. Pure: the
//! caller gives the time. Never here: the consequence of a failure.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::domain::CountedAddress;

/// Slots that an address may have.
const WAYS: usize = 8;
/// Slots of the table, for an address each.
const SLOTS: usize = 32_768;

/// One more than the minutes that count, as the first is cut.
const MINUTES: usize = 11;
/// The minutes of a span, and one more than the spans of an hour.
const SPAN: u32 = 5;
const SPANS: usize = 13;
/// An address that has done nothing for so many minutes has no failures that count.
const FORGOTTEN_AFTER: u32 = SPAN * SPANS as u32;

/// Beyond this sum the counts of good and failed requests are halved: they tell of the last ones.
const MOST_REQUESTS: u16 = 1_000;

/// The failures of an address that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// Failures of the last ten minutes.
    pub recent: u32,
    /// Unknown tokens among them.
    pub recent_unknown: u32,
    /// Failures of the last sixty minutes.
    pub hour: u32,
    /// Whether more than a fifth of its last requests were good; known only where those are counted.
    pub is_often_good: bool,
}

/// The table.
pub struct Attempts {
    random: RandomState,
    slots: Box<[Slot]>,
}

/// An address and its counts.
#[derive(Clone, Copy, Default)]
struct Slot {
    address: Option<CountedAddress>,
    /// The minute of the last request that was counted.
    minute: u32,
    good: u16,
    bad: u16,
    failures: [u8; MINUTES],
    unknown: [u8; MINUTES],
    spans: [u8; SPANS],
}

impl Attempts {
    pub fn new() -> Attempts {
        Attempts { random: RandomState::new(), slots: vec![Slot::default(); SLOTS].into_boxed_slice() }
    }

    /// Count a failure, and return those that count.
    pub fn failed(&mut self, address: CountedAddress, is_unknown_token: bool, now: Duration) -> Failures {
        let minute = minute(now);
        let slot = self.slot(address, minute);
        slot.advance(minute);
        let index = minute as usize % MINUTES;
        slot.failures[index] = slot.failures[index].saturating_add(1);
        slot.unknown[index] = slot.unknown[index].saturating_add(u8::from(is_unknown_token));
        let span = (minute / SPAN) as usize % SPANS;
        slot.spans[span] = slot.spans[span].saturating_add(1);
        slot.requested(false);
        slot.counted()
    }

    /// Count a good request, also of an address that has not failed yet.
    pub fn succeeded(&mut self, address: CountedAddress, now: Duration) {
        let minute = minute(now);
        let slot = self.slot(address, minute);
        slot.advance(minute);
        slot.requested(true);
    }

    /// Return the failures of an address that count.
    pub fn of(&self, address: CountedAddress, now: Duration) -> Failures {
        let first = self.first(address);
        let set = &self.slots[first..first + WAYS];
        let Some(slot) = set.iter().find(|slot| slot.address == Some(address)) else {
            return Failures::default();
        };
        let mut slot = *slot;
        slot.advance(minute(now));
        slot.counted()
    }

    /// Forget the failures of an address.
    pub fn forget(&mut self, address: CountedAddress) {
        if let Some(slot) = self.set(address).iter_mut().find(|slot| slot.address == Some(address)) {
            *slot = Slot::default();
        }
    }

    /// Return the slot of an address: its own, a free one, or the one of the oldest.
    fn slot(&mut self, address: CountedAddress, minute: u32) -> &mut Slot {
        let set = self.set(address);
        let is_free =
            |slot: &Slot| slot.address.is_none() || slot.minute.saturating_add(FORGOTTEN_AFTER) <= minute;
        let own = set.iter().position(|slot| slot.address == Some(address));
        let index = own.or_else(|| set.iter().position(is_free)).unwrap_or_else(|| {
            let oldest = set.iter().enumerate().min_by_key(|(_, slot)| slot.minute);
            oldest.map_or(0, |(index, _)| index)
        });
        let slot = &mut set[index];
        if slot.address != Some(address) {
            *slot = Slot { address: Some(address), minute, ..Slot::default() };
        }
        slot
    }

    fn set(&mut self, address: CountedAddress) -> &mut [Slot] {
        let first = self.first(address);
        &mut self.slots[first..first + WAYS]
    }

    fn first(&self, address: CountedAddress) -> usize {
        (self.random.hash_one(address) as usize % (SLOTS / WAYS)) * WAYS
    }
}

impl Slot {
    /// Empty the minutes and spans that have begun since the last request. An earlier time counts as the last one.
    fn advance(&mut self, minute: u32) {
        for begun in (self.minute + 1..=minute).take(MINUTES) {
            // Minutes beyond a whole round fall on the same indices.
            let index = begun as usize % MINUTES;
            (self.failures[index], self.unknown[index]) = (0, 0);
        }
        for begun in (self.minute / SPAN + 1..=minute / SPAN).take(SPANS) {
            self.spans[begun as usize % SPANS] = 0;
        }
        self.minute = self.minute.max(minute);
    }

    fn requested(&mut self, is_good: bool) {
        if is_good {
            self.good += 1;
        } else {
            self.bad += 1;
        }
        if self.good + self.bad > MOST_REQUESTS {
            (self.good, self.bad) = (self.good / 2, self.bad / 2);
        }
    }

    fn counted(&self) -> Failures {
        let sum = |counts: &[u8]| counts.iter().map(|count| u32::from(*count)).sum();
        Failures {
            recent: sum(&self.failures),
            recent_unknown: sum(&self.unknown),
            hour: sum(&self.spans),
            is_often_good: u32::from(self.good) * 5 > u32::from(self.good) + u32::from(self.bad),
        }
    }
}

fn minute(now: Duration) -> u32 {
    u32::try_from(now.as_secs() / 60).unwrap_or(u32::MAX)
}

/// The bytes of the table, which never change.
#[cfg(test)]
pub const BYTES: usize = SLOTS * size_of::<Slot>();
/// The addresses of the table at most.
#[cfg(test)]
pub const ENTRIES: usize = SLOTS;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(number: u32) -> CountedAddress {
        CountedAddress::of(IpAddr::V4(Ipv4Addr::from(number)))
    }

    fn at(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn failures_count_for_ten_and_for_sixty_minutes() {
        let mut attempts = Attempts::new();
        let caller = address(1);
        for n in 0..3 {
            attempts.failed(caller, n == 0, at(100));
        }
        let of = |minutes| attempts.of(caller, at(minutes));
        let fresh = Failures { recent: 3, recent_unknown: 1, hour: 3, is_often_good: false };
        assert_eq!((of(100), of(110)), (fresh, fresh));
        assert_eq!(of(111), Failures { recent: 0, recent_unknown: 0, ..fresh });
        assert_eq!((of(160).hour, of(165).hour), (3, 0));
        assert_eq!(of(100_000), Failures::default());
        assert_eq!(attempts.of(address(2), at(100)), Failures::default(), "another address");
    }

    #[test]
    fn window_slides() {
        let mut attempts = Attempts::new();
        let caller = address(1);
        for minute in 0..=30 {
            attempts.failed(caller, false, at(minute));
        }
        assert_eq!((attempts.of(caller, at(30)).recent, attempts.of(caller, at(30)).hour), (11, 31));
        assert_eq!(attempts.of(caller, at(35)).recent, 6);
        for _ in 0..1_000 {
            attempts.failed(caller, true, at(36));
        }
        assert!(attempts.of(caller, at(36)).recent_unknown >= 255, "no count runs over");
    }

    #[test]
    fn good_requests_are_counted_from_the_start() {
        let mut attempts = Attempts::new();
        let proxy = address(1);
        for _ in 0..2 {
            attempts.succeeded(proxy, at(0));
        }
        assert!(attempts.of(proxy, at(0)).is_often_good);
        for _ in 0..8 {
            attempts.failed(proxy, true, at(0));
        }
        assert!(!attempts.of(proxy, at(0)).is_often_good, "a fifth");
        attempts.succeeded(proxy, at(0));
        assert!(attempts.of(proxy, at(0)).is_often_good);
        for _ in 0..100_000 {
            attempts.succeeded(proxy, at(1));
        }
        for _ in 0..5_000 {
            attempts.failed(proxy, false, at(1));
        }
        assert!(!attempts.of(proxy, at(1)).is_often_good, "the last ones count");
    }

    #[test]
    fn forgotten_address_begins_anew() {
        let mut attempts = Attempts::new();
        attempts.failed(address(1), true, at(0));
        attempts.forget(address(1));
        attempts.forget(address(2));
        assert_eq!(attempts.of(address(1), at(0)), Failures::default());
    }

    #[test]
    fn million_addresses_displace_the_oldest() {
        let mut attempts = Attempts::new();
        let bytes = size_of_val(&*attempts.slots);
        for number in 0..1_000_000 {
            attempts.failed(address(number), true, at(u64::from(number / 10_000)));
        }
        assert_eq!((size_of_val(&*attempts.slots), attempts.slots.len()), (bytes, ENTRIES));
        assert_eq!(bytes, BYTES);
        assert_eq!(attempts.of(address(999_999), at(99)).recent, 1, "the newest is there");
        assert_eq!(attempts.of(address(0), at(99)).hour, 0, "the first is gone");
    }
}
