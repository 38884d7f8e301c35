//! The load, and the first ledger: the messages that the client meant to send, and the answers that accepted
//! them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub const LINES: u64 = 16;
/// Recipients of a line, each in one lane: few, so that calls to the same one would meet.
const RECIPIENTS: u64 = 5;
/// One recipient in this many is written to in the lane `bulk`.
const BULK: u64 = 5;

/// The client's knowledge of one message.
#[derive(Debug, Clone)]
pub struct Sent {
    pub line: u64,
    /// Set by an answer "logged and queued"; without one the message may or may not be in the log.
    pub accepted: Option<(i64, Instant)>,
}

/// The client's ledger; the message with the marker `m7` is the seventh.
#[derive(Clone, Default)]
pub struct Messages(Arc<Mutex<Vec<Sent>>>);

impl Messages {
    pub fn snapshot(&self) -> Vec<Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn intend(&self, line: impl Fn(u64) -> u64) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.len() as u64;
        all.push(Sent { line: line(number), accepted: None });
        number
    }

    fn accepted(&self, number: u64, id: i64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all[number as usize].accepted = Some((id, Instant::now()));
    }
}

/// The targets and the rate of the load.
pub struct Load {
    pub ingests: Vec<String>,
    pub tsid: String,
    pub per_second: u32,
    pub messages: Messages,
}

impl Load {
    /// Send at a steady rate, whatever the answers, until `stop`; then wait for requests under way.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(8))
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()?;
        let mut tick = tokio::time::interval(Duration::from_secs(1) / self.per_second);
        let mut requests = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            let number = self.messages.intend(line);
            let url = format!(
                "http://{}/api/v2/MakeMessenger.php",
                self.ingests[number as usize / 3 % self.ingests.len()]
            );
            let request = client.post(url).json(&body(number, &self.tsid));
            let messages = self.messages.clone();
            requests.spawn(async move {
                if let Some(id) = accepted_id(request).await {
                    messages.accepted(number, id);
                }
            });
            while requests.try_join_next().is_some() {}
        }
        while requests.join_next().await.is_some() {}
        Ok(())
    }
}

fn line(number: u64) -> u64 {
    number % LINES + 1
}

fn body(number: u64, tsid: &str) -> serde_json::Value {
    let recipient = number / LINES % RECIPIENTS;
    let priority = if recipient % BULK == BULK - 1 { "bulk" } else { "high" };
    serde_json::json!({
        "tsid": tsid,
        "app_id": line(number),
        "dest": format!("{priority}-{}-{recipient}", line(number)),
        "mdata": format!("m{number}"),
        "msg_id": format!("m{number}"),
        "priority": priority,
    })
}

/// Return the row's id, if the answer states that the message was logged. Every other answer leaves it open.
async fn accepted_id(request: reqwest::RequestBuilder) -> Option<i64> {
    let response = request.send().await.ok()?;
    let is_ok = response.status().is_success();
    let answer: serde_json::Value = response.json().await.ok()?;
    let id = answer.pointer("/return/cdls_id")?.as_i64()?;
    (is_ok && id > 0).then_some(id)
}
