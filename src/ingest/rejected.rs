//! The form of a refused submission in `cdls.rejected` (contract: "RabbitMQ: for producers and listeners"):
//! its parameters, but no token. Of an unknown sender's submission the reason is kept, and no body.
//!
//! Never here: whether a submission is refused.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde_json::value::{RawValue, to_raw_value};
use time::OffsetDateTime;

use super::body::{json_fields, json_text, submission_charset};
use super::parameters::listed;
use crate::broker::{Rejected, Submitted, TokenHeader};
use crate::edge::{Refused, tokens};
use crate::text::{Charset, trimmed, without_c1};

/// The replacement of a token in a text.
const REDACTED: &str = "[redacted]";

/// Return a submission in the form for operators, with the reason of its refusal.
pub fn rejected(submitted: Submitted, reason: &Refused, is_unauthenticated: bool) -> Rejected {
    let header = match &submitted.tsid {
        TokenHeader::Text(token) => Some(token.expose_secret()),
        TokenHeader::WrongType | TokenHeader::Absent => None,
    };
    let (body, tokens) = without_token(&submitted.body, charset_of(&submitted), header);
    // The refused value may be a token in the wrong place.
    let repeats_token = holds(reason.detail(), &tokens);
    let detail = if repeats_token { reason.refusal.detail().into() } else { reason.detail().to_owned() };
    let kept = |text: String| match holds(&text, &tokens) || (is_unauthenticated && is_like_a_token(&text)) {
        true => REDACTED.to_owned(),
        false => text,
    };
    Rejected {
        status_code: reason.code(),
        status: kept(reason.status()),
        detail,
        body: if is_unauthenticated { Vec::new() } else { body },
        body_bytes: submitted.body_bytes,
        routing_key: kept(submitted.routing_key),
        message_id: submitted.message_id.map(kept),
        correlation_id: submitted.correlation_id.map(kept),
        user_id: submitted.user_id.map(kept),
        is_unauthenticated,
        at: OffsetDateTime::now_utc().unix_timestamp().try_into().unwrap_or_default(),
    }
}

/// Whether a text has the form of a token that this program makes: a sender may have put one in the wrong place.
fn is_like_a_token(text: &str) -> bool {
    let text = trimmed(text);
    text.len() == tokens::TOKEN_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Return the encoding that a submission names; UTF-8 where it names none that is read.
fn charset_of(submitted: &Submitted) -> Charset {
    let content_type = submitted.content_type.as_deref().unwrap_or_default();
    let content_encoding = submitted.content_encoding.as_deref().unwrap_or_default();
    submission_charset(content_type, content_encoding).unwrap_or_default()
}

/// Return the listed parameters of the body except `tsid` and `sid`, without these tokens and the `header`'s
/// in their values; and the tokens. Other content of a body could be a token under another name: it is left
/// out, and so is a body that is no JSON object.
fn without_token(body: &[u8], charset: Charset, header: Option<&str>) -> (Vec<u8>, Vec<String>) {
    let body = json_text(body, charset).unwrap_or_default();
    let fields = json_fields(&body).unwrap_or_default();
    // Names count here as `Parameters` reads them.
    let known = || fields.iter().filter_map(|(name, value)| Some((listed(trimmed(name))?, *value)));
    // A token that stands twice is one each time, though only the last counts.
    let of_body = known().filter(|(name, _)| is_token(name)).filter_map(|(_, value)| scalar(value));
    let tokens: Vec<String> =
        header.map(str::to_owned).into_iter().chain(of_body).filter_map(as_checked).collect();
    if fields.is_empty() {
        return (Vec::new(), tokens);
    }
    let mut kept: BTreeMap<&str, Option<Box<RawValue>>> = BTreeMap::new();
    for (name, value) in known().filter(|(name, _)| !is_token(name)) {
        kept.insert(name, kept_value(value, &tokens));
    }
    kept.retain(|_, value| value.is_some());
    (serde_json::to_vec(&kept).unwrap_or_default(), tokens)
}

fn is_token(name: &str) -> bool {
    matches!(name, "tsid" | "sid")
}

/// Return a value as it is written: an integer of any length keeps its digits. Arrays and objects are no
/// parameters.
fn kept_value(value: &RawValue, tokens: &[String]) -> Option<Box<RawValue>> {
    match value.get().bytes().next()? {
        b'{' | b'[' => None,
        b'n' | b't' | b'f' => Some(value.to_owned()),
        _ if scalar(value).is_none_or(|text| holds(&text, tokens)) => to_raw_value(REDACTED).ok(),
        _ => Some(value.to_owned()),
    }
}

/// Return the text of a string, or the digits of a number: a token may be written as either.
fn scalar(value: &RawValue) -> Option<String> {
    match value.get().bytes().next()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'-' | b'0'..=b'9' => Some(value.get().to_owned()),
        _ => None,
    }
}

/// Return a token in the form that the check of tokens reads; `None` for a blank one.
fn as_checked(token: String) -> Option<String> {
    let token = trimmed(&without_c1(&token)).to_owned();
    (!token.is_empty()).then_some(token)
}

/// Whether one of the tokens, each [`as_checked`], stands in the text.
fn holds(text: &str, tokens: &[String]) -> bool {
    let text = without_c1(text);
    tokens.iter().any(|token| text.contains(token.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::Refusal;

    fn kept(body: &[u8]) -> String {
        String::from_utf8(without_token(body, Charset::Utf8, Some("of_the_header")).0).expect("UTF-8")
    }

    #[test]
    fn refused_body_is_kept_without_its_token() {
        assert_eq!(
            kept(br#"{"tsid":"secret1234","sid":"secret1234","dest":25319273918273981273987129837}"#),
            r#"{"dest":25319273918273981273987129837}"#
        );
        assert_eq!(kept(br#"{"\u0074sid":"secret1234"}"#), "{}");
        assert_eq!(kept(br#"{"tsid":"a","tsid":"secret1234"}"#), "{}");
        assert_eq!(
            kept(br#"{"dest":null,"app_id":1.50,"mdata":"hi"}"#),
            r#"{"app_id":1.50,"dest":null,"mdata":"hi"}"#
        );
    }

    #[test]
    fn only_parameters_without_tokens_are_kept() {
        assert_eq!(kept(br#"{"token":"secret1234","TSID":"secret1234","dest":{"sid":"secret1234"}}"#), "{}");
        assert_eq!(
            kept(br#"{"tsid":"secret1234","mdata":"Bearer secret1234","dest":"1"}"#),
            r#"{"dest":"1","mdata":"[redacted]"}"#
        );
        assert_eq!(kept(br#"{"mdata":"of_the\u005fheader"}"#), r#"{"mdata":"[redacted]"}"#, "escaped");
        assert_eq!(kept(br#"{"tsid":" ","dest":"1"}"#), r#"{"dest":"1"}"#, "no token is no text to look for");
    }

    #[test]
    fn token_is_found_however_it_is_written() {
        let digits =
            without_token(br#"{"dest":1234567890,"mdata":"no"}"#, Charset::Utf8, Some("1234567890")).0;
        assert_eq!(digits, br#"{"dest":"[redacted]","mdata":"no"}"#);
        for (body, expected) in [
            (r#"{"tsid":1234567890,"mdata":"of 1234567890"}"#, r#"{"mdata":"[redacted]"}"#),
            (r#"{"sid":"1234567890","dest":1234567890}"#, r#"{"dest":"[redacted]"}"#),
            (r#"{" tsid":"secret1234","mdata":"secret1234"}"#, r#"{"mdata":"[redacted]"}"#),
            (
                r#"{"tsid":"secret1234","tsid":"other12345","mdata":"secret1234"}"#,
                r#"{"mdata":"[redacted]"}"#,
            ),
            (r#"{"tsid":"sec\u0085ret1234","mdata":"secret1234"}"#, r#"{"mdata":"[redacted]"}"#),
            (r#"{"tsid":"secret1234","mdata":"secret\u00851234"}"#, r#"{"mdata":"[redacted]"}"#),
            (r#"{"tsid":"e","dest":null,"mdata":"hi"}"#, r#"{"dest":null,"mdata":"hi"}"#),
        ] {
            assert_eq!(kept(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn body_is_read_in_its_encoding() {
        let body = b"{\"tsid\":\"secret1234\",\"mdata\":\"ol\xe1\"}";
        let given = Submitted {
            content_type: Some("application/json; charset=iso-8859-1".into()),
            message_id: Some("secret1234".into()),
            ..submitted(body, None)
        };
        let kept = rejected(given, &Refusal::NoDest.into(), false);
        assert_eq!(String::from_utf8(kept.body).expect("UTF-8"), r#"{"mdata":"olá"}"#);
        assert_eq!(kept.message_id.as_deref(), Some(REDACTED));
    }

    #[test]
    fn other_body_than_an_object_is_left_out() {
        let utf_16: Vec<u8> = "{\"x\":\"secret1234\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for unreadable in [
            &b"hello secret1234"[..],
            b"tsid=secret1234&dest=1",
            br#"["secret1234"]"#,
            br#"{"dest":"1""#,
            &utf_16,
        ] {
            assert_eq!(kept(unreadable), "", "{}", String::from_utf8_lossy(unreadable));
        }
    }

    fn submitted(body: &[u8], header: Option<&str>) -> Submitted {
        Submitted {
            routing_key: "messenger".into(),
            body: body.to_vec(),
            body_bytes: body.len(),
            content_type: None,
            content_encoding: None,
            message_id: Some("order-7".into()),
            correlation_id: Some("order-7".into()),
            reply_to: None,
            user_id: Some("shop".into()),
            tsid: header.map_or(TokenHeader::Absent, |token| TokenHeader::Text(token.into())),
            version: 1,
            redelivered: false,
            delivery_tag: 1,
        }
    }

    #[test]
    fn properties_are_kept_without_a_token() {
        let token = "0123456789abcdefghij0123456789";
        let given = Submitted {
            message_id: Some(token.into()),
            correlation_id: Some(format!("order-7-{token}")),
            user_id: Some(token.into()),
            routing_key: token.into(),
            ..submitted(br#"{"dest":""}"#, Some(token))
        };
        let kept = rejected(given, &Refusal::NoDest.into(), false);
        let redacted = Some(REDACTED.to_owned());
        assert_eq!(
            (&kept.message_id, &kept.correlation_id, &kept.user_id),
            (&redacted, &redacted, &redacted)
        );
        assert_eq!(kept.routing_key, REDACTED);
        let kept = rejected(submitted(br#"{"dest":""}"#, Some(token)), &Refusal::NoDest.into(), false);
        assert_eq!((kept.message_id.as_deref(), kept.body), (Some("order-7"), br#"{"dest":""}"#.to_vec()));
    }

    #[test]
    fn unknown_sender_leaves_its_ids_and_no_body() {
        let token = "0123456789abcdefghij0123456789";
        let given = Submitted { message_id: Some(token.into()), ..submitted(br#"{"dest":"1"}"#, None) };
        let kept = rejected(given, &Refusal::NoToken.into(), true);
        assert!(kept.is_unauthenticated && kept.body.is_empty());
        assert_eq!(
            (kept.body_bytes, kept.message_id.as_deref()),
            (12, Some(REDACTED)),
            "no header tells the token"
        );
        assert_eq!(kept.correlation_id.as_deref(), Some("order-7"));
    }
}
