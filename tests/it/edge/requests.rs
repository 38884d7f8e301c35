//! The parts of each request that the server checks: the client's address, the size of the head, `Host`.

use rstest::rstest;
use serde_json::Value;

use super::{Server, status};
use crate::support::without_detail;
use meta_dispatch::edge::ConnectionLimits;

const ROOM: usize = 32 * 1024;

#[rstest]
#[case::trusted_proxy("127.0.0.2", "203.0.113.7, 198.51.100.1", "198.51.100.1")]
#[case::chain_of_proxies("127.0.0.2", "203.0.113.7, 198.51.100.1, 10.1.2.3", "198.51.100.1")]
#[case::untrusted_peer("127.0.0.3", "198.51.100.1", "127.0.0.3")]
#[tokio::test(flavor = "multi_thread")]
async fn client_is_named_by_a_trusted_proxy(#[case] peer: &str, #[case] chain: &str, #[case] client: &str) {
    let limits = ConnectionLimits { all: 10, per_address: 10 };
    let server = Server::start(limits, &["127.0.0.2/32", "10.0.0.0/8"]).await;
    let request =
        format!("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {chain}\r\nConnection: close\r\n\r\n");
    let answer = server.ask(peer, &request).await;
    assert!(answer.ends_with(&format!("\r\n\r\n{client}")), "{answer}");
}

/// A head of this length without its end.
fn head(length: usize) -> String {
    let begin = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Filler: ";
    format!("{begin}{}", "x".repeat(length - begin.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_32_kib() {
    let server = Server::plain().await;
    let answer = server.ask("127.0.0.1", &format!("{}\r\n\r\n", head(ROOM - 4))).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert_eq!(status(&server.ask("127.0.0.1", &head(ROOM)).await), "431");
}

#[rstest]
#[case::none("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "400")]
#[case::two("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", "400")]
#[case::the_same_twice("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n", "400")]
#[case::one("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200")]
#[case::none_in_http_1_0("GET / HTTP/1.0\r\n\r\n", "200")]
#[tokio::test(flavor = "multi_thread")]
async fn host_is_given_once(#[case] request: &str, #[case] expected: &str) {
    let server = Server::plain().await;
    let answer = server.ask("127.0.0.1", request).await;
    assert_eq!(status(&answer), expected, "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("\r\ncache-control: no-store"), "{head}");
    assert!(head.contains("\r\nx-content-type-options: nosniff"), "{head}");
    if expected == "400" {
        let body: Value = serde_json::from_str(body).expect("an envelope");
        assert_eq!(without_detail(body)["return"]["status_code"], 400);
        assert!(head.contains("\r\nconnection: close"), "{head}");
    }
}

#[rstest]
#[case::unknown_path("GET /nothing HTTP/1.1", "404")]
#[case::other_method("DELETE / HTTP/1.1", "405")]
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_router_are_unstored(#[case] line: &str, #[case] expected: &str) {
    let server = Server::plain().await;
    let answer = server.ask("127.0.0.1", &format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(status(&answer), expected, "{answer}");
    assert!(answer.contains("cache-control: no-store") && answer.contains("nosniff"), "{answer}");
}
