//! Conversations: what lines sent and persons wrote, as `/{id}/conversations` tells it.
//!
//! Messages of lines are read from the journal when somebody asks, so that a send call pays nothing for them.
//! Never here: limits and tokens (`calls.rs`).

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;
use serde_json::{Map, Value, json};
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

use super::answer::{message_id, read_message_id};
use super::identities::Object;
use super::journal::PlayedCall;
use super::refusal::{PlayedError, UNKNOWN_OBJECT, wrong_parameter};
use super::shared::Shared;

/// Inbound messages that are kept; the oldest go first.
const MOST_INBOUND: usize = 10_000;
/// The bit that tells the number of an inbound message from that of a call.
const INBOUND: u64 = 1 << 63;
/// On Instagram, older messages have no details.
const DETAILED_ON_INSTAGRAM: usize = 20;
/// A page of messages or conversations.
const PAGE: usize = 25;
const LARGEST_PAGE: usize = 100;
const MESSAGE_FIELDS: [&str; 6] = ["id", "created_time", "from", "to", "message", "attachments"];

/// A message that a person wrote.
#[derive(Debug, Clone)]
struct Inbound {
    number: u64,
    at_ms: u64,
    account: String,
    from: String,
    text: Option<String>,
}

/// The messages that persons wrote.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    kept: VecDeque<Inbound>,
    last: u64,
}

impl Inbox {
    /// Keep a message, and return its number.
    pub fn add(&mut self, account: &str, from: &str, text: Option<&str>, at_ms: u64) -> u64 {
        self.last += 1;
        let number = INBOUND | self.last;
        if self.kept.len() >= MOST_INBOUND {
            self.kept.pop_front();
        }
        self.kept.push_back(Inbound {
            number,
            at_ms,
            account: account.to_owned(),
            from: from.to_owned(),
            text: text.map(str::to_owned),
        });
        number
    }

    /// Forget all messages; numbers are never given twice.
    pub fn reset(&mut self) {
        self.kept.clear();
    }
}

/// A message of a conversation.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StoredMessage {
    pub id: String,
    pub at_ms: u64,
    pub from: String,
    pub to: String,
    pub text: Option<String>,
    pub metadata: Option<String>,
    /// The kind of its attachment.
    pub attachment: Option<String>,
}

impl StoredMessage {
    fn sent(run: u64, account: &str, call: &PlayedCall) -> StoredMessage {
        let text = |pointer: &str| call.body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        StoredMessage {
            id: message_id(run, call.seq),
            at_ms: call.time_ms,
            from: account.to_owned(),
            to: call.dest.clone(),
            text: text("/message/text"),
            metadata: text("/message/metadata"),
            attachment: text("/message/attachment/type"),
        }
    }

    fn received(run: u64, inbound: &Inbound) -> StoredMessage {
        StoredMessage {
            id: message_id(run, inbound.number),
            at_ms: inbound.at_ms,
            from: inbound.from.clone(),
            to: inbound.account.clone(),
            text: inbound.text.clone(),
            metadata: None,
            attachment: None,
        }
    }

    /// Return the fields that a caller asked for; without details, what Instagram tells of old messages.
    fn told(&self, fields: &[String], has_details: bool) -> Value {
        let person = |id: &str| json!({ "name": "Simulated", "id": id });
        let mut told = Map::new();
        for field in fields {
            let value = match field.as_str() {
                "id" => json!(self.id),
                "created_time" => json!(time_text(self.at_ms)),
                _ if !has_details => continue,
                "from" => person(&self.from),
                "to" => json!({ "data": [person(&self.to)] }),
                "message" => json!(self.text.as_deref().unwrap_or_default()),
                _ => match &self.attachment {
                    Some(kind) => json!({ "data": [{ "mime_type": kind }] }),
                    None => continue,
                },
            };
            told.insert(field.clone(), value);
        }
        Value::Object(told)
    }
}

/// The wish of a caller: `messages.limit(5){id,message}` in `fields`, or `fields` and `limit` of the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MessagesWish {
    fields: Vec<String>,
    limit: usize,
}

impl MessagesWish {
    /// Read `fields` of a conversation; `None` if it asks for no messages.
    pub fn of_conversation(fields: &str) -> Result<Option<MessagesWish>, PlayedError> {
        let Some((_, rest)) = fields.split_once("messages") else { return Ok(None) };
        let (limit, rest) = match rest.strip_prefix(".limit(").and_then(|rest| rest.split_once(')')) {
            Some((limit, rest)) => (Some(limit), rest),
            None => (None, rest),
        };
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inner, _)| inner);
        MessagesWish::read(inner, limit).map(Some)
    }

    /// Read the `fields` of messages, and `limit`.
    pub fn read(fields: Option<&str>, limit: Option<&str>) -> Result<MessagesWish, PlayedError> {
        let fields = fields.unwrap_or("id,created_time");
        let mut wished = vec!["id".to_owned()];
        for field in fields.split(',').map(str::trim).filter(|field| !field.is_empty()) {
            if !MESSAGE_FIELDS.contains(&field) {
                return Err(wrong_parameter("(#100) Tried accessing nonexisting field of a message"));
            }
            if !wished.iter().any(|known| known == field) {
                wished.push(field.to_owned());
            }
        }
        let limit = match limit {
            None => PAGE,
            Some(limit) => limit
                .parse::<usize>()
                .ok()
                .filter(|limit| (1..=LARGEST_PAGE).contains(limit))
                .ok_or(wrong_parameter("(#100) Param limit must be 1 to 100"))?,
        };
        Ok(MessagesWish { fields: wished, limit })
    }
}

/// Return the id of a conversation.
pub(super) fn conversation_id(account: &str, dest: &str) -> String {
    format!("t_{account}_{}", hex::encode(dest))
}

/// Return account and recipient of a conversation.
pub(super) fn read_conversation_id(id: &str) -> Option<(String, String)> {
    let (account, dest) = id.strip_prefix("t_")?.rsplit_once('_')?;
    Some((account.to_owned(), String::from_utf8(hex::decode(dest).ok()?).ok()?))
}

/// The line that asks, and where its pages of answers are found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub object: Object,
    pub account: &'a str,
    /// `http://{host}` and the path before the object's id.
    pub base: &'a str,
}

impl Shared {
    /// Return the messages of a conversation, newest first.
    pub fn messages_of(&self, account: &str, dest: &str) -> Vec<StoredMessage> {
        let run = self.run();
        let inbox = self.stage().inbox.lock();
        let received = inbox.kept.iter().filter(|inbound| inbound.account == account && inbound.from == dest);
        let mut messages: Vec<StoredMessage> =
            received.map(|inbound| StoredMessage::received(run, inbound)).collect();
        drop(inbox);
        let kept = self.journal().kept(0, Some(dest));
        let accounts = self.stage().identities.lock();
        messages.extend(kept.iter().filter_map(|kept| {
            let (_, tag) = kept.delivered()?;
            (accounts.account_of(tag) == account).then(|| StoredMessage::sent(run, account, &kept.call()))
        }));
        drop(accounts);
        // A stable order, with the later one of two messages of a millisecond first.
        messages.reverse();
        messages.sort_by_key(|message| std::cmp::Reverse(message.at_ms));
        messages
    }

    /// Return every pair of an account and a person who wrote to each other.
    fn pairs(&self) -> BTreeSet<(String, String)> {
        let kept = self.journal().kept(0, None);
        let accounts = self.stage().identities.lock();
        let sent = kept.iter().filter_map(|kept| {
            kept.delivered().map(|(dest, tag)| (accounts.account_of(tag), dest.to_owned()))
        });
        let mut pairs: BTreeSet<(String, String)> = sent.collect();
        drop(accounts);
        let inbox = self.stage().inbox.lock();
        pairs.extend(inbox.kept.iter().map(|inbound| (inbound.account.clone(), inbound.from.clone())));
        pairs
    }

    /// Answer `GET /{id}/conversations`.
    pub fn conversations(
        &self,
        reader: Reader<'_>,
        user_id: Option<&str>,
        fields: &str,
        after: Option<&str>,
    ) -> Result<Value, PlayedError> {
        let wish = MessagesWish::of_conversation(fields)?;
        let dests: Vec<String> = match user_id {
            Some(dest) => vec![dest.to_owned()],
            None => self
                .pairs()
                .into_iter()
                .filter(|(account, _)| account == reader.account)
                .map(|(_, dest)| dest)
                .collect(),
        };
        let mut ids = dests.iter().map(|dest| conversation_id(reader.account, dest));
        let begin = after.map_or(0, |after| ids.clone().position(|id| id == after).map_or(0, |at| at + 1));
        let told: Vec<Value> = dests
            .iter()
            .skip(begin)
            .take(PAGE)
            .filter_map(|dest| self.conversation(reader, dest, wish.as_ref()))
            .collect();
        let mut answer = json!({ "data": told });
        if begin + PAGE < dests.len()
            && let Some(last) = ids.nth(begin + PAGE - 1)
        {
            let next = format!("{}/{}/conversations?after={last}", reader.base, reader.account);
            answer["paging"] = json!({ "cursors": { "after": last }, "next": next });
        }
        Ok(answer)
    }

    /// Return a conversation as Graph tells it; `None` if there is none.
    pub fn conversation(&self, reader: Reader<'_>, dest: &str, wish: Option<&MessagesWish>) -> Option<Value> {
        let messages = self.messages_of(reader.account, dest);
        let newest = messages.first()?;
        let id = conversation_id(reader.account, dest);
        let mut told = json!({ "id": id, "updated_time": time_text(newest.at_ms) });
        if let Some(wish) = wish {
            told["messages"] = page(&messages, reader, &id, wish, None);
        }
        Some(told)
    }

    /// Answer `GET /{conversation}/messages`.
    pub fn conversation_messages(
        &self,
        reader: Reader<'_>,
        dest: &str,
        wish: &MessagesWish,
        after: Option<&str>,
    ) -> Value {
        let messages = self.messages_of(reader.account, dest);
        page(&messages, reader, &conversation_id(reader.account, dest), wish, after)
    }

    /// Answer `GET /{message}`.
    pub fn message(&self, reader: Reader<'_>, id: &str, wish: &MessagesWish) -> Result<Value, PlayedError> {
        let number = read_message_id(self.run(), id).ok_or(UNKNOWN_OBJECT)?;
        let dest = if number & INBOUND == 0 {
            let kept = self.journal().kept_at(number);
            kept.and_then(|kept| kept.delivered().map(|(dest, _)| dest.to_owned()))
        } else {
            let inbox = self.stage().inbox.lock();
            inbox.kept.iter().find(|inbound| inbound.number == number).map(|inbound| inbound.from.clone())
        };
        let messages = self.messages_of(reader.account, &dest.ok_or(UNKNOWN_OBJECT)?);
        let place = messages.iter().position(|message| message.id == id).ok_or(UNKNOWN_OBJECT)?;
        Ok(messages[place].told(&wish.fields, has_details(reader.object, place)))
    }

    /// Return every conversation, or those of one person, for `GET /simulator/conversations`.
    pub fn all_conversations(&self, dest: Option<&str>) -> Value {
        let pairs = self.pairs().into_iter().filter(|(_, person)| dest.is_none_or(|dest| dest == person));
        let told = pairs.map(|(account, dest)| {
            let mut messages = self.messages_of(&account, &dest);
            messages.reverse();
            let id = conversation_id(&account, &dest);
            json!({ "id": id, "account": account, "dest": dest, "messages": messages })
        });
        Value::Array(told.collect())
    }
}

/// Return a page of messages, with the place of the next one.
fn page(
    messages: &[StoredMessage],
    reader: Reader<'_>,
    conversation: &str,
    wish: &MessagesWish,
    after: Option<&str>,
) -> Value {
    let place = |after: &str| messages.iter().position(|message| message.id == after);
    let begin = after.and_then(place).map_or(0, |place| place + 1);
    let end = messages.len().min(begin + wish.limit);
    let told: Vec<Value> = (begin..end)
        .map(|place| messages[place].told(&wish.fields, has_details(reader.object, place)))
        .collect();
    let mut answer = json!({ "data": told });
    if end > begin && end < messages.len() {
        let last = &messages[end - 1].id;
        let (fields, limit) = (wish.fields.join(","), wish.limit);
        let next =
            format!("{}/{conversation}/messages?fields={fields}&limit={limit}&after={last}", reader.base);
        answer["paging"] = json!({ "cursors": { "after": last }, "next": next });
    }
    answer
}

fn has_details(object: Object, place: usize) -> bool {
    object == Object::Page || place < DETAILED_ON_INSTAGRAM
}

const TIME: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]+0000");

/// Return a time as the Graph API writes it.
fn time_text(at_ms: u64) -> String {
    let since = Duration::milliseconds(i64::try_from(at_ms).unwrap_or(i64::MAX));
    let at = OffsetDateTime::UNIX_EPOCH.checked_add(since).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(TIME).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(fields: &str) -> Option<MessagesWish> {
        MessagesWish::of_conversation(fields).expect("known fields")
    }

    #[test]
    fn fields_and_limit_are_read() {
        assert_eq!(wish("id,updated_time"), None);
        let plain = wish("messages").expect("messages are asked for");
        assert_eq!((plain.fields.join(","), plain.limit), ("id,created_time".to_owned(), PAGE));
        let detailed = wish("updated_time,messages.limit(5){message,from}").expect("asked for");
        assert_eq!((detailed.fields.join(","), detailed.limit), ("id,message,from".to_owned(), 5));
        assert!(MessagesWish::of_conversation("messages{sender}").is_err());
        assert!(MessagesWish::read(None, Some("0")).is_err());
    }

    #[test]
    fn conversation_id_can_be_read_back() {
        let id = conversation_id("1001", "ana_é-1");
        assert_eq!(read_conversation_id(&id), Some(("1001".to_owned(), "ana_é-1".to_owned())));
        for id in ["t_1001", "t_1001_zz", "1001_61", "t_1001_ff"] {
            assert_eq!(read_conversation_id(id), None, "{id}");
        }
    }

    #[test]
    fn old_messages_on_instagram_have_no_details() {
        let message = StoredMessage {
            id: "m_1".to_owned(),
            at_ms: 1_767_323_045_000,
            from: "1784".to_owned(),
            to: "ana".to_owned(),
            text: Some("hello".to_owned()),
            metadata: None,
            attachment: None,
        };
        let fields = MessagesWish::read(Some("created_time,message"), None).expect("known fields").fields;
        let told = json!({ "id": "m_1", "created_time": "2026-01-02T03:04:05+0000", "message": "hello" });
        assert_eq!(message.told(&fields, true), told);
        assert_eq!(message.told(&fields, false).get("message"), None);
        assert!(has_details(Object::Instagram, 19) && !has_details(Object::Instagram, 20));
    }
}
