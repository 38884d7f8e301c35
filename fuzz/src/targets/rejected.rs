//! A refused submission on its way to `cdls.rejected`. The first line is the header `tsid`, the second holds message_id,
//! correlation_id, user_id and content_type between tabs, and the rest is the body.
//!
//! Properties: no token of the submission stands in what is kept, however JSON writes it; what is kept of the body are
//! values of the contract's names, and nothing of a sender who is not known.

use std::collections::BTreeMap;

use meta_dispatch::broker::{Rejected, Submitted, TokenHeader};
use meta_dispatch::edge::{Refusal, Refused};
use meta_dispatch::fuzzing::{LISTED, Parameters, rejected, submission_charset, token};
use meta_dispatch::text::{trimmed, without_c1};
use secrecy::ExposeSecret;
use serde_json::value::RawValue;

use crate::shape::{note, number_of};
use crate::source::first_line;

pub const WORDS: &[&str] = &[
    "secret1234",
    "1234567890",
    "\\u0073ecret1234",
    "secret\\u00851234",
    "{\"tsid\":\"secret1234\"",
    "\"sid\":",
    "\" tsid\":",
    "\"tsid\":1234567890",
    "\"mdata\":\"secret1234\"",
    "\"dest\":1234567890",
    "\"app_id\":",
    "null",
    "[\"secret1234\"]",
    "{\"sid\":\"secret1234\"}",
    "application/json; charset=iso-8859-1",
    "charset=utf-16le",
    "\t",
    "\n",
    "Bearer ",
    "abcdefghij0123456789ABCDEFGHIJ",
];

/// No account has a shorter token.
const SHORTEST_TOKEN: usize = 10;
const REDACTED: &str = "[redacted]";

pub fn target(input: &[u8]) {
    let submitted = submitted(input);
    let tokens = tokens(&submitted);
    let is_unauthenticated = number_of(input).is_multiple_of(4);
    let reasons: [Refused; 4] = [
        Refusal::NoDest.into(),
        Refused::name(submitted.message_id.as_deref().unwrap_or_default(), |name| {
            format!("`{name}` is unknown")
        }),
        Refused::parameter("dest", format!("`dest` is {:?}", submitted.correlation_id)),
        Refused::malformed(String::from_utf8_lossy(&submitted.body).into_owned()),
    ];
    let reason = &reasons[(number_of(input) / 4 % 4) as usize];
    note((tokens.len(), is_unauthenticated, submitted.body.is_empty()));
    let kept = rejected(submitted, reason, is_unauthenticated);
    for token in tokens.iter().filter(|token| is_no_word_of_ours(token, reason)) {
        holds_no_token(&kept, token);
    }
    if is_unauthenticated {
        assert!(kept.body.is_empty());
    } else if !kept.body.is_empty() {
        let names = fields(&kept.body).into_keys();
        names.for_each(|name| {
            assert!(LISTED.contains(&name.as_str()) && name != "tsid" && name != "sid", "{name}")
        });
    }
}

fn submitted(input: &[u8]) -> Submitted {
    let (header, rest) = first_line(input);
    let (properties, body) = first_line(rest);
    let properties = String::from_utf8_lossy(properties).into_owned();
    let mut properties =
        properties.split('\t').map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    let mut next = || properties.next().flatten();
    let header = String::from_utf8_lossy(header).into_owned();
    Submitted {
        message_id: next(),
        correlation_id: next(),
        user_id: next(),
        content_type: next(),
        content_encoding: None,
        routing_key: next().unwrap_or_else(|| "messenger".to_owned()),
        reply_to: None,
        body: body.to_vec(),
        body_bytes: body.len(),
        tsid: if header.trim().is_empty() { TokenHeader::Absent } else { TokenHeader::Text(header.into()) },
        version: 1,
        redelivered: false,
        delivery_tag: 1,
    }
}

/// Return the tokens that the submission was sent with: as the header gives one, and as the parameters do.
fn tokens(submitted: &Submitted) -> Vec<String> {
    let mut tokens = Vec::new();
    if let TokenHeader::Text(token) = &submitted.tsid {
        tokens.push(trimmed(&without_c1(token.expose_secret())).to_owned());
    }
    let charset = submission_charset(submitted.content_type.as_deref().unwrap_or_default(), "");
    let parameters = charset.and_then(|charset| Parameters::of_json(&submitted.body, charset));
    if let Ok(parameters) = parameters {
        tokens.extend(token(&parameters, None).ok().map(|token| token.expose_secret().to_owned()));
        tokens.extend(parameters.text("sid").map(str::to_owned));
    }
    tokens.retain(|token| token.chars().count() >= SHORTEST_TOKEN);
    tokens
}

/// Whether the text is in none of the sentences that are written anyway.
fn is_no_word_of_ours(token: &str, reason: &Refused) -> bool {
    !REDACTED.contains(token) && !reason.refusal.detail().contains(token)
}

fn holds_no_token(kept: &Rejected, token: &str) {
    let texts = [Some(&kept.status), Some(&kept.detail), Some(&kept.routing_key)];
    let properties = [kept.message_id.as_ref(), kept.correlation_id.as_ref(), kept.user_id.as_ref()];
    for text in texts.into_iter().chain(properties).flatten() {
        assert!(!without_c1(text).contains(token), "{token:?} stands in {text:?}");
    }
    if kept.body.is_empty() {
        return;
    }
    for (name, value) in fields(&kept.body) {
        let written = value.get();
        let text = serde_json::from_str::<String>(written).unwrap_or_else(|_| written.to_owned());
        assert!(!without_c1(&text).contains(token), "{token:?} stands in {name}: {written}");
    }
}

fn fields(body: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(body).expect("the kept body is a JSON object")
}
