//! Events that wait for their time, and the record of the POSTs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::event::Event;
use super::post::Post;
use super::rules::WebhookRules;
use crate::simulator::stage::now_ms;

/// Events that wait; beyond that the newest are given up.
const MOST_WAITING: usize = 1_000_000;
/// Events taken at a time.
const MOST_AT_ONCE: usize = 10_000;
/// Tries that are listed.
const LISTED: usize = 100;

/// The events that wait, by their time and number.
type Waiting = BTreeMap<(Instant, u64), Event>;

#[derive(Debug, Default)]
struct OutboxState {
    rules: Option<Arc<WebhookRules>>,
    waiting: Waiting,
    last: u64,
    posted: u64,
    answered: u64,
    failed: u64,
    given_up: u64,
    retrying: u64,
    tries: VecDeque<TriedPost>,
}

/// A try, for `GET /simulator/webhooks`.
#[derive(Debug, Clone, Serialize)]
struct TriedPost {
    at_ms: u64,
    /// 0 without an answer.
    status: u16,
    events: usize,
    body: String,
}

/// The outbox of events. Without rules nothing waits.
#[derive(Debug, Default)]
pub(in crate::simulator) struct Outbox {
    is_on: AtomicBool,
    state: Mutex<OutboxState>,
    news: Notify,
}

/// The next step of the pump.
pub(super) enum Next {
    /// Nothing to do until there are news.
    Rest,
    /// Nothing to do until this time, or news.
    At(Instant),
    Send(Arc<WebhookRules>, Vec<Event>),
}

impl Outbox {
    /// Whether anybody hears events.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Replace the rules; what waits is sent by the new ones.
    pub fn put(&self, rules: WebhookRules) {
        self.state.lock().rules = Some(Arc::new(rules));
        self.is_on.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Drop the rules, and what waits.
    pub fn delete(&self) {
        self.is_on.store(false, Ordering::Release);
        let mut state = self.state.lock();
        state.rules = None;
        state.waiting.clear();
    }

    pub fn rules(&self) -> Option<Arc<WebhookRules>> {
        self.state.lock().rules.clone()
    }

    /// Forget what waits and what was sent; the rules stay.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        let (rules, last, retrying) = (state.rules.take(), state.last, state.retrying);
        *state = OutboxState { rules, last, retrying, ..OutboxState::default() };
    }

    /// Keep events until they are due.
    pub fn add(&self, events: impl IntoIterator<Item = (Duration, Event)>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for (delay, event) in events {
            if state.waiting.len() >= MOST_WAITING {
                state.given_up += 1;
                continue;
            }
            state.last += 1;
            let key = (now + delay, state.last);
            state.waiting.insert(key, event);
        }
        drop(state);
        self.news.notify_one();
    }

    /// Wait until there may be something to do.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Take the events that are due.
    pub(super) fn next(&self, now: Instant) -> Next {
        let mut state = self.state.lock();
        let Some(rules) = state.rules.clone().filter(|rules| !rules.hold) else { return Next::Rest };
        let Some((first, _)) = state.waiting.first_key_value() else { return Next::Rest };
        if first.0 > now {
            return Next::At(first.0);
        }
        let later = state.waiting.split_off(&(now + Duration::from_nanos(1), 0));
        let mut due = std::mem::replace(&mut state.waiting, later);
        if due.len() > MOST_AT_ONCE {
            let rest = due.keys().nth(MOST_AT_ONCE).copied();
            if let Some(rest) = rest {
                let mut rest = due.split_off(&rest);
                state.waiting.append(&mut rest);
            }
        }
        Next::Send(rules, due.into_values().collect())
    }

    /// Record a try.
    pub(super) fn tried(&self, post: &Post, status: u16) {
        let mut state = self.state.lock();
        state.posted += 1;
        if status == 200 {
            state.answered += 1;
        } else {
            state.failed += 1;
        }
        if state.tries.len() >= LISTED {
            state.tries.pop_front();
        }
        let (events, body) = (post.events, post.body.clone());
        state.tries.push_back(TriedPost { at_ms: now_ms(), status, events, body });
    }

    /// Record that a POST is repeated from now on.
    pub(super) fn retries(&self) {
        self.state.lock().retrying += 1;
    }

    /// Record the end of repetitions.
    pub(super) fn ended(&self, is_given_up: bool) {
        let mut state = self.state.lock();
        state.retrying = state.retrying.saturating_sub(1);
        state.given_up += u64::from(is_given_up);
    }

    /// Return rules and record.
    pub fn listed(&self) -> Value {
        let state = self.state.lock();
        json!({
            "webhooks": state.rules.as_deref(),
            "posted": state.posted,
            "answered": state.answered,
            "failed": state.failed,
            "given_up": state.given_up,
            "waiting": state.waiting.len(),
            "retrying": state.retrying,
            "posts": state.tries,
        })
    }
}

/// Put events into a random order.
pub(super) fn shuffle<T>(events: Vec<T>) -> Vec<T> {
    let mut numbered: Vec<(u64, T)> = events.into_iter().map(|event| (rand::random(), event)).collect();
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, event)| event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::identities::Object;

    fn event(number: u64) -> Event {
        Event {
            object: Object::Page,
            account: "1".to_owned(),
            app_id: "7".to_owned(),
            secret: None,
            item: json!(number),
        }
    }

    fn taken(outbox: &Outbox, now: Instant) -> Vec<u64> {
        match outbox.next(now) {
            Next::Send(_, events) => events.iter().filter_map(|event| event.item.as_u64()).collect(),
            Next::Rest | Next::At(_) => Vec::new(),
        }
    }

    #[test]
    fn events_wait_for_their_time_and_keep_their_order() {
        let outbox = Outbox::default();
        outbox.put(WebhookRules::default());
        outbox.add([(Duration::from_secs(60), event(9))]);
        outbox.add((1..=3).map(|number| (Duration::ZERO, event(number))));
        let now = Instant::now();
        assert_eq!(taken(&outbox, now), [1, 2, 3]);
        assert!(matches!(outbox.next(now), Next::At(_)));
        assert_eq!(taken(&outbox, now + Duration::from_secs(61)), [9]);
        assert!(matches!(outbox.next(now), Next::Rest));
    }

    #[test]
    fn held_events_are_sent_by_later_rules() {
        let outbox = Outbox::default();
        outbox.put(WebhookRules { hold: true, ..WebhookRules::default() });
        outbox.add([(Duration::ZERO, event(1))]);
        let later = Instant::now() + Duration::from_secs(1);
        assert_eq!(taken(&outbox, later), [] as [u64; 0]);
        outbox.put(WebhookRules::default());
        assert_eq!(taken(&outbox, later), [1]);
    }

    #[test]
    fn many_due_events_are_taken_in_parts() {
        let outbox = Outbox::default();
        outbox.put(WebhookRules::default());
        outbox.add((0..MOST_AT_ONCE as u64 + 5).map(|number| (Duration::ZERO, event(number))));
        let later = Instant::now() + Duration::from_secs(1);
        assert_eq!(taken(&outbox, later).len(), MOST_AT_ONCE);
        assert_eq!(taken(&outbox, later).len(), 5);
    }
}
