//! The request on the wire, and the connections that carry it.

use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use tokio::sync::mpsc;

use super::*;

#[rstest]
#[case("")]
#[case("/")]
#[tokio::test]
async fn a_call_is_one_post_with_the_token_in_its_header(#[case] end_of_base: &str) {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let base = serve(move |mut stream| {
        let seen = seen.clone();
        async move {
            while let Some(request) = read_request(&mut stream).await {
                seen.send(request).expect("the test listens");
                stream.write_all(ok("{}").as_bytes()).await.expect("the client reads");
            }
        }
    })
    .await;
    answer(send(&client(&format!("{base}{end_of_base}"))).await);
    let (head, body) = requests.recv().await.expect("a request");
    let lines: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
    assert_eq!(head.lines().next(), Some("POST /v25.0/me/messages HTTP/1.1"));
    assert!(head.contains(&format!("Bearer {TOKEN}")));
    assert_eq!(head.matches(TOKEN).count(), 1);
    assert_eq!(lines.iter().filter(|line| line.starts_with("authorization: ")).count(), 1);
    assert!(lines.contains(&"content-type: application/json".to_owned()));
    assert!(lines.contains(&format!("user-agent: meta-dispatch/{}", env!("CARGO_PKG_VERSION"))));
    assert!(!lines.iter().any(|line| line.starts_with("referer") || line.starts_with("cookie")));
    assert_eq!(
        body,
        r#"{"recipient":{"id":"2531"},"messaging_type":"RESPONSE","message":{"text":"the private text"}}"#
    );
}

#[tokio::test]
async fn connections_are_reused() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let base = serve(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            while read_request(&mut stream).await.is_some() {
                stream.write_all(ok("{}").as_bytes()).await.expect("the client reads");
            }
        }
    })
    .await;
    let client = client(&base);
    for _ in 0..5 {
        answer(send(&client).await);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn connection_closed_while_idle_costs_no_call() {
    let (closed, mut closings) = mpsc::unbounded_channel();
    let base = serve(move |mut stream| {
        let closed = closed.clone();
        async move {
            if read_request(&mut stream).await.is_some() {
                stream.write_all(ok("{}").as_bytes()).await.expect("the client reads");
                stream.shutdown().await.expect("an open connection");
                // The client closes its side when it notices.
                assert!(read_request(&mut stream).await.is_none(), "nothing is sent on a closed connection");
                closed.send(()).expect("the test listens");
            }
        }
    })
    .await;
    let client = client(&base);
    for _ in 0..3 {
        answer(send(&client).await);
        tokio::time::timeout(DEADLINE, closings.recv()).await.expect("in time").expect("a closing");
    }
}

#[rstest]
#[case("")]
#[case("EAA\ntoken")]
#[tokio::test]
async fn a_token_that_fits_no_header_is_never_sent(#[case] token: &str) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let base = serve(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    let result = send_with(&client(&base), token).await;
    assert!(matches!(&result, CallResult::Unsendable { reason } if !reason.contains("EAA")), "{result:?}");
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn broken_reused_connection_is_cut_and_not_repeated() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let base = serve(move |mut stream| {
        let count = count.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                if count.fetch_add(1, Ordering::SeqCst) == 1 {
                    return;
                }
                stream.write_all(ok("{}").as_bytes()).await.expect("the client reads");
            }
        }
    })
    .await;
    let client = client(&base);
    answer(send(&client).await);
    cut(send(&client).await);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    answer(send(&client).await);
}

#[tokio::test]
async fn withheld_call_writes_nothing_and_ends_connection() {
    let (report, mut reports) = mpsc::unbounded_channel();
    let base = serve(move |mut stream| {
        let report = report.clone();
        async move {
            let mut requests = 0;
            while read_request(&mut stream).await.is_some() {
                requests += 1;
                stream.write_all(ok("{}").as_bytes()).await.expect("the client reads");
            }
            report.send(requests).expect("the test listens");
        }
    })
    .await;
    let client = client(&base);
    // On a fresh connection, and on one that was used before.
    assert_eq!(send_while(&client, TOKEN, || false).await.expect_err("withheld"), Withheld);
    answer(send(&client).await);
    assert_eq!(send_while(&client, TOKEN, || false).await.expect_err("withheld"), Withheld);
    let mut connections = Vec::new();
    for _ in 0..2 {
        let requests = tokio::time::timeout(DEADLINE, reports.recv()).await.expect("it is closed");
        connections.push(requests.expect("the server runs"));
    }
    assert_eq!(connections, [0, 1], "not a byte of the calls that were withheld");
}
