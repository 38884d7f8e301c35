//! A stand-in for Graph that answers each call with the bytes that its test chooses: such as no server should send.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as it came.
pub struct GraphRequest {
    pub head: String,
    /// The page token; empty without one.
    pub token: String,
    /// The recipient; empty without one.
    pub dest: String,
}

/// One request a connection, which ends with its answer.
pub struct RawGraph {
    address: SocketAddr,
    _connections: JoinSet<()>,
}

impl RawGraph {
    pub async fn start<F>(answer: F) -> RawGraph
    where
        F: Fn(&GraphRequest) -> Vec<u8> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let answer = Arc::new(answer);
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                served.spawn(async move {
                    let Some(request) = read(&mut stream).await else { return };
                    // A client may close the connection before it has read everything.
                    let _written = stream.write_all(&answer(&request)).await;
                    let _closed = stream.shutdown().await;
                });
            }
        });
        RawGraph { address, _connections: connections }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v25.0", self.address)
    }
}

/// Return a whole answer; the client opens a new connection for its next call.
pub fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Return the answer to a message that is taken.
pub fn taken() -> Vec<u8> {
    answer("200 OK", "", r#"{"recipient_id":"1","message_id":"m_1"}"#)
}

/// Return an error of Graph.
pub fn refusal(status: &str, error: &Value) -> Vec<u8> {
    answer(status, "", serde_json::json!({ "error": error }).to_string())
}

async fn read(stream: &mut TcpStream) -> Option<GraphRequest> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length: usize =
                field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if let Some(body) = bytes.get(end + 4..end + 4 + length) {
                let body: Value = serde_json::from_slice(body).unwrap_or_default();
                let authorization = field(&head, "authorization").unwrap_or_default();
                let token = authorization.strip_prefix("Bearer ").unwrap_or_default().to_owned();
                let dest = body["recipient"]["id"].as_str().unwrap_or_default().to_owned();
                return Some(GraphRequest { token, dest, head });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Return the value of a header.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
