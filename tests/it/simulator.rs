//! The Graph simulator, over real connections: every outcome as a caller sees it, and what the evidence says.

mod budgets;
mod graph_calls;
mod rehearsal;
mod webhooks;

use std::time::{Duration, Instant};

use meta_dispatch::simulator::{Simulator, SimulatorOptions, token_tag};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

const TOKEN: &str = "PAT-of-line-1";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    /// (HTTP status, `type`, code, subcode) of an error envelope.
    fn error(&self) -> (u16, &str, i64, Option<i64>) {
        let error = &self.body["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", self.body);
        assert!(error["fbtrace_id"].as_str().is_some_and(|id| id.len() == 23), "{}", self.body);
        (
            self.status.as_u16(),
            error["type"].as_str().unwrap(),
            error["code"].as_i64().unwrap(),
            error["error_subcode"].as_i64(),
        )
    }

    fn header(&self, name: &str) -> Option<Value> {
        self.headers.get(name).map(|value| serde_json::from_slice(value.as_bytes()).unwrap())
    }
}

fn start(options: SimulatorOptions) -> Simulator {
    Simulator::start(options).unwrap()
}

fn client() -> Client {
    crate::support::install_crypto();
    Client::builder().no_proxy().build().unwrap()
}

fn text_to(dest: &str) -> Value {
    json!({"recipient": {"id": dest}, "messaging_type": "RESPONSE", "message": {"text": "hello"}})
}

fn call(simulator: &Simulator, dest: &str) -> RequestBuilder {
    call_with(simulator, "", TOKEN, dest)
}

fn call_with(simulator: &Simulator, query: &str, token: &str, dest: &str) -> RequestBuilder {
    client()
        .post(format!("{}/me/messages{query}", simulator.base_url()))
        .bearer_auth(token)
        .json(&text_to(dest))
        .timeout(Duration::from_secs(10))
}

async fn answer(call: RequestBuilder) -> Answer {
    let response = call.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, body: response.json().await.unwrap() }
}

async fn get(simulator: &Simulator, path: &str) -> Answer {
    answer(client().get(format!("{}{path}", simulator.origin()))).await
}

/// Make a control call, which must be taken.
async fn control(simulator: &Simulator, method: Method, path: &str, body: Value) -> Value {
    let call = client().request(method, format!("{}/simulator/{path}", simulator.origin())).json(&body);
    let answer = answer(call).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer.body
}

async fn put(simulator: &Simulator, path: &str, body: Value) -> Value {
    control(simulator, Method::PUT, path, body).await
}

async fn post(simulator: &Simulator, path: &str, body: Value) -> Value {
    control(simulator, Method::POST, path, body).await
}

/// Waits until something is true of a simulator, for five seconds at most.
async fn until(simulator: &Simulator, what: &str, holds: impl Fn(&Simulator) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds(simulator) {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn lists_a_message_without_its_token() {
    let simulator = start(SimulatorOptions::default());
    let first = answer(call(&simulator, "2531")).await;
    let second = answer(call(&simulator, "2531")).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.body["recipient_id"], "2531");
    assert!(first.body["message_id"].as_str().unwrap().starts_with("m_"));
    assert_ne!(first.body["message_id"], second.body["message_id"]);
    assert_eq!(simulator.delivered_to("2531"), 2);

    let calls = simulator.calls();
    assert_eq!(calls[0].body, text_to("2531"));
    assert_eq!((calls[0].seq, calls[0].outcome.as_str(), calls[0].delivered), (1, "sent", true));
    assert_eq!(calls[0].token, token_tag(TOKEN));
    let listed = get(&simulator, "/simulator/calls").await.body.to_string();
    assert!(!listed.contains(TOKEN) && !listed.contains("line-1"), "{listed}");
    simulator.shutdown().await;
}

#[tokio::test]
async fn accepts_any_prefix_and_no_other_path() {
    let simulator = start(SimulatorOptions::default());
    for prefix in ["", "/v99.0", "/a/b"] {
        let url = format!("{}{prefix}/me/messages", simulator.origin());
        let sent = answer(client().post(url).bearer_auth(TOKEN).json(&text_to("bob"))).await;
        assert_eq!(sent.status, StatusCode::OK, "{prefix}");
    }
    let url = format!("{}/me/message_attachments", simulator.base_url());
    assert_eq!(answer(client().post(url)).await.error(), (400, "OAuthException", 2500, None));
}

#[tokio::test]
async fn answers_every_code_as_graph_does() {
    let simulator = start(SimulatorOptions::default());
    for (dest, expected) in [
        ("code10-bob", (400, "OAuthException", 10, Some(2018278))),
        ("igcode10-bob", (403, "IGApiException", 10, Some(2534022))),
        ("code10line-bob", (400, "OAuthException", 10, None)),
        ("code551-bob", (400, "OAuthException", 551, Some(1545041))),
        ("code100-bob", (400, "OAuthException", 100, Some(2018001))),
        ("code190-bob", (400, "OAuthException", 190, Some(460))),
        ("code613-bob", (400, "OAuthException", 613, None)),
        ("code4-bob", (403, "OAuthException", 4, None)),
        ("code1200-bob", (400, "OAuthException", 1200, None)),
        ("code1-bob", (500, "OAuthException", 1, None)),
        ("code2-bob", (500, "OAuthException", 2, None)),
        ("code10_1893063-bob", (400, "OAuthException", 10, Some(1893063))),
        ("code80006-bob", (400, "OAuthException", 80006, None)),
        ("igcode100_2534014-bob", (400, "IGApiException", 100, Some(2534014))),
    ] {
        let refused = answer(call(&simulator, dest)).await;
        assert_eq!(refused.error(), expected, "{dest}");
        assert!(refused.headers.contains_key("www-authenticate"), "{dest}");
        assert_eq!(refused.headers["facebook-api-version"], "v25.0", "{dest}");
        assert_eq!(simulator.delivered_to(dest), 0, "{dest}");
    }
    assert_eq!(simulator.counts().calls, 14);
    assert_eq!(simulator.counts().delivered, 0);
}

#[tokio::test]
async fn limits_name_their_usage_in_headers() {
    let simulator = start(SimulatorOptions { regain_minutes: 3, ..SimulatorOptions::default() });
    let app = answer(call(&simulator, "code4-bob")).await;
    assert!(app.header("x-app-usage").unwrap()["call_count"].as_u64() > Some(100));
    assert!(app.header("x-business-use-case-usage").is_none());
    for dest in ["code613-bob", "code80006-bob"] {
        let line = answer(call(&simulator, dest)).await;
        let usage = line.header("x-business-use-case-usage").unwrap();
        let of_page = usage.as_object().unwrap().values().next().unwrap();
        assert_eq!(of_page[0]["type"], "messenger", "{dest}");
        assert_eq!(of_page[0]["estimated_time_to_regain_access"], 3, "{dest}");
    }
}

#[tokio::test]
async fn gateway_answers_are_no_json() {
    let simulator = start(SimulatorOptions::default());
    for (dest, status, body) in [
        ("http500-bob", 500, "<!DOCTYPE html>"),
        ("http429-bob", 429, "<!DOCTYPE html>"),
        ("html-bob", 200, "<!DOCTYPE html>"),
        ("empty-bob", 200, ""),
    ] {
        let response = call(&simulator, dest).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{dest}");
        let text = response.text().await.unwrap();
        assert!(text.starts_with(body) && text.is_empty() == body.is_empty(), "{dest}: {text}");
        assert_eq!(simulator.delivered_to(dest), 0, "{dest}");
    }
}

#[tokio::test]
async fn delivered_message_may_answer_an_error() {
    let simulator = start(SimulatorOptions::default());
    assert_eq!(answer(call(&simulator, "taken500-bob")).await.error(), (500, "OAuthException", 1, None));
    let without_id = answer(call(&simulator, "noid-bob")).await;
    assert_eq!((without_id.status, without_id.body), (StatusCode::OK, json!({"recipient_id": "noid-bob"})));
    for dest in ["taken500-bob", "noid-bob"] {
        assert_eq!(simulator.delivered_to(dest), 1, "{dest}");
    }
}

#[tokio::test]
async fn cut_connection_reads_but_never_answers() {
    let simulator = start(SimulatorOptions::default());
    for (dest, delivered) in [("cut-bob", 0), ("takencut-bob", 1)] {
        let error = call(&simulator, dest).send().await.unwrap_err();
        assert!(error.is_request() && !error.is_connect() && !error.is_timeout(), "{dest}: {error:?}");
        assert_eq!(simulator.delivered_to(dest), delivered, "{dest}");
        assert_eq!(simulator.calls().last().unwrap().dest, dest);
    }
}

#[tokio::test]
async fn applied_call_is_cut_and_delivered() {
    let simulator = start(SimulatorOptions::default());
    for dest in ["cut-applied", "cut-applied-bob", "cut-appliedx1-bob"] {
        assert!(call(&simulator, dest).send().await.unwrap_err().is_request(), "{dest}");
        assert_eq!(simulator.delivered_to(dest), 1, "{dest}");
    }
    assert_eq!(answer(call(&simulator, "cut-appliedx1-bob")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn truncated_answer_has_status_and_half_its_body() {
    let simulator = start(SimulatorOptions::default());
    let mut response = call(&simulator, "truncated-bob").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let announced = response.content_length().unwrap();
    let part = response.chunk().await.unwrap().unwrap();
    assert!(!part.is_empty() && (part.len() as u64) < announced);
    assert!(response.chunk().await.is_err());
    assert_eq!(simulator.delivered_to("truncated-bob"), 1);
}

#[tokio::test]
async fn timeout_lasts_until_the_caller_leaves() {
    let simulator = start(SimulatorOptions::default());
    for (dest, delivered) in [("timeout-bob", 0), ("takentimeout-bob", 1)] {
        let pending = tokio::spawn(call(&simulator, dest).timeout(Duration::from_secs(1)).send());
        until(&simulator, "the call arrived", |simulator| simulator.counts().in_flight == 1).await;
        let error = pending.await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{dest}: {error:?}");
        assert_eq!(simulator.delivered_to(dest), delivered, "{dest}");
        until(&simulator, "the call ended", |simulator| simulator.counts().in_flight == 0).await;
    }
}

#[tokio::test]
async fn slow_answer_takes_two_seconds() {
    let simulator = start(SimulatorOptions::default());
    let started = Instant::now();
    let sent = answer(call(&simulator, "slow-bob")).await;
    assert_eq!(sent.status, StatusCode::OK);
    assert!(started.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn only_the_first_calls_to_a_recipient_fail() {
    let simulator = start(SimulatorOptions::default());
    for (dest, statuses, delivered) in [
        ("code1200x2-bob", vec![400, 400, 200, 200], 2),
        ("code1200x2-eve", vec![400], 0),
        ("http503x1-bob", vec![503, 200], 1),
        ("taken500x1-bob", vec![500, 200], 2),
    ] {
        for (index, status) in statuses.into_iter().enumerate() {
            let response = call(&simulator, dest).send().await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{dest}, call {index}");
        }
        assert_eq!(simulator.delivered_to(dest), delivered, "{dest}");
    }
}

#[tokio::test]
async fn refuses_a_call_without_a_usable_token() {
    let simulator = start(SimulatorOptions::default());
    let url = format!("{}/me/messages", simulator.base_url());
    let without = client().post(&url).json(&text_to("bob"));
    assert_eq!(answer(without).await.error(), (400, "OAuthException", 2500, None));
    let in_query = client().post(format!("{url}?access_token={TOKEN}")).json(&text_to("bob"));
    assert_eq!(answer(in_query).await.error(), (400, "OAuthException", 2500, None));
    let expired = answer(client().post(&url).bearer_auth("EXPIRED-1").json(&text_to("bob"))).await;
    assert_eq!(expired.error(), (400, "OAuthException", 190, Some(463)));
    assert!(expired.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    assert_eq!(simulator.delivered_to("bob"), 0);
    assert_eq!(simulator.counts().outcomes["no token"], 2);
}

#[tokio::test]
async fn call_of_another_shape_is_code_100() {
    let simulator = start(SimulatorOptions::default());
    let url = format!("{}/me/messages", simulator.base_url());
    let refused = [
        client().post(&url).json(&json!({"recipient": {"id": "bob"}, "message": {"text": "hello"}})),
        client().post(&url).header("content-type", "application/json").body("{"),
        client().post(&url).header("content-type", "text/plain").body(text_to("bob").to_string()),
        client().post(&url),
    ];
    for call in refused {
        assert_eq!(answer(call.bearer_auth(TOKEN)).await.error(), (400, "OAuthException", 100, None));
    }
    let calls = simulator.calls();
    assert_eq!(calls[1].body, json!("{"));
    assert!(calls.iter().all(|call| call.outcome == "refused" && !call.delivered));
}

#[tokio::test]
async fn demanded_proof_must_be_the_tokens() {
    let secret = "app secret".into();
    let simulator = start(SimulatorOptions { app_secret: Some(secret), ..SimulatorOptions::default() });
    let without = answer(call(&simulator, "bob")).await;
    assert_eq!(without.error(), (400, "GraphMethodException", 100, None));
    // HMAC-SHA256 of "PAT-of-line-1" under "app secret", by openssl.
    let proof = "b6fd4d335477b000d70f8c87d2fd5380fab2162ff01ba161fc357b801a22135d";
    let in_query = answer(call_with(&simulator, &format!("?appsecret_proof={proof}"), TOKEN, "bob")).await;
    assert_eq!(in_query.status, StatusCode::OK);
    let mut body = text_to("bob");
    body["appsecret_proof"] = json!(proof);
    assert_eq!(answer(call(&simulator, "bob").json(&body)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn token_over_its_limit_is_refused_with_usage() {
    let limit_per_token = Some(10);
    let simulator = start(SimulatorOptions { limit_per_token, ..SimulatorOptions::default() });
    let client = client();
    let url = format!("{}/me/messages", simulator.base_url());
    let calls = (0..200).map(|number| {
        let dest = format!("bob{number}");
        answer(client.post(&url).bearer_auth(TOKEN).json(&text_to(&dest)))
    });
    let answers = futures::future::join_all(calls).await;
    let (sent, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);

    assert!(!refused.is_empty());
    for answer in &refused {
        assert_eq!(answer.error(), (400, "OAuthException", 613, None));
        assert_eq!(answer.header("x-app-usage").unwrap()["call_count"], 110);
        assert!(answer.header("x-business-use-case-usage").is_some());
    }
    let named: Vec<u64> = sent
        .iter()
        .filter_map(|answer| answer.header("x-app-usage"))
        .map(|usage| usage["call_count"].as_u64().unwrap())
        .collect();
    assert!(named.contains(&100) && named.iter().all(|usage| *usage >= 75), "{named:?}");

    let taken: Vec<Instant> =
        simulator.calls().iter().filter(|call| call.delivered).map(|call| call.received).collect();
    assert_eq!(taken.len(), sent.len());
    assert!(taken.windows(11).all(|eleven| eleven[10] - eleven[0] >= Duration::from_secs(1)));

    let other = answer(call_with(&simulator, "", "PAT-of-line-2", "bob")).await;
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn evidence_can_be_filtered_and_reset() {
    let simulator = start(SimulatorOptions { keep: 3, ..SimulatorOptions::default() });
    for dest in ["ana", "bob", "ana", "code10-bob"] {
        call(&simulator, dest).send().await.unwrap();
    }
    let seqs = |answer: Answer| -> Vec<u64> {
        answer.body.as_array().unwrap().iter().map(|call| call["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs(get(&simulator, "/simulator/calls").await), [2, 3, 4]);
    assert_eq!(seqs(get(&simulator, "/simulator/calls?after=2").await), [3, 4]);
    assert_eq!(seqs(get(&simulator, "/simulator/calls?dest=ana").await), [3]);
    assert_eq!(get(&simulator, "/simulator/calls?after=x").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(get(&simulator, "/simulator/else").await.status, StatusCode::NOT_FOUND);

    let counts = get(&simulator, "/simulator/count").await.body;
    assert_eq!((&counts["calls"], &counts["delivered"]), (&json!(4), &json!(3)));
    assert_eq!((&counts["recipients"], &counts["reached"]), (&json!(3), &json!(2)));
    assert_eq!(counts["outcomes"], json!({"sent": 3, "code10": 1}));

    let reset = format!("{}/simulator/reset?latency=200ms", simulator.origin());
    assert_eq!(answer(client().post(reset)).await.body["calls"], 0);
    assert!(simulator.calls().is_empty());
    let started = Instant::now();
    call(&simulator, "ana").send().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(simulator.calls()[0].seq, 5);
}

#[tokio::test]
async fn calls_in_flight_are_counted() {
    let simulator = start(SimulatorOptions::default());
    let pending: Vec<_> =
        (0..8).map(|number| tokio::spawn(call(&simulator, &format!("timeout-bob{number}")).send())).collect();
    until(&simulator, "all calls arrived", |simulator| simulator.counts().in_flight == 8).await;
    pending.iter().for_each(|call| call.abort());
    until(&simulator, "all calls ended", |simulator| simulator.counts().in_flight == 0).await;
    assert_eq!(simulator.counts().max_in_flight, 8);
}

#[tokio::test]
async fn shutdown_closes_port_and_connections() {
    let simulator = start(SimulatorOptions::default());
    let pending = tokio::spawn(call(&simulator, "timeout-bob").send());
    until(&simulator, "the call arrived", |simulator| simulator.counts().in_flight == 1).await;
    let next = call(&simulator, "bob");
    simulator.shutdown().await;
    assert!(!pending.await.unwrap().unwrap_err().is_timeout());
    assert!(next.send().await.unwrap_err().is_connect());
}
