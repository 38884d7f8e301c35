//! A look at `cdls.rejected` that takes nothing away: its messages are read without an acknowledgement, and are in their
//! places again when the connection ends.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

use super::super::public::REJECTED;

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
    /// The parameters, as a JSON object; empty where they were unreadable.
    pub body: Vec<u8>,
}

/// Return the newest of the queue, oldest first, and how many it holds. The error never holds the password.
pub async fn newest(
    url: &SecretString,
    at_most: usize,
    patience: Duration,
) -> Result<(Vec<RejectedMessage>, u32), String> {
    match tokio::time::timeout(patience, read(url, at_most)).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(patience))),
    }
}

async fn read(url: &SecretString, at_most: usize) -> lapin::Result<(Vec<RejectedMessage>, u32)> {
    let properties = ConnectionProperties::default().with_connection_name("meta-dispatch rejected".into());
    let connection = Connection::connect(url.expose_secret(), properties).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(REJECTED.into(), options, FieldTable::default()).await?;
    let count = queue.message_count();
    let mut newest = VecDeque::new();
    if count > 0 && at_most > 0 {
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(REJECTED.into(), "".into(), options, FieldTable::default()).await?;
        for _ in 0..count {
            let Some(delivery) = consumer.next().await else { break };
            if newest.len() >= at_most {
                newest.pop_front();
            }
            newest.push_back(message(delivery?));
        }
    }
    // Unacknowledged messages return to the queue when the connection closes.
    let _ = connection.close(200, "read".into()).await;
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
