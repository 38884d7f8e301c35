//! A producer and listener like another program: plain AMQP, with the documented names and no code of the
//! program.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use meta_dispatch::domain::LineId;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::pipeline::{PATIENCE, Pipeline, eventually};
use super::rabbitmq::Vhost;

pub struct Producer {
    pub channel: Channel,
    connection: Connection,
    tsid: String,
    exchange: String,
}

impl Producer {
    /// Connect once the intake is ready: its queue has a consumer.
    pub async fn connect(pipeline: &Pipeline) -> Producer {
        let producer = Producer::connect_to(pipeline.vhost(), pipeline.tsid.expose_secret()).await;
        producer.intake_is_up().await;
        producer
    }

    pub async fn intake_is_up(&self) {
        self.queue_is_consumed("cdls.submit").await;
    }

    /// Wait for the program to consume a queue of submissions.
    pub async fn queue_is_consumed(&self, queue: &str) {
        eventually("an intake that consumes", || async {
            let channel = self.channel().await;
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
            match queue.map(|queue| queue.consumer_count()) {
                Ok(1..) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    pub async fn connect_to(vhost: &Vhost, tsid: &str) -> Producer {
        Producer::over(vhost.connect().await.0, tsid).await
    }

    pub async fn over(connection: Connection, tsid: &str) -> Producer {
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let exchange = "cdls.submit".to_owned();
        Producer { channel, connection, tsid: tsid.to_owned(), exchange }
    }

    /// Publish to another exchange from now on.
    pub fn to(self, exchange: &str) -> Producer {
        Producer { exchange: exchange.to_owned(), ..self }
    }

    /// Open a channel for publishes that may be refused: a refusal closes it.
    pub async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    /// Return the properties of a submission: persistent, with the token as header.
    pub fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("tsid".into(), AMQPValue::LongString(self.tsid.as_str().into()));
        BasicProperties::default().with_delivery_mode(2).with_headers(headers)
    }

    /// Publish and wait for the broker's confirm.
    pub async fn submit(&self, routing_key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let confirm = self
            .channel
            .basic_publish(self.exchange.as_str().into(), routing_key.into(), options, body, properties)
            .await
            .expect("published")
            .await
            .expect("confirmed");
        assert!(confirm.is_ack(), "{confirm:?}");
    }

    pub async fn submit_text(&self, line: LineId, dest: &str, text: &str, properties: BasicProperties) {
        let body = json!({"app_id": line.0, "dest": dest, "mdata": text}).to_string();
        self.submit("messenger", body.as_bytes(), properties).await;
    }

    /// Wait for the next refused submission.
    pub async fn rejected(&self) -> BasicGetMessage {
        self.next_in("cdls.rejected").await
    }

    /// Wait for the next refused submission of a sender that is not known.
    pub async fn unauthenticated(&self) -> BasicGetMessage {
        self.next_in("cdls.rejected.unauthenticated").await
    }

    async fn next_in(&self, queue: &str) -> BasicGetMessage {
        eventually("a refused submission", || async {
            let options = BasicGetOptions { no_ack: true };
            let channel = self.channel().await;
            channel
                .basic_get(queue.into(), options)
                .await
                .expect("the queue exists")
                .ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// Open a queue of the producer's own; return its inbox.
    pub async fn reply_queue(&self) -> Inbox {
        self.queue("").await
    }

    /// Open a queue of this name; return its inbox.
    pub async fn queue(&self, name: &str) -> Inbox {
        self.inbox(name, None).await
    }

    /// Consume answers to submissions over the same channel, without a queue.
    pub async fn direct_replies(&self) -> Inbox {
        self.consume("amq.rabbitmq.reply-to".to_owned()).await
    }

    /// Listen to events.
    pub async fn events(&self, pattern: &str) -> Inbox {
        self.events_in("", pattern).await
    }

    /// Listen to events with a queue of this name.
    pub async fn events_in(&self, queue: &str, pattern: &str) -> Inbox {
        self.inbox(queue, Some(("cdls.events", pattern))).await
    }

    /// Listen to the events of an exchange with a queue of this name.
    pub async fn events_of(&self, exchange: &str, queue: &str, pattern: &str) -> Inbox {
        self.inbox(queue, Some((exchange, pattern))).await
    }

    async fn inbox(&self, name: &str, bound_to: Option<(&str, &str)>) -> Inbox {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue =
            self.channel.queue_declare(name.into(), options, FieldTable::default()).await.expect("a queue");
        let queue = queue.name().as_str().to_owned();
        if let Some((exchange, pattern)) = bound_to {
            self.channel
                .queue_bind(
                    queue.as_str().into(),
                    exchange.into(),
                    pattern.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .expect("the exchange exists");
        }
        self.consume(queue).await
    }

    async fn consume(&self, queue: String) -> Inbox {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consumer = self
            .channel
            .basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())
            .await
            .expect("a consumer");
        Inbox { queue, consumer }
    }
}

pub struct Inbox {
    pub queue: String,
    consumer: Consumer,
}

impl Inbox {
    pub async fn next(&mut self) -> Delivery {
        tokio::time::timeout(PATIENCE, self.consumer.next())
            .await
            .expect("a message in time")
            .expect("the consumer lives")
            .expect("the channel lives")
    }

    /// Return the next message as JSON, with its `correlation_id` or routing key.
    pub async fn next_json(&mut self) -> (String, Value) {
        let delivery = self.next().await;
        let name = delivery.properties.correlation_id().as_ref().unwrap_or(&delivery.routing_key);
        (name.as_str().to_owned(), serde_json::from_slice(&delivery.data).expect("JSON"))
    }

    /// Whether no more messages arrive within a moment, after a due event has happened.
    pub async fn is_empty(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.consumer.next()).await.is_err()
    }
}

/// Return an address of direct reply-to in the broker's form, of a process on a node that is not there: RabbitMQ ends the
/// connection that publishes to it.
pub fn foreign_direct_reply_to() -> String {
    let node = b"reply@1";
    let numbers = [0, 0, 7, 7, 0, 0, 0, 0, 0x60, 0, 0, 1];
    let pid = [&[131, 88, 118, 0, 7][..], node, &numbers].concat();
    format!("amq.rabbitmq.reply-to.{}.{}", BASE64.encode(pid), BASE64.encode(b"a key of 16 byte"))
}

/// Return a header of a message as text.
pub fn header(properties: &BasicProperties, name: &str) -> String {
    let headers = properties.headers().as_ref().expect("headers");
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        Some(AMQPValue::LongInt(number)) => number.to_string(),
        Some(AMQPValue::LongLongInt(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
