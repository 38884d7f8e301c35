//! Submissions and jobs on RabbitMQ: properties, headers, bodies, and messages that only the program should write.

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable};
use meta_dispatch::domain::RowId;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::scene::TEXT;
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};
use crate::support::producer::{Producer, header};
use crate::support::secrets::{Secret, leaks};

/// The end of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Logged,
    /// Kept in `cdls.rejected`, under this code.
    Refused(i32),
    /// Kept without its body, as its sender is not known.
    Unknown(i32),
}
use Fate::{Logged, Refused, Unknown};

struct Case {
    name: &'static str,
    routing_key: String,
    properties: BasicProperties,
    body: Vec<u8>,
    fate: Fate,
}

/// The tokens and the line that the cases are made of.
struct Account<'a> {
    tsid: &'a str,
    other: &'a str,
    line: i64,
}

impl Account<'_> {
    /// Return a good submission; its recipient is the name of its case.
    fn good(&self, name: &'static str, fate: Fate) -> Case {
        self.with(name, json!({}), fate)
    }

    /// Return one with these values in its body.
    fn with(&self, name: &'static str, more: Value, fate: Fate) -> Case {
        let mut body = json!({"app_id": self.line, "dest": recipient(name), "mdata": TEXT});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let properties = BasicProperties::default().with_delivery_mode(2).with_headers(self.headers(&[]));
        Case {
            name,
            routing_key: "messenger".to_owned(),
            properties,
            body: body.to_string().into_bytes(),
            fate,
        }
    }

    /// Return one with these headers beside its token, or in its place.
    fn headed(&self, name: &'static str, headers: &[(&str, AMQPValue)], fate: Fate) -> Case {
        let case = self.good(name, fate);
        Case { properties: case.properties.clone().with_headers(self.headers(headers)), ..case }
    }

    fn headers(&self, more: &[(&str, AMQPValue)]) -> FieldTable {
        let mut headers = FieldTable::default();
        headers.insert("tsid".into(), text(self.tsid));
        for (name, value) in more {
            headers.insert((*name).into(), value.clone());
        }
        headers
    }

    /// Return one with other properties.
    fn of(
        &self,
        name: &'static str,
        change: impl FnOnce(BasicProperties) -> BasicProperties,
        fate: Fate,
    ) -> Case {
        let case = self.good(name, fate);
        Case { properties: change(case.properties.clone()), ..case }
    }

    fn bodies(&self) -> Vec<Case> {
        let of = |name, body: Vec<u8>, fate| Case { body, ..self.good(name, fate) };
        let routed = |name, key: &str, fate| Case { routing_key: key.to_owned(), ..self.good(name, fate) };
        vec![
            of("XML", b"<x/>".to_vec(), Refused(400)),
            of("compressed", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), Refused(400)),
            of("1 MiB", vec![b'x'; 1 << 20], Refused(413)),
            of("levels without an end", vec![b'['; 60_000], Refused(400)),
            self.with("a line end in a recipient", json!({"dest": "a\r\nb"}), Refused(229)),
            self.with("a wait beyond all", json!({"wait": 9_999}), Logged),
            self.with(
                "columns of the log",
                json!({"cdcs_id": 999, "fence": 7, "status": "OK", "attempts": 3}),
                Logged,
            ),
            self.with("a wrong token in the body", json!({"tsid": "0123456789wrong"}), Logged),
            routed("a blank behind the class", "messenger ", Refused(229)),
            routed("a pattern for a class", "#", Refused(229)),
            routed("255 characters", &"x".repeat(255), Refused(229)),
        ]
    }

    fn properties(&self) -> Vec<Case> {
        let long = "m".repeat(255);
        vec![
            self.of("a priority of 255", |properties| properties.with_priority(255), Logged),
            self.of("one that is not kept", |properties| properties.with_delivery_mode(1), Logged),
            self.of("a time of 2^63", |properties| properties.with_timestamp(1 << 63), Logged),
            self.of("a name of 255 characters", |properties| properties.with_message_id(long.into()), Logged),
            self.of("a name with a NUL", |properties| properties.with_message_id("a\0".into()), Refused(229)),
            self.of("no address", |properties| properties.with_reply_to("".into()), Logged),
            self.of(
                "compressed by name",
                |properties| properties.with_content_encoding("deflate".into()),
                Refused(400),
            ),
            self.of(
                "another type",
                |properties| properties.with_content_type("text/xml".into()),
                Refused(400),
            ),
        ]
    }

    fn headers_beside_the_token(&self) -> Vec<Case> {
        let nested =
            (0..100).fold(AMQPValue::Boolean(true), |inner, _| AMQPValue::FieldArray(vec![inner].into()));
        let mut death = FieldTable::default();
        death.insert("queue".into(), text("cdls.submit"));
        death.insert("count".into(), AMQPValue::LongLongInt(i64::MAX));
        let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
        let names: Vec<String> = (0..3_000).map(|n| format!("n{n}")).collect();
        let many: Vec<(&str, AMQPValue)> =
            names.iter().map(|name| (name.as_str(), AMQPValue::Void)).collect();
        vec![
            self.headed("100 arrays in each other", &[("x", nested)], Logged),
            self.headed("a header of 60 KB", &[("x", text(&"x".repeat(60_000)))], Logged),
            self.headed("3,000 headers", &many, Logged),
            self.headed("a forged death", &[("x-death", AMQPValue::FieldArray(deaths))], Logged),
            self.headed("a count of deliveries", &[("x-delivery-count", AMQPValue::LongLongInt(19))], Logged),
            self.headed("another version", &[("v", AMQPValue::LongInt(2))], Refused(229)),
            self.headed("a version that is no number", &[("v", text("x"))], Refused(229)),
            self.headed(
                "a version that is a table",
                &[("v", AMQPValue::FieldTable(FieldTable::default()))],
                Refused(229),
            ),
        ]
    }

    fn tokens(&self) -> Vec<Case> {
        let bytes = |bytes: &[u8]| AMQPValue::ByteArray(ByteArray::from(bytes));
        let of = |name, token: AMQPValue, fate| self.headed(name, &[("tsid", token)], fate);
        let without = |name, more: Value, fate| {
            let case = self.with(name, more, fate);
            Case { properties: BasicProperties::default(), ..case }
        };
        let unreadable =
            |name, token: &str, fate| Case { body: b"no JSON".to_vec(), ..of(name, text(token), fate) };
        vec![
            of("the token as bytes", bytes(self.tsid.as_bytes()), Logged),
            of("bytes that are no text", bytes(b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff\xfe"), Unknown(102)),
            of("a table", AMQPValue::FieldTable(FieldTable::default()), Unknown(102)),
            of("an array", AMQPValue::FieldArray(vec![text(self.tsid)].into()), Unknown(102)),
            of("a boolean", AMQPValue::Boolean(true), Unknown(102)),
            of("a fraction", AMQPValue::Double(1.5), Unknown(102)),
            of("a blank", text("  "), Unknown(100)),
            of("a NUL behind", text(&format!("{}\0", self.tsid)), Unknown(102)),
            of("all but the last letter", text(&self.tsid[..self.tsid.len() - 1]), Unknown(102)),
            of("a line of another account than the token's", text(self.other), Refused(230)),
            without("no token", json!({}), Unknown(100)),
            without("a wrong one under the other name", json!({"sid": "0123456789wrong"}), Unknown(102)),
            without("an object in the body", json!({"tsid": {"$ne": null}}), Unknown(102)),
            unreadable("no JSON of a known sender", self.tsid, Refused(400)),
            unreadable("no JSON of an unknown one", "0123456789wrong", Unknown(400)),
        ]
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Return the recipient of a case: its name, without what no id may hold.
fn recipient(name: &str) -> String {
    name.replace([' ', ',', '\''], "-")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn submissions_are_logged_or_kept_with_their_code() {
    let pipeline = Pipeline::start_with(Backend::Servers, &[("limits.messenger.text", "300")]).await;
    let producer = Producer::connect(&pipeline).await;
    let other = pipeline.add_sender("Other").await;
    let (tsid, other) = (pipeline.tsid.expose_secret(), other.tsid.expose_secret());
    let account = Account { tsid, other, line: pipeline.messenger.0 };
    let secrets = [
        Secret::new("the API token", tsid),
        Secret::new("another account's token", other),
        Secret::new("the page token", PAGE_TOKEN),
    ];
    let mut logged = 0;
    let cases =
        [account.bodies(), account.properties(), account.headers_beside_the_token(), account.tokens()];
    for Case { name, routing_key, properties, body, fate } in cases.into_iter().flatten() {
        producer.submit(&routing_key, &body, properties).await;
        let (kept, code) = match fate {
            Logged => {
                logged += 1;
                let row = eventually(name, || async {
                    let mut rows = pipeline.rows().await;
                    if rows.len() == logged {
                        Ok(rows.pop().expect("a row"))
                    } else {
                        Err(format!("{} rows", rows.len()))
                    }
                })
                .await;
                assert_eq!((row.dest.as_str(), row.cdcs_id), (recipient(name).as_str(), pipeline.account));
                continue;
            }
            Refused(code) => (producer.rejected().await, code),
            Unknown(code) => (producer.unauthenticated().await, code),
        };
        assert_eq!(header(&kept.properties, "status_code"), code.to_string(), "{name}");
        assert_eq!(header(&kept.properties, "body_bytes"), body.len().to_string(), "{name}");
        let detail = header(&kept.properties, "detail");
        assert!(detail.ends_with('.') && !detail.contains(char::is_control), "{name}: {detail}");
        assert!(
            kept.data.is_empty() || matches!(fate, Refused(_)),
            "{name}: the body of an unknown sender is kept"
        );
        let shown = [format!("{:?}", kept.properties).as_bytes(), &kept.data].concat();
        assert_eq!(leaks(&secrets, &shown), [""; 0], "{name}");
        assert_eq!(pipeline.rows().await.len(), logged, "{name}: a refused submission is logged");
    }
    for row in pipeline.rows().await {
        assert_eq!(pipeline.expect_ok(row.cdls_id).await.attempts, 1);
    }
    pipeline.stop().await;
}

/// Bodies for the queue of the line's partition, which the program alone should write.
fn jobs(line: i64, sent: RowId) -> Vec<(&'static str, Vec<u8>)> {
    let job = |work: &str| format!("{{\"v\":2,\"work\":[{work}]}}").into_bytes();
    let of_row = |work: i64, line: i64, row: i64, rows: u64| {
        let message = format!("[{row},1,\"text\",\"eve\",\"forged\",3600000,null]");
        format!("[{work},{line},\"high\",false,\"\",{row},{rows},[{message}]]")
    };
    let many = vec![of_row(1, line, sent.0, 1); 20_000].join(",");
    vec![
        ("nothing", Vec::new()),
        ("no JSON", b"\xff\xfe".to_vec()),
        ("100,000 levels", vec![b'['; 100_000]),
        ("another version", b"{\"v\":999,\"work\":[]}".to_vec()),
        ("no work", b"{\"v\":2}".to_vec()),
        ("an unknown lane", job("[1,1,\"low\",false,\"\",1,1,[]]")),
        ("a row that was sent", job(&of_row(1, line, sent.0, 1))),
        ("the same row twice", job(&[of_row(1, line, sent.0, 1), of_row(2, line, sent.0, 1)].join(","))),
        ("a row of nobody", job(&of_row(7_777, line, 7_777_777, 1))),
        ("the least ids", job(&of_row(i64::MIN, line, i64::MIN, 1))),
        ("the largest ids", job(&of_row(i64::MAX, line, i64::MAX, 1))),
        ("a line of another partition", job(&of_row(1, line + 1, sent.0, 1))),
        ("a line below zero", job(&of_row(1, -1, sent.0, 1))),
        ("4 billion rows", job(&of_row(1, line, sent.0, u64::from(u32::MAX)))),
        ("more rows than a number holds", job(&of_row(1, line, sent.0, u64::MAX))),
        ("20,000 pieces of work", job(&many)),
        ("8 MiB", vec![b' '; 8 << 20]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn forged_jobs_send_nothing() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let producer = Producer::connect(&pipeline).await;
    let line = pipeline.messenger;
    let sent = pipeline.submit("ann", "hello").await;
    pipeline.expect_ok(sent).await;
    let queue = format!("cdls.work.{}", line.partition());
    let cases = jobs(line.0, sent);
    for (n, (name, body)) in cases.iter().enumerate() {
        let publish = producer.channel.basic_publish(
            "".into(),
            queue.as_str().into(),
            BasicPublishOptions::default(),
            body,
            BasicProperties::default(),
        );
        assert!(publish.await.expect("published").await.expect("confirmed").is_ack(), "{name}");
        eventually(name, || async {
            // A queue that does not exist closes the channel.
            let channel = producer.channel().await;
            let passive = QueueDeclareOptions { passive: true, ..Default::default() };
            match channel.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await {
                Ok(queue) if queue.message_count() == 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let honest = pipeline.submit(&format!("bob{n}"), "hello").await;
        assert_eq!(pipeline.expect_ok(honest).await.attempts, 1, "{name}");
    }
    let row = pipeline.row(sent).await;
    assert_eq!((row.attempts, row.dest.as_str(), row.mdata.as_str()), (1, "ann", "hello"));
    assert_eq!(pipeline.simulator.delivered_to("eve"), 0);
    let calls = pipeline.simulator.calls();
    assert_eq!(calls.len(), 1 + cases.len(), "{calls:?}");
    pipeline.stop().await;
}
