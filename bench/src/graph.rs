//! A stand-in for Graph that costs as little as possible: it answers every POST as sent after a fixed latency, and
//! counts deliveries by recipient. A recipient that begins with `hang-` is answered after thirty seconds.
//!
//! `GET /count` tells `{"total":…,"unique":…,"most_in_flight":…}`. It never limits, and never refuses.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

/// What the stand-in has seen.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Deliveries {
    pub total: u64,
    /// Different recipients; the load never writes to one twice.
    pub unique: u64,
    pub most_in_flight: u64,
}

#[derive(Default)]
struct Seen {
    latency: Duration,
    total: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
    recipients: Mutex<HashSet<Box<[u8]>>>,
}

#[tokio::main]
pub async fn serve(listen: SocketAddr, latency: u64) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let seen = Arc::new(Seen { latency: Duration::from_millis(latency), ..Seen::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&seen, request));
            // A peer that closes its connection is no error of ours.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(seen: &Seen, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        return Ok(json(serde_json::to_string(&seen.deliveries()).unwrap_or_default()));
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let recipient = recipient(&body).unwrap_or_default();
    let in_flight = seen.in_flight.fetch_add(1, Relaxed) + 1;
    seen.most_in_flight.fetch_max(in_flight, Relaxed);
    if recipient.starts_with(b"hang-") {
        tokio::time::sleep(Duration::from_secs(30)).await;
    } else if !seen.latency.is_zero() {
        tokio::time::sleep(seen.latency).await;
    }
    seen.in_flight.fetch_sub(1, Relaxed);
    let number = seen.total.fetch_add(1, Relaxed);
    seen.recipients.lock().expect("no holder panics").insert(recipient.into());
    let recipient = String::from_utf8_lossy(recipient);
    Ok(json(format!(r#"{{"recipient_id":"{recipient}","message_id":"m_{number}"}}"#)))
}

impl Seen {
    fn deliveries(&self) -> Deliveries {
        Deliveries {
            total: self.total.load(Relaxed),
            unique: self.recipients.lock().expect("no holder panics").len() as u64,
            most_in_flight: self.most_in_flight.load(Relaxed),
        }
    }
}

/// The value of `"id"` in `"recipient":{"id":"…"}`, without parsing the rest: everybody measured writes it first.
fn recipient(body: &[u8]) -> Option<&[u8]> {
    let key = b"\"id\"";
    let start = body.windows(key.len()).position(|window| window == key)? + key.len();
    let open = start + body[start..].iter().position(|&byte| byte == b'"')? + 1;
    let length = body[open..].iter().position(|&byte| byte == b'"')?;
    Some(&body[open..open + length])
}

fn json(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
