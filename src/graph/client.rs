//! The transport: makes one POST and reports its result. All lines of a process share it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Response;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use reqwest::redirect::Policy;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::egress::egress;
use super::inflate::inflate;
use super::request::{self, Call};
use super::withheld::{GuardedBody, Withheld};
use crate::channel::MessageKind;
use crate::policy::classify::{CallResult, GraphAnswer};
use crate::settings::{GraphSettings, SettingsError};
use crate::text::{MAX_ERROR_CHARS, redact};

/// Longest answer that is read, compressed or not. Graph's own answers are under 2 KiB.
const MAX_BODY: usize = 64 * 1024;
/// Header lines of one name that are read.
const MAX_HEADER_LINES: usize = 32;

/// Shorter than a server keeps idle connections: a call on a connection that is just being closed has an
/// unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// The pause between warnings that no file is left for a connection.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// `ENFILE` and `EMFILE`: no file is left, in the system or for this process.
const NO_FILE: [i32; 2] = [23, 24];

/// Shorter tokens are not searched for: they occur in ordinary words, and no real token is that short.
const SHORTEST_TOKEN: usize = 8;

/// An error of the settings from which no client can be built.
#[derive(Debug, thiserror::Error)]
pub enum GraphClientError {
    #[error("setting graph.base_url: must hold no user name or password")]
    Credentials,
    #[error("setting graph.base_url: must be an http(s) URL")]
    NotHttp,
    #[error(transparent)]
    Setting(#[from] SettingsError),
    #[error("cannot prepare connections to Graph: {0}")]
    Transport(String),
}

/// Sends messages to Graph. A process has one client, which holds the pool of connections.
#[derive(Debug, Clone)]
pub struct GraphClient {
    http: reqwest::Client,
    messages: Url,
    app_secret: Option<hmac::Key>,
    timeout: Duration,
    media_timeout: Duration,
    /// The time of the last warning that no file is left.
    warned: Arc<Mutex<Option<Instant>>>,
}

impl GraphClient {
    /// Whether Graph answers a request without a token, in its own envelope; an error is an answer too.
    pub async fn answers(&self, within: Duration) -> bool {
        let asking = async {
            let answer = self.http.get(self.messages.clone()).send().await.ok()?;
            let body = answer.bytes().await.ok()?;
            let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
            body.get("error").map(drop)
        };
        tokio::time::timeout(within, asking).await.ok().flatten().is_some()
    }

    /// Build a client. No connection is opened yet.
    pub fn new(settings: &GraphSettings) -> Result<GraphClient, GraphClientError> {
        let app_secret = settings.app_secret.expose_secret();
        let builder = reqwest::Client::builder()
            // One connection a call in flight: over HTTP/2 all calls would share a single connection.
            .http1_only()
            // The log row is the retry; a request repeated behind its back could deliver a message twice.
            .retry(reqwest::retry::never())
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(usize::MAX)
            .tcp_nodelay(true)
            .user_agent(concat!("meta-dispatch/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )]));
        let http =
            egress(builder, settings)?.build().map_err(|error| GraphClientError::Transport(chain(error)))?;
        Ok(GraphClient {
            http,
            messages: messages_url(&settings.base_url)?,
            app_secret: (!app_secret.is_empty())
                .then(|| hmac::Key::new(hmac::HMAC_SHA256, app_secret.as_bytes())),
            timeout: settings.timeout,
            media_timeout: settings.media_timeout,
            warned: Arc::default(),
        })
    }

    /// Return the longest duration of [`send`](GraphClient::send) for a message of this kind, connecting
    /// included.
    pub fn total_timeout(&self, kind: MessageKind) -> Duration {
        match kind {
            MessageKind::Text => self.timeout,
            // Meta fetches the asset before it answers.
            _ => self.media_timeout,
        }
    }

    /// Send one message, once. Dropping the future leaves the outcome unknown. `may_begin` is called when the
    /// connection is open and the request is about to be written.
    pub async fn send<F>(&self, call: &Call<'_>, may_begin: F) -> Result<CallResult, Withheld>
    where
        F: Fn() -> bool + Unpin + Send + Sync + 'static,
    {
        let Some(authorization) = request::authorization(call.page_token) else {
            let reason = "the line's page access token is empty or fits no HTTP header; set it again";
            return Ok(CallResult::Unsendable { reason: reason.to_owned() });
        };
        let bytes = Some(request::body(call, self.app_secret.as_ref()).into());
        let timeout = self.total_timeout(call.kind);
        let sent = self
            .http
            .post(self.messages.clone())
            .header(AUTHORIZATION, authorization)
            .body(reqwest::Body::wrap(GuardedBody { bytes, may_begin }))
            .timeout(timeout)
            .send()
            .await;
        let result = match sent {
            Ok(response) => match read(response).await {
                Ok(mut answer) => {
                    conceal(&mut answer.body, call.page_token);
                    if let Some(challenge) = answer.challenge.take() {
                        let mut bytes = challenge.into_bytes();
                        conceal(&mut bytes, call.page_token);
                        answer.challenge = String::from_utf8(bytes).ok();
                    }
                    CallResult::Answer(answer)
                }
                Err(Unread::TooLong) => CallResult::Cut { reason: "the answer is over 64 KiB".to_owned() },
                Err(Unread::Broken(error)) => CallResult::Cut { reason: reason(error, timeout) },
            },
            Err(error) if causes(&error).any(|cause| cause.is::<Withheld>()) => return Err(Withheld),
            Err(error) if lacks_a_file(&error) => self.no_file(),
            Err(error) if never_written(&error) => CallResult::NotSent { reason: reason(error, timeout) },
            Err(error) => CallResult::Cut { reason: reason(error, timeout) },
        };
        Ok(result)
    }

    fn no_file(&self) -> CallResult {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::error!("no file left for connections: calls wait; raise the limit of open files");
        }
        CallResult::NoFile { reason: "too many open files: the limit of this process is too low".into() }
    }
}

/// Return `{base}/me/messages`, whether or not the base ends in a slash.
fn messages_url(base: &Url) -> Result<Url, GraphClientError> {
    if !base.username().is_empty() || base.password().is_some() {
        return Err(GraphClientError::Credentials);
    }
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.path_segments_mut()
        .map_err(|()| GraphClientError::NotHttp)?
        .pop_if_empty()
        .extend(["me", "messages"]);
    Ok(url)
}

/// The reason for which an answer was not read to its end.
enum Unread {
    TooLong,
    Broken(reqwest::Error),
}

async fn read(mut response: Response) -> Result<GraphAnswer, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Unread::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    let headers = response.headers();
    let encoding = joined(headers, CONTENT_ENCODING.as_str()).unwrap_or_default();
    let plain = inflate(&encoding, &body, MAX_BODY).map(|plain| plain.into_owned());
    Ok(GraphAnswer {
        http_status: response.status().as_u16(),
        is_unreadable: plain.is_none(),
        body: plain.unwrap_or_default(),
        business_usage: joined(headers, "x-business-use-case-usage"),
        retry_after: first(headers, RETRY_AFTER.as_str()),
        date: first(headers, DATE.as_str()),
        challenge: joined(headers, WWW_AUTHENTICATE.as_str()),
    })
}

/// Join the header lines of one name by commas, as one line would hold them.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(name).iter().take(MAX_HEADER_LINES);
    let lines: Vec<&str> = lines.filter_map(|value| value.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn first(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Whether no byte of the request reached the connection: none could be opened (refused, DNS, TLS, connect
/// timeout), or hyper gave the request back unwritten. A request whose first byte may be out is never counted
/// as such.
fn never_written(error: &reqwest::Error) -> bool {
    error.is_builder()
        || error.is_connect()
        || causes(error)
            .any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled))
}

/// Whether no connection could be opened because the process or the system has no file left. Graph has no
/// part in this failure.
fn lacks_a_file(error: &reqwest::Error) -> bool {
    let is_one = |cause: &(dyn Error + 'static)| {
        let code = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        code.is_some_and(|code| NO_FILE.contains(&code))
    };
    error.is_connect() && causes(error).any(is_one)
}

/// Return the causes of an error, outermost first.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// Return the reason of a failure in one line, without URL and secrets.
fn reason(error: reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() && !error.is_connect() {
        return format!("no complete answer within {}", humantime::format_duration(timeout));
    }
    redact(&chain(error), MAX_ERROR_CHARS)
}

/// Return the text of an error with its causes.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    for cause in causes(&error) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

/// Remove the token, whatever its form, from an answer that echoes it ("Malformed access token …").
fn conceal(body: &mut Vec<u8>, page_token: &SecretString) {
    let token = page_token.expose_secret().as_bytes();
    if token.len() < SHORTEST_TOKEN {
        return;
    }
    let find = |bytes: &[u8]| bytes.windows(token.len()).position(|window| window == token);
    let Some(first) = find(body) else { return };
    let (mut clean, mut rest, mut found) = (Vec::with_capacity(body.len()), body.as_slice(), Some(first));
    while let Some(at) = found {
        clean.extend_from_slice(&rest[..at]);
        clean.extend_from_slice(b"[redacted]");
        rest = &rest[at + token.len()..];
        found = find(rest);
    }
    clean.extend_from_slice(rest);
    *body = clean;
}

#[cfg(test)]
mod tests;
