//! The headers of a request, a line each: `name: value`.
//!
//! Properties: a bearer token is the trimmed text behind the scheme, never blank, and stands in the header; a wait that is
//! preferred is at most 30 seconds; a body of an unknown type or coding is refused by 400.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use meta_dispatch::edge::http::bearer;
use meta_dispatch::fuzzing::{BodyType, prefer_wait, submission_charset};
use meta_dispatch::text::trimmed;

use crate::shape::note;

pub const WORDS: &[&str] = &[
    "Authorization: ",
    "authorization: Bearer ",
    "bearer",
    "Basic ",
    "Prefer: ",
    "prefer: wait=",
    "WAIT=\"7\"",
    "respond-async, ",
    "; x=y",
    "Content-Type: ",
    "application/json",
    "application/vnd.api+json",
    "multipart/form-data; boundary=x",
    "boundary=",
    "charset=",
    "; charset=utf-16",
    "iso-8859-1",
    "Content-Encoding: ",
    "gzip",
    "identity",
    "99999999999999999999",
];

const MAX_WAIT: Duration = Duration::from_secs(30);

pub fn target(input: &[u8]) {
    let headers = headers(input);
    let value = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let token = bearer(&headers);
    note(token.is_some());
    if let Some(token) = token {
        let value = value("authorization").expect("the token stands in a header");
        assert!(!token.is_empty() && trimmed(&token) == token, "{token:?}");
        assert!(value.contains(&token), "{token:?} of {value:?}");
        assert!(trimmed(&value).to_ascii_lowercase().starts_with("bearer"), "{value:?}");
    }
    let wait = prefer_wait(&headers);
    note(wait.map(|wait| wait.is_zero()));
    if let Some(wait) = wait {
        let named = |value: &HeaderValue| {
            value.as_bytes().to_ascii_lowercase().windows(4).any(|word| word == b"wait")
        };
        assert!(wait <= MAX_WAIT && headers.get_all("prefer").iter().any(named), "{headers:?}");
    }
    let content_type = value("content-type").unwrap_or_default();
    let content_encoding = value("content-encoding").unwrap_or_default();
    match BodyType::of(&content_type, &content_encoding) {
        BodyType::Unread(refused) => assert_eq!(refused.code(), 400, "{refused:?}"),
        read => note(format!("{read:?}").split(' ').next()),
    }
    if let Err(refused) = submission_charset(&content_type, &content_encoding) {
        assert_eq!(refused.code(), 400, "{refused:?}");
    }
    token_comes_back(&String::from_utf8_lossy(input));
    wait_comes_back(input);
}

fn headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(50) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Any text that fits a header is the token behind its scheme.
fn token_comes_back(text: &str) {
    let Ok(value) = HeaderValue::from_bytes(format!("Bearer {text}").as_bytes()) else { return };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    let expected = Some(trimmed(text).to_owned()).filter(|token| !token.is_empty());
    assert_eq!(bearer(&headers), expected);
}

fn wait_comes_back(input: &[u8]) {
    let seconds = input.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    let value = HeaderValue::from_str(&format!("respond-async, wait={seconds}")).expect("printable");
    let headers = HeaderMap::from_iter([(HeaderName::from_static("prefer"), value)]);
    assert_eq!(prefer_wait(&headers), Some(Duration::from_secs(seconds).min(MAX_WAIT)));
}
