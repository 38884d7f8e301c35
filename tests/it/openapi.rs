//! The OpenAPI document, held against the running program: each documented path answers, and each documented example is
//! what is answered, name by name.

use std::collections::BTreeSet;

use meta_dispatch::message::Class;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline};

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).expect("the document is JSON")
}

/// Names of an answer, down to the first message of a list.
fn names(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        found.insert(name.clone());
        let inner = if value.is_array() { &value[0] } else { value };
        found.extend(names(inner).into_iter().map(|inner| format!("{name}.{inner}")));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_call_is_answered_as_its_example_says() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "a", "mdata": "b", "cp_id": "spring"});
    let (_, logged) = pipeline.post(Class::Messenger, parameters).await;
    let id = logged["return"]["cdls_id"].to_string();
    let document = document();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let content = &operation["responses"]["200"]["content"]["application/json"];
            let Some(example) = content.get("example") else { continue };
            let path = path.replace("{cdls_id}", &id).replace("{cp_id}", "spring");
            let line = if path.contains("Instagram") { pipeline.instagram } else { pipeline.messenger };
            let mut body = operation["requestBody"]["content"]["application/json"]["example"].clone();
            let in_query = !body.is_object() && path.ends_with(".php");
            let query = if in_query { format!("?app_id={line}&dest=a&mdata=b") } else { String::new() };
            let method = method.to_uppercase().parse::<Method>().expect("a method");
            let mut request = reqwest::Client::new()
                .request(method.clone(), format!("http://{}{path}{query}", pipeline.http))
                .bearer_auth(pipeline.tsid.expose_secret());
            if body.is_object() {
                body["app_id"] = line.0.into();
                request = request.json(&body);
            }
            let answer = request.send().await.expect("ingest answers");
            assert_eq!(answer.status().as_u16(), 200, "{method} {path}");
            let answer: Value = answer.json().await.expect("answers are JSON");
            assert_eq!(names(&answer), names(example), "{method} {path}: {answer}");
            asked += 1;
        }
    }
    assert_eq!(asked, 10);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_on_the_admin_listener_and_every_path_of_it_exists() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let document = document();
    let admin = pipeline.admin()[0];
    let served = reqwest::get(format!("http://{admin}/openapi.json")).await.expect("admin answers");
    assert_eq!(served.json::<Value>().await.expect("JSON"), document);
    for path in document["paths"].as_object().expect("paths").keys() {
        let path = path.replace("{cdls_id}", "1").replace("{cp_id}", "c");
        let answer = reqwest::Client::new().patch(format!("http://{}{path}", pipeline.http)).send().await;
        assert_eq!(answer.expect("ingest answers").status().as_u16(), 405, "{path}");
    }
    pipeline.stop().await;
}
