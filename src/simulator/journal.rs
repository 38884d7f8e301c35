//! The record of the simulator's calls: a bounded list, and counters that stay exact for any number of calls.
//!
//! Memory: the list keeps [`SimulatorOptions::keep`](super::SimulatorOptions::keep) calls; beside it a
//! recipient costs 16 bytes (two counts under a 64-bit hash of its id), and a load test over a million
//! recipients stays in the tens of megabytes. Never here: tokens.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::limits::{RateWindows, UsagePercent};
use super::outcome::{ChosenOutcome, PlayedAnswer};
use super::refusal::{OVER_LIMIT, PlayedError};

/// One call, as it was read.
#[derive(Debug, Clone, Serialize)]
pub struct PlayedCall {
    /// Number of the call, from 1, in order of arrival; continues over resets.
    pub seq: u64,
    /// Arrival, Unix milliseconds.
    pub time_ms: u64,
    /// Arrival on the monotonic clock, for differences.
    #[serde(skip)]
    pub received: Instant,
    /// [`token_tag`](super::token_tag) of the call's token; empty without one.
    pub token: String,
    /// Empty for a call whose body names none, or that was refused before its body was read.
    pub dest: String,
    /// The JSON body; a text if it is not JSON.
    pub body: Value,
    /// The word of the outcome table; `sent`, `limit`, `no token`, `refused`, `budget`, `asset`, `window`.
    pub outcome: String,
    /// Whether the recipient got the message, whatever the answer to the caller.
    pub delivered: bool,
}

/// The counters since the start or the last reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallCounts {
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
    /// The most calls answered at a time.
    pub max_in_flight: usize,
    /// Calls by outcome, named as in [`PlayedCall::outcome`].
    pub outcomes: BTreeMap<String, u64>,
}

/// A call that was read whole.
pub(super) struct Arrival<'a> {
    /// The time at which the call had been read. Taken before the journal's lock: a reader of the journal
    /// delays no arrival.
    pub received: Instant,
    /// Empty without a token.
    pub tag: &'a str,
    pub body: &'a [u8],
    pub asked: Asked<'a>,
}

/// The wish of a call.
pub(super) enum Asked<'a> {
    /// A message to this recipient, who chose the outcome.
    Message(&'a str, ChosenOutcome),
    /// A call that is refused whatever its recipient chose; without a recipient if none was read. Such a call
    /// spends none of the recipient's first calls.
    Refused { dest: &'a str, label: &'static str, error: PlayedError },
}

/// The answer that a recorded call demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordedCall {
    pub seq: u64,
    pub reply: PlayedAnswer,
    pub delivered: bool,
    /// Set if the token has a limit.
    pub usage: Option<UsagePercent>,
}

#[derive(Debug)]
pub(super) struct Journal {
    keep: usize,
    limit_per_token: Option<u32>,
    windows: RateWindows,
    last_seq: u64,
    kept: VecDeque<Arc<JournalEntry>>,
    calls: u64,
    delivered: u64,
    reached: u64,
    outcomes: BTreeMap<Cow<'static, str>, u64>,
    recipients: HashMap<u64, RecipientCounts>,
    hasher: RandomState,
}

/// A call in the list.
#[derive(Debug)]
pub(super) struct JournalEntry {
    seq: u64,
    at: SystemTime,
    received: Instant,
    tag: Box<str>,
    dest: Box<str>,
    body: Box<[u8]>,
    outcome: Cow<'static, str>,
    delivered: bool,
}

/// The counts of a recipient.
#[derive(Debug, Default)]
struct RecipientCounts {
    calls: u32,
    delivered: u32,
}

impl Journal {
    pub fn new(keep: usize, limit_per_token: Option<u32>) -> Journal {
        Journal {
            keep,
            limit_per_token,
            windows: RateWindows::default(),
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

    /// Decide a call's outcome and record it.
    pub fn take(&mut self, arrival: Arrival<'_>) -> RecordedCall {
        let received = arrival.received;
        let (dest, chosen, usage) = match arrival.asked {
            Asked::Message(dest, chosen) => {
                let (chosen, usage) = self.settle(arrival.tag, dest, chosen, received);
                (dest, chosen, usage)
            }
            Asked::Refused { dest, label, error } => (dest, ChosenOutcome::refused(label, error), None),
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
            self.kept.push_back(Arc::new(JournalEntry {
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
        RecordedCall { seq: self.last_seq, reply: chosen.reply, delivered: chosen.delivered, usage }
    }

    /// Choose the outcome. The token's limit comes before the chosen outcome, and spends none of the
    /// recipient's first calls.
    fn settle(
        &mut self,
        tag: &str,
        dest: &str,
        chosen: ChosenOutcome,
        now: Instant,
    ) -> (ChosenOutcome, Option<UsagePercent>) {
        let usage = match self.limit_per_token.map(|limit| self.windows.take(tag, limit, now)) {
            Some(Err(over)) => return (ChosenOutcome::refused("limit", OVER_LIMIT), Some(over)),
            Some(Ok(usage)) => Some(usage),
            None => None,
        };
        let tally = self.recipients.entry(self.hasher.hash_one(dest)).or_default();
        tally.calls = tally.calls.saturating_add(1);
        let spent = chosen.first_calls.is_some_and(|first| u64::from(tally.calls) > first);
        let chosen = if spent { ChosenOutcome::sent() } else { chosen };
        if chosen.delivered {
            self.reached += u64::from(tally.delivered == 0);
            tally.delivered = tally.delivered.saturating_add(1);
        }
        (chosen, usage)
    }

    /// Return the kept calls after a sequence number, oldest first; to be read after the lock is released
    /// ([`JournalEntry::call`]).
    pub fn kept(&self, after: u64, dest: Option<&str>) -> Vec<Arc<JournalEntry>> {
        self.kept
            .iter()
            .filter(|kept| kept.seq > after && dest.is_none_or(|dest| *kept.dest == *dest))
            .cloned()
            .collect()
    }

    /// Return a kept call, to be read after the lock is released.
    pub fn kept_at(&self, seq: u64) -> Option<Arc<JournalEntry>> {
        let place = self.kept.binary_search_by_key(&seq, |kept| kept.seq).ok()?;
        self.kept.get(place).cloned()
    }

    /// Return the arrival times of the kept calls with this token, oldest first.
    pub fn arrivals(&self, tag: &str) -> Vec<Instant> {
        self.kept.iter().filter(|kept| *kept.tag == *tag).map(|kept| kept.received).collect()
    }

    pub fn delivered_to(&self, dest: &str) -> usize {
        self.recipients.get(&self.hasher.hash_one(dest)).map_or(0, |tally| tally.delivered as usize)
    }

    pub fn counts(&self, in_flight: usize, max_in_flight: usize) -> CallCounts {
        CallCounts {
            calls: self.calls,
            delivered: self.delivered,
            recipients: self.recipients.len() as u64,
            reached: self.reached,
            in_flight,
            max_in_flight,
            outcomes: self.outcomes.iter().map(|(label, count)| (label.to_string(), *count)).collect(),
        }
    }

    /// Delete everything except the last sequence number: message ids are never given twice.
    pub fn reset(&mut self) {
        let last_seq = self.last_seq;
        *self = Journal { last_seq, ..Journal::new(self.keep, self.limit_per_token) };
    }
}

impl JournalEntry {
    /// Return the recipient of a message that was delivered, and the tag of its token.
    pub fn delivered(&self) -> Option<(&str, &str)> {
        self.delivered.then_some((&*self.dest, &*self.tag))
    }

    pub fn call(&self) -> PlayedCall {
        PlayedCall {
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

    fn send(journal: &mut Journal, dest: &str) -> RecordedCall {
        journal.take(Arrival {
            received: Instant::now(),
            tag: "tag",
            body: b"{}",
            asked: Asked::Message(dest, choose(dest)),
        })
    }

    #[test]
    fn list_is_bounded_and_counters_are_exact() {
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
    fn limited_call_spends_no_first_call() {
        let mut journal = Journal::new(10, Some(1));
        let first = send(&mut journal, "code1200x1-bob");
        assert!(matches!(first.reply, PlayedAnswer::Error(error) if error.code == 1200));
        assert!(matches!(send(&mut journal, "code1200x1-bob").reply, PlayedAnswer::Error(OVER_LIMIT)));
        assert_eq!(journal.counts(0, 0).outcomes["limit"], 1);
        journal.windows = RateWindows::default();
        assert_eq!(send(&mut journal, "code1200x1-bob").reply, PlayedAnswer::Sent);
    }

    #[test]
    fn reset_keeps_only_the_sequence_number() {
        let mut journal = Journal::new(10, None);
        send(&mut journal, "bob");
        journal.reset();
        assert_eq!(journal.counts(0, 0).calls, 0);
        assert_eq!(journal.delivered_to("bob"), 0);
        assert_eq!(send(&mut journal, "bob").seq, 2);
    }
}
