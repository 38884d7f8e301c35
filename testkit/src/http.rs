//! HTTP/1.1 by hand: one keep-alive connection that writes prepared requests and reads answers with a content length,
//! because a load generator must cost less than the program it loads; and the looks at a process that starts.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than `/readyz` waits for the database.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// A keep-alive connection with one request at a time.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to a host and port.
    pub async fn open(host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| format!("connecting to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// Sends a request and reads its answer; returns the status.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some(status) = complete(&self.received)? {
                return Ok(status);
            }
        }
    }

    /// The last answer, head and body.
    pub fn answer(&self) -> &[u8] {
        &self.received
    }
}

/// The status, once the whole answer is there.
fn complete(received: &[u8]) -> anyhow::Result<Option<u16>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(received)? else { return Ok(None) };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .context("an answer without a content length")?;
    let length: usize = std::str::from_utf8(length.value)?.trim().parse()?;
    Ok((received.len() >= head + length).then(|| response.code.unwrap_or_default()))
}

/// One look whether something listens at a host and port; the error says why not.
pub async fn listens(address: &str) -> Result<(), String> {
    TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
}

/// One look at `/readyz` of an admin listener; the error says why the process is not ready.
pub async fn ready(admin: &str) -> Result<(), String> {
    let look = async {
        let mut connection = Connection::open(admin).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        let status = connection.exchange(request.as_bytes()).await?;
        ensure!(status == 200, "{}", String::from_utf8_lossy(connection.answer()));
        anyhow::Ok(())
    };
    match tokio::time::timeout(ANSWERS_WITHIN, look).await {
        Ok(answered) => answered.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("/readyz gives no answer within {ANSWERS_WITHIN:?}")),
    }
}
