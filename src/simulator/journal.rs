//! What the simulator has seen: a bounded list of calls, and counters that are exact however many there were.
//!
//! Memory: the list keeps [`SimulatorOptions::keep`](super::SimulatorOptions::keep) calls; beside it a recipient
//! costs 16 bytes (two counts under a 64-bit hash of its id), so a load test over a million recipients stays in the
//! tens of megabytes. Never here: tokens.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::limits::{UsagePercent, Windows};
use super::outcome::{Chosen, GraphError, OVER_LIMIT, Reply};

/// One call, as it was read.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Counts all calls from 1, in order of arrival; goes on over resets.
    pub seq: u64,
    /// Arrival, Unix milliseconds.
    pub time_ms: u64,
    /// Arrival on the monotonic clock, for differences.
    #[serde(skip)]
    pub received: Instant,
    /// [`token_tag`](super::token_tag) of its token; empty without one.
    pub token: String,
    /// Empty for a call whose body names none, or that was refused before its body was read.
    pub dest: String,
    /// The JSON body; a text if it is not JSON.
    pub body: Value,
    /// The word of the outcome table; `sent`, `limit`, `no token`, `refused`.
    pub outcome: String,
    /// Whether the recipient got the message, whatever the caller was told.
    pub delivered: bool,
}

/// The counters since the start or the last reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Calls of `me/messages`, refused ones included.
    pub calls: u64,
    /// Messages that recipients got.
    pub delivered: u64,
    /// Different recipients that were called.
    pub recipients: u64,
    /// Different recipients that got at least one message; `delivered - reached` messages were repetitions, if
    /// each recipient was meant to get one.
    pub reached: u64,
    /// Calls being answered now.
    pub in_flight: usize,
    /// The most there were at a time.
    pub max_in_flight: usize,
    /// Calls by outcome, named as in [`Call::outcome`].
    pub outcomes: BTreeMap<String, u64>,
}

/// A call that was read whole.
pub(super) struct Arrival<'a> {
    /// When it had been read. Taken before the journal's lock, so that a reader of the journal delays no arrival.
    pub received: Instant,
    /// Empty without a token.
    pub tag: &'a str,
    pub body: &'a [u8],
    /// Recipient and chosen outcome, or why it is refused.
    pub asked: Result<(&'a str, Chosen), (&'static str, GraphError)>,
}

/// How a recorded call has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub seq: u64,
    pub reply: Reply,
    /// Set if the token has a limit.
    pub usage: Option<UsagePercent>,
}

#[derive(Debug)]
pub(super) struct Journal {
    keep: usize,
    limit_per_token: Option<u32>,
    windows: Windows,
    last_seq: u64,
    kept: VecDeque<Arc<Kept>>,
    calls: u64,
    delivered: u64,
    reached: u64,
    outcomes: BTreeMap<Cow<'static, str>, u64>,
    recipients: HashMap<u64, Tally>,
    hasher: RandomState,
}

/// A call in the list.
#[derive(Debug)]
pub(super) struct Kept {
    seq: u64,
    at: SystemTime,
    received: Instant,
    tag: Box<str>,
    dest: Box<str>,
    body: Box<[u8]>,
    outcome: Cow<'static, str>,
    delivered: bool,
}

/// What a recipient has seen.
#[derive(Debug, Default)]
struct Tally {
    calls: u32,
    delivered: u32,
}

impl Journal {
    pub fn new(keep: usize, limit_per_token: Option<u32>) -> Journal {
        Journal {
            keep,
            limit_per_token,
            windows: Windows::default(),
            last_seq: 0,
            kept: VecDeque::new(),
            calls: 0,
            delivered: 0,
            reached: 0,
            outcomes: BTreeMap::new(),
            recipients: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Decides a call's outcome and records it.
    pub fn take(&mut self, arrival: Arrival<'_>) -> Taken {
        let received = arrival.received;
        let (dest, chosen, usage) = match arrival.asked {
            Ok((dest, chosen)) => {
                let (chosen, usage) = self.settle(arrival.tag, dest, chosen, received);
                (dest, chosen, usage)
            }
            Err((label, error)) => ("", Chosen::refused(label, error), None),
        };
        self.last_seq += 1;
        self.calls += 1;
        self.delivered += u64::from(chosen.delivered);
        match self.outcomes.get_mut(&chosen.label) {
            Some(count) => *count += 1,
            None => drop(self.outcomes.insert(chosen.label.clone(), 1)),
        }
        if self.keep > 0 {
            if self.kept.len() >= self.keep {
                self.kept.pop_front();
            }
            self.kept.push_back(Arc::new(Kept {
                seq: self.last_seq,
                at: SystemTime::now(),
                received,
                tag: arrival.tag.into(),
                dest: dest.into(),
                body: arrival.body.into(),
                outcome: chosen.label,
                delivered: chosen.delivered,
            }));
        }
        Taken { seq: self.last_seq, reply: chosen.reply, usage }
    }

    /// The token's limit comes before the chosen outcome, and spends none of the recipient's first calls.
    fn settle(
        &mut self,
        tag: &str,
        dest: &str,
        chosen: Chosen,
        now: Instant,
    ) -> (Chosen, Option<UsagePercent>) {
        let usage = match self.limit_per_token.map(|limit| self.windows.take(tag, limit, now)) {
            Some(Err(over)) => return (Chosen::refused("limit", OVER_LIMIT), Some(over)),
            Some(Ok(usage)) => Some(usage),
            None => None,
        };
        let tally = self.recipients.entry(self.hasher.hash_one(dest)).or_default();
        tally.calls = tally.calls.saturating_add(1);
        let spent = chosen.first_calls.is_some_and(|first| u64::from(tally.calls) > first);
        let chosen = if spent { Chosen::sent() } else { chosen };
        if chosen.delivered {
            self.reached += u64::from(tally.delivered == 0);
            tally.delivered = tally.delivered.saturating_add(1);
        }
        (chosen, usage)
    }

    /// The kept calls after a sequence number, oldest first; to be read once the lock is gone ([`Kept::call`]).
    pub fn kept(&self, after: u64, dest: Option<&str>) -> Vec<Arc<Kept>> {
        self.kept
            .iter()
            .filter(|kept| kept.seq > after && dest.is_none_or(|dest| *kept.dest == *dest))
            .cloned()
            .collect()
    }

    /// When the kept calls with this token arrived, oldest first.
    pub fn arrivals(&self, tag: &str) -> Vec<Instant> {
        self.kept.iter().filter(|kept| *kept.tag == *tag).map(|kept| kept.received).collect()
    }

    pub fn delivered_to(&self, dest: &str) -> usize {
        self.recipients.get(&self.hasher.hash_one(dest)).map_or(0, |tally| tally.delivered as usize)
    }

    pub fn counts(&self, in_flight: usize, max_in_flight: usize) -> Counts {
        Counts {
            calls: self.calls,
            delivered: self.delivered,
            recipients: self.recipients.len() as u64,
            reached: self.reached,
            in_flight,
            max_in_flight,
            outcomes: self.outcomes.iter().map(|(label, count)| (label.to_string(), *count)).collect(),
        }
    }

    /// Forgets everything but the last sequence number, so that message ids are never given twice.
    pub fn reset(&mut self) {
        let last_seq = self.last_seq;
        *self = Journal { last_seq, ..Journal::new(self.keep, self.limit_per_token) };
    }
}

impl Kept {
    pub fn call(&self) -> Call {
        Call {
            seq: self.seq,
            time_ms: self
                .at
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            received: self.received,
            token: self.tag.to_string(),
            dest: self.dest.to_string(),
            body: serde_json::from_slice(&self.body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.body).into_owned())),
            outcome: self.outcome.to_string(),
            delivered: self.delivered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::choose;
    use super::*;

    fn send(journal: &mut Journal, dest: &str) -> Taken {
        journal.take(Arrival {
            received: Instant::now(),
            tag: "tag",
            body: b"{}",
            asked: Ok((dest, choose(dest))),
        })
    }

    #[test]
    fn the_list_is_bounded_and_the_counters_are_exact() {
        let mut journal = Journal::new(3, None);
        for number in 0..10 {
            send(&mut journal, &format!("dest{}", number % 5));
        }
        assert_eq!(journal.kept(0, None).iter().map(|call| call.seq).collect::<Vec<_>>(), [8, 9, 10]);
        let counts = journal.counts(0, 0);
        assert_eq!((counts.calls, counts.delivered, counts.recipients, counts.reached), (10, 10, 5, 5));
        assert_eq!(journal.delivered_to("dest1"), 2);
    }

    #[test]
    fn a_limited_call_spends_none_of_the_first_calls() {
        let mut journal = Journal::new(10, Some(1));
        let first = send(&mut journal, "code1200x1-bob");
        assert!(matches!(first.reply, Reply::Error(error) if error.code == 1200));
        assert!(matches!(send(&mut journal, "code1200x1-bob").reply, Reply::Error(OVER_LIMIT)));
        assert_eq!(journal.counts(0, 0).outcomes["limit"], 1);
        journal.windows = Windows::default();
        assert_eq!(send(&mut journal, "code1200x1-bob").reply, Reply::Sent);
    }

    #[test]
    fn a_reset_forgets_calls_and_goes_on_counting_their_numbers() {
        let mut journal = Journal::new(10, None);
        send(&mut journal, "bob");
        journal.reset();
        assert_eq!(journal.counts(0, 0).calls, 0);
        assert_eq!(journal.delivered_to("bob"), 0);
        assert_eq!(send(&mut journal, "bob").seq, 2);
    }
}
