//! Answers of bounded size, and headers that count once.

use meta_dispatch::channel::Class;
use reqwest::RequestBuilder;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline};
use crate::support::without_detail;

/// A page of the log has so many bytes of rows, and some around them.
const PAGE: usize = 256 * 1024;
const AROUND: usize = 256;

fn get(pipeline: &Pipeline, path: &str) -> RequestBuilder {
    let url = format!("http://{}/api/v2/{path}", pipeline.http);
    pipeline.client.get(url).bearer_auth(pipeline.tsid.expose_secret())
}

async fn text(request: RequestBuilder) -> String {
    request.send().await.expect("ingest answers").text().await.expect("the answer is whole")
}

/// A control character is six bytes in JSON.
#[tokio::test(flavor = "multi_thread")]
async fn pages_and_exports_hold_all_rows_in_parts_of_bounded_bytes() {
    const ROWS: usize = 60;
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let long = format!("x{}", "\u{1}".repeat(1_999));
    for n in 0..ROWS {
        let (status, answer) = pipeline
            .post(
                Class::MESSENGER,
                json!({"app_id": pipeline.messenger.0, "dest": format!("d{n}"), "mdata": &long}),
            )
            .await;
        assert_eq!(status, 200, "{answer}");
    }
    let (mut seen, mut pages, mut after) = (0, 0, String::new());
    loop {
        let page = text(get(&pipeline, &format!("messages?limit=1000&after={after}"))).await;
        assert!(page.len() <= PAGE + AROUND, "{} bytes", page.len());
        let page: Value = serde_json::from_str(&page).expect("JSON");
        seen += page["messages"].as_array().expect("a list").len();
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ROWS);
    assert!(pages > 1, "the rows fit one page");

    let export = text(get(&pipeline, "messages/export?format=ndjson")).await;
    let dests = export.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["dest"].clone());
    assert_eq!(dests.collect::<Vec<_>>(), (0..ROWS).map(|n| json!(format!("d{n}"))).collect::<Vec<_>>());
    pipeline.stop().await;
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("ingest answers");
    let status = answer.status().as_u16();
    (status, without_detail(answer.json().await.expect("an envelope")))
}

#[tokio::test(flavor = "multi_thread")]
async fn header_that_counts_once_is_refused_where_two_differ() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let url = format!("http://{}/api/v2/MakeMessenger.php", pipeline.http);
    let request = |name: &str, values: &[&str]| {
        let parameters = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi"});
        let request = pipeline.client.post(&url).bearer_auth(pipeline.tsid.expose_secret()).json(&parameters);
        values.iter().fold(request, |request, value| request.header(name, *value))
    };
    let (status, refused) = answer(request("Idempotency-Key", &["a", "b"])).await;
    assert_eq!((status, &refused["return"]["status_code"]), (400, &json!(229)), "{refused}");
    assert_eq!(refused["return"]["status"], "Invalid parameter: Idempotency-Key");
    let (status, refused) = answer(request("Content-Encoding", &["identity", "gzip"])).await;
    assert_eq!((status, &refused["return"]["status_code"]), (400, &json!(400)), "{refused}");
    assert!(pipeline.rows().await.is_empty());

    let first = answer(request("Idempotency-Key", &["a", "a"])).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(
        answer(request("Idempotency-Key", &["a"])).await.1["return"]["cdls_id"],
        first.1["return"]["cdls_id"]
    );
    assert_eq!(answer(request("Content-Encoding", &["identity", "identity"])).await.0, 200);
    pipeline.stop().await;
}
