//! A stand-in for Graph over HTTP/1.1: it reads a call, asks the harness's [`Graph`] what becomes of it, and answers.
//!
//! The stand-in costs as little as it can, because the benchmark measures with it: nothing of a call is parsed or copied
//! that the harness does not ask for. Never here: ledgers and decisions. Both are the harness's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The harness's part of the stand-in: notes calls and decides about them.
pub trait Graph: Send + Sync + 'static {
    /// The harness's note of a call until it is answered.
    type Case: Send;

    /// Notes a call that has come, and says how long it takes.
    fn take(&self, call: &Call<'_>) -> (Self::Case, Duration);

    /// Answers a call whose time is over, or whose client has closed the connection: then `is_open` is false, and the answer
    /// goes nowhere.
    fn answer(&self, case: Self::Case, is_open: bool) -> Answer;
}

/// A call as it came, or another request.
pub struct Call<'a> {
    /// When the whole of it was there.
    pub at: Instant,
    /// `POST`, for a call.
    pub method: &'a str,
    authorization: &'a str,
    body: &'a [u8],
}

impl<'a> Call<'a> {
    /// The value of `"id"` in `"recipient":{"id":"…"}`, without parsing the rest: every client writes it first.
    pub fn recipient(&self) -> &'a [u8] {
        recipient(self.body).unwrap_or_default()
    }

    /// The text of the message; empty if it has none.
    pub fn text(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(self.body).unwrap_or_default();
        body.pointer("/message/text").and_then(|text| text.as_str()).unwrap_or_default().to_owned()
    }

    /// The page access token.
    pub fn token(&self) -> &'a str {
        self.authorization.strip_prefix("Bearer ").unwrap_or(self.authorization)
    }
}

fn recipient(body: &[u8]) -> Option<&[u8]> {
    let key = b"\"id\"";
    let start = body.windows(key.len()).position(|window| window == key)? + key.len();
    let open = start + body[start..].iter().position(|&byte| byte == b'"')? + 1;
    let length = body[open..].iter().position(|&byte| byte == b'"')?;
    Some(&body[open..open + length])
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A status and a body, said to be JSON; the connection lives on.
    Whole(u16, String),
    /// These bytes, or none; then the connection ends.
    Cut(&'static str),
}

/// Takes connections and answers their calls, until that fails.
pub async fn serve<G: Graph>(listener: TcpListener, graph: G) -> anyhow::Result<()> {
    let graph = Arc::new(graph);
    loop {
        let (stream, _) = listener.accept().await?;
        let graph = Arc::clone(&graph);
        tokio::spawn(async move {
            // A client that closes its connection is no error of ours.
            let _ = serve_connection(stream, &*graph).await;
        });
    }
}

async fn serve_connection<G: Graph>(mut stream: TcpStream, graph: &G) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let taken = read(&buffer)?.map(|(call, length)| (graph.take(&call), length));
        let Some(((case, delay), length)) = taken else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        buffer.drain(..length);
        let is_open = delay.is_zero() || stays_open(&mut stream, &mut buffer, delay).await;
        match graph.answer(case, is_open) {
            _ if !is_open => return Ok(()),
            Answer::Whole(status, body) => stream.write_all(response(status, &body).as_bytes()).await?,
            Answer::Cut(bytes) => {
                stream.write_all(bytes.as_bytes()).await?;
                return Ok(());
            }
        }
    }
}

/// Waits; `false` as soon as the client gives the call up.
async fn stays_open(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: Duration) -> bool {
    let given_up = async { while let Ok(1..) = stream.read_buf(buffer).await {} };
    tokio::time::timeout(length, given_up).await.is_err()
}

/// The call that the bytes begin with, and its length; `None` while a part of it is missing.
fn read(bytes: &[u8]) -> anyhow::Result<Option<(Call<'_>, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let method = request.method.unwrap_or_default();
    let length: usize = match header(request.headers, "content-length") {
        Some(length) => length.trim().parse().context("Content-Length")?,
        None if method == "GET" => 0,
        None => bail!("a request without Content-Length"),
    };
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    let authorization = header(request.headers, "authorization").unwrap_or_default();
    Ok(Some((Call { at: Instant::now(), method, authorization, body }, head + length)))
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok()
}

fn response(status: u16, body: &str) -> String {
    let reason = if status == 200 { "OK" } else { "Error" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use super::*;
    use crate::http::Connection;
    use crate::wait;

    /// Answers with the text; the recipient `slow` waits, and the recipient `cut` gets no answer.
    #[derive(Clone, Default)]
    struct Echo(Arc<Mutex<Vec<String>>>);

    impl Echo {
        fn seen(&self) -> MutexGuard<'_, Vec<String>> {
            self.0.lock().unwrap()
        }
    }

    impl Graph for Echo {
        type Case = (Vec<u8>, String);

        fn take(&self, call: &Call<'_>) -> (Self::Case, Duration) {
            self.seen().push(format!("{} {}", call.method, call.token()));
            let is_slow = call.recipient() == b"slow";
            let delay = if is_slow { Duration::from_secs(60) } else { Duration::ZERO };
            ((call.recipient().to_owned(), call.text()), delay)
        }

        fn answer(&self, (recipient, text): Self::Case, is_open: bool) -> Answer {
            if !is_open {
                self.seen().push("given up".to_owned());
            }
            if recipient == b"cut" { Answer::Cut("") } else { Answer::Whole(200, text) }
        }
    }

    async fn start() -> (Echo, Connection) {
        let echo = Echo::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(serve(listener, echo.clone()));
        (echo, Connection::open(&address).await.unwrap())
    }

    fn call(recipient: &str, text: &str) -> Vec<u8> {
        let body = format!(r#"{{"recipient":{{"id":"{recipient}"}},"message":{{"text":"{text}"}}}}"#);
        let length = body.len();
        let head = "POST /v25.0/me/messages HTTP/1.1\r\nAuthorization: Bearer EAA-line-7\r\n";
        format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    #[tokio::test]
    async fn calls_of_a_connection_are_answered() {
        let (echo, mut connection) = start().await;
        for text in ["one", "two", &"long ".repeat(2_000)] {
            assert_eq!(connection.exchange(&call("ann", text)).await.unwrap(), 200);
            assert!(connection.answer().ends_with(format!("\r\n\r\n{text}").as_bytes()));
        }
        assert_eq!(*echo.seen(), ["POST EAA-line-7"; 3]);
    }

    #[tokio::test]
    async fn a_request_without_a_body_is_one() {
        let (echo, mut connection) = start().await;
        assert_eq!(connection.exchange(b"GET /count HTTP/1.1\r\n\r\n").await.unwrap(), 200);
        assert_eq!(*echo.seen(), ["GET "]);
    }

    #[tokio::test]
    async fn a_cut_ends_the_connection() {
        let (_, mut connection) = start().await;
        assert!(connection.exchange(&call("cut", "text")).await.is_err());
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_is_told() {
        let (echo, mut connection) = start().await;
        let call = call("slow", "text");
        let exchange = connection.exchange(&call);
        assert!(tokio::time::timeout(Duration::from_millis(100), exchange).await.is_err());
        drop(connection);
        let told = wait::until(Duration::from_secs(10), || {
            let seen = echo.seen().clone();
            async move { if seen.len() == 2 { Ok(seen) } else { Err(format!("{seen:?}")) } }
        });
        assert_eq!(told.await.unwrap(), ["POST EAA-line-7", "given up"]);
    }
}
