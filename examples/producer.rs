//! Submits a message over RabbitMQ and waits for its outcome: `cargo run --example producer -- AMQP_URL LINE DEST TEXT`.
//! The account's token comes from META_DISPATCH_TSID.

use std::time::Duration;

use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};

#[expect(clippy::disallowed_methods, reason = "an example has no settings of its own")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, line, dest, text] = arguments.as_slice() else { return Err("AMQP_URL LINE DEST TEXT".into()) };
    let tsid = std::env::var("META_DISPATCH_TSID")?;

    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    // A queue of our own for the answer; the server names it.
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let replies = channel.queue_declare("".into(), exclusive, FieldTable::default()).await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut answers =
        channel.basic_consume(replies.name().clone(), "".into(), no_ack, FieldTable::default()).await?;

    let id = uuid::Uuid::now_v7().to_string();
    let mut headers = FieldTable::default();
    headers.insert("tsid".into(), AMQPValue::LongString(tsid.into()));
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(id.as_str().into())
        .with_correlation_id(id.as_str().into())
        .with_reply_to(replies.name().clone())
        .with_headers(headers);
    let body = serde_json::json!({"app_id": line, "dest": dest, "mdata": text}).to_string();
    let confirm = channel
        .basic_publish(
            "cdls.submit".into(),
            "messenger".into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            properties,
        )
        .await?
        .await?;
    if !confirm.is_ack() {
        return Err("the queue is full: publish again later, with the same message_id".into());
    }
    let answer = tokio::time::timeout(Duration::from_secs(60), answers.next()).await?;
    let answer = answer.ok_or("the connection ended")??;
    println!("{}", String::from_utf8_lossy(&answer.data));
    connection.close(200, "OK".into()).await?;
    Ok(())
}
