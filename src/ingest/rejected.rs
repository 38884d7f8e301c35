//! The form of a refused submission in `cdls.rejected` (contract: "RabbitMQ: for producers and listeners"):
//! its parameters, but no token.
//!
//! Never here: whether a submission is refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde_json::value::{RawValue, to_raw_value};
use time::OffsetDateTime;

use super::body::json_text;
use super::parameters::listed;
use crate::broker::{Rejected, Submitted, TokenHeader};
use crate::edge::Refused;
use crate::text::{Charset, trimmed};

/// The replacement of a token in a text.
const REDACTED: &str = "[redacted]";

/// Return a submission in the form for operators, with the reason of its refusal.
pub fn rejected(submitted: Submitted, reason: &Refused) -> Rejected {
    let header = match &submitted.tsid {
        TokenHeader::Text(token) => Some(token.expose_secret()),
        TokenHeader::WrongType | TokenHeader::Absent => None,
    };
    let (body, tokens) = without_token(&submitted.body, header);
    // The refused value may be a token in the wrong place.
    let repeats_token = holds(reason.detail(), &tokens);
    let detail = if repeats_token { reason.refusal.detail().into() } else { reason.detail().to_owned() };
    let routing_key = if holds(&submitted.routing_key, &tokens) { REDACTED } else { &submitted.routing_key };
    Rejected {
        status_code: reason.code(),
        status: reason.status(),
        detail,
        body,
        body_bytes: submitted.body_bytes,
        routing_key: routing_key.to_owned(),
        message_id: submitted.message_id,
        correlation_id: submitted.correlation_id,
        user_id: submitted.user_id,
        at: OffsetDateTime::now_utc().unix_timestamp().try_into().unwrap_or_default(),
    }
}

/// Return the listed parameters of the body except `tsid` and `sid`, without these tokens and the `header`'s
/// in their texts; and the tokens. Other content of a body could be a token under another name: it is left
/// out, and so is a body that is no JSON object.
fn without_token(body: &[u8], header: Option<&str>) -> (Vec<u8>, Vec<String>) {
    let body = json_text(body, Charset::Utf8).unwrap_or_default();
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(&body).unwrap_or_default();
    let texts = ["tsid", "sid"].into_iter().filter_map(|name| text(fields.get(name)?));
    let tokens: Vec<String> = header.map(str::to_owned).into_iter().chain(texts).collect();
    if fields.is_empty() {
        return (Vec::new(), tokens);
    }
    let kept: BTreeMap<&str, Box<RawValue>> = fields
        .into_iter()
        .filter_map(|(name, value)| {
            let name = listed(&name).filter(|name| !matches!(*name, "tsid" | "sid"))?;
            Some((name, kept(value, &tokens)?))
        })
        .collect();
    (serde_json::to_vec(&kept).unwrap_or_default(), tokens)
}

/// Return a value as it is written: an integer of any length keeps its digits. Arrays and objects are no
/// parameters.
fn kept(value: &RawValue, tokens: &[String]) -> Option<Box<RawValue>> {
    match value.get().bytes().next()? {
        b'{' | b'[' => None,
        b'"' if text(value).is_none_or(|text| holds(&text, tokens)) => to_raw_value(REDACTED).ok(),
        _ => Some(value.to_owned()),
    }
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn holds(text: &str, tokens: &[String]) -> bool {
    tokens.iter().map(|token| trimmed(token)).any(|token| !token.is_empty() && text.contains(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(body: &[u8]) -> String {
        String::from_utf8(without_token(body, Some("of_the_header")).0).expect("UTF-8")
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
}
