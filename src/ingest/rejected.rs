//! What is kept of a refused submission in `cdls.rejected` (contract 4): all of it but its token.
//!
//! Never here: whether a submission is refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::refusal::Refusal;
use crate::broker::{Rejected, Submitted, TokenHeader};

/// Levels of arrays and objects that are kept; no parameter has any.
const DEEPEST: usize = 4;
/// Stands where a text held the token.
const REDACTED: &str = "[redacted]";

/// A submission as operators find it, with the reason why it was refused.
pub fn rejected(submitted: Submitted, refusal: Refusal) -> Rejected {
    let header = match &submitted.tsid {
        TokenHeader::Text(token) => Some(token.expose_secret()),
        TokenHeader::WrongType | TokenHeader::Absent => None,
    };
    Rejected {
        status_code: refusal.code(),
        status: refusal.text(),
        body: without_token(&submitted.body, header),
        body_bytes: submitted.body_bytes,
        routing_key: submitted.routing_key,
        message_id: submitted.message_id,
        correlation_id: submitted.correlation_id,
        user_id: submitted.user_id,
    }
}

/// The body without `tsid` and `sid`, at any depth, and without their texts and the `header`'s wherever else they
/// stand. One that cannot be read is kept only if no token can stand in it.
fn without_token(body: &[u8], header: Option<&str>) -> Vec<u8> {
    let Ok(text) = str::from_utf8(body) else { return Vec::new() };
    let is_given = |token: &Cow<'_, str>| !token.trim().is_empty();
    let mut tokens: Vec<Cow<'_, str>> = header.map(Cow::Borrowed).into_iter().filter(is_given).collect();
    let Ok(fields) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(text) else {
        let may_hold_one = text.to_ascii_lowercase().contains("sid") || text.contains('\\');
        return if may_hold_one || holds(text, &tokens) { Vec::new() } else { body.to_vec() };
    };
    let named = fields.iter().filter(|(name, _)| names_a_token(name));
    tokens.extend(named.filter_map(|(_, value)| parsed(value.get())).filter(is_given));
    kept(text, &tokens, DEEPEST).map(|kept| kept.get().as_bytes().to_vec()).unwrap_or_default()
}

fn names_a_token(name: &str) -> bool {
    ["tsid", "sid"].iter().any(|token| name.eq_ignore_ascii_case(token))
}

fn holds(text: &str, tokens: &[Cow<'_, str>]) -> bool {
    tokens.iter().any(|token| text.contains(token.trim()))
}

/// A JSON value without `tokens`; what is nested more than `deeper` levels deep is left out. Values are taken as they stand,
/// so that an integer of any length keeps its digits.
fn kept(raw: &str, tokens: &[Cow<'_, str>], deeper: usize) -> Option<Box<RawValue>> {
    match raw.trim_start().bytes().next()? {
        b'{' => {
            let deeper = deeper.checked_sub(1)?;
            let fields = parsed::<BTreeMap<Cow<'_, str>, &RawValue>>(raw)?.into_iter();
            let fields = fields.filter(|(name, _)| !names_a_token(name) && !holds(name, tokens));
            let fields = fields.filter_map(|(name, value)| Some((name, kept(value.get(), tokens, deeper)?)));
            to_raw_value(&fields.collect::<BTreeMap<_, _>>()).ok()
        }
        b'[' => {
            let deeper = deeper.checked_sub(1)?;
            let values = parsed::<Vec<&RawValue>>(raw)?.into_iter();
            let values = values.filter_map(|value| kept(value.get(), tokens, deeper));
            to_raw_value(&values.collect::<Vec<_>>()).ok()
        }
        b'"' if holds(&parsed::<Cow<'_, str>>(raw)?, tokens) => to_raw_value(REDACTED).ok(),
        _ => parsed(raw),
    }
}

fn parsed<'a, T: Deserialize<'a>>(raw: &'a str) -> Option<T> {
    serde_json::from_str(raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(body: &[u8]) -> String {
        String::from_utf8(without_token(body, Some("of_the_header"))).expect("UTF-8")
    }

    #[test]
    fn a_refused_body_is_kept_without_its_token() {
        assert_eq!(
            kept(br#"{"tsid":"secret1234","sid":"secret1234","dest":25319273918273981273987129837}"#),
            r#"{"dest":25319273918273981273987129837}"#
        );
        assert_eq!(kept(br#"{"\u0074sid":"secret1234"}"#), "{}");
        assert_eq!(kept(br#"{"tsid":"a","tsid":"secret1234"}"#), "{}");
        assert_eq!(
            kept(br#"{"TSID":"secret1234","dest":null,"x":[1.50,true]}"#),
            r#"{"dest":null,"x":[1.50,true]}"#
        );
    }

    #[test]
    fn a_token_is_left_out_under_another_name_and_inside_of_a_value_too() {
        assert_eq!(
            kept(
                br#"{"tsid":"secret1234","token":"secret1234","a":{"sid":"x","b":["Bearer secret1234",7]}}"#
            ),
            r#"{"a":{"b":["[redacted]",7]},"token":"[redacted]"}"#
        );
        assert_eq!(kept(br#"{"auth":"of_the_header","of_the_header":1}"#), r#"{"auth":"[redacted]"}"#);
        assert_eq!(kept(br#"{"auth":"of_the\u005fheader"}"#), r#"{"auth":"[redacted]"}"#, "escaped");
        assert_eq!(kept(br#"{"tsid":"","dest":"1"}"#), r#"{"dest":"1"}"#, "no token is no text to look for");
        let nested = format!(r#"{{"x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(kept(nested.as_bytes()), r#"{"x":[[[]]]}"#, "what is too deep to look into is left out");
    }

    #[test]
    fn a_body_that_cannot_be_read_is_kept_only_if_no_token_can_stand_in_it() {
        assert_eq!(kept(b"hello"), "hello");
        for unreadable in [
            &b"tsid=secret1234&dest=1"[..],
            br#"{"TSID":"secret1234""#,
            br#"{"\u0074s\u0069d":"s""#,
            b"auth=of_the_header",
            b"\xff\xfesecret1234",
        ] {
            assert_eq!(kept(unreadable), "", "{}", String::from_utf8_lossy(unreadable));
        }
    }
}
