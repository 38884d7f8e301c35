//! A client, and servers that answer it as the test says.

mod answers;
mod proxies;
mod questions;
mod requests;
mod settings;
mod silence;

use std::future::Future;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::channel::Class;

const TOKEN: &str = "EAAGm0PX4ZCpsBAKZCx9";
const DEADLINE: Duration = Duration::from_secs(20);

fn settings(base_url: &str) -> GraphSettings {
    GraphSettings {
        base_url: base_url.parse().expect("a URL"),
        instagram_base_url: base_url.parse().expect("a URL"),
        proxy: SecretString::from(""),
        ca_file: Default::default(),
        app_secret: SecretString::from(""),
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_secs(10),
        media_timeout: Duration::from_secs(15),
        codes: String::new(),
        plaintext: Default::default(),
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
        endpoint: &Endpoint::Facebook,
        app_secret: None,
        class: Class::MESSENGER,
        kind: MessageKind::Text,
        dest: "2531",
        mdata: "the private text",
        attachment_id: None,
        metadata: None,
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
