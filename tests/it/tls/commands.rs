//! Commands of senders: the token goes to the process that is named alone, and the answer of another program is an
//! error. Commands whose settings would speak in plain text are refused.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::program::Program;

use super::{Scene, Shown};
use crate::support::pipeline::{Backend, Pipeline};
use crate::support::serve::database;

const TSID: &str = "k7Jp2mQ9xWb4TsV1nR8c";
/// The variables by which an environment names proxies.
const PROXIES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// A server that gives one answer to everything, and counts its connections.
struct StandIn {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl StandIn {
    fn answering(head: &str, body: &str) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let answer =
            format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = connection.read(&mut [0; 16 * 1024]);
                let _ = connection.write_all(answer.as_bytes());
                // A connection that is closed with unread bytes is reset, and its answer lost.
                let _ = connection.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut connection, &mut std::io::sink());
            }
        });
        StandIn { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn program(folder: &tempfile::TempDir) -> Program {
    Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .in_folder(folder.path())
        .database(&database(folder))
        .variable("META_DISPATCH_TSID", TSID)
}

/// Send a message to a URL, with further options; return the error.
async fn refused(program: &Program, url: &str, more: &[&str]) -> String {
    let send = ["send", "--url", url, "--app-id", "1", "--dest", "ann", "--mdata", "hello"];
    let error = program.run(&[&send[..], more].concat(), None).await.expect_err("it is refused").to_string();
    assert!(!error.contains(TSID), "{error}");
    error
}

#[tokio::test]
async fn proxies_of_the_environment_see_nothing() {
    let proxy = StandIn::answering("403 Forbidden", "");
    let named = format!("http://{}", proxy.address);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = PROXIES.iter().fold(program(&folder), |program, name| program.variable(name, &named));
    for url in ["http://messages.invalid", "https://messages.invalid", "https://127.0.0.1:1"] {
        refused(&program, url, &[]).await;
    }
    assert_eq!(proxy.connections(), 0);
    // One that is named is used.
    refused(&program, "https://messages.invalid", &["--proxy", &named]).await;
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = StandIn::answering("200 OK", "{}");
    let head = format!("307 Temporary Redirect\r\nLocation: http://{}/", elsewhere.address);
    let redirecting = StandIn::answering(&head, "");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = refused(&program(&folder), &format!("http://{}", redirecting.address), &[]).await;
    assert!(error.contains("HTTP 307"), "{error}");
    assert_eq!((redirecting.connections(), elsewhere.connections()), (1, 0));
}

#[rstest]
#[case::an_empty_object("{}")]
#[case::an_empty_envelope(r#"{"return":{}}"#)]
#[case::no_row(r#"{"return":{"status":"OK","status_code":0,"messageId":"","cdls_id":0}}"#)]
#[case::another_answer(r#"{"status":"ok"}"#)]
#[case::a_list("[]")]
#[tokio::test]
async fn answer_without_the_envelope_is_an_error(#[case] body: &str) {
    let stand_in = StandIn::answering("200 OK", body);
    let url = format!("http://{}", stand_in.address);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program(&folder);
    let error = refused(&program, &url, &[]).await;
    assert!(error.contains("another program answered"), "{error}");
    let list = folder.path().join("list.csv");
    std::fs::write(list, "app_id,dest,mdata\n1,ann,hello\n").expect("it can be written");
    let commands =
        [&["campaign", "send", "list.csv"][..], &["campaign", "list"], &["campaign", "status", "x"]];
    for command in commands {
        let error = program.run(&[command, &["--url", &url]].concat(), None).await.expect_err("an error");
        assert!(error.to_string().contains("another program answered"), "{error}");
    }
}

#[rstest]
#[case::http("http://203.0.113.9", &[], "--plain")]
#[case::http_through_a_proxy("http://127.0.0.1:1", &["--proxy", "http://127.0.0.1:1"], "--proxy")]
#[tokio::test]
async fn plain_http_stays_on_private_networks(#[case] url: &str, #[case] more: &[&str], #[case] named: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = refused(&program(&folder), url, more).await;
    assert!(error.contains(named) && error.contains("https://"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_to_a_listener_whose_authority_is_named() {
    let scene = Scene::with(Shown::Good);
    let (cert, key) = (scene.files.cert.display().to_string(), scene.files.key.display().to_string());
    let given = [("http.tls_cert", cert.as_str()), ("http.tls_key", key.as_str())];
    let pipeline = Pipeline::start_with(Backend::Embedded, &given).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program(&folder).variable("META_DISPATCH_TSID", pipeline.tsid.expose_secret());
    let (url, line) = (format!("https://{}", pipeline.http), pipeline.messenger.to_string());
    let ca = scene.ca.display().to_string();
    let send = ["--json", "send", "--url", &url, "--app-id", &line, "--dest", "ann", "--mdata", "hello"];
    let answer = program.run(&[&send[..], &["--ca-file", &ca]].concat(), None).await.expect("it is sent");
    let answer: Value = serde_json::from_str(&answer).expect("one JSON object");
    assert_eq!(answer["status"], json!("OK"));
    let error = refused(&program, &url, &[]).await;
    assert!(error.contains("certificate"), "{error}");
    let error = refused(&program, &url, &["--ca-file", "nowhere.pem"]).await;
    assert!(error.contains("--ca-file nowhere.pem: cannot be read"), "{error}");
    pipeline.stop().await;
}

#[rstest]
#[case::database("database.url", "postgres://u:s3cret@203.0.113.9/log?sslmode=prefer", "private")]
#[case::database_of_this_machine("database.url", "postgres://u:s3cret@127.0.0.1/log?sslmode=prefer", "never")]
#[case::broker("broker.url", "amqp://u:s3cret@203.0.113.9/%2f", "private")]
#[case::broker_of_this_machine("broker.url", "amqp://u:s3cret@localhost/%2f", "never")]
#[case::graph("graph.base_url", "http://203.0.113.9/v25.0", "private")]
#[case::proxy("graph.proxy", "http://u:s3cret@203.0.113.9:3128", "private")]
#[tokio::test]
async fn settings_that_would_speak_plain_text_stop_the_start(
    #[case] key: &str,
    #[case] value: &str,
    #[case] rule: &str,
) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program(&folder).with(key, value).with("security.plaintext", rule);
    let program = program.http("127.0.0.1:0").admin("127.0.0.1:0");
    let error = program.run(&["serve"], None).await.expect_err("it does not start").to_string();
    assert!(error.contains(&format!("setting {key}: plain text")), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}
