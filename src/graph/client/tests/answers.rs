//! Complete answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use tokio::sync::mpsc;

use super::*;

#[tokio::test]
async fn answer_has_status_body_and_usage_header() {
    let base = answering(
        "HTTP/1.1 403 Forbidden\r\n\
         X-Business-Use-Case-Usage: {\"1\":[]}\r\nContent-Length: 9\r\n\r\n{\"a\":\"b\"}",
    )
    .await;
    let answer = answer(send(&client(&base)).await);
    assert_eq!(answer.http_status, 403);
    assert_eq!(answer.body, br#"{"a":"b"}"#);
    assert_eq!(answer.business_usage.as_deref(), Some(r#"{"1":[]}"#));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let elsewhere = serve(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    for status in [301, 302, 307, 308] {
        let base = answering(format!(
            "HTTP/1.1 {status} Moved\r\nLocation: {elsewhere}/steal\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        assert_eq!(answer(send(&client(&base)).await).http_status, status);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn answer_of_64_kib_is_read_and_a_longer_cut() {
    let longest = ok(&"x".repeat(64 * 1024));
    assert_eq!(answer(send(&client(&answering(longest).await)).await).body.len(), 64 * 1024);
    for length in [64 * 1024 + 1, 100 * 1024] {
        let base = answering(ok(&"x".repeat(length))).await;
        assert_eq!(cut(send(&client(&base)).await), "the answer is over 64 KiB");
    }
}

#[tokio::test]
async fn endless_answer_is_cut_after_64_kib() {
    let (report, mut written) = mpsc::unbounded_channel();
    let base = serve(move |mut stream| {
        let report = report.clone();
        async move {
            read_request(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n";
            stream.write_all(head).await.expect("the client reads");
            let mut sent = 0;
            while stream.write_all(&[b'x'; 8_192]).await.is_ok() {
                sent += 8_192;
            }
            report.send(sent).expect("the test listens");
        }
    })
    .await;
    assert_eq!(cut(send(&client(&base)).await), "the answer is over 64 KiB");
    let written = tokio::time::timeout(DEADLINE, written.recv()).await.expect("in time").expect("a number");
    assert!(written < 32 * 1024 * 1024, "no more than buffers hold: {written}");
}

#[rstest]
#[case(TOKEN)]
#[case("no-token-of-metas-form")]
#[tokio::test]
async fn echoed_token_is_removed_from_the_answer(#[case] token: &str) {
    let base = answering(ok(&format!(r#"{{"a":"{token}","b":"x{token}"}}"#))).await;
    let answer = answer(send_with(&client(&base), token).await);
    assert_eq!(String::from_utf8_lossy(&answer.body), r#"{"a":"[redacted]","b":"x[redacted]"}"#);
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 401 Unauthorized\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn compressed_answer_is_inflated_without_the_token() {
    let base = answering(encoded("gzip", &gzip(format!("token {TOKEN}").as_bytes()))).await;
    let answer = answer(send(&client(&base)).await);
    assert_eq!((answer.is_unreadable, answer.body.as_slice()), (false, b"token [redacted]".as_slice()));
}

#[rstest]
#[case::unknown("br", b"abc".to_vec())]
#[case::broken("gzip", b"\x1f\x08\x08".to_vec())]
#[case::a_bomb("gzip", gzip(&vec![b'x'; 1_000_000]))]
#[tokio::test]
async fn an_answer_that_cannot_be_inflated_is_unreadable(#[case] encoding: &str, #[case] body: Vec<u8>) {
    let base = answering(encoded(encoding, &body)).await;
    let answer = answer(send(&client(&base)).await);
    assert_eq!((answer.http_status, answer.is_unreadable, answer.body), (401, true, Vec::new()));
}

#[tokio::test]
async fn header_lines_of_one_name_are_joined() {
    let base = answering(
        "HTTP/1.1 429 Too Many Requests\r\nX-Business-Use-Case-Usage: {\"1\":[]}\r\n\
         X-Business-Use-Case-Usage: {\"2\":[]}\r\nRetry-After: 90\r\nDate: Wed, 21 Oct 2026 07:28:00 GMT\r\n\
         WWW-Authenticate: OAuth \"Facebook Platform\" \"invalid_token\" \"(#190) no\"\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let answer = answer(send(&client(&base)).await);
    assert_eq!(answer.business_usage.as_deref(), Some(r#"{"1":[]}, {"2":[]}"#));
    assert_eq!(answer.retry_after.as_deref(), Some("90"));
    assert_eq!(answer.date.as_deref(), Some("Wed, 21 Oct 2026 07:28:00 GMT"));
    assert!(answer.challenge.is_some_and(|challenge| challenge.contains("(#190)")));
}
