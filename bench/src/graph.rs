//! A stand-in for Graph that costs as little as possible: it answers every POST as sent after a fixed latency, and
//! counts deliveries by recipient. A recipient that begins with `hang-` is answered after thirty seconds. One that ends with
//! a time, as in `m-17-1764288000000000`, tells how much later its call came; one group for each beginning, here `m`.
//!
//! `GET /count` tells `{"total":…,"unique":…,"most_in_flight":…,"late":{…}}`. It never limits, and never refuses.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use crate::load::now_micros;

/// What the stand-in has seen.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Deliveries {
    pub total: u64,
    /// Different recipients; the load never writes to one twice.
    pub unique: u64,
    pub most_in_flight: u64,
    /// By the beginning of the recipients: how long after the time in their names the calls came.
    pub late: BTreeMap<String, Lateness>,
}

/// How much later than the time in a recipient's name calls came.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Lateness {
    pub calls: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Microseconds since the epoch are above this; other numbers that end a name are no times.
const A_TIME: u64 = 1_000_000_000_000_000;

#[derive(Default)]
struct Seen {
    latency: Duration,
    total: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
    recipients: Mutex<Recipients>,
}

#[derive(Default)]
struct Recipients {
    unique: HashSet<Box<[u8]>>,
    /// In microseconds.
    late: BTreeMap<String, Histogram<u64>>,
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
    let arrived = now_micros();
    let in_flight = seen.in_flight.fetch_add(1, Relaxed) + 1;
    seen.most_in_flight.fetch_max(in_flight, Relaxed);
    if recipient.starts_with(b"hang-") {
        tokio::time::sleep(Duration::from_secs(30)).await;
    } else if !seen.latency.is_zero() {
        tokio::time::sleep(seen.latency).await;
    }
    seen.in_flight.fetch_sub(1, Relaxed);
    let number = seen.total.fetch_add(1, Relaxed);
    seen.recipients.lock().expect("no holder panics").add(recipient, arrived);
    let recipient = String::from_utf8_lossy(recipient);
    Ok(json(format!(r#"{{"recipient_id":"{recipient}","message_id":"m_{number}"}}"#)))
}

impl Seen {
    fn deliveries(&self) -> Deliveries {
        let recipients = self.recipients.lock().expect("no holder panics");
        Deliveries {
            total: self.total.load(Relaxed),
            unique: recipients.unique.len() as u64,
            most_in_flight: self.most_in_flight.load(Relaxed),
            late: recipients.late.iter().map(|(name, late)| (name.clone(), lateness(late))).collect(),
        }
    }
}

impl Recipients {
    fn add(&mut self, recipient: &[u8], arrived: u64) {
        self.unique.insert(recipient.into());
        let Some((name, time)) = name_and_time(recipient) else { return };
        if !self.late.contains_key(name) {
            let Ok(histogram) = Histogram::new(3) else { return };
            self.late.insert(name.to_owned(), histogram);
        }
        if let Some(histogram) = self.late.get_mut(name) {
            // It grows as it must; no value is too large for it.
            let _ = histogram.record(arrived.saturating_sub(time));
        }
    }
}

/// The beginning of a recipient's name, and the time it ends with.
fn name_and_time(recipient: &[u8]) -> Option<(&str, u64)> {
    let recipient = std::str::from_utf8(recipient).ok()?;
    let (rest, time) = recipient.rsplit_once('-')?;
    let time = time.parse().ok().filter(|time| *time > A_TIME)?;
    Some((rest.split('-').next()?, time))
}

fn lateness(late: &Histogram<u64>) -> Lateness {
    let at = |quantile| late.value_at_quantile(quantile) as f64 / 1e3;
    Lateness { calls: late.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
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
