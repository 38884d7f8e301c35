//! The transport: one POST, one report of how it went. Shared by all lines of a process.

use std::error::Error;
use std::time::Duration;

use aws_lc_rs::hmac;
use reqwest::Response;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::egress::egress;
use super::request::{self, Call};
use super::withheld::{GuardedBody, Withheld};
use crate::message::{MAX_ERROR_CHARS, MessageKind, redact};
use crate::policy::classify::{Answer, CallResult};
use crate::settings::{GraphSettings, SettingsError};

/// Longest answer that is read. Graph's own are under 2 KiB.
const MAX_BODY: usize = 64 * 1024;

/// Shorter than a server keeps idle connections, so that a call rarely meets one that is just being closed: such a
/// call would have an unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// Tokens this short would be found in innocent words; no real one is.
const SHORTEST_TOKEN: usize = 8;

/// Why no client can be made of the settings.
#[derive(Debug, thiserror::Error)]
pub enum GraphClientError {
    #[error("setting graph.base_url: must hold no user name or password")]
    Credentials,
    #[error("setting graph.base_url: must be an http(s) URL")]
    NotHttp,
    #[error(transparent)]
    Proxy(#[from] SettingsError),
    #[error("cannot prepare connections to Graph: {0}")]
    Transport(String),
}

/// Sends messages to Graph. One for the whole process: it holds the pool of connections.
#[derive(Debug, Clone)]
pub struct GraphClient {
    http: reqwest::Client,
    messages: Url,
    app_secret: Option<hmac::Key>,
    timeout: Duration,
    media_timeout: Duration,
}

impl GraphClient {
    /// Whether Graph answers at all, asked without a token: in its own words, whatever they say.
    pub async fn answers(&self, within: Duration) -> bool {
        let asking = async {
            let answer = self.http.get(self.messages.clone()).send().await.ok()?;
            let body = answer.bytes().await.ok()?;
            let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
            body.get("error").map(drop)
        };
        tokio::time::timeout(within, asking).await.ok().flatten().is_some()
    }

    /// Prepares a client; connects to nothing yet.
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
        })
    }

    /// The longest that [`send`](GraphClient::send) takes for a message of this kind, connecting included.
    pub fn total_timeout(&self, kind: MessageKind) -> Duration {
        match kind {
            MessageKind::Text => self.timeout,
            // Meta fetches the asset before it answers.
            _ => self.media_timeout,
        }
    }

    /// Sends one message, once. Dropping the future leaves the outcome unknown. `may_begin` is asked when a connection is
    /// there and the request is about to be written.
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
                    CallResult::Answer(answer)
                }
                Err(Unread::TooLong) => CallResult::Cut { reason: "the answer is over 64 KiB".to_owned() },
                Err(Unread::Broken(error)) => CallResult::Cut { reason: reason(error, timeout) },
            },
            Err(error) if causes(&error).any(|cause| cause.is::<Withheld>()) => return Err(Withheld),
            Err(error) if never_written(&error) => CallResult::NotSent { reason: reason(error, timeout) },
            Err(error) => CallResult::Cut { reason: reason(error, timeout) },
        };
        Ok(result)
    }
}

/// `{base}/me/messages`, whether or not the base ends in a slash.
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

/// Why an answer could not be read to its end.
enum Unread {
    TooLong,
    Broken(reqwest::Error),
}

async fn read(mut response: Response) -> Result<Answer, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Unread::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer {
        http_status: response.status().as_u16(),
        business_usage: header("x-business-use-case-usage"),
        app_usage: header("x-app-usage"),
        body,
    })
}

/// Whether nothing of the request reached the connection: none could be made (refused, DNS, TLS, connect timeout),
/// or hyper gave the request back unwritten. A request whose first byte may be out is never counted as such.
fn never_written(error: &reqwest::Error) -> bool {
    error.is_builder()
        || error.is_connect()
        || causes(error)
            .any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled))
}

/// What lies behind an error, outermost first.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// What happened, in one line, without URL and secrets.
fn reason(error: reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() && !error.is_connect() {
        return format!("no complete answer within {}", humantime::format_duration(timeout));
    }
    redact(&chain(error), MAX_ERROR_CHARS)
}

/// An error with its causes.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    for cause in causes(&error) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

/// Takes the token out of an answer that echoes it ("Malformed access token …"), of whatever form it is.
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
