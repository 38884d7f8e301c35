//! The common parts of the HTTP interfaces for senders: the token of a request, the answer in JSON, and the
//! envelope of a refusal.
//!
//! Never here: a log line with a query, a body or a header, which hold tokens and texts.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Serialize;

use super::{Envelope, Refused, shown};
use crate::metrics::METRICS;
use crate::text::{CHARSETS, Charset, trimmed};

/// How much of a body that is too long is read and discarded, to let its sender read the answer.
const MAX_DRAINED_BYTES: usize = 4 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Unused bytes of an answer's memory that are not given back.
const MAX_SPARE_BYTES: usize = 16 * 1024;

/// Return the token of `Authorization: Bearer <tsid>`; a blank token counts as none.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = str::from_utf8(headers.get(header::AUTHORIZATION)?.as_bytes()).ok()?;
    let (scheme, token) = trimmed(value).split_once(char::is_whitespace)?;
    let token = trimmed(token);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// Return a `Content-Type` without its parameters, in lower case.
pub fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Return the character encoding that a `Content-Type` names; refuse (400) an unsupported one.
pub fn charset(content_type: &str) -> Result<Charset, Refused> {
    let parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut labels = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let Some((_, label)) = labels.next() else { return Ok(Charset::default()) };
    Charset::of_label(label).ok_or_else(|| {
        Refused::malformed(format!("The charset {} is not read: send {CHARSETS}", shown(label.trim())))
    })
}

/// Return the value of a header that counts once: lines that repeat it are as good as one. Lines that differ
/// are refused, as another reader may have taken the other one.
pub fn single<'a>(
    headers: &'a HeaderMap,
    name: &str,
    differing: impl FnOnce() -> Refused,
) -> Result<Option<&'a HeaderValue>, Refused> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.all(|value| Some(value) == first) {
        true => Ok(first),
        false => Err(differing()),
    }
}

/// Return the value of `Content-Encoding`; empty where there is none.
pub fn content_encoding(headers: &HeaderMap) -> Result<Cow<'_, str>, Refused> {
    let several =
        || Refused::malformed("The request has several headers Content-Encoding: send one, or none");
    let value = single(headers, header::CONTENT_ENCODING.as_str(), several)?;
    Ok(value.map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes())))
}

/// Return the answer in JSON, or the refusal.
pub fn answer<T: Serialize, R: Into<Refused>>(found: Result<T, R>) -> Response {
    match found {
        Ok(found) => json(StatusCode::OK, &found),
        Err(refusal) => refused(refusal),
    }
}

/// Return the documented envelope of a refusal, and count it.
pub fn refused(refusal: impl Into<Refused>) -> Response {
    let refused = refusal.into();
    METRICS.ingest.refused(refused.code());
    let status = StatusCode::from_u16(refused.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &Envelope::refused(&refused, &refused.status()));
    if let Some(seconds) = refused.refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Return a response with a JSON body.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let mut json = serde_json::to_vec(body).expect("answers are texts and numbers, which are always JSON");
    // An answer waits for its reader: a large one does so without the room that its growth has left.
    if json.capacity() - json.len() > MAX_SPARE_BYTES {
        json.shrink_to_fit();
    }
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Read on for a moment: a client that writes before it reads still receives its answer.
pub async fn drain(mut rest: Body) {
    let mut drained = 0;
    let reading = async {
        while drained < MAX_DRAINED_BYTES
            && let Some(Ok(frame)) = rest.frame().await
        {
            drained += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // A sender that is slow or never ends is cut off.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
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
    fn bearer_scheme_ignores_case() {
        let of = |value: &str| bearer(&headers("authorization", &[value]));
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("Bearer "), None);
        assert_eq!(of("abc"), None);
    }

    #[test]
    fn token_in_a_header_is_trimmed() {
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", HeaderValue::from_bytes(value).expect("a header value"));
            bearer(&headers)
        };
        assert_eq!(of("Bearer \u{feff}abc\u{a0}".as_bytes()).as_deref(), Some("abc"));
        assert_eq!(of(b"Bearer\tabc").as_deref(), Some("abc"));
        assert_eq!(of(b"Bearer ab\xff"), None);
    }

    #[test]
    fn header_that_counts_once_may_be_repeated() {
        let several = || Refused::malformed("several");
        let of = |values: &[&str]| {
            let headers = headers("idempotency-key", values);
            single(&headers, "idempotency-key", several).map(|value| value.cloned())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["a", "a"]), Ok(Some(HeaderValue::from_static("a"))));
        assert_eq!(of(&["a", "b"]), Err(several()));
        assert_eq!(of(&["a", "a", "A"]), Err(several()));
    }

    #[test]
    fn content_encoding_is_refused_where_two_differ() {
        let of =
            |values: &[&str]| content_encoding(&headers("content-encoding", values)).map(Cow::into_owned);
        assert_eq!(of(&[]).as_deref(), Ok(""));
        assert_eq!(of(&["gzip"]).as_deref(), Ok("gzip"));
        assert_eq!(of(&["identity", "identity"]).as_deref(), Ok("identity"));
        assert!(of(&["identity", "gzip"]).is_err_and(|refused| refused.code() == 400));
    }

    #[test]
    fn charset_is_read_from_the_content_type() {
        assert_eq!(charset("text/csv"), Ok(Charset::Utf8));
        assert_eq!(charset("text/csv; header=present; Charset=\"ISO-8859-1\""), Ok(Charset::Windows1252));
        let refused = charset("text/csv;charset=klingon").expect_err("not read");
        assert_eq!(refused.code(), 400);
        assert!(refused.detail().contains("klingon"), "{}", refused.detail());
    }
}
