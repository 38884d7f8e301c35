//! One line's failures are that line's: the others are sent in time.

use std::time::Duration;

use meta_dispatch::channel::Class;
use rstest::rstest;

use crate::support::pipeline::{Backend, Pipeline, eventually};

/// Failing calls of the one line before the other sends: as many as open a breaker.
const FAILURES: usize = 5;

#[rstest]
#[case::answers_of_graph("code1_99")]
#[case::pages_of_a_gateway("http502")]
#[tokio::test(flavor = "multi_thread")]
async fn failing_line_holds_no_other_line_up(#[case] word: &str) {
    let pipeline = Pipeline::start_with(Backend::Embedded, &[("dispatch.max_attempts", "1000")]).await;
    let good = pipeline.add_line(Class::MESSENGER, "EAAgood").await;
    for n in 0..100 {
        pipeline.submit(&format!("{word}-{n}"), "hello").await;
    }
    for n in 0..10 {
        let wanted = FAILURES + usize::from(n > 0);
        eventually("further failing calls", || async {
            let failed = pipeline.calls_to(word);
            if failed >= wanted { Ok(()) } else { Err(format!("{failed} calls")) }
        })
        .await;
        let row = pipeline.expect_ok(pipeline.submit_on(good, &format!("g{n}"), "hello").await).await;
        let sent_at = row.sent_at.expect("it was sent");
        assert!(sent_at - row.created_at < Duration::from_secs(1), "{row:?}");
        assert_eq!(row.attempts, 1);
    }
    eventually("a closed breaker", || async {
        let state = pipeline.breaker_state().await;
        if state == "closed" { Ok(()) } else { Err(state) }
    })
    .await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_line_spends_few_calls() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &[("dispatch.max_attempts", "1000")]).await;
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
