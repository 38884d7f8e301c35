//! What an operator settles is told to those who wait for it: `reply_to` (contract 4) and `cdls.events`, over RabbitMQ.

use meta_dispatch::domain::{ErrorKind, RowId, Status};
use serde_json::{Value, json};

use super::program::Program;
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::{Inbox, Producer};

struct Shop {
    pipeline: Pipeline,
    producer: Producer,
    program: Program,
}

impl Shop {
    /// An operator whose program knows the database alone.
    async fn open(events: &str) -> Shop {
        let changed = [("graph.timeout", "1500ms"), ("events.publish", events)];
        let pipeline = Pipeline::start_with(Backend::Servers, &changed).await;
        let producer = Producer::connect(&pipeline).await;
        let program = Program::new().with("DATABASE__URL", pipeline.database_url());
        Shop { pipeline, producer, program }
    }

    /// Submits a message whose outcome is not known at first.
    async fn unknown(&self, inbox: &Inbox, dest: &str) -> RowId {
        let properties = self
            .producer
            .properties()
            .with_reply_to(inbox.queue.as_str().into())
            .with_correlation_id(dest.into());
        self.producer.submit_text(self.pipeline.messenger, dest, "hi", properties).await;
        let id = eventually("the row", || async {
            let rows = self.pipeline.rows().await;
            let row = rows.iter().find(|row| row.dest == dest);
            row.map(|row| row.cdls_id).ok_or_else(|| format!("{} rows", rows.len()))
        })
        .await;
        self.pipeline.until(id, "UNKNOWN", |row| row.status == Status::Unknown).await;
        id
    }

    fn resolve(&self, id: RowId, how: &str) {
        assert_eq!(self.program.json(&format!("log resolve {id} --as {how}"))["resolved"], 1);
    }
}

fn answer(status: &str, message_id: &str, id: RowId) -> Value {
    let mut answer =
        json!({"return": {"status": status, "status_code": 0, "messageId": message_id, "cdls_id": id}});
    if status == "ERROR" {
        answer["return"]["detail"] = ErrorKind::Resolved.sentence().into();
        answer["return"]["error_kind"] = "resolved".into();
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn producer_hears_once_of_a_settled_message() {
    let shop = Shop::open("none").await;
    let mut inbox = shop.producer.reply_queue().await;
    let taken = shop.unknown(&inbox, "cut-ann").await;
    let dropped = shop.unknown(&inbox, "cut-bob").await;
    let again = shop.unknown(&inbox, "cutx1-cleo").await;
    assert!(inbox.is_empty().await, "nothing is told before it is settled");

    shop.resolve(taken, "ok --message-id m_7");
    assert_eq!(inbox.next_json().await, ("cut-ann".to_owned(), answer("OK", "m_7", taken)));
    shop.resolve(dropped, "error");
    assert_eq!(inbox.next_json().await, ("cut-bob".to_owned(), answer("ERROR", "", dropped)));
    shop.resolve(again, "retry");
    let (correlation_id, told) = inbox.next_json().await;
    assert_eq!((correlation_id.as_str(), &told["return"]["status"]), ("cutx1-cleo", &json!("OK")));
    assert!(inbox.is_empty().await, "each is told once");
    shop.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn next_worker_answers_for_settled_messages() {
    let mut shop = Shop::open("none").await;
    let mut inbox = shop.producer.reply_queue().await;
    let id = shop.unknown(&inbox, "cut-ann").await;
    shop.pipeline.stop_last().await;
    shop.resolve(id, "ok");
    assert!(inbox.is_empty().await);
    shop.pipeline.start_worker().await;
    assert_eq!(inbox.next_json().await, ("cut-ann".to_owned(), answer("OK", "", id)));
    shop.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn settled_message_is_an_event() {
    let shop = Shop::open("outcomes").await;
    let inbox = shop.producer.reply_queue().await;
    let mut events = shop.producer.events("#").await;
    let line = shop.pipeline.messenger;
    for (dest, how, key, message_id, kind) in [
        ("cut-ann", "ok --message-id m_7", "ok", json!("m_7"), Value::Null),
        ("cut-bob", "error", "error", Value::Null, json!("resolved")),
    ] {
        let id = shop.unknown(&inbox, dest).await;
        assert_eq!(events.next_json().await.0, format!("messenger.unknown.{line}"));
        shop.resolve(id, how);
        let (told, event) = events.next_json().await;
        assert_eq!(told, format!("messenger.{key}.{line}"));
        assert_eq!(
            (&event["cdls_id"], &event["message_id"], &event["error_kind"]),
            (&json!(id), &message_id, &kind)
        );
    }
    assert!(events.is_empty().await);
    shop.pipeline.stop().await;
}
