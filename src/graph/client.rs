//! The HTTP client: one call, one answer, and whether anything was written.

use std::error::Error as _;
use std::time::Duration;

use aws_lc_rs::hmac;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};

use super::request::Call;
use crate::message::MessageKind;
use crate::policy::classify::{Answer, CallResult};
use crate::settings::GraphSettings;

/// Answers of Graph are small; more than this is not one.
const LONGEST_BODY: usize = 64 * 1024;
/// Below the idle time after which a server closes, so that a call seldom meets a connection that is closing.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);
const USAGE_HEADER: &str = "x-business-use-case-usage";

/// The client cannot be built, or its settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("setting graph.base_url: {0}")]
pub struct GraphClientError(String);

/// Sends messages to Graph. Shared by all lines; cheap to clone.
#[derive(Clone)]
pub struct GraphClient {
    http: Client,
    endpoint: Url,
    proof_key: Option<hmac::Key>,
    timeout: Duration,
    media_timeout: Duration,
}

impl GraphClient {
    pub fn new(settings: &GraphSettings) -> Result<GraphClient, GraphClientError> {
        let http = Client::builder()
            .user_agent(concat!("meta-dispatch/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(usize::MAX)
            .tcp_nodelay(true)
            .http1_only()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .build()
            .map_err(|error| GraphClientError(error.to_string()))?;
        let base = settings.base_url.as_str().trim_end_matches('/');
        let endpoint = Url::parse(&format!("{base}/me/messages"))
            .map_err(|error| GraphClientError(error.to_string()))?;
        let secret = settings.app_secret.expose_secret();
        let proof_key = (!secret.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        let (timeout, media_timeout) = (settings.timeout, settings.media_timeout);
        Ok(GraphClient { http, endpoint, proof_key, timeout, media_timeout })
    }

    /// How long a call may take in all.
    pub fn total_timeout(&self, kind: MessageKind) -> Duration {
        if kind == MessageKind::Text { self.timeout } else { self.media_timeout }
    }

    /// Makes the call, once.
    pub async fn send(&self, call: &Call<'_>) -> CallResult {
        let token = call.page_token.expose_secret();
        let Ok(mut authorization) = HeaderValue::from_str(&format!("Bearer {token}")) else {
            return CallResult::NotSent {
                reason: "the line's page token holds characters no token has".into(),
            };
        };
        authorization.set_sensitive(true);
        let proof = self.proof_key.as_ref().map(|key| hex::encode(hmac::sign(key, token.as_bytes())));
        let sent = self
            .http
            .post(self.endpoint.clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .timeout(self.total_timeout(call.kind))
            .body(call.body(proof.as_deref()))
            .send()
            .await;
        match sent {
            Ok(response) => read(response, call.page_token).await,
            Err(error) if was_not_written(&error) => CallResult::NotSent { reason: reason(error) },
            Err(error) => CallResult::Cut { reason: reason(error) },
        }
    }
}

async fn read(mut response: Response, page_token: &SecretString) -> CallResult {
    let http_status = response.status().as_u16();
    let business_usage =
        response.headers().get(USAGE_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_BODY => {
                return CallResult::Cut { reason: format!("HTTP {http_status} with a body over 64 KiB") };
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                return CallResult::Cut { reason: format!("HTTP {http_status}, then {}", reason(error)) };
            }
        }
    }
    if http_status >= 300 {
        body = without_token(body, page_token);
    }
    CallResult::Answer(Answer { http_status, body, business_usage })
}

/// Nothing of a request is written before its connection stands: refused, DNS, TLS, connect timeout. Nor if the
/// connection closed before the request was taken.
fn was_not_written(error: &reqwest::Error) -> bool {
    if error.is_connect() || error.is_builder() {
        return true;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The error and its causes, without the URL.
fn reason(error: reqwest::Error) -> String {
    let timed_out = error.is_timeout();
    let error = error.without_url();
    let mut text = if timed_out { "timed out".to_owned() } else { error.to_string() };
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// An error may quote the token it refuses.
fn without_token(body: Vec<u8>, page_token: &SecretString) -> Vec<u8> {
    let token = page_token.expose_secret();
    match String::from_utf8(body) {
        Ok(text) if text.contains(token) => text.replace(token, "[redacted]").into_bytes(),
        Ok(text) => text.into_bytes(),
        Err(error) => error.into_bytes(),
    }
}
