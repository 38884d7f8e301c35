//! The send endpoints, word for word (docs/contract.md, section 2).

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{RowId, Status};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, StatusCode};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::without_detail;

impl Pipeline {
    fn tsid(&self) -> &str {
        self.tsid.expose_secret()
    }

    fn messenger_url(&self) -> String {
        format!("http://{}/api/v2/MakeMessenger.php", self.http)
    }

    fn instagram_url(&self) -> String {
        format!("http://{}/api/v2/MakeInstagram.php", self.http)
    }

    fn form(&self, body: impl Into<Vec<u8>>) -> RequestBuilder {
        reqwest::Client::new()
            .post(self.messenger_url())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.into())
    }

    fn json(&self, body: &str) -> RequestBuilder {
        reqwest::Client::new()
            .post(self.messenger_url())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_owned())
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("ingest answers");
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let status = answer.status().as_u16();
    (status, without_detail(answer.json().await.expect("the envelope is JSON")))
}

fn refusal(status: &str, code: i64) -> Value {
    json!({"return": {"status": status, "status_code": code, "messageId": "", "cdls_id": 0}})
}

fn queued_id(answer: &(u16, Value)) -> RowId {
    let id = answer.1["return"]["cdls_id"].as_i64().expect("an id");
    assert_eq!(answer.0, 200);
    assert_eq!(
        answer.1,
        json!({"return": {"status": "OK", "status_code": 0, "messageId": "", "cdls_id": id}})
    );
    assert!(id > 0);
    RowId(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn messenger_request_is_answered_as_documented() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    // A form, the default; `wait` gives the documented synchronous answer.
    let body = format!(
        "tsid={}&app_id={}&dest=2531927391&mtype=text&mdata=Ol%C3%A1%2C+tudo+bem%3F&msg_id=pedido-7&wait=20",
        pipeline.tsid(),
        pipeline.messenger
    );
    let (status, body) = answer(pipeline.form(body)).await;
    assert_eq!(status, 200);
    let sent = &body["return"];
    let id = sent["cdls_id"].as_i64().expect("an integer");
    let message_id = sent["messageId"].as_str().expect("a text").to_owned();
    assert_eq!(
        body,
        json!({"return": {"status": "OK", "status_code": 200, "messageId": message_id, "cdls_id": id}})
    );
    assert_eq!(pipeline.row(RowId(id)).await.message_id.as_deref(), Some(message_id.as_str()));

    let refused = format!(
        "tsid={}&app_id={}&dest=code10-2531927391&mdata=tarde&wait=20",
        pipeline.tsid(),
        pipeline.messenger
    );
    let (status, body) = answer(pipeline.form(refused)).await;
    let id = body["return"]["cdls_id"].clone();
    assert_eq!(status, 400);
    assert_eq!(
        body,
        json!({"return": {
            "status": "ERROR", "status_code": 400, "messageId": "", "cdls_id": id,
            "detail": body["return"]["detail"], "error_code": 10, "error_subcode": 2018278,
            "error_kind": "refused", "error_message": body["return"]["error_message"],
        }})
    );
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instagram_request_is_answered_as_documented() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let request = |dest: &str| {
        reqwest::Client::new()
            .post(pipeline.instagram_url())
            .bearer_auth(pipeline.tsid())
            .header("Prefer", "wait=20")
            .json(&json!({"app_id": pipeline.instagram, "dest": dest, "mtype": "image", "mdata": "https://example.com/a.jpg"}))
    };
    let (status, body) = answer(request("17841400000000001")).await;
    assert_eq!((status, &body["return"]["status_code"]), (200, &json!(200)));
    assert!(body["return"]["messageId"].as_str().is_some_and(|id| !id.is_empty()));
    let (status, body) = answer(request("igcode10-1784")).await;
    assert_eq!(
        (status, &body["return"]["status"], &body["return"]["status_code"]),
        (400, &json!("ERROR"), &json!(403))
    );
    let calls = pipeline.simulator.calls();
    assert_eq!(
        calls[0].body,
        json!({
            "recipient": {"id": "17841400000000001"},
            "messaging_type": "RESPONSE",
            "message": {"attachment": {"type": "image", "payload": {"url": "https://example.com/a.jpg"}}},
        })
    );
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_code_text_and_status(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger.0;
    let other = pipeline.store.add_account("Other").await.expect("accounts can be added");
    let nobody = meta_dispatch::edge::tokens::mint();
    let no_token = pipeline.add_line(Class::MESSENGER, "").await.0;
    let no_page = pipeline.add_line_without_page().await.0;
    let foreign = pipeline.add_line_of(other).await.0;
    let instagram = pipeline.instagram.0;
    pipeline.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'over', 'cancelled')").await;
    let long = "x".repeat(2_001);
    for (changes, http, status, code) in [
        (json!({"tsid": null}), 401, "fail authentication", 100),
        (json!({"tsid": "  "}), 401, "fail authentication", 100),
        (json!({"tsid": "short"}), 401, "SID not found", 102),
        (json!({"tsid": nobody.expose_secret()}), 401, "SID not found", 102),
        (json!({"tsid": "x".repeat(65)}), 401, "SID not found", 102),
        (json!({"tsid": "a\u{0}bcdefghijklmnop"}), 401, "SID not found", 102),
        (json!({"tsid": {"a": 1}}), 401, "SID not found", 102),
        (json!({"app_id": null}), 400, "No app_id", 210),
        (json!({"app_id": "-3"}), 400, "No app_id", 210),
        (json!({"dest": ""}), 400, "No dest", 220),
        (json!({"mdata": " "}), 400, "No mdata", 225),
        (json!({"mtype": "sticker"}), 400, "Invalid mtype", 226),
        (json!({"mtype": "video"}), 400, "Invalid mdata", 227),
        (json!({"mdata": long}), 400, "text too long", 238),
        (json!({"dest": "x".repeat(129)}), 400, "Invalid parameter: dest", 229),
        (json!({"mcaption": "a\u{0}"}), 400, "Invalid parameter: mcaption", 229),
        (json!({"wait": 31}), 400, "Invalid parameter: wait", 229),
        (json!({"httpdup": 601}), 400, "Invalid parameter: httpdup", 229),
        (json!({"app_id": 999_999}), 400, "Messenger line not found", 230),
        (json!({"app_id": i64::MAX}), 400, "Messenger line not found", 230),
        (json!({"app_id": instagram}), 400, "Messenger line not found", 230),
        (json!({"app_id": foreign}), 400, "Messenger line not found", 230),
        (json!({"app_id": no_token}), 400, "No page access token", 233),
        (json!({"app_id": no_page}), 400, "No page ID", 234),
        (json!({"cp_id": "over"}), 400, "Campaign cancelled", 247),
        // Of several failing checks the first of the order answers.
        (json!({"tsid": "short", "app_id": null, "dest": ""}), 401, "SID not found", 102),
        (json!({"app_id": 999_999, "wait": 31}), 400, "Invalid parameter: wait", 229),
        (json!({"app_id": no_token, "cp_id": "over"}), 400, "No page access token", 233),
    ] {
        let mut body = json!({"tsid": pipeline.tsid(), "app_id": line, "dest": "253", "mdata": "hi"});
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        assert_eq!(
            answer(pipeline.json(&body.to_string())).await,
            (http, refusal(status, code)),
            "{changes}"
        );
    }
    let (status, body) = answer(
        reqwest::Client::new()
            .post(pipeline.instagram_url())
            .json(&json!({"tsid": pipeline.tsid(), "app_id": line, "dest": "253", "mdata": "hi"})),
    )
    .await;
    assert_eq!((status, body), (400, refusal("Instagram line not found", 230)));
    let rows = pipeline.store.log_newest(&Default::default(), 10).await.expect("the log answers");
    assert!(rows.is_empty(), "nothing that was refused is logged");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_account_is_refused_by_its_code() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    pipeline.execute("update account set cdcs_active = false").await;
    let body = json!({"tsid": pipeline.tsid(), "app_id": pipeline.messenger, "dest": "253", "mdata": "hi"});
    assert_eq!(answer(pipeline.json(&body.to_string())).await, (401, refusal("account inactive", 110)));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_and_post_query_form_and_json_answer_alike() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let (url, tsid, line) = (pipeline.messenger_url(), pipeline.tsid(), pipeline.messenger.0);
    let client = reqwest::Client::new();
    let query = format!("{url}?tsid={tsid}&app_id={line}&dest=q&mdata=in%20the%20query");
    for method in [Method::GET, Method::POST] {
        let id = queued_id(&answer(client.request(method, &query)).await);
        assert_eq!(pipeline.expect_ok(id).await.mdata, "in the query");
    }
    // A name in the query wins over the same name in the body.
    let body = json!({"tsid": "wrong-token", "app_id": 12345, "dest": "body", "mdata": "body", "msg_id": 77});
    let id = queued_id(&answer(client.post(&query).json(&body)).await);
    let row = pipeline.expect_ok(id).await;
    assert_eq!(
        (row.dest.as_str(), row.mdata.as_str(), row.msg_id.as_deref()),
        ("q", "in the query", Some("77"))
    );
    // A body without a Content-Type is a form; a legacy alias names the line; ISO-8859-1 is understood.
    let form = format!("sid={tsid}&v8l_id={line}&dest=253&mdata=ol%E1");
    let (status, told) = answer(client.post(&url).body(form)).await;
    assert_eq!((status, told["return"]["detail"].is_string()), (200, true), "{told}");
    let id = RowId(told["return"]["cdls_id"].as_i64().expect("an id"));
    assert_eq!(pipeline.expect_ok(id).await.mdata, "olá");
    // An integer of any length keeps its digits where a text is due.
    let json =
        format!(r#"{{"tsid":"{tsid}","app_id":"{line}","dest":25319273911234567890123,"mdata":"hi"}}"#);
    let id = queued_id(&answer(pipeline.json(&json)).await);
    assert_eq!(pipeline.expect_ok(id).await.dest, "25319273911234567890123");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tsid_counts_before_sid_before_bearer() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let good = pipeline.tsid();
    let wrong = "0123456789wrong";
    let line = pipeline.messenger.0;
    let request = |tsid: &str, sid: &str, bearer: &str| {
        let mut body = json!({"app_id": line, "dest": "253", "mdata": "hi"});
        for (name, token) in [("tsid", tsid), ("sid", sid)] {
            if !token.is_empty() {
                body[name] = token.into();
            }
        }
        let request = pipeline.json(&body.to_string());
        if bearer.is_empty() { request } else { request.header("Authorization", format!("bearer {bearer}")) }
    };
    for (tsid, sid, bearer, http) in [
        (good, wrong, wrong, 200),
        ("", good, wrong, 200),
        ("", "", good, 200),
        (wrong, good, good, 401),
        ("", wrong, good, 401),
        ("", "", wrong, 401),
        ("", "", "", 401),
    ] {
        let (status, body) = answer(request(tsid, sid, bearer)).await;
        assert_eq!(status, http, "{body}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_and_too_long_bodies_are_refused() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let malformed = (400, refusal("Malformed request", 400));
    for body in ["{", "[]", "null", "7", "{\"dest\":\"\\ud800\"}", "{} {}"] {
        assert_eq!(answer(pipeline.json(body)).await, malformed, "{}", &body[..body.len().min(30)]);
    }
    let deep = format!("{}{}", "[".repeat(15_000), "]".repeat(15_000));
    let nested = format!(
        r#"{{"tsid":"{}","app_id":{},"mdata":"hi","dest":{deep},"ignored":{deep}}}"#,
        pipeline.tsid(),
        pipeline.messenger
    );
    assert_eq!(answer(pipeline.json(&nested)).await, (400, refusal("Invalid parameter: dest", 229)));
    let plain = reqwest::Client::new().post(pipeline.messenger_url()).header(CONTENT_TYPE, "text/plain");
    assert_eq!(answer(plain.body("tsid=1")).await, malformed);
    let zipped = pipeline.form("tsid=1").header("Content-Encoding", "gzip");
    assert_eq!(answer(zipped).await, malformed);

    let too_large = (413, refusal("Request too large", 413));
    assert_eq!(answer(pipeline.form(vec![b'x'; 64 * 1024 + 1])).await, too_large);
    assert_eq!(answer(pipeline.form(vec![b'x'; 3 * 1024 * 1024])).await, too_large);
    let fits = answer(pipeline.form(vec![b'x'; 64 * 1024])).await;
    assert_eq!(fits, (401, refusal("fail authentication", 100)));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_are_404_and_other_methods_405() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let client = reqwest::Client::new();
    for path in [
        "/",
        "/api/v2/MakeMessenger",
        "/api/v2/makemessenger.php",
        "/metrics",
        "/healthz",
        "/api/v2/../admin",
    ] {
        let answer =
            client.get(format!("http://{}{path}", pipeline.http)).send().await.expect("ingest answers");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let query = format!(
        "{}?tsid={}&app_id={}&dest=q&mdata=hi",
        pipeline.messenger_url(),
        pipeline.tsid(),
        pipeline.messenger
    );
    for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = client.request(method.clone(), &query).send().await.expect("ingest answers");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.headers()["allow"], "GET, POST");
    }
    let rows = pipeline.store.log_newest(&Default::default(), 10).await.expect("the log answers");
    assert!(rows.is_empty());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn missing_database_is_503_until_back() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let body = json!({"tsid": pipeline.tsid(), "app_id": pipeline.messenger, "dest": "253", "mdata": "hi"});
    queued_id(&answer(pipeline.json(&body.to_string())).await);
    pipeline.execute("alter table cdls rename to away").await;
    let refused = pipeline.json(&body.to_string()).send().await.expect("ingest answers");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    let body_of_refusal: Value = refused.json().await.expect("the envelope is JSON");
    assert_eq!(without_detail(body_of_refusal), refusal("temporarily unavailable", 503));
    pipeline.execute("alter table away rename to cdls").await;
    let id = queued_id(&answer(pipeline.json(&body.to_string())).await);
    pipeline.expect_ok(id).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_is_refused_within_ten_seconds() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let body = json!({"tsid": pipeline.tsid(), "app_id": pipeline.messenger, "dest": "253", "mdata": "hi"});
    queued_id(&answer(pipeline.json(&body.to_string())).await);
    let revoked = tokio::time::Instant::now();
    assert!(pipeline.store.revoke_token(&pipeline.tsid()[..10]).await.expect("the store answers"));
    eventually("the token to be refused", || async {
        let (status, body) = answer(pipeline.json(&body.to_string())).await;
        if status == 401 { Ok(()) } else { Err(format!("{body}")) }
    })
    .await;
    assert!(revoked.elapsed() < Duration::from_secs(10));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_headers_are_cut_after_ten_seconds() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let mut slow = TcpStream::connect(pipeline.http).await.expect("ingest listens");
    slow.write_all(b"GET /api/v2/MakeMessenger.php HTTP/1.1\r\nHost: x\r\n")
        .await
        .expect("a part is written");
    let started = tokio::time::Instant::now();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await.expect("it is cut").ok();
    assert!(started.elapsed() < Duration::from_secs(13), "{:?}", started.elapsed());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn hundred_requests_are_each_logged_and_sent_once() {
    let pipeline = Pipeline::start_with(
        Backend::Servers,
        &[("limits.enforce_ceilings", "false"), ("limits.messenger.text", "1000")],
    )
    .await;
    let requests = (0..100).map(|n| {
        let body = json!({"tsid": pipeline.tsid(), "app_id": pipeline.messenger, "dest": format!("d{n}"), "mdata": "hi"});
        answer(pipeline.json(&body.to_string()))
    });
    let answers = futures::future::join_all(requests).await;
    let mut ids: Vec<RowId> = answers.iter().map(queued_id).collect();
    for id in &ids {
        assert_eq!(pipeline.expect_ok(*id).await.status, Status::Ok);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    assert_eq!(pipeline.simulator.calls().len(), 100);
    pipeline.stop().await;
}
