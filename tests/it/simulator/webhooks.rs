//! The simulator's webhooks, as the program that they are sent to sees them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use parking_lot::Mutex;
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};

use super::{TOKEN, answer, call, control, post, put, start, until};

const SECRET: &str = "app secret";

/// A POST as it came.
#[derive(Clone)]
struct Heard {
    body: Bytes,
    signature: String,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn is_signed_with(&self, secret: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hex::decode(self.signature.strip_prefix("sha256=").unwrap()).unwrap();
        hmac::verify(&key, &self.body, &tag).is_ok()
    }
}

/// Takes webhooks, and answers with the given statuses before it answers 200.
#[derive(Clone, Default)]
struct Listener {
    heard: Arc<Mutex<Vec<Heard>>>,
    refusals: Arc<Mutex<Vec<StatusCode>>>,
}

impl Listener {
    async fn open(self) -> (Listener, String) {
        let router = Router::new().route("/hook", get(verify).post(hear)).with_state(self.clone());
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", socket.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(socket, router).await });
        (self, url)
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }

    /// Wait for so many POSTs.
    async fn posts(&self, simulator: &Simulator, count: usize) -> Vec<Heard> {
        until(simulator, "the POSTs came", |_| self.heard.lock().len() >= count).await;
        self.heard()
    }

    /// Wait for so many events, over all POSTs.
    async fn events(&self, simulator: &Simulator, count: usize) -> Vec<Value> {
        until(simulator, "the events came", |_| events(&self.heard()).len() >= count).await;
        events(&self.heard())
    }
}

async fn hear(State(listener): State<Listener>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signature = headers["x-hub-signature-256"].to_str().unwrap().to_owned();
    listener.heard.lock().push(Heard { body, signature });
    listener.refusals.lock().pop().unwrap_or(StatusCode::OK)
}

async fn verify(RawQuery(query): RawQuery) -> Result<String, StatusCode> {
    let query = query.unwrap_or_default();
    let named = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find_map(|(given, value)| (given == name).then(|| value.into_owned())).unwrap_or_default()
    };
    match named("hub.verify_token") == "word" && named("hub.mode") == "subscribe" {
        true => Ok(named("hub.challenge")),
        false => Err(StatusCode::FORBIDDEN),
    }
}

fn events(heard: &[Heard]) -> Vec<Value> {
    let items = |heard: &Heard| -> Vec<Value> {
        let body = heard.json();
        let entries = body["entry"].as_array().unwrap().clone();
        entries.iter().flat_map(|entry| entry["messaging"].as_array().unwrap().clone()).collect()
    };
    heard.iter().flat_map(items).collect()
}

/// Start a simulator with a Page and a listener, and these rules.
async fn stage(rules: Value) -> (Simulator, Listener) {
    stage_with(Listener::default(), rules).await
}

async fn stage_with(listener: Listener, rules: Value) -> (Simulator, Listener) {
    let simulator = start(SimulatorOptions::default());
    let (listener, url) = listener.open().await;
    put(&simulator, "pages", json!({ TOKEN: { "page_id": "1001", "app_id": "7" } })).await;
    let mut all = json!({ "url": url, "app_secret": SECRET, "verify_token": "word" });
    all.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
    put(&simulator, "webhooks", all).await;
    (simulator, listener)
}

#[tokio::test]
async fn message_is_echoed_delivered_and_read() {
    let (simulator, listener) = stage(json!({ "read_delay_ms": 20 })).await;
    let mut body = super::text_to("ana");
    body["message"]["text"] = json!("Olá 👍");
    body["message"]["metadata"] = json!("7:1");
    let sent = answer(call(&simulator, "ana").json(&body)).await.body;
    let mid = &sent["message_id"];
    let told = listener.events(&simulator, 3).await;
    let echo = &told[0]["message"];
    assert_eq!((&echo["mid"], &echo["is_echo"], &echo["app_id"]), (mid, &json!(true), &json!(7)));
    assert_eq!((&echo["text"], &echo["metadata"]), (&json!("Olá 👍"), &json!("7:1")));
    assert_eq!((&told[0]["sender"]["id"], &told[0]["recipient"]["id"]), (&json!("1001"), &json!("ana")));
    assert_eq!(told[1]["delivery"]["mids"], json!([mid]));
    assert_eq!(told[1]["delivery"]["watermark"], told[2]["read"]["watermark"]);
    assert_eq!((&told[1]["sender"]["id"], &told[1]["recipient"]["id"]), (&json!("ana"), &json!("1001")));
    for heard in listener.heard() {
        assert!(heard.is_signed_with(SECRET) && heard.body.is_ascii());
        let body = heard.json();
        assert_eq!((&body["object"], &body["entry"][0]["id"]), (&json!("page"), &json!("1001")));
    }
}

#[tokio::test]
async fn refused_message_has_no_events_and_a_cut_one_has() {
    let (simulator, listener) = stage(json!({})).await;
    call(&simulator, "code10-ana").send().await.unwrap();
    call(&simulator, "cut-ana").send().await.unwrap_err();
    call(&simulator, "cut-applied-ana").send().await.unwrap_err();
    let told = listener.events(&simulator, 3).await;
    assert!(told.iter().all(|event| {
        let person = if event["sender"]["id"] == "1001" { &event["recipient"] } else { &event["sender"] };
        person["id"] == "cut-applied-ana"
    }));
    assert_eq!(told.len(), 3);
}

#[tokio::test]
async fn events_can_be_doubled_split_and_forged() {
    let (simulator, listener) = stage(json!({ "copies": 2, "split": true, "forge": true })).await;
    call(&simulator, "ana").send().await.unwrap();
    let posts = listener.posts(&simulator, 6).await;
    assert!(posts.iter().all(|heard| !heard.is_signed_with(SECRET)));
    assert!(posts.iter().all(|heard| events(std::slice::from_ref(heard)).len() == 1));
    assert_eq!(posts[0].body, posts[1].body);
    assert_ne!(posts[1].body, posts[2].body);
}

#[tokio::test]
async fn held_events_come_together_in_any_order() {
    let (simulator, listener) = stage(json!({ "hold": true })).await;
    for number in 0..40 {
        call(&simulator, &format!("ana{number}")).send().await.unwrap();
    }
    assert!(listener.heard().is_empty());
    let waiting = control(&simulator, Method::GET, "webhooks", json!({})).await;
    assert_eq!((&waiting["waiting"], &waiting["posted"]), (&json!(120), &json!(0)));
    assert!(!waiting.to_string().contains(SECRET));
    let url = waiting["webhooks"]["url"].clone();
    put(&simulator, "webhooks", json!({ "url": url, "app_secret": SECRET, "shuffle": true, "batch": 100 }))
        .await;
    let told = listener.events(&simulator, 120).await;
    assert_eq!(listener.heard().len(), 1, "two entries of one Page");
    let is_echo = |event: &Value| event["message"]["is_echo"] == true;
    let regular = told.chunks(3).all(|three| is_echo(&three[0]) && !is_echo(&three[1]));
    assert!(!regular, "the order is the one in which they were made");
}

#[tokio::test]
async fn unanswered_post_is_repeated_until_it_is_taken() {
    let listener = Listener::default();
    *listener.refusals.lock() = vec![StatusCode::SERVICE_UNAVAILABLE; 4];
    let retry = json!({ "at_once": 2, "base_ms": 10, "cap_ms": 20, "tries": 9 });
    let (simulator, listener) = stage_with(listener, json!({ "events": ["echo"], "retry": retry })).await;
    call(&simulator, "ana").send().await.unwrap();
    let posts = listener.posts(&simulator, 5).await;
    assert!(posts.iter().all(|heard| heard.body == posts[0].body));
    let mut told = Value::Null;
    for _ in 0..100 {
        told = control(&simulator, Method::GET, "webhooks", json!({})).await;
        if told["retrying"] == 0 && told["answered"] == 1 {
            break;
        }
    }
    assert_eq!((&told["answered"], &told["failed"], &told["given_up"]), (&json!(1), &json!(4), &json!(0)));
}

#[tokio::test]
async fn verification_brings_the_challenge_back() {
    let (simulator, _listener) = stage(json!({})).await;
    let verified = post(&simulator, "webhooks/verify", json!({})).await;
    assert_eq!(verified, json!({ "status": 200, "verified": true }));
    let known = control(&simulator, Method::GET, "webhooks", json!({})).await;
    let url = known["webhooks"]["url"].clone();
    put(&simulator, "webhooks", json!({ "url": url, "verify_token": "another" })).await;
    let refused = post(&simulator, "webhooks/verify", json!({})).await;
    assert_eq!(refused, json!({ "status": 403, "verified": false }));
}

#[tokio::test]
async fn persons_and_policy_are_told() {
    let (simulator, listener) = stage(json!({})).await;
    for (kind, name) in
        [("message", "message"), ("postback", "postback"), ("reaction", "reaction"), ("referral", "referral")]
    {
        let person = json!({ "object": "page", "account": "1001", "from": "ana", "kind": kind });
        post(&simulator, "inbound", person).await;
        let told = listener.events(&simulator, 1).await;
        assert!(told[0][name].is_object() && told[0]["sender"]["id"] == "ana", "{told:?}");
        listener.heard.lock().clear();
    }
    post(&simulator, "enforcement", json!({ "account": "1001", "action": "block", "reason": "spam" })).await;
    let notice = listener.events(&simulator, 1).await[0]["policy_enforcement"].clone();
    assert_eq!(notice, json!({ "action": "block", "reason": "spam" }));
}

#[tokio::test]
async fn instagram_is_told_of_seen_messages_by_its_own_app() {
    let (simulator, listener) = stage(json!({})).await;
    put(&simulator, "pages", json!({ "IGAA-1": { "ig_id": "1784", "app_id": "9" } })).await;
    put(&simulator, "apps", json!({ "9": { "secret": "secret of 9", "require_proof": false } })).await;
    let url = format!("{}/1784/messages", simulator.base_url());
    let sent = super::client().post(url).bearer_auth("IGAA-1").json(&super::text_to("ana"));
    let mid = answer(sent).await.body["message_id"].clone();
    let told = listener.events(&simulator, 2).await;
    assert_eq!(told[0]["message"]["mid"], mid);
    assert_eq!(told[1]["read"], json!({ "mid": mid }));
    let heard = &listener.heard()[0];
    assert!(heard.is_signed_with("secret of 9"));
    assert_eq!(heard.json()["object"], "instagram");
}

#[tokio::test]
async fn late_events_come_late_and_deleted_ones_never() {
    let (simulator, listener) = stage(json!({ "delay_ms": 150, "events": ["echo"] })).await;
    let started = std::time::Instant::now();
    call(&simulator, "ana").send().await.unwrap();
    listener.posts(&simulator, 1).await;
    assert!(started.elapsed() >= Duration::from_millis(150));
    call(&simulator, "bob").send().await.unwrap();
    control(&simulator, Method::DELETE, "webhooks", json!({})).await;
    let left = control(&simulator, Method::GET, "webhooks", json!({})).await;
    assert_eq!((&left["waiting"], &left["webhooks"]), (&json!(0), &Value::Null));
}
