//! Answers of Graph that no server should give: each ends in a documented state of its row, without the page token and
//! without control characters in what is kept of it, and the other lines go on.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use meta_dispatch::channel::Class;
use meta_dispatch::domain::{AccountId, LineId, Status};
use meta_dispatch::store::{DirectoryStore, LogRow, NewLine};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::scene::{Scene, TEXT};
use crate::support::pipeline::eventually;
use crate::support::raw_graph::{RawGraph, answer, refusal, taken};
use crate::support::secrets::{Secret, leaks};

/// A token that no pattern of Meta's fits: it is found as the token that was sent.
const TOKEN: &str = "k7Jp2mQ9xWb4TsV1nR8cLd5yHg0fZu3e";
/// Longest text that is kept of an answer, in characters.
const LONGEST_KEPT: usize = 500;

/// An answer, the state in which it leaves the message, and Graph's code in the row.
struct Case {
    name: &'static str,
    answer: Vec<u8>,
    status: Status,
    code: Option<i32>,
}

fn case(name: &'static str, status: Status, code: Option<i32>, answer: impl Into<Vec<u8>>) -> Case {
    Case { name, answer: answer.into(), status, code }
}

/// An answer of success, which says nothing that can be relied on.
fn unclear(name: &'static str, headers: &str, body: impl AsRef<[u8]>) -> Case {
    case(name, Status::Unknown, None, answer("200 OK", headers, body))
}

/// An answer that breaks HTTP: the message may have been taken.
fn broken(name: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    case(name, Status::Unknown, None, bytes)
}

/// An answer that is taken for Graph's word that the message was sent.
fn sent(name: &'static str, headers: &str, body: impl AsRef<[u8]>) -> Case {
    case(name, Status::Ok, None, answer("200 OK", headers, body))
}

/// An error of Graph that ends the message.
fn refused(name: &'static str, code: i32, error: &Value) -> Case {
    case(name, Status::Error, Some(code), refusal("400 Bad Request", error))
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn bodies() -> Vec<Case> {
    let bomb = gzip(&vec![b'x'; 8 << 20]);
    vec![
        unclear("an id that is an object", "", r#"{"message_id":{}}"#),
        unclear("an id without an end", "", r#"{"message_id":"m_1"#),
        unclear("a code beyond all numbers", "", r#"{"error":{"code":1e400}}"#),
        unclear("60,000 levels", "", "[".repeat(60_000)),
        unclear("1 MB", "", "x".repeat(1 << 20)),
        unclear("a bomb", "Content-Encoding: gzip\r\n", &bomb),
        unclear("an unknown coding", "Content-Encoding: x-bomb\r\n", "{}"),
        unclear("four codings", "Content-Encoding: gzip, gzip, gzip, gzip\r\n", "{}"),
        unclear("a page", "Content-Type: text/html\r\n", "<script>alert(1)</script>"),
        sent("an error of nothing", "", r#"{"message_id":"m_1","error":null}"#),
        sent("an id of 50 KB", "", format!(r#"{{"message_id":"{}"}}"#, "m".repeat(50_000))),
        sent("an id that is no UTF-8", "", &b"{\"message_id\":\"m_\xff\"}"[..]),
        sent("an id with control characters", "", r#"{"message_id":"m_1\r\n\u001b[31m\u0000x"}"#),
        sent("an id with the token", "", format!(r#"{{"message_id":"m_{TOKEN}"}}"#)),
        sent(
            "compressed, with the token",
            "Content-Encoding: gzip\r\n",
            gzip(format!(r#"{{"message_id":"m_{TOKEN}"}}"#).as_bytes()),
        ),
        refused("a code in a text", 10, &json!({"code": "10", "message": "no"})),
        refused(
            "the token in a text",
            100,
            &json!({"code": 100, "type": "OAuthException", "message": format!("Malformed access token {TOKEN}")}),
        ),
        refused(
            "the token in all texts",
            100,
            &json!({
                "code": 100, "type": TOKEN, "message": TOKEN, "fbtrace_id": TOKEN, "error_user_title": TOKEN, "error_user_msg": TOKEN,
            }),
        ),
        refused(
            "a text for terminals",
            100,
            &json!({
                "code": 100, "type": "OAuthException", "message": "no\r\nERROR forged-line \u{1b}[31m\0", "fbtrace_id": "A\r\n\u{1b}[31mB",
            }),
        ),
        refused(
            "a text of 60 KB",
            100,
            &json!({"code": 100, "type": "OAuthException", "message": "x".repeat(60_000)}),
        ),
    ]
}

fn headers(elsewhere: &str) -> Vec<Case> {
    let body = r#"{"message_id":"m_1"}"#;
    let usage = |value: &str| format!("X-Business-Use-Case-Usage: {value}\r\nX-App-Usage: {value}\r\n");
    let time = |minutes: &str| {
        usage(&format!(r#"{{"1":[{{"type":"messenger","estimated_time_to_regain_access":{minutes}}}]}}"#))
    };
    let challenge =
        format!("WWW-Authenticate: OAuth \"Facebook Platform\" \"invalid_token\" \"(#190) {TOKEN}\"\r\n");
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3);
    let location = format!("Location: http://{elsewhere}/v25.0/me/messages\r\n");
    vec![
        case("a redirect", Status::Pending, None, answer("307 Temporary Redirect", &location, "")),
        case(
            "a redirect to a file",
            Status::Pending,
            None,
            answer("302 Found", "Location: file:///etc/passwd\r\n", ""),
        ),
        case(
            "the token in a challenge",
            Status::Pending,
            Some(190),
            answer("401 Unauthorized", &challenge, ""),
        ),
        sent("a cookie", "Set-Cookie: session=1; Path=/\r\n", body),
        sent("a usage without an end", &usage(&"{".repeat(5_000)), body),
        sent("a usage beyond all numbers", &time("1e308"), body),
        sent("a usage below zero", &time("-9223372036854775808"), body),
        sent("a usage of ages", &time("9223372036854775807"), body),
        case("hints before the answer", Status::Ok, None, [hints, answer("200 OK", "", body)].concat()),
        broken("500 headers", answer("200 OK", &"A: b\r\n".repeat(500), body)),
        broken("two lengths", answer("200 OK", "Content-Length: 1\r\n", body)),
        broken("a length of 2^64", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n{}"),
        broken(
            "a broken chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        ),
        broken("a body that is cut", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"message_id\":"),
        broken("another version", "HTTP/9.9 200 OK\r\n\r\n{}"),
        broken("no number for a status", "HTTP/1.1 OK\r\n\r\n{}"),
        broken("an answer of TLS", &b"\x15\x03\x01\x00\x02\x02\x50"[..]),
        broken("nothing", ""),
    ]
}

/// Give `serve` a line with the token; return it.
async fn add_line(scene: &Scene) -> LineId {
    let line = NewLine {
        id: None,
        account: AccountId(1),
        name: None,
        class: Class::MESSENGER,
        page_token: TOKEN.into(),
        page_id: Some("1".into()),
        instagram_account_id: None,
        login: None,
        rate_text: None,
        rate_media: None,
    };
    scene.serve.store.add_line(&line).await.expect("lines can be added")
}

/// Send a message on a line; return its row when the answer is known.
async fn answered(scene: &Scene, name: &str, line: LineId, dest: &str) -> LogRow {
    let id =
        scene.serve.post(json!({"app_id": line, "dest": dest, "mdata": TEXT})).await.expect("it is accepted");
    eventually(name, || async {
        let row = scene.serve.row(id).await;
        let is_known = row.status.is_outcome() || row.error_message.is_some();
        if is_known { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_end_in_a_documented_state() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = elsewhere.local_addr().expect("a bound port").to_string();
    let cases: Vec<Case> = [bodies(), headers(&address)].into_iter().flatten().collect();
    let answers: HashMap<String, Vec<u8>> =
        cases.iter().enumerate().map(|(n, case)| (format!("case{n}"), case.answer.clone())).collect();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let graph = RawGraph::start(move |request| {
        seen.lock().push(request.head.to_ascii_lowercase());
        answers.get(&request.dest).cloned().unwrap_or_else(taken)
    })
    .await;
    let mut scene = Scene::start().await;
    scene.secrets.push(Secret::new("the line's token", TOKEN));
    scene.serve.restart_with(&[("META_DISPATCH__GRAPH__BASE_URL", &graph.base_url())]).await;
    for (n, Case { name, status, code, .. }) in cases.into_iter().enumerate() {
        let line = add_line(&scene).await;
        let row = answered(&scene, name, line, &format!("case{n}")).await;
        scene.expect(name, (row.status, row.attempts, row.error_code), (status, 1, code));
        for kept in [&row.error_message, &row.fbtrace_id, &row.message_id].into_iter().flatten() {
            let is_clean = kept.chars().count() <= LONGEST_KEPT && !kept.contains(char::is_control);
            scene.expect(name, (kept.as_str(), is_clean), (kept.as_str(), true));
            scene.expect(name, leaks(&scene.secrets, kept.as_bytes()), Vec::new());
        }
        let honest = answered(&scene, "an honest message", LineId(1), &format!("bob{n}")).await;
        scene.expect(name, (honest.status, honest.attempts), (Status::Ok, 1));
        scene.settle(name, b"", 2).await;
    }
    let heads = heads.lock().join("\n\n");
    scene.expect("the calls", heads.contains("\ncookie:"), false);
    elsewhere.set_nonblocking(true).expect("a listener may be asked");
    assert!(elsewhere.accept().is_err(), "a redirect was followed");
    let printed = scene.end().await;
    let is_forged = |line: &str| line.starts_with("ERROR forged-line") || line.contains('\u{1b}');
    assert!(!printed.lines().any(is_forged), "a text of Graph began a line of its own");
}
