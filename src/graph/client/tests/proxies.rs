//! The way out through a proxy.

use tokio::sync::mpsc;

use super::*;

fn client_through(proxy: &str, base_url: &str) -> GraphClient {
    let mut settings = settings(base_url);
    settings.proxy = SecretString::from(proxy);
    settings.connect_timeout = Duration::from_millis(500);
    GraphClient::new(&settings).expect("a client")
}

/// Return a proxy's address with a user and a password.
fn with_password(base: &str) -> String {
    base.trim_end_matches("/v25.0").replace("http://", "http://worker:hunter%322@")
}

/// Start a proxy that asks for a password, forwards requests without it, and tunnels CONNECT requests to
/// `target`. It reports the first line of each request.
async fn proxy(target: String, seen: mpsc::UnboundedSender<String>) -> String {
    let target = target.trim_start_matches("http://").trim_end_matches("/v25.0").to_owned();
    serve(move |mut stream| {
        let (target, seen) = (target.clone(), seen.clone());
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a request's head"));
            }
            let head = String::from_utf8(head).expect("an ASCII head");
            let mut server = TcpStream::connect(&target).await.expect("the target listens");
            seen.send(head.lines().next().unwrap_or_default().to_owned()).expect("the test listens");
            // "worker:hunter22" in base64.
            if !head.to_ascii_lowercase().contains("proxy-authorization: basic d29ya2vyomh1bnrlcjiy") {
                let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                return stream.write_all(refusal).await.expect("the client reads");
            }
            if head.starts_with("CONNECT ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("the client reads");
            } else {
                server.write_all(head.as_bytes()).await.expect("the target reads");
            }
            // Ends when either side does.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
        }
    })
    .await
}

#[tokio::test]
async fn proxy_takes_calls_and_looks_the_host_up() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let base = proxy(answering(ok("{\"message_id\":\"m_1\"}")).await, seen).await;
    let client = client_through(&with_password(&base), "http://graph.invalid/v25.0");
    assert_eq!(answer(send(&client).await).body, b"{\"message_id\":\"m_1\"}");
    let request = requests.recv().await.expect("a request");
    assert_eq!(request, "POST http://graph.invalid/v25.0/me/messages HTTP/1.1");
}

#[tokio::test]
async fn proxy_of_https_sees_only_a_tunnel() {
    let (first_byte, mut tunnelled) = mpsc::unbounded_channel();
    let target = serve(move |mut stream| {
        let first_byte = first_byte.clone();
        async move {
            // A server that speaks no TLS, and hangs up.
            first_byte.send(stream.read_u8().await.unwrap_or_default()).expect("the test listens");
        }
    })
    .await;
    let (seen, mut requests) = mpsc::unbounded_channel();
    let base = proxy(target, seen).await;
    not_sent(send(&client_through(&with_password(&base), "https://graph.invalid/v25.0")).await);
    assert_eq!(requests.recv().await.expect("a request"), "CONNECT graph.invalid:443 HTTP/1.1");
    assert_eq!(tunnelled.recv().await, Some(0x16), "a TLS handshake comes through the tunnel");
}

#[tokio::test]
async fn a_tunnel_that_the_proxy_refuses_was_not_sent() {
    let (seen, _requests) = mpsc::unbounded_channel();
    let base = proxy(answering(ok("{}")).await, seen).await;
    let wrong = with_password(&base).replace("hunter", "hunted");
    let reason = not_sent(send(&client_through(&wrong, "https://graph.invalid/v25.0")).await);
    assert!(!reason.contains("hunted") && !reason.contains("worker"), "{reason}");
    // Over http the proxy's refusal is an answer, but none of Graph's.
    let refused = answer(send(&client_through(&wrong, "http://graph.invalid/v25.0")).await);
    assert_eq!((refused.http_status, refused.body), (407, Vec::new()));
}

#[tokio::test]
async fn a_proxy_that_never_answers_or_is_away_was_not_sent() {
    let silent = serve(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    not_sent(send(&client_through(&with_password(&silent), "https://graph.invalid/v25.0")).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let away = format!("http://{}", listener.local_addr().expect("a bound port"));
    drop(listener);
    for base_url in ["http://graph.invalid/v25.0", "https://graph.invalid/v25.0"] {
        not_sent(send(&client_through(&away, base_url)).await);
    }
}

#[test]
fn a_wrong_proxy_is_refused_by_its_key() {
    let mut settings = settings("https://graph.example/v25.0");
    settings.proxy = SecretString::from("socks5://worker:hunter22@proxy.example");
    let error = GraphClient::new(&settings).expect_err("refused").to_string();
    assert!(
        error.starts_with("setting graph.proxy: must be http://") && !error.contains("hunter22"),
        "{error}"
    );
}
