//! The checks of contract 2 that need no look-up, in their order.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::parameters::{Given, Parameters};
use super::refusal::Refusal;
use crate::message::{Class, Lane, LineId, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, MessageKind};
use crate::store::LONGEST_HTTPDUP;

/// Messenger's limit, in characters (Meta, "Send API Reference": `message.text`).
const MESSENGER_TEXT_CHARS: usize = 2_000;
/// Instagram's limit, in bytes of UTF-8 (Meta, Instagram Messaging, "Send a Message").
const INSTAGRAM_TEXT_BYTES: usize = 1_000;
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// How far ahead a message may be scheduled, and how long it may be valid.
pub const LONGEST_SECONDS: i64 = 366 * 86_400;

/// A request whose parameters are all in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub line: LineId,
    pub dest: String,
    pub kind: MessageKind,
    pub mdata: String,
    pub mcaption: Option<String>,
    pub msg_id: Option<String>,
    pub cp_id: Option<String>,
    pub lane: Lane,
    /// `None` where it is off.
    pub httpdup: Option<Duration>,
    pub send_at: Option<OffsetDateTime>,
    pub valid_for: Option<Duration>,
}

/// Checks a request for a line of `class`; the first failing check of the contract's order is the answer.
pub fn check(parameters: &Parameters, class: Class) -> Result<Checked, Refusal> {
    let line = app_id(parameters)?;
    present(parameters, "dest", Refusal::NoDest)?;
    present(parameters, "mdata", Refusal::NoMdata)?;
    let kind = mtype(parameters, class)?;
    if let Some(Given::Text(mdata)) = parameters.get("mdata") {
        mdata_fits(mdata, kind, class)?;
    }
    let dest = free_text(parameters, "dest", MAX_DEST_CHARS)?.unwrap_or_default();
    let mdata = free_text(parameters, "mdata", usize::MAX)?.unwrap_or_default();
    let mcaption = free_text(parameters, "mcaption", usize::MAX)?;
    let msg_id = free_text(parameters, "msg_id", MAX_MSG_ID_CHARS)?;
    let cp_id = free_text(parameters, "cp_id", MAX_CP_ID_CHARS)?;
    let lane = priority(parameters)?.unwrap_or(if cp_id.is_some() { Lane::Bulk } else { Lane::High });
    seconds(parameters, "wait", 0, MAX_WAIT.as_secs() as i64)?;
    let httpdup = seconds(parameters, "httpdup", 0, LONGEST_HTTPDUP.as_secs() as i64)?
        .filter(|window| !window.is_zero());
    let send_at = send_at(parameters)?;
    let valid_for = seconds(parameters, "valid_for", 1, LONGEST_SECONDS)?;
    Ok(Checked { line, dest, kind, mdata, mcaption, msg_id, cp_id, lane, httpdup, send_at, valid_for })
}

/// How long the caller waits for the outcome, if it says so and may.
pub fn wait(parameters: &Parameters) -> Option<Duration> {
    seconds(parameters, "wait", 0, MAX_WAIT.as_secs() as i64).ok().flatten()
}

pub fn app_id(parameters: &Parameters) -> Result<LineId, Refusal> {
    let given = parameters.get("app_id");
    let Some(Given::Text(text)) = given else { return Err(Refusal::NoAppId) };
    match integer(text) {
        Some(id) if id > 0 => Ok(LineId(id)),
        _ => Err(Refusal::NoAppId),
    }
}

/// Decimal digits, with white space around them.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim_matches(|character: char| character.is_ascii_whitespace());
    let digits = text.strip_prefix('-').unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A value of the wrong type is present; what is wrong with it is said later.
fn present(parameters: &Parameters, name: &'static str, missing: Refusal) -> Result<(), Refusal> {
    match parameters.get(name) {
        Some(Given::WrongType) => Ok(()),
        _ => parameters.text(name).map(drop).ok_or(missing),
    }
}

fn mtype(parameters: &Parameters, class: Class) -> Result<MessageKind, Refusal> {
    let kind = match parameters.get("mtype") {
        None => MessageKind::Text,
        Some(Given::Text(text)) if text.trim().is_empty() => MessageKind::Text,
        Some(Given::Text(text)) if &**text == "document" => MessageKind::File,
        Some(Given::Text(text)) => text.parse().map_err(|_| Refusal::InvalidMtype)?,
        Some(Given::WrongType) => return Err(Refusal::InvalidMtype),
    };
    if class.supports(kind) { Ok(kind) } else { Err(Refusal::InvalidMtype) }
}

fn mdata_fits(mdata: &str, kind: MessageKind, class: Class) -> Result<(), Refusal> {
    if kind != MessageKind::Text {
        return if is_public_url(mdata) { Ok(()) } else { Err(Refusal::InvalidMdata) };
    }
    let too_long = match class {
        Class::Messenger => mdata.chars().count() > MESSENGER_TEXT_CHARS,
        Class::Instagram => mdata.len() > INSTAGRAM_TEXT_BYTES,
    };
    if too_long { Err(Refusal::TextTooLong) } else { Ok(()) }
}

/// Meta fetches the asset, we never do: the form is all there is to check.
fn is_public_url(text: &str) -> bool {
    let has_blank = text.contains(|character: char| character.is_whitespace() || character.is_control());
    let authority = text.split_once("://").map_or("", |(_, rest)| rest);
    let names_a_host = !authority.starts_with(['/', '\\', '?', '#']) && !authority.is_empty();
    let is_http = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    !has_blank && names_a_host && Url::parse(text).is_ok_and(is_http)
}

/// A text without NUL, of a length that is allowed; blank means missing.
fn free_text(
    parameters: &Parameters,
    name: &'static str,
    most_chars: usize,
) -> Result<Option<String>, Refusal> {
    match parameters.get(name) {
        Some(Given::WrongType) => Err(Refusal::InvalidParameter(name)),
        Some(Given::Text(text)) if text.contains('\0') || text.chars().count() > most_chars => {
            Err(Refusal::InvalidParameter(name))
        }
        _ => Ok(parameters.text(name).map(str::to_owned)),
    }
}

fn priority(parameters: &Parameters) -> Result<Option<Lane>, Refusal> {
    let Some(text) = given_text(parameters, "priority")? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Refusal::InvalidParameter("priority"))
}

fn seconds(
    parameters: &Parameters,
    name: &'static str,
    least: i64,
    most: i64,
) -> Result<Option<Duration>, Refusal> {
    let Some(text) = given_text(parameters, name)? else { return Ok(None) };
    match integer(text) {
        Some(seconds) if (least..=most).contains(&seconds) => Ok(Some(Duration::from_secs(seconds as u64))),
        _ => Err(Refusal::InvalidParameter(name)),
    }
}

/// RFC 3339, or Unix seconds. A blank between the offset's sign and its digits is a `+` that was not escaped.
fn send_at(parameters: &Parameters) -> Result<Option<OffsetDateTime>, Refusal> {
    let Some(text) = given_text(parameters, "send_at")? else { return Ok(None) };
    let invalid = Refusal::InvalidParameter("send_at");
    let at = match integer(text) {
        Some(unix) => OffsetDateTime::from_unix_timestamp(unix).map_err(|_| invalid)?,
        None => OffsetDateTime::parse(&text.trim().replace(' ', "+"), &Rfc3339).map_err(|_| invalid)?,
    };
    let latest = OffsetDateTime::now_utc() + Duration::from_secs(LONGEST_SECONDS as u64);
    if at.year() < 1970 || at > latest { Err(invalid) } else { Ok(Some(at)) }
}

fn given_text<'a>(parameters: &'a Parameters, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    match parameters.get(name) {
        Some(Given::WrongType) => Err(Refusal::InvalidParameter(name)),
        _ => Ok(parameters.text(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::parameters::BodyType;
    use serde_json::{Value, json};

    fn checked(class: Class, body: &Value) -> Result<Checked, Refusal> {
        let body = body.to_string();
        let parameters = Parameters::read("", BodyType::Json, body.as_bytes()).expect("readable");
        check(&parameters, class)
    }

    /// A good Messenger request with some parameters changed.
    fn with(changes: Value) -> Result<Checked, Refusal> {
        with_class(Class::Messenger, changes)
    }

    fn with_class(class: Class, changes: Value) -> Result<Checked, Refusal> {
        let mut body = json!({"app_id": 7, "dest": "253", "mdata": "hi"});
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        checked(class, &body)
    }

    #[test]
    fn a_plain_request_is_a_text_with_high_priority() {
        let checked = with(json!({})).expect("in order");
        assert_eq!((checked.line, checked.kind, checked.lane), (LineId(7), MessageKind::Text, Lane::High));
        assert_eq!((checked.httpdup, checked.send_at, checked.valid_for), (None, None, None));
    }

    #[test]
    fn each_wrong_parameter_has_its_refusal() {
        use Refusal::{InvalidMdata, InvalidMtype, InvalidParameter, NoAppId, NoDest, NoMdata};
        let long = "x".repeat(129);
        for (changes, refusal) in [
            (json!({"app_id": null}), NoAppId),
            (json!({"app_id": ""}), NoAppId),
            (json!({"app_id": "abc"}), NoAppId),
            (json!({"app_id": "1 OR 1=1"}), NoAppId),
            (json!({"app_id": 0}), NoAppId),
            (json!({"app_id": -1}), NoAppId),
            (json!({"app_id": 1.0}), NoAppId),
            (json!({"app_id": "+7"}), NoAppId),
            (json!({"app_id": 9223372036854775808_u64}), NoAppId),
            (json!({"app_id": [1]}), NoAppId),
            (json!({"app_id": {"$gt": 0}}), NoAppId),
            (json!({"dest": null}), NoDest),
            (json!({"dest": " \t\n"}), NoDest),
            (json!({"mdata": "  "}), NoMdata),
            (json!({"mtype": "Text"}), InvalidMtype),
            (json!({"mtype": "sticker"}), InvalidMtype),
            (json!({"mtype": 7}), InvalidMtype),
            (json!({"mtype": ["text"]}), InvalidMtype),
            (json!({"mtype": "image"}), InvalidMdata),
            (json!({"mtype": "image", "mdata": "/a.png"}), InvalidMdata),
            (json!({"mtype": "image", "mdata": "ftp://e.com/a.png"}), InvalidMdata),
            (json!({"mtype": "image", "mdata": "file:///etc/passwd"}), InvalidMdata),
            (json!({"mtype": "image", "mdata": "https://"}), InvalidMdata),
            (json!({"mtype": "image", "mdata": "https:///a"}), InvalidMdata),
            (json!({"mtype": "image", "mdata": "https://e.com/a b"}), InvalidMdata),
            (json!({"dest": long}), InvalidParameter("dest")),
            (json!({"dest": "a\u{0}b"}), InvalidParameter("dest")),
            (json!({"dest": true}), InvalidParameter("dest")),
            (json!({"mdata": "a\u{0}b"}), InvalidParameter("mdata")),
            (json!({"mdata": {"text": "hi"}}), InvalidParameter("mdata")),
            (json!({"mcaption": "\u{0}"}), InvalidParameter("mcaption")),
            (json!({"msg_id": "\u{0}"}), InvalidParameter("msg_id")),
            (json!({"cp_id": "c".repeat(129)}), InvalidParameter("cp_id")),
            (json!({"priority": "urgent"}), InvalidParameter("priority")),
            (json!({"wait": 31}), InvalidParameter("wait")),
            (json!({"wait": -1}), InvalidParameter("wait")),
            (json!({"wait": "soon"}), InvalidParameter("wait")),
            (json!({"wait": 1.5}), InvalidParameter("wait")),
            (json!({"httpdup": 601}), InvalidParameter("httpdup")),
            (json!({"send_at": "tomorrow"}), InvalidParameter("send_at")),
            (json!({"send_at": 99999999999999_i64}), InvalidParameter("send_at")),
            (json!({"valid_for": 0}), InvalidParameter("valid_for")),
        ] {
            assert_eq!(with(changes.clone()).err(), Some(refusal), "{changes}");
        }
    }

    #[test]
    fn the_first_failing_check_of_the_order_is_the_answer() {
        let all_wrong = json!({"app_id": 0, "dest": " ", "mdata": "", "mtype": "x", "wait": 99});
        assert_eq!(with(all_wrong).err(), Some(Refusal::NoAppId));
        assert_eq!(with(json!({"dest": "", "mdata": "", "mtype": "x"})).err(), Some(Refusal::NoDest));
        assert_eq!(with(json!({"mdata": "", "mtype": "x"})).err(), Some(Refusal::NoMdata));
        assert_eq!(with(json!({"mtype": "x", "wait": 99})).err(), Some(Refusal::InvalidMtype));
        let long = json!({"mdata": "x".repeat(2_001), "dest": "x".repeat(129)});
        assert_eq!(with(long).err(), Some(Refusal::TextTooLong));
    }

    #[test]
    fn text_limits_are_characters_on_messenger_and_bytes_on_instagram() {
        let text = |class, text: String| with_class(class, json!({"mdata": text})).err();
        assert_eq!(text(Class::Messenger, "😀".repeat(2_000)), None);
        assert_eq!(text(Class::Messenger, "😀".repeat(2_001)), Some(Refusal::TextTooLong));
        assert_eq!(text(Class::Instagram, "á".repeat(500)), None);
        assert_eq!(text(Class::Instagram, "á".repeat(501)), Some(Refusal::TextTooLong));
    }

    #[test]
    fn kinds_differ_by_class() {
        let kind = |class, mtype: &str| {
            with_class(class, json!({"mtype": mtype, "mdata": "https://e.com/a"})).map(|checked| checked.kind)
        };
        for (mtype, expected) in [
            ("image", MessageKind::Image),
            ("audio", MessageKind::Audio),
            ("video", MessageKind::Video),
            ("file", MessageKind::File),
            ("document", MessageKind::File),
        ] {
            assert_eq!(kind(Class::Messenger, mtype), Ok(expected));
        }
        assert_eq!(kind(Class::Instagram, "image"), Ok(MessageKind::Image));
        assert_eq!(kind(Class::Instagram, "file"), Err(Refusal::InvalidMtype));
        assert_eq!(kind(Class::Instagram, "document"), Err(Refusal::InvalidMtype));
    }

    #[test]
    fn the_legacy_alias_names_the_line_and_integers_may_be_texts() {
        let body = json!({"v8l_id": " 12 ", "dest": 12345678901234567890_u64, "mdata": "hi", "wait": "30"});
        let parameters = Parameters::read("", BodyType::Json, body.to_string().as_bytes()).expect("readable");
        assert_eq!(wait(&parameters), Some(Duration::from_secs(30)));
        let checked = check(&parameters, Class::Messenger).expect("in order");
        assert_eq!(checked.line, LineId(12));
        assert_eq!(checked.dest, "12345678901234567890");
    }

    #[test]
    fn campaigns_are_bulk_unless_said_otherwise() {
        assert_eq!(with(json!({"cp_id": "spring"})).map(|checked| checked.lane), Ok(Lane::Bulk));
        let high = with(json!({"cp_id": "spring", "priority": "high"}));
        assert_eq!(high.map(|checked| checked.lane), Ok(Lane::High));
    }

    #[test]
    fn send_at_is_rfc_3339_or_unix_seconds() {
        let at = |value: Value| with(json!({"send_at": value})).expect("in order").send_at;
        let expected = OffsetDateTime::from_unix_timestamp(1_700_000_000).ok();
        assert_eq!(at(json!(1_700_000_000)), expected);
        assert_eq!(at(json!("1700000000")), expected);
        assert_eq!(at(json!("2023-11-14T22:13:20Z")), expected);
        assert_eq!(at(json!("2023-11-14T19:13:20-03:00")), expected);
        assert_eq!(
            at(json!("2023-11-15T00:13:20 02:00")),
            expected,
            "a plus that a form turned into a blank"
        );
    }
}
