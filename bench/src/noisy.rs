//! One account beside another that floods: messages and lists of the quiet account at a steady rate, alone and
//! beside each kind of flood, at 50 times its rate.
//!
//! Each account has a quota of twice the quiet one's rate. The floods: single messages, batches, lists, and
//! submissions over RabbitMQ.

use std::time::{Duration, Instant};

use anyhow::bail;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ConnectionProperties};
use serde::Serialize;
use testkit::program::Program;

use crate::arguments::RunArguments;
use crate::database::Statements;
use crate::ground::{Ground, on_ground};
use crate::load::{self, LoadReport};
use crate::measure::{SINGLE, System, Work};
use crate::product::{self, Setup};

/// Messages a second of the quiet account.
const RATE: u64 = 50;
const FLOOD_RATE: u64 = 50 * RATE;
const QUOTA: u32 = 2 * RATE as u32;
/// Length of each part.
const SECONDS: u64 = 20;
/// The time between two lists of the quiet account, and how many lists the noisy one has under way.
const LIST_EVERY: Duration = Duration::from_millis(100);
const LISTS: usize = 60;
/// The lines of the noisy account.
const FIRST_LINE: u64 = 101;
const LINES: u64 = 8;
/// A flood ends with its part.
const ENDLESS: u64 = 1_000_000_000;
const PERSISTENT: u8 = 2;
/// The flood over RabbitMQ comes in so many portions a second.
const PORTIONS: u64 = 50;

#[derive(Debug, Clone, Copy)]
enum Flood {
    Singles,
    Batches,
    Lists,
    Submissions,
}

const FLOODS: [(Flood, &str); 4] = [
    (Flood::Singles, "single messages"),
    (Flood::Batches, "batches of 1,000"),
    (Flood::Lists, "60 lists at once"),
    (Flood::Submissions, "submissions over RabbitMQ"),
];

/// One kind of request of the quiet account: alone, and beside a flood.
#[derive(Debug, Clone, Serialize)]
pub struct Noisy {
    pub flood: String,
    pub request: String,
    pub idle_p50_ms: f64,
    pub idle_p99_ms: f64,
    pub beside_p50_ms: f64,
    pub beside_p99_ms: f64,
    /// Requests of the quiet account that were refused beside the flood.
    pub refused: u64,
}

impl Noisy {
    /// Return how many times the p99 of the idle system the one beside the flood is.
    pub fn ratio(&self) -> f64 {
        self.beside_p99_ms / self.idle_p99_ms
    }
}

pub async fn measure(arguments: &RunArguments) -> anyhow::Result<Vec<Noisy>> {
    let seconds = (SECONDS / arguments.divide).max(2);
    on_ground(arguments, Statements::Uncounted, async |ground| {
        let mut system = product::start(ground, Setup { quota: QUOTA, ..Setup::default() }).await?;
        let noisy = NoisyAccount::add(ground, &system).await?;
        let idle = Steady::measure(&system, seconds).await?;
        let mut figures = Vec::new();
        for (flood, name) in FLOODS {
            let beside = tokio::select! {
                beside = Steady::measure(&system, seconds) => beside?,
                ended = noisy.flood(&system, flood) => {
                    ended?;
                    bail!("the flood of {name} ended before its time");
                }
            };
            system.alive()?;
            figures.extend(compared(name, &idle, &beside));
        }
        Ok((system, figures))
    })
    .await
}

fn compared(flood: &str, idle: &Steady, beside: &Steady) -> [Noisy; 2] {
    let list = |lists: &Histogram<u64>, quantile| lists.value_at_quantile(quantile) as f64 / 1e3;
    [
        Noisy {
            flood: flood.to_owned(),
            request: "messages".to_owned(),
            idle_p50_ms: idle.messages.p50_ms,
            idle_p99_ms: idle.messages.p99_ms,
            beside_p50_ms: beside.messages.p50_ms,
            beside_p99_ms: beside.messages.p99_ms,
            refused: beside.messages.refused,
        },
        Noisy {
            flood: flood.to_owned(),
            request: "lists".to_owned(),
            idle_p50_ms: list(&idle.lists, 0.5),
            idle_p99_ms: list(&idle.lists, 0.99),
            beside_p50_ms: list(&beside.lists, 0.5),
            beside_p99_ms: list(&beside.lists, 0.99),
            refused: beside.lists_refused,
        },
    ]
}

/// The times of the quiet account's requests.
struct Steady {
    messages: LoadReport,
    /// In microseconds.
    lists: Histogram<u64>,
    lists_refused: u64,
}

impl Steady {
    async fn measure(system: &System, seconds: u64) -> anyhow::Result<Steady> {
        let work = Work { messages: RATE * seconds, connections: 16, rate: RATE, ..SINGLE };
        let listing = lists(system, Duration::from_secs(seconds));
        let (messages, (lists, lists_refused)) =
            tokio::try_join!(system.send_as(&system.tsid, "quiet-", work), listing)?;
        Ok(Steady { messages, lists, lists_refused })
    }
}

/// Read the newest messages of the quiet account from time to time.
async fn lists(system: &System, length: Duration) -> anyhow::Result<(Histogram<u64>, u64)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut times, mut refused) = (Histogram::new(3)?, 0);
    let mut tick = tokio::time::interval(LIST_EVERY);
    let begun = Instant::now();
    while begun.elapsed() < length {
        tick.tick().await;
        let asked = Instant::now();
        refused += u64::from(!list(&client, system, &system.tsid, 100).await?);
        times.record(asked.elapsed().as_micros() as u64)?;
    }
    Ok((times, refused))
}

/// Read a page; return whether it was answered.
async fn list(client: &reqwest::Client, system: &System, tsid: &str, limit: u32) -> anyhow::Result<bool> {
    let url = format!("http://{}/api/v2/messages?limit={limit}", system.host);
    let answer = client.get(url).bearer_auth(tsid).send().await?;
    let is_answered = answer.status().is_success();
    answer.bytes().await?;
    Ok(is_answered)
}

struct NoisyAccount {
    tsid: String,
    amqp_url: String,
}

impl NoisyAccount {
    /// Add the account, with lines of its own.
    async fn add(ground: &Ground, system: &System) -> anyhow::Result<NoisyAccount> {
        let program = Program::new(&ground.program).database(&ground.database_url).broker(&ground.amqp_url);
        let tsid = product::account(&program).await?;
        sqlx::query(
            "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id, v8l_rate_text) \
             select n, 2, 'messenger', 'EAA-noisy-' || n, n::text, 2000 from generate_series($1, $1 + $2 - 1) as n",
        )
        .bind(FIRST_LINE as i64)
        .bind(LINES as i64)
        .execute(&system.database)
        .await?;
        Ok(NoisyAccount { tsid, amqp_url: ground.amqp_url.clone() })
    }

    /// Flood until the future is dropped.
    async fn flood(&self, system: &System, flood: Flood) -> anyhow::Result<()> {
        let work = Work { messages: ENDLESS, first_line: FIRST_LINE, lines: LINES, ..SINGLE };
        match flood {
            Flood::Singles => {
                let work = Work { rate: FLOOD_RATE, ..work };
                system.send_as(&self.tsid, "noisy-", work).await.map(drop)
            }
            Flood::Batches => {
                let work = Work { batch: 1_000, connections: 4, ..work };
                system.send_as(&self.tsid, "noisy-", work).await.map(drop)
            }
            Flood::Lists => {
                let client = reqwest::Client::builder().no_proxy().build()?;
                try_join_all((0..LISTS).map(|_| self.list(&client, system))).await.map(drop)
            }
            Flood::Submissions => self.submit().await,
        }
    }

    /// Read the longest pages, one after the other.
    async fn list(&self, client: &reqwest::Client, system: &System) -> anyhow::Result<()> {
        loop {
            list(client, system, &self.tsid, 1_000).await?;
        }
    }

    async fn submit(&self) -> anyhow::Result<()> {
        let connection = lapin::Connection::connect(&self.amqp_url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let mut headers = FieldTable::default();
        headers.insert("tsid".into(), AMQPValue::LongString(self.tsid.as_str().into()));
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
        let mut tick = tokio::time::interval(Duration::from_secs(1) / PORTIONS as u32);
        let mut number = 0;
        loop {
            tick.tick().await;
            for _ in 0..FLOOD_RATE / PORTIONS {
                let body = serde_json::json!({
                    "app_id": FIRST_LINE + number % LINES,
                    "dest": format!("noisy-{number}"),
                    "mdata": load::text(number),
                });
                let (body, options) = (body.to_string(), BasicPublishOptions::default());
                let _confirm = channel
                    .basic_publish(
                        "cdls.submit".into(),
                        "messenger".into(),
                        options,
                        body.as_bytes(),
                        properties.clone(),
                    )
                    .await?;
                number += 1;
            }
        }
    }
}
