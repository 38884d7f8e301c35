//! The simulator's HTTP: Graph's endpoint, and the endpoints that show evidence.
//!
//! ```text
//! POST …/me/messages                      as Graph
//! GET  /simulator/calls?after=SEQ&dest=ID the calls kept
//! GET  /simulator/count                   counters
//! POST /simulator/reset?latency=80ms      forget everything, with another latency
//! ```

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rand::Rng;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Reply};
use super::outcome::Outcome;
use super::state::State;

const LONGEST_BODY: usize = 1024 * 1024;
/// Longer than any client waits.
const NEVER: Duration = Duration::from_secs(600);
const SLOW: Duration = Duration::from_secs(2);

/// The connection ends here, without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

pub async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the simulator cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => return,
        };
        let state = state.clone();
        connections.spawn(async move {
            // Small answers must not wait for more to send.
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| answer(state.clone(), request));
            // An error is a client that went away, or a cut that was asked for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Reply, Cut> {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::POST, path) if path.ends_with("/me/messages") => {
            state.begin();
            let replied = message(&state, request).await;
            state.end();
            replied
        }
        (&Method::GET, "/simulator/calls") => {
            let query: Evidence = query(&request);
            let calls = state.calls(query.after.unwrap_or(0), query.dest.as_deref());
            Ok(answer::json(200, &json!({ "calls": calls })))
        }
        (&Method::GET, "/simulator/count") => Ok(answer::json(200, &json!(state.counts()))),
        (&Method::POST, "/simulator/reset") => {
            let query: Evidence = query(&request);
            state.reset(query.latency.and_then(|text| humantime::parse_duration(&text).ok()));
            Ok(answer::json(200, &json!({})))
        }
        (_, path) => {
            let text = format!("Unknown path components: {path}");
            Ok(answer::error(404, "OAuthException", 2500, 0, &text))
        }
    }
}

#[derive(Default, Deserialize)]
struct Evidence {
    after: Option<u64>,
    dest: Option<String>,
    latency: Option<String>,
}

fn query(request: &Request<Incoming>) -> Evidence {
    axum::extract::Query::try_from_uri(request.uri()).map(|query| query.0).unwrap_or_default()
}

async fn message(state: &State, request: Request<Incoming>) -> Result<Reply, Cut> {
    let token = bearer(&request);
    let is_json = request
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    let body = Limited::new(request.into_body(), LONGEST_BODY).collect().await.map_err(|_| Cut)?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let dest = match recipient(&body) {
        Ok(dest) if is_json => dest,
        Ok(_) => return Ok(refuse(state, "", &text, 400, 100, 0, "The body is not application/json")),
        Err(why) => return Ok(refuse(state, "", &text, 400, 100, 0, why)),
    };
    let Some(token) = token else {
        let why = "An active access token must be used to query information about the current user.";
        return Ok(refuse(state, &dest, &text, 400, 2500, 0, why));
    };
    if token.starts_with("EXPIRED") {
        let why = "Error validating access token: Session has expired.";
        return Ok(refuse(state, &dest, &text, 400, 190, 463, why));
    }
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    let used = state.use_token(hasher.finish());
    if used > 100 {
        let why = "(#613) Calls to this api have exceeded the rate limit.";
        return Ok(with_usage(refuse(state, &dest, &text, 400, 613, 0, why), used));
    }
    let outcome = state.record(&dest, &text);
    let latency = state.latency() + jitter(state.options.jitter);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match outcome {
        Outcome::Cut | Outcome::TakenCut => return Err(Cut),
        Outcome::Timeout => tokio::time::sleep(NEVER).await,
        Outcome::Slow => tokio::time::sleep(SLOW).await,
        _ => {}
    }
    let reply = answer::of(outcome, &dest);
    Ok(if used >= 75 { with_usage(reply, used) } else { reply })
}

fn jitter(most: Duration) -> Duration {
    if most.is_zero() { Duration::ZERO } else { most.mul_f64(rand::rng().random()) }
}

fn refuse(state: &State, dest: &str, body: &str, status: u16, code: i32, subcode: i32, why: &str) -> Reply {
    state.record_refused(dest, body, &format!("refused with code {code}"));
    answer::error(status, "OAuthException", code, subcode, why)
}

/// The usage headers (Graph API, "Rate Limits"); they appear once usage is high.
fn with_usage(mut reply: Reply, used: u32) -> Reply {
    let business = json!({"1001": [{
        "type": "messenger", "call_count": used, "total_cputime": 1, "total_time": 1, "estimated_time_to_regain_access": 0,
    }]});
    let app = json!({"call_count": used, "total_cputime": 1, "total_time": 1});
    for (name, value) in [("x-business-use-case-usage", business), ("x-app-usage", app)] {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

fn bearer(request: &Request<Incoming>) -> Option<String> {
    let value = request.headers().get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").filter(|token| !token.is_empty()).map(str::to_owned)
}

/// The recipient of a body of the documented shape, or what is wrong with it.
fn recipient(body: &Bytes) -> Result<String, &'static str> {
    let body: serde_json::Value = serde_json::from_slice(body).map_err(|_| "The body is not JSON")?;
    let dest = body["recipient"]["id"].as_str().ok_or("Param recipient[id] must be a valid ID string")?;
    if body["messaging_type"] != "RESPONSE" {
        return Err("Param messaging_type must be one of {RESPONSE, UPDATE, MESSAGE_TAG}");
    }
    let message = &body["message"];
    let attachment = &message["attachment"];
    let media = matches!(attachment["type"].as_str(), Some("image" | "audio" | "video" | "file"))
        && attachment["payload"]["url"].is_string();
    match message["text"].as_str() {
        Some(text) if text.chars().count() > 2_000 => {
            Err("(#100) Length of param message[text] must be less than or equal to 2000")
        }
        Some(_) => Ok(dest.to_owned()),
        None if media => Ok(dest.to_owned()),
        None => Err("Empty text or attachment"),
    }
}
