//! Bodies and ids of producers on RabbitMQ.

use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::{Producer, header};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn submission_is_read_as_a_request_is() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let producer = Producer::connect(&pipeline).await;
    let line = pipeline.messenger.0;
    let good =
        |dest: &str| json!({"app_id": line, "dest": dest, "mdata": "á", "cp_id": "xmas\u{a0}"}).to_string();
    let utf16: Vec<u8> = format!("\u{feff}{}", good("4")).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin = format!("{{\"app_id\":{line},\"dest\":\"5\",\"mdata\":\"\u{e1}\"}}");
    let latin: Vec<u8> =
        latin.chars().map(|letter| u8::try_from(u32::from(letter)).expect("Latin")).collect();
    let cases: [(&str, &str, Vec<u8>); 5] = [
        ("application/json", "UTF-8", format!("\u{feff}{}", good("1")).into_bytes()),
        ("Text/JSON; charset=utf-8", "", good(" 2\u{200b}").into_bytes()),
        ("application/cloudevents+json", "identity", good("3").into_bytes()),
        ("application/json", "", utf16),
        ("application/json", "ISO-8859-1", latin),
    ];
    for (content_type, content_encoding, body) in cases {
        let mut properties = producer.properties().with_content_type(content_type.into());
        if !content_encoding.is_empty() {
            properties = properties.with_content_encoding(content_encoding.into());
        }
        producer.submit("messenger", &body, properties).await;
    }
    let rows = eventually("the rows of the submissions", || async {
        let rows = pipeline.rows().await;
        if rows.len() == 5 { Ok(rows) } else { Err(rows.len().to_string()) }
    })
    .await;
    let logged: Vec<(&str, &str)> = rows.iter().map(|row| (row.dest.as_str(), row.mdata.as_str())).collect();
    assert_eq!(logged, [("1", "á"), ("2", "á"), ("3", "á"), ("4", "á"), ("5", "á")]);
    assert!(rows[..4].iter().all(|row| row.cp_id.as_deref() == Some("xmas")));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn refusal_says_why_in_answer_and_header() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let producer = Producer::connect(&pipeline).await;
    let mut inbox = producer.reply_queue().await;
    let good = json!({"app_id": pipeline.messenger, "dest": "253", "mdata": "hi"});
    let mangled = json!({"app_id": pipeline.messenger, "dest": "2.53E+16", "mdata": "secret"});
    for (content_type, body, code, word) in [
        ("text/plain", &good, 400, "text/plain"),
        ("application/json", &mangled, 229, "spreadsheets"),
        ("application/json", &json!({}), 210, "`app_id`"),
    ] {
        let properties = producer
            .properties()
            .with_content_type(content_type.into())
            .with_correlation_id(word.into())
            .with_reply_to(inbox.queue.as_str().into());
        producer.submit("messenger", body.to_string().as_bytes(), properties).await;
        let (_, answer): (String, Value) = inbox.next_json().await;
        assert_eq!(answer["return"]["status_code"], code, "{answer}");
        let detail = answer["return"]["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(word) && !detail.contains("secret"), "{detail}");
        assert_eq!(header(&producer.rejected().await.properties, "detail"), detail);
    }
    pipeline.stop().await;
}
