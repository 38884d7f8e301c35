//! Connections, and the path of one call: read → decide and record under one lock → wait → answer or hang up.
//!
//! The simulator drives the connections itself: only the owner of a connection can close it in place of an
//! answer, as the outcomes `cut` and `truncated` demand.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::answer::{self, AnswerBody, AnswerWriter, HangUp};
use super::control;
use super::journal::{Arrival, RecordedCall};
use super::outcome::{self, PlayedAnswer};
use super::request;
use super::shared::{InFlight, Shared};

/// The largest body read; the contract's calls are far smaller.
const MAX_BODY: usize = 64 * 1024;
/// The delay of [`PlayedAnswer::Slow`].
const SLOW: Duration = Duration::from_secs(2);
/// The pause after a failed accept (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accept connections until the stop; each is a task of the tracker and ends with it.
pub(super) async fn accept(
    listener: TcpListener,
    shared: Shared,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(stop.clone().run_until_cancelled_owned(serve(stream, shared.clone())));
            }
            Err(error) => {
                warn!(%error, "simulator cannot accept a connection: retrying");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Shared) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "the connection is gone already");
        return;
    }
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { shared.answer(request).await }
    });
    // An error is a client that went away, or a connection closed on purpose.
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "connection ended");
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, HangUp> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if path.starts_with(control::PREFIX) {
            return Ok(control::answer(self, &head));
        }
        if head.method != Method::POST || !path.ends_with("/me/messages") {
            let answers = self.answers(0, "", None);
            return Ok(answers.error(&outcome::UNKNOWN_PATH));
        }
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => self.send(&head, body.to_bytes()).await,
            Err(error) if error.is::<LengthLimitError>() => {
                Ok(answer::gateway_page(StatusCode::PAYLOAD_TOO_LARGE))
            }
            Err(_) => Err(HangUp),
        }
    }

    /// Answer a call of `me/messages` whose request was read whole.
    async fn send(&self, head: &Parts, body: Bytes) -> Result<Response<AnswerBody>, HangUp> {
        let received = Instant::now();
        let _in_flight = InFlight::enter(self);
        let (tag, asked) = self.read(head, &body);
        let taken = self.journal().take(Arrival {
            received,
            tag: &tag,
            body: &body,
            asked: match &asked {
                Ok(dest) => Ok((dest, outcome::choose(dest))),
                Err((label, error)) => Err((*label, *error)),
            },
        });
        self.wait(taken.reply).await;
        let dest = asked.as_deref().unwrap_or_default();
        self.reply(taken, &tag, dest).await
    }

    /// Return the token's tag, and the recipient or the reason why Graph refuses the call.
    fn read<'a>(
        &self,
        head: &Parts,
        body: &'a [u8],
    ) -> (String, Result<Cow<'a, str>, (&'static str, outcome::PlayedError)>) {
        let token = match request::bearer(&head.headers) {
            Ok(token) => token,
            Err(error) => return (String::new(), Err(("no token", error))),
        };
        let query = head.uri.query().unwrap_or_default();
        let secret = self.options().app_secret.as_ref();
        let asked = request::recipient(&head.headers, query, token, secret, body);
        (request::token_tag(token), asked.map_err(|error| ("refused", error)))
    }

    async fn wait(&self, reply: PlayedAnswer) {
        let (latency, jitter) = self.latency();
        let mut wait = latency;
        if !jitter.is_zero() {
            wait += rand::random_range(Duration::ZERO..=jitter);
        }
        if reply == PlayedAnswer::Slow {
            wait += SLOW;
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    async fn reply(
        &self,
        taken: RecordedCall,
        tag: &str,
        dest: &str,
    ) -> Result<Response<AnswerBody>, HangUp> {
        let answers = self.answers(taken.seq, tag, taken.usage);
        match taken.reply {
            PlayedAnswer::Sent | PlayedAnswer::Slow => Ok(answers.sent(dest)),
            PlayedAnswer::Error(error) => Ok(answers.error(&error)),
            PlayedAnswer::Gateway(status) => Ok(answer::gateway_page(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            )),
            PlayedAnswer::Html => Ok(answer::gateway_page(StatusCode::OK)),
            PlayedAnswer::Empty => Ok(answer::empty()),
            PlayedAnswer::NoId => Ok(answers.without_id(dest)),
            PlayedAnswer::Truncated => Ok(answers.truncated(dest)),
            PlayedAnswer::Timeout => std::future::pending().await,
            PlayedAnswer::Cut => Err(HangUp),
        }
    }

    fn answers<'a>(&self, seq: u64, tag: &'a str, usage: Option<u32>) -> AnswerWriter<'a> {
        AnswerWriter { run: self.run(), seq, tag, usage, regain_minutes: self.options().regain_minutes }
    }
}
