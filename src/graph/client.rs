//! The transport: makes one POST and reports its result. All lines of a process share it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::egress::egress;
use super::endpoint::{AppSecret, Endpoint, Host, with_path};
use super::inflate::inflate;
use super::request::{self, Call, Caller};
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
    #[error("setting {0}: must hold no user name or password")]
    Credentials(&'static str),
    #[error("setting {0}: must be an http(s) URL")]
    NotHttp(&'static str),
    #[error(transparent)]
    Setting(#[from] SettingsError),
    #[error("cannot prepare connections to Graph: {0}")]
    Transport(String),
}

/// Sends messages to Graph. A process has one client, which holds the pool of connections.
#[derive(Debug, Clone)]
pub struct GraphClient {
    http: reqwest::Client,
    facebook: HostUrls,
    instagram: HostUrls,
    /// The secret of the app of lines that name no other one.
    app_secret: Option<AppSecret>,
    timeout: Duration,
    media_timeout: Duration,
    /// The time of the last warning that no file is left.
    warned: Arc<Mutex<Option<Instant>>>,
}

/// The URLs of one host.
#[derive(Debug, Clone)]
struct HostUrls {
    base: Url,
    /// `{base}/me/messages`, of nearly every call.
    messages: Url,
    /// Whether a call went there.
    is_used: Arc<AtomicBool>,
}

impl HostUrls {
    fn of(host: Host, base: &Url) -> Result<HostUrls, GraphClientError> {
        if !base.username().is_empty() || base.password().is_some() {
            return Err(GraphClientError::Credentials(host.key()));
        }
        if base.cannot_be_a_base() {
            return Err(GraphClientError::NotHttp(host.key()));
        }
        let messages = with_path(base, &["me", "messages"]);
        Ok(HostUrls { base: base.clone(), messages, is_used: Arc::default() })
    }
}

impl GraphClient {
    /// Whether Graph answers requests without a token, in its own envelope; an error is an answer too. Each host is
    /// asked that calls of this process went to.
    pub async fn answers(&self, within: Duration) -> bool {
        let (facebook, instagram) = (&self.facebook, &self.instagram);
        let asks_instagram = instagram.is_used.load(Ordering::Relaxed);
        let asks_facebook = !asks_instagram || facebook.is_used.load(Ordering::Relaxed);
        let (facebook, instagram) =
            tokio::join!(async { !asks_facebook || self.host_answers(facebook, within).await }, async {
                !asks_instagram || self.host_answers(instagram, within).await
            },);
        facebook && instagram
    }

    async fn host_answers(&self, host: &HostUrls, within: Duration) -> bool {
        let asking = async {
            let answer = self.http.get(host.messages.clone()).send().await.ok()?;
            let body = answer.bytes().await.ok()?;
            let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
            body.get("error").map(drop)
        };
        tokio::time::timeout(within, asking).await.ok().flatten().is_some()
    }

    fn host(&self, host: Host) -> &HostUrls {
        match host {
            Host::Facebook => &self.facebook,
            Host::Instagram => &self.instagram,
        }
    }

    /// Return the URL of a path at a host.
    pub(super) fn url(&self, host: Host, path: &[&str]) -> Url {
        with_path(&self.host(host).base, path)
    }

    /// Return the secret that proves calls of a place: that of the line's own app, or else the common one, which is no
    /// secret of Instagram Login.
    pub(super) fn secret<'a>(
        &'a self,
        endpoint: &Endpoint,
        own: Option<&'a AppSecret>,
    ) -> Option<&'a AppSecret> {
        own.or_else(|| self.app_secret.as_ref().filter(|_| endpoint.host() == Host::Facebook))
    }

    /// Return a request that is no message, in the name of a line: its token in the header, and the proof of its app.
    /// `None` for a token that fits no header.
    pub(super) fn request(
        &self,
        method: Method,
        mut url: Url,
        caller: &Caller<'_>,
    ) -> Option<RequestBuilder> {
        let authorization = request::authorization(caller.page_token)?;
        if let Some(secret) = self.secret(caller.endpoint, caller.app_secret) {
            url.query_pairs_mut().append_pair("appsecret_proof", &secret.proof(caller.page_token));
        }
        Some(self.http.request(method, url).header(AUTHORIZATION, authorization))
    }

    /// Return a request whose URL is complete.
    pub(super) fn plain_request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Build a client. No connection is opened yet.
    pub fn new(settings: &GraphSettings) -> Result<GraphClient, GraphClientError> {
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
            facebook: HostUrls::of(Host::Facebook, &settings.base_url)?,
            instagram: HostUrls::of(Host::Instagram, &settings.instagram_base_url)?,
            app_secret: AppSecret::of(&settings.app_secret),
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

    /// Return the longest duration of a call that is no message, connecting included.
    pub(super) fn short_timeout(&self) -> Duration {
        self.timeout
    }

    /// Send one message, once. Dropping the future leaves the outcome unknown. `may_begin` is called when the
    /// connection is open and the request is about to be written.
    pub async fn send<F>(&self, call: &Call<'_>, may_begin: F) -> Result<CallResult, Withheld>
    where
        F: Fn() -> bool + Unpin + Send + Sync + 'static,
    {
        let Some(authorization) = request::authorization(call.page_token) else {
            return Ok(no_token());
        };
        let host = self.host(call.endpoint.host());
        host.is_used.store(true, Ordering::Relaxed);
        let url = match call.endpoint {
            Endpoint::Facebook | Endpoint::Instagram => host.messages.clone(),
            Endpoint::Unified { account } => with_path(&host.base, &[&**account, "messages"]),
        };
        let bytes = Some(request::body(call, self.secret(call.endpoint, call.app_secret)).into());
        // Meta has the asset already.
        let timeout = if call.attachment_id.is_some() { self.timeout } else { self.total_timeout(call.kind) };
        let request = self
            .http
            .post(url)
            .header(AUTHORIZATION, authorization)
            .body(reqwest::Body::wrap(GuardedBody { bytes, may_begin }));
        self.exchange(request, timeout, &[call.page_token]).await
    }

    /// Send a request that is no message, once. The secrets are removed from the answer.
    pub(super) async fn ask(
        &self,
        request: RequestBuilder,
        timeout: Duration,
        secrets: &[&SecretString],
    ) -> CallResult {
        let asked = self.exchange(request, timeout, secrets).await;
        asked.unwrap_or_else(|Withheld| CallResult::NotSent { reason: Withheld.to_string() })
    }

    async fn exchange(
        &self,
        request: RequestBuilder,
        timeout: Duration,
        secrets: &[&SecretString],
    ) -> Result<CallResult, Withheld> {
        let result = match request.timeout(timeout).send().await {
            Ok(response) => match read(response).await {
                Ok(mut answer) => {
                    secrets.iter().for_each(|secret| conceal_in(&mut answer, secret));
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

/// Return the result of a call whose token fits no header.
pub(super) fn no_token() -> CallResult {
    let reason = "the line's page access token is empty or fits no HTTP header; set it again";
    CallResult::Unsendable { reason: reason.to_owned() }
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
        app_usage: joined(headers, "x-app-usage"),
        page_usage: joined(headers, "x-page-usage"),
        retry_after: first(headers, RETRY_AFTER.as_str()),
        date: first(headers, DATE.as_str()),
        challenge: joined(headers, WWW_AUTHENTICATE.as_str()),
        api_version: first(headers, "facebook-api-version"),
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

/// Remove a secret from the parts of an answer that may repeat it.
fn conceal_in(answer: &mut GraphAnswer, secret: &SecretString) {
    conceal(&mut answer.body, secret);
    if let Some(challenge) = answer.challenge.take() {
        let mut bytes = challenge.into_bytes();
        conceal(&mut bytes, secret);
        answer.challenge = String::from_utf8(bytes).ok();
    }
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
