//! A line that stops by itself is shown: its pauses to callers and operators, its failing calls in the metrics.

use std::time::Duration;

use meta_dispatch::domain::LineId;
use meta_dispatch::store::DirectoryStore;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::cli::program::Program;
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::serve::Serve;

#[rstest]
#[case::after_unknown_codes("code77777", 30)]
#[case::after_one_message("code368", 1)]
#[tokio::test(flavor = "multi_thread")]
async fn pause_is_shown_with_reason_and_end(#[case] word: &str, #[case] messages: usize) {
    let code = word.trim_start_matches("code");
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let line = pipeline.messenger;
    for n in 0..messages {
        pipeline.submit(&format!("{word}-r{n}"), "hello").await;
    }
    pipeline.until_paused(line, code).await;
    let url = format!("http://{}/api/v2/lines/{line}", pipeline.http);
    let asked = pipeline.client.get(url).bearer_auth(pipeline.tsid.expose_secret()).send().await;
    let shown: Value = asked.expect("ingest answers").json().await.expect("answers are JSON");
    assert_eq!(shown["state"], "paused", "{shown}");
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains(code)), "{shown}");
    assert!(shown["until"].is_string(), "{shown}");

    let program = Program::new().with("DATABASE__URL", pipeline.database_url());
    let listed = tokio::task::block_in_place(|| program.json("line list"));
    let listed = &listed["lines"][0];
    assert_eq!(listed["v8l_id"], json!(line));
    let state = listed["state"].as_str().expect("a text");
    assert!(state.starts_with("paused until 2") && state.contains(code), "{state}");
    pipeline.stop().await;
}

async fn until_counted(serve: &Serve, line: &str) {
    eventually(line, || async {
        let asked = reqwest::get(format!("http://127.0.0.1:{}/metrics", serve.admin)).await;
        let text = asked.map_err(|error| error.to_string())?.text().await.expect("it is complete");
        let of_lines = || text.lines().filter(|line| line.contains("_lines_")).collect::<Vec<_>>().join("\n");
        if text.lines().any(|counted| counted == line) { Ok(()) } else { Err(of_lines()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_lines_that_do_not_send() {
    let mut serve = Serve::start(Duration::ZERO).await;
    for n in 0..8 {
        serve.submit(&format!("code2-r{n}")).await;
    }
    until_counted(&serve, "meta_dispatch_lines_resting 1").await;
    until_counted(&serve, "meta_dispatch_lines_stopped{ends=\"somebody\"} 0").await;
    let hour = Some(Duration::from_secs(3_600));
    assert!(serve.store.pause_line(LineId(1), hour, "new page").await.expect("lines can be paused"));
    until_counted(&serve, "meta_dispatch_lines_stopped{ends=\"itself\"} 1").await;
    assert!(serve.store.pause_line(LineId(1), None, "new page").await.expect("lines can be paused"));
    until_counted(&serve, "meta_dispatch_lines_stopped{ends=\"somebody\"} 1").await;
    serve.stop().await;
}
