//! Messages that are no jobs: replies to processes and producers, refused submissions.

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::oneshot;

use super::super::intake::Rejected;
use super::super::{public, reply_to};
use super::topology;
use crate::domain::{Reply, ReplyTo};

const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

/// A message to a queue, on its way.
pub(super) struct Outgoing {
    routing_key: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
    /// Receives whether the broker has the message; `None` where no caller asks.
    confirmed: Option<oneshot::Sender<bool>>,
}

impl Outgoing {
    /// Return an outcome for another process's waiter; `None` if the address is no reply queue.
    pub(super) fn reply(address: &str, reply: &Reply) -> Option<Outgoing> {
        let body = serde_json::to_vec(reply).expect("a reply is numbers and words");
        Some(Outgoing {
            routing_key: topology::reply_queue(address)?,
            properties: json(TRANSIENT),
            body,
            confirmed: None,
        })
    }

    /// Return an answer to a producer; `None` if it named no queue that can be replied to.
    pub(super) fn answer(to: &ReplyTo, body: Vec<u8>) -> Option<Outgoing> {
        let (routing_key, properties) = addressed(to)?;
        Some(Outgoing { routing_key, properties, body, confirmed: None })
    }

    pub(super) fn rejected(rejected: Rejected, confirmed: oneshot::Sender<bool>) -> Outgoing {
        let mut headers = FieldTable::default();
        let text = |text: String| AMQPValue::LongString(text.into());
        headers.insert("status_code".into(), AMQPValue::LongInt(rejected.status_code));
        headers.insert("status".into(), text(rejected.status));
        headers.insert("detail".into(), text(rejected.detail));
        headers.insert("routing_key".into(), text(rejected.routing_key));
        headers.insert("body_bytes".into(), AMQPValue::LongLongInt(rejected.body_bytes as i64));
        if let Some(user) = rejected.user_id {
            // Not as the property: the broker would compare it with the program's own name.
            headers.insert("user_id".into(), text(user));
        }
        let mut properties = json(PERSISTENT).with_headers(headers).with_timestamp(rejected.at);
        let short = |text: Option<String>| text.and_then(|text| ShortString::try_new(text).ok());
        if let Some(id) = short(rejected.message_id) {
            properties = properties.with_message_id(id);
        }
        if let Some(id) = short(rejected.correlation_id) {
            properties = properties.with_correlation_id(id);
        }
        let queue = if rejected.is_unauthenticated { public::UNAUTHENTICATED } else { public::REJECTED };
        Outgoing { routing_key: queue.into(), properties, body: rejected.body, confirmed: Some(confirmed) }
    }

    /// Resolve when the message is written to the socket, or confirmed where a caller asks for that.
    pub(super) async fn publish(self, channel: Channel) -> lapin::Result<()> {
        let written = channel
            .basic_publish(
                "".into(),
                self.routing_key,
                BasicPublishOptions::default(),
                &self.body,
                self.properties,
            )
            .await?;
        if let Some(confirmed) = self.confirmed {
            let has_it = matches!(written.await?, Confirmation::Ack(_));
            // The caller may be gone: the process stops.
            let _ = confirmed.send(has_it);
        }
        Ok(())
    }
}

/// Return the routing key and the properties of an answer; `None` where it may not be sent to its address.
pub(super) fn addressed(to: &ReplyTo) -> Option<(ShortString, BasicProperties)> {
    if !reply_to::takes_answers(&to.queue) {
        return None;
    }
    let mut properties = json(PERSISTENT);
    if let Some(id) = &to.correlation_id {
        properties = properties.with_correlation_id(ShortString::try_new(id.as_str()).ok()?);
    }
    Some((ShortString::try_new(to.queue.as_str()).ok()?, properties))
}

/// Return the properties of a JSON message that a broker may lose with its node.
pub(super) fn transient_json() -> BasicProperties {
    json(TRANSIENT)
}

fn json(delivery_mode: u8) -> BasicProperties {
    BasicProperties::default().with_delivery_mode(delivery_mode).with_content_type("application/json".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_no_reserved_or_made_up_address() {
        let to =
            |queue: &str| ReplyTo { queue: queue.into(), correlation_id: Some("7".into()), account: None };
        assert!(Outgoing::answer(&to("cdls.submit"), Vec::new()).is_none());
        assert!(Outgoing::answer(&to("cdls.work.07"), Vec::new()).is_none());
        assert!(Outgoing::answer(&to("amq.rabbitmq.reply-to.%%%.x"), Vec::new()).is_none());
        assert!(Outgoing::answer(&to("answers"), Vec::new()).is_some());
        assert!(Outgoing::answer(&to(&"x".repeat(300)), Vec::new()).is_none());
    }
}
