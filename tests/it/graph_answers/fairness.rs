//! One line's failures are that line's: the others are sent in time.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::LineId;
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use crate::support::pipeline::{Backend, Pipeline, eventually};

/// Failing calls of the one line before the other sends: as many as open a breaker.
const FAILURES: usize = 5;

const NO_END: &[(&str, &str)] = &[("dispatch.max_attempts", "1000")];

impl Pipeline {
    /// Submits messages of this type to recipients whose calls fail.
    async fn submit_failing(&self, mtype: &str, word: &str) {
        let mdata = if mtype == "text" { "hello" } else { "https://files.example.com/a.png" };
        for n in 0..100 {
            let dest = format!("{word}-{n}");
            let parameters = json!({"app_id": self.messenger, "dest": dest, "mtype": mtype, "mdata": mdata});
            let (status, answer) = self.post(Class::MESSENGER, parameters).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
        }
    }

    /// Sends messages of another line beside calls that fail: each at once, and with one call.
    async fn send_beside_failures(&self, good: LineId, word: &str) {
        for n in 0..10 {
            let wanted = FAILURES + usize::from(n > 0);
            eventually("further failing calls", || async {
                let failed = self.calls_to(word);
                if failed >= wanted { Ok(()) } else { Err(format!("{failed} calls")) }
            })
            .await;
            let row = self.expect_ok(self.submit_on(good, &format!("g{n}"), "hello").await).await;
            let sent_at = row.sent_at.expect("it was sent");
            assert!(sent_at - row.created_at < Duration::from_secs(1), "{row:?}");
            assert_eq!(row.attempts, 1);
        }
    }
}

#[rstest]
#[case::answers_of_graph("text", "code1_99")]
#[case::pages_of_a_gateway("text", "http502")]
#[case::pages_of_a_gateway_for_an_image("image", "http502")]
#[tokio::test(flavor = "multi_thread")]
async fn failing_line_holds_no_other_line_up(#[case] mtype: &str, #[case] word: &str) {
    let pipeline = Pipeline::start_with(Backend::Embedded, NO_END).await;
    let good = pipeline.add_line(Class::MESSENGER, "EAAgood").await;
    pipeline.submit_failing(mtype, word).await;
    pipeline.send_beside_failures(good, word).await;
    eventually("a closed breaker", || async {
        let state = pipeline.breaker_state().await;
        if state == "closed" { Ok(()) } else { Err(state) }
    })
    .await;
    pipeline.stop().await;
}

/// The two lines may belong to two workers, or to one of them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn failing_line_holds_no_line_of_another_worker_up() {
    let mut pipeline = Pipeline::start_with(Backend::Servers, NO_END).await;
    pipeline.start_worker().await;
    eventually("a share of the second worker", || async {
        let leases = pipeline.leases().await;
        if leases == 32 { Ok(()) } else { Err(format!("{leases} leases")) }
    })
    .await;
    let good = pipeline.add_line(Class::MESSENGER, "EAAgood").await;
    pipeline.submit_failing("text", "code1_99").await;
    pipeline.send_beside_failures(good, "code1_99").await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_line_spends_few_calls() {
    let pipeline = Pipeline::start_with(Backend::Embedded, NO_END).await;
    let good = pipeline.add_line(Class::MESSENGER, "EAAgood").await;
    for n in 0..100 {
        pipeline.submit(&format!("code2-{n}"), "hello").await;
    }
    eventually("a rest of the line", || async {
        let calls = pipeline.calls_to("code2");
        if calls >= 5 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    // Twenty messages at 40 a second take half a second.
    for n in 0..20 {
        pipeline.expect_ok(pipeline.submit_on(good, &format!("g{n}"), "hello").await).await;
    }
    let calls = pipeline.calls_to("code2");
    assert!(calls < 40, "{calls} calls of a line whose calls all fail");
    pipeline.stop().await;
}
