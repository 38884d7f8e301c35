//! What the simulator remembers: evidence of calls, counters, and each token's last second.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::SimulatorOptions;
use super::outcome::{self, Outcome};

/// One call, as evidence. The token is not kept.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    pub seq: u64,
    /// Milliseconds since the simulator was started or reset.
    pub at_ms: u64,
    pub dest: String,
    pub body: String,
    pub outcome: String,
    /// Whether the message reached its recipient.
    pub delivered: bool,
}

/// Counters since the start or the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub calls: u64,
    pub delivered: u64,
    pub in_flight: u64,
    pub max_in_flight: u64,
}

pub struct State {
    pub options: SimulatorOptions,
    latency_ms: AtomicU64,
    remembered: Mutex<Remembered>,
}

struct Remembered {
    since: Instant,
    counts: Counts,
    calls: VecDeque<Call>,
    /// Calls so far for recipients whose outcome changes after some.
    tries: HashMap<String, u32>,
    /// Times of the calls of the last second, by a token's hash.
    recent: HashMap<u64, VecDeque<Instant>>,
}

impl State {
    pub fn new(options: SimulatorOptions) -> State {
        let latency_ms = AtomicU64::new(options.latency.as_millis() as u64);
        State { options, latency_ms, remembered: Mutex::new(Remembered::new()) }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms.load(Ordering::Relaxed))
    }

    /// Forgets everything; a new latency may be set.
    pub fn reset(&self, latency: Option<Duration>) {
        if let Some(latency) = latency {
            self.latency_ms.store(latency.as_millis() as u64, Ordering::Relaxed);
        }
        *self.remembered() = Remembered::new();
    }

    /// Chooses the outcome of a call and keeps it as evidence.
    pub fn record(&self, dest: &str, body: &str) -> Outcome {
        let mut remembered = self.remembered();
        let outcome = match outcome::of(dest) {
            (outcome, None) => outcome,
            (outcome, Some(times)) => {
                let tries = remembered.tries.entry(dest.to_owned()).or_default();
                *tries += 1;
                if *tries <= times { outcome } else { Outcome::Sent }
            }
        };
        remembered.keep(dest, body, format!("{outcome:?}"), outcome.delivers(), self.options.keep);
        outcome
    }

    /// Keeps a call that was refused before its outcome was looked at.
    pub fn record_refused(&self, dest: &str, body: &str, why: &str) {
        self.remembered().keep(dest, body, why.to_owned(), false, self.options.keep);
    }

    pub fn calls(&self, after: u64, dest: Option<&str>) -> Vec<Call> {
        let remembered = self.remembered();
        let wanted = |call: &&Call| call.seq > after && dest.is_none_or(|dest| call.dest == dest);
        remembered.calls.iter().filter(wanted).cloned().collect()
    }

    pub fn counts(&self) -> Counts {
        self.remembered().counts
    }

    pub fn begin(&self) {
        let counts = &mut self.remembered().counts;
        counts.in_flight += 1;
        counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
    }

    pub fn end(&self) {
        let counts = &mut self.remembered().counts;
        counts.in_flight = counts.in_flight.saturating_sub(1);
    }

    /// How much of the token's limit the last second used, this call included, in percent; 0 without a limit. A call
    /// above 100 percent is not counted.
    pub fn use_token(&self, token: u64) -> u32 {
        let Some(limit) = self.options.limit_per_token else { return 0 };
        let now = Instant::now();
        let mut remembered = self.remembered();
        let recent = remembered.recent.entry(token).or_default();
        while recent.front().is_some_and(|first| now.duration_since(*first) >= Duration::from_secs(1)) {
            recent.pop_front();
        }
        let used = (recent.len() as u32 + 1) * 100 / limit.max(1);
        if used <= 100 {
            recent.push_back(now);
        }
        used
    }
}

impl Remembered {
    fn new() -> Remembered {
        Remembered {
            since: Instant::now(),
            counts: Counts::default(),
            calls: VecDeque::new(),
            tries: HashMap::new(),
            recent: HashMap::new(),
        }
    }

    fn keep(&mut self, dest: &str, body: &str, outcome: String, delivered: bool, keep: usize) {
        self.counts.calls += 1;
        self.counts.delivered += u64::from(delivered);
        if self.calls.len() >= keep {
            self.calls.pop_front();
        }
        if keep > 0 {
            self.calls.push_back(Call {
                seq: self.counts.calls,
                at_ms: self.since.elapsed().as_millis() as u64,
                dest: dest.to_owned(),
                body: body.to_owned(),
                outcome,
                delivered,
            });
        }
    }
}
