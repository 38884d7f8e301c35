//! Bodies of POSTs: events in Meta's envelope, escaped and signed.

use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::event::Event;
use super::rules::WebhookRules;
use crate::simulator::stage::now_ms;

/// The key of forged signatures.
const FORGED: &[u8] = b"the secret of another app";

/// A POST, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub body: String,
    /// `X-Hub-Signature-256`.
    pub signature: String,
    pub events: usize,
}

/// The events of one POST: those of one app and one kind of account.
struct Batch {
    first: Event,
    /// Account and items of each entry.
    entries: Vec<(String, Vec<Value>)>,
}

impl Batch {
    fn begin(event: Event) -> Batch {
        let entries = vec![(event.account.clone(), vec![event.item.clone()])];
        Batch { first: event, entries }
    }

    /// Add an event, and return it if it belongs elsewhere or the POST is full.
    fn add(&mut self, event: Event, largest: usize) -> Option<Event> {
        if self.first.object != event.object || self.first.app_id != event.app_id {
            return Some(event);
        }
        let is_open =
            |(account, items): &(String, Vec<Value>)| *account == event.account && items.len() < largest;
        match self.entries.iter().rposition(is_open) {
            Some(open) => self.entries[open].1.push(event.item),
            None if self.entries.len() < largest => self.entries.push((event.account, vec![event.item])),
            None => return Some(event),
        }
        None
    }

    fn post(self, rules: &WebhookRules) -> Post {
        let events = self.entries.iter().map(|(_, items)| items.len()).sum();
        let list = if rules.standby { "standby" } else { "messaging" };
        let time = now_ms();
        let entries: Vec<Value> = self
            .entries
            .into_iter()
            .map(|(account, items)| json!({ "id": account, "time": time, list: items }))
            .collect();
        let body = escaped(&json!({ "object": self.first.object.as_str(), "entry": entries }).to_string());
        let secret = self.first.secret.as_ref().or(rules.app_secret.as_ref());
        let signature = signature(secret, rules.forge, body.as_bytes());
        Post { body, signature, events }
    }
}

/// Put events into POSTs, in their order.
pub(super) fn posts(events: Vec<Event>, rules: &WebhookRules) -> Vec<Post> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in events {
        let mut event = Some(event);
        if !rules.split {
            for batch in batches.iter_mut().rev() {
                let Some(given) = event.take() else { break };
                event = batch.add(given, rules.batch);
            }
        }
        batches.extend(event.map(Batch::begin));
    }
    batches.into_iter().map(|batch| batch.post(rules)).collect()
}

/// Sign a body as Meta does: HMAC-SHA256 of its bytes under the app's secret.
fn signature(secret: Option<&SecretString>, forge: bool, body: &[u8]) -> String {
    let key = match secret {
        Some(secret) if !forge => secret.expose_secret().as_bytes(),
        _ => FORGED,
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    format!("sha256={}", hex::encode(hmac::sign(&key, body).as_ref()))
}

/// Write every character beyond ASCII as Meta does, `\u` and four hexadecimal digits in lower case.
fn escaped(json: &str) -> String {
    use std::fmt::Write as _;
    if json.is_ascii() {
        return json.to_owned();
    }
    let mut text = String::with_capacity(json.len() * 2);
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::identities::Object;

    fn event(account: &str, number: usize) -> Event {
        Event {
            object: Object::Page,
            account: account.to_owned(),
            app_id: "7".to_owned(),
            secret: None,
            item: json!({ "timestamp": number }),
        }
    }

    fn rules() -> WebhookRules {
        WebhookRules { app_secret: Some("app secret".into()), ..WebhookRules::default() }
    }

    fn sizes(posts: &[Post]) -> Vec<usize> {
        posts.iter().map(|post| post.events).collect()
    }

    #[test]
    fn events_share_a_post_unless_split() {
        let events: Vec<Event> = (0..5).map(|number| event(["1", "2"][number % 2], number)).collect();
        let together = posts(events.clone(), &rules());
        assert_eq!(sizes(&together), [5]);
        let body: Value = serde_json::from_str(&together[0].body).expect("it is JSON");
        assert_eq!(body["object"], "page");
        assert_eq!(body["entry"][0]["id"], "1");
        assert_eq!(body["entry"][0]["messaging"].as_array().map(Vec::len), Some(3));
        assert_eq!(body["entry"][1]["messaging"].as_array().map(Vec::len), Some(2));
        assert_eq!(sizes(&posts(events.clone(), &WebhookRules { split: true, ..rules() })), [1; 5]);
        let standby = posts(events, &WebhookRules { standby: true, ..rules() });
        assert!(standby[0].body.contains("standby") && !standby[0].body.contains("messaging"));
    }

    #[test]
    fn post_is_bounded_and_apps_are_apart() {
        let rules = WebhookRules { batch: 2, ..rules() };
        let mut events: Vec<Event> = (0..9).map(|number| event("1", number)).collect();
        events.push(Event { app_id: "8".to_owned(), ..event("1", 9) });
        events.push(Event { object: Object::Instagram, ..event("1", 10) });
        assert_eq!(sizes(&posts(events, &rules)), [4, 4, 1, 1, 1]);
    }

    #[test]
    fn signature_is_that_of_the_raw_body() {
        // Test case 2 of RFC 4231: key "Jefe", data "what do ya want for nothing?".
        let secret = SecretString::from("Jefe");
        let body = b"what do ya want for nothing?";
        assert_eq!(
            signature(Some(&secret), false, body),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_ne!(signature(Some(&secret), true, body), signature(Some(&secret), false, body));
    }

    #[test]
    fn text_beyond_ascii_is_escaped() {
        assert_eq!(escaped(r#"{"a":"Olá 👍"}"#), r#"{"a":"Ol\u00e1 \ud83d\udc4d"}"#);
        assert_eq!(escaped(r#"{"a":1}"#), r#"{"a":1}"#);
    }
}
