//! The banned addresses as this process knows them: its own bans until they are stored, and the stored ones of all
//! processes. Bounded. Pure: the caller gives the time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::domain::CountedAddress;
use crate::store::{BanInForce, MAX_BANS, NewBan};

/// Bans that are known at most.
const MOST: usize = MAX_BANS as usize;

#[derive(Default)]
pub struct Bans {
    held: HashMap<CountedAddress, Ban>,
}

struct Ban {
    until: Duration,
    /// The reason of a ban that is still to be stored.
    to_store: Option<&'static str>,
}

impl Bans {
    pub fn holds(&self, address: CountedAddress, now: Duration) -> bool {
        self.held.get(&address).is_some_and(|ban| ban.until > now)
    }

    /// Add a ban of this process; return whether there was room, and no such ban yet. Ended bans keep their room until they
    /// are dropped: an attack from everywhere must not make each request walk over the list.
    pub fn add(
        &mut self,
        address: CountedAddress,
        reason: &'static str,
        length: Duration,
        now: Duration,
    ) -> bool {
        if self.holds(address, now) {
            return false;
        }
        if self.held.len() >= MOST && !self.held.contains_key(&address) {
            return false;
        }
        self.held.insert(address, Ban { until: now.saturating_add(length), to_store: Some(reason) });
        true
    }

    /// Drop ended bans. Return the ones that are still to be stored, with the time that is left of each.
    pub fn take_unstored(&mut self, now: Duration) -> Vec<NewBan> {
        self.held.retain(|_, ban| ban.until > now);
        let new = |(address, ban): (&CountedAddress, &Ban)| {
            let length = ban.until.saturating_sub(now);
            Some(NewBan { address: *address, reason: ban.to_store?.to_owned(), length })
        };
        self.held.iter().filter_map(new).collect()
    }

    pub fn stored(&mut self, addresses: &[CountedAddress]) {
        for address in addresses {
            if let Some(ban) = self.held.get_mut(address) {
                ban.to_store = None;
            }
        }
    }

    /// Follow the stored bans; return the addresses whose ban was lifted.
    pub fn follow(&mut self, in_force: &[BanInForce], now: Duration) -> Vec<CountedAddress> {
        let known: HashSet<CountedAddress> = in_force.iter().map(|ban| ban.address).collect();
        let mut lifted = Vec::new();
        self.held.retain(|address, ban| {
            let stays = ban.to_store.is_some() || known.contains(address);
            if !stays && ban.until > now {
                lifted.push(*address);
            }
            stays && ban.until > now
        });
        for BanInForce { address, left } in in_force {
            let until = now.saturating_add(*left);
            if let Some(ban) = self.held.get_mut(address) {
                ban.until = until;
            } else if self.held.len() < MOST {
                self.held.insert(*address, Ban { until, to_store: None });
            }
        }
        lifted
    }

    pub fn count(&self, now: Duration) -> usize {
        self.held.values().filter(|ban| ban.until > now).count()
    }
}

/// The bytes of a full list at most: a table of the standard library has room for twice its entries, and a byte more
/// for each.
#[cfg(test)]
pub const BYTES: usize = (MOST * 8 / 7).next_power_of_two() * (size_of::<(CountedAddress, Ban)>() + 1);
#[cfg(test)]
pub const ENTRIES: usize = MOST;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const NOW: Duration = Duration::from_secs(5);

    fn address(number: u32) -> CountedAddress {
        CountedAddress::of(IpAddr::V4(Ipv4Addr::from(number)))
    }

    fn stored(number: u32) -> BanInForce {
        BanInForce { address: address(number), left: HOUR }
    }

    #[test]
    fn own_ban_holds_until_its_end() {
        let mut bans = Bans::default();
        assert!(bans.add(address(1), "guessing", HOUR, NOW));
        assert!(!bans.add(address(1), "guessing", HOUR, NOW), "it is banned already");
        assert!(bans.holds(address(1), NOW) && !bans.holds(address(2), NOW));
        assert!(!bans.holds(address(1), NOW + HOUR));
        assert_eq!((bans.count(NOW), bans.count(NOW + HOUR)), (1, 0));
        assert!(bans.add(address(1), "guessing", HOUR, NOW + HOUR), "the first has ended");
    }

    #[test]
    fn ban_stays_until_it_is_stored() {
        let mut bans = Bans::default();
        bans.add(address(1), "guessing", HOUR, NOW);
        assert!(bans.follow(&[], NOW).is_empty());
        let half = NOW + HOUR / 2;
        let to_store = NewBan { address: address(1), reason: "guessing".into(), length: HOUR / 2 };
        assert_eq!(bans.take_unstored(half), [to_store]);
        bans.stored(&[address(1)]);
        assert!(bans.take_unstored(half).is_empty() && bans.holds(address(1), half));
    }

    #[test]
    fn stored_bans_of_others_are_followed_and_lifted() {
        let mut bans = Bans::default();
        assert!(bans.follow(&[stored(1), stored(2)], NOW).is_empty());
        assert!(bans.holds(address(1), NOW) && bans.holds(address(2), NOW));
        assert_eq!(bans.follow(&[stored(2)], NOW), [address(1)]);
        assert!(!bans.holds(address(1), NOW) && bans.holds(address(2), NOW));
        assert!(bans.follow(&[], NOW + HOUR).is_empty(), "an ended ban was not lifted");
    }

    #[test]
    fn full_list_takes_no_more_until_ended_bans_are_dropped() {
        let mut bans = Bans::default();
        for number in 0..1_000_000 {
            bans.add(address(number), "guessing", HOUR, NOW);
        }
        assert_eq!(bans.count(NOW), ENTRIES);
        assert!(!bans.add(address(2_000_000), "guessing", HOUR, NOW));
        assert!(bans.take_unstored(NOW + HOUR).is_empty());
        assert!(bans.add(address(2_000_000), "guessing", HOUR, NOW + HOUR));
    }
}
