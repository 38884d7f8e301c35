//! Reads the messages of a conversation from Meta's answer, leniently: a message without id or time is left out.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::channel::MessageKind;

/// A message as a conversation shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMessage {
    pub id: String,
    pub at: OffsetDateTime,
    /// The id of the sender; empty if it is not shown.
    pub from: String,
    /// Empty for media.
    pub text: String,
    /// The types of the attachments, as Meta names them; `None`: not shown.
    pub attachments: Option<Vec<String>>,
}

impl FoundMessage {
    pub(super) fn has_media(&self) -> bool {
        self.attachments.as_ref().is_some_and(|types| !types.is_empty())
    }

    /// Whether the message may carry media of this kind.
    pub(super) fn may_be_media(&self, kind: MessageKind) -> bool {
        let Some(types) = &self.attachments else { return true };
        types.iter().any(|shown| {
            let is = |word: &str| shown.is_empty() || shown.starts_with(word);
            match kind {
                MessageKind::Image => is("image"),
                // Meta shows a recording as a video too.
                MessageKind::Audio => is("audio") || is("video"),
                MessageKind::Video => is("video"),
                MessageKind::File => true,
                MessageKind::Text => false,
            }
        })
    }
}

/// Return the messages of an answer to `/{page}/conversations?user_id=…&fields=messages{…}`.
pub fn messages_of(answer: &Map<String, Value>) -> Vec<FoundMessage> {
    let conversations = answer.get("data").and_then(Value::as_array).into_iter().flatten();
    let messages = conversations.flat_map(|conversation| list(&conversation["messages"]["data"]));
    messages.filter_map(message).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn message(value: &Value) -> Option<FoundMessage> {
    let id = text(&value["id"]).filter(|id| !id.is_empty())?;
    let at = time_of(value["created_time"].as_str()?)?;
    let attachments = value.get("attachments").map(|attachments| {
        let types = list(&attachments["data"]).iter();
        types.map(|attachment| text(&attachment["mime_type"]).unwrap_or_default()).collect()
    });
    Some(FoundMessage {
        id,
        at,
        from: text(&value["from"]["id"]).unwrap_or_default(),
        text: text(&value["message"]).unwrap_or_default(),
        attachments,
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Read RFC 3339, and Meta's form of it, whose offset has no colon: `2026-11-28T12:00:00+0000`.
fn time_of(text: &str) -> Option<OffsetDateTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time);
    }
    let (time, offset) = text.split_at_checked(text.len().checked_sub(4)?)?;
    let (hours, minutes) = offset.split_at_checked(2)?;
    OffsetDateTime::parse(&format!("{time}{hours}:{minutes}"), &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn read(answer: Value) -> Vec<FoundMessage> {
        let Value::Object(answer) = answer else { panic!("an object") };
        messages_of(&answer)
    }

    #[test]
    fn messages_of_all_conversations_are_read() {
        let answer = json!({"data": [{"id": "t_1", "messages": {"data": [
            {"id": "m_1", "created_time": "2026-11-28T12:00:00+0000", "message": "hi", "from": {"id": "1"},
             "to": {"data": [{"id": "2"}]}},
            {"id": 17, "created_time": "2026-11-28T12:00:01Z", "message": "", "from": {"id": 1},
             "attachments": {"data": [{"mime_type": "image/png"}]}},
            {"id": "m_3", "created_time": "yesterday"}, {"created_time": "2026-11-28T12:00:00+0000"}, 7, null,
        ]}}, {"id": "t_2"}]});
        let messages = read(answer);
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].at, datetime!(2026-11-28 12:00 UTC));
        assert_eq!((messages[0].from.as_str(), messages[0].text.as_str()), ("1", "hi"));
        assert!(!messages[0].has_media() && messages[1].has_media());
        assert_eq!((messages[1].id.as_str(), messages[1].from.as_str()), ("17", "1"));
        assert!(
            messages[1].may_be_media(MessageKind::Image) && !messages[1].may_be_media(MessageKind::Video)
        );
    }

    #[test]
    fn other_answers_have_no_messages() {
        for answer in
            [json!({}), json!({"data": []}), json!({"data": 7}), json!({"data": [7, {"messages": []}]})]
        {
            assert!(read(answer).is_empty());
        }
    }
}
