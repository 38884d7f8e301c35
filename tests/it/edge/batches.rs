//! Batches whose answers cannot be kept.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::serve::{PRINTED, Serve};

const LOGGED: usize = 600;
/// Answers of refused lines are longer than these: more than 1 MiB of answers.
const REFUSED: usize = 12_000;

struct Batch<'a> {
    http: String,
    tsid: &'a str,
    body: String,
}

impl Batch<'_> {
    async fn send(&self, query: &str) -> reqwest::Response {
        reqwest::Client::new()
            .post(format!("http://{}/api/v2/messages/batch?{query}", self.http))
            .bearer_auth(self.tsid)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(self.body.clone())
            .send()
            .await
            .expect("ingest answers")
    }

    /// Send the batch, and check that it is refused with a name under which it can be sent again; return that.
    async fn is_refused_by_name(&self) -> String {
        let refused = self.send("").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(RETRY_AFTER));
        let batch_id = refused.headers()["batch-id"].to_str().expect("a text").to_owned();
        let body: Value = refused.json().await.expect("an envelope");
        let detail = body["return"]["detail"].as_str().expect("a reason");
        assert!(detail.contains(&format!("batch_id={batch_id}")) && detail.contains("stream=1"), "{detail}");
        batch_id
    }

    /// Send the batch again, streamed; return the ids in its answers.
    async fn ids(&self, batch_id: &str) -> Vec<i64> {
        let answered = self.send(&format!("batch_id={batch_id}&stream=1")).await;
        assert_eq!(answered.headers()["batch-id"], batch_id);
        let answered = answered.text().await.expect("the answer is whole");
        let answers = answered.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        answers.filter_map(|answer| answer["cdls_id"].as_i64()).collect()
    }
}

/// Lines of which the first are logged, and the others refused.
fn lines(app_id: i64) -> String {
    let good = (0..LOGGED).map(|n| json!({"app_id": app_id, "dest": format!("d{n}"), "mdata": "hi"}));
    let bad = (0..REFUSED).map(|_| json!({"app_id": app_id, "dest": "", "mdata": "hi"}));
    good.chain(bad).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_without_room_names_itself_and_logs_nothing_twice() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &[("ingest.max_spool", "1 MiB")]).await;
    let batch = Batch {
        http: pipeline.http.to_string(),
        tsid: pipeline.tsid.expose_secret(),
        body: lines(pipeline.messenger.0),
    };
    let batch_id = batch.is_refused_by_name().await;
    eventually("the first lines in the log", || async {
        let rows = pipeline.rows().await.len();
        if rows == LOGGED { Ok(()) } else { Err(format!("{rows} rows")) }
    })
    .await;
    let mut logged: Vec<i64> = pipeline.rows().await.iter().map(|row| row.cdls_id.0).collect();
    let mut ids = batch.ids(&batch_id).await;
    logged.sort_unstable();
    ids.sort_unstable();
    assert_eq!(ids, logged);
    assert_eq!(pipeline.rows().await.len(), LOGGED);
    // The room of the refused batch is free again.
    let small =
        Batch { body: lines(pipeline.messenger.0).lines().take(3).collect::<Vec<_>>().join("\n"), ..batch };
    assert_eq!(small.send("").await.status(), StatusCode::OK);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_temporary_folder_is_told_and_streams_work() {
    let mut serve = Serve::start(Duration::ZERO).await;
    serve.restart_with(&[("TMPDIR", "/nonexistent")]).await;
    eventually("a warning", || async {
        let printed = std::fs::read_to_string(serve.folder.path().join(PRINTED)).expect("it is there");
        let is_told = printed.contains("temporary folder cannot be written") && printed.contains("TMPDIR");
        if is_told { Ok(()) } else { Err("no warning".to_owned()) }
    })
    .await;
    let batch = Batch { http: format!("127.0.0.1:{}", serve.http), tsid: &serve.tsid, body: lines(1) };
    let batch_id = batch.is_refused_by_name().await;
    assert_eq!(batch.ids(&batch_id).await.len(), LOGGED);
    serve.stop().await;
}
