//! Codes to which the setting `graph.codes` gives a meaning, and the count of codes that nothing names.

use meta_dispatch::domain::{ErrorKind, Status};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::pipeline::{Backend, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;

#[rstest]
#[case::refuse("77777=refuse", "code77777-ann", Status::Error, false)]
#[case::a_subcode("77777/12=pause-line", "code77777_12-ann", Status::Pending, true)]
#[case::another_subcode("77777/12=pause-line", "code77777_13-ann", Status::Error, false)]
#[case::ambiguous("77777=ambiguous", "code77777-ann", Status::Unknown, false)]
#[case::code_10_ends_its_message("10/1234567=pause-line", "code10_1234567-ann", Status::Error, true)]
#[case::code_10_of_the_message("10/1234567=refuse", "code10_1234567-ann", Status::Error, false)]
#[tokio::test(flavor = "multi_thread")]
async fn setting_decides_before_the_table(
    #[case] codes: &str,
    #[case] dest: &str,
    #[case] status: Status,
    #[case] is_paused: bool,
) {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("graph.codes", codes)]).await;
    let id = pipeline.submit(dest, "hello").await;
    let row = pipeline.until(id, "the answer", |row| row.error_code.is_some()).await;
    assert_eq!((row.status, row.attempts), (status, 1), "{row:?}");
    if is_paused {
        pipeline.until_paused(pipeline.messenger, "cannot send").await;
    } else {
        assert!(pipeline.line_record(pipeline.messenger).await.pause_left.is_none());
    }
    pipeline.stop().await;
}

/// Return the Messenger line as its account sees it.
async fn shown_line(pipeline: &Pipeline) -> Value {
    let url = format!("http://{}/api/v2/lines/{}", pipeline.http, pipeline.messenger);
    let answer = pipeline.client.get(url).bearer_auth(pipeline.tsid.expose_secret()).send().await;
    answer.expect("the API answers").json().await.expect("answers are JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn retried_code_is_tried_again() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("graph.codes", "77777=retry")]).await;
    let id = pipeline.submit("code77777x2-ann", "hello").await;
    assert_eq!(pipeline.expect_ok(id).await.attempts, 3);
    pipeline.stop().await;
}

#[rstest]
#[case::restricted("code10_1893063", "10/1893063")]
#[case::policy("code368", "368")]
#[case::violation("code2022", "2022")]
#[case::business("code100_2534029", "100/2534029")]
#[case::accounts("code10_2534077", "10/2534077")]
#[tokio::test(flavor = "multi_thread")]
async fn restriction_pauses_the_line_with_its_remedy(#[case] word: &str, #[case] code: &str) {
    let pipeline = Pipeline::start(EMBEDDED).await;
    pipeline.submit(&format!("{word}-ann"), "hello").await;
    pipeline.until_paused(pipeline.messenger, &format!("Graph code {code}")).await;
    let shown = shown_line(&pipeline).await;
    assert_eq!(shown["state"], "paused", "{shown}");
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains(code)), "{shown}");
    assert!(shown["until"].is_string(), "{shown}");
    let action = shown["action"].as_str().expect("a remedy");
    assert!(action.contains("`line resume`") || action.contains("`line set-pat`"), "{action}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restricted_link_ends_its_message_alone() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let id = pipeline.submit("code508_2534122-ann", "https://example.com").await;
    let row = pipeline.outcome(id).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Refused)), "{row:?}");
    let next = pipeline.submit("ana", "hello").await;
    pipeline.expect_ok(next).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_codes_are_counted_by_code_and_subcode() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    for dest in ["code77711-ann", "code77711_5-bob", "code190_77712-cid"] {
        pipeline.submit(dest, "hello").await;
    }
    let url = format!("http://{}/metrics", pipeline.admin()[0]);
    for labels in
        [r#"{code="77711",subcode=""}"#, r#"{code="77711",subcode="5"}"#, r#"{code="190",subcode="77712"}"#]
    {
        eventually("the count of a code", || async {
            let text = pipeline.client.get(&url).send().await.expect("it answers").text().await;
            let text = text.expect("a text");
            let series = format!("meta_dispatch_unlisted_codes_total{labels} ");
            if text.lines().any(|line| line.starts_with(&series)) { Ok(()) } else { Err(text) }
        })
        .await;
    }
    pipeline.stop().await;
}
