//! Budgets and windows of the simulator, as a caller meets them.

use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Answer, TOKEN, answer, call, call_with, get, post, put, start};

const OTHER: &str = "PAT-of-line-2";

/// Give two lines of one app their pages.
async fn two_lines() -> Simulator {
    let simulator = start(SimulatorOptions::default());
    let pages =
        json!({ TOKEN: { "page_id": "1001", "app_id": "7" }, OTHER: { "ig_id": "1784", "app_id": "7" } });
    put(&simulator, "pages", pages).await;
    simulator
}

async fn send(simulator: &Simulator, token: &str, dest: &str) -> Answer {
    answer(call_with(simulator, "", token, dest)).await
}

fn percent(answer: &Answer, id: &str) -> Option<Value> {
    answer.header("x-business-use-case-usage").map(|usage| usage[id][0]["call_count"].clone())
}

#[tokio::test]
async fn line_over_its_budget_is_refused_with_its_regain_time() {
    let simulator = two_lines().await;
    put(&simulator, "budgets", json!({ "line": { "calls": 2, "window": "150s" } })).await;
    let first = send(&simulator, TOKEN, "bob").await;
    assert_eq!((first.status, percent(&first, "1001")), (StatusCode::OK, Some(json!(50))));
    send(&simulator, TOKEN, "bob").await;
    let refused = send(&simulator, TOKEN, "code1200x1-bob").await;
    assert_eq!(refused.error(), (400, "OAuthException", 80006, None));
    let usage = refused.header("x-business-use-case-usage").unwrap();
    assert_eq!(usage["1001"][0]["estimated_time_to_regain_access"], 3);
    assert!(usage["1001"][0]["call_count"].as_u64() > Some(100));
    assert_eq!(simulator.counts().outcomes["budget"], 1);
    assert_eq!(simulator.delivered_to("bob"), 2);

    assert_eq!(send(&simulator, OTHER, "bob").await.status, StatusCode::OK);
    send(&simulator, OTHER, "bob").await;
    assert_eq!(send(&simulator, OTHER, "bob").await.error(), (400, "OAuthException", 80002, None));
    let told = get(&simulator, "/simulator/budgets").await.body;
    let line = &told["line"]["1001"];
    assert_eq!((&line["used"], &line["accepted"], &line["refused"]), (&json!(2), &json!(2), &json!(1)));
}

#[tokio::test]
async fn lines_share_the_budget_of_their_app() {
    let simulator = two_lines().await;
    put(&simulator, "budgets", json!({ "app": { "calls": 4, "window": "60s" }, "stranger": 0.5 })).await;
    let first = send(&simulator, TOKEN, "bob").await;
    assert_eq!(first.header("x-app-usage").unwrap()["call_count"], 75);
    assert_eq!(send(&simulator, OTHER, "bob").await.status, StatusCode::OK);
    let refused = send(&simulator, TOKEN, "bob").await;
    assert_eq!(refused.error(), (403, "OAuthException", 4, None));
    assert!(refused.header("x-business-use-case-usage").is_none());
}

#[tokio::test]
async fn headers_may_be_missing_broken_or_about_others() {
    let simulator = two_lines().await;
    let rules = |headers: &str| {
        let line = json!({ "calls": 1000, "window": "60s", "header": "both" });
        json!({ "line": line, "headers": headers, "foreign": true })
    };
    put(&simulator, "budgets", rules("always")).await;
    let whole = send(&simulator, TOKEN, "bob").await.header("x-business-use-case-usage").unwrap();
    let named: Vec<&String> = whole.as_object().unwrap().keys().collect();
    assert!(named.len() == 3 && whole["1001"].as_array().unwrap().len() == 2, "{whole}");
    put(&simulator, "budgets", rules("never")).await;
    let silent = send(&simulator, TOKEN, "bob").await;
    assert!(!silent.headers.keys().any(|name| name.as_str().contains("usage")));
    put(&simulator, "budgets", rules("broken")).await;
    let response = call(&simulator, "bob").send().await.unwrap();
    let value = response.headers()["x-page-usage"].clone();
    let percent = serde_json::from_slice::<Value>(value.as_bytes()).ok();
    let percent = percent.and_then(|usage| usage["call_count"].as_u64());
    assert_eq!(percent, None, "{value:?}");
}

#[tokio::test]
async fn wrong_budget_is_refused_and_named() {
    let simulator = start(SimulatorOptions::default());
    for (body, named) in [
        (json!({ "line": { "calls": 0, "window": "60s" } }), "line.calls"),
        (json!({ "line": { "calls": 1, "window": "soon" } }), "line.window"),
        (json!({ "lines": {} }), "lines"),
    ] {
        let call = super::client().put(format!("{}/simulator/budgets", simulator.origin())).json(&body);
        let refused = answer(call).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body["error"].as_str().unwrap().contains(named), "{named}: {}", refused.body);
    }
}

#[tokio::test]
async fn window_opens_when_a_person_writes() {
    let simulator = two_lines().await;
    put(&simulator, "windows", json!({ "enforced": true, "hours": 1 })).await;
    assert_eq!(send(&simulator, TOKEN, "ana").await.error(), (400, "OAuthException", 10, Some(2018278)));
    assert_eq!(send(&simulator, OTHER, "ana").await.error(), (403, "IGApiException", 10, Some(2534022)));
    assert_eq!(simulator.calls()[0].dest, "ana");
    assert_eq!(simulator.counts().outcomes["window"], 2);

    let person = json!({ "object": "page", "account": "1001", "from": "ana", "kind": "message" });
    let until = post(&simulator, "inbound", person).await["window_until_ms"].as_u64().unwrap();
    assert_eq!(send(&simulator, TOKEN, "ana").await.status, StatusCode::OK);
    assert_eq!(send(&simulator, OTHER, "ana").await.error().2, 10);
    let open = get(&simulator, "/simulator/windows").await.body["open"].clone();
    assert_eq!(open, json!([{ "account": "1001", "dest": "ana", "until_ms": until }]));

    let old = json!({ "object": "page", "account": "1001", "from": "eve", "at_ms": until - 3 * 3_600_000 });
    post(&simulator, "inbound", old).await;
    assert_eq!(send(&simulator, TOKEN, "eve").await.error().2, 10);
}
