//! Events as plain data, read from the bodies that Meta sends.
//!
//! The reader is lenient: ids are texts or numbers, a list may hold something that no version of this program knows, and a
//! part that cannot be read spoils none of the others. Such parts become [`EventKind::Unknown`] and are counted. Never
//! here: a clock, and what follows from an event.

mod fields;
mod kind;

use crate::channel::Class;

use fields::Fields;

/// The longest name of an unknown event that is kept.
const MAX_NAME_CHARS: usize = 64;

/// The name of a part that cannot be read.
pub const MALFORMED: &str = "malformed";

/// The kind of account that an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    Page,
    Instagram,
}

impl Object {
    /// Return the class of the lines that send for such an account.
    pub fn class(self) -> Class {
        match self {
            Object::Page => Class::MESSENGER,
            Object::Instagram => Class::INSTAGRAM,
        }
    }

    fn read(word: &str) -> Option<Object> {
        match word {
            "page" => Some(Object::Page),
            "instagram" => Some(Object::Instagram),
            _ => None,
        }
    }
}

/// One event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub object: Object,
    /// The id of the Page or Instagram account; empty if the body does not say it.
    pub account: String,
    /// Whether another app owns the conversation.
    pub standby: bool,
    /// Milliseconds since 1970 by Meta's clock; 0 if the body holds no time that can be true.
    pub at: i64,
    pub kind: EventKind,
    /// The app whose secret has signed the body; `None`: that of the settings.
    pub app: Option<String>,
}

/// The cause of an event that opens a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Message,
    Postback,
    Reaction,
    Referral,
}

impl Cause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Message => "message",
            Cause::Postback => "postback",
            Cause::Reaction => "reaction",
            Cause::Referral => "referral",
        }
    }
}

/// A step of Meta against an account, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Warning,
    Block,
    Unblock,
}

/// The content of an event. `dest` is the recipient of our messages, whoever the event names as its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Messages were delivered: these, or without any all that were sent up to the watermark.
    Delivery { dest: String, mids: Vec<String>, watermark: Option<i64> },
    /// The same for messages that were read.
    Read { dest: String, mids: Vec<String>, watermark: Option<i64> },
    /// A message of the account, sent by this app, by another or by a person.
    Echo { dest: String, mid: String, metadata: Option<String>, text: Option<String>, app_id: Option<String> },
    /// The recipient wrote, or did something of the same effect.
    Inbound { dest: String, cause: Cause },
    /// Meta acts against the account.
    Enforcement { action: Action, reason: Option<String> },
    /// An event without an effect here, by name.
    Unknown(String),
}

impl EventKind {
    /// Return the word of the kind, for metrics and routing keys.
    pub const fn as_str(&self) -> &'static str {
        match self {
            EventKind::Delivery { .. } => "delivery",
            EventKind::Read { .. } => "read",
            EventKind::Echo { .. } => "echo",
            EventKind::Inbound { cause, .. } => cause.as_str(),
            EventKind::Enforcement { .. } => "enforcement",
            EventKind::Unknown(_) => "unknown",
        }
    }

    fn unknown(name: &str) -> EventKind {
        let is_name = |name: &str| {
            let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
            !name.is_empty() && name.len() <= MAX_NAME_CHARS && name.chars().all(is_letter)
        };
        EventKind::Unknown(if is_name(name) { name.to_owned() } else { MALFORMED.to_owned() })
    }
}

/// The reason why nothing of a body can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the body is not a JSON object")]
    NoJson,
    #[error("the body is about an object that is neither `page` nor `instagram`")]
    OtherObject,
}

/// Read the events of a body, in its order.
pub fn read(body: &[u8]) -> Result<Vec<Event>, Unreadable> {
    let text = String::from_utf8_lossy(body);
    let body = Fields::read(&text).ok_or(Unreadable::NoJson)?;
    let object = body.word("object").and_then(|word| Object::read(&word)).ok_or(Unreadable::OtherObject)?;
    let mut events = Vec::new();
    for entry in body.list("entry") {
        match Fields::read(entry.get()) {
            Some(entry) => Entry::of(object, &entry).read(&entry, &mut events),
            None => events.push(malformed(object)),
        }
    }
    Ok(events)
}

fn malformed(object: Object) -> Event {
    let kind = EventKind::Unknown(MALFORMED.to_owned());
    Event { object, account: String::new(), standby: false, at: 0, kind, app: None }
}

/// The account and time that the events of an entry share.
struct Entry {
    object: Object,
    account: String,
    at: Option<i64>,
}

impl Entry {
    fn of(object: Object, entry: &Fields<'_>) -> Entry {
        Entry { object, account: entry.id("id").unwrap_or_default(), at: entry.milliseconds("time") }
    }

    fn read(&self, entry: &Fields<'_>, events: &mut Vec<Event>) {
        let before = events.len();
        for (list, standby) in [("messaging", false), ("standby", true)] {
            for item in entry.list(list) {
                events.push(match Fields::read(item.get()) {
                    Some(item) => self.event(&item, standby),
                    None => self.unknown(MALFORMED, standby),
                });
            }
        }
        for change in entry.list("changes") {
            events.push(self.change(Fields::read(change.get()).as_ref()));
        }
        if events.len() == before {
            events.push(self.unknown(MALFORMED, false));
        }
    }

    fn event(&self, item: &Fields<'_>, standby: bool) -> Event {
        let kind = kind::of(&self.account, item);
        let told = item.milliseconds("timestamp").or(match &kind {
            EventKind::Delivery { watermark, .. } | EventKind::Read { watermark, .. } => *watermark,
            _ => None,
        });
        Event {
            object: self.object,
            account: self.account.clone(),
            standby,
            at: told.or(self.at).unwrap_or_default(),
            kind,
            app: None,
        }
    }

    /// Read a change of a field. Meta's test button, and some apps of Instagram, receive in this form what others receive
    /// as a message.
    fn change(&self, change: Option<&Fields<'_>>) -> Event {
        let Some(change) = change else { return self.unknown(MALFORMED, false) };
        match change.object("value").filter(|value| value.has("sender") || value.has("recipient")) {
            Some(item) => self.event(&item, false),
            None => self.unknown(&change.word("field").unwrap_or_default(), false),
        }
    }

    fn unknown(&self, name: &str, standby: bool) -> Event {
        Event {
            object: self.object,
            account: self.account.clone(),
            standby,
            at: self.at.unwrap_or_default(),
            kind: EventKind::unknown(name),
            app: None,
        }
    }
}

#[cfg(test)]
mod tests;
