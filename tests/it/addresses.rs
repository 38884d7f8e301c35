//! Addresses that guess tokens are shut out, in every process and over restarts, and an account may be used from its own
//! networks alone. A trusted proxy on loopback plays the addresses.

use std::time::Duration;

use meta_dispatch::edge::tokens;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::program::Program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::pipeline::{Backend, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

/// The proxy that plays addresses.
const PLAYED: &[(&str, &str)] = &[("http.trusted_proxies", "127.0.0.1")];
/// An attacker, somebody behind the same address, and others.
const BAD: &str = "203.0.113.9";
const OTHER: &str = "203.0.113.10";

fn guess() -> String {
    tokens::mint().expose_secret().to_owned()
}

/// Begin a request as if it came from an address.
fn from(pipeline: &Pipeline, address: &str, method: Method, path: &str) -> RequestBuilder {
    let url = format!("http://{}/api/v2{path}", pipeline.http);
    pipeline.client.request(method, url).header("X-Forwarded-For", address)
}

/// Return `status_code`, or 0 for a call under `/api` that is answered.
async fn code(request: RequestBuilder) -> i64 {
    let answer = request.send().await.expect("ingest answers");
    let is_good = answer.status().is_success();
    let answer: Value = answer.json().await.unwrap_or_default();
    match answer["return"]["status_code"].as_i64() {
        Some(code) => code,
        None if is_good => 0,
        None => panic!("{answer}"),
    }
}

/// Send a message with a token in the header.
async fn send(pipeline: &Pipeline, address: &str, tsid: &str) -> i64 {
    let body = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hello"});
    code(from(pipeline, address, Method::POST, "/MakeMessenger.php").bearer_auth(tsid).json(&body)).await
}

/// Make a request that is no failure of its address: 100, or 199 from a banned one.
async fn probe(pipeline: &Pipeline, address: &str) -> i64 {
    code(from(pipeline, address, Method::POST, "/MakeMessenger.php").body(json!({"dest": "ann"}).to_string()))
        .await
}

async fn until_probed(pipeline: &Pipeline, address: &str, expected: i64) {
    eventually(&format!("{expected} for {address}"), || async {
        let found = probe(pipeline, address).await;
        if found == expected { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

/// Guess as many tokens as an address may before it is banned.
async fn guess_until_banned(pipeline: &Pipeline, address: &str) {
    for n in 0..15 {
        assert_eq!(send(pipeline, address, &guess()).await, 102, "guess {n}");
    }
    assert_eq!(send(pipeline, address, &guess()).await, 199);
}

async fn command(pipeline: &Pipeline, arguments: &[&str]) -> Value {
    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch")).database(pipeline.database_url());
    let answer = program.run(&[&["--json"][..], arguments].concat(), None).await;
    serde_json::from_str(&answer.expect("the command succeeds")).expect("one JSON object")
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn guessing_address_is_banned_and_a_known_token_served(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, PLAYED).await;
    let (tsid, never_seen) = (pipeline.tsid.expose_secret(), guess());
    let id = tokens::identifier(&never_seen).expect("long enough");
    let added = pipeline.store.add_token(pipeline.account, id, &tokens::hash(&never_seen)).await;
    added.expect("tokens can be added");
    assert_eq!(send(&pipeline, BAD, tsid).await, 0);
    guess_until_banned(&pipeline, BAD).await;

    assert_eq!(send(&pipeline, BAD, tsid).await, 0, "a token that was seen in force");
    assert_eq!(send(&pipeline, BAD, &never_seen).await, 199, "no look-up tells that it is good");
    assert_eq!(send(&pipeline, OTHER, &never_seen).await, 0, "another address");
    assert_eq!(send(&pipeline, BAD, &never_seen).await, 0, "it is known by now");
    for (method, path) in [
        (Method::GET, "/messages"),
        (Method::GET, "/lines/1"),
        (Method::GET, "/MakeInstagram.php"),
        (Method::POST, "/messages/batch"),
        (Method::POST, "/messages/cancel"),
        (Method::POST, "/campaigns/spring/pause"),
    ] {
        let request = || from(&pipeline, BAD, method.clone(), path);
        assert_eq!(code(request()).await, 199, "{path}");
        assert_eq!(code(request().bearer_auth(guess())).await, 199, "{path}");
    }
    assert_eq!(code(from(&pipeline, BAD, Method::GET, "/messages").bearer_auth(tsid)).await, 0);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_failures_are_refused_for_a_while() {
    let pipeline = Pipeline::start_with(EMBEDDED, PLAYED).await;
    for n in 0..20 {
        let path = if n % 2 == 0 { "/messages" } else { "/MakeMessenger.php" };
        assert_eq!(code(from(&pipeline, BAD, Method::GET, path)).await, 100, "{n}");
    }
    let answer = from(&pipeline, BAD, Method::GET, "/messages").send().await.expect("ingest answers");
    assert_eq!(answer.status().as_u16(), 401);
    let answer: Value = answer.json().await.expect("answers are JSON");
    let told = &answer["return"];
    assert_eq!((&told["status"], &told["status_code"]), (&json!("IP trials exceeded"), &json!(131)));
    assert!(told["detail"].is_string());
    assert_eq!(code(from(&pipeline, OTHER, Method::GET, "/messages")).await, 100);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_token_in_a_body_is_served_from_a_shut_address() {
    let pipeline = Pipeline::start_with(EMBEDDED, PLAYED).await;
    let tsid = pipeline.tsid.expose_secret();
    let line = pipeline.messenger.to_string();
    assert_eq!(send(&pipeline, OTHER, tsid).await, 0);
    guess_until_banned(&pipeline, BAD).await;
    let with_form = async |token: &str| {
        let form = format!("tsid={token}&app_id={line}&dest=ann&mdata=hello");
        let request = from(&pipeline, BAD, Method::POST, "/MakeMessenger.php");
        code(request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)).await
    };
    assert_eq!((with_form(tsid).await, with_form(&guess()).await), (0, 199));
    for body in ["{".to_owned(), "x".repeat(65 * 1024)] {
        let request = from(&pipeline, BAD, Method::POST, "/MakeMessenger.php").body(body);
        assert_eq!(code(request.header(CONTENT_TYPE, "application/json")).await, 199);
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_content_type_is_no_failure() {
    let pipeline = Pipeline::start_with(EMBEDDED, PLAYED).await;
    let body = json!({"tsid": pipeline.tsid.expose_secret(), "app_id": 1, "dest": "ann", "mdata": "hello"});
    for _ in 0..40 {
        let request = from(&pipeline, BAD, Method::POST, "/MakeMessenger.php").body(body.to_string());
        assert_eq!(code(request).await, 100);
    }
    assert_eq!(send(&pipeline, BAD, pipeline.tsid.expose_secret()).await, 0);
    pipeline.stop().await;
}

/// The head of the request says that a body follows, which never comes.
#[tokio::test(flavor = "multi_thread")]
async fn shut_address_is_refused_before_its_body_and_without_a_look_up() {
    let pipeline = Pipeline::start_with(EMBEDDED, PLAYED).await;
    guess_until_banned(&pipeline, BAD).await;
    pipeline.execute("alter table account_token rename to away").await;
    let mut stream = TcpStream::connect(pipeline.http).await.expect("ingest listens");
    let head = format!(
        "POST /api/v2/MakeMessenger.php HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {BAD}\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 1000\r\nConnection: close\r\n\r\n",
        guess()
    );
    stream.write_all(head.as_bytes()).await.expect("it can be written");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await;
    read.expect("it is answered at once").expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("\"status_code\":199"), "{answer}");
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn ban_outlasts_a_restart_and_is_lifted(#[case] backend: Backend) {
    let mut pipeline = Pipeline::start_with(backend, PLAYED).await;
    guess_until_banned(&pipeline, BAD).await;
    guess_until_banned(&pipeline, "2001:db8:1:2::9").await;
    let listed = eventually("stored bans", || async {
        let listed = command(&pipeline, &["ban", "list"]).await;
        if listed["bans"].as_array().is_some_and(|bans| bans.len() == 2) {
            Ok(listed)
        } else {
            Err(listed.to_string())
        }
    })
    .await;
    for address in [BAD, "2001:db8:1:2::/64"] {
        let bans = listed["bans"].as_array().expect("a list");
        let ban = bans.iter().find(|ban| ban["address"] == address).expect("it is listed");
        assert!(ban["reason"].as_str().is_some_and(|reason| reason.contains("15 unknown tokens")), "{ban}");
    }

    pipeline.stop_processes().await;
    pipeline.start_processes().await;
    until_probed(&pipeline, "2001:db8:1:2::a", 199).await;
    let lifted = command(&pipeline, &["ban", "lift", BAD]).await;
    assert_eq!(lifted, json!({"lifted": [BAD]}));
    until_probed(&pipeline, BAD, 100).await;
    assert_eq!(probe(&pipeline, "2001:db8:1:2::a").await, 199);
    let lifted = command(&pipeline, &["ban", "lift", "--all"]).await;
    assert_eq!(lifted, json!({"lifted": ["2001:db8:1:2::/64"]}));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn ban_is_known_to_every_process() {
    let mut pipeline = Pipeline::start_with(SERVERS, PLAYED).await;
    let first = pipeline.http;
    guess_until_banned(&pipeline, BAD).await;
    pipeline.http = pipeline.start_ingest().await;
    assert_ne!(pipeline.http, first);
    until_probed(&pipeline, BAD, 199).await;
    command(&pipeline, &["ban", "lift", BAD]).await;
    until_probed(&pipeline, BAD, 100).await;
    pipeline.http = first;
    until_probed(&pipeline, BAD, 100).await;
    assert_eq!(send(&pipeline, BAD, &guess()).await, 102, "its failures are forgotten");
    pipeline.stop().await;
}

#[rstest]
#[case::by_default("false", 102)]
#[case::on_request("true", 199)]
#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_shut_out_on_request_alone(#[case] ban_loopback: &str, #[case] expected: i64) {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("security.ban_loopback", ban_loopback)]).await;
    let send = async || {
        let url = format!("http://{}/api/v2/messages", pipeline.http);
        code(pipeline.client.get(url).bearer_auth(guess())).await
    };
    for n in 0..15 {
        assert_eq!(send().await, 102, "{n}");
    }
    assert_eq!(send().await, expected);
    pipeline.stop().await;
}

/// The proxy of this test is not named in the settings: all callers have its address.
#[tokio::test(flavor = "multi_thread")]
async fn unnamed_proxy_with_good_requests_is_not_shut_out() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("security.ban_loopback", "true")]).await;
    let tsid = pipeline.tsid.expose_secret();
    assert_eq!(send(&pipeline, BAD, &guess()).await, 102);
    for n in 0..30 {
        assert_eq!(send(&pipeline, OTHER, tsid).await, 0, "{n}");
        assert_eq!(send(&pipeline, BAD, &guess()).await, 102, "{n}");
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn account_is_used_from_its_networks_alone(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, PLAYED).await;
    let (tsid, account) = (pipeline.tsid.expose_secret(), pipeline.account.to_string());
    let allow = ["account", "allow", &account, "--network", "198.51.100.0/24", "--network", "2001:db8::/48"];
    let allowed = command(&pipeline, &allow).await;
    assert_eq!(allowed["networks"], json!(["198.51.100.0/24", "2001:db8::/48"]));
    assert_eq!(
        (send(&pipeline, "198.51.100.7", tsid).await, send(&pipeline, "2001:db8::7", tsid).await),
        (0, 0)
    );
    let request = from(&pipeline, OTHER, Method::GET, "/messages").bearer_auth(tsid);
    let answer = request.send().await.expect("ingest answers");
    assert_eq!(answer.status().as_u16(), 401);
    let answer: Value = answer.json().await.expect("answers are JSON");
    let told = &answer["return"];
    assert_eq!((&told["status"], &told["status_code"]), (&json!("IP not allowed"), &json!(142)));
    for path in ["/messages/batch", "/messages/cancel", "/MakeMessenger.php"] {
        let request = from(&pipeline, OTHER, Method::POST, path).bearer_auth(tsid);
        assert_eq!(code(request.header(CONTENT_TYPE, "text/csv")).await, 142, "{path}");
    }
    for _ in 0..30 {
        assert_eq!(send(&pipeline, OTHER, tsid).await, 142, "it is no failure of the address");
    }
    command(&pipeline, &["account", "disable", &account]).await;
    eventually("the disabled account, which comes first", || async {
        match send(&pipeline, OTHER, tsid).await {
            110 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    command(&pipeline, &["account", "enable", &account]).await;
    assert_eq!(command(&pipeline, &["account", "allow", &account, "--clear"]).await["networks"], json!([]));
    eventually("every address", || async {
        match send(&pipeline, OTHER, tsid).await {
            0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    pipeline.stop().await;
}
