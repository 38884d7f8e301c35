//! Calls without a complete answer.

use rstest::rstest;

use super::*;

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    drop(listener);
    let reason = not_sent(send(&client(&format!("http://{address}"))).await);
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_host_without_an_address_was_not_sent() {
    not_sent(send(&client("http://graph.invalid")).await);
}

#[tokio::test]
async fn a_failed_tls_handshake_was_not_sent() {
    let base = serve(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 this is no TLS\r\n\r\n").await.expect("the client reads");
    })
    .await;
    not_sent(send(&client(&base.replace("http:", "https:"))).await);
}

#[tokio::test]
async fn connection_not_ready_in_time_was_not_sent() {
    let base = serve(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let mut settings = settings(&base.replace("http:", "https:"));
    settings.connect_timeout = Duration::from_millis(200);
    let begun = Instant::now();
    not_sent(send(&GraphClient::new(&settings).expect("a client")).await);
    assert!(begun.elapsed() < settings.timeout);
}

#[rstest]
#[case("", "closed before it answered")]
#[case("HTTP/1.1 200 OK\r\nContent-Le", "closed inside the head")]
#[case("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"message_id\":\"m_1\"}", "closed inside the body")]
#[case("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", "closed between chunks")]
#[case("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabcde\r\n", "a broken chunk")]
#[case("SSH-2.0-OpenSSH_9\r\n", "another protocol")]
#[tokio::test]
async fn an_answer_that_breaks_off_is_a_cut(#[case] response: &str, #[case] what: &str) {
    let reason = cut(send(&client(&answering(response).await)).await);
    assert!(!reason.contains("within"), "{what}: {reason}");
}

#[rstest]
#[case("")]
#[case("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")]
#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_a_cut(#[case] response: &'static str) {
    let base = serve(move |mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(response.as_bytes()).await.expect("the client reads");
        std::future::pending::<()>().await;
    })
    .await;
    let mut settings = settings(&base);
    settings.connect_timeout = Duration::from_millis(100);
    settings.timeout = Duration::from_millis(300);
    let reason = cut(send(&GraphClient::new(&settings).expect("a client")).await);
    assert_eq!(reason, "no complete answer within 300ms");
}

#[tokio::test]
async fn dripping_answer_is_cut_at_the_timeout() {
    let base = serve(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await.expect("the client reads");
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut settings = settings(&base);
    settings.connect_timeout = Duration::from_millis(100);
    settings.timeout = Duration::from_millis(300);
    let reason = cut(send(&GraphClient::new(&settings).expect("a client")).await);
    assert_eq!(reason, "no complete answer within 300ms");
}
