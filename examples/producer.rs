//! Submits a Messenger message over RabbitMQ, waits up to a minute for its outcome and prints the answer:
//! `META_DISPATCH_TSID=… cargo run --example producer -- AMQP_URL LINE DEST TEXT [KEY]`.
//!
//! The KEY is an idempotency key, in one space with those of HTTP: a submission that repeats it logs no second message.
//! Without one the submission has a key of its own. An error answer, and any other failure, ends with exit code 1.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};

#[expect(clippy::disallowed_methods, reason = "an example has no settings of its own")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (message, key) = arguments.split_at(arguments.len().min(4));
    let ([url, line, dest, text], [] | [_]) = (message, key) else {
        bail!("usage: producer AMQP_URL LINE DEST TEXT [KEY]")
    };
    let tsid = std::env::var("META_DISPATCH_TSID").context("META_DISPATCH_TSID holds no token")?;

    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    // A queue of our own for the answer; the server names it.
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let replies = channel.queue_declare("".into(), exclusive, FieldTable::default()).await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut answers =
        channel.basic_consume(replies.name().clone(), "".into(), no_ack, FieldTable::default()).await?;

    let id = key.first().cloned().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let mut headers = FieldTable::default();
    headers.insert("tsid".into(), AMQPValue::LongString(tsid.into()));
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(id.as_str().into())
        .with_correlation_id(id.as_str().into())
        .with_reply_to(replies.name().clone())
        .with_headers(headers);
    let body = json!({"app_id": line, "dest": dest, "mdata": text}).to_string();
    // Without `mandatory` the broker also confirms what it can bring to no queue.
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let confirm = channel
        .basic_publish("cdls.submit".into(), "messenger".into(), options, body.as_bytes(), properties)
        .await?
        .await?;
    ensure!(
        !matches!(confirm, Confirmation::Ack(Some(_))),
        "meta-dispatch takes no submissions: publish again later"
    );
    ensure!(confirm.is_ack(), "the queue is full: publish again later, with the same key");

    let answer = tokio::time::timeout(Duration::from_secs(60), answers.next()).await;
    let answer = answer.context("no outcome within a minute; the log will have it")?;
    let answer = answer.context("the connection ended")??;
    println!("{}", String::from_utf8_lossy(&answer.data));
    let answer: Value = serde_json::from_slice(&answer.data)?;
    connection.close(200, "OK".into()).await?;
    Ok(if answer["return"]["status"] == "OK" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
