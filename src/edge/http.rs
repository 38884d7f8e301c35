//! The common parts of the HTTP interfaces for senders: the token of a request, the answer in JSON, and the
//! envelope of a refusal.
//!
//! Never here: a log line with a query, a body or a header, which hold tokens and texts.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Serialize;

use super::{Envelope, Refusal, Refused, shown};
use crate::metrics::METRICS;
use crate::text::{CHARSETS, Charset, trimmed};

/// How much of a body that is too long is read and discarded, to let its sender read the answer.
const MAX_DRAINED_BYTES: usize = 4 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

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
    if refused.refusal == Refusal::Unavailable {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Return a response with a JSON body.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let json = serde_json::to_vec(body).expect("answers are texts and numbers, which are always JSON");
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Mark every answer of a listener for senders: never stored, and never read as another type than its own.
pub fn unstored(router: Router) -> Router {
    router.layer(axum::middleware::map_response(mark_unstored))
}

async fn mark_unstored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
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
    fn charset_is_read_from_the_content_type() {
        assert_eq!(charset("text/csv"), Ok(Charset::Utf8));
        assert_eq!(charset("text/csv; header=present; Charset=\"ISO-8859-1\""), Ok(Charset::Windows1252));
        let refused = charset("text/csv;charset=klingon").expect_err("not read");
        assert_eq!(refused.code(), 400);
        assert!(refused.detail().contains("klingon"), "{}", refused.detail());
    }
}
