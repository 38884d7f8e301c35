//! Events for other programs (`events.inbound`): each event as Meta wrote it, in a body of its own, under a routing key
//! that names class, kind and line.
//!
//! Never here: a text of an event in the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::{self, Event, EventKind};
use crate::broker::SharedBroker;
use crate::channel::Class;
use crate::domain::LineId;
use crate::metrics::METRICS;
use crate::store::{SharedStore, StoreError};

/// How long the lines of a page are remembered; a change of a line takes effect within this time.
const LINES_TTL: Duration = Duration::from_secs(5);
const MAX_PAGES: u64 = 10_000;
/// The line of a page without one.
const NO_LINE: LineId = LineId(0);

/// Publishes events for other programs.
pub struct Inbound {
    store: SharedStore,
    broker: SharedBroker,
    /// The lines of a page, by class and Meta's id.
    lines: Cache<(Class, String), Arc<[LineId]>>,
}

/// A body with one event.
#[derive(Debug, PartialEq, Eq)]
struct OneEvent {
    class: Class,
    page: String,
    kind: String,
    body: String,
}

impl Inbound {
    pub fn new(store: SharedStore, broker: SharedBroker) -> Inbound {
        let lines = Cache::builder().max_capacity(MAX_PAGES).time_to_live(LINES_TTL).build();
        Inbound { store, broker, lines }
    }

    /// Publish the events of bodies, each for every line of its page.
    pub async fn publish<'a>(&self, bodies: impl Iterator<Item = &'a [u8]>) {
        let events: Vec<OneEvent> = bodies.flat_map(split).collect();
        if let Err(error) = self.look_up(&events).await {
            METRICS.webhooks.inbound_dropped.increment(events.len() as u64);
            tracing::debug!(%error, "lines cannot be read: events of webhooks are not published");
            return;
        }
        for OneEvent { class, page, kind, body } in events {
            let lines = self.lines.get(&(class, page)).unwrap_or_else(|| Arc::from([NO_LINE]));
            for line in lines.iter() {
                self.broker.inbound(&format!("{class}.{kind}.{line}"), body.clone().into_bytes());
            }
        }
    }

    /// Read the lines of the pages that are not remembered.
    async fn look_up(&self, events: &[OneEvent]) -> Result<(), StoreError> {
        for class in Class::ALL {
            let mut unknown: HashMap<String, Vec<LineId>> = HashMap::new();
            for event in events.iter().filter(|event| event.class == *class) {
                if !self.lines.contains_key(&(event.class, event.page.clone())) {
                    unknown.entry(event.page.clone()).or_default();
                }
            }
            if unknown.is_empty() {
                continue;
            }
            let pages: Vec<String> = unknown.keys().cloned().collect();
            for (page, line) in self.store.lines_of_pages(*class, &pages).await? {
                unknown.entry(page).or_default().push(line);
            }
            for (page, mut lines) in unknown {
                if lines.is_empty() {
                    lines.push(NO_LINE);
                }
                self.lines.insert((*class, page), lines.into());
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
    #[serde(borrow, default)]
    entry: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    messaging: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    standby: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    changes: Option<Vec<&'a RawValue>>,
}

/// Return the events of a body, each in a body of its own. A part that cannot be read is left out.
fn split(body: &[u8]) -> Vec<OneEvent> {
    let Ok(whole) = serde_json::from_slice::<Whole<'_>>(body) else { return Vec::new() };
    let mut events = Vec::new();
    for entry in &whole.entry {
        let Ok(entry) = serde_json::from_str::<Entry<'_>>(entry.get()) else { continue };
        let lists =
            [("messaging", &entry.messaging), ("standby", &entry.standby), ("changes", &entry.changes)];
        for (list, items) in lists {
            let bodies = items.iter().flatten().map(|item| one(whole.object, &entry, list, item));
            events.extend(bodies.filter_map(OneEvent::read));
        }
    }
    events
}

/// Return a body of Meta with this event alone; the event's own text is as it came.
fn one(object: &RawValue, entry: &Entry<'_>, list: &str, event: &RawValue) -> String {
    let field = |name: &str, value: Option<&RawValue>| {
        value.map_or_else(String::new, |value| format!("\"{name}\":{},", value.get()))
    };
    let (id, time) = (field("id", entry.id), field("time", entry.time));
    format!("{{\"object\":{},\"entry\":[{{{id}{time}\"{list}\":[{}]}}]}}", object.get(), event.get())
}

impl OneEvent {
    /// Read the body of one event; `None` if it is about another kind of object.
    fn read(body: String) -> Option<OneEvent> {
        let Event { object, account, kind, .. } = event::read(body.as_bytes()).ok()?.into_iter().next()?;
        Some(OneEvent { class: object.class(), page: account, kind: word(&kind), body })
    }
}

/// Return the word of a kind as a part of a routing key.
fn word(kind: &EventKind) -> String {
    match kind {
        EventKind::Unknown(name) => {
            let plain = |letter: char| match letter.to_ascii_lowercase() {
                letter if letter.is_ascii_alphanumeric() || letter == '_' => letter,
                _ => '_',
            };
            name.chars().map(plain).collect()
        }
        known => known.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"object":"page","entry":[
        {"id":"11","time":5,"messaging":[
            {"sender":{"id":"7"},"recipient":{"id":"11"},"timestamp":4,"message":{"mid":"m_1","text":"caf\u00e9"}},
            {"sender":{"id":"7"},"recipient":{"id":"11"},"timestamp":4,"read":{"watermark":3}}]},
        {"id":12,"standby":[{"sender":{"id":"8"},"recipient":{"id":"12"},"timestamp":4,"optin":{"ref":"x"}}]}]}"#;

    #[test]
    fn events_are_split_as_they_came() {
        let events = split(BODY.as_bytes());
        let told: Vec<(&str, &str)> =
            events.iter().map(|event| (event.page.as_str(), event.kind.as_str())).collect();
        assert_eq!(told, [("11", "message"), ("11", "read"), ("12", "optin")]);
        assert!(events.iter().all(|event| event.class == Class::MESSENGER));
        let message = r#"{"object":"page","entry":[{"id":"11","time":5,"messaging":[{"sender":{"id":"7"},"recipient":{"id":"11"},"timestamp":4,"message":{"mid":"m_1","text":"caf\u00e9"}}]}]}"#;
        assert_eq!(events[0].body, message);
        assert!(events[2].body.starts_with(r#"{"object":"page","entry":[{"id":12,"standby":[{"#));
    }

    #[test]
    fn unreadable_parts_are_left_out() {
        assert!(split(b"\xff").is_empty() && split(b"[]").is_empty());
        assert!(split(br#"{"object":"user","entry":[{"id":"1","messaging":[{}]}]}"#).is_empty());
        let half = br#"{"object":"instagram","entry":[7,{"id":"1","messaging":[{"read":{"mid":"m"}}]}]}"#;
        assert_eq!(split(half).len(), 1);
    }

    #[test]
    fn unknown_kind_is_a_plain_word() {
        assert_eq!(word(&EventKind::Unknown("Account-Link.ing#".into())), "account_link_ing_");
        assert_eq!(
            word(&EventKind::Enforcement { action: event::Action::Block, reason: None }),
            "enforcement"
        );
    }
}
