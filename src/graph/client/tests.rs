use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::channel::Class;

const TOKEN: &str = "EAAGm0PX4ZCpsBAKZCx9";
const DEADLINE: Duration = Duration::from_secs(20);

fn settings(base_url: &str) -> GraphSettings {
    GraphSettings {
        base_url: base_url.parse().expect("a URL"),
        proxy: SecretString::from(""),
        app_secret: SecretString::from(""),
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_secs(10),
        media_timeout: Duration::from_secs(15),
    }
}

fn client(base_url: &str) -> GraphClient {
    GraphClient::new(&settings(base_url)).expect("a client")
}

async fn send_with(client: &GraphClient, token: &str) -> CallResult {
    send_while(client, token, || true).await.expect("it may be written")
}

async fn send_while(
    client: &GraphClient,
    token: &str,
    may_begin: fn() -> bool,
) -> Result<CallResult, Withheld> {
    let page_token = SecretString::from(token);
    let call = Call {
        class: Class::MESSENGER,
        kind: MessageKind::Text,
        dest: "2531",
        mdata: "the private text",
        page_token: &page_token,
    };
    tokio::time::timeout(DEADLINE, client.send(&call, may_begin))
        .await
        .expect("a call ends within its own timeout")
}

async fn send(client: &GraphClient) -> CallResult {
    send_with(client, TOKEN).await
}

/// Start a server that handles each connection with `handle`; return its base URL.
async fn serve<F, Done>(handle: F) -> String
where
    F: Fn(TcpStream) -> Done + Send + 'static,
    Done: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    format!("http://{address}/v25.0")
}

/// Read one whole request: head and body, as text.
async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("an ASCII head");
            let length: usize = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .expect("a content-length");
            if bytes.len() >= end + 4 + length {
                let body = String::from_utf8(bytes[end + 4..].to_vec()).expect("a UTF-8 body");
                return Some((head, body));
            }
        }
        if stream.read_buf(&mut bytes).await.expect("a readable stream") == 0 {
            return None;
        }
    }
}

/// Start a server that reads a request, answers with these bytes, and closes.
async fn answering(response: impl Into<Vec<u8>>) -> String {
    let response: Arc<Vec<u8>> = Arc::new(response.into());
    serve(move |mut stream| {
        let response = response.clone();
        async move {
            if read_request(&mut stream).await.is_some() {
                // The client may close the connection before the whole answer is written.
                let _ = stream.write_all(&response).await;
            }
        }
    })
    .await
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn answer(result: CallResult) -> GraphAnswer {
    match result {
        CallResult::Answer(answer) => answer,
        other => panic!("expected an answer, got {other:?}"),
    }
}

/// Return the reason of a call without an answer, after a check that it holds no secret.
fn cut(result: CallResult) -> String {
    match result {
        CallResult::Cut { reason } => discreet(reason),
        other => panic!("expected a cut call, got {other:?}"),
    }
}

fn not_sent(result: CallResult) -> String {
    match result {
        CallResult::NotSent { reason } => discreet(reason),
        other => panic!("expected an unsent call, got {other:?}"),
    }
}

fn discreet(reason: String) -> String {
    assert!(!reason.is_empty());
    for secret in [TOKEN, "private", "2531", "http://"] {
        assert!(!reason.contains(secret), "{reason:?} tells {secret:?}");
    }
    reason
}

// ---- what is sent --------------------------------------------------------------------------------------------

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

// ---- complete answers ----------------------------------------------------------------------------------------

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

#[rstest]
#[case(TOKEN)]
#[case("no-token-of-metas-form")]
#[tokio::test]
async fn echoed_token_is_removed_from_the_answer(#[case] token: &str) {
    let base = answering(ok(&format!(r#"{{"a":"{token}","b":"x{token}"}}"#))).await;
    let answer = answer(send_with(&client(&base), token).await);
    assert_eq!(String::from_utf8_lossy(&answer.body), r#"{"a":"[redacted]","b":"x[redacted]"}"#);
}

// ---- no complete answer --------------------------------------------------------------------------------------

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    drop(listener);
    let reason = not_sent(send(&client(&format!("http://{address}"))).await);
    assert!(reason.contains("refused"), "{reason}");
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

// ---- the way out ---------------------------------------------------------------------------------------------

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

// ---- settings ------------------------------------------------------------------------------------------------

#[test]
fn media_has_a_timeout_of_its_own() {
    let client = client("https://graph.example/v25.0");
    assert_eq!(client.total_timeout(MessageKind::Text), Duration::from_secs(10));
    for kind in [MessageKind::Image, MessageKind::Audio, MessageKind::Video, MessageKind::File] {
        assert_eq!(client.total_timeout(kind), Duration::from_secs(15));
    }
}

#[test]
fn a_base_url_with_credentials_is_refused_by_its_key() {
    let error = GraphClient::new(&settings("https://user:secret@graph.example/v25.0")).expect_err("refused");
    assert_eq!(error.to_string(), "setting graph.base_url: must hold no user name or password");
}

#[test]
fn printing_a_client_or_a_call_shows_no_secret() {
    let mut settings = settings("https://graph.example/v25.0");
    settings.app_secret = SecretString::from("the-app-secret");
    settings.proxy = SecretString::from("http://worker:hunter22@proxy.example:3128");
    let client = GraphClient::new(&settings).expect("a client");
    let page_token = SecretString::from(TOKEN);
    let call = Call {
        class: Class::INSTAGRAM,
        kind: MessageKind::Text,
        dest: "2531",
        mdata: "hi",
        page_token: &page_token,
    };
    let printed = format!("{client:?} {call:?}");
    for secret in ["the-app-secret", TOKEN, "hunter22", "d29ya2VyOmh1bnRlcjIy"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[tokio::test]
async fn a_host_without_an_address_was_not_sent() {
    not_sent(send(&client("http://graph.invalid")).await);
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
