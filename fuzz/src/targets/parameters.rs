//! The parameters of a message: a form, JSON or a multipart body as they come, and the same pairs in every encoding.
//!
//! Properties: an accepted message is in the ranges of the contract, whatever its encoding; the same pairs make the same
//! message, the same refusal and the same meaning of an idempotency key in every encoding.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::fuzzing::{BodyType, CheckedMessage, LISTED, Parameters, check, request_hash, wait};
use meta_dispatch::text::{Charset, form_pairs, is_unseen, trimmed};
use time::OffsetDateTime;

use super::encodings::{self, Pair};
use crate::shape::note;

pub const WORDS: &[&str] = &[
    "tsid=",
    "&sid=",
    "&app_id=7",
    "&v8l_id=7",
    "&dest=253",
    "&mdata=Hi",
    "&mtype=image",
    "&mtype=document",
    "&mcaption=",
    "&msg_id=",
    "&cp_id=",
    "&priority=bulk",
    "&wait=30",
    "&httpdup=600",
    "&send_at=",
    "&valid_for=",
    "&class=instagram",
    "https://example.org/a.png",
    "https:\\\\e.com?://",
    "2026-12-01T09:00:00-03:00",
    "1970-01-01T00:00:00Z",
    "%EF%BB%BF",
    "%C2%A0",
    "%E2%80%8B",
    "%C2%85",
    "%00",
    "%F0%9F%98%80",
    "{\"dest\":\"253\"}",
    "{\"app_id\":7,\"dest\":\"253\",\"mdata\":\"Hi\"}",
    "\" dest\":",
    "null",
    "2.53E+16",
    "31536001",
    "--x\r\nContent-Disposition: form-data; name=\"dest\"\r\n\r\n253\r\n",
    "--x--\r\n",
    "=\"253\"",
];

/// Pairs beyond these are left out: each is written in every encoding.
const MOST_PAIRS: usize = 40;
const LONGEST_AHEAD: i64 = 366 * 86_400;

pub fn target(input: &[u8]) {
    for body_type in body_types() {
        match Parameters::read("", &body_type, input) {
            Ok(parameters) => are_in_range(&parameters),
            Err(refused) => assert_eq!(refused.code(), 400, "{refused:?}"),
        }
    }
    let query = String::from_utf8_lossy(input);
    let pairs = form_pairs(query.as_bytes(), Charset::Utf8).map(|(name, value)| (name, value.text));
    let pairs: Vec<Pair> = pairs
        .filter(|(name, _)| LISTED.contains(&trimmed(name)))
        .map(|(name, text)| Pair { name, text })
        .take(MOST_PAIRS)
        .collect();
    if !pairs.is_empty() {
        mean_the_same_in_every_encoding(&pairs);
    }
}

fn body_types() -> Vec<BodyType> {
    let multipart = |charset| BodyType::Multipart { boundary: "x".to_owned(), charset };
    vec![
        BodyType::Form(Charset::Utf8),
        BodyType::Form(Charset::Windows1252),
        BodyType::Form(Charset::Utf16Le),
        BodyType::Json(Charset::Utf8),
        BodyType::Json(Charset::Windows1252),
        multipart(Charset::Utf8),
        multipart(Charset::Windows1252),
    ]
}

fn are_in_range(parameters: &Parameters) {
    assert!(wait(parameters).is_none_or(|wait| wait <= Duration::from_secs(30)));
    for class in Class::ALL {
        match check(parameters, *class) {
            Ok(message) => is_in_range(&message, *class),
            Err(refused) => {
                note(refused.status());
                assert!((210..=238).contains(&refused.code()), "{refused:?}");
            }
        }
    }
}

fn is_in_range(message: &CheckedMessage, class: Class) {
    note((class.as_str(), message.kind.as_str(), message.lane.as_str()));
    note((message.mcaption.is_some(), message.msg_id.is_some(), message.cp_id.is_some()));
    note((message.httpdup.is_some(), message.send_at.is_some(), message.valid_for.is_some()));
    assert!(message.line.0 > 0);
    is_trimmed(&message.dest, 128);
    let breaks_an_id = |c: char| is_unseen(c) || c.is_control() || matches!(c, ',' | '=' | '"' | '\'');
    assert!(!message.dest.contains(breaks_an_id), "{:?}", message.dest);
    assert!(class.supports(message.kind));
    mdata_is_in_range(&message.mdata, message.kind, class);
    if let Some(mcaption) = &message.mcaption {
        is_text(mcaption, 2_000);
    }
    if let Some(msg_id) = &message.msg_id {
        is_trimmed(msg_id, 255);
    }
    if let Some(cp_id) = &message.cp_id {
        is_trimmed(cp_id, 128);
        assert!(!cp_id.contains(char::is_control), "{cp_id:?}");
    }
    let seconds = |length: Duration| length.as_secs();
    assert!(message.httpdup.is_none_or(|length| (1..=600).contains(&seconds(length))));
    assert!(message.valid_for.is_none_or(|length| (1..=LONGEST_AHEAD as u64).contains(&seconds(length))));
    let latest = OffsetDateTime::now_utc() + time::Duration::seconds(LONGEST_AHEAD);
    assert!(message.send_at.is_none_or(|at| at.year() >= 1970 && at <= latest), "{:?}", message.send_at);
}

/// A text that is not blank, holds neither NUL nor a C1 control character, and is no longer.
fn is_text(text: &str, most_chars: usize) {
    assert!(!trimmed(text).is_empty());
    assert!(!text.contains(|c: char| c == '\0' || ('\u{80}'..='\u{9f}').contains(&c)), "{text:?}");
    assert!(text.chars().count() <= most_chars, "{} characters", text.chars().count());
}

fn is_trimmed(text: &str, most_chars: usize) {
    is_text(text, most_chars);
    let (first, last) = (text.chars().next(), text.chars().next_back());
    for edge in [first, last].into_iter().flatten() {
        assert!(!is_unseen(edge) && !edge.is_whitespace(), "{text:?}");
    }
}

fn mdata_is_in_range(mdata: &str, kind: MessageKind, class: Class) {
    is_text(mdata, usize::MAX);
    match (kind, class.as_str()) {
        (MessageKind::Text, "messenger") => assert!(mdata.chars().count() <= 2_000),
        (MessageKind::Text, "instagram") => assert!(mdata.len() <= 1_000),
        (MessageKind::Text, other) => panic!("the limit of {other} is not known here"),
        _ => {
            let scheme = mdata.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
            assert!(matches!(scheme.as_deref(), Some("http" | "https")), "{mdata:?}");
            assert!(url::Url::parse(mdata).is_ok_and(|url| url.has_host()), "{mdata:?}");
            assert!(!mdata.contains(|c: char| c.is_control() || c.is_whitespace()), "{mdata:?}");
        }
    }
}

fn mean_the_same_in_every_encoding(pairs: &[Pair]) {
    let query = encodings::form(pairs);
    let expected = meaning(&Parameters::of_query(&query));
    let of_body = |body_type: BodyType, body: &str| {
        meaning(&Parameters::read("", &body_type, body.as_bytes()).expect("the body is well formed"))
    };
    assert_eq!(of_body(BodyType::Form(Charset::Utf8), &query), expected, "form: {query}");
    for numbers in [false, true] {
        let json = encodings::json(pairs, numbers);
        assert_eq!(of_body(BodyType::Json(Charset::Utf8), &json), expected, "JSON: {json}");
    }
    if let Some((boundary, body)) = encodings::multipart(pairs) {
        let body_type = BodyType::Multipart { boundary, charset: Charset::Utf8 };
        assert_eq!(of_body(body_type, &body), expected, "multipart: {body}");
    }
    // The alias counts in its own place: one in the body is not behind a blank name in the query.
    if pairs.iter().all(|pair| trimmed(&pair.name) != "v8l_id") {
        let (body, query) = pairs.split_at(pairs.len() / 2);
        let (body, query) = (encodings::form(body), encodings::form(query));
        let read = Parameters::read(&query, &BodyType::Form(Charset::Utf8), body.as_bytes());
        assert_eq!(meaning(&read.expect("a form")), expected, "{body} and {query}");
    }
    let checked: Vec<_> = expected.into_iter().map(|(_, checked)| checked).collect();
    for (format, file) in encodings::files(pairs) {
        let records = encodings::records_of(format, file.as_bytes());
        let [Ok(line)] = &records[..] else { panic!("{file:?} is one line: {records:?}") };
        let of_line: Vec<_> = meaning(line).into_iter().map(|(_, checked)| checked).collect();
        assert_eq!(of_line, checked, "{format:?}: {file}");
    }
}

type Checked = Result<CheckedMessage, meta_dispatch::edge::Refused>;

/// Return the meaning of an idempotency key, and the message or the refusal, for each class.
fn meaning(parameters: &Parameters) -> Vec<(Vec<u8>, Checked)> {
    let of = |class: &Class| (request_hash(*class, parameters), check(parameters, *class));
    Class::ALL.iter().map(of).collect()
}
