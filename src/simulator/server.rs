//! Connections, and the path of one call: read → decide and record under one lock → wait → answer or hang up.
//!
//! The simulator drives the connections itself: only the owner of a connection can close it in place of an
//! answer, as the outcomes `cut` and `truncated` demand.

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
use super::journal::{Arrival, Asked, RecordedCall};
use super::judge::JudgedCall;
use super::outcome::{self, PlayedAnswer};
use super::path::GraphPath;
use super::refusal::UNKNOWN_PATH;
use super::shared::{InFlight, Shared};

/// The largest body read; the contract's calls are far smaller.
const MAX_BODY: usize = 64 * 1024;
/// The largest body of a control call: the identities of some thousand tokens.
const MAX_CONTROL_BODY: usize = 4 * 1024 * 1024;
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
        let is_control = path.starts_with(control::PREFIX);
        let target = if is_control { None } else { GraphPath::read(path) };
        if target.is_none() && !is_control {
            return Ok(self.answers(0, "", None).error(&UNKNOWN_PATH));
        }
        let largest = if is_control { MAX_CONTROL_BODY } else { MAX_BODY };
        let body = match Limited::new(body, largest).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Ok(answer::gateway_page(StatusCode::PAYLOAD_TOO_LARGE));
            }
            Err(_) => return Err(HangUp),
        };
        match target {
            Some(GraphPath::Messages(id)) if head.method == Method::POST => self.send(&head, id, body).await,
            Some(target) => Ok(self.graph_call(target, &head, &body).await),
            None => Ok(control::answer(self, &head, &body).await),
        }
    }

    /// Answer a call of `{id}/messages` whose request was read whole.
    async fn send(&self, head: &Parts, id: &str, body: Bytes) -> Result<Response<AnswerBody>, HangUp> {
        let received = Instant::now();
        let _in_flight = InFlight::enter(self);
        let call = self.judge(head, id, &body);
        let taken = self.journal().take(Arrival {
            received,
            tag: &call.tag,
            body: &body,
            asked: match (&call.message, call.refusal) {
                (message, Some((label, error))) => {
                    let dest = message.as_ref().map_or("", |message| &*message.dest);
                    Asked::Refused { dest, label, error }
                }
                (Some(message), None) => Asked::Message(&message.dest, outcome::choose(&message.dest)),
                (None, None) => Asked::Refused { dest: "", label: "refused", error: UNKNOWN_PATH },
            },
        });
        if taken.delivered {
            self.tell(&call, taken.seq);
        }
        self.wait(taken.reply, call.fetch).await;
        self.reply(taken, &call).await
    }

    async fn wait(&self, reply: PlayedAnswer, fetch: Duration) {
        let (latency, jitter) = self.latency();
        let mut wait = latency + fetch;
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
        call: &JudgedCall<'_>,
    ) -> Result<Response<AnswerBody>, HangUp> {
        let answers = AnswerWriter {
            is_login: call.is_login,
            budget_headers: call.budget_headers.as_deref(),
            ..self.answers(taken.seq, &call.tag, taken.usage)
        };
        let dest = call.message.as_ref().map_or("", |message| &*message.dest);
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

    pub(super) fn answers<'a>(&self, seq: u64, tag: &'a str, usage: Option<u32>) -> AnswerWriter<'a> {
        AnswerWriter {
            run: self.run(),
            seq,
            tag,
            usage,
            regain_minutes: self.options().regain_minutes,
            is_login: false,
            budget_headers: None,
        }
    }
}
