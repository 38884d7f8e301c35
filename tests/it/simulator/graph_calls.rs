//! The calls of Graph that are no messages, and tokens of Instagram Login.

use std::time::Duration;

use meta_dispatch::simulator::{Simulator, SimulatorOptions, token_tag};
use reqwest::{RequestBuilder, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use super::{Answer, TOKEN, answer, call, client, get, post, put, start, text_to};

const LOGIN: &str = "IGAA-of-line-3";

async fn with_pages(pages: Value) -> Simulator {
    let simulator = start(SimulatorOptions::default());
    put(&simulator, "pages", pages).await;
    simulator
}

async fn shop() -> Simulator {
    with_pages(json!({ TOKEN: { "page_id": "1001", "page_name": "Shop", "ig_id": "1784", "app_id": "7" } }))
        .await
}

fn graph_get(simulator: &Simulator, path: &str, token: &str) -> RequestBuilder {
    client().get(format!("{}/{path}", simulator.base_url())).bearer_auth(token)
}

async fn ask(simulator: &Simulator, path: &str) -> Answer {
    answer(graph_get(simulator, path, TOKEN)).await
}

async fn send_to(simulator: &Simulator, id: &str, token: &str, body: &Value) -> Answer {
    let url = format!("{}/{id}/messages", simulator.base_url());
    answer(client().post(url).bearer_auth(token).json(body)).await
}

async fn upload(simulator: &Simulator, token: &str, kind: &str, url: &str) -> Answer {
    let attachment = json!({ "type": kind, "payload": { "url": url, "is_reusable": true } });
    let to = format!("{}/me/message_attachments", simulator.base_url());
    answer(client().post(to).bearer_auth(token).json(&json!({ "message": { "attachment": attachment } })))
        .await
}

fn media(payload: Value) -> Value {
    let attachment = json!({ "type": "image", "payload": payload });
    json!({ "recipient": { "id": "bob" }, "messaging_type": "RESPONSE", "message": { "attachment": attachment } })
}

#[tokio::test]
async fn me_is_the_page_behind_the_token() {
    let simulator = shop().await;
    let me = ask(&simulator, "me?fields=id,name,instagram_business_account{id,username}").await.body;
    let account = json!({ "id": "1784", "username": "simulated" });
    assert_eq!(me, json!({ "id": "1001", "name": "Shop", "instagram_business_account": account }));
    assert_eq!(ask(&simulator, "1001").await.body, json!({ "id": "1001", "name": "Shop" }));
    assert_eq!(ask(&simulator, "me?fields=secret").await.error().2, 100);
    assert_eq!(ask(&simulator, "1002").await.error(), (400, "GraphMethodException", 100, Some(33)));
    let login = answer(graph_get(&simulator, "me?fields=user_id,username", LOGIN)).await.body;
    assert!(login["user_id"].is_string() && login["username"] == "simulated", "{login}");
}

#[tokio::test]
async fn token_is_told_with_its_end_and_permissions() {
    let simulator = with_pages(json!({
        TOKEN: { "page_id": "1001", "app_id": "7", "scopes": ["pages_messaging"], "data_access_expires_at": 1_900_000_000 },
        "EAA-ended": { "expires_at": 1_000_000_000 },
    }))
    .await;
    let good = ask(&simulator, &format!("debug_token?input_token={TOKEN}")).await.body["data"].clone();
    assert_eq!(
        (&good["is_valid"], &good["app_id"], &good["type"]),
        (&json!(true), &json!("7"), &json!("PAGE"))
    );
    assert_eq!(good["granular_scopes"], json!([{ "scope": "pages_messaging", "target_ids": ["1001"] }]));
    assert_eq!((&good["expires_at"], &good["data_access_expires_at"]), (&json!(0), &json!(1_900_000_000)));
    let ended = ask(&simulator, "debug_token?input_token=EAA-ended").await.body["data"].clone();
    assert_eq!((&ended["is_valid"], &ended["error"]["subcode"]), (&json!(false), &json!(463)));
    let refused = send_to(&simulator, "me", "EAA-ended", &text_to("bob")).await;
    assert_eq!(refused.error(), (400, "OAuthException", 190, Some(463)));
    let listed = get(&simulator, "/simulator/pages").await.body;
    assert_eq!(listed[token_tag(TOKEN)]["page_id"], "1001");
    assert!(!listed.to_string().contains("EAA"), "{listed}");
}

#[tokio::test]
async fn page_is_subscribed_by_a_call() {
    let simulator =
        with_pages(json!({ TOKEN: { "page_id": "1001", "app_id": "7", "subscribed": [] } })).await;
    assert_eq!(ask(&simulator, "1001/subscribed_apps").await.body, json!({ "data": [] }));
    let url =
        format!("{}/1001/subscribed_apps?subscribed_fields=messages,message_reads", simulator.base_url());
    let done = answer(client().post(url).bearer_auth(TOKEN)).await.body;
    assert_eq!(done, json!({ "success": true }));
    let app = ask(&simulator, "1001/subscribed_apps").await.body["data"][0].clone();
    assert_eq!((&app["id"], &app["subscribed_fields"]), (&json!("7"), &json!(["messages", "message_reads"])));
}

#[tokio::test]
async fn app_demands_the_proof_of_its_own_secret() {
    let simulator = shop().await;
    put(&simulator, "apps", json!({ "7": { "secret": "app secret" }, "8": { "secret": "another" } })).await;
    let without = answer(call(&simulator, "bob")).await;
    assert_eq!(without.error(), (400, "GraphMethodException", 100, None));
    assert_eq!(ask(&simulator, "me").await.error().2, 100);
    // HMAC-SHA256 of "PAT-of-line-1" under "app secret", by openssl.
    let proof = "b6fd4d335477b000d70f8c87d2fd5380fab2162ff01ba161fc357b801a22135d";
    assert_eq!(ask(&simulator, &format!("me?appsecret_proof={proof}")).await.status, StatusCode::OK);
    let mut body = text_to("bob");
    body["appsecret_proof"] = json!(proof);
    assert_eq!(send_to(&simulator, "1001", TOKEN, &body).await.status, StatusCode::OK);
    let optional = json!({ "7": { "secret": "app secret", "require_proof": false } });
    put(&simulator, "apps", optional).await;
    assert_eq!(answer(call(&simulator, "bob")).await.status, StatusCode::OK);
    assert!(!get(&simulator, "/simulator/apps").await.body.to_string().contains("secret"));
}

#[tokio::test]
async fn login_token_is_refreshed_once_it_is_a_day_old() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let simulator = with_pages(json!({
        LOGIN: { "ig_id": "1784" },
        "IGAA-young": { "issued_at": now - 3_600 },
        "IGAA-ended": { "expires_at": now - 1 },
    }))
    .await;
    let refresh = |token: &str| {
        let query = format!("grant_type=ig_refresh_token&access_token={token}");
        answer(client().get(format!("{}/refresh_access_token?{query}", simulator.base_url())))
    };
    let answered = refresh(LOGIN).await.body;
    assert_eq!(answered["expires_in"], 60 * 86_400);
    let next = answered["access_token"].as_str().unwrap();
    assert!(next.starts_with("IGAA") && next != LOGIN);
    for token in [LOGIN, next] {
        assert_eq!(send_to(&simulator, "1784", token, &text_to("bob")).await.status, StatusCode::OK);
    }
    assert_eq!(refresh("IGAA-young").await.error().2, 100);
    assert_eq!(refresh("IGAA-ended").await.error(), (400, "OAuthException", 190, Some(463)));
    assert_eq!(refresh(TOKEN).await.error().2, 190);
    assert_eq!(refresh(next).await.error().2, 100, "the new one is young");
}

#[tokio::test]
async fn instagram_login_has_errors_of_its_own() {
    let simulator = start(SimulatorOptions::default());
    let refused = send_to(&simulator, "me", LOGIN, &text_to("code100_2534014-bob")).await;
    assert_eq!(refused.error(), (400, "IGApiException", 100, Some(2534014)));
    let ended = send_to(&simulator, "me", LOGIN, &text_to("code190-bob")).await;
    assert_eq!(ended.error(), (400, "OAuthException", 190, Some(460)));
    assert_eq!(upload(&simulator, LOGIN, "image", "https://example.com/a.png").await.status, 400);
}

#[rstest]
#[case::person("USER", "me", false)]
#[case::system_user_as_itself("SYSTEM_USER", "me", false)]
#[case::system_user_for_the_account("SYSTEM_USER", "1784", true)]
#[case::page_as_itself("PAGE", "me", true)]
#[case::another_account("PAGE", "1785", false)]
#[tokio::test]
async fn sender_is_named_by_the_path(#[case] kind: &str, #[case] id: &str, #[case] is_taken: bool) {
    let simulator = with_pages(json!({ TOKEN: { "ig_id": "1784", "type": kind } })).await;
    let answered = send_to(&simulator, id, TOKEN, &text_to("bob")).await;
    assert_eq!(answered.status == StatusCode::OK, is_taken, "{}", answered.body);
    if !is_taken {
        assert_eq!(answered.error(), (400, "GraphMethodException", 100, Some(33)));
    }
}

#[tokio::test]
async fn upload_is_sent_by_its_id_until_its_end() {
    let simulator = shop().await;
    let uploaded = upload(&simulator, TOKEN, "image", "https://example.com/a.png").await.body;
    let id = uploaded["attachment_id"].as_str().unwrap();
    let message = media(json!({ "attachment_id": id }));
    for _ in 0..3 {
        assert_eq!(send_to(&simulator, "me", TOKEN, &message).await.status, StatusCode::OK);
    }
    let foreign = send_to(&simulator, "me", "PAT-of-line-2", &message).await;
    assert_eq!(foreign.error(), (400, "OAuthException", 100, Some(2018074)));
    let listed = get(&simulator, "/simulator/uploads").await.body;
    let first = &listed["uploads"][0];
    assert_eq!((&first["uses"], &first["account"], &listed["calls"]), (&json!(3), &json!("1001"), &json!(1)));
    assert_eq!(listed["fetches"], json!({ "https://example.com/a.png": 1 }));
    assert_eq!(post(&simulator, "uploads/expire", json!({ "attachment_id": id })).await["expired"], 1);
    let ended = send_to(&simulator, "me", TOKEN, &message).await;
    assert_eq!(ended.error(), (400, "OAuthException", 100, Some(2018074)));
}

#[tokio::test]
async fn asset_that_cannot_be_fetched_is_refused_everywhere() {
    let simulator = start(SimulatorOptions::default());
    for (name, subcode) in
        [("unfetchable.png", Some(2018008)), ("slow-video.mp4", Some(2018294)), ("fetch-text.png", None)]
    {
        let url = format!("https://example.com/{name}");
        let expected = (400, "OAuthException", 100, subcode);
        assert_eq!(upload(&simulator, TOKEN, "video", &url).await.error(), expected, "{name}");
        let sent = send_to(&simulator, "me", TOKEN, &media(json!({ "url": url }))).await;
        assert_eq!(sent.error(), expected, "{name}");
    }
    let once = media(json!({ "url": "https://example.com/unfetchable-once.png" }));
    assert_eq!(send_to(&simulator, "me", TOKEN, &once).await.error().3, Some(2018008));
    assert_eq!(send_to(&simulator, "me", TOKEN, &once).await.status, StatusCode::OK);
    assert_eq!(simulator.counts().outcomes["asset"], 4);
}

#[tokio::test]
async fn fetch_takes_its_time_and_an_id_none() {
    let simulator = start(SimulatorOptions::default());
    put(&simulator, "uploads", json!({ "fetch_ms": 300 })).await;
    let started = std::time::Instant::now();
    let uploaded = upload(&simulator, TOKEN, "image", "https://example.com/a.png").await.body;
    assert!(started.elapsed() >= Duration::from_millis(300));
    let started = std::time::Instant::now();
    send_to(&simulator, "me", TOKEN, &media(json!({ "url": "https://example.com/a.png" }))).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    let by_id = media(json!({ "attachment_id": uploaded["attachment_id"] }));
    let call = send_to(&simulator, "me", TOKEN, &by_id);
    assert!(tokio::time::timeout(Duration::from_millis(290), call).await.is_ok());
}

/// Ask about conversations until the limit of two a second lets the call through.
async fn read(simulator: &Simulator, url: &str) -> Value {
    for _ in 0..100 {
        let answered = answer(client().get(url).bearer_auth(TOKEN)).await;
        if answered.status == StatusCode::OK {
            return answered.body;
        }
        assert_eq!(answered.error().2, 613);
        super::until(simulator, "a part of a second passed", {
            let started = std::time::Instant::now();
            move |_: &Simulator| started.elapsed() > Duration::from_millis(100)
        })
        .await;
    }
    panic!("{url} was refused a hundred times");
}

#[tokio::test]
async fn conversation_holds_what_both_wrote_in_pages() {
    let simulator = shop().await;
    let person = json!({ "object": "page", "account": "1001", "from": "ana", "text": "Is it there?" });
    post(&simulator, "inbound", person).await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        let answered = answer(call(&simulator, "ana")).await.body;
        sent.push(answered["message_id"].as_str().unwrap().to_owned());
    }
    call(&simulator, "cut-ana").send().await.unwrap_err();
    let fields = "messages.limit(2){id,created_time,from,message}";
    let url = format!("{}/1001/conversations?user_id=ana&fields={fields}", simulator.base_url());
    let first = read(&simulator, &url).await["data"][0]["messages"].clone();
    let mut found: Vec<Value> = first["data"].as_array().unwrap().clone();
    assert_eq!(
        (found[0]["from"]["id"].as_str(), found[0]["message"].as_str()),
        (Some("1001"), Some("hello"))
    );
    assert!(found[0]["created_time"].as_str().unwrap().ends_with("+0000"));
    let next = read(&simulator, first["paging"]["next"].as_str().unwrap()).await;
    assert!(next.get("paging").is_none(), "{next}");
    found.extend(next["data"].as_array().unwrap().iter().cloned());
    let ids: Vec<&str> = found.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4);
    assert!(sent.iter().all(|id| ids.contains(&id.as_str())));
    let message = read(&simulator, &format!("{}/{}?fields=message", simulator.base_url(), sent[0])).await;
    assert_eq!(message, json!({ "id": sent[0], "message": "hello" }));
    let nobody = read(&simulator, &format!("{}/1001/conversations?user_id=eve", simulator.base_url())).await;
    assert_eq!(nobody, json!({ "data": [] }));
    let all = get(&simulator, "/simulator/conversations?dest=ana").await.body;
    assert_eq!(all[0]["messages"].as_array().unwrap().len(), 4);
    assert_eq!(all[0]["messages"][0]["text"], "Is it there?");
}
