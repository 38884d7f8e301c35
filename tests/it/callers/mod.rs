//! Requests as callers really make them: their bodies, their encodings, their ids, their files. What is taken, and what a
//! refusal says in words (docs/http-api.md, docs/batch.md).

mod bodies;
mod files;
mod ids;
mod names;
mod producers;

use meta_dispatch::store::LogRow;
use reqwest::header::CONTENT_TYPE;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::pipeline::Pipeline;

/// The answer to a request: the HTTP status, the counts of a batch, and the answers.
struct Answered {
    status: u16,
    duplicates: Option<u64>,
    not_utf8: Option<u64>,
    lines: Vec<Value>,
}

impl Answered {
    /// The `return` of a single answer.
    fn returned(&self) -> &Value {
        &self.lines[0]["return"]
    }

    fn detail(&self) -> &str {
        self.returned()["detail"].as_str().unwrap_or_default()
    }

    /// Status text and code of a refusal, whose detail has to hold these words.
    fn refusal(&self, words: &[&str]) -> (u16, String, i64) {
        let detail = self.detail();
        assert!(words.iter().all(|word| detail.contains(word)), "{detail:?} lacks one of {words:?}");
        let status = self.returned()["status"].as_str().expect("a text").to_owned();
        (self.status, status, self.returned()["status_code"].as_i64().expect("an integer"))
    }

    /// Line and code of each line of a batch; 0 for one that is logged.
    fn codes(&self) -> Vec<(i64, i64)> {
        let code = |line: &Value| line["status_code"].as_i64().unwrap_or(0);
        self.lines.iter().map(|line| (line["line"].as_i64().expect("a number"), code(line))).collect()
    }
}

fn malformed() -> (u16, String, i64) {
    (400, "Malformed request".to_owned(), 400)
}

fn invalid(name: &str) -> (u16, String, i64) {
    (400, format!("Invalid parameter: {name}"), 229)
}

impl Pipeline {
    /// Posts a body of this type, as the account; without a type where it is empty.
    async fn call(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Answered {
        let url = format!("http://{}/api/v2/{path}", self.http);
        let body: Vec<u8> = body.into();
        let mut request = self.client.post(url).bearer_auth(self.tsid.expose_secret()).body(body);
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let answer = request.send().await.expect("ingest answers");
        let count =
            |name: &str| answer.headers().get(name).map(|count| count.to_str().unwrap().parse().unwrap());
        let (duplicates, not_utf8) = (count("batch-duplicates"), count("batch-not-utf8"));
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("answers are complete");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("answers are JSON")).collect();
        Answered { status, duplicates, not_utf8, lines }
    }

    /// A single message on the Messenger line.
    async fn send(&self, content_type: &str, body: impl Into<Vec<u8>>) -> Answered {
        self.call(&format!("MakeMessenger.php?app_id={}", self.messenger), content_type, body).await
    }

    async fn csv(&self, query: &str, body: impl Into<Vec<u8>>) -> Answered {
        let path = format!("messages/batch?app_id={}&{query}", self.messenger);
        self.call(path.trim_end_matches('&'), "text/csv", body).await
    }

    /// The newest row.
    async fn newest(&self) -> LogRow {
        self.rows().await.pop().expect("a row")
    }

    async fn texts(&self) -> Vec<(String, String)> {
        self.rows().await.into_iter().map(|row| (row.dest, row.mdata)).collect()
    }
}
