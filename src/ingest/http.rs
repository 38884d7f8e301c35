//! The two send endpoints (contract 2) over HTTP, and the routes. What serves a route documents it.
//!
//! Never logs a query, a body or a header: tokens and texts stand there.

mod batch;
pub mod documented;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::parameters::{BodyType, Parameters};
use super::refusal::Refusal;
use super::validate::MAX_WAIT;
use super::{Accepted, FromHeaders, Ingest, LONGEST_BODY};
use crate::message::{Class, Envelope, MessageId};
use crate::metrics::METRICS;
use documented::{
    Answers, BesideBody, FORM, INSTAGRAM_BODY, InQuery, Instagram, JSON, MESSENGER_BODY, Messenger,
};

/// A body that is not complete by then is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// What is read and thrown away of a body that is too long, so that its sender reads the answer.
const DRAINED: usize = 4 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The routes of submissions, each with what the document says of it.
pub fn routes() -> OpenApiRouter<Arc<Ingest>> {
    OpenApiRouter::with_openapi(documented::common())
        .routes(only_get_and_post(routes!(send_messenger, send_messenger_by_query)))
        .routes(only_get_and_post(routes!(send_instagram, send_instagram_by_query)))
        .routes(routes!(batch::batch))
        .layer(CatchPanicLayer::custom(|_| refused(Refusal::Unavailable)))
}

/// The same, served; any other path is 404.
pub fn router(ingest: Arc<Ingest>) -> Router {
    routes().with_state(ingest).into()
}

/// `HEAD` is no way to send: axum would answer it as `GET`.
fn only_get_and_post(documented: UtoipaMethodRouter<Arc<Ingest>>) -> UtoipaMethodRouter<Arc<Ingest>> {
    let not_allowed = async || (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, POST")]);
    documented.map(|methods| methods.head(not_allowed).fallback(not_allowed))
}

/// Send a Messenger message
#[utoipa::path(
    post,
    path = "/api/v2/MakeMessenger.php",
    operation_id = "sendMessenger",
    params(BesideBody<Messenger>),
    request_body(content(
        (ref(MESSENGER_BODY) = JSON, examples(
            ("text" = (summary = "A text", value = json!(documented::text::<Messenger>()))),
            ("image" = (summary = "An image", value = json!(documented::image::<Messenger>()))),
            ("campaign" = (summary = "A scheduled message of a campaign", value = json!(documented::later::<Messenger>()))),
        )),
        (ref(MESSENGER_BODY) = FORM, examples(
            ("text" = (summary = "A text", value = json!(documented::text::<Messenger>()))),
        )),
    )),
    responses(Answers<Messenger>),
)]
async fn send_messenger(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    answer(&ingest, Class::Messenger, request).await
}

/// Send a Messenger message with all parameters in the query
#[utoipa::path(
    get,
    path = "/api/v2/MakeMessenger.php",
    operation_id = "sendMessengerByQuery",
    params(InQuery<Messenger>),
    responses(Answers<Messenger>),
)]
async fn send_messenger_by_query(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    answer(&ingest, Class::Messenger, request).await
}

/// Send an Instagram message
#[utoipa::path(
    post,
    path = "/api/v2/MakeInstagram.php",
    operation_id = "sendInstagram",
    params(BesideBody<Instagram>),
    request_body(content(
        (ref(INSTAGRAM_BODY) = JSON, examples(
            ("text" = (summary = "A text", value = json!(documented::text::<Instagram>()))),
            ("image" = (summary = "An image", value = json!(documented::image::<Instagram>()))),
            ("campaign" = (summary = "A scheduled message of a campaign", value = json!(documented::later::<Instagram>()))),
        )),
        (ref(INSTAGRAM_BODY) = FORM, examples(
            ("text" = (summary = "A text", value = json!(documented::text::<Instagram>()))),
        )),
    )),
    responses(Answers<Instagram>),
)]
async fn send_instagram(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    answer(&ingest, Class::Instagram, request).await
}

/// Send an Instagram message with all parameters in the query
#[utoipa::path(
    get,
    path = "/api/v2/MakeInstagram.php",
    operation_id = "sendInstagramByQuery",
    params(InQuery<Instagram>),
    responses(Answers<Instagram>),
)]
async fn send_instagram_by_query(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    answer(&ingest, Class::Instagram, request).await
}

async fn answer(ingest: &Ingest, class: Class, request: Request) -> Response {
    match submit(ingest, class, request).await {
        Ok(accepted) => answered(&accepted),
        Err(refusal) => refused(refusal),
    }
}

async fn submit(ingest: &Ingest, class: Class, request: Request) -> Result<Accepted, Refusal> {
    let (head, body) = request.into_parts();
    let awaits_permission = head.headers.contains_key(header::EXPECT);
    if declared_length(&head.headers) > LONGEST_BODY as u64 {
        // A client that asked first has sent nothing yet, and need not.
        if !awaits_permission {
            drain(body).await;
        }
        return Err(Refusal::TooLarge);
    }
    let body = read_body(body).await?;
    let query = head.uri.query().unwrap_or_default();
    let parameters = Parameters::read(query, body_type(&head.headers), &body)?;
    ingest.submit(class, &parameters, from_headers(&head.headers)).await
}

fn from_headers(headers: &HeaderMap) -> FromHeaders {
    let key = headers.get("idempotency-key");
    FromHeaders {
        bearer: bearer(headers),
        prefer_wait: prefer_wait(headers),
        idempotency_key: key.map(|key| str::from_utf8(key.as_bytes()).unwrap_or_default().trim().to_owned()),
    }
}

fn declared_length(headers: &HeaderMap) -> u64 {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

async fn read_body(mut body: Body) -> Result<Bytes, Refusal> {
    let mut limited = Limited::new(&mut body, LONGEST_BODY);
    match tokio::time::timeout(BODY_TIMEOUT, (&mut limited).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(body).await;
            Err(Refusal::TooLarge)
        }
        Ok(Err(_)) | Err(_) => Err(Refusal::Malformed),
    }
}

/// Reads on for a moment, so that a client that writes before it reads gets its answer.
async fn drain(mut rest: Body) {
    let mut drained = 0;
    let reading = async {
        while drained < DRAINED
            && let Some(Ok(frame)) = rest.frame().await
        {
            drained += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whoever sends slowly or without end is cut off.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

fn body_type(headers: &HeaderMap) -> BodyType {
    let coded = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return if coded { BodyType::Other } else { BodyType::Form };
    };
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        _ if coded => BodyType::Other,
        "" | "application/x-www-form-urlencoded" => BodyType::Form,
        "application/json" => BodyType::Json,
        _ => BodyType::Other,
    }
}

/// `Authorization: Bearer <tsid>`; a blank token counts as none.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// `Prefer: wait=N` (RFC 7240); the first one counts, and more than the longest wait is taken as that.
fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
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

fn answered(accepted: &Accepted) -> Response {
    match accepted {
        Accepted::Queued(id) => envelope(200, "OK", 0, "", id.0),
        Accepted::Sent { id, http_status, message_id } => envelope(200, "OK", *http_status, message_id, id.0),
        Accepted::Failed { id, http_status } => envelope(400, "ERROR", *http_status, "", id.0),
        Accepted::Cancelled(id) => envelope(400, "CANCELLED", 0, "", id.0),
    }
}

/// The documented envelope of a refusal.
pub fn refused(refusal: Refusal) -> Response {
    METRICS.ingest.refused(refusal.code());
    let mut response = envelope(refusal.http_status(), &refusal.text(), refusal.code(), "", 0);
    if refusal == Refusal::Unavailable {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn envelope(http_status: u16, status: &str, status_code: i32, message_id: &str, cdls_id: i64) -> Response {
    let json = Envelope::new(status, status_code, message_id, MessageId(cdls_id)).to_json();
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = StatusCode::from_u16(http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
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
    fn a_preference_to_wait_is_read_as_rfc_7240_writes_it() {
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

    #[test]
    fn a_bodys_type_is_form_unless_it_says_otherwise() {
        let of = |value: &str| body_type(&headers("content-type", &[value]));
        assert_eq!(body_type(&HeaderMap::new()), BodyType::Form);
        assert_eq!(of("application/x-www-form-urlencoded; charset=ISO-8859-1"), BodyType::Form);
        assert_eq!(of("Application/JSON;charset=utf-8"), BodyType::Json);
        assert_eq!(of("text/plain"), BodyType::Other);
        assert_eq!(of("multipart/form-data; boundary=x"), BodyType::Other);
        assert_eq!(body_type(&headers("content-encoding", &["gzip"])), BodyType::Other);
        assert_eq!(body_type(&headers("content-encoding", &["identity"])), BodyType::Form);
    }

    #[test]
    fn a_bearer_token_is_taken_whatever_the_case_of_its_scheme() {
        let of = |value: &str| bearer(&headers("authorization", &[value]));
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("Bearer "), None);
        assert_eq!(of("abc"), None);
    }
}
