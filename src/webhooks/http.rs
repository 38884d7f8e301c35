//! `GET` and `POST /webhooks/meta` on the listener of senders, for Meta: no account, and no gate, as a wrong signature is no
//! guess of a token. The module that serves the route also documents it.
//!
//! Bodies that arrive share a bound of memory. Never here: a log line with a query or a body, which hold tokens and texts.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::apps::{Apps, KnownSecrets};
use super::keep::Keeper;
use super::notice::Notice;
use super::signature::{self, Signature};
use super::verify::Verification;
use crate::broker::Webhook;
use crate::edge::http::drain;
use crate::metrics::{METRICS, WebhookResult};

/// The longest body. Meta bundles up to 1,000 events of some hundred bytes; a long text in a few of them fits as well.
pub const LONGEST_BODY: usize = 8 << 20;
/// Bytes of all bodies that are in hand at the same time.
const MEMORY: usize = 128 << 20;
/// A body that is incomplete after this time is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// The signature of a longer body is computed beside the threads that serve requests.
const LONG_BODY: usize = 256 * 1024;
/// Seconds after which Meta may repeat a request that was not kept. Meta has times of its own.
const RETRY_AFTER: u16 = 10;

/// The state of the route.
pub struct Door {
    /// `None`: webhooks are off.
    open: Option<OpenDoor>,
}

struct OpenDoor {
    apps: Arc<Apps>,
    keeper: Keeper,
    memory: Arc<Semaphore>,
    unsigned: Notice,
}

/// The reason why a request is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Off,
    Unsigned,
    TooLarge,
    BrokenOff,
    Unavailable,
}

/// A body whose memory is counted as long as it is in hand.
struct HeldBody {
    bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Door {
    /// Create the state of a process that takes webhooks in.
    pub fn open(apps: Arc<Apps>, keeper: Keeper) -> Door {
        let memory = Arc::new(Semaphore::new(MEMORY));
        Door { open: Some(OpenDoor { apps, keeper, memory, unsigned: Notice::default() }) }
    }

    /// Create the state of a process whose webhooks are off: every request is 404.
    pub fn shut() -> Door {
        Door { open: None }
    }
}

/// Return the routes, each with its part of the document.
pub fn routes() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::new()
        .routes(routes!(verify, receive))
        .layer(CatchPanicLayer::custom(|_| Refused::Unavailable.into_response()))
}

/// Return a router of the same routes with their state.
pub fn router(door: Door) -> Router {
    routes().with_state(Arc::new(door)).into()
}

/// Answer Meta's verification of the webhook
///
/// Meta asks when an operator saves the URL in the app's dashboard. The answer is the challenge. No account token is needed.
#[utoipa::path(
    get,
    path = "/webhooks/meta",
    operation_id = "verifyWebhook",
    security(()),
    params(
        ("hub.mode" = String, Query, description = "Always `subscribe`", example = "subscribe"),
        (
            "hub.verify_token" = String, Query,
            description = "The value of `webhooks.verify_token`, or the verify token of an app", example = "a-verify-token"
        ),
        ("hub.challenge" = String, Query, description = "Text that Meta expects back", example = "1158201444"),
    ),
    responses(
        (status = 200, description = "The challenge", body = String, content_type = "text/plain", examples(
            ("verified" = (summary = "The token is right", value = json!("1158201444"))),
        )),
        (status = 403, description = "No verification, or another verify token"),
        (status = 404, description = "Webhooks are off: `webhooks.verify_token` is not set"),
        (status = 503, description = "The apps could not be read"),
    ),
)]
async fn verify(State(door): State<Arc<Door>>, head: Parts) -> Response {
    match verified(&door, head.uri.query().unwrap_or_default()).await {
        Ok(challenge) => {
            METRICS.webhooks.verified.increment(1);
            let plain = HeaderValue::from_static("text/plain");
            ([(header::CONTENT_TYPE, plain)], challenge).into_response()
        }
        Err(Refused::Off) => Refused::Off.into_response(),
        Err(reason) => {
            METRICS.webhooks.not_verified.increment(1);
            reason.into_response()
        }
    }
}

/// Return the challenge of a verification, if its token is one of an app.
async fn verified(door: &Door, query: &str) -> Result<String, Refused> {
    let door = door.open.as_ref().ok_or(Refused::Off)?;
    let verification = Verification::of(query).ok_or(Refused::Unsigned)?;
    let is_known = match verification.is_of_one(&door.apps.known()) {
        true => true,
        false => {
            let secrets = door.apps.look_again().await.map_err(|_| Refused::Unavailable)?;
            verification.is_of_one(&secrets)
        }
    };
    match is_known {
        true => {
            tracing::info!("webhook verified by Meta");
            Ok(verification.challenge)
        }
        false => {
            tracing::warn!(
                "webhook not verified: the verify token differs; set the same one in Meta's dashboard and in \
                 webhooks.verify_token, or with `app add`"
            );
            Err(Refused::Unsigned)
        }
    }
}

/// Take Meta's events in
///
/// The body is kept as it is, and applied afterwards: 200 means that it is durable. No account token is needed; the
/// signature is that of an app.
#[utoipa::path(
    post,
    path = "/webhooks/meta",
    operation_id = "receiveWebhook",
    security(()),
    params(
        (
            "X-Hub-Signature-256" = Option<String>, Header,
            description = "`sha256=` and the HMAC-SHA-256 of the raw body under the app's secret, in hexadecimal digits"
        ),
    ),
    request_body(content(
        (serde_json::Value = "application/json", examples(
            ("read" = (summary = "A message was read", value = json!({
                "object": "page",
                "entry": [{
                    "id": "1234567890",
                    "time": 1_795_968_000_000_i64,
                    "messaging": [{
                        "sender": {"id": "2531927391"},
                        "recipient": {"id": "1234567890"},
                        "timestamp": 1_795_967_999_000_i64,
                        "read": {"watermark": 1_795_967_999_000_i64},
                    }],
                }],
            }))),
        )),
    )),
    responses(
        (status = 200, description = "The events are durable"),
        (status = 403, description = "No signature of an app"),
        (status = 404, description = "Webhooks are off: `webhooks.verify_token` is not set"),
        (status = 408, description = "The body did not arrive within 15 seconds"),
        (status = 413, description = "The body is over 8 MiB"),
        (
            status = 503, description = "The events could not be kept, and Meta repeats them",
            headers(("Retry-After" = i32, description = "Seconds until the next try")),
        ),
    ),
)]
async fn receive(State(door): State<Arc<Door>>, request: Request) -> Response {
    let Some(door) = &door.open else {
        return Refused::Off.into_response();
    };
    let (head, body) = request.into_parts();
    let (object, kept) = door.take_in(&head, body).await;
    let result = match kept {
        Ok(()) => WebhookResult::Kept,
        Err(Refused::TooLarge) => WebhookResult::TooLarge,
        Err(Refused::BrokenOff) => WebhookResult::BrokenOff,
        Err(Refused::Unavailable) => WebhookResult::Unavailable,
        Err(Refused::Unsigned | Refused::Off) => WebhookResult::Unsigned,
    };
    METRICS.webhooks.received(object, result);
    match kept {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => reason.into_response(),
    }
}

impl OpenDoor {
    /// Keep a request's body, if it is signed. Return the kind of its events too, as far as it was read.
    async fn take_in(&self, head: &Parts, body: Body) -> (&'static str, Result<(), Refused>) {
        const UNREAD: &str = "other";
        let declared = head.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
        let signature =
            Signature::of(head.headers.get_all(signature::HEADER).iter().map(HeaderValue::as_bytes));
        let Some(signature) = signature else {
            drain(body).await;
            self.tell_unsigned();
            return (UNREAD, Err(Refused::Unsigned));
        };
        if declared > LONGEST_BODY as u64 {
            drain(body).await;
            return (UNREAD, Err(Refused::TooLarge));
        }
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(reason) => return (UNREAD, Err(reason)),
        };
        let app = match self.signer(signature, &body.bytes).await {
            Ok(app) => app,
            Err(reason) => return (UNREAD, Err(reason)),
        };
        let object = object(&body.bytes);
        let received_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let webhook = Webhook { body: body.bytes.clone(), object, app, received_at };
        match self.keeper.keep(webhook).await {
            true => (object, Ok(())),
            false => (object, Err(Refused::Unavailable)),
        }
    }

    /// Read a body into memory that is counted. A sender that writes before it reads still receives its answer.
    async fn read(&self, mut body: Body) -> Result<HeldBody, Refused> {
        match timeout(BODY_TIMEOUT, self.collect(&mut body)).await {
            Ok(Err(Refused::TooLarge)) => {
                drain(body).await;
                Err(Refused::TooLarge)
            }
            Ok(read) => read,
            Err(_) => Err(Refused::BrokenOff),
        }
    }

    async fn collect(&self, body: &mut Body) -> Result<HeldBody, Refused> {
        let mut bytes = BytesMut::new();
        let mut memory: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refused::BrokenOff)?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > LONGEST_BODY {
                return Err(Refused::TooLarge);
            }
            // The length is below that of the longest body.
            let permit = self.memory.clone().try_acquire_many_owned(data.len() as u32);
            let permit = permit.map_err(|_| Refused::Unavailable)?;
            match &mut memory {
                Some(memory) => memory.merge(permit),
                None => memory = Some(permit),
            }
            bytes.extend_from_slice(&data);
        }
        Ok(HeldBody { bytes: bytes.freeze(), _memory: memory })
    }

    /// Return the app that has signed the body; `None` is that of the settings.
    async fn signer(&self, signature: Signature, body: &Bytes) -> Result<Option<String>, Refused> {
        if let Some(app) = signer(signature, body, self.apps.known()).await {
            return Ok(app);
        }
        // An app that was added a moment ago, or while the database was away.
        let secrets = self.apps.look_again().await.map_err(|_| Refused::Unavailable)?;
        let app = signer(signature, body, secrets).await;
        app.ok_or_else(|| {
            self.tell_unsigned();
            Refused::Unsigned
        })
    }

    fn tell_unsigned(&self) {
        if self.unsigned.is_due() {
            tracing::warn!(
                "webhook without a good signature: refused with 403; set graph.app_secret, or the app's secret with `app add`, \
                 to the one in Meta's dashboard; other senders than Meta are refused rightly"
            );
        }
    }
}

/// Return the app that has signed the body, if one has.
async fn signer(signature: Signature, body: &Bytes, secrets: KnownSecrets) -> Option<Option<String>> {
    if body.len() <= LONG_BODY {
        return signature.signer(body, &secrets).map(|app| app.id.clone());
    }
    let body = body.clone();
    let checked = spawn_blocking(move || signature.signer(&body, &secrets).map(|app| app.id.clone()));
    checked.await.unwrap_or(None)
}

/// Return Meta's word for the kind of the events of a body.
fn object(body: &[u8]) -> &'static str {
    #[derive(Deserialize)]
    struct Head {
        object: String,
    }
    let head = serde_json::from_slice::<Head>(body);
    match head.as_ref().map(|head| head.object.as_str()) {
        Ok("page") => "page",
        Ok("instagram") => "instagram",
        _ => "other",
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Refused::Off => (StatusCode::NOT_FOUND, "Webhooks are off.\n"),
            Refused::Unsigned => {
                (StatusCode::FORBIDDEN, "No signature or verify token of a known app of Meta.\n")
            }
            Refused::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is over 8 MiB.\n"),
            Refused::BrokenOff => (StatusCode::REQUEST_TIMEOUT, "The body did not arrive whole.\n"),
            Refused::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "The events could not be kept: send them again.\n")
            }
        };
        let mut response = (status, text).into_response();
        if self == Refused::Unavailable {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_one_of_three_words() {
        assert_eq!(object(br#"{"entry":[],"object":"page"}"#), "page");
        assert_eq!(object(br#"{"object":"instagram"}"#), "instagram");
        for other in [&br#"{"object":"user"}"#[..], b"{\"object\":7}", b"[]", b"\xff", b""] {
            assert_eq!(object(other), "other");
        }
    }

    #[test]
    fn refusal_says_when_to_repeat() {
        let response = Refused::Unavailable.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "10");
        assert!(!Refused::Unsigned.into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
