//! The send endpoints over HTTP, one a channel (contract: "HTTP: the two send endpoints").
//!
//! Never here: a log line with a query, a body or a header, which hold tokens and texts.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::super::body::BodyType;
use super::super::parameters::Parameters;
use super::super::pipeline::RequestHeaders;
use super::super::validate::MAX_WAIT;
use super::super::{Ingest, LONGEST_BODY};
use crate::channel::Class;
use crate::domain::{Outcome, Status};
use crate::edge::http::{bearer, content_encoding, drain, json, refused, single};
use crate::edge::{Caller, Envelope, Refusal, Refused};
use crate::text::trimmed;

/// A body that is incomplete after this time is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The outcome of a request, and the notes to its sender.
struct Submitted {
    outcome: Outcome,
    detail: Option<String>,
}

/// Answer a request to send over this class.
pub async fn answer(ingest: &Ingest, class: Class, request: Request) -> Response {
    match submit(ingest, class, request).await {
        Ok(Submitted { outcome, detail }) => {
            let is_failure = matches!(outcome.status, Status::Error | Status::Cancelled);
            let status = if is_failure { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            json(status, &Envelope::of(&outcome).with_detail(detail.as_deref()))
        }
        Err(reason) => refused(reason),
    }
}

async fn submit(ingest: &Ingest, class: Class, request: Request) -> Result<Submitted, Refused> {
    let (head, body) = request.into_parts();
    let caller = Caller::of(&head.extensions, &head.headers);
    let query = head.uri.query().unwrap_or_default();
    let parameters = read(&head, query, body).await.map_err(|reason| {
        // An address that is shut out was let through for the sake of a token in the body.
        let bearer = || bearer(&head.headers);
        ingest.directory.shut_out(&caller, query, bearer, false).map_or(reason, Refused::from)
    })?;
    let outcome = ingest.submit(class, &parameters, from_headers(&head.headers), &caller).await?;
    let note = parameters.detail();
    let told: Vec<&str> = outcome.reason().into_iter().chain(note.as_deref()).collect();
    let detail = (!told.is_empty()).then(|| told.join(" "));
    Ok(Submitted { outcome, detail })
}

/// Read the parameters of a request.
async fn read(head: &Parts, query: &str, body: Body) -> Result<Parameters, Refused> {
    let awaits_permission = head.headers.contains_key(header::EXPECT);
    if declared_length(&head.headers) > LONGEST_BODY as u64 {
        // A client that asked first has sent nothing yet, and need not.
        if !awaits_permission {
            drain(body).await;
        }
        return Err(Refusal::TooLarge.into());
    }
    let body = read_body(body).await?;
    Parameters::read(query, &body_type(&head.headers), &body)
}

fn from_headers(headers: &HeaderMap) -> RequestHeaders {
    let text = |key: &HeaderValue| trimmed(str::from_utf8(key.as_bytes()).unwrap_or_default()).to_owned();
    let key = single(headers, IDEMPOTENCY_KEY, several_keys);
    RequestHeaders {
        bearer: bearer(headers),
        prefer_wait: prefer_wait(headers),
        idempotency_key: key.map(|key| key.map(text)).transpose(),
    }
}

fn several_keys() -> Refused {
    Refused::parameter("Idempotency-Key", "The request has several headers Idempotency-Key: send one key")
}

fn declared_length(headers: &HeaderMap) -> u64 {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

async fn read_body(mut body: Body) -> Result<Bytes, Refused> {
    let mut limited = Limited::new(&mut body, LONGEST_BODY);
    match tokio::time::timeout(BODY_TIMEOUT, (&mut limited).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(body).await;
            Err(Refusal::TooLarge.into())
        }
        Ok(Err(_)) => Err(Refused::malformed("The body broke off before its end: send the request again")),
        Err(_) => Err(Refused::malformed("The body was not complete after 15 seconds: send it faster")),
    }
}

fn body_type(headers: &HeaderMap) -> BodyType {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type =
        content_type.map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    match content_encoding(headers) {
        Ok(coding) => BodyType::of(&content_type, &coding),
        Err(refused) => BodyType::Unread(refused),
    }
}

/// Return N of `Prefer: wait=N` (RFC 7240); the first one counts, and a longer wait is cut to the longest.
pub fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| {
            let preference = preference.split(';').next()?;
            let (name, value) = preference.split_once('=')?;
            let value = value.trim().trim_matches('"');
            let is_wait = name.trim().eq_ignore_ascii_case("wait");
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            (is_wait && is_number).then(|| value.parse().map_or(MAX_WAIT, Duration::from_secs).min(MAX_WAIT))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn different_keys_are_refused_and_repeated_ones_are_one() {
        let key = |values: &[&str]| from_headers(&headers(IDEMPOTENCY_KEY, values)).idempotency_key;
        assert_eq!(key(&[]), None);
        assert_eq!(key(&[" a "]), Some(Ok("a".to_owned())));
        assert_eq!(key(&["a", "a"]), Some(Ok("a".to_owned())));
        assert_eq!(key(&["a", "b"]), Some(Err(several_keys())));
    }

    #[test]
    fn different_codings_are_not_read() {
        let of = |values: &[&str]| body_type(&headers("content-encoding", values));
        assert_eq!(of(&["identity", "identity"]), of(&[]));
        assert!(matches!(of(&["identity", "gzip"]), BodyType::Unread(refused) if refused.code() == 400));
    }

    #[test]
    fn prefer_wait_follows_rfc_7240() {
        let wait = |values: &[&str]| prefer_wait(&headers("prefer", values)).map(|wait| wait.as_secs());
        assert_eq!(wait(&["wait=10"]), Some(10));
        assert_eq!(wait(&["respond-async, WAIT=\"7\""]), Some(7));
        assert_eq!(wait(&["handling=lenient", "wait = 5; x=y"]), Some(5));
        assert_eq!(wait(&["wait=31"]), Some(30));
        assert_eq!(wait(&["wait=99999999999999999999999"]), Some(30));
        assert_eq!(wait(&["wait=0"]), Some(0));
        for none in ["", "wait", "wait=-1", "wait=soon", "waiting=5"] {
            assert_eq!(wait(&[none]), None, "{none}");
        }
    }
}
