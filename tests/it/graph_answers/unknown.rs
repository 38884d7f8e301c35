//! Refusals under codes that the table does not know: a few of them in a row are the line's, and end no backlog.

use meta_dispatch::domain::Status;
use rstest::rstest;

use crate::support::pipeline::{Backend, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const MESSAGES: usize = 60;

async fn submit_many(pipeline: &Pipeline, word: &str) {
    for n in 0..MESSAGES {
        pipeline.submit(&format!("{word}-r{n}"), "hello").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_in_a_row_pause_the_line_and_the_rest_waits() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    submit_many(&pipeline, "code77777").await;
    pipeline.until_paused(pipeline.messenger, "77777").await;
    let rows = pipeline.rows().await;
    let ended = rows.iter().filter(|row| row.status == Status::Error).count();
    assert!((4..20).contains(&ended), "{ended} of {MESSAGES} ended");
    let last = rows.last().expect("there are rows");
    assert_eq!((last.status, last.attempts), (Status::Pending, 0), "{last:?}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_limit_each_ends_its_message() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("dispatch.unknown_refusals", "0")]).await;
    submit_many(&pipeline, "code77777").await;
    eventually("the end of each", || async {
        let rows = pipeline.rows().await;
        let ended = rows.iter().filter(|row| row.status == Status::Error).count();
        if ended == MESSAGES { Ok(()) } else { Err(format!("{ended} ended")) }
    })
    .await;
    assert!(pipeline.line_record(pipeline.messenger).await.pause_left.is_none());
    pipeline.stop().await;
}

#[rstest]
#[case::address_of_the_server("code5", "5")]
#[case::version("code12", "12")]
#[case::app("code101", "101")]
#[tokio::test(flavor = "multi_thread")]
async fn codes_of_the_app_leave_messages_waiting(#[case] word: &str, #[case] code: &str) {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let id = pipeline.submit(&format!("{word}x1-ann"), "hello").await;
    let row = pipeline.until(id, "the refusal", |row| row.error_code.is_some()).await;
    assert_eq!((row.status, row.attempts), (Status::Pending, 1), "{row:?}");
    pipeline.until_paused(pipeline.messenger, &format!("Graph code {code}")).await;
    pipeline.resume(pipeline.messenger).await;
    assert_eq!(pipeline.expect_ok(id).await.attempts, 2);
    pipeline.stop().await;
}
