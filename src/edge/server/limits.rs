//! The limits of a listener's connections, over all addresses and of each, and the choice of an idle one to make room.
//!
//! A connection waits for its client, or works for it. Only one that waits is taken away, and only from an
//! address that holds more than its share. Never here: the bytes of a connection.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connection::ConnectionState;
use crate::domain::CountedAddress;
use crate::metrics::METRICS;

/// Files that are open besides those of senders' connections, calls to Graph and the database: listeners, the
/// broker, the log, temporary files, and the connections of the admin listener.
pub const OTHER_FILES: u64 = 128;
/// Files left to the connections that own submit queues take at the broker; fewer where the limit is low.
const OWN_QUEUE_FILES: u64 = 256;
/// The bounds of a computed limit. The upper one bounds the memory of connections that send heads and bodies.
const LEAST_COMPUTED: u64 = 64;
const MOST_COMPUTED: u64 = 16_384;
/// The largest holders whose connections are looked through for an idle one.
const LOOKED_THROUGH: usize = 4;
/// The time between two lines in the log that tell of a reached limit.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The bounds of a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Over all addresses.
    pub all: usize,
    /// Of one IPv4 address, or one /64 network of IPv6.
    pub per_address: usize,
}

impl ConnectionLimits {
    /// The limits of the admin listener. Its connections are a reserve outside those of senders; half
    /// of them are left to other addresses, for a probe beside a crowd.
    pub const ADMIN: ConnectionLimits = ConnectionLimits { all: 48, per_address: 24 };

    /// Return the limits as set. One address holds half of all places at most: requests that `wait` are never cut for
    /// another address, and would otherwise hold every place.
    pub fn of(all: usize, per_address: usize) -> ConnectionLimits {
        ConnectionLimits { all, per_address: per_address.min((all / 2).max(1)) }
    }

    /// Return the number of connections that a limit of open files leaves for senders.
    pub fn within(open_files: u64, sessions: u64, calls: u64) -> usize {
        let taken = sessions.saturating_add(calls).saturating_add(OTHER_FILES);
        let left = open_files.saturating_sub(taken);
        let left = left - OWN_QUEUE_FILES.min(left / 4);
        usize::try_from(left.clamp(LEAST_COMPUTED, MOST_COMPUTED)).unwrap_or(usize::MAX)
    }
}

/// The places of a listener's connections.
pub struct Places {
    listener: &'static str,
    limits: ConnectionLimits,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: usize,
    /// The number of the next connection: a holder's oldest has the lowest.
    next: u64,
    holders: HashMap<Holder, BTreeMap<u64, Arc<ConnectionState>>>,
    told_at: Option<Instant>,
}

/// The peers that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Holder {
    address: CountedAddress,
    /// A trusted proxy stands for many clients: only the limit over all counts for it, and no connection is
    /// taken away from it.
    is_proxy: bool,
}

/// One connection's place; given back when dropped.
pub struct Place {
    places: Arc<Places>,
    holder: Holder,
    number: u64,
    state: Arc<ConnectionState>,
}

impl Places {
    pub fn new(listener: &'static str, limits: ConnectionLimits) -> Arc<Places> {
        Arc::new(Places { listener, limits, held: Mutex::default() })
    }

    /// Take a place for a connection from this peer, if there is one or one can be made.
    pub fn take(self: &Arc<Self>, peer: IpAddr, is_proxy: bool) -> Option<Place> {
        let holder = Holder { address: CountedAddress::of(peer), is_proxy };
        let mut held = self.held.lock();
        if !is_proxy && held.count(holder) >= self.limits.per_address {
            METRICS.http.over_address.increment(1);
            return None;
        }
        if held.all >= self.limits.all {
            if held.is_time_to_tell() {
                tracing::warn!(
                    listener = self.listener,
                    limit = self.limits.all,
                    "limit of connections reached: idle ones of the largest holders make room, others are closed at \
                     once; raise http.max_connections, or find the addresses that hold them"
                );
            }
            if !held.make_room(holder, self.limits.all) {
                METRICS.http.over_all.increment(1);
                return None;
            }
            METRICS.http.displaced.increment(1);
        }
        let state = Arc::<ConnectionState>::default();
        let number = held.add(holder, state.clone());
        Some(Place { places: self.clone(), holder, number, state })
    }
}

impl Held {
    fn count(&self, holder: Holder) -> usize {
        self.holders.get(&holder).map_or(0, BTreeMap::len)
    }

    fn add(&mut self, holder: Holder, state: Arc<ConnectionState>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.all += 1;
        self.holders.entry(holder).or_default().insert(number, state);
        number
    }

    /// Remove a connection; `None` if it was taken away before.
    fn remove(&mut self, holder: Holder, number: u64) -> Option<Arc<ConnectionState>> {
        let connections = self.holders.get_mut(&holder)?;
        let state = connections.remove(&number)?;
        if connections.is_empty() {
            self.holders.remove(&holder);
        }
        self.all -= 1;
        Some(state)
    }

    /// Take a connection that waits for its client away from a holder of more than its share, for a newcomer
    /// that holds less than its own. Return whether one was found.
    fn make_room(&mut self, newcomer: Holder, limit: usize) -> bool {
        let own = self.count(newcomer);
        let share = limit / (self.holders.len() + usize::from(own == 0)).max(1);
        if own >= share && !newcomer.is_proxy {
            return false;
        }
        let others = self.holders.iter().filter(|(holder, _)| **holder != newcomer && !holder.is_proxy);
        let mut large: Vec<_> = others.filter(|(_, connections)| connections.len() > share).collect();
        large.sort_unstable_by_key(|(_, connections)| Reverse(connections.len()));
        let found = large
            .into_iter()
            .take(LOOKED_THROUGH)
            .find_map(|(holder, connections)| Some((*holder, longest_waiting(connections)?)));
        let Some((holder, number)) = found else { return false };
        if let Some(state) = self.remove(holder, number) {
            state.take_away();
        }
        true
    }

    fn is_time_to_tell(&mut self) -> bool {
        let is_time = self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if is_time {
            self.told_at = Some(Instant::now());
        }
        is_time
    }
}

/// Return the oldest connection that waits for a head, or else for the rest of a body.
fn longest_waiting(connections: &BTreeMap<u64, Arc<ConnectionState>>) -> Option<u64> {
    let oldest = |waits: fn(&ConnectionState) -> bool| connections.iter().find(|(_, state)| waits(state));
    oldest(ConnectionState::waits_for_head)
        .or_else(|| oldest(ConnectionState::waits_for_client))
        .map(|(number, _)| *number)
}

impl Place {
    pub fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held.lock().remove(self.holder, self.number);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn places(all: usize, per_address: usize) -> Arc<Places> {
        Places::new("test", ConnectionLimits { all, per_address })
    }

    /// As many places as the address gets, at most `count`.
    fn take(places: &Arc<Places>, peer: &str, count: usize) -> Vec<Place> {
        (0..count).map_while(|_| places.take(address(peer), false)).collect()
    }

    fn lost(held: &[Place]) -> usize {
        held.iter().filter(|place| place.state().is_taken_away()).count()
    }

    #[rstest]
    #[case::plain(1_024, 16, 512, 276)]
    #[case::without_calls(1_024, 16, 0, 660)]
    #[case::enough_for_own_queues(4_096, 16, 512, 3_184)]
    #[case::low(256, 16, 512, 64)]
    #[case::high(1 << 20, 16, 512, 16_384)]
    #[case::endless(u64::MAX, 16, 512, 16_384)]
    fn computed_limit_leaves_files_for_others(
        #[case] files: u64,
        #[case] sessions: u64,
        #[case] calls: u64,
        #[case] expected: usize,
    ) {
        assert_eq!(ConnectionLimits::within(files, sessions, calls), expected);
    }

    #[rstest]
    #[case::many(4_000, 1_000, 1_000)]
    #[case::few(100, 1_000, 50)]
    #[case::one(1, 1_000, 1)]
    fn address_holds_half_at_most(#[case] all: usize, #[case] per_address: usize, #[case] expected: usize) {
        assert_eq!(ConnectionLimits::of(all, per_address), ConnectionLimits { all, per_address: expected });
    }

    #[test]
    fn admin_listener_leaves_half_to_other_addresses() {
        let places = Places::new("admin", ConnectionLimits::ADMIN);
        let held = take(&places, "192.0.2.1", 100);
        assert_eq!((held.len(), take(&places, "127.0.0.1", 10).len(), lost(&held)), (24, 10, 0));
    }

    #[test]
    fn address_is_bounded_and_its_place_given_back() {
        let places = places(10, 2);
        let mut held = take(&places, "192.0.2.1", 5);
        assert_eq!(held.len(), 2);
        assert_eq!(take(&places, "192.0.2.2", 1).len(), 1);
        held.pop();
        assert!(places.take(address("192.0.2.1"), false).is_some());
        drop(held);
        assert!(places.held.lock().holders.is_empty());
        assert_eq!(places.held.lock().all, 0);
    }

    #[rstest]
    #[case::mapped("192.0.2.1", "::ffff:192.0.2.1", false)]
    #[case::same_network("2001:db8::1", "2001:db8::ffff:1", false)]
    #[case::other_network("2001:db8::1", "2001:db8:0:1::1", true)]
    fn network_counts_as_one_address(#[case] one: &str, #[case] other: &str, #[case] has_place: bool) {
        let places = places(10, 1);
        let _held = take(&places, one, 1);
        assert_eq!(places.take(address(other), false).is_some(), has_place);
    }

    #[test]
    fn proxy_is_bounded_over_all_alone() {
        let places = places(4, 1);
        let held: Vec<_> = (0..4).filter_map(|_| places.take(address("10.0.0.1"), true)).collect();
        assert_eq!(held.len(), 4);
        assert!(places.take(address("10.0.0.1"), true).is_none());
        assert!(places.take(address("192.0.2.1"), false).is_none());
        assert_eq!(lost(&held), 0);
    }

    #[test]
    fn idle_holders_make_room_for_others_until_shares_are_equal() {
        let places = places(12, 100);
        let first = take(&places, "192.0.2.1", 6);
        let second = take(&places, "192.0.2.2", 6);
        assert_eq!(take(&places, "192.0.2.1", 1).len(), 0, "it holds its share");
        let third = take(&places, "192.0.2.3", 100);
        assert_eq!(third.len(), 4);
        assert_eq!((lost(&first), lost(&second), lost(&third)), (2, 2, 0));
        assert!(first[0].state().is_taken_away(), "the oldest goes first");
        assert_eq!(places.held.lock().all, 12);
        drop((first, second, third));
        assert_eq!(places.held.lock().all, 0);
    }

    #[test]
    fn working_connections_stay() {
        let places = places(4, 100);
        let held = take(&places, "192.0.2.1", 4);
        let requests: Vec<_> = held.iter().map(|place| place.state().begin_request(false)).collect();
        assert!(places.take(address("192.0.2.2"), false).is_none());
        assert_eq!(lost(&held), 0);
        drop(requests);
        assert!(places.take(address("192.0.2.2"), false).is_some());
        assert_eq!(lost(&held), 1);
    }

    #[test]
    fn connection_without_a_head_goes_before_one_with_half_a_body() {
        let places = places(2, 100);
        let held = take(&places, "192.0.2.1", 2);
        let _request = held[0].state().begin_request(true);
        let _newcomer = places.take(address("192.0.2.2"), false).expect("the second makes room");
        assert_eq!((held[0].state().is_taken_away(), held[1].state().is_taken_away()), (false, true));
    }

    #[test]
    fn half_a_body_makes_room_too() {
        let places = places(2, 100);
        let held = take(&places, "192.0.2.1", 2);
        let _requests: Vec<_> = held.iter().map(|place| place.state().begin_request(true)).collect();
        assert!(places.take(address("192.0.2.2"), false).is_some());
        assert_eq!(lost(&held), 1);
    }
}
