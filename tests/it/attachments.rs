//! `attachments.reuse`: an asset is uploaded once a line, and its messages are sent by its id.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{ErrorKind, Lane, LineId, RowId, Status, Submission};
use meta_dispatch::store::AttachmentFilter;
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::insert::Insert;
use crate::support::pipeline::{Backend, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

const PICTURE: &str = "https://cdn.example.com/offer.png";
const UNFETCHABLE: &str = "https://cdn.example.com/unfetchable.png";

/// Settings of a process that uploads, and sends media as fast as text.
const REUSE: [(&str, &str); 5] = [
    ("attachments.reuse", "true"),
    ("limits.enforce_ceilings", "false"),
    ("limits.messenger.media", "200"),
    ("limits.instagram.media", "200"),
    ("graph.media_timeout", "20s"),
];

async fn start(backend: Backend, changed: &[(&str, &str)]) -> Pipeline {
    let settings: Vec<(&str, &str)> = REUSE.iter().chain(changed).copied().collect();
    Pipeline::start_with(backend, &settings).await
}

/// Return the number of upload calls, and of fetches of a URL.
async fn uploads(pipeline: &Pipeline, url: &str) -> (u64, u64) {
    let state = uploaded(pipeline).await;
    (state["calls"].as_u64().expect("a number"), state["fetches"][url].as_u64().unwrap_or(0))
}

async fn uploaded(pipeline: &Pipeline) -> Value {
    let url = format!("{}/simulator/uploads", pipeline.simulator.origin());
    let answer = pipeline.client.get(url).send().await.expect("the simulator answers");
    answer.json().await.expect("answers are JSON")
}

/// Let Meta take this long to fetch an asset.
async fn fetches_take(pipeline: &Pipeline, milliseconds: u64) {
    let url = format!("{}/simulator/uploads", pipeline.simulator.origin());
    let answer = pipeline.client.put(url).json(&json!({"fetch_ms": milliseconds})).send().await;
    assert!(answer.expect("the simulator answers").status().is_success());
}

fn picture(pipeline: &Pipeline, line: LineId, dest: &str, url: &str) -> Submission {
    Submission {
        account: pipeline.account,
        line,
        class: Class::MESSENGER,
        dest: dest.into(),
        kind: MessageKind::Image,
        mdata: url.into(),
        mcaption: None,
        msg_id: None,
        cp_id: Some("offers".into()),
        lane: Lane::Bulk,
        send_at: None,
        valid_for: Duration::from_secs(3_600),
        waiter: None,
    }
}

async fn log_pictures(pipeline: &Pipeline, count: usize, url: &str) -> Vec<RowId> {
    let submissions: Vec<Submission> = (0..count)
        .map(|number| picture(pipeline, pipeline.messenger, &format!("person-{number}"), url))
        .collect();
    pipeline.store.insert(&submissions).await.expect("rows can be logged")
}

async fn submit_picture(pipeline: &Pipeline, class: Class, line: LineId, dest: &str, url: &str) -> RowId {
    let parameters = json!({"app_id": line.0, "dest": dest, "mtype": "image", "mdata": url});
    let (status, answer) = pipeline.post(class, parameters).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
}

/// Return the payloads of the attachments that were sent.
fn payloads(pipeline: &Pipeline) -> Vec<Value> {
    let calls = pipeline.simulator.calls();
    calls.iter().map(|call| call.body["message"]["attachment"]["payload"].clone()).collect()
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn campaign_of_pictures_costs_one_upload(#[case] backend: Backend) {
    let pipeline = start(backend, &[]).await;
    for id in log_pictures(&pipeline, 300, PICTURE).await {
        pipeline.expect_ok(id).await;
    }
    assert_eq!(uploads(&pipeline, PICTURE).await, (1, 1));
    let payloads = payloads(&pipeline);
    assert_eq!(payloads.len(), 300);
    let id = &payloads[0]["attachment_id"];
    assert!(id.is_string() && payloads.iter().all(|payload| payload == &json!({"attachment_id": id})));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_other_pictures_do_not_wait_for_an_upload() {
    let pipeline = start(EMBEDDED, &[]).await;
    let first = submit_picture(&pipeline, Class::MESSENGER, pipeline.messenger, "ann", PICTURE).await;
    pipeline.expect_ok(first).await;
    fetches_take(&pipeline, 15_000).await;
    let slow = "https://cdn.example.com/another.png";
    let waiting = submit_picture(&pipeline, Class::MESSENGER, pipeline.messenger, "bob", slow).await;
    eventually("the upload to begin", || async {
        let calls = uploads(&pipeline, slow).await.0;
        if calls == 2 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    let text = pipeline.submit("cleo", "hello").await;
    let known = submit_picture(&pipeline, Class::MESSENGER, pipeline.messenger, "dan", PICTURE).await;
    pipeline.expect_ok(text).await;
    pipeline.expect_ok(known).await;
    assert_eq!(pipeline.row(waiting).await.status, Status::Pending);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn ended_id_is_uploaded_again_and_the_message_sent(#[case] backend: Backend) {
    let pipeline = start(backend, &[]).await;
    let line = pipeline.messenger;
    let first = submit_picture(&pipeline, Class::MESSENGER, line, "ann", PICTURE).await;
    pipeline.expect_ok(first).await;
    let url = format!("{}/simulator/uploads/expire", pipeline.simulator.origin());
    let answer = pipeline.client.post(url).json(&json!({})).send().await;
    assert!(answer.expect("the simulator answers").status().is_success());
    let second = submit_picture(&pipeline, Class::MESSENGER, line, "bob", PICTURE).await;
    let row = pipeline.expect_ok(second).await;
    assert_eq!((row.attempts, row.ambiguous_attempts, row.error_code), (2, 0, None), "{row:?}");
    assert_eq!(uploads(&pipeline, PICTURE).await, (2, 2));
    assert_eq!(pipeline.simulator.delivered_to("bob"), 1);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn unfetchable_url_ends_its_messages_with_one_reason(#[case] backend: Backend) {
    let pipeline = start(backend, &[]).await;
    let rows = log_pictures(&pipeline, 40, UNFETCHABLE).await;
    for id in rows {
        let row = pipeline.outcome(id).await;
        assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Refused)), "{row:?}");
        assert_eq!((row.error_code, row.error_subcode, row.attempts), (Some(100), Some(2018008), 0));
        assert!(row.error_message.is_some_and(|text| text.contains("cannot fetch")));
    }
    assert_eq!(uploads(&pipeline, UNFETCHABLE).await, (3, 3), "the tries of one upload");
    assert!(pipeline.simulator.calls().is_empty());
    // A later message is refused by the memory of the failure.
    let later = submit_picture(&pipeline, Class::MESSENGER, pipeline.messenger, "late", UNFETCHABLE).await;
    assert_eq!(pipeline.outcome(later).await.error_code, Some(100));
    assert_eq!(uploads(&pipeline, UNFETCHABLE).await.0, 3);
    let text = pipeline.submit("ann", "hello").await;
    pipeline.expect_ok(text).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn url_that_fails_once_is_tried_again() {
    let pipeline = start(EMBEDDED, &[]).await;
    let url = "https://cdn.example.com/unfetchable-once.png";
    let id = submit_picture(&pipeline, Class::MESSENGER, pipeline.messenger, "ann", url).await;
    assert_eq!(pipeline.expect_ok(id).await.attempts, 1);
    assert_eq!(uploads(&pipeline, url).await, (2, 2));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn held_messages_wait_until_the_asset_is_there(#[case] backend: Backend) {
    let pipeline = start(backend, &[("attachments.on_unfetchable", "hold")]).await;
    let rows = log_pictures(&pipeline, 5, UNFETCHABLE).await;
    let failed = eventually("the failure to be listed", || async {
        let all = AttachmentFilter::default();
        let listed = pipeline.store.attachments(&all).await.expect("the store answers");
        let failed = listed.iter().find(|row| row.error_subcode == Some(2018008)).cloned();
        failed.ok_or_else(|| format!("{listed:?}"))
    })
    .await;
    assert_eq!((failed.url.as_str(), failed.v8l_id), (UNFETCHABLE, pipeline.messenger));
    let other = submit_picture(&pipeline, Class::MESSENGER, pipeline.messenger, "ann", PICTURE).await;
    pipeline.expect_ok(other).await;
    for id in &rows {
        assert_eq!(pipeline.row(*id).await.status, Status::Pending);
    }
    // As if the URL could be fetched by now: the next look finds an upload.
    let id = uploaded(&pipeline).await["uploads"][0]["attachment_id"].as_str().expect("an id").to_owned();
    let mended = format!(
        "update attachment set state = 'ready', attachment_id = '{id}', until = '2099-01-01T00:00:00.000Z' \
         where state = 'unfetchable'"
    );
    pipeline.execute(&mended).await;
    for row in rows {
        pipeline.expect_ok(row).await;
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_instagram_uploads_and_instagram_login_sends_the_url() {
    let pipeline = start(EMBEDDED, &[]).await;
    let linked = submit_picture(&pipeline, Class::INSTAGRAM, pipeline.instagram, "ann", PICTURE).await;
    pipeline.expect_ok(linked).await;
    assert_eq!(uploads(&pipeline, PICTURE).await.0, 1);
    let line = pipeline.add_line(Class::INSTAGRAM, "IGAAtestaccounttoken").await;
    let login = submit_picture(&pipeline, Class::INSTAGRAM, line, "bob", PICTURE).await;
    pipeline.expect_ok(login).await;
    assert_eq!(uploads(&pipeline, PICTURE).await.0, 1);
    assert_eq!(payloads(&pipeline).last(), Some(&json!({"url": PICTURE})));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_each_message_carries_the_url() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    for dest in ["ann", "bob"] {
        let id = submit_picture(&pipeline, Class::MESSENGER, pipeline.messenger, dest, PICTURE).await;
        pipeline.expect_ok(id).await;
    }
    assert_eq!(uploads(&pipeline, PICTURE).await, (0, 2));
    assert!(payloads(&pipeline).iter().all(|payload| payload == &json!({"url": PICTURE})));
    pipeline.stop().await;
}

#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[tokio::test(flavor = "multi_thread")]
async fn worker_that_takes_a_line_over_waits_for_its_upload() {
    let mut pipeline = start(SERVERS, &[]).await;
    fetches_take(&pipeline, 8_000).await;
    let mut lines = vec![pipeline.messenger];
    for number in 0..7 {
        lines.push(pipeline.add_line(Class::MESSENGER, &format!("EAAtestpagetokenofline{number}")).await);
    }
    let submissions: Vec<Submission> =
        lines.iter().map(|line| picture(&pipeline, *line, &format!("person-{line}"), PICTURE)).collect();
    let rows = pipeline.store.insert(&submissions).await.expect("rows can be logged");
    eventually("the uploads to begin", || async {
        let calls = uploads(&pipeline, PICTURE).await.0;
        if calls == lines.len() as u64 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    // The second worker takes half of the partitions, while the uploads of the first are in progress.
    pipeline.start_worker().await;
    for id in rows {
        pipeline.expect_ok(id).await;
    }
    assert_eq!(uploads(&pipeline, PICTURE).await.0, lines.len() as u64);
    pipeline.stop().await;
}
