//! The kind of one event, by the field that its object has beside sender, recipient and time.

use super::fields::Fields;
use super::{Action, Cause, EventKind, MALFORMED};
use crate::domain::MAX_DEST_CHARS;

/// Fields that every event may have.
const COMMON: [&str; 5] = ["sender", "recipient", "timestamp", "messaging_type", "prior_message"];

/// The names that Meta has given to the same event over the years.
const ENFORCEMENTS: [&str; 3] = ["policy_enforcement", "policy-enforcement", "messaging_policy_enforcement"];

/// Return the kind of an event of this account.
pub(super) fn of(account: &str, item: &Fields<'_>) -> EventKind {
    let parties = Parties { account, item };
    if let Some(message) = item.object("message") {
        return parties.message(&message);
    }
    if item.has("postback") {
        return parties.inbound(Cause::Postback);
    }
    if let Some(reaction) = item.object("reaction") {
        return match reaction.word("action").as_deref() {
            Some("unreact") => EventKind::unknown("reaction_removed"),
            _ => parties.inbound(Cause::Reaction),
        };
    }
    if let Some(delivery) = item.object("delivery") {
        let (mids, watermark) = (delivery.ids("mids"), delivery.milliseconds("watermark"));
        return parties.receipt(mids, watermark, |dest, mids, watermark| EventKind::Delivery {
            dest,
            mids,
            watermark,
        });
    }
    if let Some(read) = item.object("read") {
        let mut mids = read.ids("mid");
        mids.extend(read.ids("mids"));
        let watermark = read.milliseconds("watermark");
        return parties.receipt(mids, watermark, |dest, mids, watermark| EventKind::Read {
            dest,
            mids,
            watermark,
        });
    }
    if let Some(enforcement) = ENFORCEMENTS.iter().find_map(|name| item.object(name)) {
        return of_enforcement(&enforcement);
    }
    if item.has("referral") {
        return parties.inbound(Cause::Referral);
    }
    EventKind::unknown(item.names().find(|name| !COMMON.contains(name)).unwrap_or(MALFORMED))
}

/// The account and the two ends of an event.
struct Parties<'a> {
    account: &'a str,
    item: &'a Fields<'a>,
}

impl Parties<'_> {
    fn party(&self, name: &str) -> Option<String> {
        let id = self.item.object(name)?.id("id")?;
        id.chars().nth(MAX_DEST_CHARS).is_none().then_some(id)
    }

    fn message(&self, message: &Fields<'_>) -> EventKind {
        if message.flag("is_echo") {
            return match (self.party("recipient"), message.id("mid")) {
                (Some(dest), Some(mid)) => EventKind::Echo {
                    dest,
                    mid,
                    metadata: message.text("metadata"),
                    text: message.text("text"),
                    app_id: message.id("app_id"),
                },
                _ => EventKind::unknown(MALFORMED),
            };
        }
        if message.flag("is_deleted") {
            return EventKind::unknown("message_deleted");
        }
        self.inbound(Cause::Message)
    }

    /// Return the event of a recipient; an account's own action opens no window.
    fn inbound(&self, cause: Cause) -> EventKind {
        match self.party("sender") {
            Some(dest) if dest == self.account => EventKind::unknown("own_message"),
            Some(dest) => EventKind::Inbound { dest, cause },
            None => EventKind::unknown(MALFORMED),
        }
    }

    fn receipt(
        &self,
        mids: Vec<String>,
        watermark: Option<i64>,
        kind: impl FnOnce(String, Vec<String>, Option<i64>) -> EventKind,
    ) -> EventKind {
        match self.party("sender") {
            Some(dest) if !mids.is_empty() || watermark.is_some() => kind(dest, mids, watermark),
            _ => EventKind::unknown(MALFORMED),
        }
    }
}

fn of_enforcement(enforcement: &Fields<'_>) -> EventKind {
    let action = match enforcement.word("action").unwrap_or_default().to_ascii_lowercase().as_str() {
        "block" => Action::Block,
        "unblock" => Action::Unblock,
        "warning" => Action::Warning,
        _ => return EventKind::unknown("policy_enforcement"),
    };
    EventKind::Enforcement { action, reason: enforcement.text("reason") }
}
