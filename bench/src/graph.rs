//! The stand-in for Graph, at its cheapest: it answers every POST as sent after a fixed latency, and counts
//! deliveries by recipient. A recipient that begins with `hang-` is answered after thirty seconds. One that
//! ends with a time, as in `m-17-1764288000000000`, shows how much later its call came; one group for each
//! beginning, here `m`.
//!
//! `GET /count` returns `{"total":…,"unique":…,"most_in_flight":…,"late":{…}}`. Never here: limits and
//! refusals.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use testkit::graph::{Answer, Call, Graph};

use crate::load::now_micros;

/// The calls that the stand-in has seen.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Deliveries {
    pub total: u64,
    /// Different recipients; the load never writes to one twice.
    pub unique: u64,
    pub most_in_flight: u64,
    /// The time from the one in a recipient's name to the call, by the beginning of the name.
    pub late: BTreeMap<String, Lateness>,
}

/// The lateness of calls, against the time in a recipient's name.
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
    let seen = Seen { latency: Duration::from_millis(latency), ..Seen::default() };
    testkit::graph::serve(listener, seen).await
}

/// A request of a client.
enum Case {
    Count,
    Send { recipient: Box<[u8]>, arrived: u64 },
}

impl Graph for Seen {
    type Case = Case;

    fn take(&self, call: &Call<'_>) -> (Case, Duration) {
        if call.method == "GET" {
            return (Case::Count, Duration::ZERO);
        }
        let (recipient, arrived) = (call.recipient(), now_micros());
        let in_flight = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.most_in_flight.fetch_max(in_flight, Relaxed);
        let hangs = recipient.starts_with(b"hang-");
        let delay = if hangs { Duration::from_secs(30) } else { self.latency };
        (Case::Send { recipient: recipient.into(), arrived }, delay)
    }

    fn answer(&self, case: Case, is_open: bool) -> Answer {
        let Case::Send { recipient, arrived } = case else {
            return Answer::Whole(200, serde_json::to_string(&self.deliveries()).unwrap_or_default());
        };
        self.in_flight.fetch_sub(1, Relaxed);
        if !is_open {
            return Answer::Cut("");
        }
        let number = self.total.fetch_add(1, Relaxed);
        let body = format!(
            r#"{{"recipient_id":"{}","message_id":"m_{number}"}}"#,
            String::from_utf8_lossy(&recipient)
        );
        self.recipients.lock().expect("no holder panics").add(recipient, arrived);
        Answer::Whole(200, body)
    }
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
    fn add(&mut self, recipient: Box<[u8]>, arrived: u64) {
        self.note_lateness(&recipient, arrived);
        self.unique.insert(recipient);
    }

    fn note_lateness(&mut self, recipient: &[u8], arrived: u64) {
        let Some((name, time)) = name_and_time(recipient) else { return };
        if !self.late.contains_key(name) {
            let Ok(histogram) = Histogram::new(3) else { return };
            self.late.insert(name.to_owned(), histogram);
        }
        if let Some(histogram) = self.late.get_mut(name) {
            // The histogram grows on demand; no value is too large for it.
            let _ = histogram.record(arrived.saturating_sub(time));
        }
    }
}

/// Return the beginning of a recipient's name, and the time at its end.
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
