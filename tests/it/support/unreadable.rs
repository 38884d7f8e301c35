//! A producer that writes AMQP frames by hand, because no client library sends such frames: a `message_id`
//! that is no UTF-8, headers that are nested as deep as a frame allows.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

/// Publish a submission with a `message_id` that is no UTF-8 to an exchange, and wait until the broker has it.
pub async fn publish(url: &str, exchange: &str, line: i64) {
    let mut properties = (1_u16 << 7).to_be_bytes().to_vec();
    short(&mut properties, b"\xff\xfe\xfd");
    publish_with(url, exchange, line, &properties).await;
}

/// Publish a submission whose headers are a table in a table, 18,000 deep.
pub async fn publish_deep(url: &str, line: i64) {
    const DEPTH: u32 = 18_000;
    const LEVEL: u32 = 7;
    let mut headers = Vec::new();
    for inner in (0..DEPTH).rev() {
        short(&mut headers, b"a");
        headers.push(b'F');
        headers.extend((inner * LEVEL).to_be_bytes());
    }
    let mut properties = (1_u16 << 13).to_be_bytes().to_vec();
    long(&mut properties, &headers);
    publish_with(url, "cdls.submit", line, &properties).await;
}

async fn publish_with(url: &str, exchange: &str, line: i64, properties: &[u8]) {
    let url: Url = url.parse().expect("a URL");
    let address = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
    let mut stream = TcpStream::connect(address).await.expect("the broker listens");
    stream.write_all(b"AMQP\0\0\x09\x01").await.expect("written");
    frame(&mut stream).await; // connection.start
    let mut start_ok = method(10, 11);
    start_ok.extend(0_u32.to_be_bytes()); // client properties
    short(&mut start_ok, b"PLAIN");
    long(&mut start_ok, format!("\0{}\0{}", url.username(), url.password().unwrap_or_default()).as_bytes());
    short(&mut start_ok, b"en_US");
    send(&mut stream, 1, 0, &start_ok).await;
    let tune = frame(&mut stream).await;
    let mut tune_ok = method(10, 31);
    tune_ok.extend(&tune[4..10]);
    tune_ok.extend(0_u16.to_be_bytes()); // no heartbeat
    send(&mut stream, 1, 0, &tune_ok).await;
    let mut open = method(10, 40);
    let vhost = url.path().trim_start_matches('/').replace("%2f", "/");
    short(&mut open, vhost.as_bytes());
    open.extend([0, 0]);
    send(&mut stream, 1, 0, &open).await;
    frame(&mut stream).await; // connection.open-ok
    send(&mut stream, 1, 1, &[&method(20, 10)[..], &[0]].concat()).await;
    frame(&mut stream).await; // channel.open-ok
    send(&mut stream, 1, 1, &[&method(85, 10)[..], &[0]].concat()).await;
    frame(&mut stream).await; // confirm.select-ok

    let body = serde_json::json!({"app_id": line, "dest": "nobody", "mdata": "unreadable"}).to_string();
    let mut publish = method(60, 40);
    publish.extend([0, 0]);
    short(&mut publish, exchange.as_bytes());
    short(&mut publish, b"messenger");
    publish.push(0);
    send(&mut stream, 1, 1, &publish).await;
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend(properties);
    send(&mut stream, 2, 1, &header).await;
    send(&mut stream, 3, 1, body.as_bytes()).await;
    assert_eq!(frame(&mut stream).await[..4], [0, 60, 0, 80], "basic.ack");
}

fn method(class: u16, method: u16) -> Vec<u8> {
    [class.to_be_bytes(), method.to_be_bytes()].concat()
}

fn short(to: &mut Vec<u8>, text: &[u8]) {
    to.push(text.len() as u8);
    to.extend(text);
}

fn long(to: &mut Vec<u8>, text: &[u8]) {
    to.extend((text.len() as u32).to_be_bytes());
    to.extend(text);
}

async fn send(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    long(&mut bytes, payload);
    bytes.push(0xce);
    stream.write_all(&bytes).await.expect("written");
}

/// Read the payload of the next frame.
async fn frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.expect("the broker goes on");
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut payload = vec![0; length + 1];
    stream.read_exact(&mut payload).await.expect("a whole frame");
    payload.pop();
    payload
}
