//! The OpenAPI document, held against the running program.

mod examples;
mod stage;

use std::collections::BTreeSet;

use meta_dispatch::api;
use meta_dispatch::domain::LineId;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::pipeline::{Backend, Pipeline};
use examples::{Request, answers, requests};
use stage::Stage;

fn document() -> Value {
    serde_json::from_str(&api::document()).expect("the document is JSON")
}

/// Every operation of the document, with its path and its method.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, operations)| {
        let operations = operations.as_object().expect("operations");
        operations.iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

#[test]
fn printed_document_matches_the_routes() {
    let printed = std::fs::read_to_string("docs/openapi.json").expect("it is part of the repository");
    assert!(
        printed == api::document(),
        "docs/openapi.json is out of date: `cargo run -- openapi > docs/openapi.json`"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn served_document_has_only_paths_that_exist() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let document = document();
    let admin = pipeline.admin()[0];
    let served = reqwest::get(format!("http://{admin}/openapi.json")).await.expect("admin answers");
    assert_eq!(served.headers()["content-type"], "application/json");
    assert_eq!(served.json::<Value>().await.expect("JSON"), document);
    for path in document["paths"].as_object().expect("paths").keys() {
        let path = path.replace("{cdls_id}", "1").replace("{cp_id}", "c").replace("{app_id}", "1");
        let path = path.replace("{dest}", "d");
        let answer = pipeline.client.patch(format!("http://{}{path}", pipeline.http)).send().await;
        assert_eq!(answer.expect("ingest answers").status().as_u16(), 405, "{path}");
    }
    pipeline.stop().await;
}

#[test]
fn operations_are_unique_and_references_resolve() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let names: Vec<&str> =
        operations(&document).filter_map(|(_, _, operation)| operation["operationId"].as_str()).collect();
    assert_eq!(names.len(), operations(&document).count());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    for reference in references(&document) {
        let pointer = reference.strip_prefix('#').expect("references stay in the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(values) => values.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_is_400_without_a_body() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let mut stream = TcpStream::connect(pipeline.http).await.expect("ingest listens");
    stream.write_all(b"GET /api/v2/messages/\x01 HTTP/1.1\r\n\r\n").await.expect("it can be written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_examples_match_real_answers() {
    let stage = Stage::set().await;
    let examples = answers(&stage.document);
    for example in examples.iter().filter(|example| example.http_status != 503) {
        stage.play(example).await;
    }
    stage.pipeline.execute("alter table account_token rename to away").await;
    for example in examples.iter().filter(|example| example.http_status == 503) {
        stage.play(example).await;
    }
    stage.pipeline.stop().await;
}

/// Word for word: the lines of the examples are the first two, and earlier requests log what later ones ask for.
#[tokio::test(flavor = "multi_thread")]
async fn request_examples_are_accepted() {
    let stage = Stage::set().await;
    assert_eq!((stage.pipeline.messenger, stage.pipeline.instagram), (LineId(1), LineId(2)));
    for Request { method, path, query, body } in requests(&stage.document) {
        let mut request = stage.call(&method, &format!("{path}?{query}"), stage.token(""));
        if let Some((content_type, body)) = body {
            // Read by the call of Meta alone.
            request = request.header("X-Hub-Signature-256", stage::signature(&body));
            request = request.header(CONTENT_TYPE, content_type).body(body);
        }
        let answer = request.send().await.expect("ingest answers");
        let status = answer.status().as_u16();
        let answer = answer.text().await.expect("answers are complete");
        assert_eq!(status, 200, "{method} {path}: {answer}");
    }
    stage.pipeline.stop().await;
}
