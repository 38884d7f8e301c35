//! The events as Meta words them: one item of `messaging` each.
//!
//! Never here: their envelope (`post.rs`).

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rules::{EventKind, WebhookRules};
use crate::simulator::identities::{Identity, Object};

/// An event that waits for its time.
#[derive(Debug, Clone)]
pub(in crate::simulator) struct Event {
    pub object: Object,
    /// The Page or Instagram account, `id` of the entry.
    pub account: String,
    /// The app that hears it: events of two apps do not share a POST.
    pub app_id: String,
    /// The app's own secret.
    pub secret: Option<SecretString>,
    /// The item of `messaging`.
    pub item: Value,
}

/// A message that was taken.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulator) struct MessageFacts<'a> {
    pub mid: &'a str,
    pub dest: &'a str,
    pub text: Option<&'a str>,
    pub metadata: Option<&'a str>,
    /// `type` of the attachment, and its URL if it has one.
    pub asset: Option<(&'a str, Option<&'a str>)>,
    pub at_ms: u64,
}

/// The line whose events these are.
struct Source<'a> {
    identity: &'a Identity,
    secret: Option<&'a SecretString>,
}

impl Source<'_> {
    /// Make an event, if its app subscribed to the field.
    fn event(&self, field: &str, item: Value) -> Option<Event> {
        self.identity.subscribed.iter().any(|known| known == field).then(|| Event {
            object: self.identity.object,
            account: self.identity.account().to_owned(),
            app_id: self.identity.app_id.clone(),
            secret: self.secret.cloned(),
            item,
        })
    }

    /// Return the field in which echoes come: with Page-linked Instagram accounts inside `messages`.
    fn echo_field(&self) -> &'static str {
        use crate::simulator::identities::TokenKind;
        if self.identity.object == Object::Instagram && self.identity.kind != TokenKind::Instagram {
            "messages"
        } else {
            "message_echoes"
        }
    }
}

/// Return the events of a message that was taken, each with its delay.
pub(in crate::simulator) fn of_message(
    rules: &WebhookRules,
    identity: &Identity,
    secret: Option<&SecretString>,
    facts: MessageFacts<'_>,
) -> Vec<(Duration, Event)> {
    let source = Source { identity, secret };
    let (account, dest, at) = (identity.account(), facts.dest, facts.at_ms);
    let later = |delay: Duration| at + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let (delay, read_delay) = (rules.delay(), rules.read_delay());
    let mut events = Vec::new();
    if rules.wants(EventKind::Echo) {
        let item = echo(identity, facts);
        events.extend(source.event(source.echo_field(), item).map(|event| (delay, event)));
    }
    if rules.wants(EventKind::Delivery) && identity.object == Object::Page {
        let mut delivery = json!({ "watermark": at });
        if rules.mids {
            delivery = json!({ "mids": [facts.mid], "watermark": at });
        }
        let at = later(delay);
        let item = from_person(dest, account, at, "delivery", delivery);
        events.extend(source.event("message_deliveries", item).map(|event| (delay, event)));
    }
    if rules.wants(EventKind::Read) {
        let (field, read) = match identity.object {
            Object::Page => ("message_reads", json!({ "watermark": at })),
            Object::Instagram => ("messaging_seen", json!({ "mid": facts.mid })),
        };
        let at = later(read_delay);
        let item = from_person(dest, account, at, "read", read);
        events.extend(source.event(field, item).map(|event| (read_delay, event)));
    }
    events
}

fn echo(identity: &Identity, facts: MessageFacts<'_>) -> Value {
    let app_id = identity.app_id.parse::<u64>().map_or_else(|_| json!(identity.app_id), |id| json!(id));
    let mut message = json!({ "mid": facts.mid, "is_echo": true, "app_id": app_id });
    if let Some(text) = facts.text {
        message["text"] = json!(text);
    }
    if let Some((kind, url)) = facts.asset {
        let url = url.unwrap_or("https://scontent.example/asset");
        message["attachments"] = json!([{ "type": kind, "payload": { "url": url } }]);
    }
    // Meta's pages promise metadata for Messenger alone.
    if let Some(metadata) = facts.metadata.filter(|_| identity.object == Object::Page) {
        message["metadata"] = json!(metadata);
    }
    json!({
        "sender": { "id": identity.account() },
        "recipient": { "id": facts.dest },
        "timestamp": facts.at_ms,
        "message": message,
    })
}

fn from_person(person: &str, account: &str, at_ms: u64, name: &str, content: Value) -> Value {
    let (sender, recipient) = (json!({ "id": person }), json!({ "id": account }));
    json!({ "sender": sender, "recipient": recipient, "timestamp": at_ms, name: content })
}

/// An act of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::simulator) enum InboundKind {
    #[default]
    Message,
    Postback,
    Reaction,
    Referral,
}

/// Return the event of a person who did something; `None` if the app is not subscribed to it.
pub(in crate::simulator) fn inbound(
    identity: &Identity,
    secret: Option<&SecretString>,
    kind: InboundKind,
    facts: MessageFacts<'_>,
) -> Option<Event> {
    let referral = match identity.object {
        Object::Page => "messaging_referrals",
        Object::Instagram => "messaging_referral",
    };
    let text = facts.text;
    let (field, name, content) = match kind {
        InboundKind::Message => {
            ("messages", "message", json!({ "mid": facts.mid, "text": text.unwrap_or("Hello") }))
        }
        InboundKind::Postback => (
            "messaging_postbacks",
            "postback",
            json!({ "mid": facts.mid, "title": text.unwrap_or("Get started"), "payload": "START" }),
        ),
        InboundKind::Reaction => (
            "message_reactions",
            "reaction",
            json!({ "mid": facts.mid, "action": "react", "reaction": "love", "emoji": "\u{2764}" }),
        ),
        InboundKind::Referral => (
            referral,
            "referral",
            json!({ "ref": text.unwrap_or("simulated"), "source": "SHORTLINK", "type": "OPEN_THREAD" }),
        ),
    };
    let item = from_person(facts.dest, identity.account(), facts.at_ms, name, content);
    Source { identity, secret }.event(field, item)
}

/// Return the notice of a policy; `None` if the app is not subscribed to it.
pub(in crate::simulator) fn enforcement(
    identity: &Identity,
    secret: Option<&SecretString>,
    action: &str,
    reason: Option<&str>,
    at_ms: u64,
) -> Option<Event> {
    let mut notice = json!({ "action": action });
    if let Some(reason) = reason {
        notice["reason"] = json!(reason);
    }
    let item = json!({
        "recipient": { "id": identity.account() },
        "timestamp": at_ms,
        "policy_enforcement": notice,
    });
    Source { identity, secret }.event("messaging_policy_enforcement", item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::identities::GivenIdentity;

    const FACTS: MessageFacts<'_> = MessageFacts {
        mid: "m_1",
        dest: "ana",
        text: Some("hello"),
        metadata: Some("7:1"),
        asset: None,
        at_ms: 5_000,
    };

    fn identity(token: &str, given: GivenIdentity) -> Identity {
        Identity::complete(given, token, 0)
    }

    #[test]
    fn page_hears_echo_delivery_and_read() {
        let page =
            identity("EAA", GivenIdentity { page_id: Some("1001".into()), ..GivenIdentity::default() });
        let rules = WebhookRules { delay_ms: 10, read_delay_ms: 20, ..WebhookRules::default() };
        let events = of_message(&rules, &page, None, FACTS);
        let items: Vec<(u128, &Value)> =
            events.iter().map(|(delay, event)| (delay.as_millis(), &event.item)).collect();
        let echo = json!({
            "sender": { "id": "1001" }, "recipient": { "id": "ana" }, "timestamp": 5_000,
            "message": {
                "mid": "m_1", "is_echo": true, "app_id": 100_000_000_000_001_u64, "text": "hello", "metadata": "7:1"
            },
        });
        let delivery = json!({
            "sender": { "id": "ana" }, "recipient": { "id": "1001" }, "timestamp": 5_010,
            "delivery": { "mids": ["m_1"], "watermark": 5_000 },
        });
        let read = json!({
            "sender": { "id": "ana" }, "recipient": { "id": "1001" }, "timestamp": 5_030,
            "read": { "watermark": 5_000 },
        });
        assert_eq!(items, [(10, &echo), (10, &delivery), (30, &read)]);
    }

    #[test]
    fn instagram_hears_no_delivery_and_no_metadata() {
        let events =
            of_message(&WebhookRules::default(), &identity("IGAA", GivenIdentity::default()), None, FACTS);
        let [(_, echo), (_, seen)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(echo.item["message"].get("metadata"), None);
        assert_eq!(seen.item["read"], json!({ "mid": "m_1" }));
    }

    #[test]
    fn field_without_subscription_is_not_heard() {
        let subscribed = Some(vec!["message_reads".to_owned()]);
        let page = identity("EAA", GivenIdentity { subscribed, ..GivenIdentity::default() });
        let events = of_message(&WebhookRules::default(), &page, None, FACTS);
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(inbound(&page, None, InboundKind::Message, FACTS).is_none());
        assert!(enforcement(&page, None, "block", Some("spam"), 0).is_none());
    }
}
