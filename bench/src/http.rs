//! One keep-alive HTTP/1.1 connection that writes prepared requests and reads answers with a content length: a load
//! generator must cost less than what it loads.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
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
