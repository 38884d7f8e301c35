//! Meta's budgets: a rolling number of calls of which the program is told nothing but a percent.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use meta_dispatch::domain::LineId;
use reqwest::StatusCode;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

/// The page of the pipeline's lines.
const PAGE: &str = "1001";

impl Pipeline {
    async fn play(&self, part: &str, rules: Value) {
        let url = format!("{}/simulator/{part}", self.simulator.origin());
        let answer = self.client.put(url).json(&rules).send().await.expect("the simulator answers");
        assert_eq!(answer.status(), StatusCode::OK);
    }

    /// Give the page its token, and play budgets.
    async fn play_budgets(&self, rules: Value) {
        self.play("pages", json!({ PAGE_TOKEN: { "page_id": PAGE, "app_id": "7" } })).await;
        self.play("budgets", rules).await;
    }

    async fn budgets(&self) -> Value {
        let url = format!("{}/simulator/budgets", self.simulator.origin());
        let answer = self.client.get(url).send().await.expect("the simulator answers");
        answer.json().await.expect("answers are JSON")
    }

    /// Submit so many texts as one batch, each to a recipient of its own.
    async fn submit_many(&self, line: LineId, priority: &str, name: &str, count: usize) {
        let messages: Vec<String> = (0..count)
            .map(|n| {
                json!({ "dest": format!("{name}{n}"), "mdata": "hello", "priority": priority }).to_string()
            })
            .collect();
        let answer = self
            .client
            .post(format!("http://{}/api/v2/messages/batch?app_id={line}", self.http))
            .bearer_auth(self.tsid.expose_secret())
            .header("content-type", "application/x-ndjson")
            .body(messages.join("\n"))
            .send()
            .await
            .expect("ingest answers");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.expect("the answers can be read");
    }

    async fn shown_line(&self, line: LineId) -> Value {
        let url = format!("http://{}/api/v2/lines/{line}", self.http);
        let request = self.client.get(url).bearer_auth(self.tsid.expose_secret());
        request.send().await.expect("it answers").json().await.expect("answers are JSON")
    }

    /// Wait until the budget has taken so many calls; return the calls that it refused.
    async fn until_accepted(&self, owner: &str, id: &str, calls: u64) -> u64 {
        eventually(&format!("{calls} calls"), || async {
            let budgets = self.budgets().await;
            let found = &budgets[owner][id];
            match found["accepted"].as_u64() {
                Some(accepted) if accepted >= calls => Ok(found["refused"].as_u64().unwrap_or_default()),
                _ => Err(budgets.to_string()),
            }
        })
        .await
    }
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn line_uses_its_budget_without_refusals(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.add_limited_line(Class::MESSENGER, PAGE_TOKEN, Some(80)).await;
    // Others use 60 calls of the window: 240 are left in 6 s.
    pipeline.play_budgets(json!({ "line": { "calls": 300, "window": "6s" }, "stranger": 0.2 })).await;
    let messages = 4 * 240 * 9 / 10;
    pipeline.submit_many(line, "bulk", "r", messages).await;
    pipeline.until_accepted("line", PAGE, 1).await;
    let begun = Instant::now();
    eventually("the limit in the list of lines", || async {
        let shown = pipeline.shown_line(line).await;
        let is_limited = shown["budget_use"].as_f64() > Some(80.0) && shown["limited_to"].is_number();
        if is_limited { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let refused = pipeline.until_accepted("line", PAGE, messages as u64).await;
    assert!(refused <= 2, "{refused} calls were refused");
    let windows = begun.elapsed().as_secs_f64() / 6.0;
    assert!(windows < 4.6, "four windows' messages took {windows} windows");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_an_app_share_its_budget() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let other = pipeline.add_line(Class::MESSENGER, PAGE_TOKEN).await;
    pipeline.play_budgets(json!({ "app": { "calls": 200, "window": "5s" } })).await;
    let begun = Instant::now();
    for (line, name) in [(pipeline.messenger, "a"), (other, "b")] {
        pipeline.submit_many(line, "bulk", name, 260).await;
    }
    let refused = pipeline.until_accepted("app", "7", 520).await;
    assert!(refused <= 2, "{refused} calls were refused");
    let windows = begun.elapsed().as_secs_f64() / 5.0;
    assert!(windows < 3.8, "the messages of 2.6 windows took {windows} windows");
    // Both lines were served in turn: neither ended long before the other.
    let calls = pipeline.simulator.calls();
    let half: Vec<&str> = calls.iter().take(calls.len() / 2).map(|call| &call.dest[..1]).collect();
    let of_first = half.iter().filter(|name| **name == "a").count();
    assert!((half.len() / 5..=half.len() * 4 / 5).contains(&of_first), "{of_first} of {}", half.len());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn high_message_goes_first_where_the_budget_is_short() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    pipeline.play_budgets(json!({ "line": { "calls": 200, "window": "8s" } })).await;
    pipeline.submit_many(pipeline.messenger, "bulk", "bulk", 600).await;
    pipeline.until_accepted("line", PAGE, 190).await;
    let begun = Instant::now();
    let high = pipeline.submit("ann", "hello").await;
    pipeline.expect_ok(high).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
    assert!(pipeline.simulator.calls().len() < 500, "bulk messages still wait");
    pipeline.stop().await;
}

#[rstest]
#[case::other_objects_and_types(json!({ "line": { "calls": 100_000, "window": "60s" }, "foreign": true }))]
#[case::headers_that_cannot_be_read(
    json!({ "line": { "calls": 100_000, "window": "60s" }, "app": { "calls": 100_000, "window": "60s" }, "headers": "broken" })
)]
#[tokio::test(flavor = "multi_thread")]
async fn is_not_limited_by(#[case] rules: Value) {
    let pipeline = Pipeline::start(EMBEDDED).await;
    pipeline.play_budgets(rules).await;
    let begun = Instant::now();
    pipeline.submit_many(pipeline.messenger, "bulk", "r", 200).await;
    pipeline.until_accepted("line", PAGE, 200).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    assert!(pipeline.shown_line(pipeline.messenger).await["limited_to"].is_null());
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn restarted_worker_begins_with_the_row(#[case] backend: Backend) {
    let mut pipeline = Pipeline::start(backend).await;
    pipeline.play_budgets(json!({ "line": { "calls": 200, "window": "6s" } })).await;
    pipeline.submit_many(pipeline.messenger, "bulk", "r", 700).await;
    // The window is known after its first calls have left it.
    pipeline.until_accepted("line", PAGE, 330).await;
    let line = pipeline.messenger;
    eventually("the row of the line", || async {
        let uses = pipeline.store.line_uses(&[line]).await.expect("the store answers");
        if uses[0].percent > Some(80.0) { Ok(()) } else { Err(format!("{uses:?}")) }
    })
    .await;
    pipeline.stop_processes().await;
    pipeline.start_processes().await;
    let refused = pipeline.until_accepted("line", PAGE, 700).await;
    assert!(refused <= 2, "{refused} calls were refused");
    pipeline.stop().await;
}
