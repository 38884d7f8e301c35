//! A look at `cdls.rejected`, or at `cdls.rejected.unauthenticated`, that takes nothing away: the messages are read
//! without an acknowledgement, and are in their places again when the connection ends.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::connection::{Endpoint, SessionError};
use crate::settings::BrokerSettings;

/// A refused submission as the queue holds it: without its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedMessage {
    pub status_code: Option<i64>,
    pub status: String,
    pub detail: String,
    /// The class that the submission was meant for.
    pub routing_key: String,
    /// Unix seconds; `None` where an earlier version has put it there.
    pub at: Option<u64>,
    pub user_id: Option<String>,
    pub message_id: Option<String>,
    /// The parameters, as a JSON object; empty where they were unreadable, or their sender is not known.
    pub body: Vec<u8>,
}

/// Return the newest of the queue, oldest first, and how many it holds. The error never holds the password.
pub async fn newest(
    settings: &BrokerSettings,
    queue: &str,
    at_most: usize,
    patience: Duration,
) -> Result<(Vec<RejectedMessage>, u32), String> {
    let endpoint = Endpoint::of(settings).map_err(|error| error.to_string())?;
    match tokio::time::timeout(patience, read(&endpoint, queue, at_most)).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(patience))),
    }
}

async fn read(
    endpoint: &Endpoint,
    queue: &str,
    at_most: usize,
) -> Result<(Vec<RejectedMessage>, u32), SessionError> {
    let link = endpoint.connect("rejected").await?;
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    let count = declared.message_count();
    let mut newest = VecDeque::new();
    if count > 0 && at_most > 0 {
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        for _ in 0..count {
            let Some(delivery) = consumer.next().await else { break };
            if newest.len() >= at_most {
                newest.pop_front();
            }
            newest.push_back(message(delivery?));
        }
    }
    // Unacknowledged messages return to the queue when the connection closes.
    link.close().await;
    Ok((newest.into(), count))
}

fn message(delivery: Delivery) -> RejectedMessage {
    let Delivery { properties, data, .. } = delivery;
    let header = |name: &str| properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
    let text = |name: &str| match header(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    };
    let status_code = match header("status_code") {
        Some(AMQPValue::LongInt(code)) => Some(i64::from(*code)),
        Some(AMQPValue::LongLongInt(code)) => Some(*code),
        _ => None,
    };
    RejectedMessage {
        status_code,
        status: text("status"),
        detail: text("detail"),
        routing_key: text("routing_key"),
        at: *properties.timestamp(),
        user_id: Some(text("user_id")).filter(|user| !user.is_empty()),
        message_id: properties.message_id().as_ref().map(|id| id.as_str().to_owned()),
        body: data,
    }
}
