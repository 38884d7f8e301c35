//! The load generator: as many connections as asked for, each with one request in flight, until the count is
//! reached; every message to a recipient of its own, whose name ends with the time of its request, for the
//! stand-in to compare with its own clock. Prints one JSON object. Batches are sent by `batch`.

mod batch;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use testkit::http::Connection;

/// The form of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// The send endpoint of meta-dispatch.
    Product,
    /// `{"recipient_id":…,"text":…}`, for the peers.
    Peer,
}

#[derive(Debug, clap::Args)]
pub struct LoadArguments {
    /// Host and port
    #[arg(long)]
    pub host: String,
    /// Path
    #[arg(long)]
    pub path: String,
    #[arg(long, value_enum)]
    pub shape: Shape,
    /// Messages to send
    #[arg(long)]
    pub count: u64,
    #[arg(long, default_value_t = 64)]
    pub connections: u64,
    /// Messages a second; 0 is as fast as answers come
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Messages a request, by the batch endpoint; 0 is one, by the send endpoint (product)
    #[arg(long, default_value_t = 0)]
    pub batch: u64,
    /// Prefix of the recipients
    #[arg(long)]
    pub prefix: String,
    /// Campaign of every message of a batch, and of every second single message (product)
    #[arg(long)]
    pub campaign: Option<String>,
    /// Lines that are written to in turn: the first, and how many (product)
    #[arg(long, default_value_t = 1)]
    pub first_line: u64,
    #[arg(long, default_value_t = 1)]
    pub lines: u64,
    /// The account's token (product)
    #[arg(long, env = "BENCH_TSID", default_value = "")]
    pub tsid: String,
}

/// The observations of the load.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    pub accepted: u64,
    pub refused: u64,
    /// The time at which the first request was written, in seconds since the epoch.
    pub started: f64,
    pub seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[tokio::main(flavor = "current_thread")]
pub async fn run(arguments: LoadArguments) -> anyhow::Result<()> {
    let local = tokio::task::LocalSet::new();
    let report = local.run_until(drive(Rc::new(arguments))).await?;
    #[allow(clippy::print_stdout)]
    {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

async fn drive(arguments: Rc<LoadArguments>) -> anyhow::Result<LoadReport> {
    let next = Rc::new(Cell::new(0));
    let started = time::OffsetDateTime::now_utc();
    let begun = Instant::now();
    let connections: Vec<_> = (0..arguments.connections)
        .map(|_| tokio::task::spawn_local(connection(Rc::clone(&arguments), Rc::clone(&next), begun)))
        .collect();
    let mut latencies = Histogram::<u64>::new(3)?;
    let (mut accepted, mut refused) = (0, 0);
    for connection in connections {
        let part = connection.await??;
        accepted += part.accepted;
        refused += part.refused;
        latencies.add(part.latencies)?;
    }
    Ok(LoadReport {
        accepted,
        refused,
        started: started.unix_timestamp_nanos() as f64 / 1e9,
        seconds: begun.elapsed().as_secs_f64(),
        p50_ms: latencies.value_at_quantile(0.5) as f64 / 1e3,
        p99_ms: latencies.value_at_quantile(0.99) as f64 / 1e3,
    })
}

/// The observations of one connection; latencies in microseconds.
pub struct Part {
    pub accepted: u64,
    pub refused: u64,
    pub latencies: Histogram<u64>,
}

impl Part {
    pub fn new() -> anyhow::Result<Part> {
        Ok(Part { accepted: 0, refused: 0, latencies: Histogram::new(3)? })
    }
}

async fn connection(
    arguments: Rc<LoadArguments>,
    next: Rc<Cell<u64>>,
    begun: Instant,
) -> anyhow::Result<Part> {
    let mut part = Part::new()?;
    if arguments.batch > 0 {
        batch::send(&arguments, &next, &mut part).await?;
        return Ok(part);
    }
    let mut connection = Connection::open(&arguments.host).await?;
    loop {
        let number = next.get();
        if number >= arguments.count {
            return Ok(part);
        }
        next.set(number + 1);
        if let Some(micros) = (number * 1_000_000).checked_div(arguments.rate) {
            tokio::time::sleep_until((begun + Duration::from_micros(micros)).into()).await;
        }
        let request = arguments.request(number);
        let asked = Instant::now();
        let status = connection.exchange(request.as_bytes()).await?;
        part.latencies.record(asked.elapsed().as_micros() as u64)?;
        if (200..300).contains(&status) {
            part.accepted += 1;
        } else {
            part.refused += 1;
            anyhow::ensure!(
                part.refused > 1 || status == 503,
                "refused: {}",
                String::from_utf8_lossy(connection.answer())
            );
        }
    }
}

/// Return the time in microseconds since the epoch.
pub fn now_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_micros() as u64
}

/// Return the text of a message.
pub fn text(number: u64) -> String {
    format!(
        "Hello number {number}! Your order has left our warehouse and will be with you on Thursday between nine and \
         noon. Reply STOP to hear no more from us, or HELP to talk to a person."
    )
}

impl LoadArguments {
    /// Return the line that sends a message.
    pub fn line(&self, number: u64) -> u64 {
        self.first_line + number % self.lines
    }

    /// Return the recipient of a message that is sent now.
    pub fn recipient(&self, number: u64) -> String {
        format!("{}{number}-{}", self.prefix, now_micros())
    }

    fn request(&self, number: u64) -> String {
        let (recipient, text) = (self.recipient(number), text(number));
        let body = match self.shape {
            Shape::Product => {
                let (tsid, line) = (&self.tsid, self.line(number));
                let campaign = match &self.campaign {
                    Some(campaign) if number.is_multiple_of(2) => format!(r#","cp_id":"{campaign}""#),
                    _ => String::new(),
                };
                format!(
                    r#"{{"tsid":"{tsid}","app_id":{line},"dest":"{recipient}","mtype":"text","mdata":"{text}"{campaign}}}"#
                )
            }
            Shape::Peer => format!(r#"{{"recipient_id":"{recipient}","text":"{text}"}}"#),
        };
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.path,
            self.host,
            body.len(),
        )
    }
}
